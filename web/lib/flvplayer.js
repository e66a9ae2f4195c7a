// Plays HTTP-FLV: one endless answer, taken apart and put into fragmented MP4 for the browser.
//
//   const player = new FlvPlayer({ url: '/live/cam.flv', video });
//   player.addEventListener('media', () => video.play());
//   player.play();

import { FlvDemuxer } from './flv.js';
import { HttpPlayer, shortName } from './httpplayer.js';
import { Mp4Track } from './mp4.js';
import { SessionError } from './resource.js';

/** Distance to the end: enough for a group of frames that come together, and for the clock of a sound card. */
const DISTANCE_S = 0.7;
/** A track that the header promises and nobody sends: play without it. */
const TRACK_PATIENCE_MS = 1500;
/** A publisher may be away that long; then it is asked again, in case the connection is what has died. */
const SILENCE_LIMIT_MS = 15_000;
/** A picture that no other follows so soon is shown without knowing how long it lasts… */
const HOLD_MS = 120;
/** …and is said to last so long, which leaves room for twice that before browsers see a hole. */
const UNKNOWN_DURATION_MS = 1000;

/** @typedef {import('./flv.js').MediaFrame} MediaFrame */

export class FlvPlayer extends HttpPlayer {
  /** @override @param {import('./mse.js').MseFeed} sink @param {AbortSignal} signal @param {() => void} onLive */
  async feed(sink, signal, onLive) {
    const silence = new AbortController();
    signal.addEventListener('abort', () => silence.abort());
    const hush = () => silence.abort();
    let timer = setTimeout(hush, SILENCE_LIMIT_MS);
    const remuxer = new Remuxer(sink);
    const release = setInterval(() => remuxer.releaseLate(), HOLD_MS / 2);
    try {
      const { body } = await this.request(this.url, silence.signal);
      const reader = /** @type {ReadableStream<Uint8Array>} */ (body).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(hush, SILENCE_LIMIT_MS);
        this.mediaBytes += value.length;
        if (!remuxer.push(value)) continue;
        this.videoCodec = shortName(remuxer.codec('video'));
        this.audioCodec = shortName(remuxer.codec('audio'));
        this.begin(DISTANCE_S);
        if (this.state !== 'live') onLive();
      }
    } catch (cause) {
      if (signal.aborted || cause instanceof SessionError) throw cause;
      if (silence.signal.aborted) throw new SessionError({ kind: 'stream-absent', title: 'Nothing has come for a while' });
      throw this.unreachable(cause);
    } finally {
      clearTimeout(timer);
      clearInterval(release);
    }
  }
}

/** From FLV to the sink's tracks. */
class Remuxer {
  #sink;
  #demuxer = new FlvDemuxer();
  /** @type {Map<'audio' | 'video', {muxer: Mp4Track, codec: string}>} */
  #tracks = new Map();
  /** Frames that wait for the other track. @type {MediaFrame[]} */
  #waiting = [];
  /** The newest picture: how long it lasts, the next one tells. @type {MediaFrame[]} */
  #held = [];
  #heldSince = 0;
  /** When the first piece came. @type {number | undefined} */
  #since;
  #begun = false;

  /** @param {import('./mse.js').MseFeed} sink */
  constructor(sink) {
    this.#sink = sink;
  }

  /** @param {'audio' | 'video'} kind */
  codec(kind) {
    return this.#tracks.get(kind)?.codec ?? '';
  }

  /** @param {Uint8Array} piece @returns {boolean} whether anything went to the sink */
  push(piece) {
    this.#since ??= performance.now();
    const { tracks, frames } = this.#demuxer.push(piece);
    for (const track of tracks) {
      const isNew = !this.#tracks.has(track.kind);
      if (this.#begun && isNew) throw new SessionError({ kind: 'connection-lost', title: `The stream has got ${track.kind === 'audio' ? 'sound' : 'a picture'}` });
      // The picture that waits belongs to the old configuration.
      if (track.kind === 'video' && this.#held.length) this.#write('video', this.#held, this.#held[0].dtsMs + HOLD_MS);
      if (track.kind === 'video') this.#held = [];
      const muxer = new Mp4Track(track);
      this.#tracks.set(track.kind, { muxer, codec: track.codecString });
      if (!this.#begun) continue;
      this.#sink.setTrack(track.kind, muxer.mimeType);
      this.#sink.append(track.kind, muxer.initSegment());
    }
    this.#waiting.push(...frames);
    if (!this.#begun && !this.#begin()) return false;
    const any = this.#waiting.length > 0;
    const sound = this.#waiting.filter((frame) => frame.kind === 'audio');
    const pictures = this.#waiting.filter((frame) => frame.kind === 'video');
    this.#waiting = [];
    this.#write('audio', sound, 0);
    const newest = pictures.pop();
    if (newest) {
      this.#write('video', [...this.#held, ...pictures], newest.dtsMs);
      this.#held = [newest];
      this.#heldSince = performance.now();
    }
    return any;
  }

  /** Lets go of a picture that has waited too long for the next one. */
  releaseLate() {
    if (!this.#begun || !this.#held.length || performance.now() - this.#heldSince < HOLD_MS) return;
    this.#write('video', this.#held, this.#held[0].dtsMs + UNKNOWN_DURATION_MS);
    this.#held = [];
  }

  /** @param {'audio' | 'video'} kind @param {MediaFrame[]} frames @param {number} endMs */
  #write(kind, frames, endMs) {
    const muxer = this.#tracks.get(kind)?.muxer;
    if (frames.length && muxer) this.#sink.append(kind, muxer.fragment(frames, endMs));
  }

  /** Adds the tracks once all are known that the header promises. */
  #begin() {
    const { hasAudio, hasVideo, unknown } = this.#demuxer;
    const isMissing = (/** @type {'audio' | 'video'} */ kind, /** @type {boolean} */ promised) => promised && !this.#tracks.has(kind) && !unknown.has(kind);
    const waits = isMissing('audio', hasAudio) || isMissing('video', hasVideo);
    if (waits && performance.now() - (this.#since ?? 0) < TRACK_PATIENCE_MS) return false;
    if (!this.#tracks.size) {
      if (!unknown.size) return false;
      throw new SessionError({ kind: 'codec-unplayable', title: `This page cannot play ${[...unknown.values()].join(' and ')} over HTTP-FLV` });
    }
    this.#begun = true;
    for (const [kind, { muxer }] of this.#tracks) this.#sink.setTrack(kind, muxer.mimeType);
    for (const [kind, { muxer }] of this.#tracks) this.#sink.append(kind, muxer.initSegment());
    return true;
  }
}
