// What can go wrong in a call and what to do about it: the library's diagnosis, in the words of this page.

import { diagnose, insecureContext } from '../lib/diagnose.js';
import { invitation } from './address.js';

/** @typedef {import('../lib/diagnose.js').Diagnosis} Diagnosis */

/** @param {import('./local.js').Trouble} trouble @returns {Diagnosis | null} null: nothing to tell */
export function deviceTrouble({ source, error }) {
  const device = source === 'both' ? 'camera and microphone' : source;
  const name = error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'DeviceLost':
      return { kind: 'device-lost', what: `${/** @type {DOMException} */ (error).message}.`, remedy: 'Plug it in again or choose another one under Devices, then switch it on.' };
    case 'NotAllowedError':
    case 'SecurityError':
      // To press Cancel in the choice of screens is an answer, not a failure.
      if (source === 'screen') return null;
      return { kind: 'permission-denied', what: `The browser may not use the ${device}.`, remedy: 'Click the camera or lock symbol in the address bar, allow access, then switch it on here. You can take part without as well.' };
    case 'NotFoundError':
      return { kind: 'no-device', what: `No ${device} was found.`, remedy: 'Plug one in and switch it on here, or take part without.' };
    case 'NotReadableError':
    case 'AbortError':
      return { kind: 'device-busy', what: `The ${device} is there but cannot be used.`, remedy: 'Close the program or tab that is probably using it, then switch it on here.' };
    default:
      return diagnose(error, { source: source === 'microphone' ? 'audio' : source });
  }
}

/** @param {number | undefined} httpsPort @returns {Diagnosis} */
export function insecure(httpsPort) {
  const diagnosis = insecureContext({ httpsPort });
  return { ...diagnosis, remedy: `${httpsPort ? diagnosis.remedy : 'Open it over HTTPS, or as http://localhost on the server itself.'} Here you can only watch and listen.` };
}

/** Why media does not flow. @param {unknown} error @param {string} whose  a name, empty for one's own @returns {Diagnosis} */
export function mediaTrouble(error, whose) {
  const diagnosis = diagnose(error, { stream: whose ? `the stream of ${whose}` : 'your stream' });
  return { ...diagnosis, what: `${whose ? `${whose} cannot be played.` : 'The others do not see or hear you.'} ${diagnosis.what}` };
}

/** The server's refusals of signalling. @type {Record<string, (room: string) => Omit<Diagnosis, 'kind'>>} */
const REFUSALS = {
  'room-full': (room) => ({ what: 'Two people are already in this call.', remedy: 'A call is for two: ask one of them to leave, or meet in a room, which has space for more.', link: { href: invitation(room, 'room'), text: 'Open a room instead' } }),
  'other-kind': (room) => ({ what: 'Others use this name for a meeting of the other kind.', remedy: 'Join them with the other page, or choose another name.', link: { href: invitation(room, otherKind()), text: 'Join them there' } }),
};

/**
 * @param {import('../lib/signaling.js').SignalingError} error
 * @param {string} room
 * @param {import('./address.js').Kind} kind
 * @returns {Diagnosis}
 */
export function signalingTrouble({ code, message, hint }, room, kind) {
  const own = code === 'room-full' && kind === 'room' ? undefined : REFUSALS[code]?.(room);
  if (own) return { kind: code, ...own };
  if (code === 'lost' || code === 'timeout') {
    return { kind: 'unreachable', what: 'The server does not answer.', remedy: 'Check that this computer is online; if it is, whoever runs the server has to look at it. The page keeps trying.' };
  }
  return { kind: code, what: sentence(message), remedy: sentence(hint) };
}

/** Told while it reconnects by itself. @returns {Diagnosis} */
export function signalingLost() {
  return { kind: 'signaling-lost', what: 'The connection to the server was lost.', remedy: 'Sound and picture go on as far as the network allows, and the page connects again by itself.' };
}

function otherKind() {
  return /** @type {import('./address.js').Kind} */ (document.body.dataset.kind === 'room' ? 'call' : 'room');
}

/** @param {string} text */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? '' : '.');
}
