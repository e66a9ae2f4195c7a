// Feeds a <video> by Media Source Extensions: one buffer per track, appends in order, the past thrown away.

import { SessionError } from './resource.js';

/** What has been watched is kept this long, for whoever pauses for a moment. */
const KEPT_BEHIND_S = 12;
const TRIM_INTERVAL_MS = 4000;
/** A browser that takes no more than this is stuck. */
const MAX_QUEUED_BYTES = 32 << 20;
const OPEN_TIMEOUT_MS = 5000;

/** Safari on phones has only the managed kind. @returns {typeof MediaSource | undefined} */
function mediaSource() {
  const { ManagedMediaSource, MediaSource: plain } = /** @type {any} */ (globalThis);
  return plain ?? ManagedMediaSource;
}

export function hasMediaSource() {
  return Boolean(mediaSource());
}

/** @param {string} mimeType */
export function canFeed(mimeType) {
  return mediaSource()?.isTypeSupported(mimeType) ?? false;
}

/**
 * @typedef {object} Lane
 * @property {SourceBuffer} buffer
 * @property {string} mimeType
 * @property {(Uint8Array | string)[]} queue  what is to be appended; a text is the type of what follows
 * @property {number} bytes
 */

export class MseFeed {
  #video;
  #source;
  #address;
  /** @type {Map<string, Lane>} */
  #lanes = new Map();
  #stop = new AbortController();
  /** @type {ReturnType<typeof setInterval>} */
  #trimmer;
  /** @type {(error: SessionError) => void} */
  #fail = () => undefined;
  /** Rejected when the browser cannot go on. @type {Promise<never>} */
  failed;

  /** @param {HTMLVideoElement} video */
  constructor(video) {
    const Source = mediaSource();
    if (!Source) throw new SessionError({ kind: 'no-mse', title: 'This browser has no Media Source Extensions' });
    this.#video = video;
    this.#source = new Source();
    this.#address = URL.createObjectURL(this.#source);
    this.failed = new Promise((_, reject) => (this.#fail = reject));
    // Nobody may be listening any more.
    this.failed.catch(() => undefined);
    const { signal } = this.#stop;
    video.addEventListener('error', () => this.#fail(mediaError(video.error?.message)), { signal });
    // The managed kind stays closed while the picture could be sent to a television.
    video.disableRemotePlayback = true;
    video.srcObject = null;
    video.src = this.#address;
    this.#trimmer = setInterval(() => this.#trim(), TRIM_INTERVAL_MS);
  }

  /** Resolves when tracks can be added. */
  async open() {
    if (this.#source.readyState !== 'open') {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(mediaError('the media source did not open')), OPEN_TIMEOUT_MS);
        this.#source.addEventListener('sourceopen', () => (clearTimeout(timer), resolve(undefined)), { once: true, signal: this.#stop.signal });
      });
    }
    // Without it an endless stream has the length of what has been appended, and media elements end.
    this.#source.duration = Infinity;
  }

  /**
   * Adds a track, or changes the codec of one. Browsers want all tracks before the first bytes.
   * @param {string} name @param {string} mimeType
   */
  setTrack(name, mimeType) {
    if (!canFeed(mimeType)) {
      const codecs = /codecs="([^"]*)"/.exec(mimeType)?.[1] ?? mimeType;
      throw new SessionError({ kind: 'codec-unplayable', title: `This browser cannot play ${codecs}` });
    }
    const lane = this.#lanes.get(name);
    if (lane) {
      if (lane.mimeType !== mimeType) lane.queue.push(mimeType);
      lane.mimeType = mimeType;
      return;
    }
    const buffer = this.#source.addSourceBuffer(mimeType);
    /** @type {Lane} */
    const added = { buffer, mimeType, queue: [], bytes: 0 };
    this.#lanes.set(name, added);
    buffer.addEventListener('updateend', () => this.#pump(added));
  }

  /** @param {string} name @param {Uint8Array} bytes  whole boxes */
  append(name, bytes) {
    const lane = this.#lanes.get(name);
    if (!lane) return;
    lane.queue.push(bytes);
    lane.bytes += bytes.length;
    if (lane.bytes > MAX_QUEUED_BYTES) this.#fail(mediaError('the browser does not keep up'));
    this.#pump(lane);
  }

  /** Gives the element back, empty. */
  close() {
    this.#stop.abort();
    clearInterval(this.#trimmer);
    if (this.#video.src === this.#address) {
      this.#video.removeAttribute('src');
      this.#video.load();
    }
    URL.revokeObjectURL(this.#address);
    this.#lanes.clear();
  }

  /** @param {Lane} lane */
  #pump(lane) {
    if (this.#stop.signal.aborted || lane.buffer.updating || this.#source.readyState !== 'open') return;
    const piece = lane.queue.shift();
    if (!piece) return;
    if (typeof piece === 'string') {
      lane.buffer.changeType(piece);
      this.#pump(lane);
      return;
    }
    lane.bytes -= piece.length;
    try {
      lane.buffer.appendBuffer(/** @type {BufferSource} */ (piece));
    } catch (error) {
      if (error instanceof DOMException && error.name === 'QuotaExceededError') {
        lane.queue.unshift(piece);
        lane.bytes += piece.length;
        this.#trim();
        return;
      }
      this.#fail(mediaError(error instanceof Error ? error.message : String(error)));
    }
  }

  #trim() {
    const until = this.#video.currentTime - KEPT_BEHIND_S;
    for (const { buffer } of this.#lanes.values()) {
      if (buffer.updating || this.#source.readyState !== 'open' || !buffer.buffered.length) continue;
      if (buffer.buffered.start(0) < until - 1) buffer.remove(0, until);
    }
  }
}

/** @param {string} [detail] */
function mediaError(detail = '') {
  return new SessionError({ kind: 'media-error', title: 'The browser cannot decode what the server sends', detail });
}
