// RTMP clients without manners, while others watch.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import net from 'node:net';
import { endFfmpegs, live, pull, push } from '../lib/ffmpeg.mjs';
import { openHttp } from '../lib/flv.mjs';
import { figures } from '../lib/expect.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { WireClient, command, header, message } from '../lib/rtmp-wire.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

/** What one connection may cost, with room for what the allocator keeps. */
const MOST_MB = 80;
/** Deadlines of the server are 10 and 15 s. */
const PATIENCE_MS = 25_000;

async function setup(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  cleanup(endFfmpegs);
  const { rtmp, whep } = server.urls('target');
  const publisher = push(rtmp, { seconds: 600, size: '320x240' });
  await live(server, 'target', publisher);
  const player = await browsers.play(whep, { listen: false });
  await sleep(2000);
  browsers.keep();
  const clients = [];
  const connect = (port = server.rtmpPort) => {
    clients.push(new WireClient(port));
    return clients.at(-1);
  };
  const tidy = () => clients.splice(0).forEach(client => client.close());
  return { server, player, connect, tidy };
}

/** Runs `attack`; what the viewer saw meanwhile, and that all is well afterwards. */
async function meanwhile({ player, server }, attack) {
  const since = Date.now();
  const before = server.rssMb();
  const outcome = await attack();
  const seen = await player.measure(since);
  const grownMb = Math.round(server.rssMb() - before);
  await sleep(500);
  const calm = Date.now();
  await sleep(2000);
  const after = await player.measure(calm);
  assert.equal(server.child.exitCode, null, 'the server lives');
  assert.ok(!/panicked/.test(server.log()), server.log());
  assert.ok(after.frames > 25 && after.longestGapMs < 700, `afterwards: ${figures(after)}`);
  return { outcome, seen, grownMb };
}

const closed = (client, what) => until(`${what}: the server hangs up`, PATIENCE_MS, () => client.closed);

/** Writes `block` until the server hangs up, or that many bytes have been written. Returns how many. */
async function writeUntilClosed(client, block, most) {
  let written = 0;
  while (!client.closed && written < most) {
    await Promise.race([client.write(block), sleep(3000)]);
    written += block.length;
  }
  return written;
}

const MB = 1024 * 1024;

