// WebRTC in, RTMP and HTTP-FLV out: what a browser publishes, and what FFmpeg gets of it.
import assert from 'node:assert/strict';
import { ffmpegDone, pull, streamOf } from '../lib/ffmpeg.mjs';
import { run } from '../lib/lab.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const SECONDS = 6;
const line = seen => `${seen.frames} frames, ${seen.skipped} skipped, first after ${seen.first_frame_ms} ms, delay p50 ${seen.delay_p50_ms} p95 ${seen.delay_p95_ms} ms, longest gap ${seen.longest_gap_ms} ms, sound ${seen.sound_seconds} s`;

function assertPlays(seen) {
  assert.ok(seen.frames > SECONDS * 30 * 0.4, line(seen));
  assert.ok(seen.unreadable <= seen.frames * 0.1, `${seen.unreadable} of ${seen.frames} frames cannot be read`);
  assert.ok(seen.sound_seconds > SECONDS * 0.6, line(seen));
  assert.ok(seen.delay_p50_ms < 3000, line(seen));
}

/** Codec names and packets of what FFmpeg records in a few seconds. */
async function tracksOf(url) {
  const text = await ffmpegDone(['-i', url, '-t', '3', '-c', 'copy', '-f', 'framemd5', '-']);
  const codecs = [...text.matchAll(/^#codec_id \d+: (\w+)/gm)].map(([, name]) => name);
  return codecs.sort();
}

group('rtc2rtmp', serverAndClients(''), [
  test('H.264 and Opus of a browser over RTMP', 90, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('to-rtmp');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    const seen = await pull(rtmp, { seconds: SECONDS, fast: true });
    assertPlays(seen);
    await publisher.close();
    return line(seen);
  }),
  test('the same over HTTP-FLV, as H.264 and AAC, and a player that comes later starts at once', 90, async ({ server, browsers }) => {
    const { whip, flv } = server.urls('to-flv');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    assert.deepEqual(await tracksOf(flv), ['aac', 'h264']);
    const seen = await pull(flv, { seconds: SECONDS, fast: true });
    assertPlays(seen);
    await publisher.close();
    return line(seen);
  }),
  test('a player that comes before the publisher gets it from the beginning', 90, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('before');
    const played = pull(rtmp, { seconds: SECONDS, fast: true });
    await sleep(1500);
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    const seen = await played;
    assertPlays(seen);
    await publisher.close();
    return line(seen);
  }),
  test('players go on when the publisher leaves and another comes', 120, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('again');
    const first = await browsers.publish(whip, { codec: 'h264' });
    const played = pull(rtmp, { seconds: 14, fast: true });
    await sleep(4000);
    await first.close();
    const second = await browsers.publish(whip, { codec: 'h264' });
    const seen = await played;
    assert.ok(seen.frames > 14 * 30 * 0.3, line(seen));
    await second.close();
    return line(seen);
  }),
  test('pictures become smaller in mid-stream: players of RTMP and HLS go on', 120, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('smaller');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    // A player is there from the start; the playlist is asked for before the change and played after it.
    const playlist = `${server.base}/live/smaller.m3u8`;
    const player = run('av-pull.py', rtmp, '--seconds', '16');
    const plays = ({ type, url }) => type === 'rtmp-play' && url === '/live/smaller';
    await until('the RTMP player', 30_000, async () => (await server.api('/api/v1/clients/?count=100')).clients.some(plays));
    await until('a playlist', 20_000, async () => (await fetch(playlist)).ok);
    const hls = run('av-pull.py', playlist, '--seconds', '16', '--warmup', '1');
    await sleep(4000);
    const before = await streamOf(server, 'smaller');
    await publisher.call('halve');
    const [seen, cut] = await Promise.all([player, hls]);
    const after = await streamOf(server, 'smaller');
    const text = one => `${one.pictures} pictures of ${one.sizes.join(', ')}, longest gap ${one.longest_gap_ms} ms, sound ${one.sound_seconds} s, ${one.backwards} times backwards`;
    const line = `RTMP: ${text(seen)}; HLS: ${text(cut)}`;
    assert.ok(seen.sizes.includes('640x480') && seen.sizes.at(-1) === '320x240', line);
    assert.ok(cut.sizes.includes('640x480') && cut.sizes.at(-1) === '320x240', line);
    assert.ok(seen.backwards === 0 && seen.longest_gap_ms < 4000, line);
    const width = stream => stream.tracks.find(track => track.kind === 'video').width;
    assert.deepEqual([width(before), width(after)], [640, 320]);
    await publisher.close();
    return line;
  }),
  test('AV1 passes by Enhanced RTMP', 90, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('to-av1');
    const publisher = await browsers.publish(whip, { codec: 'av1' });
    const seen = await pull(rtmp, { seconds: SECONDS, fast: true, newer: true });
    assert.ok(seen.frames > SECONDS * 30 * 0.3 && seen.sound_seconds > SECONDS * 0.5, line(seen));
    await publisher.close();
    return line(seen);
  }),
  test('VP8 is refused with the reason', 60, async ({ server, browsers }) => {
    const { whip, flv } = server.urls('vp8');
    const publisher = await browsers.publish(whip, { codec: 'vp8' });
    await until('frames arrive', 10_000, async () => (await streamOf(server, 'vp8'))?.frames > 0);
    const refused = await fetch(flv);
    assert.equal(refused.status, 406);
    assert.match((await refused.json()).detail, /VP8/);
    const { tracks, outputs } = await streamOf(server, 'vp8');
    assert.deepEqual(Object.entries(outputs).map(([name, { available }]) => [name, available]), [['flv', false], ['hls', false], ['ll-hls', false], ['rtmp', false], ['webrtc', true]]);
    assert.match(outputs.rtmp.note, /VP8/);
    const video = tracks.find(track => track.kind === 'video');
    assert.deepEqual([video.width > 0, video.height > 0], [true, true], JSON.stringify(video));
    await publisher.close();
  }),
]);

group('rtc2rtmp opus', serverAndClients('[rtc2rtmp]\naudio = "opus"'), [
  test('Opus passes as it is by Enhanced RTMP; HLS says that it has no sound', 90, async ({ server, browsers }) => {
    const { whip, rtmp } = server.urls('opus');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    const seen = await pull(rtmp, { seconds: SECONDS, fast: true, newer: true });
    assertPlays(seen);
    const text = await ffmpegDone(['-i', rtmp, '-t', '3', '-c', 'copy', '-f', 'framemd5', '-'], { newer: true });
    assert.match(text, /#codec_id \d+: opus/);
    const { outputs } = await streamOf(server, 'opus');
    assert.ok(outputs.hls.available && /without sound/.test(outputs.hls.note) && outputs.rtmp.note === null, JSON.stringify(outputs));
    await publisher.close();
    return line(seen);
  }),
]);

group('rtc2rtmp off', serverAndClients('[rtc2rtmp]\nenabled = false'), [
  test('FLV of a WHIP stream is refused with the reason', 60, async ({ server, browsers }) => {
    const { whip, flv } = server.urls('off');
    const publisher = await browsers.publish(whip);
    const refused = await fetch(flv);
    assert.equal(refused.status, 409);
    assert.match((await refused.json()).detail, /rtc2rtmp is off/);
    await publisher.close();
  }),
]);
