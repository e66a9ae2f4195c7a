// Rooms and calls over /sig/v1/rtc, by clients that are not ours.
import assert from 'node:assert/strict';
import net from 'node:net';
import { examples, fillIn, learn } from '../lib/examples.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { startServer } from '../lib/server.mjs';
import { Person } from '../lib/signaling-client.mjs';
import { Signaling } from '../../../web/lib/signaling.js';
import WebSocket from 'ws';
import { group, test } from '../lib/suite.mjs';

async function setup(cleanup) {
  const server = await startServer({ extra: '[signaling]\nmax_people = 16\nmax_sockets_per_ip = 30\n' });
  cleanup(() => server.stop());
  const people = [];
  const person = options => {
    people.push(new Person(server, options));
    return people.at(-1);
  };
  const tidy = async () => {
    for (const { socket } of people.splice(0)) {
      socket._socket?.resume();
      if (socket.readyState === 1) socket.close(1000);
    }
    await until('every room is empty', 15_000, async () => (await rooms(server)).length + (await sockets(server)) === 0);
  };
  return { server, person, tidy };
}

async function metric(server, name) {
  const text = await (await fetch(`${server.local}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

const sockets = server => metric(server, 'freshet_signaling_sockets');

const rooms = async server => (await server.api('/api/v1/rooms/')).rooms;

/** Plays one example against a server, in real time. */
async function play(steps, server) {
  const known = new Map();
  const people = new Map();
  const person = name => people.get(name) ?? people.set(name, new Person(server)).get(name);
  for (const [verb, value] of steps) {
    if (verb === 'settings') continue;
    if (verb === 'seconds pass') {
      await sleep(value * 1000 - (value < 10 ? 300 : 0));
      continue;
    }
    const [name, ...what] = verb.split(' ');
    if (what[0] === 'sends') await person(name).send(fillIn(value, known));
    else if (what[0] === 'receives') {
      const received = await person(name).next();
      learn(value, received, known);
      assert.deepEqual(received, fillIn(value, known), verb);
    } else {
      const { socket } = person(name);
      if (what[0] === 'closes') socket.close(value);
      else socket.terminate();
      people.delete(name);
    }
  }
  for (const [name, { inbox }] of people) assert.deepEqual(inbox, [], `${name} got more than the example says`);
  await Promise.all([...people.values()].map(async one => {
    one.socket.close(1000);
    await one.end();
  }));
}

group('signaling', setup, [
  test('every example of protocol.md, over the wire', 60, async ({ server }) => {
    const all = examples();
    const open = all.filter(steps => steps[0][0] !== 'settings');
    for (const steps of open) await play(steps, server);
    return `${open.length} examples`;
  }),

  test('bad messages are answered, and only the worst end the socket', 30, async ({ server, person }) => {
    const [amy, bob] = [person(), person({ query: '?room=ignored&display=ignored' })];
    await amy.join('den', 'amy');
    await bob.join('den', 'bob');
    for (const [text, code] of [
      ['', 'bad-json'], ['{', 'bad-json'], ['[]', 'bad-json'], ['null', 'bad-json'], ['"\ud800"', 'bad-json'],
      ['{"msg":{"action":"join"}}', 'bad-message'], [JSON.stringify({ msg: { action: 'x'.repeat(9000) } }), 'unknown-action'],
      [JSON.stringify({ msg: 'x'.repeat(20_000) }), 'too-large'], [`${'['.repeat(9000)}`, 'bad-json'],
    ]) {
      await bob.send(text);
      const { error } = await bob.notice('error');
      assert.equal(error.code, code, text.slice(0, 40));
      assert.ok(error.text && error.hint && error.text.length < 500, JSON.stringify(error));
    }
    assert.equal((await bob.ask({ action: 'ping' })).msg, null, 'the socket lives');

    bob.socket.send(Buffer.from([1, 2, 3]));
    assert.deepEqual(await bob.end(), [1003, 'only text messages are understood']);
    await amy.notice('leave');
    const cat = person();
    await cat.send('x'.repeat(100_000));
    assert.equal((await cat.end())[0], 1009);

    const dan = person();
    await dan.opened;
    for (let i = 0; i < 400; i++) dan.socket.send('{"tid":"t","msg":{"action":"ping"}}');
    assert.deepEqual(await dan.end(), [1008, 'too many messages']);
    const fast = dan.inbox.filter(message => message.error?.code === 'too-fast').length;
    assert.ok(fast >= 100 && dan.inbox.length - fast >= 60, `${dan.inbox.length} answers, ${fast} of them too-fast`);
    assert.equal((await amy.ask({ action: 'ping' })).msg, null);
    assert.equal((await rooms(server)).length, 1);
  }),

  test('a request that is no WebSocket, a foreign page and one socket too many are refused with the reason', 20, async ({ server, person }) => {
    const plain = await fetch(`${server.local}/sig/v1/rtc`);
    assert.equal(plain.status, 400);
    assert.match((await plain.json()).detail, /WebSocket/);
    assert.equal(await (await fetch(`${server.local}/sig/v1/versions`)).text(), '1.0');
    const all = Array.from({ length: 30 }, () => person());
    await Promise.all(all.map(one => one.opened));
    await assert.rejects(person().opened, /429/);
    all[0].socket.close();
    await all[0].end();
    await until('room for another', 3000, () => person().opened.then(() => true, () => false));
  }),

  test('sixteen people in a room, the seventeenth is told', 30, async ({ server, person }) => {
    const people = [];
    for (let i = 0; i < 16; i++) {
      people.push(person());
      await people[i].join('big', `p${i}`, { stream: 'assign', state: { camera: true } });
    }
    const late = await person().ask({ action: 'join', room: 'big', display: 'late' });
    assert.equal(late.error.code, 'room-full');
    const began = performance.now();
    await people[3].ask({ action: 'publish' });
    const notices = await Promise.all(people.filter((_, i) => i !== 3).map(one => one.notice('publish')));
    const took = performance.now() - began;
    assert.ok(notices.every(({ msg }) => msg.peer.display === 'p3' && msg.participants.length === 16));
    const [room] = await rooms(server);
    assert.equal(room.name, 'big');
    assert.deepEqual(room.people.map(one => one.display), people.map((_, i) => `p${i}`));
    assert.deepEqual(room.people.filter(one => one.publishing).map(one => one.display), ['p3']);
    return `a publish reached the other 15 in ${took.toFixed(1)} ms`;
  }),

  test('who does not take what is sent is dropped, and the others do not notice', 40, async ({ person }) => {
    const talkers = Array.from({ length: 5 }, () => person());
    const [bob, slow] = [talkers[0], person()];
    for (const [i, one] of [...talkers, slow].entries()) await one.join('den', `p${i}`, { capabilities: ['resume'] });
    slow.socket._socket.pause();
    const data = 'x'.repeat(15_000);
    let longest = 0;
    const talk = async one => {
      for (let i = 0; i < 15; i++) {
        const began = performance.now();
        await one.ask({ action: 'control', call: 'chat', data });
        longest = Math.max(longest, performance.now() - began);
      }
    };
    // What the kernel's buffers take, some megabytes here, the server need not hold.
    await until('the slow one is away', 30_000, async () => {
      await Promise.all(talkers.map(talk));
      await sleep(700);
      return bob.inbox.some(({ msg }) => msg.event === 'away');
    });
    const chats = bob.inbox.filter(({ msg }) => msg.event === 'control').length;
    slow.socket._socket.resume();
    const [code] = await slow.end(15_000);
    assert.ok(code === 4002 || code === 1006, `closed with ${code}`);
    return `after ${chats} messages of 15 KB, each answered within ${longest.toFixed(0)} ms; closed with ${code}`;
  }),

  test('a lost publisher is away within 10 s and gone 10 s later; his seat is his until then', 50, async ({ person }) => {
    const amy = person({ autoPong: false });
    const bob = person();
    const { seat, self } = await amy.join('den', 'amy', { capabilities: ['resume'] });
    await bob.join('den', 'bob');
    await amy.ask({ action: 'publish' });
    const began = Date.now();
    const away = await bob.notice('away', 12_000);
    const awayMs = Date.now() - began;
    assert.equal(away.msg.peer.id, self.id);
    assert.equal((await amy.end())[0], 4000);
    const again = person({ autoPong: false });
    const back = await again.join('den', 'amy', { capabilities: ['resume'], resume: seat });
    assert.deepEqual([back.resumed, back.self.id, back.self.publishing], [true, self.id, true]);
    await bob.notice('back');
    again.socket.terminate();
    const lost = Date.now();
    await bob.notice('away');
    await bob.notice('leave', 13_000);
    return `away after ${(awayMs / 1000).toFixed(1)} s, gone ${((Date.now() - lost) / 1000).toFixed(1)} s after its end`;
  }),

  test('a half-open connection and a broken frame end as lost ones', 20, async ({ server, person }) => {
    const bob = person();
    await bob.join('den', 'bob');
    for (const ending of ['cut', 'garbage']) {
      const amy = person();
      await amy.join('den', 'amy');
      await bob.notice('join');
      if (ending === 'cut') amy.socket._socket.destroy();
      else amy.socket._socket.write(Buffer.from('not a frame, nor masked'));
      await bob.notice('leave');
    }
    const { hostname, port } = new URL(server.local);
    const raw = net.connect(Number(port), hostname);
    raw.write('GET /sig/v1/rtc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
    await new Promise(done => raw.once('data', done));
    assert.equal(await sockets(server), 2);
    raw.destroy();
    await until('it is forgotten', 3000, async () => (await sockets(server)) === 1);
  }),

  test('who leaves a room without ending his stream has it ended', 40, async ({ server, person }) => {
    const browsers = new Browsers();
    try {
      const amy = person();
      const { self } = await amy.join('den', 'Amy', { stream: 'assign' });
      assert.match(self.stream, /^rooms\/[0-9a-zA-Z]{22}$/);
      await browsers.publish(`${server.base}/whip/${self.stream}`);
      const publishers = async () => (await server.api('/api/v1/clients/')).clients.filter(one => one.publish).length;
      await until('it publishes', 5000, async () => (await publishers()) === 1);
      const began = Date.now();
      await amy.ask({ action: 'leave' });
      await until('its stream ends', 5000, async () => (await publishers()) === 0);
      return `${Date.now() - began} ms after the leave`;
    } finally {
      await browsers.close();
    }
  }),
]);

group('signaling ends', async cleanup => {
  const servers = [];
  cleanup(() => Promise.all(servers.map(server => server.stop('SIGKILL'))));
  const start = async extra => {
    servers.push(await startServer({ extra }));
    return servers.at(-1);
  };
  return { start };
}, [
  test('tokens, an origin and a switch in the configuration', 30, async ({ start }) => {
    const server = await start('[signaling]\ntokens = ["sesame"]\n');
    const [withToken] = examples().filter(steps => steps[0][0] === 'settings');
    assert.deepEqual(withToken[0][1], { tokens: ['sesame'] });
    await play(withToken, server);
    const cat = new Person(server, { query: '?token=sesame' });
    await cat.join('den', 'cat');
    assert.equal((await fetch(`${server.local}/api/v1/rooms/`)).status, 401);
    assert.equal((await server.api('/api/v1/rooms/?token=sesame')).rooms.length, 1);
    await server.stop();

    const shut = await start('[signaling]\nenabled = false\n');
    assert.equal((await fetch(`${shut.local}/sig/v1/versions`)).status, 404);
    await shut.stop();

    process.env.FRESHET_HTTP_ALLOW_ORIGIN = 'https://app.example';
    const strict = await start('').finally(() => delete process.env.FRESHET_HTTP_ALLOW_ORIGIN);
    await assert.rejects(new Person(strict, { origin: 'https://evil.example' }).opened, /403/);
    for (const origin of ['https://app.example', strict.local, undefined]) await new Person(strict, { origin }).opened;
    await strict.stop();
  }),

  test('SIGQUIT takes nobody new, SIGTERM says "join again", and the next server knows nobody', 40, async ({ start }) => {
    const first = await start('[shutdown]\ndrain_seconds = 20\n');
    const browsers = new Browsers();
    const amy = new Person(first);
    const { seat, self } = await amy.join('den', 'amy', { stream: 'assign', capabilities: ['resume'] });
    await browsers.publish(`${first.base}/whip/${self.stream}`);
    first.child.kill('SIGQUIT');
    await sleep(500);
    const bob = new Person(first);
    assert.equal((await bob.ask({ action: 'join', room: 'den', display: 'bob' })).error.code, 'draining');
    assert.equal((await amy.ask({ action: 'publish' })).msg, null, 'who is here goes on');
    const began = Date.now();
    assert.deepEqual(await first.stop('SIGTERM'), { code: 0, signal: null });
    const took = Date.now() - began;
    assert.deepEqual(await amy.end(), [1012, 'the server ends or restarts, join again']);
    assert.equal((await bob.end())[0], 1012);
    await browsers.close();

    const second = await start('');
    const again = new Person(second);
    const rejoined = await again.join('den', 'amy', { stream: 'assign', capabilities: ['resume'], resume: seat });
    assert.deepEqual([rejoined.resumed, rejoined.self.publishing], [false, false]);
    assert.notEqual(rejoined.self.stream, self.stream);
    await second.stop();
    return `ended in ${took} ms`;
  }),

  test("the pages' library takes its seat again after a cut, and comes back to a server that was restarted", 40, async ({ start }) => {
    const first = await start('');
    const sockets = [];
    const connect = address => {
      const socket = new WebSocket(address);
      // What follows is what pages get to see.
      socket.on('error', () => {});
      sockets.push(socket);
      return socket;
    };
    const url = `${first.local.replace('http', 'ws')}/sig/v1/rtc`;
    const amy = new Signaling({ room: 'den', display: 'Amy', stream: 'assign', state: { camera: true }, url, connect });
    const bob = new Person(first);
    const { self } = await amy.join();
    await amy.publish();
    await bob.join('den', 'bob', { stream: 'assign' });

    sockets.at(-1).terminate();
    await bob.notice('away');
    const { msg: back } = await bob.notice('back');
    assert.deepEqual([back.peer.id, back.peer.stream, back.peer.publishing], [self.id, self.stream, true]);
    await until('amy knows', 3000, () => amy.state === 'joined' && amy.participants.length === 2);
    const said = new Promise(done => amy.addEventListener('chat', ({ detail }) => done(detail)));
    await bob.ask({ action: 'control', call: 'chat', data: 'hello', to: self.id });
    assert.equal((await said).data, 'hello');

    const told = new Promise(done => amy.addEventListener('statechange', () => done(amy.error.message), { once: true }));
    await first.stop();
    assert.equal(await told, 'The server restarts.');
    const second = await start('');
    const began = Date.now();
    await until('amy is back and publishes', 10_000, async () => (await rooms(second))[0]?.people[0]?.publishing);
    const took = Date.now() - began;
    const [{ people: [again] }] = await rooms(second);
    assert.deepEqual([again.display, again.state], ['Amy', { camera: true }]);
    assert.notEqual(again.stream, self.stream);
    await amy.leave();
    await until('the room is empty', 3000, async () => (await rooms(second)).length === 0);
    await second.stop();
    return `back ${took} ms after the new server answered`;
  }),
]);
