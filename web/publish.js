// The publish page: one click opens the source and publishes it; the page keeps it published until Stop.

import { camera, microphone, namedDevices, needsSecureContext, openCapture } from './capture.js';
import { insecureContext } from './lib/diagnose.js';
import { showLevel } from './lib/level.js';
import { StatsMeter } from './lib/stats.js';
import { WhipClient, sendableVideoCodecs } from './lib/whip.js';
import {
  codecName, copyOnClick, element, endpoint, hideFailure, pageAddress, parameter, phoneOrigins, serverInfo,
  showCommonFigures, showDiagnosis, showFailure, showQrCode, showState, streamFromAddress, tidy,
} from './page.js';

const SAMPLE_MS = 1000;

const form = element('controls', HTMLFormElement);
const stream = element('stream', HTMLInputElement);
const codec = element('codec', HTMLSelectElement);
const resolution = element('resolution', HTMLSelectElement);
const bitrate = element('bitrate', HTMLSelectElement);
const preview = element('preview', HTMLVideoElement);
const start = element('start', HTMLButtonElement);
const stop = element('stop', HTMLButtonElement);
const playLink = element('play-link', HTMLInputElement);

/** @type {WhipClient | null} */
let client = null;
/** @type {import('./capture.js').Capture | null} */
let capture = null;
/** @type {() => void} */
let stopLevel = () => undefined;
/** Counts the presses of Start and Stop, so that a capture that opens late knows that nobody wants it any more. */
let turn = 0;
/** @type {number | undefined} */
let httpsPort;
/** Where a phone finds the play page. @type {string | undefined} */
let phoneOrigin;

form.addEventListener('submit', (event) => {
  event.preventDefault();
  void publish();
});
stop.addEventListener('click', () => {
  end();
  showIdle();
});
element('retry').addEventListener('click', () => void publish());
element('source').addEventListener('change', sourceChanged);
stream.addEventListener('input', showLink);
bitrate.addEventListener('change', () => void client?.setMaxBitrate(chosenBitrate()));
element('camera').addEventListener('change', () => void switchDevice('video'));
element('microphone').addEventListener('change', () => void switchDevice('audio'));
navigator.mediaDevices?.addEventListener('devicechange', () => void listDevices());
element('phone').addEventListener('toggle', showCode);
copyOnClick(element('copy-link'), () => playLink.value);
void prepare();

async function prepare() {
  stream.value = streamFromAddress();
  for (const name of sendableVideoCodecs()) codec.append(new Option(codecName(name), name));
  preselect(codec, parameter('codec').toUpperCase());
  preselect(resolution, parameter('resolution'));
  preselect(bitrate, parameter('bitrate'));
  const source = document.getElementById(`source-${parameter('source')}`);
  if (source instanceof HTMLInputElement) source.checked = true;
  showIdle();
  sourceChanged();
  showLink();
  setInterval(() => void sample(), SAMPLE_MS);
  const info = await serverInfo();
  httpsPort = info.https_port;
  [phoneOrigin] = phoneOrigins(info.pages ?? []);
  showLink();
  warnWhenInsecure();
  await listDevices();
  if (parameter('autostart') === 'true') await publish();
}

async function publish() {
  end();
  const mine = ++turn;
  hideFailure();
  lock(true);
  const choice = chosen();
  if (needsSecureContext(choice.source)) {
    fail('No access to devices');
    showDiagnosis(insecureContext({ httpsPort }), false);
    return;
  }
  showState('connecting', 'Opening the source…', 'Waiting for the browser to open the source. It may ask for permission.');
  try {
    const opened = await openCapture(choice);
    if (mine !== turn) {
      opened.stop();
      return;
    }
    capture = opened;
  } catch (error) {
    if (mine !== turn) return;
    fail('Could not open the source');
    showFailure(error, { source: choice.source });
    return;
  }
  show(capture.stream, choice.source);
  void listDevices();
  client = new WhipClient({
    endpoint: endpoint('whip', stream.value),
    token: parameter('token'),
    codec: codec.value,
    maxBitrate: chosenBitrate(),
  });
  client.addEventListener('statechange', showClient);
  client.publish(capture.stream);
}

function showClient() {
  if (!client) return;
  const name = tidy(stream.value);
  const sound = capture?.stream.getVideoTracks().length === 0 ? 'Sound only' : '';
  switch (client.state) {
    case 'connecting':
      showState('connecting', 'Connecting…', sound);
      break;
    case 'live':
      hideFailure();
      showState('live', 'Live', sound);
      break;
    case 'waiting':
      showState('waiting', 'Reconnecting…', sound);
      showFailure(client.error, { stream: name }, true);
      break;
    case 'failed': {
      const { error } = client;
      end();
      fail('Not published');
      showFailure(error, { stream: name });
      break;
    }
  }
}

/** @param {MediaStream} opened @param {string} source */
function show(opened, source) {
  preview.srcObject = opened;
  stopLevel = showLevel(opened, element('level', HTMLMeterElement));
  watchEnd(opened.getTracks(), source);
}

