// RTMP in, WebRTC out: what encoders send, and what Chromium shows of it. A slow machine shows fewer frames and later;
// what is asserted is what is wrong on any machine, the figures are printed.
import assert from 'node:assert/strict';
import { live, push, streamOf } from '../lib/ffmpeg.mjs';
import { run } from '../lib/lab.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const SECONDS = 6;
const WARMUP_MS = 2500;
/** Real rates are printed; a machine three times slower than it should be still shows this much. */
const FEWEST_FRAMES = 0.4;
/** Encoder, lookahead, jitter buffer and a slow machine. What piles up is more. */
const LONGEST_DELAY_MS = 3000;
const LONGEST_PAUSE_MS = 600;

const x264 = (...words) => ['-c:v', 'libx264', '-preset', 'veryfast', '-sc_threshold', '0', '-b:v', '1500k', ...words];
const HIGH_WITH_B = x264('-profile:v', 'high', '-bf', '3', '-g', '60', '-x264-params', 'b-pyramid=normal:ref=3:b-adapt=0');

function assertPicture(seen, { fps = 30, size }) {
  assert.ok(seen.frames > SECONDS * fps * FEWEST_FRAMES, `${seen.frames} frames painted in ${SECONDS} s`);
  assert.ok(seen.unreadable <= seen.frames * 0.05, `${seen.unreadable} of ${seen.frames} frames cannot be read`);
  assert.ok(seen.colourError < 70, `colours are off by ${seen.colourError} of 255`);
  assert.ok(seen.delayP50 < LONGEST_DELAY_MS, `median delay ${seen.delayP50} ms`);
  if (size) assert.equal(seen.size, size);
}

function assertSound(seen) {
  assert.ok(Math.abs(seen.tone - 440) < 30, `loudest tone is ${seen.tone} Hz, 440 was sent`);
  assert.ok(seen.beeps >= SECONDS - 2, `${seen.beeps} beeps in ${SECONDS} s`);
  assert.ok(seen.longestPauseMs < LONGEST_PAUSE_MS, `silent for ${seen.longestPauseMs} ms`);
}

/** As the page hears it, with the player's own buffers. What the server says is measured below, to a few milliseconds. */
function assertLipSync(seen) {
  const starved = seen.concealedShare > 0.03 || seen.longestGapMs > 300;
  assert.ok(starved || Math.abs(seen.soundAfterPictureMs) <= 500, `sound ${seen.soundAfterPictureMs} ms after the picture`);
}

function figures(seen, stream) {
  const parts = [];
  if (seen.frames) {
    parts.push(`${(seen.frames / SECONDS).toFixed(1)} fps, ${seen.skipped} skipped (${seen.dropped} of ${seen.decoded} by the browser)`, `first frame ${seen.firstFrameMs} ms`);
    parts.push(`delay p50 ${seen.delayP50} p95 ${seen.delayP95} ms`, `longest gap ${seen.longestGapMs} ms`);
  }
  if (seen.beeps) parts.push(`longest silence ${seen.longestPauseMs} ms, made up ${((seen.concealedShare ?? 0) * 100).toFixed(1)} %`);
  if (seen.frames && seen.beeps) parts.push(`sound ${seen.soundAfterPictureMs >= 0 ? '+' : ''}${seen.soundAfterPictureMs} ms`);
  if (stream?.rtmp2rtc) parts.push(`video ${stream.rtmp2rtc.video}, ${Math.round(stream.rtmp2rtc.cpu_percent)} % of a core`);
  return parts.join(', ');
}

/** Publishes `source`, lets a viewer watch for a while: `{ seen, stream, publisher, player }`. */
async function watch({ server, browsers }, name, source, { waitMs = 0, warmupMs = WARMUP_MS, play = {} } = {}) {
  const { rtmp, whep } = server.urls(name);
  const publisher = push(rtmp, source);
  const kinds = { video: source.video !== null, audio: source.audio !== null };
  await live(server, name, publisher, kinds);
  await sleep(waitMs);
  const player = await browsers.play(whep, { mayStarve: !kinds.video, listen: kinds.audio, ...play });
  await sleep(warmupMs);
  const since = Date.now();
  await sleep(SECONDS * 1000);
  const seen = await player.measure(since);
  const stream = await streamOf(server, name);
  return { seen, stream, publisher, player };
}

/** A case: the stream is shown and heard as it should be; `more(watched, context)` looks closer. */
function shows(name, title, source, more = () => {}, options = {}) {
  return test(title, 60, async context => {
    const watched = await watch(context, name, source, options);
    const { seen, stream, player, publisher } = watched;
    try {
      if (source.video !== null) assertPicture(seen, { fps: source.shownFps ?? source.fps, size: source.size ?? '640x480' });
      if (source.audio !== null) assertSound(seen);
      if (source.video !== null && source.audio !== null) assertLipSync(seen);
      await more(watched, context);
    } catch (error) {
      error.message += `\n(${figures(seen, stream)}; ${JSON.stringify(stream?.rtmp2rtc)})`;
      throw error;
    }
    await player.close();
    const { code, log } = await publisher.stop();
    assert.equal(code, 0, `the publisher: ${log}`);
    return figures(seen, stream);
  });
}

