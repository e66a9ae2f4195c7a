// What WhipClient and WhepClient share: a WebRTC session that is made again as often as it is lost.

import { Connection } from './connection.js';
import { SessionError } from './resource.js';
import { Retrying } from './retrying.js';

export { SessionError };

/** @typedef {import('./retrying.js').SessionState} SessionState */

/**
 * @typedef {object} SessionOptions
 * @property {string} endpoint  address of the WHIP or WHEP endpoint
 * @property {string} [token]   bearer token
 * @property {RTCIceServer[]} [iceServers]
 * @property {boolean} [retry]  whether to reconnect (true)
 * @property {number} [connectTimeoutMs]  how long ICE and DTLS may take together
 */

/** Fires `statechange`. */
export class Session extends Retrying {
  #options;
  /** @type {Connection | null} */
  #connection = null;

  /** @param {SessionOptions} options */
  constructor(options) {
    super(options.retry !== false);
    this.#options = options;
  }

  /** The peer connection of the moment, for `getStats` and the like. */
  get pc() {
    return this.#connection?.pc ?? null;
  }

  /** Ends the session on both sides. @override */
  async finish() {
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

  /** @override @param {SessionError} error @param {boolean} wasLive */
  passes(error, wasLive) {
    return super.passes(error, wasLive) || (wasLive && error.kind === 'ice-failed');
  }

  /** @override @param {() => void} onLive @returns {Promise<SessionError | null>} */
  async attempt(onLive) {
    if (typeof RTCPeerConnection === 'undefined') {
      throw new SessionError({ kind: 'no-webrtc', title: 'This browser has no WebRTC, or an extension has switched it off' });
    }
    const connection = new Connection({
      ...this.#options,
      prepare: (pc) => this.prepare(pc),
      tuneOffer: (sdp) => this.tuneOffer(sdp),
    });
    this.#connection = connection;
    try {
      await connection.open((pc) => this.accepted(pc));
      if (this.stopped.aborted) return null;
      onLive();
      return await connection.ended;
    } finally {
      void connection.close();
    }
  }
}
