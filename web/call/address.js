// What the address of the page says: which room, which kind, who, and where the server is. SRS's demo pages are opened
// at /demos/one2one.html and /demos/room.html with parameters of their own; both forms are read here.

import { parameter } from '../page.js';

/** @typedef {'call' | 'room'} Kind  one-to-one, or several people */

/** Ours or SRS's; every other parameter belongs to the stream addresses, as on SRS's pages. */
const PAGE_PARAMETERS = new Set(['room', 'display', 'autostart', 'wss', 'wsh', 'wsp', 'host', 'schema', 'api', 'token', 'codec']);
/** SRS's pages meet in this room unless told otherwise. */
const SRS_ROOM = 'live';
/** Letters that are not mistaken for each other when somebody reads a link aloud. */
const LETTERS = 'abcdefghjkmnpqrstuvwxyz';
const ROOM_NAME_PATTERN = [3, 4, 3];

/** Whether this is one of the addresses of SRS's demo pages. */
export const isDemo = location.pathname.startsWith('/demos/');

/** @type {Kind} */
export const kind = /^\/(room\b|demos\/room)/.test(location.pathname) ? 'room' : 'call';

/** Whether to join without a click, as SRS's pages do with `autostart=true`. */
export const autostart = parameter('autostart') === 'true';

export const token = parameter('token');

/** The room of this page. One without a name gets a new one that nobody can guess. */
export function roomFromAddress() {
  const named = parameter('room') || (isDemo ? SRS_ROOM : decodeURIComponent(location.pathname).replace(/^\/(call|room)\/?/, '').replace(/\/+$/, ''));
  if (named) return named;
  const room = ROOM_NAME_PATTERN.map(letters).join('-');
  history.replaceState(null, '', `/${kind}/${room}${location.search}`);
  return room;
}

/** The link to send to others: without what is about this person. @param {string} room @param {Kind} [as] */
export function invitation(room, as = kind) {
  const address = new URL(isDemo && as === kind ? location.pathname : `/${as}/${encodeURIComponent(room)}`, location.href);
  const query = new URLSearchParams(location.search);
  for (const own of ['display', 'autostart', ...(isDemo ? [] : ['room'])]) query.delete(own);
  address.search = query.toString();
  return address.href;
}

/** Where signalling is, elsewhere only when SRS's `wss`, `wsh`, `wsp` say so. @returns {URL} */
export function signalingAddress() {
  const address = new URL('/sig/v1/rtc', location.href);
  const schema = parameter('wss') || (location.protocol === 'https:' ? 'wss' : 'ws');
  address.protocol = `${schema.replace(/:$/, '')}:`;
  if (parameter('wsh')) address.hostname = parameter('wsh');
  if (parameter('wsp')) address.port = parameter('wsp');
  return address;
}

/** Absolute WHIP or WHEP address of a person's stream, `app/name`. @param {'whip' | 'whep'} protocol @param {string} stream */
export function mediaAddress(protocol, stream) {
  const address = new URL(`/${protocol}/${stream.split('/').map(encodeURIComponent).join('/')}`, location.href);
  if (parameter('schema')) address.protocol = `${parameter('schema')}:`;
  if (parameter('host')) address.hostname = parameter('host');
  if (parameter('api')) address.port = parameter('api');
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (!PAGE_PARAMETERS.has(name)) address.searchParams.append(name, value);
  }
  return address.href;
}

/** @param {number} count */
function letters(count) {
  return [...crypto.getRandomValues(new Uint8Array(count))].map((byte) => LETTERS[byte % LETTERS.length]).join('');
}
