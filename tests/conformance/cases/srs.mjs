// The interface of SRS: its WHIP and WHEP addresses, the older JSON signalling, and its HTTP API.
import assert from 'node:assert/strict';
import { send } from '../lib/http.mjs';
import { assertAgrees, parse, values } from '../lib/sdp.mjs';
import { SDP, assertProblem, fixture, test } from '../lib/suite.mjs';

const PUBLISH = fixture('chromium-publish-h264');
const PLAY = fixture('chromium-play');
const srs = (name, rule, run) => test(`srs: ${name}`, rule, run, ['srs']);

function urls(t) {
  const { name } = t.stream();
  const at = path => new URL(path, t.options.srs).href;
  return { name, at, whip: at(`/rtc/v1/whip/?app=live&stream=${name}`), whep: at(`/rtc/v1/whep/?app=live&stream=${name}`) };
}

async function json(method, url, body) {
  const answer = await send(method, url, { headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body) });
  assert.equal(answer.status, 200, `${method} ${url}: ${answer.status} ${answer.body.slice(0, 200)}`);
  return JSON.parse(answer.body);
}

/** Ends what has no Location: sessions of the JSON signalling. */
async function kick(at, name) {
  const { clients } = await json('GET', at('/api/v1/clients/?count=10000'));
  for (const client of clients.filter(one => one.url?.endsWith(name))) await json('DELETE', at(`/api/v1/clients/${client.id}`));
}

srs('whip answers 201 with a Location of SRS\'s shape', 'SRS 4 to 7: /rtc/v1/whip/', async t => {
  const { name, whip } = urls(t);
  const answer = await t.open(whip, PUBLISH);
  assertAgrees(PUBLISH, answer.body);
  const location = new URL(answer.headers.location, whip);
  assert.equal(location.pathname, '/rtc/v1/whip/');
  assert.equal(location.searchParams.get('action'), 'delete');
  assert.equal(location.searchParams.get('app'), 'live');
  assert.equal(location.searchParams.get('stream'), name);
  assert.ok(location.searchParams.get('token')?.length >= 9);
  assert.match(location.searchParams.get('session') ?? '', /^[^:]+:.+$/);
});

srs('DELETE of that Location gets 200, a second one 404', 'SRS 4 to 7', async t => {
  const { session } = await t.open(urls(t).whip, PUBLISH);
  assert.equal((await send('DELETE', session)).status, 200);
  assert.equal((await send('DELETE', session)).status, 404);
});

srs('DELETE with a wrong token ends nothing', 'SRS 4 to 7', async t => {
  const { whip } = urls(t);
  const { session } = await t.open(whip, PUBLISH);
  const wrong = new URL(session);
  wrong.searchParams.set('token', '000000000');
  assert.ok([403, 404].includes((await send('DELETE', wrong.href)).status));
  assert.equal((await send('DELETE', session)).status, 200);
});

for (const path of ['/rtc/v1/whep/?', '/rtc/v1/whep?', '/rtc/v1/whip-play/?', '/rtc/v1/whip-play?', '/rtc/v1/whip/?action=play&', '/rtc/v1/whip?action=play&']) {
  srs(`POST ${path} plays`, 'SRS 4 to 7', async t => {
    const { at, name, whip } = urls(t);
    await t.open(whip, PUBLISH);
    const answer = await t.open(at(`${path}app=live&stream=${name}`), PLAY);
    assertAgrees(PLAY, answer.body);
    assert.equal((await send('DELETE', answer.session)).status, 200);
  });
}

srs('whip without the slash publishes', 'SRS redirects; we answer', async t => {
  const { at, name } = urls(t);
  await t.open(at(`/rtc/v1/whip?app=live&stream=${name}`), PUBLISH);
});

srs('a body of no stated type is an offer', 'SRS never looks at Content-Type', async t => {
  await t.open(urls(t).whip, PUBLISH, { 'content-type': 'text/plain' });
});

srs('the stream is the same one as at /whip/live/…', 'one stream, two addresses', async t => {
  const { at, name, whip } = urls(t);
  await t.open(whip, PUBLISH);
  assertProblem(await t.post(at(`/whip/live/${name}`), PUBLISH), 409);
  await t.open(at(`/whep/live/${name}`), PLAY);
});

srs('app and stream default to live/livestream', 'SRS 4 to 7', async t => {
  const { at } = urls(t);
  const { session } = await t.open(at('/rtc/v1/whip/'), PUBLISH);
  assertProblem(await t.post(at('/whip/live/livestream'), PUBLISH), 409);
  await send('DELETE', session);
});

srs('eip adds an address to the answer', 'SRS 4 to 7: eip, candidate', async t => {
  const { whip } = urls(t);
  for (const [query, address, port] of [['eip=203.0.113.9', '203.0.113.9'], ['eip=203.0.113.9:18443', '203.0.113.9', '18443'], ['candidate=203.0.113.10', '203.0.113.10']]) {
    const answer = await t.open(`${whip}-${query.length}&${query}`, PUBLISH);
    const candidates = values(parse(answer.body).media[0].lines, 'candidate').map(line => line.split(' '));
    assert.ok(candidates.some(one => one[4] === address && (!port || one[5] === port)), `${query}: ${candidates.map(one => `${one[4]}:${one[5]}`)}`);
  }
});

