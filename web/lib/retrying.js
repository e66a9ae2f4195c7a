// One wish ("publish this", "play that") kept alive over any number of attempts. Retries what may pass by itself, stops
// at what will not, and always says which.

import { SessionError } from './resource.js';

const BACKOFF_MS = [500, 1000, 2000, 4000, 5000];
const LONGEST_WAIT_MS = 30_000;
/** Refusals that describe the moment, not the request. */
const PASSING_STATUS = new Set([408, 429, 502, 503, 504]);
const PASSING_KIND = new Set(['unreachable', 'connection-lost']);

/**
 * `waiting`: will try again by itself, `error` says why. `failed`: will not.
 * @typedef {'idle' | 'connecting' | 'waiting' | 'live' | 'failed' | 'closed'} SessionState
 */

/** Fires `statechange`. */
export class Retrying extends EventTarget {
  /** @type {SessionState} */
  state = 'idle';
  /** Why the state is `waiting` or `failed`. @type {SessionError | null} */
  error = null;
  #retry;
  #stop = new AbortController();
  #wasLive = false;

  /** @param {boolean} retry  whether to try again at all */
  constructor(retry) {
    super();
    this.#retry = retry;
  }

  /** Aborted when nothing more is wanted. */
  get stopped() {
    return this.#stop.signal;
  }

  /** Final: make a new one to start again. */
  async close() {
    if (this.state === 'closed') return;
    this.#stop.abort();
    this.#enter('closed', null);
    await this.finish();
  }

  /** Gives back what the last attempt holds. */
  async finish() {}

  /**
   * One attempt, from nothing to its end.
   * @param {() => void} _onLive
   * @returns {Promise<SessionError | null>} why it ended; null when it was stopped
   */
  async attempt(_onLive) {
    return null;
  }

  /** Whether waiting can cure a refusal. @param {SessionError} error @param {boolean} _wasLive */
  passes(error, _wasLive) {
    return PASSING_STATUS.has(error.status) || PASSING_KIND.has(error.kind);
  }

  /** Runs until closed or refused for good. */
  async run() {
    const leave = () => void this.close();
    globalThis.addEventListener?.('pagehide', leave, { signal: this.stopped });
    for (let attempt = 0; !this.stopped.aborted; attempt++) {
      if (this.state !== 'waiting') this.#enter('connecting', null);
      const error = await this.#attemptOnce(() => (attempt = 0));
      if (!error || this.stopped.aborted) return;
      if (!this.#retry || !this.passes(error, this.#wasLive)) {
        this.#enter('failed', error);
        return;
      }
      this.#enter('waiting', error);
      const backoff = BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] * (0.8 + 0.4 * Math.random());
      await pause(Math.min(error.retryAfterMs ?? backoff, LONGEST_WAIT_MS), this.stopped);
    }
  }

  /** @param {() => void} onLive @returns {Promise<SessionError | null>} */
  async #attemptOnce(onLive) {
    try {
      return await this.attempt(() => {
        this.#wasLive = true;
        onLive();
        this.#enter('live', null);
      });
    } catch (cause) {
      if (cause instanceof SessionError) return cause;
      const message = cause instanceof Error ? cause.message : String(cause);
      return new SessionError({ kind: 'browser', title: 'The browser could not set up the connection', detail: message });
    }
  }

  /** @param {SessionState} state @param {SessionError | null} error */
  #enter(state, error) {
    if (this.state === 'closed') return;
    this.state = state;
    this.error = error;
    this.dispatchEvent(new Event('statechange'));
  }
}

/** Resolves after that time, or as soon as the signal says so. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal.addEventListener('abort', wake);
    if (signal.aborted) wake();
  });
}
