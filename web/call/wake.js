// Keeps a phone's screen on during a call: with it the browser would stop the camera.

let isWanted = false;
/** @type {WakeLockSentinel | null} */
let lock = null;

/** @param {boolean} wanted */
export function stayAwake(wanted) {
  isWanted = wanted;
  void update();
}

async function update() {
  // Browsers without it, or with an empty battery, refuse: the screen's own rules hold then.
  if (isWanted && !document.hidden) lock ??= await navigator.wakeLock?.request('screen').catch(() => null) ?? null;
  if (isWanted) return;
  await lock?.release().catch(() => undefined);
  lock = null;
}

// A page that was hidden has lost the lock.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) lock = null;
  else void update();
});
