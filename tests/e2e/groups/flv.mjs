// RTMP in, RTMP and FLV out: nothing is lost, nothing is changed, nobody waits for anybody.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { blankPage } from '../lib/browser.mjs';
import { AAC, BASELINE, endFfmpegs, ffmpeg, ffmpegDone, live, packets, pull, push } from '../lib/ffmpeg.mjs';
import { openHttp, openWebSocket } from '../lib/flv.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, startServer, tests } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

async function setup(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  cleanup(endFfmpegs);
  const players = [];
  const open = (how, url) => {
    const player = how(url);
    players.push(player);
    return player;
  };
  const tidy = async () => {
    for (const player of players.splice(0)) player.stop();
    await browsers.tidy();
    await endFfmpegs();
  };
  return { server, browsers, open, tidy };
}

const SOUND = ['-f', 'lavfi', '-i', 'sine=440:sample_rate=48000'];
const PICTURE = ['-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=30'];

/** Makes a clip of some seconds; its name. */
async function clip(name, seconds, codecs, { video = true, audio = true, newer = false } = {}) {
  const file = path.join(cache, `${name}.flv`);
  await ffmpegDone([...(video ? PICTURE : []), ...(audio ? SOUND : []), '-t', String(seconds), ...codecs, '-f', 'flv', file], { newer });
  return file;
}

const publishFile = (file, url, options, words = []) => ffmpeg(['-re', '-i', file, '-c', 'copy', ...words, '-f', 'flv', url], options);
const record = (url, options) => ffmpeg(['-i', url, '-c', 'copy', '-f', 'framemd5', '-'], options);
const listOf = async (file, options) => packets(await ffmpegDone(['-i', file, '-c', 'copy', '-f', 'framemd5', '-'], options));

/** What was recorded is what was sent: the same packets at the same distances, from `from` of the source's pictures on. */
function assertSame(recorded, source, { whole = true } = {}) {
  const starts = [];
  for (const stream of new Set(source.map(one => one.stream))) {
    const [got, sent] = [recorded, source].map(list => list.filter(one => one.stream === stream));
    assert.ok(got.length > 0, `nothing of stream ${stream} was recorded`);
    const first = sent.findIndex(one => one.md5 === got[0].md5);
    assert.ok(first >= 0, `the first recorded packet of stream ${stream} was never sent`);
    if (whole) assert.equal(first, 0, `${first} packets of stream ${stream} are missing at the start`);
    assert.equal(got.length, sent.length - first, `packets of stream ${stream}: ${got.length} recorded, ${sent.length} sent, ${first} of them before`);
    got.forEach((one, i) => {
      const other = sent[first + i];
      assert.equal(one.md5, other.md5, `packet ${i} of stream ${stream} differs`);
      assert.equal(one.pts - got[0].pts, other.pts - sent[first].pts, `packet ${i} of stream ${stream}: presented at another time`);
      assert.equal(one.dts - got[0].dts, other.dts - sent[first].dts, `packet ${i} of stream ${stream}: decoded at another time`);
    });
    starts.push(`${got.length} packets`);
  }
  return starts.join(' and ');
}

/** Publishes a clip to recorders that wait for it already; `{ source, results }`. */
async function relay(server, name, file, options) {
  const { rtmp, flv } = server.urls(name);
  const source = await listOf(file, options);
  const recorders = [rtmp, flv].map(url => record(url, options));
  await sleep(1500);
  const late = [];
  const publishing = publishFile(file, rtmp, options);
  setTimeout(() => late.push(record(rtmp, options), record(flv, options)), 3500);
  const { code, stderr } = await publishing.ended;
  assert.equal(code, 0, stderr);
  await sleep(1000);
  // An interrupted FFmpeg loses what it has not written yet; one whose stream ends writes it.
  const { clients } = await server.api('/api/v1/clients/?count=1000');
  await Promise.all(clients.filter(one => one.name === name).map(one => fetch(`${server.local}/api/v1/clients/${one.id}`, { method: 'DELETE' })));
  const lists = async some => Promise.all(some.map(async one => packets((await one.ended).stdout)));
  return { source, whole: await lists(recorders), late: await lists(late) };
}

