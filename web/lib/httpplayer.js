// What the players over plain HTTP share: fetching with the token, feeding a <video>, staying at the live edge, figures.

import { LiveEdge } from './edge.js';
import { MseFeed } from './mse.js';
import { SessionError, refusal } from './resource.js';
import { Retrying } from './retrying.js';

/** @typedef {import('./stats.js').Figures} Figures */

/**
 * @typedef {object} PlayerOptions
 * @property {string} url
 * @property {HTMLVideoElement} video
 * @property {string} [token]
 * @property {boolean} [retry]
 */

/** Fires `statechange`, and `media` when the element has something to play. */
export class HttpPlayer extends Retrying {
  /** Bytes of media that have arrived. */
  mediaBytes = 0;
  videoCodec = '';
  audioCodec = '';
  /** @type {LiveEdge | null} */
  edge = null;
  #token;
  /** @type {{at: number, bytes: number, frames: number} | null} */
  #last = null;

  /** @param {PlayerOptions} options */
  constructor({ url, video, token = '', retry = true }) {
    super(retry);
    this.url = new URL(url, globalThis.location?.href).href;
    this.video = video;
    this.#token = token;
  }

  play() {
    void this.run();
  }

  /** Whether the stream is there at all, as far as this player can know. */
  get isAbsent() {
    return this.error?.status === 404 || this.error?.kind === 'stream-absent';
  }

  /** @override @param {SessionError} error @param {boolean} wasLive */
  passes(error, wasLive) {
    return super.passes(error, wasLive) || error.kind === 'stream-absent' || error.status === 404 || (error.status === 409 && error.retryAfterMs !== undefined) || (wasLive && error.kind === 'media-error');
  }

  /**
   * One attempt: a new media source, fed by `feed` until it returns or throws.
   * @override @param {() => void} onLive @returns {Promise<SessionError | null>}
   */
  async attempt(onLive) {
    const ending = new AbortController();
    const end = () => ending.abort();
    this.stopped.addEventListener('abort', end);
    const sink = new MseFeed(this.video);
    try {
      await sink.open();
      await Promise.race([this.feed(sink, ending.signal, onLive), sink.failed]);
      return this.stopped.aborted ? null : new SessionError({ kind: 'connection-lost', title: 'The stream has ended' });
    } catch (error) {
      if (this.stopped.aborted) return null;
      throw error;
    } finally {
      this.stopped.removeEventListener('abort', end);
      end();
      this.edge?.close();
      this.edge = null;
      sink.close();
    }
  }

  /**
   * Brings media to the sink until the signal or the stream ends.
   * @param {MseFeed} _sink @param {AbortSignal} _signal @param {() => void} _onLive
   */
  async feed(_sink, _signal, _onLive) {}

  /** Media is on its way to the element: from here on its distance to the end is kept. @param {number} distance */
  begin(distance) {
    if (this.edge) return;
    this.edge = new LiveEdge(this.video, distance);
    this.dispatchEvent(new Event('media'));
  }

  /** @param {string} url @param {AbortSignal} signal @returns {Promise<Response>} throws every refusal */
  async request(url, signal) {
    /** @type {Response} */
    let response;
    try {
      const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : undefined;
      response = await fetch(url, { signal, headers, cache: 'no-store' });
    } catch (cause) {
      throw this.unreachable(cause);
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** @param {unknown} cause */
  unreachable(cause) {
    const detail = `${new URL(this.url).host}: ${cause instanceof Error ? cause.message : cause}`;
    return new SessionError({ kind: 'unreachable', title: 'The server does not answer', detail });
  }

  /** @returns {Figures} since the last call */
  sample() {
    const { video, edge } = this;
    const frames = video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    const now = { at: performance.now(), bytes: this.mediaBytes, frames };
    const last = this.#last;
    this.#last = now;
    /** @type {Figures} */
    const figures = {
      mediaBytes: this.mediaBytes,
      videoCodec: this.videoCodec || undefined,
      audioCodec: this.audioCodec || undefined,
      jitterBufferMs: edge ? Math.max(0, edge.ahead * 1000) : undefined,
      freezes: edge?.stalls,
      frozenMs: edge?.stalledMs,
    };
    if (video.videoWidth) Object.assign(figures, { width: video.videoWidth, height: video.videoHeight });
    if (last && now.at > last.at) {
      figures.kbps = (8 * (now.bytes - last.bytes)) / (now.at - last.at);
      if (now.frames >= last.frames) figures.fps = (1000 * (now.frames - last.frames)) / (now.at - last.at);
    }
    const { protocol, host } = new URL(this.url);
    figures.path = `${protocol.slice(0, -1).toUpperCase()} ${host}`;
    return figures;
  }
}

/** As SDP and the pages name it. @param {string} codecString  RFC 6381 */
export function shortName(codecString) {
  const [head] = codecString.split('.');
  const names = new Map([['avc1', 'H264'], ['avc3', 'H264'], ['hvc1', 'H265'], ['hev1', 'H265'], ['av01', 'AV1'], ['vp09', 'VP9'], ['mp4a', 'AAC'], ['Opus', 'opus'], ['mp3', 'MP3']]);
  return names.get(head) ?? head;
}
