// Takes an FLV stream apart (Adobe FLV 10.1 annex E, Enhanced RTMP v1 and v2): pieces of any size go in, tracks and
// frames come out. Several tracks of a kind and metadata are left out.

import { audioConfig, codecString, pictureSize } from './codecs.js';

/** @typedef {import('./codecs.js').FourCc} FourCc */

/**
 * @typedef {object} Track
 * @property {'audio' | 'video'} kind
 * @property {FourCc} codec
 * @property {Uint8Array} record  decoder configuration
 * @property {string} codecString  RFC 6381
 * @property {number} width
 * @property {number} height
 * @property {number} sampleRate
 * @property {number} channels
 */

/**
 * @typedef {object} MediaFrame
 * @property {'audio' | 'video'} kind
 * @property {number} dtsMs
 * @property {number} ptsMs
 * @property {boolean} isKeyframe
 * @property {Uint8Array} data
 */

/** @typedef {{tracks: Track[], frames: MediaFrame[]}} Demuxed  a track comes before the frames that need it */

const HEADER_BYTES = 9;
const TAG_HEADER_BYTES = 11;
const TRAILER_BYTES = 4;
/** A tag beyond this is no picture that a live stream has. */
const MAX_TAG_BYTES = 8 << 20;
const AUDIO = 8;
const VIDEO = 9;
const AVC = 7;
const HEVC = 12;
const AAC = 10;
const MP3 = 2;
const EX_AUDIO = 9;
const SEQUENCE_START = 0;
const CODED_FRAMES = 1;
const CODED_FRAMES_X = 3;
/** @type {FourCc[]} */
const VIDEO_CODECS = ['avc1', 'hvc1', 'av01', 'vp09'];
/** @type {FourCc[]} */
const AUDIO_CODECS = ['mp4a', 'Opus', '.mp3'];
/** A VP9 record as a file has it: version and flags of the box in front. */
const VPCC_WITH_VERSION_BYTES = 12;

export class FlvDemuxer {
  #pending = new Uint8Array(0);
  #hasHeader = false;
  /** What the header promises. Players wait for it. */
  hasAudio = false;
  hasVideo = false;
  /** The codec of a kind that is of no use here, as the stream names it. @type {Map<'audio' | 'video', string>} */
  unknown = new Map();
  /** The record of each kind, to tell a change from a repetition. @type {Map<'audio' | 'video', Track>} */
  #tracks = new Map();
  #lastMs = 0;

  /** Whether the header has come. */
  get begun() {
    return this.#hasHeader;
  }

