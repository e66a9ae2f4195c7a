// What a decoder configuration record says: the codec in RFC 6381's words, and the size of the picture.

import { BitReader, withoutEmulationPrevention } from './bits.js';

/**
 * @typedef {'avc1' | 'hvc1' | 'av01' | 'vp09' | 'mp4a' | 'Opus' | '.mp3'} FourCc  as in Enhanced RTMP
 * @typedef {{width: number, height: number}} Size
 */

/** Decoders take the size from the stream itself; a container has to say something. @type {Size} */
const NOMINAL = { width: 1280, height: 720 };
/** Beyond it something was misread. */
const MOST_PIXELS_A_SIDE = 16_384;
const SAMPLE_RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];

/** @param {number} value @param {number} [digits] */
const hex = (value, digits = 2) => value.toString(16).padStart(digits, '0');
/** @param {number} value */
const two = (value) => String(value).padStart(2, '0');

/** RFC 6381 §3, and what the codecs' own bindings add. @param {FourCc} codec @param {Uint8Array} record @returns {string} */
export function codecString(codec, record) {
  switch (codec) {
    case 'avc1':
      return `avc1.${hex(record[1])}${hex(record[2])}${hex(record[3])}`;
    case 'hvc1':
      return hevcString(record);
    case 'av01': {
      // AV1-ISOBMFF §5: profile, level, tier, bit depth.
      const depth = record[2] & 0x40 ? (record[2] & 0x20 ? 12 : 10) : 8;
      return `av01.${record[1] >> 5}.${two(record[1] & 31)}${record[2] & 0x80 ? 'H' : 'M'}.${two(depth)}`;
    }
    case 'vp09':
      return `vp09.${two(record[0])}.${two(record[1] || 10)}.${two(record[2] >> 4 || 8)}`;
    case 'mp4a':
      return `mp4a.40.${audioConfig(record).objectType}`;
    case 'Opus':
      return 'opus';
    case '.mp3':
      return 'mp3';
  }
}

/** ISO/IEC 14496-15 annex E: compatibility flags in reverse, constraint bytes without the last zeros. @param {Uint8Array} record */
function hevcString(record) {
  const space = ['', 'A', 'B', 'C'][record[1] >> 6];
  let flags = 0;
  for (let bit = 0; bit < 32; bit++) flags += ((record[2 + (bit >> 3)] >> (7 - (bit & 7))) & 1) * 2 ** bit;
  const constraints = [...record.subarray(6, 12)];
  while (constraints.length && constraints[constraints.length - 1] === 0) constraints.pop();
  const tier = record[1] & 0x20 ? 'H' : 'L';
  return [`hvc1.${space}${record[1] & 31}`, flags.toString(16), `${tier}${record[12]}`, ...constraints.map((byte) => byte.toString(16))].join('.');
}

/** An AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1). @param {Uint8Array} record */
export function audioConfig(record) {
  const bits = new BitReader(record);
  const short = bits.bits(5);
  const objectType = short === 31 ? 32 + bits.bits(6) : short;
  const index = bits.bits(4);
  const sampleRate = index === 15 ? bits.bits(24) : (SAMPLE_RATES[index] ?? 44100);
  return { objectType, sampleRate, channels: bits.bits(4) || 2 };
}

/** @param {FourCc} codec @param {Uint8Array} record @returns {Size} */
export function pictureSize(codec, record) {
  const size = codec === 'avc1' ? avcSize(record) : codec === 'hvc1' ? hevcSize(record) : codec === 'av01' ? av1Size(record) : NOMINAL;
  const plausible = [size.width, size.height].every((side) => side > 0 && side <= MOST_PIXELS_A_SIDE);
  return plausible ? size : NOMINAL;
}

/** Profiles whose parameter sets tell of chroma (ITU-T H.264 §7.3.2.1.1). */
const HIGH_PROFILES = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128]);

