// The play page: plays at once, waits for a stream that is not there, and says what is wrong when something is.

import { watchDelay } from './lib/clock.js';
import { StatsMeter } from './lib/stats.js';
import { WhepClient } from './lib/whep.js';
import {
  element, endpoint, getJson, hideFailure, ms, pageAddress, parameter, setText,
  showCommonFigures, showFailure, showFigure, showState, streamFromAddress,
} from './page.js';

const SAMPLE_MS = 1000;
/** What the server does to the picture changes with the publisher, seldom. */
const NOTE_MS = 5000;
/** Media that rests this long has stopped; a publisher who mutes or a lossy second is shorter. */
const STALL_SAMPLES = 3;
/** Sound without a picture for this long is sound only. */
const PICTURE_PATIENCE_SAMPLES = 2;
/** Readings behind one shown delay: their median is steady. */
const DELAY_READINGS = 9;
/** A clock that is ahead by more than this belongs to a computer with another time. */
const CLOCK_SKEW_MS = -20;

const stream = streamFromAddress();
const video = element('video', HTMLVideoElement);
const unmute = element('unmute', HTMLButtonElement);
const name = element('stream', HTMLInputElement);

/** @type {WhepClient | null} */
let client = null;
/** @type {{meter: StatsMeter, pc: RTCPeerConnection} | null} */
let measured = null;
let mediaBytes = 0;
let stalledSamples = 0;
let pictureless = 0;
/** @type {number[]} */
let delays = [];

document.title = `${stream} · Freshet`;
setText(element('title'), stream);
name.value = stream;
element('nav-publish', HTMLAnchorElement).href = pageAddress('publish', stream);
element('nav-play', HTMLAnchorElement).href = pageAddress('play', stream);
element('switch', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  location.href = pageAddress('play', name.value);
});
element('retry').addEventListener('click', watch);
video.addEventListener('playing', () => client?.state === 'live' && showPlaying());
video.addEventListener('volumechange', () => {
  if (!video.muted) unmute.hidden = true;
});
unmute.addEventListener('click', () => {
  video.muted = false;
  unmute.hidden = true;
  void video.play();
});
watchDelay(video, showDelay);
setInterval(() => void sample(), SAMPLE_MS);
setInterval(() => void showServerNote(), NOTE_MS);
watch();

function watch() {
  void client?.close();
  hideFailure();
  client = new WhepClient({ endpoint: endpoint('whep', stream), token: parameter('token') });
  client.addEventListener('stream', () => void attach());
  client.addEventListener('statechange', showClient);
  // Failures reach the page as a state.
  client.play().catch(() => undefined);
}

async function attach() {
  stalledSamples = 0;
  pictureless = 0;
  mediaBytes = 0;
  video.srcObject = client?.stream ?? null;
  try {
    await video.play();
  } catch (error) {
    // Browsers refuse sound before the first click on a page (autoplay policy); a muted picture they allow.
    if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return;
    video.muted = true;
    setText(unmute, 'Turn sound on');
    unmute.hidden = false;
    // Power saving modes refuse even that.
    await video.play().catch(askForClick);
  }
}

function askForClick() {
  setText(unmute, 'Play');
  showState('waiting', 'Ready to play', 'The browser blocks playback until you press Play.');
}

function showClient() {
  if (!client) return;
  if (client.state !== 'live') video.controls = false;
  switch (client.state) {
    case 'connecting':
      showState('connecting', 'Connecting…', 'Connecting…');
      break;
    case 'live':
      hideFailure();
      if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) showState('connecting', 'Connecting…', 'Waiting for the first picture…');
      else showPlaying();
      break;
    case 'waiting':
      if (client.error?.kind === 'stream-absent' || client.error?.status === 409) {
        hideFailure();
        showAbsent();
      } else {
        showState('waiting', 'Reconnecting…', 'Reconnecting…');
        showFailure(client.error, { stream }, true);
      }
      break;
    case 'failed':
      video.srcObject = null;
      unmute.hidden = true;
      showState('failed', 'Not playing', 'No picture.');
      showFailure(client.error, { stream });
      break;
  }
}

function showPlaying() {
  const soundOnly = video.videoWidth === 0;
  video.controls = true;
  showState('live', 'Live', soundOnly ? 'Sound only' : '');
}

function showAbsent() {
  showState('waiting', 'Waiting', `${stream} is not live right now. It starts here by itself as soon as somebody publishes it.`);
}

async function sample() {
  const pc = client?.pc;
  if (!client || !pc || client.state !== 'live') {
    showAll({ mediaBytes: 0 });
    return;
  }
  if (measured?.pc !== pc) measured = { meter: new StatsMeter(pc), pc };
  const figures = await measured.meter.sample();
  if (client.pc !== pc || client.state !== 'live') return;
  showAll(figures);
  watchFlow(figures.mediaBytes, figures.width !== undefined);
}

/**
 * A publisher may leave and come back on the same session: only the flow of media tells.
 * @param {number} bytes
 * @param {boolean} hasPicture
 */
function watchFlow(bytes, hasPicture) {
  const flowing = bytes > mediaBytes;
  mediaBytes = bytes;
  stalledSamples = flowing ? 0 : stalledSamples + 1;
  pictureless = flowing && !hasPicture ? pictureless + 1 : 0;
  // An element waits for the first picture for ever when only sound is published.
  const started = video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA || pictureless >= PICTURE_PATIENCE_SAMPLES;
  if (flowing && started && !video.paused) showPlaying();
  else if (stalledSamples >= STALL_SAMPLES && document.body.dataset.state !== 'waiting') showAbsent();
  if (stalledSamples > 0 && stalledSamples % STALL_SAMPLES === 0) void client?.probe();
}

/** Tells what the server has to do to the publisher's picture, and why. */
async function showServerNote() {
  if (client?.state !== 'live') return;
  const note = element('server-note');
  const { streams = [] } = await getJson(`/api/v1/streams/?key=${encodeURIComponent(stream)}`).catch(() => ({}));
  const crossing = streams[0]?.rtmp2rtc;
  /** @type {Record<string, string>} */
  const texts = {
    transcode: 'The encoder makes B-frames, so the server encodes the picture again for browsers. Set bframes=0 (x264: tune zerolatency) to save that work and a little delay.',
    drop: `The picture stutters: ${crossing?.note ?? 'B-frames are left out'}. Set bframes=0 in the encoder.`,
  };
  const text = texts[crossing?.video] ?? crossing?.note ?? '';
  setText(note, text);
  note.hidden = !text;
}

/** @param {import('./lib/stats.js').Figures} figures */
function showAll(figures) {
  showCommonFigures(figures);
  showFigure('buffer', figures.jitterBufferMs, ms);
  showFigure('freezes', figures.freezes, (count) => (count ? `${count} (${((figures.frozenMs ?? 0) / 1000).toFixed(1)} s)` : 'none'));
  showFigure('path', figures.path);
}

/** @param {number | null} delayMs */
function showDelay(delayMs) {
  delays = delayMs === null ? [] : [...delays.slice(1 - DELAY_READINGS), delayMs];
  const median = [...delays].sort((a, b) => a - b)[delays.length >> 1];
  element('delay-note').hidden = median !== undefined;
  showFigure('delay', median, (value) => (value < CLOCK_SKEW_MS ? 'clocks differ' : `${value} ms`));
}
