// Accessibility as axe-core judges it (WCAG 2 A and AA, and its best practices).
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Nothing serious or critical is wrong with what the page shows now; lesser findings are returned as text. */
export async function assertAccessible(page, where) {
  // Evaluated from outside, the script is not held back by the page's content policy.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run({ resultTypes: ['violations'] }));
  const texts = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.slice(0, 3).map(node => `${node.target.join(' ')} ${node.any[0]?.message ?? ''}`).join('; ')}`);
  const grave = texts.filter((_, i) => ['serious', 'critical'].includes(violations[i].impact));
  assert.deepEqual(grave, [], where);
  return texts.join(' | ');
}
