// An FLV player of a few lines: reads a stream over HTTP or WebSocket and cuts it into tags (Adobe FLV 10.1, annex E).
import WebSocket from 'ws';

/** Collects an endless stream. `done` is settled when the server has ended it or `stop` was called. */
export function openHttp(url) {
  const abort = new AbortController();
  const player = new FlvPlayer(() => abort.abort());
  player.done = (async () => {
    const response = await fetch(url, { signal: abort.signal });
    player.status = response.status;
    player.headers = response.headers;
    if (!response.ok) {
      player.text = await response.text();
      return;
    }
    for await (const chunk of response.body) player.feed(chunk);
  })().catch(error => {
    if (error.name !== 'AbortError') player.error = error;
  });
  return player;
}

export function openWebSocket(url) {
  const socket = new WebSocket(url.replace(/^http/, 'ws'));
  const player = new FlvPlayer(() => socket.close());
  player.done = new Promise(done => {
    socket.on('message', data => {
      player.messages++;
      player.feed(data);
    });
    socket.on('error', error => (player.error = error));
    socket.on('close', done);
  });
  return player;
}

class FlvPlayer {
  constructor(stop) {
    Object.assign(this, { stop, chunks: [], messages: 0, length: 0, pausedAt: null });
  }

  feed(chunk) {
    this.chunks.push(Buffer.from(chunk));
    this.length += chunk.length;
    this.lastAt = Date.now();
  }

  bytes() {
    this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0];
  }

  tags() {
    return parse(this.bytes());
  }
}

const KINDS = { 8: 'audio', 9: 'video', 18: 'script' };

/** `{ hasAudio, hasVideo, tags }`; of each tag `{ kind, ms, body, keyframe, isHeader }`. A tag cut short at the end is left out. */
export function parse(bytes) {
  if (bytes.length < 13) return { tags: [] };
  if (bytes.toString('latin1', 0, 3) !== 'FLV') throw new Error(`not FLV: ${bytes.subarray(0, 16).toString('hex')}`);
  const tags = [];
  let at = bytes.readUInt32BE(5) + 4;
  while (at + 11 <= bytes.length) {
    const size = bytes.readUIntBE(at + 1, 3);
    if (at + 15 + size > bytes.length) break;
    const kind = KINDS[bytes[at]];
    if (!kind) throw new Error(`tag of type ${bytes[at]} at byte ${at}`);
    const body = bytes.subarray(at + 11, at + 11 + size);
    const trailer = bytes.readUInt32BE(at + 11 + size);
    if (trailer !== size + 11) throw new Error(`tag of ${size} bytes ends with ${trailer} at byte ${at}`);
    const ms = bytes.readUIntBE(at + 4, 3) + bytes[at + 7] * 2 ** 24;
    // Classic H.264 and AAC only: the second byte 0 marks a decoder configuration.
    const isHeader = (kind === 'video' && (body[0] & 0x8f) === 7 && body[1] === 0) || (kind === 'audio' && body[0] >> 4 === 10 && body[1] === 0);
    tags.push({ kind, ms, body, isHeader, keyframe: kind === 'video' && ((body[0] & 0x70) >> 4) === 1 && !isHeader });
    at += 15 + size;
  }
  return { hasAudio: (bytes[4] & 4) !== 0, hasVideo: (bytes[4] & 1) !== 0, tags };
}
