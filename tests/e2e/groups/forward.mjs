// Streams that are sent on to other servers: a second Freshet, nginx-rtmp and FFmpeg as targets, and some that behave badly.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { endFfmpegs, ffmpeg, ffmpegDone, live, pull, push, streamOf } from '../lib/ffmpeg.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, portsOf, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const SMALL = { size: '320x240' };
/** Where the targets of this group listen for RTMP: the second Freshet, one that comes and goes, and all others. */
const [OTHER_PORT, COMING_PORT, ODD_PORT] = [1, 2, 3].map(number => portsOf(number).rtmp);
const OTHER = `rtmp://127.0.0.1:${OTHER_PORT}`;
const STALL_SECONDS = 2;
/** 4 Mbit/s whatever the picture. */
const BUSY_VIDEO = ['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-b:v', '4M', '-minrate', '4M', '-maxrate', '4M', '-bufsize', '1M', '-x264-params', 'nal-hrd=cbr', '-g', '30'];

const RULES = `[gop_cache]
max_lag_seconds = 2

[forward]
stall_seconds = ${STALL_SECONDS}

[[forward.rules]]
streams = ["live/to-*"]
to = ["${OTHER}/copy/[stream]"]

[[forward.rules]]
streams = ["live/coming-*"]
to = ["rtmp://127.0.0.1:${COMING_PORT}/live/[stream]"]
`;

async function setup(cleanup) {
  const server = await startServer({ extra: RULES });
  cleanup(() => server.stop());
  const other = await startServer({ number: 1 });
  cleanup(() => other.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  cleanup(endFfmpegs);
  const tidy = async () => {
    await browsers.tidy();
    await endFfmpegs();
    for (const { id } of await forwards(server)) await fetch(`${server.local}/api/v1/forwards/${id}`, { method: 'DELETE' });
  };
  return { server, other, browsers, tidy };
}

const forwards = async (server, key) => (await server.api('/api/v1/forwards/?count=1000')).forwards.filter(one => !key || one.stream === key);

/** Waits until a stream's only forward is in that state. */
function inState(server, key, state, { ms = 15_000, reason = /./ } = {}) {
  let last;
  const found = until(`the forward of ${key} is ${state}`, ms, async () => {
    [last] = await forwards(server, key);
    return last?.state === state && (state === 'live' || reason.test(last.last_error ?? '')) && last;
  });
  return found.catch(error => assert.fail(`${error.message}: ${JSON.stringify(last)}`));
}

/** Starts a forward by API; the answer. */
function add(server, stream, url, more = {}, headers = {}) {
  const body = JSON.stringify({ stream, url, ...more });
  return fetch(`${server.local}/api/v1/forwards/`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body });
}

const line = seen => `${seen.frames} frames, ${seen.skipped} skipped, first after ${seen.first_frame_ms} ms, delay p50 ${seen.delay_p50_ms} ms, sound ${seen.sound_seconds} s`;

function assertPlays(seen, seconds) {
  assert.ok(seen.frames > seconds * 30 * 0.4, line(seen));
  assert.ok(seen.unreadable <= seen.frames * 0.1, `${seen.unreadable} of ${seen.frames} frames cannot be read`);
  assert.ok(seen.sound_seconds > seconds * 0.5, line(seen));
}

/** nginx with its RTMP module, as Debian packs both. */
async function startNginx(port) {
  const folder = fs.mkdtempSync(path.join(cache, 'nginx-rtmp-'));
  const module = '/usr/lib/nginx/modules/ngx_rtmp_module.so';
  assert.ok(fs.existsSync(module), 'nginx’s RTMP module is missing: apt-get install nginx libnginx-mod-rtmp');
  const user = process.getuid() === 0 ? 'user root;' : '';
  fs.writeFileSync(path.join(folder, 'nginx.conf'), `load_module ${module};
${user}
daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log;
events {}
rtmp {
    access_log off;
    server {
        listen 127.0.0.1:${port};
        application live { live on; }
    }
}
`);
  const child = spawn('nginx', ['-p', folder, '-c', path.join(folder, 'nginx.conf')], { stdio: 'ignore' });
  const ended = new Promise(done => child.once('close', done));
  await until('nginx listens', 5000, () => new Promise(done => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => (socket.destroy(), done(true)));
    socket.once('error', () => done(false));
  }));
  return async () => {
    child.kill('SIGTERM');
    await ended;
    fs.rmSync(folder, { recursive: true, force: true });
  };
}

