// node --test: web/lib/signaling.js against the examples of signaling/protocol.md, and its own promises.
import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';
import { examples, fillIn } from '../e2e/lib/examples.mjs';
const { Signaling, socketUrl } = await import(new URL('../../web/lib/signaling.js', import.meta.url).pathname);

/** The server's end of a socket, as the test plays it. */
class FakeSocket {
  static all = [];
  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  open() {
    this.readyState = 1;
    this.onopen?.({});
  }

  send(text) {
    assert.equal(this.readyState, 1, 'sent on a socket that is not open');
    this.sent.push(JSON.parse(text));
  }

  /** The page closes. */
  close(code) {
    assert.ok(code === 1000 || (code >= 3000 && code <= 4999), `a browser refuses close(${code})`);
    this.readyState = 3;
    this.closedWith = code;
  }

  receive(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The server or the network closes. */
  end(code, reason = '') {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** The window's events, of each test its own. */
let page = new EventTarget();
globalThis.addEventListener = (...args) => page.addEventListener(...args);
globalThis.removeEventListener = (...args) => page.removeEventListener(...args);

const connect = url => new FakeSocket(url);
const turn = () => new Promise(done => setImmediate(done));

/** A client and its newest socket. */
function client(options = {}) {
  const room = new Signaling({ room: 'den', display: 'amy', url: 'ws://x/sig/v1/rtc', connect, ...options });
  return { room, socket: () => FakeSocket.all.at(-1) };
}

const joinedMsg = (more = {}) => ({
  action: 'join', room: 'den', self: { id: 'a', display: 'amy', publishing: false, stream: 'den/amy' },
  participants: [{ id: 'a', display: 'amy', publishing: false, stream: 'den/amy' }], seat: 'secret', resumed: false, max_people: 16, capabilities: [], ...more,
});

/** Answers the newest request. */
async function answer(socket, msg = null, error = undefined) {
  const { tid } = socket.sent.at(-1);
  socket.receive({ tid, msg, error });
  await turn();
}

async function joined(options) {
  const { room, socket } = client(options);
  const joining = room.join();
  socket().open();
  await answer(socket(), joinedMsg());
  await joining;
  return { room, socket };
}

beforeEach(() => {
  FakeSocket.all = [];
  page = new EventTarget();
  mock.timers.reset();
});

/** Does with the client what a message of an example asks for; null where pages send no such thing. */
function act({ room }, msg) {
  switch (msg?.action) {
    case 'publish': return room.publish();
    case 'unpublish': return room.unpublish();
    case 'control': return room.control(msg.call, msg.data, msg.to);
    case 'state': return room.setState(msg.state);
    case 'leave': return room.leave();
    case 'join': return undefined;
    default: return null;
  }
}

/** A person's part of an example, up to where pages cannot follow: `[verb, value]` with everything known filled in. */
function part(steps, name) {
  const known = new Map();
  const any = value => {
    if (typeof value === 'string' && value.startsWith('$')) known.set(value, known.get(value) ?? `any ${value}`);
    else if (value && typeof value === 'object') Object.values(value).forEach(any);
  };
  any(steps.map(([, value]) => value));
  const own = steps.filter(([verb]) => verb.split(' ')[0] === name || verb === 'seconds pass');
  const joins = own.findIndex(([, value]) => value.msg?.action === 'join');
  // An answer that the example passes over cannot be played.
  if (joins < 0 || typeof own[joins + 1][1].msg === 'string') return [];
  return own.slice(joins).map(([verb, value]) => [verb.replace(`${name} `, ''), fillIn(value, known)]);
}

const EVENTS = ['join', 'leave', 'publish', 'unpublish', 'state', 'away', 'back', 'control'];

/** Plays one person's part; the number of messages that went either way. */
async function playPart(steps) {
  let one = null;
  let outcome;
  let played = 0;
  const events = [];
  for (const [verb, value] of steps) {
    if (verb === 'sends') {
      const { msg } = value;
      if (msg.action === 'join' && one?.room.state === 'joining') {
        mock.timers.tick(5000);
        await turn();
        one.socket().open();
      } else if (msg.action === 'join') {
        // After a refusal a page makes a new one.
        const { room, display, kind, stream, token, state, capabilities } = msg;
        one = client({ room, display, kind, stream, token, state, capabilities });
        for (const event of EVENTS) one.room.addEventListener(event, ({ detail }) => events.push([event, detail]));
        outcome = one.room.join();
        one.socket().open();
      } else {
        outcome = act(one, msg);
        if (outcome === null || one.room.state === 'left') break;
        mock.timers.tick(300);
      }
      outcome?.catch?.(() => {});
      await turn();
      const sent = one.socket().sent.at(-1).msg;
      for (const [name, member] of Object.entries(msg)) {
        if (name === 'capabilities') for (const capability of member) assert.ok(sent.capabilities.includes(capability));
        else assert.deepEqual(sent[name], member, `${msg.action}: ${name}`);
      }
      played++;
    } else if (verb === 'receives' && typeof value.msg !== 'string') {
      if (value.tid !== undefined) {
        await answer(one.socket(), value.msg, value.error);
        if (value.error) await assert.rejects(outcome, { code: value.error.code, message: value.error.text, hint: value.error.hint });
        else await outcome;
        if (value.msg) assert.deepEqual([one.room.state, one.room.participants], ['joined', value.msg.participants]);
      } else {
        one.socket().receive(value);
        assert.deepEqual(events.at(-1), [value.msg.event, value.msg]);
        const peer = one.room.participants.find(({ id }) => id === value.msg.peer.id);
        assert.deepEqual(peer, value.msg.event === 'leave' ? undefined : value.msg.peer);
        if (value.msg.participants) assert.deepEqual(one.room.participants, value.msg.participants);
      }
      played++;
    } else if (verb === 'is lost') {
      one.socket().end(1006);
      assert.equal(one.room.state, 'joining');
    }
  }
  return played;
}

test('the examples of protocol.md, from the side of each person', async () => {
  let played = 0;
  for (const steps of examples()) {
    for (const name of new Set(steps.map(([verb]) => verb.split(' ')[0]))) {
      mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
      played += await playPart(part(steps, name));
      mock.timers.reset();
    }
  }
  assert.ok(played >= 30, `only ${played} messages were played`);
});

test('a request that is not answered fails by itself', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room } = await joined();
  const failing = assert.rejects(room.chat('hello'), { code: 'timeout' });
  mock.timers.tick(8000);
  await failing;
  assert.equal(room.state, 'joined', 'one request tells nothing about the socket');
});

test('a silent server is noticed and the seat asked for again, with what was on', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  const published = room.publish();
  await answer(socket());
  await published;
  assert.equal(room.self.publishing, true);
  mock.timers.tick(15_000);
  assert.equal(socket().sent.at(-1).msg.action, 'ping');
  const first = socket();
  mock.timers.tick(8000);
  await turn();
  assert.deepEqual([room.state, room.error.code, first.closedWith], ['joining', 'lost', 4000]);
  mock.timers.tick(300);
  await turn();
  assert.notEqual(socket(), first);
  socket().open();
  assert.equal(socket().sent.at(-1).msg.resume, 'secret');
  // The server was restarted: it knows nothing, so the page says again that it publishes.
  await answer(socket(), joinedMsg({ seat: 'other' }));
  assert.equal(socket().sent.at(-1).msg.action, 'publish');
  await answer(socket());
  assert.deepEqual([room.state, room.self.publishing], ['joined', true]);
});

