// Joins a room and stays in it (signaling/protocol.md): who is there, what they do, and messages to them.
//
//   const room = new Signaling({ room: 'tea', display: 'Amy', kind: 'call', stream: 'assign' });
//   room.addEventListener('publish', ({ detail }) => play(detail.peer.stream));
//   room.addEventListener('leave', ({ detail }) => stop(detail.peer.id));
//   const joined = await room.join();
//   await room.publish();
//
// A lost socket is opened again with back-off, and the seat in the room taken again. `joined` fires after each join: where
// its `detail.resumed` is false, the server has forgotten us and our media has to be announced again, which `publish`
// does by itself if it was on; `self.stream` may be another one then.

import { Backoff } from './backoff.js';
import { SignalingError, closeError } from './signaling-error.js';

export { SignalingError } from './signaling-error.js';

/** How long a request may take. The server answers at once, so this is the patience with the network. */
const REQUEST_MS = 8000;
/** How long a socket may take to open. */
const OPEN_MS = 8000;
/** How often the server is asked for a sign of life; browsers hide its pings. */
const PING_MS = 15_000;
/** A state that changes faster, as who speaks does, is sent with the next. */
const STATE_MS = 250;
/** Of the protocol: closed for good. 1003, 1008, 1009: what we send is wrong; 4001: another socket has our seat. */
const FINAL_CODES = new Set([1003, 1008, 1009, 4001]);
/** Refusals of a join that pass by themselves. */
const PASSING = new Set(['draining', 'too-fast']);

/** @typedef {{camera?: boolean, microphone?: boolean, screen?: boolean, speaking?: boolean, hand?: boolean}} PersonState */

/**
 * @typedef {object} Participant
 * @property {string} id
 * @property {string} display
 * @property {boolean} publishing
 * @property {string} stream  `app/stream`, for /whip/ and /whep/
 * @property {PersonState} [state]
 * @property {string[]} [capabilities]
 * @property {boolean} [away]  the socket is lost, the seat kept
 */

/**
 * The answer to a join.
 * @typedef {object} Joined
 * @property {string} room
 * @property {'call' | 'room'} [kind]
 * @property {Participant} self
 * @property {Participant[]} participants  everybody, oneself too
 * @property {boolean} resumed
 * @property {number} max_people
 * @property {string[]} capabilities
 */

/**
 * What somebody did. `self` is the receiver, `peer` who did it; `participants` is there in some events only.
 * @typedef {object} Notice
 * @property {string} event
 * @property {string} room
 * @property {Participant} self
 * @property {Participant} peer
 * @property {Participant[]} [participants]
 * @property {string} [param]  of `control`: the call
 * @property {unknown} [data]  of `control`
 * @property {string} [to]
 */

/**
 * `joining`: for the first time or again, `error` says why again. `refused`, `ended`: will not try again, `error` says why.
 * @typedef {'idle' | 'joining' | 'joined' | 'refused' | 'ended' | 'left'} SignalingState
 */

/**
 * @typedef {object} SignalingOptions
 * @property {string} room
 * @property {string} display
 * @property {string} [url]  of the socket; that of the page's own server unless told
 * @property {'call' | 'room'} [kind]
 * @property {'assign'} [stream]  let the server name the stream
 * @property {string} [token]
 * @property {PersonState} [state]
 * @property {string[]} [capabilities]  besides `resume`
 * @property {(url: string) => WebSocket} [connect]  for tests
 */

/** @typedef {{resolve: (msg: any) => void, reject: (error: SignalingError) => void, timer: ReturnType<typeof setTimeout>}} Waiting */