group('rude rtmp', setup, [
  test('connections that stay silent are closed, at any point', 60, async context => {
    const { connect } = context;
    const { outcome } = await meanwhile(context, async () => {
      const began = Date.now();
      const silent = [connect(), connect(), connect(), connect()];
      await silent[1].write(Buffer.from([3]));
      await silent[2].handshake();
      await silent[3].handshake();
      await silent[3].connect();
      return Promise.all(silent.map(async (client, i) => {
        await closed(client, `client ${i}`);
        return `${((Date.now() - began) / 1000).toFixed(1)} s`;
      }));
    });
    return `silent: ${outcome[0]}, after a byte: ${outcome[1]}, after the handshake: ${outcome[2]}, after connect: ${outcome[3]}`;
  }),
  test('a publisher that falls silent is over', 60, async ({ connect, server }) => {
    const client = connect();
    await client.handshake();
    await client.connect();
    await client.publish('silent-publisher');
    const began = Date.now();
    await closed(client, 'the publisher');
    assert.ok(!(await server.api('/api/v1/streams/?count=1000')).streams.some(one => one.name === 'silent-publisher' && one.publish.active));
    return `${((Date.now() - began) / 1000).toFixed(1)} s`;
  }),
  test('a handshake and commands byte by byte', 60, async ({ connect }) => {
    const client = connect();
    client.socket.setNoDelay(true);
    const bytewise = async bytes => {
      for (let at = 0; at < bytes.length; at++) {
        await client.write(bytes.subarray(at, at + 1));
        if (at % 64 === 0) await sleep(1);
      }
    };
    await client.handshake(bytewise);
    await client.connect(bytewise);
    await client.publish('bytewise');
  }),
  test('a client that answers slowly is not waited for, by anybody else', 60, async context => {
    const { connect, server } = context;
    const slow = Array.from({ length: 100 }, () => connect());
    const { outcome } = await meanwhile(context, async () => {
      for (const client of slow) await client.write(Buffer.concat([Buffer.from([3]), crypto.randomBytes(700)]));
      const began = Date.now();
      const quick = connect();
      await quick.handshake();
      await quick.connect();
      return Date.now() - began;
    });
    assert.ok(outcome < 3000, `a quick client took ${outcome} ms`);
    assert.ok(server.child.exitCode === null);
    return `a quick client took ${outcome} ms among 100 slow ones`;
  }),
  test('messages of 16 MB, as they are announced', 60, async context => {
    const { outcome, grownMb } = await meanwhile(context, async () => {
      const clients = Array.from({ length: 8 }, () => context.connect());
      return Promise.all(clients.map(async (client, i) => {
        await client.handshake();
        await client.connect();
        if (i % 2) await client.publish(`big-${i}`);
        // A chunk size that makes the message one chunk, then the message.
        await client.write(message({ type: 1, chunkStream: 2, body: Buffer.from([0x7f, 0xff, 0xff, 0xff]) }));
        await client.write(header({ chunkStream: 4, length: 0xffffff, type: i % 4 < 2 ? 9 : 20, stream: 1 }));
        const written = await writeUntilClosed(client, Buffer.alloc(256 * 1024), 20 * MB);
        return `${client.closed ? 'closed' : 'open'} after ${Math.round(written / MB)} MB`;
      }));
    });
    assert.ok(grownMb < 8 * 17 + MOST_MB, `${grownMb} MB more`);
    return `${[...new Set(outcome)].join(', ')}; resident +${grownMb} MB`;
  }),
  test('a message that never ends on each of many chunk streams', 60, async context => {
    const { outcome, grownMb } = await meanwhile(context, async () => {
      const client = context.connect();
      await client.handshake();
      await client.connect();
      let written = 0;
      for (let id = 64; id < 65_600 && !client.closed; id++) {
        // Two- and three-byte ids (RTMP §5.3.1.1), each with the start of a message of 16 MB.
        const head = header({ length: 0xfffff0, type: 9, stream: 1 });
        const basic = id < 320 ? Buffer.from([0, id - 64]) : Buffer.from([1, (id - 64) & 255, (id - 64) >> 8]);
        const bytes = Buffer.concat([basic, head.subarray(1), Buffer.alloc(128)]);
        written += bytes.length;
        if (id % 64) client.write(bytes);
        else await Promise.race([client.write(bytes), sleep(3000)]);
      }
      await sleep(300);
      return `${client.closed ? 'closed' : 'open'} after ${Math.round(written / 1024)} kB`;
    });
    assert.ok(grownMb < MOST_MB, `${grownMb} MB more`);
    return `${outcome}; resident +${grownMb} MB`;
  }),
  test('commands without end before publishing', 60, async context => {
    const { outcome, grownMb } = await meanwhile(context, async () => {
      const client = context.connect();
      await client.handshake();
      await client.connect();
      const block = Buffer.concat(Array.from({ length: 500 }, (_, i) => command('createStream', i, null)));
      const written = await writeUntilClosed(client, block, 20 * MB);
      return `${client.closed ? 'closed' : 'open'} after ${(written / MB).toFixed(1)} MB, ${(client.received / MB).toFixed(1)} MB of answers`;
    });
    assert.ok(grownMb < MOST_MB, `${grownMb} MB more`);
    return `${outcome}; resident +${grownMb} MB`;
  }),
  test('commands without end whose answers are not read', 90, async context => {
    const { outcome, grownMb } = await meanwhile(context, async () => {
      const client = context.connect();
      await client.handshake();
      await client.connect();
      client.socket.pause();
      const block = Buffer.concat(Array.from({ length: 500 }, (_, i) => command('createStream', i, null)));
      let written = 0;
      for (let i = 0; i < 400 && !client.closed; i++) {
        const done = await Promise.race([client.write(block).then(() => true), sleep(2000)]);
        if (!done) break;
        written += block.length;
      }
      return `${(written / MB).toFixed(1)} MB taken`;
    });
    assert.ok(grownMb < MOST_MB, `${grownMb} MB more`);
    return `${outcome}; resident +${grownMb} MB`;
  }),
  test('garbage in the handshake, after it, and after connect', 60, async context => {
    const { outcome, seen, grownMb } = await meanwhile(context, async () => {
      const attempts = Array.from({ length: 60 }, async (_, i) => {
        const client = context.connect();
        if (i % 3) await client.handshake();
        if (i % 3 === 2) await client.connect();
        const garbage = crypto.randomBytes(50_000);
        if (i % 3 === 0) garbage[0] = 3;
        await client.write(garbage);
        await sleep(1500);
        const is = client.closed;
        client.close();
        return is;
      });
      return (await Promise.allSettled(attempts)).filter(one => one.value).length;
    });
    assert.ok(grownMb < MOST_MB, `${grownMb} MB more`);
    return `${outcome} of 60 were hung up on; ${figures(seen)}`;
  }),
  test('1000 connections a second for 3 s', 60, async context => {
    const { server } = context;
    const { outcome, seen, grownMb } = await meanwhile(context, async () => {
      const began = Date.now();
      let opened = 0;
      let sockets = [];
      while (Date.now() - began < 3000) {
        const due = Math.min(3000, Date.now() - began) - opened;
        for (let i = 0; i < due; i++) {
          const socket = net.connect(server.rtmpPort, server.address);
          socket.on('error', () => {});
          if (opened % 2) socket.write(Buffer.concat([Buffer.from([3]), Buffer.alloc(1536)]));
          sockets.push(socket);
          opened++;
        }
        if (sockets.length > 500) sockets.splice(0, sockets.length - 500).forEach(socket => socket.destroy());
        await sleep(5);
      }
      for (const socket of sockets) socket.destroy();
      return Math.round(opened / 3);
    });
    assert.ok(seen.longestGapMs < 1000, figures(seen));
    return `${outcome} connections/s; ${figures(seen)}; resident +${grownMb} MB`;
  }),
]);