srs('json publish and play answer with code 0, sdp and sessionid', 'SRS 4 to 7: /rtc/v1/publish/, /rtc/v1/play/', async t => {
  const { at, name } = urls(t);
  for (const [verb, offer] of [['publish', PUBLISH], ['play', PLAY]]) {
    const api = at(`/rtc/v1/${verb}/`);
    const answer = await json('POST', api, { api, tid: 'a1b2c3d', clientip: null, streamurl: `webrtc://127.0.0.1/live/${name}`, sdp: offer });
    assert.equal(answer.code, 0, JSON.stringify(answer).slice(0, 200));
    assertAgrees(offer, answer.sdp);
    assert.match(answer.sessionid, /^[^:]+:.+$/);
    for (const field of ['server', 'service', 'pid']) assert.equal(typeof answer[field], 'string', field);
  }
  await kick(at, name);
});

srs('json signalling works without the slash', 'SRS 4 to 7', async t => {
  const { at, name } = urls(t);
  const answer = await json('POST', at('/rtc/v1/publish'), { streamurl: `webrtc://host:1985/live/${name}?secret=1`, sdp: PUBLISH });
  assert.equal(answer.code, 0);
  assertProblem(await t.post(at(`/whip/live/${name}`), PUBLISH), 409);
  await kick(at, name);
});

srs('json signalling refuses with HTTP 200 and a code', 'SRS 4 to 7: clients test code', async t => {
  const { at, name, whip } = urls(t);
  await t.open(whip, PUBLISH);
  const streamurl = `webrtc://127.0.0.1/live/${name}`;
  const attempts = {
    busy: { streamurl, sdp: PUBLISH },
    'bad sdp': { streamurl: `${streamurl}-2`, sdp: 'nonsense' },
    'no sdp': { streamurl: `${streamurl}-3` },
    'no streamurl': { sdp: PUBLISH },
    'bad streamurl': { streamurl: 'webrtc://', sdp: PUBLISH },
  };
  for (const [what, body] of Object.entries(attempts)) {
    const answer = await json('POST', at('/rtc/v1/publish/'), body);
    assert.ok(Number.isInteger(answer.code) && answer.code !== 0, `${what}: ${JSON.stringify(answer).slice(0, 200)}`);
  }
});

srs('json that is no JSON is refused with a code', 'SRS 4 to 7', async t => {
  const answer = await send('POST', urls(t).at('/rtc/v1/play/'), { headers: { 'content-type': 'application/json' }, body: '{"sdp":' });
  assert.ok(answer.status === 200 ? JSON.parse(answer.body).code !== 0 : answer.status === 400, `${answer.status} ${answer.body}`);
});

srs('/api/v1/versions has the version in parts', 'SRS 4 to 7', async t => {
  const { code, data } = await json('GET', urls(t).at('/api/v1/versions'));
  assert.equal(code, 0);
  for (const part of ['major', 'minor', 'revision']) assert.equal(typeof data[part], 'number', part);
  assert.equal(typeof data.version, 'string');
});

srs('/api/v1/streams/ and /api/v1/clients/ list a publisher', 'SRS 4 to 7', async t => {
  const { at, name, whip } = urls(t);
  await t.open(whip, PUBLISH);
  const streams = await json('GET', at('/api/v1/streams/?count=10000'));
  for (const field of ['server', 'service', 'pid']) assert.equal(typeof streams[field], 'string', field);
  const stream = streams.streams.find(one => one.name === name);
  assert.ok(stream, 'the stream is listed');
  assert.deepEqual([stream.app, stream.url], ['live', `/live/${name}`]);
  for (const field of ['id', 'vhost', 'live_ms', 'clients', 'frames', 'send_bytes', 'recv_bytes', 'kbps', 'publish']) assert.ok(field in stream, `stream.${field}`);
  const { clients } = await json('GET', at('/api/v1/clients/?count=10000'));
  const client = clients.find(one => one.name === name);
  assert.ok(client, 'the client is listed');
  assert.deepEqual([client.type, client.publish, client.url], ['rtc-publish', true, `/live/${name}`]);
  assert.equal((await json('GET', at(`/api/v1/streams/${stream.id}`))).stream.name, name);
  assert.equal((await json('GET', at(`/api/v1/clients/${client.id}`))).client.name, name);
});

srs('an unknown stream or client has its code', 'SRS 4 to 7: 2048, 2049', async t => {
  const { at } = urls(t);
  assert.equal(JSON.parse((await send('GET', at('/api/v1/streams/vid-nothing'))).body).code, 2048);
  assert.equal(JSON.parse((await send('GET', at('/api/v1/clients/nothing'))).body).code, 2049);
});

srs('DELETE of a client ends its session', 'SRS 4 to 7: kick-off', async t => {
  const { at, name, whip } = urls(t);
  const { session } = await t.open(whip, PUBLISH);
  await kick(at, name);
  assert.equal((await send('DELETE', session)).status, 404);
  await t.open(whip, PUBLISH);
});

srs('an API without a page of its own origin has CORS', 'SRS crossdomain on', async t => {
  const answer = await send('GET', urls(t).at('/api/v1/versions'), { headers: { origin: 'https://page.example' } });
  assert.equal(answer.headers['access-control-allow-origin'], '*');
});

srs('the WHIP address has CORS and Accept-Post', 'SRS 4 to 7', async t => {
  const answer = await send('OPTIONS', urls(t).whip, { headers: { ...SDP, origin: 'https://page.example', 'access-control-request-method': 'POST' } });
  assert.ok([200, 204].includes(answer.status));
  assert.match(answer.headers['accept-post'] ?? '', /application\/sdp/);
  assert.equal(answer.headers['access-control-allow-origin'], '*');
});

srs('/healthz and /metrics answer', 'operation', async t => {
  const { at } = urls(t);
  assert.equal((await send('GET', at('/healthz'))).status, 200);
  const metrics = await send('GET', at('/metrics'));
  assert.equal(metrics.status, 200);
  assert.match(metrics.body, /^# TYPE freshet_\w+ (counter|gauge)/m);
});
