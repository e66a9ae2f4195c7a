// Turns whatever went wrong into what happened and what to do about it, in words for the person in front of the page.

import { SessionError } from './resource.js';

/**
 * @typedef {object} Diagnosis
 * @property {string} kind
 * @property {string} what
 * @property {string} remedy
 * @property {string[]} [details]  facts worth listing, such as the addresses tried
 * @property {{href: string, text: string}} [link]
 */

/**
 * @typedef {object} Surroundings
 * @property {string} [stream]
 * @property {number} [httpsPort]
 * @property {string} [source]  "camera", "screen"…
 */

/**
 * @param {unknown} error
 * @param {Surroundings} [around]
 * @returns {Diagnosis}
 */
export function diagnose(error, around = {}) {
  if (error instanceof SessionError) return error.status ? refused(error, around) : local(error);
  if (error instanceof DOMException) return capture(error, around);
  const message = error instanceof Error ? error.message : String(error);
  return { kind: 'browser', what: 'Something unexpected happened in the browser.', remedy: `Reload the page and try again. The browser said: ${message}` };
}

/**
 * Browsers give pages over plain HTTP no camera, microphone or screen, except on localhost.
 * @param {Surroundings} around
 * @returns {Diagnosis}
 */
export function insecureContext({ httpsPort }) {
  const what = 'This page was opened over plain HTTP, so the browser gives it no camera, microphone or screen.';
  if (!httpsPort) return { kind: 'insecure-context', what, remedy: 'Open it over HTTPS, or as http://localhost on the server itself. The test picture works here as well.' };
  return {
    kind: 'insecure-context',
    what,
    remedy: 'Use the HTTPS address. With the certificate that the server made for itself the browser warns once: choose to continue.',
    link: { href: secureAddress(httpsPort), text: 'Open over HTTPS' },
  };
}

/** @param {number} httpsPort */
export function secureAddress(httpsPort) {
  const { hostname, pathname, search } = location;
  return `https://${hostname}${httpsPort === 443 ? '' : `:${httpsPort}`}${pathname}${search}`;
}

/** @param {DOMException} error @param {Surroundings} around @returns {Diagnosis} */
function capture(error, { source = 'camera' }) {
  const device = source === 'audio' ? 'microphone' : source === 'screen' ? 'screen' : 'camera or microphone';
  switch (error.name) {
    case 'NotAllowedError':
    case 'SecurityError':
      if (source === 'screen') return { kind: 'permission-denied', what: 'Nothing was chosen to share.', remedy: 'Press Start again and pick a screen, window or tab. If no choice appears, allow screen recording for the browser in the system settings.' };
      return { kind: 'permission-denied', what: `The browser may not use the ${device}.`, remedy: 'Click the camera or lock symbol in the address bar, allow access, and press Start again. If it stays blocked, allow it for the browser in the system settings.' };
    case 'NotFoundError':
      return { kind: 'no-device', what: `No ${device} was found.`, remedy: 'Plug one in and press Start again, choose another source, or publish the test picture.' };
    case 'NotReadableError':
    case 'AbortError':
      return { kind: 'device-busy', what: `The ${device} is there but cannot be used.`, remedy: 'Another program is probably using it. Close that program (or another tab with a call) and press Start again.' };
    case 'OverconstrainedError':
      return { kind: 'no-device', what: `The chosen ${device} cannot do this resolution or is gone.`, remedy: 'Choose another device or a lower resolution.' };
    default:
      return { kind: 'browser', what: `The browser could not open the ${device}.`, remedy: `It said: ${error.message || error.name}` };
  }
}

/** @param {SessionError} error @returns {Diagnosis} */
function local(error) {
  switch (error.kind) {
    case 'unreachable':
      return { kind: error.kind, what: 'The server does not answer.', remedy: 'Check that it is running and that this computer is online. The page keeps trying.', details: [error.detail] };
    case 'connection-lost':
      return { kind: error.kind, what: 'The connection to the server was lost.', remedy: 'The page is connecting again by itself.' };
    case 'ice-failed':
      return unconnected(error);
    case 'dtls-failed':
      return { kind: error.kind, what: 'The server was reached, but encryption could not be agreed.', remedy: 'Something between here and the server changes packets, or the network loses nearly all of them. Try another network or without a VPN.', details: error.candidates.map((address) => `reached one of ${address}`) };
    case 'no-webrtc':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Allow WebRTC in the settings of the browser or its privacy extension, or use another browser.' };
    case 'no-mse':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Watch over WebRTC, or use another browser.' };
    case 'codec-unplayable':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Publish H.264 and AAC, which play nearly everywhere, or open this page in another browser.' };
    case 'media-error':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Try again, watch it in another way, or use another browser.', details: error.detail ? [error.detail] : [] };
    case 'stream-absent':
      return { kind: error.kind, what: 'Nothing comes from the stream right now.', remedy: 'Playback starts by itself as soon as somebody publishes it.' };
    case 'codec-missing':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Choose another codec, or “Automatic”.' };
    case 'bad-answer':
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Choose another codec, or try another browser.', details: [error.detail] };
    default:
      return { kind: error.kind, what: `${error.title}.`, remedy: 'Reload the page and try again.', details: error.detail ? [error.detail] : [] };
  }
}

