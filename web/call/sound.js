// Plays the others: on the chosen speaker, and, where the browser holds sound back until a click, with the click asked for.

/** Fires `blocked` and `unblocked`. */
export class Sound extends EventTarget {
  /** @type {Set<HTMLVideoElement>} */
  #players = new Set();
  #speaker = '';
  isBlocked = false;

  /** Whether this browser can choose a speaker. */
  static get choosesSpeaker() {
    return 'setSinkId' in HTMLMediaElement.prototype;
  }

  /** @param {HTMLVideoElement} player */
  add(player) {
    this.#players.add(player);
    void this.#route(player);
  }

  /** @param {HTMLVideoElement} player */
  remove(player) {
    this.#players.delete(player);
    player.srcObject = null;
  }

  /** @param {HTMLVideoElement} player @param {MediaStream} stream */
  async play(player, stream) {
    player.srcObject = stream;
    player.muted = this.isBlocked;
    try {
      await player.play();
    } catch (error) {
      // Anything else means that the stream was replaced meanwhile, and the next play() counts.
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return;
      this.#block(true);
      player.muted = true;
      await player.play().catch(() => undefined);
    }
  }

  /** To be called from a click. */
  async unblock() {
    this.#block(false);
    await Promise.all([...this.#players].map(async (player) => {
      player.muted = false;
      await player.play().catch(() => undefined);
    }));
  }

  /** @param {string} deviceId  empty for the default */
  async useSpeaker(deviceId) {
    this.#speaker = deviceId;
    await Promise.all([...this.#players].map((player) => this.#route(player)));
  }

  /** @param {HTMLVideoElement} player */
  async #route(player) {
    // A speaker that is gone leaves the sound where it is.
    if (Sound.choosesSpeaker) await player.setSinkId(this.#speaker).catch(() => undefined);
  }

  /** @param {boolean} blocked */
  #block(blocked) {
    if (this.isBlocked === blocked) return;
    this.isBlocked = blocked;
    this.dispatchEvent(new Event(blocked ? 'blocked' : 'unblocked'));
  }
}