  /** @param {Uint8Array} piece @returns {Demuxed} throws on what is not FLV */
  push(piece) {
    const bytes = this.#pending.length ? joined(this.#pending, piece) : piece;
    let at = 0;
    /** @type {Demuxed} */
    const out = { tracks: [], frames: [] };
    if (!this.#hasHeader) {
      if (bytes.length < HEADER_BYTES + TRAILER_BYTES) {
        this.#pending = bytes.slice();
        return out;
      }
      if (bytes[0] !== 0x46 || bytes[1] !== 0x4c || bytes[2] !== 0x56) throw new Error('the answer is not FLV');
      this.hasAudio = (bytes[4] & 4) !== 0;
      this.hasVideo = (bytes[4] & 1) !== 0;
      this.#hasHeader = true;
      at = HEADER_BYTES + TRAILER_BYTES;
    }
    while (at + TAG_HEADER_BYTES <= bytes.length) {
      const size = (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
      if (size > MAX_TAG_BYTES) throw new Error(`an FLV tag of ${size} bytes`);
      const end = at + TAG_HEADER_BYTES + size;
      if (end + TRAILER_BYTES > bytes.length) break;
      const ms = this.#unwrapped(((bytes[at + 4] << 16) | (bytes[at + 5] << 8) | bytes[at + 6]) + bytes[at + 7] * 2 ** 24);
      const body = bytes.subarray(at + TAG_HEADER_BYTES, end);
      if (bytes[at] === VIDEO) this.#video(body, ms, out);
      else if (bytes[at] === AUDIO) this.#audio(body, ms, out);
      at = end + TRAILER_BYTES;
    }
    this.#pending = bytes.slice(at);
    return out;
  }

  /** Stamps have 32 bits: a stream of 49 days begins anew. @param {number} ms */
  #unwrapped(ms) {
    const turns = Math.round((this.#lastMs - ms) / 2 ** 32);
    this.#lastMs = ms + turns * 2 ** 32;
    return this.#lastMs;
  }

  /** @param {Uint8Array} body @param {number} dtsMs @param {Demuxed} out */
  #video(body, dtsMs, out) {
    if (body.length < 5) return;
    const isEnhanced = (body[0] & 0x80) !== 0;
    const id = body[0] & 15;
    const codec = isEnhanced ? fourCc(body, 1) : id === AVC ? 'avc1' : id === HEVC ? 'hvc1' : `number ${id}`;
    const known = VIDEO_CODECS.find((one) => one === codec);
    if (!known) {
      this.unknown.set('video', codec);
      return;
    }
    const packet = isEnhanced ? id : body[1];
    const hasComposition = !isEnhanced || (packet === CODED_FRAMES && (known === 'avc1' || known === 'hvc1'));
    let at = isEnhanced ? 5 : 2;
    let composition = 0;
    if (hasComposition) {
      if (body.length < at + 3) return;
      composition = ((body[at] << 24) | (body[at + 1] << 16) | (body[at + 2] << 8)) >> 8;
      at += 3;
    }
    const data = body.subarray(at);
    if (packet === SEQUENCE_START) this.#track('video', known, data, out);
    else if ((packet === CODED_FRAMES || (isEnhanced && packet === CODED_FRAMES_X)) && this.#tracks.has('video')) {
      const isKeyframe = ((body[0] >> 4) & 7) === 1;
      out.frames.push({ kind: 'video', dtsMs, ptsMs: dtsMs + composition, isKeyframe, data });
    }
  }

  /** @param {Uint8Array} body @param {number} dtsMs @param {Demuxed} out */
  #audio(body, dtsMs, out) {
    const format = (body[0] ?? 0) >> 4;
    if (format === EX_AUDIO && body.length < 5) return;
    const codec = format === EX_AUDIO ? fourCc(body, 1) : format === AAC ? 'mp4a' : format === MP3 ? '.mp3' : `number ${format}`;
    const known = AUDIO_CODECS.find((one) => one === codec);
    if (!known || body.length < 2) {
      this.unknown.set('audio', codec);
      return;
    }
    const packet = format === EX_AUDIO ? body[0] & 15 : format === AAC ? body[1] : CODED_FRAMES;
    const data = body.subarray(format === EX_AUDIO ? 5 : format === AAC ? 2 : 1);
    if (packet === SEQUENCE_START) this.#track('audio', known, data, out);
    // MP3 says everything in its frames.
    if (known === '.mp3' && !this.#tracks.has('audio')) this.#track('audio', known, data.subarray(0, 4), out);
    if (packet === CODED_FRAMES && data.length && this.#tracks.has('audio')) {
      out.frames.push({ kind: 'audio', dtsMs, ptsMs: dtsMs, isKeyframe: true, data });
    }
  }

  /** @param {'audio' | 'video'} kind @param {FourCc} codec @param {Uint8Array} bytes @param {Demuxed} out */
  #track(kind, codec, bytes, out) {
    const plain = codec === 'vp09' && bytes.length >= VPCC_WITH_VERSION_BYTES ? bytes.subarray(4) : bytes;
    const before = this.#tracks.get(kind);
    if (plain.length < 2 || (before?.codec === codec && same(before.record, plain))) return;
    const record = plain.slice();
    const track = { kind, codec, record, codecString: codecString(codec, record), ...describe(kind, codec, record) };
    this.#tracks.set(kind, track);
    out.tracks.push(track);
  }
}

/** @param {'audio' | 'video'} kind @param {FourCc} codec @param {Uint8Array} record */
function describe(kind, codec, record) {
  if (kind === 'video') return { ...pictureSize(codec, record), sampleRate: 0, channels: 0 };
  const sound = codec === 'mp4a' ? audioConfig(record) : codec === '.mp3' ? mp3Config(record) : { sampleRate: 48000, channels: record[9] || 2 };
  return { width: 0, height: 0, sampleRate: sound.sampleRate, channels: sound.channels };
}

/** A frame's header (ISO/IEC 11172-3 §2.4.1.3). @param {Uint8Array} frame */
function mp3Config(frame) {
  const version = (frame[1] >> 3) & 3;
  const base = [44100, 48000, 32000][(frame[2] >> 2) & 3] ?? 44100;
  return { sampleRate: version === 3 ? base : version === 2 ? base / 2 : base / 4, channels: frame[3] >> 6 === 3 ? 1 : 2 };
}

/** @param {Uint8Array} bytes @param {number} at */
function fourCc(bytes, at) {
  return String.fromCharCode(...bytes.subarray(at, at + 4));
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function same(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function joined(a, b) {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
