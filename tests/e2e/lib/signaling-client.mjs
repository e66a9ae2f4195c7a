// A person at the signaling socket: plain messages over a WebSocket that is not ours.
import WebSocket from 'ws';
import { until } from './peers.mjs';

let nextTid = 0;

export class Person {
  /** Everything that came and was not taken. */
  inbox = [];
  /** `[code, reason]` once the socket has ended. */
  ended = null;
  pings = 0;

  /** `options` are those of `ws`; `query` goes into the address. */
  constructor(server, { query = '', ...options } = {}) {
    this.socket = new WebSocket(`${server.local.replace('http', 'ws')}/sig/v1/rtc${query}`, options);
    this.opened = new Promise((done, fail) => {
      this.socket.on('open', done);
      this.socket.on('error', fail);
    });
    // Somebody may not wait for it.
    this.opened.catch(() => {});
    this.socket.on('message', data => this.inbox.push(JSON.parse(data.toString())));
    this.socket.on('ping', () => this.pings++);
    this.socket.on('close', (code, reason) => (this.ended = [code, reason.toString()]));
  }

  async send(message) {
    await this.opened;
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  /** The next message that `wanted` accepts; those before it stay. */
  async next(wanted = () => true, ms = 3000) {
    let found = -1;
    await until('a message', ms, () => (found = this.inbox.findIndex(wanted)) >= 0).catch(() => {
      throw new Error(`no such message within ${ms} ms, only ${JSON.stringify(this.inbox)}`);
    });
    return this.inbox.splice(found, 1)[0];
  }

  /** Sends a request and gives its answer. */
  async ask(msg) {
    const tid = `t${nextTid++}`;
    await this.send({ tid, msg });
    return this.next(message => message.tid === tid);
  }

  /** Joins and gives the answer's `msg`; throws if refused. */
  async join(room, display, more = {}) {
    const { msg, error } = await this.ask({ action: 'join', room, display, ...more });
    if (error) throw new Error(`${error.code}: ${error.text}`);
    return msg;
  }

  /** The next notice of that event. */
  notice(event, ms) {
    return this.next(message => message.msg?.event === event, ms);
  }

  /** `[code, reason]` of the end. */
  async end(ms = 3000) {
    await until('the socket ends', ms, () => this.ended);
    return this.ended;
  }
}
