// As much RTMP as it takes to be rude: a handshake, a connect, a play, and chunks that no encoder would send.
import net from 'node:net';
import { until } from './peers.mjs';

const HANDSHAKE_BYTES = 1536;

function string(text) {
  const bytes = Buffer.from(text);
  const head = Buffer.alloc(2);
  head.writeUInt16BE(bytes.length);
  return Buffer.concat([head, bytes]);
}

/** AMF0 of numbers, strings, null and flat objects. */
function amf(value) {
  if (value === null) return Buffer.from([5]);
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(9);
    bytes.writeDoubleBE(value, 1);
    return bytes;
  }
  if (typeof value === 'string') return Buffer.concat([Buffer.from([2]), string(value)]);
  const properties = Object.entries(value).flatMap(([name, one]) => [string(name), amf(one)]);
  return Buffer.concat([Buffer.from([3]), ...properties, Buffer.from([0, 0, 9])]);
}

/** A chunk's header of type 0 (RTMP §5.3.1.2.1) on one of the 64 short chunk stream ids. */
export function header({ chunkStream = 3, timestamp = 0, length, type, stream = 0 }) {
  const bytes = Buffer.alloc(12);
  bytes[0] = chunkStream;
  bytes.writeUIntBE(timestamp, 1, 3);
  bytes.writeUIntBE(length, 4, 3);
  bytes[7] = type;
  bytes.writeUInt32LE(stream, 8);
  return bytes;
}

/** Cuts a message into chunks of 128 bytes. */
export function message({ type, stream = 0, chunkStream = 3, body }) {
  const parts = [header({ chunkStream, length: body.length, type, stream })];
  for (let at = 0; at < body.length; at += 128) {
    if (at) parts.push(Buffer.from([0xc0 | chunkStream]));
    parts.push(body.subarray(at, at + 128));
  }
  return Buffer.concat(parts);
}

export const command = (...values) => message({ type: 20, body: Buffer.concat(values.map(amf)) });
const commandOn = (stream, ...values) => message({ type: 20, stream, chunkStream: 8, body: Buffer.concat(values.map(amf)) });

/** An RTMP client made of single steps. `closed` tells whether the server has hung up. */
export class WireClient {
  constructor(port, host = '127.0.0.1') {
    this.received = 0;
    this.text = '';
    this.closed = false;
    this.socket = net.connect(port, host);
    this.socket.on('data', data => {
      this.received += data.length;
      if (this.text.length < 100_000) this.text += data.toString('latin1');
    });
    this.socket.on('error', () => {});
    this.socket.on('end', () => (this.closed = true));
    this.socket.on('close', () => (this.closed = true));
  }

  write(bytes) {
    return new Promise(done => (this.closed ? done() : this.socket.write(bytes, () => done())));
  }

  until(what, timeoutMs, condition) {
    return until(what, timeoutMs, () => {
      if (this.closed && !condition()) throw new Error(`${what}: the server hung up`);
      return condition();
    });
  }

  /** `pieces`: how the client cuts what it sends. */
  async handshake(write = bytes => this.write(bytes)) {
    await write(Buffer.concat([Buffer.from([3]), Buffer.alloc(HANDSHAKE_BYTES)]));
    await this.until('S0, S1 and S2', 10_000, () => this.received >= 1 + 2 * HANDSHAKE_BYTES);
    await write(Buffer.alloc(HANDSHAKE_BYTES));
  }

  async connect(write = bytes => this.write(bytes)) {
    await write(command('connect', 1, { app: 'live', tcUrl: 'rtmp://127.0.0.1/live', flashVer: 'rude' }));
    await this.until('an answer to connect', 10_000, () => this.text.includes('NetConnection.Connect.Success'));
  }

  async createStream() {
    const before = this.received;
    await this.write(command('createStream', 2, null));
    await this.until('an answer to createStream', 10_000, () => this.received > before);
  }

  async play(name) {
    await this.createStream();
    await this.write(commandOn(1, 'play', 3, null, name));
  }

  async publish(name) {
    await this.createStream();
    await this.write(commandOn(1, 'publish', 3, null, name, 'live'));
    await this.until('an answer to publish', 10_000, () => this.text.includes('NetStream.Publish.Start'));
  }

  close() {
    this.socket.destroy();
  }
}
