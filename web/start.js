// The start page: choose a stream, see what is live, and where other programs connect.

import { codecName, copyOnClick, element, endpoint, getJson, kbps, pageAddress, parameter, phoneOrigins, serverInfo, setText, showQrCode, tidy } from './page.js';
import { secureAddress } from './lib/diagnose.js';

const REFRESH_MS = 2000;
const PICTURE_MS = 10_000;

const stream = element('stream', HTMLInputElement);
/** @type {Set<HTMLImageElement>} */
const visible = new Set();
const pictures = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const picture = /** @type {HTMLImageElement} */ (target);
    if (isIntersecting) visible.add(picture);
    else visible.delete(picture);
  }
});
let rtmpPort = 0;
let hasFlv = false;
let hasHls = false;
let mayLook = false;

element('open', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  const watch = event.submitter?.id === 'watch';
  location.href = pageAddress(watch ? 'play' : 'publish', stream.value);
});
const room = element('room', HTMLInputElement);
room.value = randomName();
element('meet', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  const kind = event.submitter?.id === 'meeting' ? 'room' : 'call';
  location.href = new URL(`/${kind}/${encodeURIComponent(room.value.trim())}`, location.href).href;
});
stream.addEventListener('input', showAddresses);
const phoneAddress = element('phone-address', HTMLSelectElement);
phoneAddress.addEventListener('change', showCode);
for (const button of document.querySelectorAll('button[data-copy]')) {
  const target = element(/** @type {HTMLElement} */ (button).dataset.copy ?? '');
  copyOnClick(/** @type {HTMLElement} */ (button), () => target.textContent ?? '');
}
if (parameter('stream')) stream.value = tidy(parameter('stream'));
showAddresses();
void showServer();
void refresh();

function showAddresses() {
  const name = tidy(stream.value) || 'live/cam';
  setText(element('whip-url'), endpoint('whip', name));
  setText(element('whep-url'), endpoint('whep', name));
  element('rtmp-row').hidden = !rtmpPort;
  setText(element('rtmp-url'), `rtmp://${location.hostname}${rtmpPort === 1935 ? '' : `:${rtmpPort}`}/${name}`);
  element('flv-row').hidden = !hasFlv;
  setText(element('flv-url'), `${location.origin}/${name}.flv`);
  element('hls-row').hidden = !hasHls;
  setText(element('hls-url'), `${location.origin}/${name}.m3u8`);
}

async function showServer() {
  const info = await serverInfo();
  if (info.candidates) setText(element('candidates'), info.candidates.join('\n') || 'Only this machine. Set CANDIDATE to an address that others reach.');
  rtmpPort = info.rtmp_port ?? 0;
  hasFlv = Boolean(info.http_flv);
  hasHls = Boolean(info.hls);
  mayLook = info.play_needs_token === false;
  showAddresses();
  element('meet').hidden = info.rooms === false;
  showPhone(info.pages ?? []);
  if (info.version) setText(element('version'), `Freshet ${info.version}`);
  if (!isSecureContext) {
    element('insecure').hidden = false;
    const link = element('secure-link', HTMLAnchorElement);
    if (info.https_port) link.href = secureAddress(info.https_port);
    else link.replaceWith(link.textContent ?? '');
  }
}

