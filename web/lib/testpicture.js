// A publisher's test source: the picture of `clock.js` and a tone that beeps with its flash.

import { PULSE_MS, drawTestPicture } from './clock.js';

const TONE_HZ = 880;
const TONE_GAIN = 0.2;
/** Beeps are laid this far ahead, so that a late timer does not swallow one. */
const SCHEDULE_AHEAD_MS = 1500;

/**
 * @param {{width: number, height: number, fps?: number, audio?: boolean}} options
 * @returns {{stream: MediaStream, stop: () => void}}
 */
export function testSource({ width, height, fps = 30, audio = true }) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
  const output = frameOutput(canvas);
  const tone = audio ? toneTrack() : null;
  // Timers of a page in the background run once a second; those of a worker keep their pace.
  const ticker = new Worker(new URL('./ticker.js', import.meta.url), { type: 'module' });
  let frame = 0;
  ticker.onmessage = () => {
    drawTestPicture(context, width, height, Date.now(), frame++);
    output.push();
    tone?.schedule();
  };
  ticker.postMessage(1000 / fps);
  drawTestPicture(context, width, height, Date.now(), frame++);
  const stream = new MediaStream([output.track, ...(tone ? [tone.track] : [])]);
  return {
    stream,
    stop() {
      ticker.terminate();
      tone?.stop();
      for (const track of stream.getTracks()) track.stop();
    },
  };
}

/**
 * A captured canvas stands still while its page is hidden. Where the browser lets a page write frames itself
 * (Chromium), the picture runs on in a background tab.
 * @param {HTMLCanvasElement} canvas
 * @returns {{track: MediaStreamTrack, push: () => void}}
 */
function frameOutput(canvas) {
  const { MediaStreamTrackGenerator } = /** @type {any} */ (globalThis);
  if (!MediaStreamTrackGenerator || typeof VideoFrame === 'undefined') {
    return { track: canvas.captureStream().getVideoTracks()[0], push: () => undefined };
  }
  const track = new MediaStreamTrackGenerator({ kind: 'video' });
  const writer = track.writable.getWriter();
  return {
    track,
    push() {
      if (writer.desiredSize <= 0) return;
      writer.write(new VideoFrame(canvas, { timestamp: Math.round(performance.now() * 1000) })).catch(() => undefined);
    },
  };
}

function toneTrack() {
  const audio = new AudioContext();
  const oscillator = new OscillatorNode(audio, { frequency: TONE_HZ });
  const gate = new GainNode(audio, { gain: 0 });
  const sink = audio.createMediaStreamDestination();
  oscillator.connect(gate).connect(sink);
  oscillator.start();
  // Without a click on the page the browser may keep audio suspended: the first one starts it.
  const resume = () => void audio.resume().catch(() => undefined);
  addEventListener('pointerdown', resume);
  addEventListener('keydown', resume);
  resume();
  let scheduledUntil = 0;
  return {
    track: sink.stream.getAudioTracks()[0],
    schedule() {
      if (audio.state !== 'running') return;
      const now = Date.now();
      let second = Math.max(scheduledUntil, Math.ceil(now / 1000) * 1000);
      for (; second < now + SCHEDULE_AHEAD_MS; second += 1000) {
        const at = audio.currentTime + (second - now) / 1000;
        gate.gain.setValueAtTime(TONE_GAIN, at);
        gate.gain.setValueAtTime(0, at + PULSE_MS / 1000);
      }
      scheduledUntil = second;
    },
    stop() {
      removeEventListener('pointerdown', resume);
      removeEventListener('keydown', resume);
      void audio.close();
    },
  };
}
