// What the pages have in common: the stream they are about, the state they show, the failure box, figures, links.

import { diagnose } from './lib/diagnose.js';

/** @typedef {import('./lib/diagnose.js').Diagnosis} Diagnosis */
/** @typedef {'idle' | 'connecting' | 'waiting' | 'live' | 'failed'} PageState */

/**
 * @typedef {object} ServerInfo
 * @property {string} [version]
 * @property {string[]} [candidates]
 * @property {number} [https_port]
 * @property {number} [rtmp_port]
 * @property {string[]} [pages]  origins of these pages for other machines
 * @property {boolean} [http_flv]
 * @property {boolean} [hls]
 * @property {boolean} [rooms]  calls and rooms
 * @property {boolean} [ll_hls]  HLS of fragmented MP4, under /hls/
 * @property {boolean} [play_needs_token]
 */

const DEFAULT_STREAM = 'live/cam';
const CODEC_NAMES = new Map([['H264', 'H.264'], ['H265', 'H.265'], ['HEVC', 'H.265'], ['opus', 'Opus']]);
const query = new URLSearchParams(location.search);

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} [type]
 * @returns {T}
 */
export function element(id, type = /** @type {any} */ (HTMLElement)) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`this page has no ${type.name} #${id}`);
  return found;
}

/** @param {string} name */
export function parameter(name) {
  return query.get(name) ?? '';
}

/** From `?stream=live/cam` or `/play/live/cam`. */
export function streamFromAddress() {
  const path = decodeURIComponent(location.pathname).replace(/^\/(publish|play)\/?/, '');
  return tidy(parameter('stream') || path) || DEFAULT_STREAM;
}

/** @param {string} stream */
export function tidy(stream) {
  return stream.trim().replace(/^\/+|\/+$/g, '');
}

/** Absolute address of the WHIP or WHEP endpoint. @param {'whip' | 'whep'} protocol @param {string} stream */
export function endpoint(protocol, stream) {
  return new URL(`/${protocol}/${tidy(stream).split('/').map(encodeURIComponent).join('/')}`, location.href).href;
}

/** Absolute address of a stream's media, for players without WebRTC. @param {'flv' | 'llhls'} format @param {string} stream */
export function streamAddress(format, stream) {
  const path = tidy(stream).split('/').map(encodeURIComponent).join('/');
  return new URL(format === 'flv' ? `/${path}.flv` : `/hls/${path}/index.m3u8`, location.href).href;
}

/** Absolute address of a page about a stream; the token goes along. @param {'publish' | 'play'} page @param {string} stream */
export function pageAddress(page, stream) {
  const address = new URL(`/${page}/${tidy(stream).split('/').map(encodeURIComponent).join('/')}`, location.href);
  if (parameter('token')) address.searchParams.set('token', parameter('token'));
  return address.href;
}

/** @returns {Promise<ServerInfo>} empty when the server does not say */
export async function serverInfo() {
  try {
    return await getJson('/api/v1/freshet/server');
  } catch {
    return {};
  }
}

/** @param {string} path @returns {Promise<any>} */
export async function getJson(path) {
  const token = parameter('token');
  const response = await fetch(path, {
    headers: token ? { Authorization: `Bearer ${token}` } : undefined,
    cache: 'no-store',
    signal: AbortSignal.timeout(5000),
  });
  if (!response.ok) throw new Error(`${path}: HTTP ${response.status}`);
  return response.json();
}

/**
 * @param {PageState} state
 * @param {string} status   short, for the badge
 * @param {string} [overlay] longer, over the picture; empty: none
 */
export function showState(state, status, overlay = '') {
  document.body.dataset.state = state;
  setText(element('status'), status);
  setText(element('overlay-text'), overlay);
  element('overlay').hidden = overlay === '';
}

/**
 * @param {unknown} error
 * @param {import('./lib/diagnose.js').Surroundings} around
 * @param {boolean} [passing]  the page goes on by itself
 * @returns {Diagnosis}
 */
export function showFailure(error, around, passing = false) {
  const diagnosis = diagnose(error, around);
  showDiagnosis(diagnosis, passing);
  return diagnosis;
}

/** @param {Diagnosis} diagnosis @param {boolean} passing */
export function showDiagnosis({ kind, what, remedy, details = [], link }, passing) {
  const box = element('failure');
  box.dataset.kind = kind;
  box.classList.toggle('passing', passing);
  setText(element('failure-what'), what);
  setText(element('failure-remedy'), remedy);
  element('failure-details').replaceChildren(...details.filter(Boolean).map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  const anchor = element('failure-link', HTMLAnchorElement);
  anchor.hidden = !link;
  if (link) Object.assign(anchor, { href: link.href, textContent: link.text });
  element('retry').hidden = passing;
  box.hidden = false;
}

export function hideFailure() {
  element('failure').hidden = true;
}

/**
 * Shows a figure, and keeps the bare number in `data-value`.
 * @param {string} id
 * @param {number | string | undefined} value
 * @param {(value: any) => string} [format]
 */
export function showFigure(id, value, format = String) {
  const cell = element(`stat-${id}`);
  const known = value !== undefined && value !== '' && !Number.isNaN(value);
  setText(cell, known ? format(value) : '–');
  if (known) cell.dataset.value = String(value);
  else delete cell.dataset.value;
}

/** @param {import('./lib/stats.js').Figures} figures  the figures both directions have */
export function showCommonFigures(figures) {
  showFigure('bitrate', figures.kbps, kbps);
  showFigure('rtt', figures.rttMs, ms);
  showFigure('loss', figures.lossPercent, (v) => `${v.toFixed(1)} %`);
  showFigure('fps', figures.fps, (v) => v.toFixed(0));
  showFigure('size', figures.width && `${figures.width} × ${figures.height}`);
  showFigure('codec', [figures.videoCodec, figures.audioCodec].flatMap((name) => (name ? codecName(name) : [])).join(' + '));
}

/** As the codec is written, not as SDP spells it. @param {string} codec */
export function codecName(codec) {
  return CODEC_NAMES.get(codec) ?? codec;
}

/** @param {number} value */
export function kbps(value) {
  return value >= 1000 ? `${(value / 1000).toFixed(2)} Mbit/s` : `${value.toFixed(0)} kbit/s`;
}

/** @param {number} value */
export function ms(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/**
 * @param {HTMLElement} button
 * @param {() => string} text
 */
export function copyOnClick(button, text) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    const copied = await copy(text());
    button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => (button.textContent = label), 1500);
  });
}

/**
 * Origins for other devices: the one this page was opened at where they can use it, and those of the server's networks.
 * @param {string[]} pages  origins that the server knows
 */
export function phoneOrigins(pages) {
  const isLocal = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  return [...new Set([...(isSecureContext && !isLocal ? [location.origin] : []), ...pages])];
}

/** Shows an address of this server for a phone's camera. @param {HTMLImageElement} image @param {string} url */
export function showQrCode(image, url) {
  image.src = `/api/v1/freshet/qr.svg?${new URLSearchParams({ url })}`;
  image.alt = `QR code of ${url}`;
}

/** The clipboard interface is missing on plain HTTP; selecting the text works everywhere. @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.body.appendChild(Object.assign(document.createElement('textarea'), { value: text }));
    field.select();
    const copied = document.execCommand('copy');
    field.remove();
    return copied;
  }
}

/** Live regions speak on every assignment, so only changes are written. @param {HTMLElement} target @param {string} text */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// A page that comes back from the back/forward cache holds a session that has ended.
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});