/** @param {Uint8Array} record @returns {Size} */
function avcSize(record) {
  const length = (record[6] << 8) | record[7];
  const bits = new BitReader(withoutEmulationPrevention(record.subarray(9, 8 + length)));
  const profile = bits.bits(8);
  bits.skip(16);
  bits.ue();
  let chroma = 1;
  if (HIGH_PROFILES.has(profile)) {
    chroma = bits.ue();
    if (chroma === 3) bits.skip(1);
    bits.ue();
    bits.ue();
    bits.skip(1);
    if (bits.flag()) for (let i = 0; i < (chroma === 3 ? 12 : 8); i++) if (bits.flag()) skipScalingList(bits, i < 6 ? 16 : 64);
  }
  bits.ue();
  const orderType = bits.ue();
  if (orderType === 0) bits.ue();
  else if (orderType === 1) {
    bits.skip(1);
    bits.se();
    bits.se();
    for (let i = bits.ue(); i > 0 && i < 256; i--) bits.se();
  }
  bits.ue();
  bits.skip(1);
  const widthInBlocks = bits.ue() + 1;
  const heightInUnits = bits.ue() + 1;
  const framesOnly = bits.flag();
  if (!framesOnly) bits.skip(1);
  bits.skip(1);
  const crop = bits.flag() ? [bits.ue(), bits.ue(), bits.ue(), bits.ue()] : [0, 0, 0, 0];
  const cropX = chroma === 1 || chroma === 2 ? 2 : 1;
  const cropY = (chroma === 1 ? 2 : 1) * (framesOnly ? 1 : 2);
  return {
    width: widthInBlocks * 16 - cropX * (crop[0] + crop[1]),
    height: heightInUnits * 16 * (framesOnly ? 1 : 2) - cropY * (crop[2] + crop[3]),
  };
}

/** @param {BitReader} bits @param {number} length */
function skipScalingList(bits, length) {
  let last = 8;
  let next = 8;
  for (let i = 0; i < length; i++) {
    if (next !== 0) next = (last + bits.se() + 256) % 256;
    last = next === 0 ? last : next;
  }
}

const HEVC_SPS = 33;

/** ISO/IEC 14496-15 §8.3.3.1, ITU-T H.265 §7.3.2.2. @param {Uint8Array} record @returns {Size} */
function hevcSize(record) {
  let at = 23;
  for (let arrays = record[22] ?? 0; arrays > 0 && at + 5 < record.length; arrays--) {
    const type = record[at] & 63;
    let count = (record[at + 1] << 8) | record[at + 2];
    at += 3;
    for (; count > 0 && at + 2 < record.length; count--) {
      const length = (record[at] << 8) | record[at + 1];
      if (type === HEVC_SPS) return hevcSpsSize(record.subarray(at + 4, at + 2 + length));
      at += 2 + length;
    }
  }
  return NOMINAL;
}

/** @param {Uint8Array} payload  behind the NAL unit's header @returns {Size} */
function hevcSpsSize(payload) {
  const bits = new BitReader(withoutEmulationPrevention(payload));
  bits.skip(4);
  const subLayers = bits.bits(3);
  // profile_tier_level: 88 bits of profile, 8 of level, then the same for sub-layers that have them.
  bits.skip(1 + 96);
  const present = Array.from({ length: subLayers }, () => [bits.flag(), bits.flag()]);
  if (subLayers > 0) bits.skip(2 * (8 - subLayers));
  for (const [profile, level] of present) bits.skip((profile ? 88 : 0) + (level ? 8 : 0));
  bits.ue();
  const chroma = bits.ue();
  if (chroma === 3) bits.skip(1);
  const width = bits.ue();
  const height = bits.ue();
  const crop = bits.flag() ? [bits.ue(), bits.ue(), bits.ue(), bits.ue()] : [0, 0, 0, 0];
  const cropX = chroma === 1 || chroma === 2 ? 2 : 1;
  const cropY = chroma === 1 ? 2 : 1;
  return { width: width - cropX * (crop[0] + crop[1]), height: height - cropY * (crop[2] + crop[3]) };
}

const AV1_SEQUENCE_HEADER = 1;

/** The sequence header that follows the four bytes of the record (AV1 specification §5.5). @param {Uint8Array} record @returns {Size} */
function av1Size(record) {
  if (((record[4] ?? 0) >> 3 & 15) !== AV1_SEQUENCE_HEADER) return NOMINAL;
  const hasExtension = (record[4] & 4) !== 0;
  const hasLength = (record[4] & 2) !== 0;
  let at = 5 + (hasExtension ? 1 : 0);
  if (hasLength) while ((record[at++] ?? 0) & 0x80);
  const bits = new BitReader(record.subarray(at));
  bits.skip(4);
  const reduced = bits.flag();
  if (reduced) bits.skip(5);
  else {
    // Timing information is something that live encoders leave out; with it the points' layout is another one.
    if (bits.flag()) return NOMINAL;
    const delays = bits.flag();
    for (let points = bits.bits(5); points >= 0; points--) {
      bits.skip(12);
      if (bits.bits(5) > 7) bits.skip(1);
      if (delays && bits.flag()) bits.skip(4);
    }
  }
  const widthBits = bits.bits(4) + 1;
  const heightBits = bits.bits(4) + 1;
  return { width: bits.bits(widthBits) + 1, height: bits.bits(heightBits) + 1 };
}
