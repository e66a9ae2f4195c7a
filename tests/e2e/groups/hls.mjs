// RTMP in, HLS out: nothing is lost or changed, playlists obey RFC 8216, and what nobody asks for goes away.
import assert from 'node:assert/strict';
import path from 'node:path';
import { BASELINE, ffmpeg, ffmpegDone, live, push, streamOf } from '../lib/ffmpeg.mjs';
import { figures, playInChromium, playlist, watch } from '../lib/hls.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { cache } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const DISPOSE_SECONDS = 4;
const WINDOW_SECONDS = 6;
const TOKEN = 's+e/c=';

const setup = extra => serverAndClients(`[hls]\nwindow_seconds = ${WINDOW_SECONDS}\ndispose_seconds = ${DISPOSE_SECONDS}\n${extra}`);

const urlOf = (server, name) => `${server.base}/live/${name}.m3u8`;

const PICTURE = ['-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=30'];
const SOUND = ['-f', 'lavfi', '-i', 'sine=440:sample_rate=48000'];
const H264 = ['-c:v', 'libx264', '-preset', 'veryfast', '-g', '60', '-bf', '2', '-b:v', '800k'];

const digest = async (file, track, options) => (await ffmpegDone(['-i', file, '-map', `0:${track}`, '-f', 'md5', '-'], options)).trim();

/** A case: what ffmpeg plays, decoded, is what was sent. */
function same(name, title, codecs, { tracks = ['v', 'a'], newer = false } = {}) {
  return test(title, 90, async ({ server }) => {
    const [file, copy] = [path.join(cache, `hls-${name}.flv`), path.join(cache, `hls-${name}.ts`)];
    const inputs = [...(tracks.includes('v') ? PICTURE : []), ...(tracks.includes('a') ? SOUND : [])];
    await ffmpegDone([...inputs, '-t', '13', ...codecs, '-f', 'flv', file], { newer });
    const { rtmp } = server.urls(name);
    ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', rtmp], { newer });
    await until('a publisher', 10_000, async () => (await streamOf(server, name))?.publish.active);
    const url = urlOf(server, name);
    const recorded = ffmpeg(['-live_start_index', '0', '-i', url, '-c', 'copy', copy], { newer });
    const { segments } = await watch(url, now => now.ended, 40_000);
    const { code, stderr } = await recorded.ended;
    assert.equal(code, 0, stderr);
    assert.ok(!/discontinuity|non monoton|Packet corrupt/i.test(stderr), stderr);
    assert.ok(!segments.some(segment => segment.discontinuous), 'nothing is discontinuous');
    for (const track of tracks) assert.equal(await digest(copy, track, { newer }), await digest(file, track, { newer }), `decoded ${track} differs`);
    const total = segments.reduce((sum, segment) => sum + segment.seconds, 0);
    assert.ok(Math.abs(total - 13) < 0.2, `${total} s in all segments`);
    return `${segments.length} segments of ${segments.map(segment => segment.seconds).join(', ')} s`;
  });
}

