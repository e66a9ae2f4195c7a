// The real pages in a real browser, as a person meets them. Screenshots are left in tests/.cache.
import assert from 'node:assert/strict';
import https from 'node:https';
import path from 'node:path';
import jsQR from 'jsqr';
import { assertAccessible } from '../lib/axe.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const ELSEWHERE = '192.0.2.7';

async function setup(cleanup) {
  // The second address is nobody's: pages for phones are told of it.
  const server = await startServer({ candidates: ['127.0.0.1', ELSEWHERE] });
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  const errors = [];
  const open = async route => {
    const page = await browsers.page('chromium', route.startsWith('https') ? route : `${server.base}${route}`);
    page.on('console', message => message.type() === 'error' && errors.push(`${message.text()} ${message.location().url}`));
    page.on('pageerror', error => errors.push(error.message));
    page.on('request', request => request.url().startsWith('http') && !/127\.0\.0\.1/.test(request.url()) && errors.push(`asks another host: ${request.url()}`));
    return page;
  };
  return { server, open, errors, tidy: () => browsers.tidy() };
}

const live = page => page.waitForSelector('body[data-state=live]', { timeout: 15_000 });
const shot = (page, name) => page.screenshot({ path: path.join(cache, `${name}.png`) });

/** The video element's clock runs and it has a picture. */
async function assertRuns(page) {
  const look = () => page.evaluate(() => {
    const video = document.querySelector('video');
    return { at: video.currentTime, width: video.videoWidth, frames: video.getVideoPlaybackQuality().totalVideoFrames };
  });
  const before = await look();
  await sleep(2000);
  const after = await look();
  assert.ok(after.width > 0 && after.at > before.at + 1, `video: ${JSON.stringify(after)}`);
  assert.ok(after.frames > before.frames + 20, `${after.frames - before.frames} frames in 2 s`);
  return after;
}

/** What a phone's camera would read off an image of the page. */
async function readCode(page, selector) {
  const pixels = await page.evaluate(async selector => {
    const image = document.querySelector(selector);
    await image.decode();
    const side = 400;
    const context = Object.assign(document.createElement('canvas'), { width: side, height: side }).getContext('2d');
    context.drawImage(image, 0, 0, side, side);
    return { side, data: [...context.getImageData(0, 0, side, side).data] };
  }, selector);
  return jsQR(Uint8ClampedArray.from(pixels.data), pixels.side, pixels.side)?.data;
}

group('pages', setup, [
  test('a person publishes: Publish on the start page, Start, then the play page', 60, async ({ open, errors }) => {
    const page = await open('/');
    await shot(page, 'start');
    await page.click('#publish');
    await page.waitForURL(/\/publish/);
    await page.click('#start');
    await live(page);
    const play = await open('/play/live/cam');
    await live(play);
    await assertRuns(play);
    await page.click('#stop');
    assert.deepEqual(errors.splice(0), [], 'no errors in the console, no other hosts');
  }),
  test('publish and play pages go live, the video plays', 60, async ({ open, server, errors }) => {
    const publish = await open('/publish?stream=live/page&source=test&autostart=true');
    await live(publish);
    const play = await open('/play?stream=live/page');
    await live(play);
    const { width } = await assertRuns(play);
    await shot(publish, 'publish');
    await shot(play, 'play');
    const { streams } = await server.api('/api/v1/streams/?count=1000');
    assert.ok(streams.some(one => one.url === '/live/page' && one.publish.active), 'the stream is listed');
    const start = await open('/');
    await until('the start page shows the stream', 5000, () => start.evaluate(() => document.body.innerText.includes('live/page')));
    await shot(start, 'start-live');
    assert.deepEqual(errors.splice(0), [], 'no errors in the console, no other hosts');
    return `video ${width} wide`;
  }),
  test('publish from camera and microphone', 60, async ({ open }) => {
    const publish = await open('/publish?stream=live/camera&autostart=true');
    await live(publish);
    const play = await open('/play/live/camera');
    await live(play);
    await assertRuns(play);
  }),
  test('the play page waits for a publisher and says so', 60, async ({ open }) => {
    const play = await open('/play?stream=live/later');
    await sleep(1500);
    assert.notEqual(await play.getAttribute('body', 'data-state'), 'live');
    await shot(play, 'play-waiting');
    const publish = await open('/publish?stream=live/later&source=test&autostart=true');
    await live(publish);
    await live(play);
    await assertRuns(play);
  }),
  test('the pages work over HTTPS with the certificate made at the first start', 60, async ({ open, server }) => {
    const publish = await open(`${server.secure}/publish?stream=live/secure&source=test&autostart=true`);
    await live(publish);
  }),
  test('one port speaks HTTP and HTTPS', 20, async ({ server }) => {
    const status = await new Promise((done, fail) => {
      https.get(`${server.base.replace('http', 'https')}/healthz`, { rejectUnauthorized: false }, response => done(response.statusCode)).on('error', fail);
    });
    assert.equal(status, 200);
    assert.equal((await fetch(`${server.secure.replace('https', 'http')}/healthz`)).status, 200);
  }),
  test('the start page: what is live, a call, a room, and a code that leads a phone to the HTTPS address', 60, async ({ open, server, errors }) => {
    const publish = await open('/publish?stream=live/start&source=test&autostart=true');
    await live(publish);
    const page = await open('/');
    await until('the stream is listed', 5000, () => page.evaluate(() => [...document.querySelectorAll('#streams a')].some(link => link.href.endsWith('/play/live/start'))));
    const address = `https://${ELSEWHERE}:${new URL(server.secure).port}/`;
    await page.waitForSelector('#phone:not([hidden]) img[src]');
    assert.equal(await readCode(page, '#qr'), address);
    const refused = await fetch(`${server.base}/api/v1/freshet/qr.svg?url=https://example.org/`);
    assert.equal(refused.status, 400);
    await page.fill('#room', 'tea');
    for (const [button, path] of [['#call', '/call/tea'], ['#meeting', '/room/tea']]) {
      const [request] = await Promise.all([page.waitForRequest(request => request.isNavigationRequest()), page.click(button)]);
      assert.equal(new URL(request.url()).pathname, path);
      await page.goBack();
      await page.fill('#room', 'tea');
    }
    // The pages of calls are another group's business.
    errors.splice(0);
  }),
  test('axe finds nothing serious, and nothing is wider than a phone', 90, async ({ open }) => {
    const publish = await open('/publish?stream=live/axe&source=test&autostart=true');
    await live(publish);
    const play = await open('/play/live/axe');
    await live(play);
    const lesser = [];
    for (const [name, page, schemes] of [
      ['play', play, ['light', 'dark']],
      ['publishing', publish, ['light']],
      ['start', await open('/'), ['dark', 'light']],
      ['publish', await open('/publish'), ['light']],
    ]) {
      for (const colorScheme of schemes) {
        await page.emulateMedia({ colorScheme });
        lesser.push(await assertAccessible(page, `${name}, ${colorScheme}`));
      }
      for (const [width, height] of [[1280, 900], [390, 844]]) {
        await page.setViewportSize({ width, height });
        assert.equal(await page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth)), 0, `${name} at ${width}`);
        await shot(page, `look-${name}-${width}`);
      }
      await page.close();
    }
    return lesser.filter(Boolean).join(' | ') || 'axe finds nothing at all';
  }),
]);