const videoIs = mode => ({ stream }) => assert.equal(stream.rtmp2rtc?.video, mode, `rtmp2rtc: ${JSON.stringify(stream.rtmp2rtc)}`);

const lameAt = (rate, channels) => ['-c:a', 'libmp3lame', '-b:a', '96k', '-ar', String(rate), '-ac', String(channels)];
const aacAt = (rate, channels) => ['-c:a', 'aac', '-b:a', '80k', '-ar', String(rate), '-ac', String(channels)];
/** Full rate in even seconds, a third of it in odd ones. */
const VARIABLE = 'select=if(lt(mod(n\\,60)\\,30)\\,1\\,not(mod(n\\,3)))';

group('rtmp2rtc', serverAndClients(''), [
  shows('baseline', 'H.264 baseline and AAC', {}, videoIs('pass')),
  shows('bframes', 'H.264 High 720p with B-frames in a pyramid is shown without them', { size: '1280x720', video: HIGH_WITH_B }, videoIs('transcode')),
  shows('bframes360', 'H.264 High 360p with B-frames', { size: '640x360', video: HIGH_WITH_B }, videoIs('transcode')),
  shows('high', 'H.264 High without B-frames is passed on', { video: x264('-profile:v', 'high', '-bf', '0', '-g', '60') }, videoIs('pass')),
  shows('sliced', 'H.264 in several slices a frame', { video: x264('-tune', 'zerolatency', '-g', '60', '-x264-params', 'slices=4:sliced-threads=1') }, videoIs('pass')),
  shows('small', 'H.264 360p', { size: '640x360' }),
  shows('full', 'H.264 1080p', { size: '1920x1080', video: x264('-preset', 'ultrafast', '-tune', 'zerolatency', '-g', '60') }),
  shows('sound', 'a stream of sound alone', { video: null }),
  shows('silent', 'a stream of pictures alone', { audio: null }),
  shows('aac441', 'AAC of 44.1 kHz, mono', { audio: aacAt(44_100, 1) }),
  shows('aac48', 'AAC of 48 kHz, stereo', { audio: aacAt(48_000, 2) }),
  shows('aac22', 'AAC of 22.05 kHz, stereo', { audio: aacAt(22_050, 2) }),
  shows('mp3', 'MP3 of 44.1 kHz, stereo', { audio: lameAt(44_100, 2) }),
  shows('mp3mono', 'MP3 of 22.05 kHz, mono', { audio: lameAt(22_050, 1) }),
  shows('vfr', 'a frame rate that varies', { filter: VARIABLE, shownFps: 20, extra: ['-fps_mode', 'vfr'] }),
  shows('threehours', 'timestamps that start at three hours', { extra: ['-output_ts_offset', '10800'] }),
  shows('extended', 'timestamps that outgrow 24 bits', { extra: ['-output_ts_offset', '16771'] }),
  shows('wrap', 'timestamps that wrap at 31 bits', { extra: ['-output_ts_offset', '2147477.6'] }),
  shows('opus', 'Opus over Enhanced RTMP is passed on', { newer: true, audio: ['-c:a', 'libopus', '-b:a', '64k', '-ac', '2'] }),
  shows(
    'av1',
    'AV1 over Enhanced RTMP',
    { newer: true, size: '640x360', video: ['-c:v', 'libsvtav1', '-preset', '12', '-b:v', '800k', '-g', '60', '-svtav1-params', 'pred-struct=1:rc=2:lp=2'] },
    ({ seen }) => assert.equal(seen.codec, 'av1'),
  ),
  test('a viewer need not wait for the next keyframe of a 10 s GOP', 90, async context => {
    const { server, browsers } = context;
    const source = { seconds: 80, video: x264('-tune', 'zerolatency', '-bf', '0', '-g', '300', '-x264-params', 'sliced-threads=0') };
    const { player, seen } = await watch(context, 'longgop', source, { waitMs: 4000 });
    await player.close();
    const firsts = [seen.firstFrameMs];
    for (let i = 0; i < 4; i++) {
      const next = await browsers.play(server.urls('longgop').whep, { listen: false });
      firsts.push((await next.measure()).firstFrameMs);
      await next.close();
      await sleep(1100);
    }
    firsts.sort((a, b) => a - b);
    assertPicture(seen, { size: '640x480' });
    assertLipSync(seen);
    assert.ok(firsts[2] < 2500, `first frames after ${firsts} ms`);
    return `first frames after ${firsts} ms, then ${figures(seen)}`;
  }),
  test('a second viewer of a stream with B-frames starts at once', 60, async context => {
    const { player } = await watch(context, 'btwice', { size: '640x360', video: x264('-profile:v', 'high', '-bf', '3', '-g', '300') });
    const second = await context.browsers.play(context.server.urls('btwice').whep, { listen: false });
    const { firstFrameMs } = await second.measure();
    assert.ok(firstFrameMs < 2500, `first frame after ${firstFrameMs} ms`);
    await player.close();
    await second.close();
    return `first frame after ${firstFrameMs} ms`;
  }),
  test('the crossing ends a while after the last viewer', 60, async context => {
    const { server } = context;
    const { player } = await watch(context, 'idle', {}, { warmupMs: 0 });
    assert.ok((await streamOf(server, 'idle')).rtmp2rtc);
    await player.close();
    const began = Date.now();
    await until('the crossing has ended', 20_000, async () => !(await streamOf(server, 'idle')).rtmp2rtc);
    return `${((Date.now() - began) / 1000).toFixed(1)} s`;
  }),
  test('a viewer survives its publisher leaving and another coming with another size and sound', 60, async context => {
    const { server } = context;
    const { player, publisher } = await watch(context, 'again', {}, { warmupMs: 0 });
    await publisher.stop();
    await sleep(1500);
    const next = push(server.urls('again').rtmp, { size: '1280x720', video: x264('-profile:v', 'main', '-bf', '0', '-tune', 'zerolatency', '-g', '60'), audio: lameAt(44_100, 1) });
    await live(server, 'again', next);
    const began = Date.now();
    await until('the new size', 10_000, async () => (await player.measure()).size === '1280x720');
    const resumed = Date.now() - began;
    await sleep(WARMUP_MS);
    const since = Date.now();
    await sleep(SECONDS * 1000);
    const seen = await player.measure(since);
    assertPicture(seen, { size: '1280x720' });
    assertSound(seen);
    await player.close();
    return `the new size ${resumed} ms after the publisher is live, ${figures(seen)}`;
  }),
  test('a viewer that comes before the publisher starts by itself', 60, async ({ server, browsers }) => {
    const { rtmp, whep } = server.urls('early');
    const player = await browsers.play(whep, { mayStarve: true });
    const publisher = push(rtmp);
    await live(server, 'early', publisher);
    await until('a painted frame', 10_000, () => player.call('painted'));
    await sleep(WARMUP_MS);
    const since = Date.now();
    await sleep(SECONDS * 1000);
    const seen = await player.measure(since);
    assertPicture(seen, { size: '640x480' });
    assertSound(seen);
    await player.close();
    return figures(seen);
  }),
]);

