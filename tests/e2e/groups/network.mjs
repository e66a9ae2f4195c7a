// A bad network between clients and server, both ways, publisher and viewer behind it.
import assert from 'node:assert/strict';
import { figures } from '../lib/expect.mjs';
import { CLEAN, LAB_ADDRESS, endClients, exchangeInLab, startLab } from '../lib/lab.mjs';
import { sleep } from '../lib/peers.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

async function setup(cleanup) {
  const lab = await startLab();
  cleanup(() => lab.close());
  const server = await startServer({ address: LAB_ADDRESS });
  cleanup(() => server.stop());
  return { lab, server, tidy: endClients };
}

/** An exchange over that wire. The wire is clean again afterwards. */
async function over({ lab, server }, name, settings, plan, onStep) {
  await lab.set(settings);
  try {
    return await exchangeInLab({ ...server.urls(name), publisher: { codec: 'vp8' }, player: {}, ...plan }, onStep);
  } finally {
    await lab.set(CLEAN);
  }
}

const line = seen => `${figures(seen)}, frozen ${seen.frozenMs} ms, ${seen.nacks} NACK, ${seen.plis} PLI`;
// How smooth it stays is checked in virtual time (`tests/sim`), where the machine has no say; here only that it goes on.
const BAD = { delay: 40, jitter: 10 };

group('network', setup, [
  test('a clean wire, for comparison', 60, async context => {
    const seen = await over(context, 'clean', CLEAN, { warmupMs: 3000, measureMs: 8000 });
    assert.ok(seen.longestGapMs <= 1000, line(seen));
    return line(seen);
  }),
  test('40±10 ms each way and 2 % loss: the stream goes on', 90, async context => {
    const seen = await over(context, 'loss-2', { both: { ...BAD, loss: 2 } }, { warmupMs: 5000, measureMs: 15_000 });
    assert.ok(seen.frames > 15 * 10 && seen.longestGapMs <= 3000, line(seen));
    return line(seen);
  }),
  test('40±10 ms each way and 10 % loss: the stream goes on', 90, async context => {
    const seen = await over(context, 'loss-10', { both: { ...BAD, loss: 10 } }, { warmupMs: 5000, measureMs: 15_000 });
    assert.ok(seen.frames > 15 * 8 && seen.frozenMs <= 5000, line(seen));
    return line(seen);
  }),
  test('bursts of loss, duplicates and reordering: the stream goes on', 90, async context => {
    const seen = await over(context, 'rough', { both: { ...BAD, loss: 2, burst: 4, dup: 2, reorder: 2 } }, { warmupMs: 5000, measureMs: 10_000 });
    assert.ok(seen.frames > 10 * 8 && seen.frozenMs <= 4000, line(seen));
    return line(seen);
  }),
  test('an uplink of 600 kbit/s settles without freezing', 90, async context => {
    const seen = await over(context, 'narrow', { up: { rate: 600, queue: 400 } }, { warmupMs: 15_000, measureMs: 10_000 });
    assert.ok(seen.frames > 10 * 6 && seen.longestGapMs <= 2000, line(seen));
    return `${line(seen)}, estimate ${Math.round(seen.publisher.uplinkBps / 1000)} kbit/s`;
  }),
  test('a clean uplink is used: the estimate leaves 300 kbit/s', 60, async context => {
    const seen = await over(context, 'wide', CLEAN, { warmupMs: 4000, measureMs: 4000 });
    assert.ok(seen.publisher.uplinkBps > 400_000, `estimate ${seen.publisher.uplinkBps} bit/s`);
    return `${Math.round(seen.publisher.uplinkBps / 1000)} kbit/s`;
  }),
  test('clients whose router gives them a new address play on', 90, async context => {
    const seen = await over(context, 'moved', CLEAN, { warmupMs: 3000, measureMs: 12_000 }, async step => {
      if (step !== 'measuring') return;
      await sleep(2000);
      await context.lab.set({ up: { nat: 1 } });
    });
    // A browser checks a quiet path every 2.5 s; media follows within a second of the check, for publisher and for viewer.
    assert.ok(seen.longestGapMs <= 9000 && seen.frames > 30 * 2, line(seen));
    return line(seen);
  }),
]);