/** @param {MediaStreamTrack[]} tracks @param {string} source */
function watchEnd(tracks, source) {
  for (const track of tracks) {
    track.addEventListener('ended', () => {
      if (!capture?.stream.getTracks().includes(track)) return;
      end();
      if (source === 'screen') {
        showIdle();
        return;
      }
      fail('Device lost');
      showDiagnosis({ kind: 'device-lost', what: `${track.label || 'The device'} was disconnected.`, remedy: 'Plug it in again or choose another one, then press Start.' }, false);
    });
  }
}

/** Ends publishing and gives the devices back. */
function end() {
  turn++;
  client?.removeEventListener('statechange', showClient);
  void client?.close();
  client = null;
  stopLevel();
  stopLevel = () => undefined;
  const old = capture;
  capture = null;
  old?.stop();
  preview.srcObject = null;
  lock(false);
  showCommonFigures({ mediaBytes: 0 });
}

function showIdle() {
  hideFailure();
  warnWhenInsecure();
  showState('idle', 'Ready', 'The preview appears here.');
}

/** @param {string} status */
function fail(status) {
  lock(false);
  showState('failed', status, 'The preview appears here.');
}

function warnWhenInsecure() {
  if (client || document.body.dataset.state !== 'idle') return;
  if (needsSecureContext(chosen().source)) showDiagnosis(insecureContext({ httpsPort }), true);
  else hideFailure();
}

/** @type {{meter: StatsMeter, pc: RTCPeerConnection} | null} */
let measured = null;

async function sample() {
  const pc = client?.pc;
  if (!pc || client?.state !== 'live') return;
  if (measured?.pc !== pc) measured = { meter: new StatsMeter(pc), pc };
  const figures = await measured.meter.sample();
  if (client?.pc === pc) showCommonFigures(figures);
}

/** What is chosen for a running session stays as it is until Stop. @param {boolean} running */
function lock(running) {
  const onButton = document.activeElement === start || document.activeElement === stop;
  start.hidden = running;
  stop.hidden = !running;
  element('source', HTMLFieldSetElement).disabled = running;
  for (const control of [stream, codec, resolution]) control.disabled = running;
  if (onButton) (running ? stop : start).focus();
}

function sourceChanged() {
  const { source } = chosen();
  for (const field of form.querySelectorAll('[data-for]')) {
    const sources = /** @type {HTMLElement} */ (field).dataset.for?.split(' ') ?? [];
    /** @type {HTMLElement} */ (field).hidden = !sources.includes(source);
  }
  warnWhenInsecure();
}

function showLink() {
  const address = pageAddress('play', stream.value || 'live/cam');
  playLink.value = address;
  element('open-link', HTMLAnchorElement).href = address;
  element('nav-play', HTMLAnchorElement).href = address;
  showCode();
}

/** The code is fetched only where somebody looks at it. */
function showCode() {
  const phone = element('phone', HTMLDetailsElement);
  phone.hidden = !phoneOrigin;
  if (!phoneOrigin || !phone.open) return;
  const { pathname, search } = new URL(playLink.value);
  showQrCode(element('qr', HTMLImageElement), `${phoneOrigin}${pathname}${search}`);
}

/** @returns {import('./capture.js').CaptureChoice} */
function chosen() {
  const data = new FormData(form);
  const source = form.querySelector('input[name=source]:checked');
  const [width, height] = resolution.value.split('x').map(Number);
  return {
    source: source instanceof HTMLInputElement ? source.value : 'camera',
    camera: String(data.get('camera') ?? ''),
    microphone: String(data.get('microphone') ?? ''),
    width,
    height,
  };
}

function chosenBitrate() {
  return Number(bitrate.value) * 1000;
}

/** @param {'video' | 'audio'} kind */
async function switchDevice(kind) {
  const choice = chosen();
  if (!client || !capture || (kind === 'audio' && choice.microphone === 'none')) {
    for (const track of (capture && kind === 'audio' && capture.stream.getAudioTracks()) || []) track.enabled = false;
    return;
  }
  const { stream: running } = capture;
  const old = running.getTracks().filter((track) => track.kind === kind);
  if (old.length === 0) return;
  try {
    // Some cameras open only once: the old one has to be given back first.
    for (const track of old) {
      running.removeTrack(track);
      track.stop();
    }
    const fresh = await navigator.mediaDevices.getUserMedia(kind === 'video' ? { video: camera(choice) } : { audio: microphone(choice) });
    const [track] = fresh.getTracks();
    await client.replaceTrack(track);
    stopLevel();
    show(running, choice.source);
  } catch (error) {
    end();
    fail('Could not open the device');
    showFailure(error, { source: choice.source });
  }
}

async function listDevices() {
  const devices = await namedDevices();
  fill(element('camera', HTMLSelectElement), devices.filter((d) => d.kind === 'videoinput'));
  fill(element('microphone', HTMLSelectElement), devices.filter((d) => d.kind === 'audioinput'));
}

/** @param {HTMLSelectElement} select @param {MediaDeviceInfo[]} devices */
function fill(select, devices) {
  const chosenId = select.value;
  for (const option of [...select.options]) if (option.value && option.value !== 'none') option.remove();
  for (const device of devices) select.append(new Option(device.label, device.deviceId));
  preselect(select, chosenId);
}

/** @param {HTMLSelectElement} select @param {string} value */
function preselect(select, value) {
  if ([...select.options].some((option) => option.value === value)) select.value = value;
}
