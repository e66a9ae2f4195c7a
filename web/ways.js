// The ways to watch a stream, best first, each behind the same few words: start, state, figures, end.

import { FlvPlayer } from './lib/flvplayer.js';
import { LlHlsPlayer } from './lib/llhls.js';
import { hasMediaSource } from './lib/mse.js';
import { NativeHlsPlayer, prefersNativeHls } from './lib/nativehls.js';
import { StatsMeter } from './lib/stats.js';
import { WhepClient } from './lib/whep.js';
import { endpoint, parameter, streamAddress } from './page.js';

/** @typedef {'webrtc' | 'llhls' | 'flv'} Via */
/** @typedef {import('./lib/stats.js').Figures} Figures */

/** @type {Record<Via, string>} */
export const NAMES = { webrtc: 'WebRTC', llhls: 'LL-HLS', flv: 'HTTP-FLV' };
/** With another way at hand nobody waits longer for a connection that does not come. */
const IMPATIENT_CONNECT_MS = 6000;

/**
 * Which ways this server and this browser have in common, best first.
 * @param {import('./page.js').ServerInfo} info
 * @returns {Via[]}
 */
export function waysOf(info) {
  const mse = hasMediaSource();
  return [
    'webrtc',
    .../** @type {Via[]} */ (info.ll_hls && (mse || prefersNativeHls()) ? ['llhls'] : []),
    .../** @type {Via[]} */ (info.http_flv && mse ? ['flv'] : []),
  ];
}

/** @param {string} name @returns {name is Via} */
export function isVia(name) {
  return name in NAMES;
}

/** One attempt to watch, whatever way. Fires `statechange`, and `media` when the element has got something to play. */
export class Way extends EventTarget {
  /** @type {WhepClient | import('./lib/httpplayer.js').HttpPlayer} */
  #client;
  #video;
  /** @type {{meter: StatsMeter, pc: RTCPeerConnection} | null} */
  #measured = null;

  /** @param {Via} via @param {string} stream @param {HTMLVideoElement} video @param {boolean} isPatient */
  constructor(via, stream, video, isPatient) {
    super();
    this.via = via;
    this.isPatient = isPatient;
    this.#video = video;
    const token = parameter('token');
    if (via === 'webrtc') this.#client = this.#webrtc(stream, token);
    else {
      const Player = via === 'flv' ? FlvPlayer : prefersNativeHls() ? NativeHlsPlayer : LlHlsPlayer;
      this.#client = new Player({ url: streamAddress(via, stream), video, token });
      this.#client.addEventListener('media', () => this.dispatchEvent(new Event('media')));
    }
    this.#client.addEventListener('statechange', () => this.dispatchEvent(new Event('statechange')));
  }

  get state() {
    return this.#client.state;
  }

  get error() {
    return this.#client.error;
  }

  start() {
    // Failures reach the page as a state.
    void Promise.resolve(this.#client.play()).catch(() => undefined);
  }

  close() {
    void this.#client.close();
    if (this.via === 'webrtc') this.#video.srcObject = null;
  }

  /** For a caller that sees media stand still: whether the session is still there. */
  probe() {
    if (this.#client instanceof WhepClient) void this.#client.probe();
  }

  /** @returns {Promise<Figures | null>} null: there is nothing to measure */
  async sample() {
    const client = this.#client;
    if (!(client instanceof WhepClient)) return client.state === 'live' ? client.sample() : null;
    const { pc } = client;
    if (!pc || client.state !== 'live') return null;
    if (this.#measured?.pc !== pc) this.#measured = { meter: new StatsMeter(pc), pc };
    const figures = await this.#measured.meter.sample();
    return client.pc === pc && this.state === 'live' ? figures : null;
  }

  /** @param {string} stream @param {string} token */
  #webrtc(stream, token) {
    const connectTimeoutMs = this.isPatient ? undefined : IMPATIENT_CONNECT_MS;
    const client = new WhepClient({ endpoint: endpoint('whep', stream), token, connectTimeoutMs });
    client.addEventListener('stream', () => {
      this.#video.srcObject = client.stream;
      this.dispatchEvent(new Event('media'));
    });
    return client;
  }
}
