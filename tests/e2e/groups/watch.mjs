// The play page where the media port is blocked for UDP and TCP, and the ways over HTTP that it goes on with.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { AAC, BASELINE, endFfmpegs, live, push } from '../lib/ffmpeg.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const nft = (...words) => promisify(execFile)('nft', words);

/** Drops everything that comes to that port, silently, as firewalls do. */
async function block(port, cleanup) {
  const table = `freshet-${port}`;
  await nft('add', 'table', 'inet', table);
  cleanup(() => nft('delete', 'table', 'inet', table));
  await nft('add', 'chain', 'inet', table, 'in', '{ type filter hook input priority 0; }');
  for (const protocol of ['udp', 'tcp']) await nft('add', 'rule', 'inet', table, 'in', protocol, 'dport', String(port), 'drop');
}

async function setup(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  await block(server.rtcPort, cleanup);
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  cleanup(endFfmpegs);
  const open = (route, kind = 'chromium') => browsers.page(kind, `${server.base}${route}`);
  const tidy = async () => {
    await browsers.tidy();
    await endFfmpegs();
  };
  return { server, browsers, open, tidy };
}

const text = (page, id) => page.evaluate(id => document.getElementById(id)?.textContent ?? '', id);
const stateOf = page => page.evaluate(() => document.body.dataset.state);
const viaOf = page => page.evaluate(() => document.querySelector('#ways [aria-pressed=true]')?.value);
const figure = (page, id) => page.evaluate(id => Number(document.getElementById(`stat-${id}`).dataset.value ?? NaN), id);

async function playing(page, via, timeoutMs = 20_000) {
  await until(`${via} plays`, timeoutMs, async () => (await stateOf(page)) === 'live' && (await viaOf(page)) === via).catch(async error => {
    throw new Error(`${error.message}; state ${await stateOf(page)}, by ${await viaOf(page)}, ${await text(page, 'failure-what')} ${await text(page, 'failure-details')}`);
  });
}

/** The picture moves and the clock of the element with it. */
async function assertMoves(page, seconds = 3) {
  const look = () => page.evaluate(() => {
    const video = document.querySelector('video');
    const sound = video.webkitAudioDecodedByteCount;
    const ahead = video.buffered.length ? video.buffered.end(video.buffered.length - 1) - video.currentTime : NaN;
    return { at: video.currentTime, ahead: ahead.toFixed(2), frames: video.getVideoPlaybackQuality().totalVideoFrames, size: `${video.videoWidth}x${video.videoHeight}`, sound };
  });
  const before = await look();
  await sleep(seconds * 1000);
  const after = await look();
  const frames = after.frames - before.frames;
  assert.ok(frames > seconds * 10 && after.at > before.at + seconds * 0.5, `${after.size}, ${after.ahead} s ahead, ${frames} frames and ${(after.at - before.at).toFixed(1)} s of the stream in ${seconds} s`);
  if (after.sound !== undefined) assert.ok(after.sound > before.sound, 'sound is decoded');
  return { frames, size: after.size };
}

/** Publishes over WHIP with the publish page. It alone is told that the HTTP port takes media over TCP. */
async function whip({ server, open }, name) {
  const page = await open('/publish');
  const { hostname, port } = new URL(server.base);
  await page.route('**/whip/**', route => route.continue({ url: `${route.request().url()}?eip=${hostname}:${port}` }));
  await page.goto(`${server.base}/publish?stream=live/${name}&source=test&resolution=640x360&autostart=true`);
  await page.waitForSelector('body[data-state=live]', { timeout: 15_000 });
  assert.match(await text(page, 'status'), /Live/);
  return page;
}

/** A case: the page is opened as anybody would, WebRTC fails, and it goes on over HTTP by itself. */
function stepsDown(kind, publish, name) {
  return test(`${kind}: the media port is blocked, the page says so and plays over HTTP (${name})`, 60, async context => {
    await publish(context, `down-${kind}-${name}`);
    const began = Date.now();
    const page = await context.open(`/play/live/down-${kind}-${name}`, kind);
    await until('another way', 15_000, async () => (await viaOf(page)) !== 'webrtc');
    const via = await viaOf(page);
    assert.equal(via, 'llhls', 'the next best way');
    const stepped = Date.now() - began;
    await playing(page, via);
    const took = Date.now() - began;
    const { frames } = await assertMoves(page);
    const told = `${await text(page, 'stepped-what')} ${await text(page, 'stepped-details')}`;
    assert.match(told, /neither over UDP nor over TCP.*Playing over/);
    const address = `127.0.0.1:${context.server.rtcPort}`;
    assert.ok(told.includes(`tried udp ${address}`) && told.includes(`tried tcp ${address}`), told);
    await page.screenshot({ path: path.join(cache, `watch-${kind}.png`) });
    return `${via} chosen after ${stepped} ms, plays after ${took} ms, ${frames} frames in 3 s; ${(await page.evaluate(() => [...document.querySelectorAll('#stepped-details li')].map(item => item.textContent))).join(', ')}`;
  });
}

const rtmp = async ({ server }, name) => live(server, name, push(server.urls(name).rtmp, { video: BASELINE, audio: AAC }));

/** A case: the stream ends and begins anew, with another size. */
function comesBack(via) {
  return test(`${via}: the publisher goes and comes back, and so does the picture`, 60, async context => {
    const { server } = context;
    const name = `back-${via}`;
    const first = push(server.urls(name).rtmp, { video: BASELINE, audio: AAC });
    await live(server, name, first);
    const page = await context.open(`/play/live/${name}?via=${via}`);
    await playing(page, via);
    await first.stop();
    await until('the page waits', 20_000, async () => (await stateOf(page)) === 'waiting');
    await live(server, name, push(server.urls(name).rtmp, { video: BASELINE, audio: AAC, size: '320x240' }));
    await playing(page, via);
    const { size } = await assertMoves(page);
    assert.equal(size, '320x240');
  });
}

group('watch', setup, [
  stepsDown('chromium', whip, 'whip'),
  stepsDown('firefox', rtmp, 'rtmp'),
  test('chromium: HTTP-FLV and LL-HLS by choice, their delays and figures, and back to WebRTC on demand', 60, async context => {
    await whip(context, 'chosen');
    const page = await context.open('/play/live/chosen?via=flv');
    const seen = [];
    for (const via of ['flv', 'llhls']) {
      if (via !== 'flv') await page.click(`#ways button[value=${via}]`);
      await playing(page, via);
      const { size } = await assertMoves(page);
      const delay = await until('a delay', 10_000, () => figure(page, 'delay'));
      assert.ok(delay > 0 && delay < 4000, `${via}: ${delay} ms`);
      assert.ok((await figure(page, 'bitrate')) > 50);
      assert.match(await text(page, 'stat-codec'), /H\.264 \+ AAC/);
      seen.push(`${via} ${size}, delay ${delay} ms`);
    }
    await page.click('#ways button[value=webrtc]');
    await until('WebRTC is tried', 5000, async () => (await viaOf(page)) === 'webrtc');
    return seen.join('; ');
  }),
  comesBack('flv'),
  comesBack('llhls'),
]);
