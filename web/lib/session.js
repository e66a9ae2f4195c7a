// What WhipClient and WhepClient share: one wish ("publish this", "play that") kept alive over any number of
// connections. Retries what may pass by itself, stops at what will not, and always says which.

import { Connection } from './connection.js';
import { SessionError } from './resource.js';

export { SessionError } from './resource.js';

const BACKOFF_MS = [500, 1000, 2000, 4000, 5000];
const LONGEST_WAIT_MS = 30_000;
/** Refusals that describe the moment, not the request. */
const PASSING_STATUS = new Set([408, 429, 502, 503, 504]);
const PASSING_KIND = new Set(['unreachable', 'connection-lost']);

/**
 * `waiting`: will try again by itself, `error` says why. `failed`: will not.
 * @typedef {'idle' | 'connecting' | 'waiting' | 'live' | 'failed' | 'closed'} SessionState
 */

/**
 * @typedef {object} SessionOptions
 * @property {string} endpoint  address of the WHIP or WHEP endpoint
 * @property {string} [token]   bearer token
 * @property {RTCIceServer[]} [iceServers]
 * @property {boolean} [retry]  whether to reconnect (true)
 */

/** Fires `statechange`. */
export class Session extends EventTarget {
  /** @type {SessionState} */
  state = 'idle';
  /** Why the state is `waiting` or `failed`. @type {SessionError | null} */
  error = null;
  #options;
  /** @type {Connection | null} */
  #connection = null;
  #stop = new AbortController();
  #wasLive = false;

  /** @param {SessionOptions} options */
  constructor(options) {
    super();
    this.#options = options;
  }

  /** The peer connection of the moment, for `getStats` and the like. */
  get pc() {
    return this.#connection?.pc ?? null;
  }

  /** Ends the session on both sides. Final: make a new client to start again. */
  async close() {
    if (this.state === 'closed') return;
    this.#stop.abort();
    this.#enter('closed', null);
    await this.#connection?.close();
    this.#connection = null;
  }

  /** Restarts ICE on the running session, as after a change of network; it happens by itself when ICE notices. */
  async restartIce() {
    await this.#connection?.restartIce();
  }

  /** Asks the server whether it still knows the session and reconnects if not; for callers that see media stand still. */
  async probe() {
    await this.#connection?.probe();
  }

  /** @param {RTCPeerConnection} _pc */
  prepare(_pc) {}

  /** @param {RTCPeerConnection} _pc */
  accepted(_pc) {}

  /** @param {string} sdp */
  tuneOffer(sdp) {
    return sdp;
  }

  /** Whether waiting can cure a refusal. @param {SessionError} error @param {boolean} wasLive */
  passes(error, wasLive) {
    return PASSING_STATUS.has(error.status) || PASSING_KIND.has(error.kind) || (wasLive && error.kind === 'ice-failed');
  }

  /** Runs until closed or refused for good. */
  async run() {
    const leave = () => void this.close();
    globalThis.addEventListener?.('pagehide', leave, { signal: this.#stop.signal });
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      if (this.state !== 'waiting') this.#enter('connecting', null);
      const error = await this.#connectOnce(() => (attempt = 0));
      if (!error || this.#stop.signal.aborted) return;
      if (this.#options.retry === false || !this.passes(error, this.#wasLive)) {
        this.#enter('failed', error);
        return;
      }
      this.#enter('waiting', error);
      const backoff = BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] * (0.8 + 0.4 * Math.random());
      await this.#sleep(Math.min(error.retryAfterMs ?? backoff, LONGEST_WAIT_MS));
    }
  }

  /** @param {() => void} onLive @returns {Promise<SessionError | null>} */
  async #connectOnce(onLive) {
    const connection = new Connection({
      ...this.#options,
      prepare: (pc) => this.prepare(pc),
      tuneOffer: (sdp) => this.tuneOffer(sdp),
    });
    this.#connection = connection;
    try {
      await connection.open((pc) => this.accepted(pc));
      if (this.#stop.signal.aborted) return null;
      this.#wasLive = true;
      onLive();
      this.#enter('live', null);
      return await connection.ended;
    } catch (cause) {
      if (cause instanceof SessionError) return cause;
      const message = cause instanceof Error ? cause.message : String(cause);
      return new SessionError({ kind: 'browser', title: 'The browser could not set up the connection', detail: message });
    } finally {
      void connection.close();
    }
  }

  /** @param {number} ms @returns {Promise<void>} */
  #sleep(ms) {
    const { signal } = this.#stop;
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

  /** @param {SessionState} state @param {SessionError | null} error */
  #enter(state, error) {
    if (this.state === 'closed') return;
    this.state = state;
    this.error = error;
    this.dispatchEvent(new Event('statechange'));
  }
}