group('hls', setup(''), [
  same('plain', 'H.264 with B-frames and AAC, the same when decoded', [...H264, '-c:a', 'aac']),
  same('mp3', 'H.264 and MP3, the same when decoded', [...H264, '-c:a', 'libmp3lame', '-ar', '44100']),
  same('hevc', 'HEVC over Enhanced RTMP, the same when decoded', ['-c:v', 'libx265', '-preset', 'ultrafast', '-g', '60', '-x265-params', 'bframes=2:log-level=error', '-c:a', 'aac'], { newer: true }),
  same('sound', 'sound alone', ['-c:a', 'aac'], { tracks: ['a'] }),
  test('two requests at once are one client, which leaves when nobody asks', 60, async ({ server }) => {
    const publisher = push(server.urls('once').rtmp, { size: '320x240', seconds: 40 });
    await live(server, 'once', publisher);
    const url = urlOf(server, 'once');
    const began = Date.now();
    const both = await Promise.all([playlist(url), playlist(url)]);
    const took = Date.now() - began;
    assert.equal(both[0].text, both[1].text);
    const clients = async () => (await server.api('/api/v1/clients/?count=1000')).clients.filter(one => one.name === 'once' && !one.publish);
    const there = await clients();
    assert.deepEqual(there.map(one => [one.type, one.protocol]), [['hls-play', 'hls']]);
    await until('it leaves', (2 * WINDOW_SECONDS + 4) * 1000, async () => (await clients()).length === 0);
    await publisher.stop();
    return `both after ${took} ms, gone ${((Date.now() - began) / 1000).toFixed(1)} s later`;
  }),
  test('a publisher that returns goes on, one that does not ends the stream, and all is forgotten', 90, async ({ server }) => {
    const { rtmp } = server.urls('back');
    const url = urlOf(server, 'back');
    const first = push(rtmp, { size: '320x240' });
    await live(server, 'back', first);
    const before = (await watch(url, now => now.segments.length >= 2, 20_000)).last;
    await first.stop();
    await sleep(1500);
    const second = push(rtmp, { size: '480x360' });
    await live(server, 'back', second);
    const { last } = await watch(url, now => now.segments.some(segment => segment.discontinuous), 20_000);
    assert.ok(last.sequence >= before.sequence && !last.ended);
    await watch(url, (_, seen) => [...seen.values()].some((segment, i, all) => i > 0 && all[i - 1].discontinuous), 20_000);
    await second.stop();
    const end = await watch(url, now => now.ended, (DISPOSE_SECONDS + 4) * 1000);
    assert.equal([...end.last.text.matchAll(/DISCONTINUITY\n/g)].length + Number(/DISCONTINUITY-SEQUENCE:(\d+)/.exec(end.last.text)?.[1] ?? 0), 1);
    await until('it is forgotten', (WINDOW_SECONDS + 4) * 1000, async () => (await fetch(url)).status === 404);
    assert.equal(await streamOf(server, 'back'), undefined);
  }),
  test('segments have the headers that caches need, and unknown ones are not found', 40, async ({ server }) => {
    const publisher = push(server.urls('head').rtmp, { size: '320x240' });
    await live(server, 'head', publisher);
    const { segments } = await playlist(urlOf(server, 'head'));
    const url = new URL(segments[0].uri, urlOf(server, 'head'));
    for (const method of ['GET', 'HEAD']) {
      const response = await fetch(url, { method });
      const body = await response.arrayBuffer();
      const header = name => response.headers.get(name);
      assert.deepEqual([response.status, header('content-type'), header('cache-control'), header('access-control-allow-origin')], [200, 'video/mp2t', 'max-age=86400, immutable', '*']);
      assert.ok(Number(header('content-length')) % 188 === 0 && Number(header('content-length')) > 10_000);
      assert.equal(body.byteLength, method === 'GET' ? Number(header('content-length')) : 0);
    }
    for (const name of ['head-1.ts', 'head.ts', 'head-x.ts', 'nobody-1.ts', 'nobody.m3u8', '.m3u8']) {
      const response = await fetch(`${server.base}/live/${name}`);
      assert.equal(response.status, 404, name);
      assert.equal(response.headers.get('content-type'), 'application/problem+json', name);
    }
    assert.equal((await fetch(url, { method: 'POST' })).status, 405);
    await publisher.stop();
  }),
  plays('native', 'Chromium plays it natively'),
  plays('hls.js', 'hls.js plays it in Chromium'),
]);

group('hls tokens', setup(`\n[play]\ntokens = ["${TOKEN}"]\n`), [
  test('segments need the token too, and the playlist passes it on', 40, async ({ server }) => {
    const publisher = push(server.urls('secret').rtmp, { size: '320x240' });
    await live(server, 'secret', publisher);
    const url = urlOf(server, 'secret');
    assert.equal((await fetch(url)).status, 401);
    const { segments } = await playlist(`${url}?token=${encodeURIComponent(TOKEN)}`);
    const segment = new URL(segments[0].uri, url);
    assert.equal((await fetch(segment)).status, 200);
    segment.search = '';
    assert.equal((await fetch(segment)).status, 401);
    assert.equal((await fetch(segment, { headers: { authorization: `Bearer ${TOKEN}` } })).status, 200);
    await publisher.stop();
  }),
]);

group('hls always', setup('always = true\n'), [
  test('a stream is cut from its start without being asked for', 40, async ({ server }) => {
    const publisher = push(server.urls('always').rtmp, { size: '320x240' });
    await live(server, 'always', publisher);
    await sleep(6000);
    const { segments } = await playlist(urlOf(server, 'always'));
    assert.ok(segments.length >= 3, `${segments.length} segments`);
    await publisher.stop();
    await until('it is forgotten', (DISPOSE_SECONDS + WINDOW_SECONDS + 5) * 1000, async () => !(await streamOf(server, 'always')));
  }),
]);

/** A case: a page shows the moving picture. */
function plays(how, title) {
  return test(title, 75, async ({ server, browsers }) => {
    const name = how.replace('.', '');
    const publisher = push(server.urls(name).rtmp, { video: BASELINE });
    await live(server, name, publisher);
    const seen = await playInChromium(browsers, how, urlOf(server, name));
    await publisher.stop();
    return figures(seen);
  });
}
