// node --test: the parts of the call pages that need no browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';

const call = new URL('../../web/call/', import.meta.url).pathname;
const { bestGrid } = await import(`${call}/arrange.js`);
const { QualityWatch, grade } = await import(`${call}/quality.js`);

test('tiles fill wide and upright windows, and never reach out of them', () => {
  assert.equal(bestGrid(1, 1240, 660).columns, 1);
  assert.equal(bestGrid(2, 1240, 660).columns, 2);
  assert.equal(bestGrid(4, 1240, 660).columns, 2);
  assert.equal(bestGrid(9, 1240, 660).columns, 3);
  assert.equal(bestGrid(2, 366, 640).columns, 1);
  assert.equal(bestGrid(4, 366, 640).columns, 2);
  for (let count = 1; count <= 16; count++) {
    for (const [width, height] of [[1240, 660], [366, 640], [300, 300], [900, 200], [0, 0]]) {
      const grid = bestGrid(count, width, height);
      const rows = Math.ceil(count / grid.columns);
      assert.ok(grid.columns * grid.width + (grid.columns - 1) * 10 <= Math.max(width, 150), `${count} in ${width}×${height}: ${JSON.stringify(grid)}`);
      assert.ok(rows * grid.height + (rows - 1) * 10 <= Math.max(height, 150), `${count} in ${width}×${height}: ${JSON.stringify(grid)}`);
    }
  }
});

test('a connection is as good as its worst figure', () => {
  assert.equal(grade({ rttMs: 20, lossPercent: 0 }, 0), 'good');
  assert.equal(grade({}, 0), 'good');
  assert.equal(grade({ rttMs: 20, lossPercent: 3 }, 0), 'fair');
  assert.equal(grade({ rttMs: 300 }, 0), 'fair');
  assert.equal(grade({ rttMs: 20, lossPercent: 0 }, 100), 'fair');
  assert.equal(grade({ rttMs: 20, lossPercent: 12 }, 0), 'poor');
  assert.equal(grade({ rttMs: 700, lossPercent: 0 }, 0), 'poor');
  assert.equal(grade({ rttMs: 20, lossPercent: 0 }, 800), 'poor');
});

test('a connection without media is lost after three samples, and good again at once with media', async () => {
  let bytes = 0;
  const pc = { getStats: async () => new Map([['a', { id: 'a', type: 'inbound-rtp', kind: 'audio', timestamp: 1, bytesReceived: bytes, packetsLost: 0, packetsReceived: 1 }]]) };
  const watch = new QualityWatch();
  const grades = [];
  for (const more of [100, 100, 0, 0, 0, 100, 100, 100]) {
    bytes += more;
    grades.push((await watch.sample(pc, true)).grade);
  }
  assert.deepEqual(grades, ['good', 'good', 'good', 'good', 'lost', 'good', 'good', 'good']);
  assert.equal((await watch.sample(pc, false)).grade, 'unknown');
});