/** A picture that does not compress: some megabits per second, whatever the size. */
const HEAVY = { size: '640x480', filter: 'noise=alls=60:allf=t', video: ['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-g', '30', '-b:v', '12M', '-maxrate', '12M', '-bufsize', '6M'] };

async function setupHeavy(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  cleanup(endFfmpegs);
  return { server, tidy: endFfmpegs };
}

group('rude rtmp players', setupHeavy, [
  test('players that take nothing cost bounded memory and hold nobody up', 90, async ({ server }) => {
    const { rtmp, flv } = server.urls('heavy');
    const publisher = push(rtmp, { ...HEAVY, seconds: 80 });
    await live(server, 'heavy', publisher);
    await sleep(4000);
    const before = server.rssMb();
    const lazy = [];
    for (let i = 0; i < 30; i++) {
      if (i % 2) {
        const socket = net.connect(Number(new URL(flv).port), server.address);
        socket.on('error', () => {});
        socket.write(`GET ${new URL(flv).pathname} HTTP/1.1\r\nHost: x\r\n\r\n`);
        socket.pause();
        lazy.push(socket);
      } else {
        const client = new WireClient(server.rtmpPort);
        await client.handshake();
        await client.connect();
        await client.play('heavy');
        client.socket.pause();
        lazy.push(client.socket);
      }
    }
    const reader = openHttp(flv);
    const seen = await pull(rtmp, { seconds: 15, warmup: 2 });
    const after = server.rssMb();
    const { recv_bytes: received } = (await server.api('/api/v1/streams/?count=10')).streams[0];
    reader.stop();
    lazy.forEach(socket => socket.destroy());
    await publisher.stop();
    assert.ok(seen.frames > 100, JSON.stringify(seen));
    assert.ok(seen.skipped <= seen.frames * 0.3, JSON.stringify(seen));
    assert.ok(reader.length > MB, `${reader.length} bytes read over HTTP`);
    // The cache may grow to its 32 MB; thirty queues of the stream's length would be ten times as much.
    assert.ok(after - before < 120, `resident ${before.toFixed(0)} → ${after.toFixed(0)} MB`);
    return `resident ${before.toFixed(0)} → ${after.toFixed(0)} MB with 30 players, ${(received / MB).toFixed(0)} MB published; a good player: ${seen.frames} frames, ${seen.skipped} skipped, longest gap ${seen.longest_gap_ms} ms`;
  }),
]);
