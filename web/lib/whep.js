// Plays a stream over WHEP (draft-ietf-wish-whep).
//
//   const client = new WhepClient({ endpoint: '/whep/live/cam' });
//   client.addEventListener('stream', () => (video.srcObject = client.stream));
//   client.play();
//
// `stream` fires again after every reconnection. A stream that nobody publishes yet is waited for.

import { Session, SessionError } from './session.js';
import { withStereoOpus } from './sdpfrag.js';

export { SessionError };

/** @typedef {import('./session.js').SessionOptions & {audio?: boolean, video?: boolean}} WhepOptions */

/** Fires `stream` besides `statechange`. */
export class WhepClient extends Session {
  /** @type {MediaStream | null} */
  stream = null;
  #kinds;

  /** @param {WhepOptions} options */
  constructor(options) {
    super(options);
    this.#kinds = [options.audio === false ? '' : 'audio', options.video === false ? '' : 'video'].filter(Boolean);
  }

  /** Starts; resolves with the first stream, rejects when there will be none. @returns {Promise<MediaStream>} */
  play() {
    const first = new Promise((resolve, reject) => {
      this.addEventListener('stream', () => resolve(/** @type {MediaStream} */ (this.stream)), { once: true });
      this.addEventListener('statechange', () => {
        if (this.state === 'failed') reject(this.error);
        if (this.state === 'closed') reject(new SessionError({ kind: 'closed', title: 'Closed before anything arrived' }));
      });
    });
    void this.run();
    return first;
  }

  /** @override @param {RTCPeerConnection} pc */
  prepare(pc) {
    for (const kind of this.#kinds) pc.addTransceiver(kind, { direction: 'recvonly' });
  }

  /** @override @param {RTCPeerConnection} pc */
  accepted(pc) {
    const receiving = pc.getTransceivers().filter((t) => t.currentDirection === 'recvonly' || t.currentDirection === 'sendrecv');
    this.stream = new MediaStream(receiving.map((t) => t.receiver.track));
    this.dispatchEvent(new Event('stream'));
  }

  /** @override @param {string} sdp */
  tuneOffer(sdp) {
    return withStereoOpus(sdp);
  }

  /** @override @param {SessionError} error @param {boolean} wasLive */
  passes(error, wasLive) {
    return super.passes(error, wasLive) || error.kind === 'stream-absent' || (error.status === 409 && error.retryAfterMs !== undefined);
  }
}