/** A case: remuxing loses and changes nothing, also for one who comes late. */
function remuxes(name, title, codecs, options = {}) {
  return test(title, 60, async ({ server }) => {
    const file = await clip(name, 7, codecs, options);
    const { source, whole, late } = await relay(server, name, file, options);
    const said = whole.map(list => assertSame(list, source));
    late.forEach(list => assertSame(list, source, { whole: false }));
    return `${said[0]}, bit by bit over RTMP and HTTP-FLV; late players ${late.map(list => list.length)}`;
  });
}

/** Waits for FLV tags. */
const tagsOf = (player, condition, what) => until(what, 15_000, () => {
  if (player.error) throw player.error;
  const parsed = player.tags();
  return condition(parsed.tags) && parsed;
});

const H264 = ['-c:v', 'libx264', '-preset', 'veryfast', '-g', '30', '-bf', '2', '-b:v', '1M'];

group('flv', setup, [
  remuxes('remux', 'H.264 with B-frames and AAC, remuxed bit by bit', [...H264, '-c:a', 'aac']),
  remuxes('remux-mp3', 'H.264 and MP3, remuxed bit by bit', [...H264, '-c:a', 'libmp3lame', '-ar', '44100']),
  remuxes('remux-hevc', 'HEVC over Enhanced RTMP, remuxed bit by bit', ['-c:v', 'libx265', '-preset', 'ultrafast', '-g', '30', '-x265-params', 'bframes=2:log-level=error', '-c:a', 'aac'], { newer: true }),
  remuxes('remux-av1', 'AV1 and Opus over Enhanced RTMP, remuxed bit by bit', ['-c:v', 'libsvtav1', '-preset', '12', '-g', '30', '-svtav1-params', 'pred-struct=1:rc=2', '-b:v', '600k', '-c:a', 'libopus'], { newer: true }),
  remuxes('remux-vp9', 'VP9 over Enhanced RTMP, remuxed bit by bit', ['-c:v', 'libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8', '-g', '30', '-b:v', '600k', '-c:a', 'aac'], { newer: true }),
  test('HTTP-FLV and WebSocket-FLV carry the same bytes', 40, async ({ server, open }) => {
    const { rtmp, flv } = server.urls('same');
    const [http, ws] = [open(openHttp, flv), open(openWebSocket, flv)];
    await sleep(500);
    const publisher = push(rtmp, { size: '320x240' });
    await live(server, 'same', publisher);
    await sleep(3000);
    await publisher.stop();
    await sleep(500);
    const length = Math.min(http.length, ws.length);
    assert.ok(length > 30_000, `${http.length} bytes over HTTP, ${ws.length} over WebSocket: ${ws.error}`);
    assert.ok(http.bytes().subarray(0, length).equals(ws.bytes().subarray(0, length)), 'the bytes differ');
    assert.ok(Math.abs(http.length - ws.length) < 10_000, `${http.length} bytes over HTTP, ${ws.length} over WebSocket`);
    const { hasAudio, hasVideo, tags } = http.tags();
    assert.deepEqual([hasAudio, hasVideo, http.headers.get('content-type')], [true, true, 'video/x-flv']);
    return `${length} bytes, ${tags.length} tags, ${ws.messages} messages`;
  }),
  test('the header promises no track that never comes', 60, async ({ server, open }) => {
    for (const [name, source, flags] of [['flag-a', { video: null }, [true, false]], ['flag-v', { audio: null }, [false, true]]]) {
      const { rtmp, flv } = server.urls(name);
      const early = open(openHttp, flv);
      const publisher = push(rtmp, { size: '320x240', ...source });
      await live(server, name, publisher, { video: flags[1], audio: flags[0] });
      const late = open(openHttp, flv);
      for (const player of [early, late]) {
        const { hasAudio, hasVideo } = await tagsOf(player, tags => tags.length > 10, 'ten tags');
        assert.deepEqual([hasAudio, hasVideo], flags, name);
      }
      await publisher.stop();
    }
  }),
  test('metadata come before everything else, as the publisher sent them', 40, async ({ server, open }) => {
    const { rtmp, flv } = server.urls('meta');
    const file = await clip('meta', 20, [...H264, '-c:a', 'aac']);
    publishFile(file, rtmp, {}, ['-metadata', 'title=a name for the stream']);
    await live(server, 'meta');
    const { tags } = await tagsOf(open(openHttp, flv), tags => tags.length > 20, 'twenty tags');
    assert.equal(tags[0].kind, 'script');
    for (const word of ['onMetaData', 'a name for the stream', 'Lavf', 'videocodecid']) assert.ok(tags[0].body.includes(word), `${word} in the metadata`);
    assert.ok(!tags[0].body.includes('@setDataFrame'), '@setDataFrame is for servers');
    const said = execFileSync('ffprobe', ['-v', 'error', '-rw_timeout', '15000000', '-show_entries', 'format_tags=title', '-of', 'csv=p=0', rtmp], { encoding: 'utf8', timeout: 20_000 });
    assert.match(said, /a name for the stream/);
  }),
  test('a player that comes late starts with decoder configurations and a keyframe', 40, async ({ server, open }) => {
    const { rtmp, flv } = server.urls('late');
    const publisher = push(rtmp, { size: '320x240', video: [...BASELINE, '-g', '90'] });
    await live(server, 'late', publisher);
    await sleep(4500);
    const began = Date.now();
    const player = open(openHttp, flv);
    const { tags } = await tagsOf(player, tags => tags.length > 10, 'ten tags');
    const took = Date.now() - began;
    const media = tags.filter(tag => tag.kind !== 'script');
    const [picture, sound] = ['video', 'audio'].map(kind => media.filter(tag => tag.kind === kind));
    assert.ok(picture[0].isHeader && picture[1].keyframe, 'pictures start with a decoder configuration and a keyframe');
    assert.ok(sound[0].isHeader && !sound[1].isHeader, 'sound starts with a decoder configuration');
    assert.ok(took < 1500, `ten tags after ${took} ms`);
    await publisher.stop();
    return `ten tags after ${took} ms`;
  }),
  test('players go on when another publisher comes with another size', 60, async ({ server, open }) => {
    const { rtmp, flv } = server.urls('resize');
    const player = open(openHttp, flv);
    const watched = pull(rtmp, { seconds: 13, warmup: 1 });
    await sleep(500);
    const first = push(rtmp, { size: '320x240' });
    await live(server, 'resize', first);
    await sleep(4000);
    await first.stop();
    await sleep(1000);
    const before = player.tags().tags.length;
    const second = push(rtmp, { size: '640x360', audio: ['-c:a', 'aac', '-ar', '44100', '-ac', '1'] });
    await live(server, 'resize', second);
    await sleep(4000);
    const { tags } = player.tags();
    const after = tags.slice(before);
    assert.ok(after.length > 100, `${after.length} tags of the second publisher`);
    assert.equal(tags.filter(tag => tag.kind === 'video' && tag.isHeader).length, 2, 'a decoder configuration of each publisher');
    const media = tags.filter(tag => tag.kind !== 'script' && !tag.isHeader);
    for (const kind of ['audio', 'video']) {
      const times = media.filter(tag => tag.kind === kind).map(tag => tag.ms);
      assert.ok(times.every((ms, i) => !i || ms >= times[i - 1]), `${kind} never goes back in time`);
    }
    const seen = await watched;
    await second.stop();
    assert.ok(seen.frames > 150, JSON.stringify(seen));
    return `${tags.length} tags; over RTMP ${seen.frames} frames, ${seen.skipped} skipped, longest gap ${seen.longest_gap_ms} ms`;
  }),
  test('mpegts.js plays HTTP-FLV in Chromium', 60, async ({ server, browsers }) => {
    const { rtmp, flv } = server.urls('mpegts');
    const publisher = push(rtmp, { video: [...BASELINE, '-g', '30'] });
    await live(server, 'mpegts', publisher);
    const seen = await playWithMpegts(browsers, flv, 6);
    await publisher.stop();
    assert.deepEqual(seen.errors, []);
    assert.ok(seen.stamped > 60, JSON.stringify(seen));
    return `${seen.painted} frames painted in 6 s, first after ${seen.firstMs} ms, delay p50 ${seen.delay} ms`;
  }),
]);

