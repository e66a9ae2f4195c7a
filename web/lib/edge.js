// Keeps a <video> near the end of what has arrived: a little faster when it has fallen behind, a jump when it is far
// behind, a little slower when it is about to run dry. A player that has run dry keeps more distance from then on.

const TICK_MS = 150;
/** Hardly audible, and 0.8 s made up in ten; and what is used when that would take long. */
const FASTER = 1.08;
const MUCH_FASTER = 1.2;
const MUCH_BEHIND_S = 0.8;
const SLOWER = 0.95;
/** Beyond this a jump annoys less than minutes of haste. */
const JUMP_BEHIND_S = 3;
/** At first, what came before comes in a burst, and nobody has seen enough to miss anything. */
const SETTLE_MS = 3000;
const JUMP_AT_FIRST_S = 0.4;
const STALL_STEP_S = 0.25;
const MOST_DISTANCE_S = 4;
/** After so long without running dry, the distance is tried smaller again. */
const RELAX_AFTER_MS = 30_000;

export class LiveEdge {
  #video;
  #least;
  #stop = new AbortController();
  /** @type {ReturnType<typeof setInterval>} */
  #timer;
  #begun = false;
  /** Somewhere in the stretch that the decoders are in. They do not leave it without a seek. */
  #anchor = 0;
  #calmSince = performance.now();
  #settledAt = 0;
  /** Distance kept from the end, in seconds. */
  distance;
  /** How often the picture stood still for want of data. */
  stalls = 0;
  /** For how long altogether. */
  stalledMs = 0;
  /** @type {number | null} */
  #stalledSince = null;

  /** @param {HTMLVideoElement} video @param {number} distance  in seconds, to begin with */
  constructor(video, distance) {
    this.#video = video;
    this.#least = this.distance = distance;
    const { signal } = this.#stop;
    video.addEventListener('waiting', () => this.#ranDry(), { signal });
    video.addEventListener('playing', () => this.#goesOn(), { signal });
    this.#timer = setInterval(() => this.#keep(), TICK_MS);
  }

  close() {
    this.#stop.abort();
    clearInterval(this.#timer);
    this.#video.playbackRate = 1;
  }

  /** What has arrived and is not yet shown, in seconds. */
  get ahead() {
    const { buffered, currentTime } = this.#video;
    return buffered.length ? buffered.end(buffered.length - 1) - currentTime : 0;
  }

  #ranDry() {
    // Waiting for a jump to land is not running dry.
    if (!this.#begun || this.#video.seeking) return;
    this.stalls++;
    this.#stalledSince ??= performance.now();
    this.#calmSince = performance.now();
    this.distance = Math.min(this.distance + STALL_STEP_S, MOST_DISTANCE_S);
  }

  #goesOn() {
    if (this.#stalledSince !== null) this.stalledMs += performance.now() - this.#stalledSince;
    this.#stalledSince = null;
  }

  #keep() {
    const video = this.#video;
    const { buffered } = video;
    if (!buffered.length) return;
    const end = buffered.end(buffered.length - 1);
    if (!this.#begun) {
      this.#begun = true;
      this.#settledAt = performance.now() + SETTLE_MS;
      this.#seek(Math.max(buffered.start(0), end - this.distance));
      return;
    }
    if (video.paused || video.seeking) return;
    if (performance.now() - this.#calmSince > RELAX_AFTER_MS) {
      this.#calmSince = performance.now();
      this.distance = Math.max(this.#least, this.distance - STALL_STEP_S / 2);
    }
    const ahead = end - video.currentTime;
    const patience = performance.now() < this.#settledAt ? JUMP_AT_FIRST_S : JUMP_BEHIND_S;
    const next = this.#stretchAfterHole();
    if (ahead > this.distance + patience || ahead < -1) this.#seek(Math.max(buffered.start(buffered.length - 1), end - this.distance));
    else if (next !== null) this.#seek(Math.max(next, Math.min(video.currentTime, end - this.distance / 2)));
    else if (ahead > this.distance * 1.1 + 0.1) video.playbackRate = ahead > this.distance + MUCH_BEHIND_S ? MUCH_FASTER : FASTER;
    else if (ahead < this.distance * 0.4) video.playbackRate = SLOWER;
    else if ((video.playbackRate > 1 && ahead <= this.distance) || (video.playbackRate < 1 && ahead >= this.distance * 0.8)) video.playbackRate = 1;
  }

  /** @param {number} at */
  #seek(at) {
    this.#anchor = at;
    this.#video.currentTime = at;
  }

  /** Where what has arrived goes on behind a hole that has been reached: it would be waited for in vain. */
  #stretchAfterHole() {
    const { buffered, currentTime } = this.#video;
    for (let i = 0; i + 1 < buffered.length; i++) {
      const isHere = this.#anchor >= buffered.start(i) - 0.1 && this.#anchor <= buffered.end(i);
      if (isHere && currentTime > buffered.end(i) - 0.05) return buffered.start(i + 1) + 0.01;
    }
    // The beginning of what is kept moves on, and so must the anchor.
    if (buffered.length === 1) this.#anchor = currentTime;
    return null;
  }
}
