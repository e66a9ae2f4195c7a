// Writes fragmented MP4 for Media Source Extensions: one track per file (ISO/IEC 14496-12, the codecs' bindings for their
// sample entries). Every fragment states its own time, so nothing drifts. A picture lasts until the next one: browsers
// throw away everything up to the next keyframe after a hole of two pictures' length (Media Source Extensions, "coded
// frame processing").

/** @typedef {import('./flv.js').Track} Track @typedef {import('./flv.js').MediaFrame} MediaFrame */

const VIDEO_TIMESCALE = 1000;
/** Stamps in milliseconds wobble around the sound's own clock; beyond this they mean it. */
const AUDIO_WOBBLE_MS = 40;
/** Samples of a frame. Opus says in its first byte. @type {Record<string, number>} */
const FRAME_SAMPLES = { mp4a: 1024, '.mp3': 1152 };
const MPEG2_MP3_SAMPLES = 576;
/** RFC 6716 §3.1: duration of a frame by its configuration number, in samples of 48 kHz. */
const SILK_SAMPLES = [480, 960, 1920, 2880];
const HYBRID_SAMPLES = [480, 960];
const CELT_SAMPLES = [120, 240, 480, 960];
const SYNC_SAMPLE = 0x02000000;
const DEPENDENT_SAMPLE = 0x01010000;

export class Mp4Track {
  #track;
  #timescale;
  #sequence = 0;
  /** Where the next sample of sound belongs by its own clock. @type {number | undefined} */
  #expected;

  /** @param {Track} track */
  constructor(track) {
    this.#track = track;
    this.#timescale = track.kind === 'video' ? VIDEO_TIMESCALE : track.sampleRate;
  }

  get mimeType() {
    return `${this.#track.kind}/mp4; codecs="${this.#track.codecString}"`;
  }