async function playWithMpegts(browsers, url, seconds) {
  const blank = await blankPage();
  try {
    const page = await browsers.page('chromium', blank.url);
    await page.addScriptTag({ path: path.join(tests, 'node_modules/mpegts.js/dist/mpegts.js') });
    await page.evaluate(url => {
      const seen = (globalThis.seen = { painted: 0, ages: [], errors: [] });
      const video = document.createElement('video');
      Object.assign(video, { autoplay: true, muted: true, width: 640 });
      document.body.append(video);
      const began = performance.now();
      const note = () => {
        seen.firstMs ??= Math.round(performance.now() - began);
        seen.painted++;
        const stamp = Stamp.read(video);
        if (stamp.ok) seen.ages.push(stamp.age);
        video.requestVideoFrameCallback(note);
      };
      video.requestVideoFrameCallback(note);
      const player = mpegts.createPlayer({ type: 'flv', isLive: true, url }, { enableStashBuffer: false, liveBufferLatencyChasing: true });
      player.on(mpegts.Events.ERROR, (...words) => seen.errors.push(words.slice(0, 2).join('/')));
      player.attachMediaElement(video);
      player.load();
      player.play()?.catch?.(() => {});
    }, url);
    await until('a painted frame', 20_000, () => page.evaluate(() => globalThis.seen.painted));
    await page.evaluate(() => (globalThis.seen.ages.length = globalThis.seen.painted = 0));
    await sleep(seconds * 1000);
    const { ages, ...rest } = await page.evaluate(() => globalThis.seen);
    ages.sort((a, b) => a - b);
    return { ...rest, stamped: ages.length, delay: ages[ages.length >> 1] };
  } finally {
    blank.close();
  }
}

