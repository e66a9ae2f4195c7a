// A publisher behind a bad network, and what players of RTMP get of it.
import assert from 'node:assert/strict';
import { CLEAN, LAB_ADDRESS, endClients, exchangeInLab, run, startLab } from '../lib/lab.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const SECONDS = 14;

async function setup(cleanup) {
  const lab = await startLab();
  cleanup(() => lab.close());
  const server = await startServer({ address: LAB_ADDRESS });
  cleanup(() => server.stop());
  return { lab, server, tidy: endClients };
}

// How smooth it stays is checked in virtual time (`tests/sim`), where the machine has no say; here only that it goes on.
const lossy = loss =>
  test(`H.264 and Opus over RTMP at ${loss} % loss and 40±10 ms each way: pictures and sound go on together`, 60, async ({ lab, server }) => {
    const { whip, rtmp } = server.urls(`loss-${loss}`);
    let played;
    const onStep = async step => {
      if (step !== 'published') return;
      await lab.set({ both: { delay: 40, jitter: 10, loss } });
      played = run('av-pull.py', rtmp, '--seconds', String(SECONDS));
    };
    try {
      await exchangeInLab({ whip, publisher: { codec: 'h264' }, warmupMs: 0, measureMs: (SECONDS + 6) * 1000 }, onStep);
    } finally {
      await lab.set(CLEAN);
    }
    const seen = await played;
    const line = `${seen.pictures} pictures, ${seen.skipped} skipped, ${seen.unreadable} unreadable, longest gap ${seen.longest_gap_ms} ms, sound ${seen.sound_seconds} s and ${seen.skew_ms} ms after the picture (${seen.pairs} pairs within ${seen.spread_ms} ms)`;
    assert.ok(seen.pictures > SECONDS * 4 && seen.longest_gap_ms <= 4000, line);
    assert.ok(seen.sound_seconds > SECONDS * 0.6 && seen.backwards === 0, `${line}, ${seen.backwards} time stamps run backwards`);
    assert.ok(Math.abs(seen.skew_ms) <= 150, line);
    return line;
  });

group('rtc2rtmp loss', setup, [lossy(0), lossy(5), lossy(10)]);