/** A TCP server on the odd port; `serve` gets each connection. */
async function listen(serve) {
  const sockets = new Set();
  const server = net.createServer(socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  await new Promise(done => server.listen(ODD_PORT, '127.0.0.1', done));
  return { connections: () => sockets.size, close: () => {
    sockets.forEach(socket => socket.destroy());
    return new Promise(done => server.close(done));
  } };
}

group('forward', setup, [
  test('an RTMP stream to a second Freshet, which ends with its publisher and begins again', 60, async ({ server, other }) => {
    const { rtmp } = server.urls('to-freshet');
    const publisher = push(rtmp);
    await inState(server, 'live/to-freshet', 'live');
    const seen = await pull(`${OTHER}/copy/to-freshet`, { seconds: 4, fast: true });
    assertPlays(seen, 4);
    const clients = (await server.api('/api/v1/clients/')).clients.filter(one => one.name === 'to-freshet');
    assert.deepEqual(clients.map(one => one.type).sort(), ['fmle-publish', 'forward']);
    const [one] = await forwards(server, 'live/to-freshet');
    assert.ok(one.send_bytes > 100_000 && one.from === 'config', JSON.stringify(one));
    assert.equal(one.url, `${OTHER}/copy/to-freshet`);
    await publisher.stop();
    await until('the copy is over', 5000, async () => !(await streamOf(other, 'to-freshet'))?.publish.active);
    await until('the forward is gone', 5000, async () => !(await forwards(server, 'live/to-freshet')).length);
    const again = push(rtmp, SMALL);
    await live(other, 'to-freshet', again);
    assert.equal((await again.stop()).code, 0);
    return line(seen);
  }),
  test('a browser’s stream to a second Freshet', 60, async ({ server, browsers }) => {
    const { whip } = server.urls('to-from-browser');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    await inState(server, 'live/to-from-browser', 'live');
    const seen = await pull(`${OTHER}/copy/to-from-browser`, { seconds: 4, fast: true });
    assertPlays(seen, 4);
    await publisher.close();
    await until('the forward is gone', 5000, async () => !(await forwards(server, 'live/to-from-browser')).length);
    return line(seen);
  }),
  test('H.265 by Enhanced RTMP to Freshet; nginx does not say that it takes it, which is noted', 60, async ({ server, other }) => {
    const { rtmp } = server.urls('to-hevc');
    const publisher = push(rtmp, { ...SMALL, newer: true, video: ['-c:v', 'libx265', '-preset', 'ultrafast', '-g', '60', '-x265-params', 'bframes=0:log-level=error'] });
    const there = await live(other, 'to-hevc', publisher);
    assert.equal(there.video.codec, 'HEVC');
    const stopNginx = await startNginx(ODD_PORT);
    try {
      assert.equal((await add(server, 'live/to-hevc', `rtmp://127.0.0.1:${ODD_PORT}/live/hevc`)).status, 201);
      const noted = await until('a note', 10_000, async () => (await forwards(server, 'live/to-hevc')).find(one => one.note));
      assert.match(noted.note, /H265/);
      return noted.note;
    } finally {
      await stopNginx();
    }
  }),
  test('to nginx-rtmp, started and ended by API', 60, async ({ server }) => {
    const { rtmp } = server.urls('nginx');
    const publisher = push(rtmp);
    await live(server, 'nginx', publisher);
    const stopNginx = await startNginx(ODD_PORT);
    try {
      const target = `rtmp://127.0.0.1:${ODD_PORT}/live/a-long-and-secret-key`;
      const added = await add(server, 'live/nginx', target);
      assert.equal(added.status, 201);
      const { forward } = await added.json();
      assert.ok(added.headers.get('location').endsWith(forward.id));
      assert.ok(!JSON.stringify(forward).includes('secret'), forward.url);
      assert.equal((await add(server, 'live/nginx', target)).status, 409, 'twice the same');
      await inState(server, 'live/nginx', 'live');
      const seen = await pull(target, { seconds: 4 });
      assertPlays(seen, 4);
      assert.ok(!server.log().includes('secret-key'), 'the log shows the key');
      const ended = await fetch(`${server.local}/api/v1/forwards/${forward.id}`, { method: 'DELETE' });
      assert.equal(ended.status, 200);
      await until('it is gone', 3000, async () => !(await forwards(server, 'live/nginx')).length);
      assert.equal((await fetch(`${server.local}/api/v1/forwards/${forward.id}`)).status, 404);
      return line(seen);
    } finally {
      await stopNginx();
    }
  }),
  test('to an FFmpeg that listens, packet for packet', 60, async ({ server }) => {
    const { rtmp } = server.urls('listener');
    const file = path.join(cache, 'forwarded.flv');
    const listener = ffmpeg(['-listen', '1', '-i', `rtmp://127.0.0.1:${ODD_PORT}/live/any`, '-c', 'copy', '-f', 'flv', file]);
    assert.equal((await add(server, 'live/listener', `rtmp://127.0.0.1:${ODD_PORT}/live/any`)).status, 201);
    assert.equal((await forwards(server, 'live/listener'))[0].state, 'waiting');
    const publisher = push(rtmp, { ...SMALL, seconds: 5 });
    await inState(server, 'live/listener', 'live');
    assert.equal((await publisher.ended).code, 0);
    assert.equal((await listener.ended).code, 0);
    await inState(server, 'live/listener', 'waiting', { reason: /^/ });
    const text = await ffmpegDone(['-i', file, '-c', 'copy', '-f', 'framemd5', '-']);
    const codecs = [...text.matchAll(/^#codec_id \d+: (\w+)/gm)].map(([, name]) => name).sort();
    assert.deepEqual(codecs, ['aac', 'h264']);
    const frames = text.split('\n').filter(row => row.startsWith('0,')).length;
    assert.ok(frames >= 100, `${frames} pictures of 150`);
    return `${frames} pictures of 150`;
  }),
  test('a target that is down at first, and later restarts in the middle', 90, async ({ server }) => {
    const publisher = push(server.urls('coming-back').rtmp);
    const waiting = await inState(server, 'live/coming-back', 'retrying', { reason: /refused/ });
    let target = await startServer({ number: 2 });
    try {
      await inState(server, 'live/coming-back', 'live', { ms: 15_000 });
      await live(target, 'coming-back');
      await target.stop('SIGKILL');
      const broken = await inState(server, 'live/coming-back', 'retrying', { reason: /closed the connection while|refused/ });
      target = await startServer({ number: 2 });
      await inState(server, 'live/coming-back', 'live', { ms: 15_000 });
      const seen = await pull(target.urls('coming-back').rtmp, { seconds: 3, fast: true });
      assertPlays(seen, 3);
      assert.equal((await publisher.stop()).code, 0);
      return `first “${waiting.last_error}”, then “${broken.last_error}”`;
    } finally {
      await target.stop('SIGKILL');
    }
  }),
  test('a target that takes the stream and then reads no more is given up and tried again', 60, async ({ server, other }) => {
    let passed = 0;
    const odd = await listen(socket => {
      // Between the two servers, until half a megabyte has passed.
      const onward = net.connect(OTHER_PORT, '127.0.0.1');
      onward.on('error', () => {});
      onward.pipe(socket);
      socket.on('data', data => {
        onward.write(data);
        passed += data.length;
        if (passed > 500_000) socket.pause();
      });
      socket.on('close', () => onward.destroy());
    });
    try {
      const publisher = push(server.urls('stuck').rtmp, { video: BUSY_VIDEO });
      await live(server, 'stuck', publisher);
      assert.equal((await add(server, 'live/stuck', `rtmp://127.0.0.1:${ODD_PORT}/live/stuck`)).status, 201);
      await live(other, 'stuck');
      const began = Date.now();
      const one = await inState(server, 'live/stuck', 'retrying', { ms: 30_000, reason: /taken nothing/ });
      assert.equal((await publisher.stop()).code, 0, 'the publisher is not disturbed');
      return `“${one.last_error}” after ${Date.now() - began} ms`;
    } finally {
      await odd.close();
    }
  }),
  test('a target that is too slow gets fewer pictures, and its forward goes on; kicked as a client, it ends', 60, async ({ server, other }) => {
    const odd = await listen(socket => {
      // Between the two servers, a quarter of what the stream needs.
      const onward = net.connect(OTHER_PORT, '127.0.0.1');
      onward.on('error', () => {});
      onward.pipe(socket);
      socket.on('data', data => {
        onward.write(data);
        socket.pause();
        setTimeout(() => socket.resume(), data.length / 125);
      });
      socket.on('close', () => onward.destroy());
    });
    try {
      const publisher = push(server.urls('slow').rtmp, { video: BUSY_VIDEO });
      await live(server, 'slow', publisher);
      await add(server, 'live/slow', `rtmp://127.0.0.1:${ODD_PORT}/live/slow`);
      const one = await until('pictures are left out', 30_000, async () => (await forwards(server, 'live/slow')).find(one => one.skipped_frames > 0));
      assert.equal(one.state, 'live');
      const there = await live(other, 'slow');
      const { id } = (await server.api('/api/v1/clients/?count=1000')).clients.find(client => client.type === 'forward');
      await fetch(`${server.local}/api/v1/clients/${id}`, { method: 'DELETE' });
      await until('it is gone', 3000, async () => !(await forwards(server, 'live/slow')).length);
      return `${one.skipped_frames} frames left out, ${there.frames} arrived`;
    } finally {
      await odd.close();
    }
  }),
  test('a target that accepts connections and says nothing', 40, async ({ server }) => {
    const odd = await listen(() => {});
    try {
      const publisher = push(server.urls('mute').rtmp, SMALL);
      await live(server, 'mute', publisher);
      await add(server, 'live/mute', `rtmp://127.0.0.1:${ODD_PORT}/live/mute`);
      const one = await inState(server, 'live/mute', 'retrying', { ms: 20_000, reason: /did not answer the handshake/ });
      return one.last_error;
    } finally {
      await odd.close();
    }
  }),
  test('what is no RTMP server is told from one', 40, async ({ server }) => {
    const odd = await listen(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    try {
      const publisher = push(server.urls('http').rtmp, SMALL);
      await live(server, 'http', publisher);
      await add(server, 'live/http', `rtmp://127.0.0.1:${ODD_PORT}/live/http`);
      return (await inState(server, 'live/http', 'retrying', { reason: /handshake/ })).last_error;
    } finally {
      await odd.close();
    }
  }),
  test('what would go in a circle is refused, and so are bad requests', 40, async ({ server }) => {
    const loop = await add(server, 'live/cam', server.urls('cam').rtmp);
    assert.equal(loop.status, 409);
    const { type, detail } = await loop.json();
    assert.match(type, /forward-loop$/);
    const otherPort = await add(server, 'live/cam', `rtmp://localhost:${new URL(server.base).port}/live/[stream]`);
    assert.equal(otherPort.status, 409, 'every port of ours speaks RTMP');
    for (const [url, reason] of [['http://a/b/c', /rtmp:\/\//], ['rtmp://a', /app and stream/], ['rtmp://a/b/[name]', /\[name\]/]]) {
      const refused = await add(server, 'live/cam', url);
      assert.equal(refused.status, 400, url);
      assert.match((await refused.json()).detail, reason);
    }
    assert.equal((await add(server, 'live/cam', `${OTHER}/a/b`, {}, { origin: 'https://evil.example' })).status, 403);
    assert.equal((await forwards(server)).length, 0);
    return detail;
  }),
]);

async function setupGuarded(cleanup) {
  const other = await startServer({ number: 1, extra: '[publish]\ntokens = ["right"]\n' });
  cleanup(() => other.stop());
  const authority = path.join(other.folder, 'certs/self-signed.pem');
  const found = fs.readdirSync(path.join(other.folder, 'certs')).find(name => /\.(pem|crt|cert)$/.test(name) && !/key/.test(name));
  const server = await startServer({ variables: { SSL_CERT_FILE: found ? path.join(other.folder, 'certs', found) : authority } });
  cleanup(() => server.stop());
  cleanup(endFfmpegs);
  return { server, other, tidy: endFfmpegs };
}

group('forward to a guarded server', setupGuarded, [
  test('a wrong key is refused in the server’s words; RTMPS with a certificate that is trusted, and with the right key', 60, async ({ server, other }) => {
    const publisher = push(server.urls('guarded').rtmp, SMALL);
    await live(server, 'guarded', publisher);
    await add(server, 'live/guarded', `${OTHER}/live/[stream]?token=wrong`);
    const one = await inState(server, 'live/guarded', 'retrying', { reason: /token/ });
    assert.ok(!JSON.stringify(one).includes('wrong'), JSON.stringify(one));
    await fetch(`${server.local}/api/v1/forwards/${one.id}`, { method: 'DELETE' });
    await until('it is gone', 3000, async () => !(await forwards(server, 'live/guarded')).length);
    await add(server, 'live/guarded', `${other.rtmps}/live/[stream]?token=right`);
    await inState(server, 'live/guarded', 'live');
    await live(other, 'guarded');
    assert.equal((await publisher.stop()).code, 0);
    return one.last_error;
  }),
]);

group('forward by RTMPS', setup, [
  test('a certificate that this host does not trust is refused, unless told so', 60, async ({ server, other }) => {
    const publisher = push(server.urls('tls').rtmp, SMALL);
    await live(server, 'tls', publisher);
    const { forward } = await (await add(server, 'live/tls', `${other.rtmps}/live/[stream]`)).json();
    const refused = await inState(server, 'live/tls', 'retrying', { reason: /TLS/ });
    await fetch(`${server.local}/api/v1/forwards/${forward.id}`, { method: 'DELETE' });
    await until('it is gone', 3000, async () => !(await forwards(server, 'live/tls')).length);
    await add(server, 'live/tls', `${other.rtmps}/live/[stream]`, { verify_certificate: false });
    await inState(server, 'live/tls', 'live');
    await live(other, 'tls');
    assert.equal((await publisher.stop()).code, 0);
    return refused.last_error;
  }),
]);