/** @param {string} [token] @returns {string} the socket's address on the server of this page */
export function socketUrl(token) {
  const url = new URL('/sig/v1/rtc', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  if (token) url.searchParams.set('token', token);
  return url.href;
}

/**
 * Fires `statechange`, `joined` (detail: Joined), `participants`, and for what others do `join`, `leave`, `publish`,
 * `unpublish`, `state`, `away`, `back`, `control` and `chat` (detail: Notice).
 */
export class Signaling extends EventTarget {
  /** @type {SignalingState} */
  state = 'idle';
  /** Why the state is `joining` again, `refused` or `ended`. @type {SignalingError | null} */
  error = null;
  /** Oneself as the others see it. @type {Participant | null} */
  self = null;
  /** Everybody, oneself too, in order of arrival. @type {Participant[]} */
  participants = [];
  #options;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, Waiting>} */
  #waiting = new Map();
  #nextTid = 1;
  #seat = '';
  #publishing = false;
  /** @type {PersonState} */
  #ownState;
  /** What of it the server does not know. @type {PersonState} */
  #unsent = {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #stateTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #pingTimer;
  #backoff = new Backoff();

  /** @param {SignalingOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#ownState = { ...options.state };
  }

  /** Joins; resolves with the first answer, rejects when refused for good. @returns {Promise<Joined>} */
  join() {
    if (this.state !== 'idle') throw new Error('join() once; make a new Signaling for another room');
    const first = new Promise((resolve, reject) => {
      this.addEventListener('joined', event => resolve(/** @type {CustomEvent<Joined>} */ (event).detail), { once: true });
      this.addEventListener('statechange', () => {
        if (this.error && (this.state === 'refused' || this.state === 'ended')) reject(this.error);
        if (this.state === 'left') reject(new SignalingError('left', 'You have left the room.', ''));
      });
    });
    this.#enter('joining', null);
    globalThis.addEventListener?.('online', this.#hurry);
    globalThis.addEventListener?.('pagehide', this.#closeWithPage);
    globalThis.addEventListener?.('pageshow', this.#comeBack);
    void this.#connect();
    return first;
  }

  /** Tells the others that one's media can be played. Said again after each join until `unpublish`. */
  async publish() {
    this.#publishing = true;
    const { room, display } = this.#options;
    if (this.state !== 'joined') return;
    await this.#request({ action: 'publish', room, display });
    this.#amend({ publishing: true });
  }

  /** Takes `publish` back. */
  async unpublish() {
    this.#publishing = false;
    if (this.state !== 'joined') return;
    await this.#request({ action: 'unpublish' });
    this.#amend({ publishing: false });
  }

  /** Tells what of oneself is on; changes in quick succession go together. @param {PersonState} change */
  setState(change) {
    Object.assign(this.#ownState, change);
    Object.assign(this.#unsent, change);
    this.#stateTimer ??= setTimeout(() => {
      this.#stateTimer = undefined;
      this.#sendState();
    }, STATE_MS);
  }

  /** Sends something to all others, or to one. @param {string} call @param {unknown} [data] @param {string} [to] id */
  async control(call, data, to) {
    const { room, display } = this.#options;
    await this.#request({ action: 'control', room, display, call, data, to });
  }

  /** @param {string} text @param {string} [to] id */
  chat(text, to) {
    return this.control('chat', text, to);
  }

  /** Leaves for good and closes the socket. */
  async leave() {
    if (this.state === 'left') return;
    const wasJoined = this.state === 'joined';
    const left = wasJoined ? this.#request({ action: 'leave' }).catch(() => {}) : null;
    this.#finish('left', null);
    await left;
    this.#drop(1000);
  }

  /** Asks for a sign of life, and connects again where there is none. */
  async probe() {
    if (this.state !== 'joined') return;
    const socket = this.#socket;
    await this.#request({ action: 'ping' }).catch(() => {
      if (this.#socket === socket) this.#lost(new SignalingError('lost', 'The server does not answer.', 'Check the network; it is tried again.'));
    });
  }

  #hurry = () => {
    if (this.state === 'joined') void this.probe();
    else this.#backoff.hurry();
  };

  /** A page that is kept for the back button keeps its socket in some browsers; the others should know at once. */
  #closeWithPage = () => this.#drop(1000);

  #comeBack = () => {
    if (this.state !== 'joined' && this.state !== 'joining') return;
    if (this.#socket) return;
    this.#enter('joining', null);
    void this.#connect();
  };

  async #connect() {
    const { url = socketUrl(this.#options.token), connect = (/** @type {string} */ at) => new WebSocket(at) } = this.#options;
    const socket = connect(url);
    this.#socket = socket;
    const tooLong = setTimeout(() => this.#onClose(socket, 1006, ''), OPEN_MS);
    socket.onopen = () => {
      clearTimeout(tooLong);
      if (this.#socket === socket) void this.#enterRoom();
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket === socket) this.#receive(data);
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(tooLong);
      this.#onClose(socket, code, reason);
    };
  }

  /** @param {WebSocket} socket @param {number} code @param {string} reason */
  #onClose(socket, code, reason) {
    if (this.#socket !== socket) return;
    if (this.state === 'left') return this.#drop();
    const error = closeError(code, reason);
    if (FINAL_CODES.has(code)) this.#finish('ended', error);
    else this.#lost(error);
  }

  /** @param {SignalingError} error */
  #lost(error) {
    this.#drop(4000, error);
    if (this.state !== 'joining' && this.state !== 'joined') return;
    this.#enter('joining', error);
    void this.#backoff.wait().then(() => {
      if (this.state === 'joining' && !this.#socket) void this.#connect();
    });
  }

  /** Cuts the socket and everything that waits for it. @param {number} [code] @param {SignalingError} [error] */
  #drop(code, error) {
    const socket = this.#socket;
    this.#socket = null;
    clearInterval(this.#pingTimer);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error ?? new SignalingError('left', 'You have left the room.', ''));
    }
    this.#waiting.clear();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (code) socket.close(code);
  }

  async #enterRoom() {
    const { room, display, kind, stream, token, capabilities = [] } = this.#options;
    const state = Object.keys(this.#ownState).length ? this.#ownState : undefined;
    /** @type {Joined & {seat: string}} */
    let joined;
    try {
      joined = await this.#request({ action: 'join', room, display, kind, stream, token, state, capabilities: ['resume', ...capabilities], resume: this.#seat || undefined });
    } catch (thrown) {
      const error = /** @type {SignalingError} */ (thrown);
      if (error.code === 'left' || error.code === 'lost') return;
      // After a restart the others may still be sitting there whom nobody has missed yet.
      if (PASSING.has(error.code) || (error.code === 'room-full' && this.#seat)) this.#lost(error);
      else if (error.code === 'timeout') this.#lost(error);
      else this.#finish('refused', error);
      return;
    }
    this.#backoff.reset();
    this.#unsent = {};
    this.#seat = joined.seat;
    this.self = joined.self;
    this.participants = joined.participants;
    this.#pingTimer = setInterval(() => void this.probe(), PING_MS);
    this.#enter('joined', null);
    this.dispatchEvent(new CustomEvent('joined', { detail: joined }));
    this.dispatchEvent(new Event('participants'));
    if (this.#publishing !== joined.self.publishing) await (this.#publishing ? this.publish() : this.unpublish()).catch(() => {});
  }

  #sendState() {
    if (this.state !== 'joined' || !Object.keys(this.#unsent).length) return;
    const state = this.#unsent;
    this.#unsent = {};
    this.#request({ action: 'state', state }).then(() => this.#amend({ state: { ...this.self?.state, ...state } }), () => {});
  }

  /** What one has done oneself is not told by the server. @param {Partial<Participant>} change */
  #amend(change) {
    if (!this.self) return;
    const self = { ...this.self, ...change };
    this.self = self;
    this.participants = this.participants.map(person => (person.id === self.id ? self : person));
    this.dispatchEvent(new Event('participants'));
  }

  /** @param {Record<string, unknown>} msg @returns {Promise<any>} */
  #request(msg) {
    const socket = this.#socket;
    if (!socket || socket.readyState !== 1) return Promise.reject(new SignalingError('lost', 'There is no connection to the server.', 'It is tried again.'));
    const tid = (this.#nextTid++).toString(36).padStart(7, '0');
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(tid);
        reject(new SignalingError('timeout', `The server did not answer within ${REQUEST_MS / 1000} s.`, 'Check the network; it is tried again.'));
      }, REQUEST_MS);
      this.#waiting.set(tid, { resolve, reject, timer });
      socket.send(JSON.stringify({ tid, msg }));
    });
  }

  /** @param {unknown} data */
  #receive(data) {
    /** @type {{tid?: string, msg?: any, error?: {code: string, text: string, hint: string}}} */
    let message;
    try {
      message = JSON.parse(String(data));
    } catch {
      return;
    }
    const { tid, msg, error } = message ?? {};
    const waiting = tid === undefined ? undefined : this.#waiting.get(tid);
    if (tid !== undefined && waiting) {
      this.#waiting.delete(tid);
      clearTimeout(waiting.timer);
      if (error) waiting.reject(new SignalingError(error.code, error.text, error.hint));
      else waiting.resolve(msg);
    } else if (msg?.action === 'notify' && msg.peer) {
      this.#notice(msg);
    }
  }

  /** @param {Notice} notice */
  #notice(notice) {
    this.self = notice.self;
    const others = this.participants.filter(({ id }) => id !== notice.peer.id && id !== notice.self.id);
    const place = (/** @type {Participant} */ person) => {
      const at = this.participants.findIndex(({ id }) => id === person.id);
      return at < 0 ? this.participants.length : at;
    };
    if (notice.participants) this.participants = notice.participants;
    else {
      const changed = [notice.self, notice.peer].map(person => ({ at: place(person), person }));
      const kept = others.map(person => ({ at: place(person), person }));
      this.participants = [...kept, ...changed].sort((a, b) => a.at - b.at).map(({ person }) => person);
    }
    this.dispatchEvent(new CustomEvent(notice.event, { detail: notice }));
    if (notice.event === 'control' && notice.param === 'chat') this.dispatchEvent(new CustomEvent('chat', { detail: notice }));
    this.dispatchEvent(new Event('participants'));
  }

  /** @param {SignalingState} state @param {SignalingError | null} error */
  #enter(state, error) {
    this.state = state;
    this.error = error;
    this.dispatchEvent(new Event('statechange'));
  }

  /** @param {'refused' | 'ended' | 'left'} state @param {SignalingError | null} error */
  #finish(state, error) {
    globalThis.removeEventListener?.('online', this.#hurry);
    globalThis.removeEventListener?.('pagehide', this.#closeWithPage);
    globalThis.removeEventListener?.('pageshow', this.#comeBack);
    clearTimeout(this.#stateTimer);
    this.#backoff.hurry();
    if (state !== 'left') this.#drop(1000);
    this.#enter(state, error);
  }
}
