// What a browser remembers between calls: name, devices, and what was switched off. Private windows may refuse storage;
// then nothing is remembered.

const KEY = 'freshet.call';
const REJOIN_KEY = 'freshet.call.in';

/**
 * @typedef {object} Preferences
 * @property {string} name
 * @property {string} camera        device id, empty for the default
 * @property {string} microphone
 * @property {string} speaker
 * @property {boolean} cameraOn
 * @property {boolean} microphoneOn
 */

/** @type {Preferences} */
const DEFAULTS = { name: '', camera: '', microphone: '', speaker: '', cameraOn: true, microphoneOn: true };

/** @returns {Preferences} */
export function recall() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    const known = Object.entries(DEFAULTS).map(([key, usual]) => [key, typeof stored?.[key] === typeof usual ? stored[key] : usual]);
    return Object.fromEntries(known);
  } catch {
    return { ...DEFAULTS };
  }
}

/** @param {Partial<Preferences>} news */
export function remember(news) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...recall(), ...news }));
  } catch {
    // Storage is off: the page works without.
  }
}

/** Notes in this tab which room it is in, so that a reload goes straight back; empty: in none. @param {string} room */
export function rememberSeat(room) {
  try {
    sessionStorage.setItem(REJOIN_KEY, room);
  } catch {
    // As above.
  }
}

/** Whether this page is the reload of one that was in that room. @param {string} room */
export function wasReloadedIn(room) {
  const [navigation] = performance.getEntriesByType('navigation');
  if (!(navigation instanceof PerformanceNavigationTiming) || navigation.type !== 'reload') return false;
  try {
    return sessionStorage.getItem(REJOIN_KEY) === room;
  } catch {
    return false;
  }
}
