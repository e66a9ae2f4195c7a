// Sends this person's media: one WHIP session from the first track on, whatever is switched afterwards.

import { WhipClient, sendableVideoCodecs } from '../lib/whip.js';
import { mediaAddress, token } from './address.js';
import { parameter } from '../page.js';

/** A screen full of text needs more than a face. */
const SCREEN_BITRATE = 2_500_000;

/** Fires `statechange` as its WHIP client does. */
export class Publisher extends EventTarget {
  #local;
  #cameraBitrate;
  /** Where it goes, `app/name`; empty: nowhere. */
  stream = '';
  /** @type {WhipClient | null} */
  client = null;
  /** Tracks are swapped one after the other, so that the last wish wins. */
  #swaps = Promise.resolve();
  #closed = new AbortController();

  /** @param {import('./local.js').LocalMedia} local @param {number} cameraBitrate  bit/s */
  constructor(local, cameraBitrate) {
    super();
    this.#local = local;
    this.#cameraBitrate = cameraBitrate;
    local.addEventListener('change', () => this.#sync(), { signal: this.#closed.signal });
  }

  /** Sends there from now on. @param {string} stream */
  start(stream) {
    if (stream === this.stream && this.client && this.client.state !== 'failed') return;
    this.#stop();
    this.stream = stream;
    this.#sync();
  }

  close() {
    this.#closed.abort();
    this.stream = '';
    this.#stop();
  }

  #stop() {
    void this.client?.close();
    this.client = null;
  }

  #sync() {
    // Somebody without any device takes part by watching; a session that never sends would only time out.
    if (this.stream && !this.client && (this.#local.microphone || this.#local.picture)) this.#open();
    else this.#swaps = this.#swaps.then(() => this.#swap()).catch(() => undefined);
  }

  async #swap() {
    const { client } = this;
    const { microphone, picture, screen } = this.#local;
    await client?.setTrack('audio', microphone);
    await client?.setTrack('video', picture);
    await client?.setMaxBitrate(screen ? SCREEN_BITRATE : this.#cameraBitrate);
  }

  #open() {
    const { microphone, picture, screen } = this.#local;
    const client = new WhipClient({
      endpoint: mediaAddress('whip', this.stream),
      token,
      codec: codec(),
      maxBitrate: screen ? SCREEN_BITRATE : this.#cameraBitrate,
      reserve: ['audio', 'video'],
    });
    this.client = client;
    client.addEventListener('statechange', () => {
      if (this.client === client) this.dispatchEvent(new Event('statechange'));
    });
    client.publish(new MediaStream([microphone, picture].filter((track) => track !== null)));
  }
}

/** Firefox encodes H.264 by a plug-in that it may not have; every browser plays VP8. */
function codec() {
  const wished = parameter('codec').toUpperCase();
  if (wished) return wished;
  const isFirefox = navigator.userAgent.includes('Firefox/');
  return isFirefox && sendableVideoCodecs().includes('VP8') ? 'VP8' : '';
}
