// Streams that come and go leave nothing behind.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { AAC, BASELINE, endFfmpegs, ffmpegDone } from '../lib/ffmpeg.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { binary, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const load = path.join(path.dirname(binary), 'freshet-load');
const EACH = 20;
const SECONDS = 3;
const GROWTH_MB = 24;

async function setup(cleanup) {
  const server = await startServer({ extra: '[rtc2rtmp]\nlinger_seconds = 0\n[rtmp2rtc]\nlinger_seconds = 0\n[hls]\nwindow_seconds = 4\ndispose_seconds = 2\n' });
  cleanup(() => server.stop());
  cleanup(endFfmpegs);
  return { server, tidy: endFfmpegs };
}

/** Twenty WHIP publishers with a viewer each, twenty RTMP publishers, and players of FLV and HLS of all; the names are new. */
async function round(server, number) {
  const names = kind => Array.from({ length: EACH }, (_, i) => `${kind}-${number}-${i}`);
  const address = kind => `${server.base}/${kind}/live/whip-${number}-{n}`;
  const sessions = promisify(execFile)(load, ['--whip', address('whip'), '--whep', address('whep'), '--publishers', String(EACH), '--viewers', '1', '--warmup', '1', '--duration', String(SECONDS), '--bitrate-kbps', '200', '--keyframe-interval', '1']);
  const outputs = names('rtmp').map(name => `[f=flv:onfail=ignore]${server.urls(name).rtmp}`);
  const pushes = ffmpegDone(['-re', '-f', 'lavfi', '-i', 'testsrc2=size=160x120:rate=15', '-f', 'lavfi', '-i', 'sine', '-t', String(SECONDS + 1), ...BASELINE, '-g', '15', ...AAC, '-map', '0:v', '-map', '1:a', '-flags', '+global_header', '-f', 'tee', outputs.join('|')]);
  await sleep(1500);
  const stop = new AbortController();
  const players = [...names('whip'), ...names('rtmp')].flatMap(name => [
    fetch(server.urls(name).flv, { signal: stop.signal }).then(response => response.arrayBuffer(), () => {}).catch(() => {}),
    fetch(`${server.base}/live/${name}.m3u8`, { signal: stop.signal }).then(response => response.text(), () => {}).catch(() => {}),
  ]);
  const seen = (await server.api('/api/v1/streams/?count=1000')).streams.filter(stream => stream.publish.active).length;
  await Promise.all([sessions, pushes]);
  stop.abort();
  await Promise.all(players);
  await until('no stream is left', 30_000, async () => (await server.api('/api/v1/streams/?count=1000')).streams.length === 0);
  return seen;
}

/** Memory once what lingers has gone. */
async function settled(server) {
  await sleep(4000);
  return server.rssMb();
}

group('leaks', setup, [
  test('two hundred streams come and go by WHIP and RTMP, with viewers, FLV and HLS: memory is back', 240, async ({ server }) => {
    const readings = [];
    let seen = 0;
    for (let number = 0; number < 5; number++) {
      seen += await round(server, number);
      readings.push(await settled(server));
    }
    // The allocator gives back when it likes: single readings differ by 20 MB and more, the lowest ones by what stays.
    const [before, after] = [readings.slice(0, 2), readings.slice(3)].map(some => Math.min(...some));
    const line = `${seen} streams seen, after each forty of them ${readings.map(mb => mb.toFixed(0)).join(', ')} MB`;
    assert.ok(seen > 100, line);
    assert.ok(after - before < GROWTH_MB, line);
    return line;
  }),
]);