/** @param {SessionError} error @returns {Diagnosis} */
function unconnected({ kind, candidates, checks }) {
  const protocols = [...new Set(candidates.map((address) => address.split(' ')[0].toUpperCase()))];
  const addresses = [...new Set(candidates.map((address) => address.slice(address.indexOf(' ') + 1)))];
  if (!candidates.length) {
    return { kind, what: 'The server answered over HTTP, but offered no address for media.', remedy: 'Set CANDIDATE on the server to an address that this computer can reach.' };
  }
  const ports = [...new Set(addresses.map((address) => address.slice(address.lastIndexOf(':') + 1)))].join(', ');
  return {
    kind,
    what: `The server answered over HTTP, but no media connection came about${protocols.length > 1 ? `, neither over ${protocols.join(' nor over ')}` : ` over ${protocols[0]}`}.`,
    remedy: `A firewall blocks port ${ports}, or the address below is not the one this computer reaches the server at: open the port for UDP and TCP, or set CANDIDATE on the server to its public address.`,
    details: candidates.map((address) => tried(address, checks)),
  };
}

/** @param {string} candidate  "udp 192.0.2.1:8000" @param {import('./resource.js').IceCheck[]} checks */
function tried(candidate, checks) {
  const [protocol, address] = candidate.split(' ');
  const mine = checks.filter((check) => check.protocol === protocol && check.to === address);
  const sum = (/** @type {'sent' | 'answered'} */ count) => mine.reduce((total, check) => total + check[count], 0);
  // Some browsers hide this side's address, others have not chosen one yet.
  const from = [...new Set(mine.map((check) => check.from).filter((one) => one && one !== '0.0.0.0'))];
  const counts = sum('sent') ? `: ${sum('sent')} checks, ${sum('answered') || 'no'} answers` : '';
  return `tried ${candidate}${from.length ? ` from ${from.join(', ')}` : ''}${counts}`;
}

/** The server's own words first: it knows best. @param {SessionError} error @param {Surroundings} around @returns {Diagnosis} */
function refused(error, { stream = 'this stream' }) {
  const [what, remedy] = meaning(error, stream);
  return {
    kind: error.kind,
    what: sentence(error.detail || what || error.title),
    remedy: sentence(error.hint || remedy || 'The log of the server has the reason'),
    details: [`HTTP ${error.status} ${error.kind}`],
  };
}

/** @param {SessionError} error @param {string} stream @returns {[string, string]} */
function meaning(error, stream) {
  const byKind = MEANINGS[error.kind] ?? MEANINGS[error.status];
  return byKind ? [byKind[0].replace('{stream}', stream), byKind[1]] : ['', ''];
}

/** By kind, and by status for servers that name no kind. @type {Record<string, [string, string]>} */
const MEANINGS = {
  'stream-absent': ['Nobody is publishing {stream} right now.', 'Playback starts by itself as soon as somebody does.'],
  'stream-busy': ['Somebody else is already publishing {stream}.', 'Choose another stream name, or stop the other publisher first.'],
  'codec-mismatch': ['This browser cannot play what is published.', 'Publish with another codec (H.264 plays nearly everywhere), or open this page in another browser.'],
  unauthorized: ['The server wants a token for {stream}.', 'Open this page with ?token=… in its address, or ask the operator for one.'],
  draining: ['The server is about to shut down and takes no new sessions.', 'Try again in a moment; the page keeps trying.'],
  401: ['The server wants a token for {stream}.', 'Open this page with ?token=… in its address, or ask the operator for one.'],
  403: ['The server does not allow this for {stream}.', 'Check the token, or ask the operator for permission.'],
  404: ['The server knows no such stream or address.', 'Check the stream name.'],
  406: ['This browser and the server share no codec.', 'Choose another codec, or try another browser.'],
  409: ['{stream} is taken, or not there yet.', 'Choose another stream name, or wait for it.'],
  503: ['The server is too busy to take another session.', 'Try again in a moment; the page keeps trying.'],
};

/** @param {string} text */
function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return '';
  // A first word such as live/cam or publish.takeover is a name, and names keep their spelling.
  const start = /^[a-z]+\b(?![/._:-])/.test(trimmed) ? trimmed[0].toUpperCase() : trimmed[0];
  return start + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? '' : '.');
}
