// Who is talking: a level that stays above the noise for a moment, and a pause that lasts longer than one between words.

const LISTEN_MS = 120;
/** Of full scale. Speech into a laptop's microphone reads 0.05 to 0.3, a quiet room 0.001 to 0.01. */
const VOICE_LEVEL = 0.02;
const PAUSE_MS = 700;

/**
 * @param {() => number} level  0…1, read again and again
 * @param {(isSpeaking: boolean) => void} tell
 * @returns {() => void} stops
 */
export function watchSpeaking(level, tell) {
  let isSpeaking = false;
  let heardAt = -Infinity;
  const timer = setInterval(() => {
    const now = performance.now();
    if (level() >= VOICE_LEVEL) heardAt = now;
    const speaks = now - heardAt < PAUSE_MS;
    if (speaks === isSpeaking) return;
    isSpeaking = speaks;
    tell(isSpeaking);
  }, LISTEN_MS);
  return () => clearInterval(timer);
}

/** How loud what arrives is (RFC 6464 or the decoder says it). @param {RTCPeerConnection | null} pc */
export function receivedLevel(pc) {
  const receiver = pc?.getReceivers().find((one) => one.track.kind === 'audio');
  return receiver?.getSynchronizationSources()[0]?.audioLevel ?? 0;
}

/** One for the page: browsers are slow to open one, and bound their number. @type {AudioContext | null} */
let audio = null;
/** @type {Set<MicrophoneLevel>} */
const listening = new Set();

/** How loud a microphone is. */
export class MicrophoneLevel {
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  /** @type {MediaStreamTrack | null} */
  #track = null;
  #samples = new Float32Array(1024);

  /** @param {MediaStreamTrack | null} track */
  listen(track) {
    if (track === this.#track) return;
    this.#track = track;
    this.#source?.disconnect();
    this.#analyser = null;
    if (track) {
      listening.add(this);
      audio ??= new AudioContext();
      this.#analyser = new AnalyserNode(audio, { fftSize: this.#samples.length });
      this.#source = audio.createMediaStreamSource(new MediaStream([track]));
      this.#source.connect(this.#analyser);
    } else {
      listening.delete(this);
    }
    // Before the first click on a page the browser may refuse; whoever listens after it asks again.
    void (listening.size ? audio?.resume() : audio?.suspend())?.catch(() => undefined);
  }

  /** Root mean square of the last 20 ms, 0…1. */
  read() {
    if (!this.#analyser) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    return Math.sqrt(this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length);
  }
}

/** For a meter: speech sits around a tenth of full scale and would hardly move a linear bar. @param {number} level */
export function meterValue(level) {
  return level > 0 ? Math.max(0, 1 + (20 * Math.log10(level)) / 60) : 0;
}