const LATENCY = { seconds: 8, warmup: 3, fast: true };
const SMOOTH = { seconds: 30, video: [...BASELINE, '-g', '30'], audio: AAC };

group('flv delay', setup, [
  test('what the server adds to FFmpeg’s own delay', 120, async ({ server }) => {
    const { rtmp, flv } = server.urls('delay');
    const fifo = path.join(cache, 'delay.fifo');
    fs.rmSync(fifo, { force: true });
    execFileSync('mkfifo', [fifo]);
    const alone = push(fifo, SMOOTH);
    const floor = await pull(fifo, LATENCY);
    await alone.stop();
    fs.rmSync(fifo);
    const publisher = push(rtmp, { ...SMOOTH, seconds: 60 });
    await live(server, 'delay', publisher);
    const overRtmp = await pull(rtmp, LATENCY);
    const overFlv = await pull(flv, LATENCY);
    await publisher.stop();
    for (const [what, seen] of Object.entries({ fifo: floor, rtmp: overRtmp, flv: overFlv })) {
      assert.ok(seen.frames > 100 && seen.delay_p50_ms !== null, `${what}: ${JSON.stringify(seen)}`);
      assert.ok(seen.delay_p50_ms < floor.delay_p50_ms + 1000, `${what} ${seen.delay_p50_ms} ms, a FIFO ${floor.delay_p50_ms} ms`);
    }
    const added = seen => `${seen.delay_p50_ms} (${seen.delay_p50_ms - floor.delay_p50_ms >= 0 ? '+' : ''}${seen.delay_p50_ms - floor.delay_p50_ms}) p95 ${seen.delay_p95_ms} ms, first frame ${seen.first_frame_ms} ms`;
    return `p50 by FIFO ${floor.delay_p50_ms} ms, RTMP ${added(overRtmp)}, HTTP-FLV ${added(overFlv)}`;
  }),
]);
