// What every player of a healthy stream must have seen, and how figures are printed.
//
// Bounds tell right from wrong on a machine that others use too: a stream that stands, tears or lags. How good it is, the
// printed figures tell, measured on a quiet machine.
import assert from 'node:assert/strict';

/** The stamped picture arrived, whole, in time and in its colours. */
export function assertPicture(seen, seconds, { size, fps = 30, unreadable = 0.02 } = {}) {
  assert.ok(seen.frames > seconds * fps * 0.4, `${seen.frames} frames painted in ${seconds} s`);
  assert.ok(seen.unreadable <= seen.frames * unreadable, `${seen.unreadable} of ${seen.frames} frames cannot be read`);
  assert.ok(seen.colourError < 60, `colours are off by ${seen.colourError} of 255`);
  assert.ok(seen.delayP50 < 500, `median delay ${seen.delayP50} ms, paint to paint`);
  if (size) assert.equal(seen.size, size);
}

/** The tone and the beeps arrived. */
export function assertSound(seen, seconds) {
  assert.ok(Math.abs(seen.tone - 440) < 30, `loudest tone is ${seen.tone} Hz, 440 was sent`);
  assert.ok(seen.beeps >= seconds - 4, `${seen.beeps} beeps in ${seconds} s`);
  assert.ok(seen.concealedShare < 0.25, `${(seen.concealedShare * 100).toFixed(1)} % of the sound was made up`);
}

/** Picture and sound of one moment come out together. */
export function assertLipSync(seen) {
  assert.ok(Math.abs(seen.soundAfterPictureMs) <= 250, `sound ${seen.soundAfterPictureMs} ms after the picture`);
}

export function figures(seen) {
  const parts = [`${seen.frames} frames`, `delay p50 ${seen.delayP50} p95 ${seen.delayP95} ms`, `longest gap ${seen.longestGapMs} ms`];
  if (seen.firstFrameMs !== undefined) parts.push(`first frame ${seen.firstFrameMs} ms`);
  if (seen.soundAfterPictureMs !== undefined) parts.push(`sound ${seen.soundAfterPictureMs >= 0 ? '+' : ''}${seen.soundAfterPictureMs} ms`);
  return parts.join(', ');
}
