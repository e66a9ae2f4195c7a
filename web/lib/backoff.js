// How long to wait before trying again: longer each time, and never all clients at once.

const FIRST_MS = 300;
const LONGEST_MS = 5000;

export class Backoff {
  #tries = 0;
  /** @type {(() => void) | null} */
  #wake = null;

  /** Waits for its time, or until hurried. */
  async wait() {
    const whole = Math.min(FIRST_MS * 2 ** this.#tries++, LONGEST_MS);
    // A server that restarts is not asked by a thousand pages in the same moment.
    const ms = whole * (0.5 + Math.random() / 2);
    await new Promise(resolve => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    this.#wake = null;
  }

  /** Ends a wait, as when the network is back. */
  hurry() {
    this.#wake?.();
  }

  /** The next wait is a short one. */
  reset() {
    this.#tries = 0;
  }
}
