// How good a connection is, as a person would say it, from the figures of getStats().

import { StatsMeter } from '../lib/stats.js';

/** @typedef {'unknown' | 'good' | 'fair' | 'poor' | 'lost'} Grade */
/** @typedef {{grade: Grade, text: string, figures: import('../lib/stats.js').Figures | null}} Quality */

// Above these a talk begins to suffer (ITU-T G.114 for delay; speech codecs hide some 2 % of loss).
const FAIR_RTT_MS = 200;
const POOR_RTT_MS = 500;
const FAIR_LOSS_PERCENT = 2;
const POOR_LOSS_PERCENT = 8;
const POOR_FROZEN_MS = 500;
/** The worst of this many samples counts, so that the sign does not flicker. */
const MEMORY_SAMPLES = 3;

/** @type {Record<Grade, string>} */
const WORDS = { unknown: 'connecting', good: 'good', fair: 'fair', poor: 'poor', lost: 'lost' };
/** @type {Grade[]} */
const ORDER = ['unknown', 'good', 'fair', 'poor', 'lost'];

export class QualityWatch {
  /** @type {{meter: StatsMeter, pc: RTCPeerConnection} | null} */
  #measured = null;
  #frozenMs = 0;
  #bytes = 0;
  /** Samples in a row without media. */
  still = 0;
  /** @type {Grade[]} */
  #recent = [];

  /** @param {RTCPeerConnection | null} pc @param {boolean} isLive @returns {Promise<Quality>} */
  async sample(pc, isLive) {
    if (!pc || !isLive) {
      this.#recent = [];
      this.still = 0;
      return quality('unknown', null);
    }
    if (this.#measured?.pc !== pc) {
      this.#measured = { meter: new StatsMeter(pc), pc };
      this.#frozenMs = 0;
      this.#bytes = 0;
    }
    const figures = await this.#measured.meter.sample();
    const frozenMs = Math.max(0, (figures.frozenMs ?? 0) - this.#frozenMs);
    this.#frozenMs = figures.frozenMs ?? 0;
    this.still = figures.mediaBytes > this.#bytes ? 0 : this.still + 1;
    this.#bytes = figures.mediaBytes;
    if (this.still === 0) this.#recent = this.#recent.filter((one) => one !== 'lost');
    this.#recent = [...this.#recent.slice(1 - MEMORY_SAMPLES), this.still >= MEMORY_SAMPLES ? 'lost' : grade(figures, frozenMs)];
    return quality(ORDER[Math.max(...this.#recent.map((one) => ORDER.indexOf(one)))], figures);
  }
}

/** @param {import('../lib/stats.js').Figures} figures @param {number} frozenMs  since the last sample @returns {Grade} */
export function grade({ rttMs = 0, lossPercent = 0 }, frozenMs) {
  if (rttMs >= POOR_RTT_MS || lossPercent >= POOR_LOSS_PERCENT || frozenMs >= POOR_FROZEN_MS) return 'poor';
  if (rttMs >= FAIR_RTT_MS || lossPercent >= FAIR_LOSS_PERCENT || frozenMs > 0) return 'fair';
  return 'good';
}

/** @param {Grade} one @param {import('../lib/stats.js').Figures | null} figures @returns {Quality} */
function quality(one, figures) {
  return { grade: one, text: `Connection ${WORDS[one]}`, figures };
}
