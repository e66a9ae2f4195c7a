// Reads bit fields and Exp-Golomb codes (ITU-T H.264 §9.1). Past the end everything reads as zero: what is parsed here is
// the size of a picture, and a wrong one costs nothing.

export class BitReader {
  #bytes;
  #at = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
  }

  /** @param {number} count  up to 32 */
  bits(count) {
    let value = 0;
    for (let i = 0; i < count; i++, this.#at++) {
      value = value * 2 + (((this.#bytes[this.#at >> 3] ?? 0) >> (7 - (this.#at & 7))) & 1);
    }
    return value;
  }

  flag() {
    return this.bits(1) === 1;
  }

  /** @param {number} count */
  skip(count) {
    this.#at += count;
  }

  /** Unsigned Exp-Golomb. */
  ue() {
    let zeros = 0;
    while (zeros < 32 && this.bits(1) === 0) zeros++;
    return zeros === 32 ? 0 : 2 ** zeros - 1 + this.bits(zeros);
  }

  /** Signed Exp-Golomb. */
  se() {
    const code = this.ue();
    return code & 1 ? (code + 1) / 2 : -code / 2;
  }
}

/** A NAL unit's payload without the bytes that keep start codes out of it (§7.3.1.1). @param {Uint8Array} nal */
export function withoutEmulationPrevention(nal) {
  return nal.filter((byte, i) => !(byte === 3 && i >= 2 && nal[i - 1] === 0 && nal[i - 2] === 0));
}
