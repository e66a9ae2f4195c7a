// The play page: plays at once, waits for a stream that is not there, and says what is wrong when something is. Where
// WebRTC does not connect it goes on by LL-HLS or HTTP-FLV, and says so; `?via=` and the buttons choose a way for good.

import { watchDelay } from './lib/clock.js';
import { diagnose } from './lib/diagnose.js';
import {
  element, getJson, hideFailure, ms, pageAddress, parameter, serverInfo, setText,
  showCommonFigures, showFailure, showFigure, showState, streamFromAddress,
} from './page.js';
import { NAMES, Way, isVia, waysOf } from './ways.js';

/** @typedef {import('./ways.js').Via} Via */

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
/** What another way may cure: the network between, and codecs that only one of them carries. */
const CURABLE = new Set(['ice-failed', 'dtls-failed', 'no-webrtc', 'bad-answer', 'browser', 'codec-mismatch', 'codec-unplayable', 'no-mse', 'media-error', 'not-found']);
/** Refusals of WebRTC alone: a crossing that is off, a codec that browsers have no RTP for. */
const CURABLE_STATUS = new Set([404, 406, 415, 501]);

const stream = streamFromAddress();
const video = element('video', HTMLVideoElement);
const unmute = element('unmute', HTMLButtonElement);
const name = element('stream', HTMLInputElement);
const buttons = element('ways');

/** @type {Via[]} */
let ways = ['webrtc'];
/** @type {Way | null} */
let way = null;
/** The person has chosen it: no other one is tried. */
let isChosen = isVia(parameter('via'));
/** Ways that have failed since the person last chose. @type {Set<Via>} */
const failed = new Set();
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
element('retry').addEventListener('click', () => choose(way?.via ?? 'webrtc', isChosen));
element('back').addEventListener('click', () => choose('webrtc', false));
video.addEventListener('playing', () => way?.state === 'live' && showPlaying());
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
const wanted = parameter('via');
watch(isVia(wanted) ? wanted : 'webrtc');
void serverInfo().then((info) => {
  ways = waysOf(info);
  showWays();
  // It may have failed before the other ways were known.
  if (way?.state === 'failed') show(way);
});

/** @param {Via} via @param {boolean} forGood */
function choose(via, forGood) {
  isChosen = forGood;
  failed.clear();
  element('stepped').hidden = true;
  watch(via);
}

/** @param {Via} via @param {boolean} [isPatient] */
function watch(via, isPatient = isChosen) {
  way?.close();
  hideFailure();
  stalledSamples = 0;
  pictureless = 0;
  mediaBytes = 0;
  delays = [];
  const fresh = new Way(via, stream, video, isPatient);
  way = fresh;
  fresh.addEventListener('media', () => way === fresh && void attach());
  fresh.addEventListener('statechange', () => way === fresh && show(fresh));
  fresh.start();
  showWays();
}

async function attach() {
  stalledSamples = 0;
  pictureless = 0;
  mediaBytes = 0;
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

/** @param {Way} shown */
function show(shown) {
  const { state, error } = shown;
  if (state !== 'live') video.controls = false;
  switch (state) {
    case 'connecting':
      showState('connecting', 'Connecting…', `Connecting over ${NAMES[shown.via]}…`);
      break;
    case 'live':
      hideFailure();
      if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) showState('connecting', 'Connecting…', 'Waiting for the first picture…');
      else showPlaying();
      break;
    case 'waiting':
      if (error?.kind === 'ice-failed' && stepDown(shown)) break;
      if (error?.kind === 'stream-absent' || error?.status === 409 || (error?.status === 404 && shown.via !== 'webrtc')) {
        hideFailure();
        showAbsent();
      } else {
        showState('waiting', 'Reconnecting…', 'Reconnecting…');
        if (error?.retryAfterMs !== 0) showFailure(error, { stream }, true);
      }
      break;
    case 'failed':
      if (stepDown(shown)) break;
      if (error?.kind === 'ice-failed' && !shown.isPatient) {
        // There is nothing else: then it may take its time.
        watch(shown.via, true);
        break;
      }
      unmute.hidden = true;
      showState('failed', 'Not playing', 'No picture.');
      showFailure(error, { stream });
      break;
  }
}

/** Goes on in the next best way if that may help, and says why. @param {Way} from @returns {boolean} */
function stepDown({ via, error }) {
  if (isChosen || !error || !(CURABLE.has(error.kind) || CURABLE_STATUS.has(error.status))) return false;
  failed.add(via);
  const next = ways.find((one) => !failed.has(one));
  if (!next) return false;
  if (via === 'webrtc') {
    const { what, remedy, details = [] } = diagnose(error, { stream });
    setText(element('stepped-what'), `${what} Playing over ${NAMES[next]} meanwhile, a little later than WebRTC would.`);
    setText(element('stepped-remedy'), remedy);
    element('stepped-details').replaceChildren(...details.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  } else {
    setText(element('stepped-what'), `${element('stepped-what').textContent?.split(' Playing over')[0]} Playing over ${NAMES[next]} meanwhile.`);
  }
  element('stepped').hidden = false;
  watch(next);
  return true;
}

/** A button for each way there is, the one in use pressed. */
function showWays() {
  buttons.hidden = ways.length < 2;
  const known = new Map([...buttons.querySelectorAll('button')].map((button) => [button.value, button]));
  for (const via of ways) {
    const button = known.get(via) ?? wayButton(via);
    button.setAttribute('aria-pressed', String(way?.via === via));
  }
}

/** @param {Via} via */
function wayButton(via) {
  const button = Object.assign(document.createElement('button'), { type: 'button', value: via, textContent: NAMES[via] });
  button.addEventListener('click', () => choose(via, true));
  buttons.append(button);
  return button;
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
  const sampled = way;
  const figures = await sampled?.sample();
  if (way !== sampled) return;
  if (!figures) {
    showAll({ mediaBytes: 0 });
    // An answer that nothing follows: over HTTP a stream that is not there is silent.
    stalledSamples = way?.state === 'connecting' ? stalledSamples + 1 : 0;
    if (stalledSamples >= STALL_SAMPLES && way?.via === 'flv') showAbsent();
    return;
  }
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
  if (stalledSamples > 0 && stalledSamples % STALL_SAMPLES === 0) way?.probe();
}

/** Tells what the server has to do to the publisher's picture, and why. */
async function showServerNote() {
  const note = element('server-note');
  if (way?.state !== 'live' || way.via !== 'webrtc') {
    note.hidden = true;
    return;
  }
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
  // Only WebRTC tells of these.
  for (const id of ['rtt', 'loss']) /** @type {HTMLElement} */ (element(`stat-${id}`).parentElement).hidden = way?.via !== 'webrtc';
}

/** @param {number | null} delayMs */
function showDelay(delayMs) {
  delays = delayMs === null ? [] : [...delays.slice(1 - DELAY_READINGS), delayMs];
  const median = [...delays].sort((a, b) => a - b)[delays.length >> 1];
  element('delay-note').hidden = median !== undefined;
  showFigure('delay', median, (value) => (value < CLOCK_SKEW_MS ? 'clocks differ' : `${value} ms`));
}
