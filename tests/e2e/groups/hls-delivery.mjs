// How HLS is given out: HTTP/2, compression, parts of files, and nginx as a cache in front.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http2 from 'node:http2';
import path from 'node:path';
import { ffmpegDone, live, push } from '../lib/ffmpeg.mjs';
import { figures, playInChromium, playlist } from '../lib/hls.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { SHIFT, cache, tests } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const TOKEN = 's+e/c=';
const NGINX_PORT = 18090 + SHIFT;

/** One request on an HTTP/2 session: status, headers and body. */
function ask(session, route, headers = {}) {
  const request = session.request({ ':path': route, ...headers });
  return new Promise((done, fail) => {
    const chunks = [];
    let head;
    request.on('response', one => (head = one)).on('data', chunk => chunks.push(chunk)).on('error', fail);
    request.on('end', () => done({ status: head[':status'], headers: head, body: Buffer.concat(chunks) }));
  });
}

/** nginx with the configuration that we recommend, on ports of this run. */
async function startNginx(server, cleanup) {
  const folder = fs.mkdtempSync(path.join(cache, 'server-nginx-'));
  let site = fs.readFileSync(path.join(tests, '../conf/nginx.conf'), 'utf8');
  for (const [from, to] of [['/var/cache/nginx/freshet', `${folder}/cache`], ['listen 8090', `listen 127.0.0.1:${NGINX_PORT}`], ['http://127.0.0.1:8080', server.local]]) {
    assert.ok(site.includes(from), from);
    site = site.replace(from, to);
  }
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path ${folder}/${kind};`).join('\n');
  const main = process.getuid() === 0 ? 'user root;\n' : '';
  fs.writeFileSync(`${folder}/nginx.conf`, `${main}worker_processes 1;\npid ${folder}/pid;\nevents {}\nhttp {\naccess_log off;\n${kinds}\n${site}}\n`);
  const log = fs.openSync(`${folder}/log`, 'w');
  const child = spawn('nginx', ['-p', folder, '-c', `${folder}/nginx.conf`, '-e', `${folder}/errors`, '-g', 'daemon off;'], { stdio: ['ignore', log, log] });
  let over = null;
  child.on('error', error => (over = error)).on('exit', code => (over ??= new Error(`nginx ended with ${code}: ${fs.readFileSync(`${folder}/log`, 'utf8')}`)));
  cleanup(() => child.kill('SIGTERM'));
  const base = `http://127.0.0.1:${NGINX_PORT}`;
  await until('nginx', 10_000, () => {
    if (over) throw over;
    return fetch(`${base}/healthz`).then(response => response.ok, () => false);
  });
  return base;
}

const withNginx = extra => async cleanup => {
  const context = await serverAndClients(extra)(cleanup);
  return { ...context, nginx: await startNginx(context.server, cleanup) };
};

