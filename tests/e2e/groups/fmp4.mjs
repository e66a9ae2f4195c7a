// Fragmented MP4: what a publisher sends is what the parts of low-latency HLS hold, packet by packet and on time.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { ffmpeg, ffmpegDone, live, packets, push } from '../lib/ffmpeg.mjs';
import { figures, playInChromium } from '../lib/hls.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { cache } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const SECONDS = 8;
const INPUTS = ['-f', 'lavfi', '-i', 'testsrc2=size=320x180:rate=30', '-f', 'lavfi', '-i', 'sine=440:sample_rate=48000'];
/** Times of sound in FLV are rounded to milliseconds, in MP4 they are smooth again. */
const MAX_SOUND_SHIFT_MS = 2;

/** The packets of a file, times in milliseconds. */
async function listOf(file) {
  const text = await ffmpegDone(['-i', file, '-c', 'copy', '-f', 'framemd5', '-'], { newer: true });
  const bases = new Map([...text.matchAll(/^#tb (\d+): (\d+)\/(\d+)/gm)].map(([, stream, top, bottom]) => [Number(stream), 1000 * top / bottom]));
  const kinds = new Map([...text.matchAll(/^#media_type (\d+): (\w+)/gm)].map(([, stream, kind]) => [Number(stream), kind]));
  return packets(text).map(one => ({ kind: kinds.get(one.stream), md5: one.md5, dts: one.dts * bases.get(one.stream), pts: one.pts * bases.get(one.stream) }));
}

/** Reads a stream part after part, as a player does, until `isOver`: `{ init, parts }` with the bytes of each. */
async function collect(url, isOver) {
  const parts = new Map();
  let text = '';
  let init;
  const take = async () => {
    init ??= /#EXT-X-MAP:URI="([^"]+)"/.exec(text)?.[1];
    for (const [, uri] of text.matchAll(/#EXT-X-PART:\S*URI="([^"]+)"/g)) {
      if (!parts.has(uri)) parts.set(uri, await bytesOf(new URL(uri, url)));
    }
  };
  for (let query = ''; !isOver();) {
    const response = await Promise.race([fetch(url + query), sleep(1000)]);
    if (!response) continue;
    assert.ok([200, 503].includes(response.status), `${response.status} for ${query}`);
    if (response.status === 503) continue;
    text = await response.text();
    await take();
    const next = Number(/#EXT-X-MEDIA-SEQUENCE:(\d+)/.exec(text)[1]) + [...text.matchAll(/^seg-/gm)].length;
    const open = [...text.slice(text.lastIndexOf('#EXTINF')).matchAll(/#EXT-X-PART:/g)].length;
    query = `?_HLS_msn=${next}&_HLS_part=${open}`;
  }
  text = await (await fetch(url)).text();
  await take();
  assertSegments(text, parts, await Promise.all([...text.matchAll(/^seg-\S+$/gm)].map(([uri]) => bytesOf(new URL(uri, url)))));
  return { init: await bytesOf(new URL(init, url)), parts };
}

async function bytesOf(url) {
  const response = await fetch(url);
  assert.equal(response.status, 200, `${url}`);
  return Buffer.from(await response.arrayBuffer());
}

/** Segments are their parts, one after the other. */
function assertSegments(text, parts, segments) {
  const listed = text.split(/^seg-\S+$/m).slice(0, -1).map(head => [...head.matchAll(/#EXT-X-PART:\S*URI="([^"]+)"/g)].map(([, uri]) => uri));
  assert.equal(listed.length, segments.length);
  listed.forEach((uris, i) => {
    if (uris.length > 0) assert.ok(Buffer.concat(uris.map(uri => parts.get(uri))).equals(segments[i]), `segment ${i} is not its parts`);
  });
}

/** From the first packet of each track on nothing is missing, changed, or at another time. */
function assertSame(got, sent) {
  const shift = got.find(one => one.kind === 'video').dts - sent.find(one => one.md5 === got.find(other => other.kind === 'video').md5).dts;
  return ['video', 'audio'].map(kind => {
    const [mine, theirs] = [got, sent].map(list => list.filter(one => one.kind === kind));
    const first = theirs.findIndex(one => one.md5 === mine[0].md5);
    assert.ok(first >= 0, `the first packet of ${kind} was never sent`);
    assert.equal(mine.length, theirs.length - first, `packets of ${kind}`);
    const allowed = kind === 'video' ? 0.02 : MAX_SOUND_SHIFT_MS;
    mine.forEach((one, i) => {
      const other = theirs[first + i];
      assert.equal(one.md5, other.md5, `packet ${i} of ${kind} differs`);
      for (const time of ['dts', 'pts']) {
        const error = one[time] - other[time] - shift;
        assert.ok(Math.abs(error) <= allowed, `packet ${i} of ${kind}: ${time} is off by ${error} ms`);
      }
    });
    return `${mine.length} of ${kind}`;
  });
}

/** A case: parts are what was sent. */
const carries = (name, title, codecs) => test(title, 60, async ({ server }) => {
  const file = path.join(cache, `fmp4-${name}.flv`);
  await ffmpegDone([...INPUTS, '-t', String(SECONDS), '-g', '30', ...codecs, '-f', 'flv', file], { newer: true });
  const publishing = ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', server.urls(name).rtmp], { newer: true });
  let isOver = false;
  publishing.ended.then(() => sleep(500)).then(() => { isOver = true; });
  await live(server, name, publishing);
  const { init, parts } = await collect(`${server.base}/hls/live/${name}/media.m3u8`, () => isOver);
  const numbers = [...parts.keys()].map(uri => Number(/part-(\d+)/.exec(uri)[1]));
  assert.ok(numbers.every((number, i) => i === 0 || number === numbers[i - 1] + 1), `parts ${numbers}`);
  assert.ok(parts.size >= 15, `${parts.size} parts`);
  const joined = path.join(cache, `fmp4-${name}.mp4`);
  fs.writeFileSync(joined, Buffer.concat([init, ...parts.values()]));
  const said = assertSame(await listOf(joined), await listOf(file));
  await ffmpegDone(['-xerror', '-i', joined, '-f', 'null', '-'], { newer: true });
  return `${said.join(' and ')} in ${parts.size} parts`;
});

group('fmp4', serverAndClients(''), [
  carries('h264', 'H.264 with B-frames and AAC', ['-c:v', 'libx264', '-preset', 'veryfast', '-bf', '2', '-c:a', 'aac']),
  carries('hevc', 'H.265 with B-frames and AAC', ['-c:v', 'libx265', '-preset', 'ultrafast', '-x265-params', 'bframes=2:log-level=error', '-c:a', 'aac', '-ar', '44100']),
  carries('av1', 'AV1 and Opus', ['-c:v', 'libsvtav1', '-preset', '12', '-svtav1-params', 'pred-struct=1:rc=2', '-b:v', '600k', '-c:a', 'libopus']),
  carries('vp9', 'VP9 and Opus', ['-c:v', 'libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8', '-b:v', '600k', '-c:a', 'libopus']),
  test('hls.js plays on where a publisher comes back with another picture', 80, async ({ server, browsers }) => {
    const { rtmp } = server.urls('back');
    const first = push(rtmp, { size: '640x480' });
    await live(server, 'back', first);
    let second;
    const comesBack = async () => {
      await first.stop();
      second = push(rtmp, { size: '480x360', fps: 25 });
      await live(server, 'back', second);
      // Soon, for what was before leaves the playlist.
      await until('both publishers are in the playlist', 20_000, async () => (await media()).match(/#EXT-X-MAP:/g)?.length === 2);
    };
    const url = `${server.base}/hls/live/back/index.m3u8`;
    const media = async () => (await fetch(url.replace('index', 'media'))).text();
    // The picture of the first one is seen for too short to be enough.
    const playing = playInChromium(browsers, 'hls.js', url, { seconds: 14, options: { liveSyncDuration: 2 } });
    await until('a segment', 15_000, async () => /^seg-/m.test(await media()));
    await sleep(2000);
    const [seen] = await Promise.all([playing, comesBack()]);
    assert.match(await (await fetch(url)).text(), /RESOLUTION=480x360,FRAME-RATE=25/);
    await second.stop();
    return figures(seen);
  }),
]);
