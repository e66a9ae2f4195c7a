// Plays HLS with the browser's own player, which Safari has on every device and which needs no Media Source Extensions.

import { HttpPlayer } from './httpplayer.js';
import { SessionError } from './resource.js';

const HLS = 'application/vnd.apple.mpegurl';

/** Whether the browser's own player is the better choice: where it is the system's, as in Safari. */
export function prefersNativeHls() {
  const plays = document.createElement('video').canPlayType(HLS) !== '';
  return plays && (!('MediaSource' in globalThis) || 'ManagedMediaSource' in globalThis);
}

export class NativeHlsPlayer extends HttpPlayer {
  #token;

  /** @param {import('./httpplayer.js').PlayerOptions} options */
  constructor(options) {
    super(options);
    this.#token = options.token ?? '';
  }

  /** @override @param {() => void} onLive @returns {Promise<SessionError | null>} */
  async attempt(onLive) {
    const { video } = this;
    const address = new URL(this.url);
    // A media element sends no headers.
    if (this.#token) address.searchParams.set('token', this.#token);
    // It says nothing about a refusal either: ask first.
    await this.request(this.url, this.stopped);
    const over = new AbortController();
    const { signal } = over;
    try {
      return await new Promise((resolve) => {
        this.stopped.addEventListener('abort', () => resolve(null), { signal });
        video.addEventListener('error', () => resolve(new SessionError({ kind: 'media-error', title: 'The browser cannot play what the server sends', detail: video.error?.message })), { signal });
        video.addEventListener('ended', () => resolve(new SessionError({ kind: 'connection-lost', title: 'The stream has ended' })), { signal });
        video.addEventListener('loadeddata', onLive, { signal, once: true });
        video.addEventListener('progress', () => this.mediaBytes++, { signal });
        video.srcObject = null;
        video.src = address.href;
        this.dispatchEvent(new Event('media'));
      });
    } finally {
      over.abort();
      video.removeAttribute('src');
      video.load();
    }
  }

  /** The element does not tell how much it has fetched. @override @returns {import('./stats.js').Figures} */
  sample() {
    return { ...super.sample(), kbps: undefined };
  }
}
