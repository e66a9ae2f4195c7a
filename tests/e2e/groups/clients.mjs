// Clients that are not Chromium: Firefox, aiortc, werift and FFmpeg's WHIP muxer. Those that never use loopback
// run in the namespace of the lab, over a clean wire.
import assert from 'node:assert/strict';
import { assertPicture, figures } from '../lib/expect.mjs';
import { LAB_ADDRESS, endClients, exchangeInLab, run, runInLab, startLab } from '../lib/lab.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

async function setupLab(cleanup) {
  const lab = await startLab();
  cleanup(() => lab.close());
  const server = await startServer({ address: LAB_ADDRESS });
  cleanup(() => server.stop());
  return { server, tidy: endClients };
}

async function setupLoopback(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  return { server, browsers, tidy: () => browsers.tidy() };
}

const SECONDS = 6;
const TIMES = { warmupMs: 2000, measureMs: SECONDS * 1000 };

group('clients', setupLab, [
  test('Firefox plays H.264 from Chromium', 90, async ({ server }) => {
    const seen = await exchangeInLab({ ...server.urls('ff-plays'), ...TIMES, publisher: { codec: 'h264' }, player: { browser: 'firefox', listen: false } });
    assert.equal(seen.codec, 'h264');
    assertPicture(seen, SECONDS);
    assert.ok(seen.audioPackets > SECONDS * 25, `${seen.audioPackets} packets of sound`);
    return figures(seen);
  }),
  test('Firefox publishes VP8 to Chromium', 90, async ({ server }) => {
    const seen = await exchangeInLab({ ...server.urls('ff-publishes'), ...TIMES, publisher: { browser: 'firefox', codec: 'vp8', device: true }, player: { listen: false } });
    assert.equal(seen.codec, 'vp8');
    assertPicture(seen, SECONDS);
    assert.ok(seen.audioPackets > SECONDS * 25, `${seen.audioPackets} packets of sound`);
    return figures(seen);
  }),
  test('aiortc publishes H.264 to aiortc and to Chromium', 60, async ({ server }) => {
    const { whip, whep } = server.urls('aiortc');
    const publishing = runInLab('aiortc-whip.py', whip, '--codec', 'H264', '--seconds', '16');
    await sleep(2500);
    const [heard, seen] = await Promise.all([
      runInLab('aiortc-whep.py', whep, '--codec', 'H264', '--seconds', '6'),
      exchangeInLab({ whep, ...TIMES, measureMs: 4000, player: { listen: false } }),
    ]);
    const published = await publishing;
    assert.deepEqual([published.ok, published.delete, heard.ok, heard.delete], [true, 200, true, 200], JSON.stringify({ published, heard }));
    assert.ok(heard.frames > 45 && heard.unreadable < heard.frames * 0.1, `aiortc saw ${heard.frames} frames, ${heard.unreadable} unreadable`);
    assert.ok(heard.sound_seconds > 3, `aiortc heard ${heard.sound_seconds} s`);
    assertPicture(seen, 4, { fps: 20 });
    return `aiortc ${heard.frames} frames, Chromium ${figures(seen)}`;
  }),
  test('aiortc plays VP8 from Chromium', 60, async ({ server }) => {
    const { whip, whep } = server.urls('aiortc-plays');
    let player;
    await exchangeInLab({ whip, publisher: { codec: 'vp8' }, warmupMs: 1000, measureMs: 12_000 }, step => {
      if (step === 'published') player = runInLab('aiortc-whep.py', whep, '--codec', 'VP8', '--seconds', '6');
    });
    const seen = await player;
    assert.ok(seen.ok && seen.frames > 60, JSON.stringify(seen));
    return `${seen.frames} frames, delay p50 ${seen.delay_p50_ms} ms`;
  }),
  test('werift sees one SSRC and unbroken numbers across a republish', 90, async ({ server }) => {
    const { whip, whep } = server.urls('werift');
    let player;
    await exchangeInLab({ whip, publisher: { codec: 'vp8' }, warmupMs: 9000, measureMs: 8000, republish: true }, step => {
      if (step === 'published') player = runInLab('werift-whep.mjs', whep, '--seconds', '14', '--codec', 'VP8');
    }).catch(error => { if (!player) throw error; });
    const { audio, video } = await player;
    for (const [kind, seen] of Object.entries({ audio, video })) {
      assert.ok(seen?.packets > 100, `${kind}: ${JSON.stringify(seen)}`);
      assert.equal(seen.ssrcs, 1, `${kind}: one SSRC`);
      assert.equal(seen.gaps, 0, `${kind}: sequence gaps`);
      assert.equal(seen.backwards, 0, `${kind}: timestamps that go backwards`);
    }
    assert.ok(video.longestPauseMs > 900 && video.longestPauseMs < 5000, `the pause was seen: ${video.longestPauseMs} ms`);
    // The clock of the stream stood still for nobody: timestamps advanced by about the pause.
    assert.ok(Math.abs(video.longestStepMs - video.longestPauseMs) < 1500, `timestamp step ${video.longestStepMs} ms for a pause of ${video.longestPauseMs} ms`);
    return `${video.packets} packets of video, pause ${video.longestPauseMs} ms, step ${video.longestStepMs} ms`;
  }),
]);

group('ffmpeg', setupLoopback, [
  test('the WHIP muxer of FFmpeg 9 publishes H.264 to Chromium', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('ffmpeg');
    const publishing = run('ffmpeg-whip.py', whip, '--seconds', '14');
    await sleep(2500);
    const player = await browsers.play(whep);
    await sleep(2000);
    const since = Date.now();
    await sleep(SECONDS * 1000);
    const seen = await player.measure(since);
    await player.close();
    const ended = await publishing;
    assert.equal(ended.code, 0, ended.log);
    // FFmpeg 9.0 takes the first line of any DELETE response for a chunk size and complains; that the session ended is
    // what counts.
    await until('the session is gone', 2000, async () => !(await server.api('/api/v1/streams/?count=1000')).streams.some(one => one.name === 'ffmpeg' && one.publish.active));
    assert.ok(seen.frames > SECONDS * 12 && seen.unreadable < seen.frames * 0.05, figures(seen));
    assert.ok(Math.abs(seen.tone - 440) < 30, `tone ${seen.tone} Hz`);
    return figures(seen);
  }),
]);
