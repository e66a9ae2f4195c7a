// Publishers and players in real browsers, seen from node, and what their notes amount to.
import { LOOPBACK, blankPage, launch } from './browser.mjs';

const DEFAULTS = { audio: true, video: true, listen: true, width: 640, height: 480, fps: 30 };
const CONNECT_MS = 15_000;

export const sleep = ms => new Promise(done => setTimeout(done, ms));

/** Asks `condition` every 50 ms until it holds; throws `what` when it does not in time. */
export async function until(what, timeoutMs, condition) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`${what}: not in ${timeoutMs} ms`);
    await sleep(50);
  }
}

/** The browsers of one group of tests: each kind is started once, every peer gets a window of its own. */
export class Browsers {
  #open = new Map();
  #blank = null;
  #pages = new Set();

  /** `flags`: of Chromium. At loopback it needs to be told to use loopback. `wrapper`: what starts Chromium, if not we. */
  constructor(flags = [LOOPBACK], wrapper = undefined) {
    this.flags = flags;
    this.wrapper = wrapper;
  }

  async browser(kind) {
    if (!this.#open.has(kind)) {
      this.#open.set(kind, await launch(kind, { flags: kind === 'chromium' ? this.flags : [], permissions: ['camera', 'microphone'], wrapper: this.wrapper }));
    }
    return this.#open.get(kind);
  }

  async #blankPage(kind) {
    this.#blank ??= await blankPage();
    return this.page(kind, this.#blank.url);
  }

  /** Opens any page; `script` runs before the page's own. */
  async page(kind, url, script) {
    const page = await (await this.browser(kind)).newPage(url, script);
    this.#pages.add(page);
    return page;
  }

  /** The pages that are open now stay open when a case is over. */
  keep() {
    this.#pages.clear();
  }

  /** Closes what a case has left open, so that it does not cost the next one its CPU. */
  async tidy() {
    await Promise.all([...this.#pages].map(page => page.close().catch(() => {})));
    this.#pages.clear();
  }

  /** Publishes to a WHIP URL and resolves when connected. */
  async publish(url, config = {}) {
    const page = await this.#blankPage(config.browser ?? 'chromium');
    const publisher = new Peer(page, 'publish', { ...DEFAULTS, ...config });
    await publisher.open(url);
    return publisher;
  }

  /** Plays a WHEP URL and resolves when connected and, where there is video, painted. */
  async play(url, config = {}) {
    const page = await this.#blankPage(config.browser ?? 'chromium');
    const player = new Peer(page, 'play', { ...DEFAULTS, ...config });
    await player.open(url);
    if (player.config.video && !config.mayStarve) {
      await until('first painted frame', CONNECT_MS, () => player.call('painted'));
    }
    return player;
  }

  async close() {
    for (const browser of this.#open.values()) await browser.close().catch(() => {});
    this.#blank?.close();
  }
}

class Peer {
  constructor(page, role, config) {
    Object.assign(this, { page, role, config });
  }

  async open(url) {
    this.id = await this.page.evaluate(([role, config, url]) => Client[role](config, url), [this.role, this.config, url]).catch(error => {
      throw new Error(error.message.split('\n')[0]);
    });
    if (this.config.wrongFingerprint) return;
    await until(`${this.role} connected`, CONNECT_MS, async () => (await this.call('state')) === 'connected').catch(async error => {
      throw new Error(`${error.message} (${await this.call('state')})`);
    });
  }

  call(name) {
    return this.page.evaluate(([name, id]) => Client[name](id), [name, this.id]);
  }

  /** Ends the session with DELETE; its status. The page stays, so that it can publish again. */
  close() {
    return this.call('close');
  }

  /** What was seen since that time of the wall clock. */
  async measure(since = 0) {
    return measure(await this.call('report'), since);
  }
}

/** Notes of a player → figures. Times are in ms. */
export function measure(report, since) {
  const paints = report.paints.filter(([at]) => at >= since);
  const stamped = paints.filter(([, n]) => n !== null);
  const gaps = [];
  let skipped = 0;
  for (let i = 1; i < paints.length; i++) {
    let gap = paints[i][0] - paints[i - 1][0];
    const [, n, age] = paints[i];
    const [, lastN, lastAge] = paints[i - 1];
    if (n !== null && lastN !== null) {
      const step = (n - lastN) & 0xffff;
      if (step > 1 && step < 0x8000) skipped += step - 1;
      // A publisher's page that was late to draw is not the network's doing.
      const drawn = gap - (age - lastAge);
      if (step === 1) gap -= Math.max(0, drawn - 34);
    }
    gaps.push(gap);
  }
  const delays = stamped.map(([, , age]) => age).sort((a, b) => a - b);
  const at = share => delays[Math.min(delays.length - 1, Math.floor(share * delays.length))];
  const lag = report.flashes.filter(flash => flash >= since).map(flash => report.beeps.find(beep => Math.abs(beep - flash) < 450) - flash).filter(Number.isFinite).sort((a, b) => a - b);
  const video = report.streams.find(stream => stream.kind === 'video');
  const audio = report.streams.find(stream => stream.kind === 'audio');
  return {
    state: report.state,
    protocol: report.protocol,
    session: report.session,
    firstFrameMs: report.firstFrameMs,
    size: report.size,
    codec: video?.codec,
    frames: paints.length,
    unreadable: paints.length - stamped.length,
    skipped,
    delayP50: at(0.5),
    delayP95: at(0.95),
    longestGapMs: Math.max(0, ...gaps),
    frozenMs: frozen(gaps),
    colourError: report.colourError,
    decoded: video?.framesDecoded,
    dropped: video?.framesDropped,
    nacks: video?.nackCount,
    plis: video?.pliCount,
    audioPackets: audio?.packetsReceived ?? 0,
    concealedShare: audio?.totalSamplesReceived ? audio.concealedSamples / audio.totalSamplesReceived : null,
    tone: mostFrequent(report.tones),
    beeps: report.beeps.length,
    longestPauseMs: Math.max(0, ...report.pauses.filter(([at, ms]) => at - ms >= since).map(([, ms]) => ms)),
    soundAfterPictureMs: lag[lag.length >> 1],
    answer: report.answer,
  };
}

/** Time frozen as browsers count it (webrtc-stats, freezeCount): pauses of over 3 mean frame times, and 150 ms more than one. */
function frozen(gaps) {
  return gaps.reduce((sum, gap, i) => {
    const recent = gaps.slice(Math.max(0, i - 30), i);
    const mean = recent.reduce((total, one) => total + one, 0) / (recent.length || 1);
    return recent.length > 5 && gap > Math.max(3 * mean, mean + 150) ? sum + gap : sum;
  }, 0);
}

function mostFrequent(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
