// Pages as users of SRS have them, on a web site of their own, against this server and its srs.sdk.js.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { streamOf } from '../lib/ffmpeg.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { tests } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const folder = path.join(tests, 'fixtures/srs-site');
const TOKEN = 'a/b+c=';

/** The user's own web server: another origin, with a copy of the SDK as it is under SRS's address. */
async function setup(cleanup) {
  const context = await serverAndClients(`[publish]\ntokens = ["${TOKEN}"]\n`)(cleanup);
  const sdk = await (await fetch(`${context.server.base}/players/js/srs.sdk.js`)).text();
  const site = http.createServer(({ url }, response) => {
    const name = path.basename(new URL(url, 'http://site').pathname);
    const body = name === 'srs.sdk.js' ? sdk : name.endsWith('.html') && fs.readFileSync(path.join(folder, name));
    response.writeHead(body ? 200 : 404, { 'content-type': name.endsWith('.js') ? 'text/javascript' : 'text/html' });
    response.end(body || '');
  });
  await new Promise(done => site.listen(0, '127.0.0.1', done));
  cleanup(async () => site.close());
  const base = `http://127.0.0.1:${site.address().port}`;
  const open = (page, query) => context.browsers.page('chromium', `${base}/${page}?${new URLSearchParams(query)}`);
  return { ...context, open, api: new URL(context.server.base).host };
}

const text = (page, id) => page.evaluate(id => document.getElementById(id).textContent, id);

/** Waits for the session; throws what the page shows as its error. */
async function session(page) {
  return until('a session', 10_000, async () => {
    const error = await text(page, 'error');
    if (error) throw new Error(error);
    return text(page, 'sessionid');
  });
}

async function assertMoves(page) {
  const frames = () => page.evaluate(() => document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames);
  await until('a first frame', 10_000, frames);
  const before = await frames();
  await sleep(1500);
  const moved = (await frames()) - before;
  assert.ok(moved > 10, `${moved} frames in 1.5 s`);
  return moved;
}

const published = (server, name) => until(`${name} is published`, 5000, async () => (await streamOf(server, name))?.publish.active);
const gone = (server, name) => until(`${name} is gone`, 3000, async () => !(await streamOf(server, name))?.publish.active);

group('srs-sdk', setup, [
  test('webrtc:// addresses: publish with a token, play, publish again, close', 60, async ({ server, open, api }) => {
    const url = `webrtc://${api}/live/old`;
    const publisher = await open('publisher.html', { url: `${url}?token=${encodeURIComponent(TOKEN)}` });
    assert.match(await session(publisher), /^\w+:\S+$/);
    const player = await open('player.html', { url });
    await session(player);
    const moved = await assertMoves(player);
    assert.match(await text(publisher, 'vcodecs'), /^video\/H264, 90000HZ.*profile: 42/);
    assert.match(await text(publisher, 'acodecs'), /^audio\/opus, 48000HZ, channels: 2, pt: \d+$/i);
    await publisher.evaluate(() => startPublish());
    await until('frames of the second session', 10_000, () => assertMoves(player).then(() => true, () => false));
    const cameraIsOff = await publisher.evaluate(() => {
      const tracks = sdk.stream.getTracks();
      sdk.close();
      return tracks.length === 2 && tracks.every(track => track.readyState === 'ended');
    });
    assert.ok(cameraIsOff, 'close() gives the devices back');
    await gone(server, 'old');
    return `${moved} frames in 1.5 s`;
  }),
  test('a refusal rejects with the request, whose text tells code and reason', 30, async ({ open, api }) => {
    const page = await open('publisher.html', { url: `webrtc://${api}/live/none?token=wrong` });
    const error = await until('an error', 10_000, () => text(page, 'error'));
    assert.match(error, /^Refused with \d+: .*token/);
  }),
  test('WHIP and WHEP: publish, play, sound alone, DELETE on close', 60, async ({ server, open }) => {
    const token = encodeURIComponent(TOKEN);
    const whip = `${server.base}/rtc/v1/whip/?app=live&stream=new&token=${token}`;
    const publisher = await open('whip.html', { role: 'publish', url: whip });
    await session(publisher);
    await published(server, 'new');
    const whep = `${server.base}/rtc/v1/whep/?app=live&stream=new`;
    const player = await open('whip.html', { role: 'play', url: whep });
    await session(player);
    await assertMoves(player);
    const listener = await open('whip.html', { role: 'play', url: whep, options: '{"audioOnly":true}' });
    await session(listener);
    assert.deepEqual(await listener.evaluate(() => own.getTracks().map(track => track.kind)), ['audio']);
    await until('sound', 5000, () => listener.evaluate(async () => [...(await sdk.pc.getStats()).values()].some(report => report.type === 'inbound-rtp' && report.packetsReceived > 20)));
    const second = await open('whip.html', { role: 'publish', url: whip });
    const error = await until('an error', 10_000, () => text(second, 'error'));
    assert.match(error, /^409 .*stream-busy/s);
    const [deleted] = await Promise.all([
      publisher.waitForResponse(response => response.request().method() === 'DELETE'),
      publisher.evaluate(() => sdk.close()),
    ]);
    assert.equal(deleted.status(), 200);
    await gone(server, 'new');
  }),
  test('an https page of this server, an address without a port: found at the page\'s own port', 30, async ({ server, browsers }) => {
    const page = await browsers.page('chromium', 'about:blank');
    const html = fs.readFileSync(path.join(folder, 'publisher.html'), 'utf8').replace('js/srs.sdk.js', '/demos/js/srs.sdk.js');
    await page.route('**/mine.html?*', route => route.fulfill({ contentType: 'text/html', body: html }));
    const url = `webrtc://127.0.0.1/live/portless?secret=${encodeURIComponent(TOKEN)}`;
    await page.goto(`${server.secure}/mine.html?${new URLSearchParams({ url })}`);
    await session(page);
    await published(server, 'portless');
  }),
]);