/** @param {string[]} pages  origins that the server knows */
function showPhone(pages) {
  const origins = phoneOrigins(pages);
  element('phone').hidden = origins.length === 0;
  if (!origins.length) return;
  phoneAddress.replaceChildren(...origins.map((origin) => new Option(origin.replace(/^https?:\/\//, ''), `${origin}/`)));
  showCode();
}

function showCode() {
  const url = new URL(phoneAddress.value);
  showQrCode(element('qr', HTMLImageElement), url.href);
  // An address instead of a name can have no certificate that phones know.
  element('phone-warning').hidden = url.protocol !== 'https:' || !/^(\[|[\d.]+$)/.test(url.hostname);
}

/** Nobody guesses it, and two people can read it to each other. */
function randomName() {
  const letters = 'abcdefghjkmnpqrstuvwxyz';
  const drawn = [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => letters[byte % letters.length]).join('');
  return drawn.replace(/(...)(?=.)/g, '$1-');
}

async function refresh() {
  try {
    const { streams = [] } = await getJson('/api/v1/streams/?count=100');
    showStreams(streams.filter((/** @type {StreamEntry} */ s) => s.publish?.active));
  } catch {
    setText(element('live-status'), 'The server does not answer. Trying again…');
    element('live-status').hidden = false;
  }
  setTimeout(() => void refresh(), REFRESH_MS);
}

/**
 * @typedef {object} StreamEntry  as in /api/v1/streams/
 * @property {string} url         "/live/cam"
 * @property {number} [clients]   publisher included
 * @property {{active: boolean}} [publish]
 * @property {{codec?: string, width?: number, height?: number} | null} [video]
 * @property {{codec?: string} | null} [audio]
 * @property {{recv_30s?: number}} [kbps]
 * @property {string | null} [protocol]  what the publisher speaks
 * @property {{video: string} | null} [rtmp2rtc]  the crossing to WebRTC, while it runs
 */

/** @param {StreamEntry[]} streams */
function showStreams(streams) {
  setText(element('live-status'), 'Nothing is live. Publish something, and it appears here.');
  element('live-status').hidden = streams.length > 0;
  const list = element('streams');
  const known = new Map([...list.children].map((item) => [/** @type {HTMLElement} */ (item).dataset.stream, item]));
  // Rows are kept and updated in place: a rebuilt list would take the focus from whoever is about to press Enter.
  const rows = streams.map((entry) => {
    const name = tidy(entry.url);
    const row = known.get(name) ?? newRow(name);
    setText(/** @type {HTMLElement} */ (row.querySelector('.muted')), describe(entry));
    return row;
  });
  if (rows.length !== list.children.length || rows.some((row, i) => row !== list.children[i])) list.replaceChildren(...rows);
  if (mayLook) showPictures(new Map(streams.map((entry) => [tidy(entry.url), entry])));
}

/** @param {string} name */
function newRow(name) {
  const row = document.createElement('li');
  row.dataset.stream = name;
  const picture = Object.assign(document.createElement('img'), { className: 'thumbnail', alt: '', width: 96, height: 54 });
  picture.addEventListener('load', () => picture.classList.add('loaded'));
  picture.addEventListener('error', () => picture.classList.remove('loaded'));
  pictures.observe(picture);
  const about = Object.assign(document.createElement('div'), { className: 'about' });
  about.append(
    Object.assign(document.createElement('strong'), { textContent: name }),
    Object.assign(document.createElement('span'), { className: 'muted' }),
  );
  const link = Object.assign(document.createElement('a'), { className: 'button', href: pageAddress('play', name), textContent: 'Watch' });
  link.setAttribute('aria-label', `Watch ${name}`);
  row.append(picture, about, link);
  return row;
}

/**
 * Asks for the pictures that can be seen and are due. Only H.264 becomes one, and the stream of a browser has to cross to
 * frames for it, so that is asked less often.
 * @param {Map<string, StreamEntry>} streams
 */
function showPictures(streams) {
  for (const picture of document.hidden ? [] : visible) {
    const name = picture.closest('li')?.dataset.stream ?? '';
    const entry = streams.get(name);
    if (!picture.isConnected) visible.delete(picture);
    if (entry?.video?.codec !== 'H264' || Date.now() < Number(picture.dataset.due ?? 0)) continue;
    picture.dataset.due = String(Date.now() + (entry.protocol === 'webrtc' ? 3 : 1) * PICTURE_MS);
    picture.src = `/api/v1/snapshot.jpg?width=192&stream=${encodeURIComponent(name)}&t=${Date.now()}`;
  }
}

/** @param {StreamEntry} entry */
function describe({ video, audio, clients = 1, kbps: rates, protocol, rtmp2rtc }) {
  const viewers = Math.max(0, clients - 1);
  const size = video?.width ? ` ${video.width} × ${video.height}` : '';
  return [
    video?.codec ? `${codecName(video.codec)}${size}` : '',
    audio?.codec ? codecName(audio.codec) : '',
    rates?.recv_30s ? kbps(rates.recv_30s) : '',
    protocol === 'rtmp' ? 'RTMP' : '',
    rtmp2rtc?.video === 'transcode' ? 'B-frames removed for browsers' : '',
    rtmp2rtc?.video === 'drop' ? 'stutters in browsers: B-frames dropped' : '',
    viewers === 1 ? '1 viewer' : `${viewers} viewers`,
  ].filter(Boolean).join(' · ');
}
