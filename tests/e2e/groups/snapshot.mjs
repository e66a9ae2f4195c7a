// The last keyframe of a stream as a JPEG: the right picture, made once for all who ask, and refused with the reason.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { live, push, streamOf } from '../lib/ffmpeg.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { cache } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

/** The four patches of the stamped picture, in rows 6 and 7 of 12, three of 16 columns each from the third on. */
const PATCHES = [[220, 30, 30], [30, 180, 30], [30, 30, 220], [220, 220, 30]];

const snapshot = (server, name, more = '') => fetch(`${server.base}/api/v1/snapshot.jpg?stream=live/${name}${more}`);

/** Decodes a JPEG with FFmpeg; `{ width, height, at(x, y) }` with x and y from 0 to 1. */
function decoded(jpeg, name) {
  const file = path.join(cache, `snapshot-${name}.jpg`);
  fs.writeFileSync(file, jpeg);
  const size = execFileSync('ffprobe', ['-v', 'error', '-show_entries', 'stream=width,height,codec_name', '-of', 'csv=p=0', file], { encoding: 'utf8' }).trim();
  const [codec, width, height] = size.split(',').map((word, i) => (i ? Number(word) : word));
  assert.equal(codec, 'mjpeg');
  const rgb = execFileSync('ffmpeg', ['-v', 'error', '-i', file, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'], { maxBuffer: 1 << 26 });
  assert.equal(rgb.length, width * height * 3);
  return { width, height, at: (x, y) => [...rgb.subarray((Math.floor(y * height) * width + Math.floor(x * width)) * 3).subarray(0, 3)] };
}

/** The colours of the stamped picture are where they belong. How far off the worst one is. */
function assertStamped(picture) {
  const errors = PATCHES.map((patch, i) => {
    const seen = picture.at((2 + 3 * i + 1.5) / 16, 7 / 12);
    return Math.max(...patch.map((value, c) => Math.abs(value - seen[c])));
  });
  assert.ok(Math.max(...errors) < 30, `patches are off by ${errors.join(', ')}`);
  return Math.max(...errors);
}

const decodings = server => (fs.readFileSync(path.join(server.folder, 'log'), 'utf8').match(/snapshot decoded/g) ?? []).length;

group('snapshot', serverAndClients('[log]\nlevel = "debug"\n'), [
  test('of an RTMP stream, in two sizes, by name and by id', 60, async ({ server }) => {
    const publisher = push(server.urls('pushed').rtmp);
    const { id } = await live(server, 'pushed', publisher);
    const began = Date.now();
    const answer = await snapshot(server, 'pushed');
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('content-type'), 'image/jpeg');
    const whole = decoded(Buffer.from(await answer.arrayBuffer()), 'whole');
    const took = Date.now() - began;
    assert.deepEqual([whole.width, whole.height], [640, 480]);
    const off = assertStamped(whole);
    const small = await fetch(`${server.base}/api/v1/streams/${id}/snapshot.jpg?width=320`);
    const bytes = Buffer.from(await small.arrayBuffer());
    const picture = decoded(bytes, 'small');
    assert.deepEqual([picture.width, picture.height], [320, 240]);
    assertStamped(picture);
    for (const width of ['0', '99999', 'x']) assert.equal((await snapshot(server, 'pushed', `&width=${width}`)).status, 400);
    assert.equal((await streamOf(server, 'pushed')).viewers, 0, 'no viewer is counted');
    await publisher.stop();
    return `${took} ms with FFmpeg’s decoding, ${bytes.length} bytes at 320, colours off by ${off}`;
  }),
  test('of a browser’s stream; the crossing ends afterwards', 60, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls('browser').whip, { codec: 'h264' });
    await until('frames arrive', 10_000, async () => (await streamOf(server, 'browser'))?.frames > 0);
    const began = Date.now();
    const answer = await snapshot(server, 'browser', '&width=320');
    assert.equal(answer.status, 200, await answer.clone().text());
    const took = Date.now() - began;
    const off = assertStamped(decoded(Buffer.from(await answer.arrayBuffer()), 'browser'));
    assert.equal((await streamOf(server, 'browser')).viewers, 0);
    await until('the crossing ends', 15_000, () => /crossing from WebRTC ends/.test(server.log()));
    await publisher.close();
    return `${took} ms, colours off by ${off}`;
  }),
  test('200 requests at once cost one decoding', 60, async ({ server }) => {
    const publisher = push(server.urls('many').rtmp);
    await live(server, 'many', publisher);
    await sleep(500);
    const before = decodings(server);
    const began = Date.now();
    const answers = await Promise.all(Array.from({ length: 200 }, () => snapshot(server, 'many', '&width=320')));
    const bodies = await Promise.all(answers.map(answer => answer.arrayBuffer()));
    const took = Date.now() - began;
    assert.ok(answers.every(answer => answer.status === 200));
    assert.ok(bodies.every(body => Buffer.from(body).equals(Buffer.from(bodies[0]))), 'all are the same');
    // On a slow machine they may take longer than the second that a picture is good for.
    const made = decodings(server) - before;
    assert.ok(made >= 1 && made <= 1 + Math.floor(took / 1000), `${made} decodings in ${took} ms`);
    await publisher.stop();
    return `${made} decoded, ${took} ms for all`;
  }),
  test('other codecs, streams without picture and absent ones are refused with the reason', 60, async ({ server }) => {
    const av1 = push(server.urls('av1').rtmp, { size: '320x240', newer: true, video: ['-c:v', 'libsvtav1', '-preset', '12', '-g', '60', '-svtav1-params', 'pred-struct=1:rc=2', '-b:v', '400k'] });
    const sound = push(server.urls('sound').rtmp, { video: null });
    await live(server, 'av1', av1);
    await live(server, 'sound', sound, { video: false });
    const refusals = [];
    for (const [name, status, reason] of [['av1', 406, /AV1/], ['sound', 406, /no picture/], ['nobody', 404, /no stream/]]) {
      const refused = await snapshot(server, name);
      assert.equal(refused.status, status, name);
      const { detail } = await refused.json();
      assert.match(detail, reason);
      refusals.push(detail);
    }
    await av1.stop();
    await sound.stop();
    return refusals[0];
  }),
  test('the start page shows it', 60, async ({ server, browsers }) => {
    const publisher = push(server.urls('shown').rtmp);
    await live(server, 'shown', publisher);
    const page = await browsers.page('chromium', `${server.base}/`);
    await page.waitForSelector('li[data-stream="live/shown"] .thumbnail.loaded', { timeout: 15_000 });
    const width = await page.evaluate(() => document.querySelector('.thumbnail').naturalWidth);
    assert.equal(width, 192);
    await page.screenshot({ path: path.join(cache, 'start-thumbnail.png') });
    await publisher.stop();
  }),
]);

group('snapshot with tokens', serverAndClients('[play]\ntokens = ["look"]\n'), [
  test('who may not play may not look', 40, async ({ server }) => {
    const publisher = push(server.urls('guarded').rtmp, { size: '320x240' });
    await live(server, 'guarded', publisher);
    assert.equal((await snapshot(server, 'guarded')).status, 401);
    assert.equal((await snapshot(server, 'guarded', '&token=wrong')).status, 401);
    assert.equal((await snapshot(server, 'guarded', '&token=look')).status, 200);
    await publisher.stop();
  }),
]);