/** A player of a cache: reads the playlist and what is new in it; counts what it got by the cache's word. */
async function poll(url, seconds, counts) {
  const seen = new Set();
  const count = response => {
    const word = response.headers.get('x-cache');
    counts[word] = (counts[word] ?? 0) + 1;
  };
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(1000)) {
    const response = await fetch(url);
    const text = await response.text();
    assert.equal(response.status, 200, text);
    count(response);
    for (const [, uri] of text.matchAll(/\n([^#\n]+\.ts\S*)/g)) {
      if (seen.has(uri)) continue;
      seen.add(uri);
      const segment = await fetch(new URL(uri, url));
      assert.equal(segment.status, 200, uri);
      assert.equal((await segment.arrayBuffer()).byteLength % 188, 0);
      count(segment);
    }
  }
}

group('hls delivery', serverAndClients('[hls]\nwindow_seconds = 6\n'), [
  test('HTTP/2 carries playlists and segments on one connection, and RTMPS and WebSocket stay on the port', 60, async ({ server, browsers }) => {
    const publisher = push(`${server.rtmps}/live/two`, { size: '320x240' });
    await live(server, 'two', publisher);
    const session = http2.connect(server.secure, { rejectUnauthorized: false });
    try {
      const first = await ask(session, '/live/two.m3u8');
      assert.equal(first.status, 200, first.body.toString());
      const names = [...first.body.toString().matchAll(/\n([^#\n]+\.ts)/g)].map(([, name]) => name);
      const all = await Promise.all([...names, ...names, ...names].map(name => ask(session, `/live/${name}`)));
      for (const { status, body } of all) assert.ok(status === 200 && body.length % 188 === 0 && body.length > 10_000);
      const missing = await ask(session, '/live/two-1.ts');
      assert.deepEqual([missing.status, missing.headers['cache-control']], [404, 'no-store']);
      const posted = await ask(session, '/live/two.m3u8', { ':method': 'DELETE' });
      assert.equal(posted.status, 405);
    } finally {
      session.close();
    }
    const page = await browsers.page('chromium', `${server.secure}/`);
    const seen = await page.evaluate(async () => {
      const text = await (await fetch('/live/two.m3u8')).text();
      const [entry] = performance.getEntriesByName(new URL('/live/two.m3u8', location.href).href);
      const socket = new WebSocket(`wss://${location.host}/live/two.flv`);
      socket.binaryType = 'arraybuffer';
      const message = await new Promise((done, fail) => Object.assign(socket, { onmessage: done, onerror: () => fail(new Error('no WebSocket')) }));
      socket.close();
      return { text, protocol: entry.nextHopProtocol, flv: String.fromCharCode(...new Uint8Array(message.data).slice(0, 3)) };
    });
    assert.ok(seen.text.startsWith('#EXTM3U'));
    assert.deepEqual([seen.protocol, seen.flv], ['h2', 'FLV']);
    const shown = await playInChromium(browsers, 'hls.js', `${server.secure}/live/two.m3u8`, { seconds: 3 });
    await publisher.stop();
    return figures(shown);
  }),
  test('playlists are compressed, segments are given in parts, and refusals are not kept', 40, async ({ server }) => {
    const publisher = push(server.urls('parts').rtmp, { size: '320x240' });
    await live(server, 'parts', publisher);
    const url = `${server.base}/live/parts.m3u8`;
    const { segments } = await playlist(url);
    const plain = await fetch(url, { headers: { 'accept-encoding': 'identity' } });
    const zipped = await fetch(url, { headers: { 'accept-encoding': 'gzip' } });
    assert.deepEqual([plain.headers.get('content-encoding'), zipped.headers.get('content-encoding')], [null, 'gzip']);
    for (const response of [plain, zipped]) {
      assert.match(response.headers.get('vary'), /Accept-Encoding/);
      assert.match(await response.text(), /^#EXTM3U\n/);
    }
    const segment = new URL(segments[0].uri, url);
    const whole = new Uint8Array(await (await fetch(segment)).arrayBuffer());
    for (const [range, from, to] of [['bytes=0-187', 0, 188], ['bytes=188-', 188, whole.length], ['bytes=-376', whole.length - 376, whole.length]]) {
      const part = await fetch(segment, { headers: { range } });
      assert.deepEqual([part.status, part.headers.get('content-range')], [206, `bytes ${from}-${to - 1}/${whole.length}`]);
      assert.deepEqual(new Uint8Array(await part.arrayBuffer()), whole.slice(from, to));
    }
    const beyond = await fetch(segment, { headers: { range: `bytes=${whole.length}-` } });
    assert.deepEqual([beyond.status, beyond.headers.get('cache-control')], [416, 'no-store']);
    const missing = await fetch(`${server.base}/live/parts-1.ts`);
    assert.deepEqual([missing.status, missing.headers.get('cache-control')], [404, 'no-store']);
    await publisher.stop();
  }),
]);

group('hls behind nginx', withNginx(`[hls]\nwindow_seconds = 6\n\n[play]\ntokens = ["${TOKEN}"]\n`), [
  test('many players cost the server a few requests, and tokens are asked for', 60, async ({ server, nginx }) => {
    const publisher = push(server.urls('cached').rtmp, { size: '320x240' });
    await live(server, 'cached', publisher);
    const bare = `${nginx}/live/cached.m3u8`;
    const url = `${bare}?token=${encodeURIComponent(TOKEN)}`;
    await playlist(url);
    const counts = {};
    await Promise.all(Array.from({ length: 30 }, () => poll(url, 6, counts)));
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const upstream = total - (counts.HIT ?? 0) - (counts.UPDATING ?? 0) - (counts.STALE ?? 0);
    assert.ok(total > 200 && upstream < total / 6, JSON.stringify(counts));

    const { segments } = await playlist(url);
    const segment = new URL(segments[0].uri, url);
    assert.equal((await fetch(segment)).headers.get('x-cache'), 'HIT');
    for (const address of [bare, `${bare}?token=wrong`, `${segment.origin}${segment.pathname}`]) {
      assert.equal((await fetch(address)).status, 401, address);
    }
    // What a header has allowed is kept for nobody.
    const open = new URL(segment.pathname, nginx);
    for (let i = 0; i < 2; i++) {
      const shown = await fetch(open, { headers: { authorization: `Bearer ${TOKEN}` } });
      await shown.arrayBuffer();
      assert.deepEqual([shown.status, shown.headers.get('x-cache'), shown.headers.get('cache-control')], [200, 'MISS', 'private, max-age=86400, immutable']);
    }
    assert.equal((await fetch(open)).status, 401);
    await ffmpegDone(['-i', url, '-t', '3', '-c', 'copy', '-f', 'null', '-']);
    await publisher.stop();
    return `${upstream} of ${total} requests of 30 players reached the server: ${JSON.stringify(counts)}`;
  }),
]);