test('attempts become rarer, until the network is back', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  socket().end(1012, 'restart');
  assert.match(room.error.message, /restarts/);
  const opened = () => FakeSocket.all.length;
  const began = opened();
  for (let ms = 0; ms < 60_000; ms += 100) {
    mock.timers.tick(100);
    await turn();
    if (socket().readyState === 0) socket().end(1006);
  }
  const attempts = opened() - began;
  assert.ok(attempts >= 12 && attempts <= 30, `${attempts} attempts in a minute`);
  while (socket().readyState === 0) socket().end(1006);
  const before = opened();
  page.dispatchEvent(new Event('online'));
  await turn();
  assert.equal(opened(), before + 1, 'at once, not when the wait is over');
});

test('a page that is kept for the back button is not in the room, and joins when it comes back', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  page.dispatchEvent(new Event('pagehide'));
  assert.equal(socket().closedWith, 1000);
  page.dispatchEvent(new Event('pageshow'));
  assert.deepEqual([room.state, FakeSocket.all.length], ['joining', 2]);
  socket().open();
  await answer(socket(), joinedMsg());
  assert.equal(room.state, 'joined');
});

test('what is final is final', async () => {
  for (const [code, state, error] of [[4001, 'ended', 'replaced'], [1008, 'ended', 'ended']]) {
    mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
    const { room, socket } = await joined();
    const count = FakeSocket.all.length;
    socket().end(code);
    mock.timers.tick(60_000);
    await turn();
    assert.deepEqual([room.state, room.error.code, FakeSocket.all.length], [state, error, count]);
    mock.timers.reset();
  }
  const { room, socket } = client();
  const refused = assert.rejects(room.join(), { code: 'room-full', hint: 'wait' });
  socket().open();
  await answer(socket(), null, { code: 'room-full', text: '2 of 2', hint: 'wait' });
  await refused;
  assert.equal(room.state, 'refused');
});

test('a draining server is asked again', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = client();
  const joining = room.join();
  socket().open();
  await answer(socket(), null, { code: 'draining', text: 'ends', hint: 'again' });
  assert.equal(room.state, 'joining');
  mock.timers.tick(5000);
  await turn();
  socket().open();
  await answer(socket(), joinedMsg());
  assert.equal((await joining).self.display, 'amy');
});

test('states in quick succession go together, and the last word counts', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  room.setState({ speaking: true, microphone: true });
  room.setState({ speaking: false });
  room.setState({ camera: true });
  mock.timers.tick(250);
  assert.deepEqual(socket().sent.at(-1).msg, { action: 'state', state: { speaking: false, microphone: true, camera: true } });
  await answer(socket());
  assert.deepEqual(room.self.state, { speaking: false, microphone: true, camera: true });
  assert.equal(room.participants[0], room.self);
});

test('leaving says so, and nothing comes after it', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  const left = room.leave();
  assert.deepEqual([room.state, socket().sent.at(-1).msg.action], ['left', 'leave']);
  await answer(socket());
  await left;
  assert.equal(socket().closedWith, 1000);
  await assert.rejects(room.chat('x'), { code: 'lost' });
  mock.timers.tick(60_000);
  assert.equal(FakeSocket.all.length, 1);
});

test('nonsense from the server is passed over', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { room, socket } = await joined();
  for (const data of ['', '{', 'null', '7', '{"tid":"no such"}', '{"msg":null}', '{"msg":{"action":"notify","event":"error"}}', '{"msg":{"action":"notify","event":"new thing","peer":null}}']) socket().onmessage({ data });
  assert.equal(room.state, 'joined');
});

test('the socket is on the page\'s own server', () => {
  globalThis.location = { href: 'https://host:8443/call/tea?token=x' };
  assert.equal(socketUrl('a b'), 'wss://host:8443/sig/v1/rtc?token=a+b');
  globalThis.location = { href: 'http://127.0.0.1:8080/room/tea' };
  assert.equal(socketUrl(), 'ws://127.0.0.1:8080/sig/v1/rtc');
});
