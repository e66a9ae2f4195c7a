// The examples of signaling/protocol.md: JSON blocks of steps, with texts that begin with a dollar for what is not known.
import assert from 'node:assert/strict';
import fs from 'node:fs';

const protocol = new URL('../../../signaling/protocol.md', import.meta.url);

/** Every example as a list of `[verb, value]`. */
export function examples() {
  const blocks = fs.readFileSync(protocol, 'utf8').split('```json\n').slice(1).map(rest => rest.split('\n```')[0]);
  return blocks.map(block => JSON.parse(block).map(step => Object.entries(step)[0]));
}

/** A message with what is known put in. */
export function fillIn(value, known) {
  if (typeof value === 'string' && value.startsWith('$')) {
    assert.ok(known.has(value), `${value} is not known yet`);
    return known.get(value);
  }
  if (Array.isArray(value)) return value.map(item => fillIn(item, known));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, fillIn(member, known)]));
}

/** Learns from a message that came what the example left open. */
export function learn(expected, received, known) {
  if (typeof expected === 'string' && expected.startsWith('$')) {
    if (!known.has(expected)) known.set(expected, received);
  } else if (expected && received && typeof expected === 'object' && typeof received === 'object') {
    for (const [name, member] of Object.entries(expected)) learn(member, received[name], known);
  }
}