/** Picture and sound by RTP time and sender reports: what the server says about them, free of the client's load. */
function inStep(name, title, source) {
  return test(`lips and sound by sender reports: ${title}`, 60, async ({ server }) => {
    const { rtmp, whep } = server.urls(name);
    const publisher = push(rtmp, { size: '640x360', ...source });
    await live(server, name, publisher);
    await sleep(1000);
    const seen = await run('aiortc-skew.py', whep, '--seconds', '8');
    assert.ok(seen.ok, JSON.stringify(seen));
    assert.ok(Math.abs(seen.skew_ms) <= 40 && seen.spread_ms <= 70, JSON.stringify(seen));
    assert.ok(seen.drift_ms < 5, `sender reports disagree by ${seen.drift_ms} ms`);
    return `sound ${seen.skew_ms} ms after the picture, ${seen.pairs} pairs within ${seen.spread_ms} ms`;
  });
}

group('rtmp2rtc sync', serverAndClients(''), [
  inStep('step44', 'AAC of 44.1 kHz', { audio: aacAt(44_100, 2) }),
  inStep('step22', 'AAC of 22.05 kHz', { audio: aacAt(22_050, 1) }),
  inStep('stepmp3', 'MP3 of 44.1 kHz', { audio: lameAt(44_100, 2) }),
  inStep('stepmp322', 'MP3 of 22.05 kHz', { audio: lameAt(22_050, 1) }),
  inStep('stepb', 'B-frames', { video: HIGH_WITH_B }),
  inStep('stepopus', 'Opus', { newer: true, audio: ['-c:a', 'libopus', '-b:a', '64k', '-ac', '2'] }),
]);

group('bframes=drop', serverAndClients('[rtmp2rtc]\nbframes = "drop"\n'), [
  test('B-frames are left out, what remains is shown in order', 60, async context => {
    const { seen, stream } = await watch(context, 'drop', { video: x264('-profile:v', 'high', '-bf', '2', '-g', '60', '-x264-params', 'b-pyramid=none:b-adapt=0') });
    videoIs('drop')({ stream });
    assertPicture(seen, { fps: 10 });
    assert.ok(seen.frames < SECONDS * 15, `${seen.frames} frames of ${SECONDS * 30} are shown: a third has no B-frame`);
    assertLipSync(seen);
    return figures(seen, stream);
  }),
]);

group('bframes=pass', serverAndClients('[rtmp2rtc]\nbframes = "pass"\n'), [
  test('B-frames are passed on, whatever the browser makes of them', 60, async context => {
    const { seen, stream } = await watch(context, 'pass', { video: x264('-profile:v', 'high', '-bf', '2', '-g', '60') });
    videoIs('pass')({ stream });
    assert.ok(seen.frames > 0, 'something is shown');
    assertSound(seen);
    return figures(seen, stream);
  }),
]);

