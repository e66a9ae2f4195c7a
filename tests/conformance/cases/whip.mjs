// WHIP (RFC 9725): what a publisher's POST is answered with, and when it is refused.
import assert from 'node:assert/strict';
import { send } from '../lib/http.mjs';
import { assertAgrees, parse, value, values } from '../lib/sdp.mjs';
import { SDP, assertProblem, fixture, test } from '../lib/suite.mjs';

const CAMERA = fixture('chromium-publish-camera');

test('whip: an offer is answered 201 with application/sdp', 'RFC 9725 §4.2', async t => {
  const answer = await t.open(t.stream().whip, CAMERA);
  assert.match(answer.headers['content-type'], /^application\/sdp\b/);
});

test('whip: Location names a session that is not the endpoint', 'RFC 9725 §4.2', async t => {
  const { whip } = t.stream();
  const answer = await t.open(whip, CAMERA);
  assert.notEqual(answer.session.split('?')[0], whip.split('?')[0]);
  assert.ok(!answer.headers.location.includes(t.options.whip), 'a relative Location survives every proxy');
});

test('whip: two sessions have two Locations', 'RFC 9725 §4.2: the session URL is unique', async t => {
  const [one, two] = [await t.open(t.stream().whip, CAMERA), await t.open(t.stream().whip, CAMERA)];
  assert.notEqual(one.session, two.session);
  assert.ok(new URL(one.session).pathname.split('/').at(-1).length >= 20, 'a session URL cannot be guessed');
});

test('whip: a strong ETag identifies the ICE session', 'RFC 9725 §4.3.1', async t => {
  assert.match((await t.open(t.stream().whip, CAMERA)).headers.etag ?? '', /^"[^"]+"$/);
});

test('whip: Accept-Patch names the trickle fragment', 'RFC 9725 §4.3.1, RFC 5789 §3.1', async t => {
  assert.match((await t.open(t.stream().whip, CAMERA)).headers['accept-patch'] ?? '', /application\/trickle-ice-sdpfrag/);
});

test('whip: the answer agrees with the offer', 'RFC 3264 §6, RFC 9429 §5.3', async t => {
  assertAgrees(CAMERA, (await t.open(t.stream().whip, CAMERA)).body);
});

test('whip: the answer holds whole candidates and end-of-candidates', 'RFC 8839 §5.1, RFC 8840 §8.2', async t => {
  const answer = parse((await t.open(t.stream().whip, CAMERA)).body);
  const lines = answer.media[0].lines;
  const candidates = values(lines, 'candidate').map(line => line.split(' '));
  assert.ok(candidates.some(([, component, protocol]) => component === '1' && protocol.toLowerCase() === 'udp'), 'a UDP candidate');
  for (const [foundation, , protocol, priority, address, port, typ, type, ...rest] of candidates) {
    assert.match(foundation, /^[A-Za-z0-9+/]{1,32}$/);
    assert.ok(priority > 0 && priority < 2 ** 32 && port > 0 && port < 65536 && address.length, 'numbers in range');
    assert.deepEqual([typ, type], ['typ', 'host']);
    if (protocol.toLowerCase() === 'tcp') assert.deepEqual(rest.slice(0, 2), ['tcptype', 'passive'], 'RFC 6544 §4.5');
  }
  const unique = new Set(candidates.map(candidate => candidate.slice(2).join(' ')));
  assert.equal(unique.size, candidates.length, 'no candidate twice');
  assert.ok(values([...answer.session, ...lines], 'end-of-candidates').length, 'end-of-candidates');
});

test('whip: the answer receives, and sends nothing', 'RFC 9725 §4.4', async t => {
  const answer = parse((await t.open(t.stream().whip, fixture('chromium-publish-sendrecv'))).body);
  for (const section of answer.media) assert.ok(section.lines.includes('a=recvonly'), `${section.kind} is recvonly`);
});

test('whip: an offer of setup:passive makes the server the DTLS client', 'RFC 8842 §5.3; FFmpeg', async t => {
  const answer = parse((await t.open(t.stream().whip, fixture('ffmpeg-publish'))).body);
  for (const section of answer.media) assert.equal(value(answer, section, 'setup'), 'active');
});

test('whip: simulcast layers are accepted with rid and simulcast', 'RFC 8853 §5.3', async t => {
  const offer = fixture('chromium-publish-simulcast');
  const answer = assertAgrees(offer, (await t.open(t.stream().whip, offer)).body);
  assert.deepEqual(values(answer.media[1].lines, 'rid'), ['q recv', 'h recv', 'f recv']);
});

test('whip: a data channel is refused with port 0 and the rest accepted', 'RFC 3264 §6', async t => {
  const offer = fixture('chromium-publish-data');
  const answer = assertAgrees(offer, (await t.open(t.stream().whip, offer)).body);
  assert.deepEqual(answer.media.map(section => section.port !== 0), [true, true, false]);
});

test('whip: a video codec nobody knows is refused: with port 0, or 406 that names it', 'RFC 3264 §6', async t => {
  const offer = fixture('unknown-video');
  const response = await t.post(t.stream().whip, offer);
  if (response.status !== 201) {
    assert.match(assertProblem(response, 406).detail, /theora/i);
    return;
  }
  const answer = assertAgrees(offer, response.body);
  assert.deepEqual(answer.media.map(section => section.port !== 0), [true, false]);
});

test('whip: transport-wide congestion control is accepted when offered', 'needed for a publisher to leave 300 kbit/s', async t => {
  const video = parse((await t.open(t.stream().whip, CAMERA)).body).media.find(section => section.kind === 'video');
  assert.ok(values(video.lines, 'extmap').some(line => line.includes('transport-wide-cc')), 'the header extension');
  assert.ok(values(video.lines, 'rtcp-fb').some(line => line.endsWith('transport-cc')), 'the feedback');
  assert.ok(values(video.lines, 'rtcp-fb').some(line => line.endsWith('nack')), 'nack');
  assert.ok(values(video.lines, 'rtcp-fb').some(line => line.endsWith('nack pli')), 'nack pli');
});

test('whip: a second publisher of a stream gets 409', 'one publisher per stream', async t => {
  const { whip } = t.stream();
  await t.open(whip, CAMERA);
  assert.match(assertProblem(await t.post(whip, fixture('obs-publish')), 409).type, /stream-busy$/);
});

test('whip: the stream is free as soon as its publisher is deleted', 'OBS stops and starts at once', async t => {
  const { whip } = t.stream();
  for (let i = 0; i < 5; i++) {
    const { session } = await t.open(whip, CAMERA);
    assert.equal((await send('DELETE', session)).status, 200);
  }
});

test('whip: a refused offer reserves nothing', 'check, then reserve, then answer', async t => {
  const { whip } = t.stream();
  assertProblem(await t.post(whip, fixture('bad/no-fingerprint')), 400);
  await t.open(whip, CAMERA);
});

test('whip: an offer that only receives is refused', 'RFC 9725 §4.4', async t => {
  assertProblem(await t.post(t.stream().whip, fixture('chromium-play')), 400);
});

test('whip: a bearer token is accepted where none is asked for', 'RFC 6750 §2.1', async t => {
  await t.open(t.stream().whip, CAMERA, { ...SDP, authorization: 'Bearer 0123456789' });
});
