// The real pages in a real browser, as a person meets them. Screenshots are left in tests/.cache.
import assert from 'node:assert/strict';
import https from 'node:https';
import path from 'node:path';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

async function setup(cleanup) {
  const server = await startServer();
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
]);