  /** @returns {Uint8Array} */
  initSegment() {
    const track = this.#track;
    const isVideo = track.kind === 'video';
    const handler = box('hdlr', zeros(8), text(isVideo ? 'vide' : 'soun'), zeros(12), zeros(1));
    const data = box('dinf', box('dref', u32(0, 1), box('url ', u32(1))));
    const table = box('stbl', box('stsd', u32(0, 1), sampleEntry(track)), box('stts', zeros(8)), box('stsc', zeros(8)), box('stsz', zeros(12)), box('stco', zeros(8)));
    const header = isVideo ? box('vmhd', u32(1), zeros(8)) : box('smhd', zeros(8));
    const media = box('mdia', box('mdhd', u32(0, 0, 0, this.#timescale, 0), u16(0x55c4, 0)), handler, box('minf', header, data, table));
    const size = u32(track.width * 65536, track.height * 65536);
    const trackHeader = box('tkhd', u32(7, 0, 0, 1, 0, 0), zeros(8), u16(0, 0, isVideo ? 0 : 0x100, 0), MATRIX, size);
    const movieHeader = box('mvhd', u32(0, 0, 0, 1000, 0, 0x10000), u16(0x100, 0), zeros(8), MATRIX, zeros(24), u32(2));
    return joined([
      box('ftyp', text('iso5'), u32(512), text('iso5iso6mp41')),
      box('moov', movieHeader, box('trak', trackHeader, media), box('mvex', box('trex', u32(0, 1, 1, 0, 0, 0)))),
    ]);
  }

  /**
   * @param {MediaFrame[]} frames  of this track, in order of decoding, at least one
   * @param {number} endMs  where the frame after the last one belongs, or is thought to; of sound the frames tell
   * @returns {Uint8Array}
   */
  fragment(frames, endMs) {
    const samples = this.#track.kind === 'video' ? videoSamples(frames, endMs) : this.#audioSamples(frames);
    const runs = samples.flatMap(({ duration, size, flags, composition }) => [duration, size, flags, composition]);
    const fragment = (/** @type {number} */ offset) =>
      box(
        'moof',
        box('mfhd', u32(0, this.#sequence)),
        // Times and offsets count from this fragment; the run states duration, size, flags and composition of each.
        box('traf', box('tfhd', u32(0x020000, 1)), box('tfdt', u32(0x01000000), u64(samples[0].at)), box('trun', u32(0x01000f01, samples.length, offset, ...runs))),
      );
    this.#sequence++;
    const header = fragment(fragment(0).length + 8);
    return joined([header, box('mdat', ...frames.map((frame) => frame.data))]);
  }

  /** @param {MediaFrame[]} frames */
  #audioSamples(frames) {
    return frames.map((frame) => {
      const stamp = Math.round((frame.dtsMs * this.#timescale) / 1000);
      const wobble = (AUDIO_WOBBLE_MS * this.#timescale) / 1000;
      const at = this.#expected !== undefined && Math.abs(this.#expected - stamp) <= wobble ? this.#expected : stamp;
      const duration = this.#audioDuration(frame.data);
      this.#expected = at + duration;
      return { at, duration, size: frame.data.length, flags: SYNC_SAMPLE, composition: 0 };
    });
  }

  /** @param {Uint8Array} data */
  #audioDuration(data) {
    const { codec, sampleRate } = this.#track;
    if (codec === 'Opus') return opusSamples(data);
    if (codec === '.mp3' && sampleRate < 32_000) return MPEG2_MP3_SAMPLES;
    return FRAME_SAMPLES[codec];
  }
}

/** @param {MediaFrame[]} frames @param {number} endMs */
function videoSamples(frames, endMs) {
  return frames.map((frame, i) => ({
    at: frame.dtsMs,
    duration: Math.max(1, (frames[i + 1]?.dtsMs ?? endMs) - frame.dtsMs),
    size: frame.data.length,
    flags: frame.isKeyframe ? SYNC_SAMPLE : DEPENDENT_SAMPLE,
    composition: frame.ptsMs - frame.dtsMs,
  }));
}

/** @param {Uint8Array} packet */
function opusSamples(packet) {
  const configuration = packet[0] >> 3;
  const samples = configuration < 12 ? SILK_SAMPLES[configuration & 3] : configuration < 16 ? HYBRID_SAMPLES[configuration & 1] : CELT_SAMPLES[configuration & 3];
  const frames = [1, 2, 2, (packet[1] ?? 1) & 63][packet[0] & 3];
  return samples * frames;
}

/** @param {Track} track */
function sampleEntry(track) {
  const { codec, record } = track;
  const video = () => joined([zeros(6), u16(1), zeros(16), u16(track.width, track.height), u32(0x480000, 0x480000, 0), u16(1), zeros(32), u16(24, 0xffff)]);
  const audio = () => joined([zeros(6), u16(1), zeros(8), u16(track.channels, 16, 0, 0), u32((track.sampleRate % 65536) * 65536)]);
  switch (codec) {
    case 'avc1':
      return box('avc1', video(), box('avcC', record));
    case 'hvc1':
      return box('hvc1', video(), box('hvcC', record));
    case 'av01':
      return box('av01', video(), box('av1C', record));
    case 'vp09':
      return box('vp09', video(), box('vpcC', u32(0x01000000), record));
    case 'mp4a':
      return box('mp4a', audio(), elementaryStream(0x40, record));
    case '.mp3':
      return box('mp4a', audio(), elementaryStream(0x6b, new Uint8Array(0)));
    case 'Opus':
      return box('Opus', audio(), box('dOps', opusConfig(record)));
  }
}

/** An `OpusHead` (RFC 7845 §5.1) with its numbers turned round, as the box has them. @param {Uint8Array} head */
function opusConfig(head) {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < 19) return joined([new Uint8Array([0, 2]), u16(312), u32(48_000), u16(0), zeros(1)]);
  // Channel mapping tables are the same in both.
  return joined([new Uint8Array([0, head[9]]), u16(view.getUint16(10, true)), u32(view.getUint32(12, true)), u16(view.getUint16(16, true)), head.subarray(18)]);
}

/** ISO/IEC 14496-1 §7.2.6.5, with one length byte each: records are short. @param {number} objectType @param {Uint8Array} specific */
function elementaryStream(objectType, specific) {
  const descriptor = (/** @type {number} */ tag, /** @type {Uint8Array[]} */ ...parts) => {
    const body = joined(parts);
    return joined([new Uint8Array([tag, body.length & 127]), body]);
  };
  const specificInfo = specific.length ? [descriptor(5, specific)] : [];
  const decoder = descriptor(4, new Uint8Array([objectType, 0x15, 0, 0, 0]), u32(0, 0), ...specificInfo);
  return box('esds', u32(0), descriptor(3, u16(1), zeros(1), decoder, descriptor(6, new Uint8Array([2]))));
}

const MATRIX = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000);

/** @param {string} type @param {Uint8Array[]} parts */
function box(type, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 8);
  return joined([u32(length), text(type), ...parts]);
}

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** @param {number} count */
function zeros(count) {
  return new Uint8Array(count);
}

/** @param {string} ascii */
function text(ascii) {
  return Uint8Array.from(ascii, (letter) => letter.charCodeAt(0));
}

/** @param {number[]} values  negative ones as two's complement */
function u32(...values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setUint32(4 * i, value));
  return new Uint8Array(view.buffer);
}

/** @param {number[]} values */
function u16(...values) {
  const view = new DataView(new ArrayBuffer(2 * values.length));
  values.forEach((value, i) => view.setUint16(2 * i, value));
  return new Uint8Array(view.buffer);
}

/** @param {number} value */
function u64(value) {
  return u32(Math.floor(value / 2 ** 32), value % 2 ** 32);
}
