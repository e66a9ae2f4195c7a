// Plays HLS of fragmented MP4, Low-Latency HLS (RFC 8216bis) where the server has it: playlists that the server answers
// when they have news, and parts asked for before they exist.
//
//   const player = new LlHlsPlayer({ url: '/hls/live/cam/index.m3u8', video });
//   player.addEventListener('media', () => video.play());
//   player.play();

import { HttpPlayer, shortName } from './httpplayer.js';
import { isMaster, parseMaster, parseMedia, startIndex } from './m3u8.js';
import { SessionError } from './resource.js';
import { pause } from './retrying.js';

/** Parts may be short; a distance below this runs dry at every hiccup. */
const LEAST_DISTANCE_S = 0.5;
/** Where the server cannot tell when there is news. */
const POLL_SHARE = 0.5;
/** An answer that is always the same means that nobody publishes. */
const MOST_PLAYLISTS_WITHOUT_NEWS = 4;
/** A server that has news at once and again is asked no faster than this. */
const LEAST_RELOAD_MS = 20;
/** One that has had none for long is left alone for a moment. */
const REST_MS = 500;

/** @typedef {import('./m3u8.js').Piece} Piece @typedef {import('./m3u8.js').Playlist} Playlist */

export class LlHlsPlayer extends HttpPlayer {
  /** A part that is fetched before the playlist lists it. @type {{url: string, bytes: Promise<Uint8Array>} | null} */
  #ahead = null;

  /** @override @param {import('./mse.js').MseFeed} sink @param {AbortSignal} signal @param {() => void} onLive */
  async feed(sink, signal, onLive) {
    this.#ahead = null;
    const { url, codecs } = await this.#rendition(signal);
    const hasVideo = codecs.some((codec) => !/^(mp4a|opus|mp3|ac-3|ec-3|flac)/i.test(codec));
    this.videoCodec = codecs.map(shortName).find((name) => hasVideo && !/^(AAC|opus|MP3)$/.test(name)) ?? '';
    this.audioCodec = codecs.map(shortName).find((name) => /^(AAC|opus|MP3)$/.test(name)) ?? '';
    sink.setTrack('all', `${hasVideo ? 'video' : 'audio'}/mp4; codecs="${codecs.join(',')}"`);
    /** @type {Piece | null} */
    let last = null;
    /** @type {Playlist | null} */
    let before = null;
    let withoutNews = 0;
    while (!signal.aborted) {
      const playlist = await this.#playlist(url, before, signal);
      const fresh = following(playlist, last);
      for (const piece of fresh) {
        if (last && (piece.era !== last.era || piece.map !== last.map)) throw restart('The publisher has changed the stream');
        if (piece.map && piece.map !== last?.map) sink.append('all', await this.#bytes(piece.map, signal));
        sink.append('all', await this.#bytes(piece.url, signal));
        last = piece;
        this.begin(Math.max(LEAST_DISTANCE_S, playlist.holdBackSeconds));
        if (this.state !== 'live') onLive();
      }
      if (playlist.hasEnded) return;
      withoutNews = fresh.length ? 0 : withoutNews + 1;
      if (withoutNews >= MOST_PLAYLISTS_WITHOUT_NEWS) throw new SessionError({ kind: 'stream-absent', title: 'The playlist has no news' });
      this.#fetchAhead(playlist, signal);
      before = playlist;
    }
  }

  /** The media playlist and its codecs. @param {AbortSignal} signal */
  async #rendition(signal) {
    const response = await this.request(this.url, signal);
    const text = await response.text();
    const [best] = isMaster(text) ? parseMaster(text, response.url) : [];
    if (!best?.codecs) throw new SessionError({ kind: 'media-error', title: 'The server does not say which codecs the stream has', detail: this.url });
    return { url: best.url, codecs: best.codecs.split(',').map((codec) => codec.trim()) };
  }

  /** @param {string} url @param {Playlist | null} before @param {AbortSignal} signal */
  async #playlist(url, before, signal) {
    const address = new URL(url);
    if (before?.canBlock) {
      address.searchParams.set('_HLS_msn', String(before.next.msn));
      address.searchParams.set('_HLS_part', String(before.next.part));
    }
    const wait = !before ? 0 : before.canBlock ? LEAST_RELOAD_MS : before.targetSeconds * 1000 * POLL_SHARE;
    const asked = performance.now();
    if (!before?.canBlock) await pause(wait, signal);
    const playlist = await this.#reload(address.href, signal).catch(async (error) => {
      // Nothing came while the server let us wait: what has been seen still holds.
      if (!before?.canBlock || !(error instanceof SessionError) || error.status !== 503) throw error;
      await pause(REST_MS, signal);
      return before;
    });
    const early = wait - (performance.now() - asked);
    if (early > 0) await pause(early, signal);
    return playlist;
  }

  /** @param {string} url @param {AbortSignal} signal */
  async #reload(url, signal) {
    const response = await this.request(url, signal);
    return parseMedia(await response.text(), response.url);
  }

  /** @param {Playlist} playlist @param {AbortSignal} signal */
  #fetchAhead({ hint }, signal) {
    if (!hint || this.#ahead?.url === hint) return;
    const bytes = this.#fetch(hint, signal);
    // A hint need not come true; the playlist tells.
    bytes.catch(() => undefined);
    this.#ahead = { url: hint, bytes };
  }

  /** @param {string} url @param {AbortSignal} signal */
  async #bytes(url, signal) {
    const ahead = this.#ahead?.url === url ? this.#ahead.bytes.catch(() => this.#fetch(url, signal)) : this.#fetch(url, signal);
    const bytes = await ahead;
    this.mediaBytes += bytes.length;
    return bytes;
  }

  /** @param {string} url @param {AbortSignal} signal */
  async #fetch(url, signal) {
    const response = await this.request(url, signal);
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch (cause) {
      throw this.unreachable(cause);
    }
  }
}

/**
 * What comes after the last piece played; from a good beginning when there is none, or it has left the playlist.
 * @param {Playlist} playlist @param {Piece | null} last @returns {Piece[]}
 */
export function following(playlist, last) {
  const { pieces } = playlist;
  if (!pieces.length) return [];
  if (!last) {
    const start = startIndex(playlist);
    return start < 0 ? [] : pieces.slice(start);
  }
  const isAfter = (/** @type {Piece} */ piece) => piece.msn > last.msn || (piece.msn === last.msn && last.part !== null && (piece.part ?? -1) > last.part);
  const index = pieces.findIndex(isAfter);
  if (index < 0) {
    // Numbers that go back are another stream's.
    if (pieces[pieces.length - 1].msn < last.msn - 1) throw restart('The stream has begun anew');
    return [];
  }
  const first = pieces[index];
  const isNext = first.msn === last.msn || (first.msn === last.msn + 1 && (first.part ?? 0) === 0);
  if (isNext) return pieces.slice(index);
  const start = startIndex(playlist);
  return start < 0 ? [] : pieces.slice(Math.max(start, index));
}

/** @param {string} title */
function restart(title) {
  return new SessionError({ kind: 'connection-lost', title, retryAfterMs: 0 });
}
