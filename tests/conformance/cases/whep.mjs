// WHEP (draft-ietf-wish-whep): what a viewer's POST is answered with, and when it is refused.
import assert from 'node:assert/strict';
import { assertAgrees, codecs, parse } from '../lib/sdp.mjs';
import { SDP, assertProblem, fixture, test } from '../lib/suite.mjs';

const PLAY = fixture('chromium-play');
const video = sdp => codecs(parse(sdp).media.find(section => section.kind === 'video'));

async function published(t, offer = 'chromium-publish-vp8') {
  const stream = t.stream();
  return { ...stream, answer: await t.open(stream.whip, fixture(offer)) };
}

test('whep: an offer is answered 201 with all that a session needs', 'draft-ietf-wish-whep §4.2', async t => {
  const { whep } = await published(t);
  const answer = await t.open(whep, PLAY);
  assert.match(answer.headers['content-type'], /^application\/sdp\b/);
  assert.match(answer.headers.etag ?? '', /^"[^"]+"$/);
  assert.match(answer.headers['accept-patch'] ?? '', /application\/trickle-ice-sdpfrag/);
});

test('whep: the answer agrees with the offer and sends', 'RFC 3264 §6', async t => {
  const { whep } = await published(t);
  const answer = assertAgrees(PLAY, (await t.open(whep, PLAY)).body);
  for (const section of answer.media) assert.ok(section.lines.includes('a=sendonly'), `${section.kind} is sendonly`);
});

for (const codec of ['h264', 'vp8', 'vp9', 'av1']) {
  test(`whep: a ${codec} stream is answered with ${codec}`, 'negotiated from the offers, without query parameters', async t => {
    const { whep, answer } = await published(t, `chromium-publish-${codec}`);
    assert.ok([...video(answer.body).values()].includes(codec), 'the publisher was answered with it');
    assert.ok([...video((await t.open(whep, PLAY)).body).values()].includes(codec), 'the viewer was answered with it');
  });
}

test('whep: a viewer is told the payload types of its own offer', 'RFC 3264 §5.1', async t => {
  const { whep } = await published(t, 'obs-publish');
  assertAgrees(PLAY, (await t.open(whep, PLAY)).body);
});

test('whep: retransmission is answered where it is offered', 'RFC 4588', async t => {
  const { whep } = await published(t);
  assert.ok([...video((await t.open(whep, PLAY)).body).values()].includes('rtx'));
});

test('whep: a viewer without a common video codec gets 406 that names both sides', 'draft-ietf-wish-whep §4.2', async t => {
  const { whep } = await published(t, 'chromium-publish-vp8');
  const problem = assertProblem(await t.post(whep, fixture('chromium-play-h264')), 406);
  assert.match(problem.type, /codec-mismatch$/);
  assert.match(problem.detail, /vp8/i);
  assert.match(problem.detail, /h\.?264/i);
});

test('whep: after a 406 an offer that fits is answered', 'a refused request reserves nothing', async t => {
  const { whep } = await published(t, 'chromium-publish-vp8');
  await t.post(whep, fixture('chromium-play-av1'));
  await t.open(whep, fixture('chromium-play-vp8'));
});

test('whep: sound only, picture only and a data channel', 'RFC 3264 §6', async t => {
  const { whep } = await published(t);
  for (const name of ['chromium-play-audio-only', 'chromium-play-video-only', 'chromium-play-data']) {
    const offer = fixture(name);
    assertAgrees(offer, (await t.open(whep, offer)).body);
  }
});

test('whep: of a stream without video, the picture is refused or silent and the sound plays', 'RFC 3264 §6', async t => {
  const { whep } = await published(t, 'chromium-publish-audio-only');
  const answer = parse((await t.open(whep, PLAY)).body);
  assert.ok(answer.media[0].port !== 0 && answer.media[0].lines.includes('a=sendonly'));
});

test('whep: many viewers of one stream', 'one publisher, any number of viewers', async t => {
  const { whep } = await published(t);
  const sessions = new Set();
  for (let i = 0; i < 20; i++) sessions.add((await t.open(whep, PLAY)).session);
  assert.equal(sessions.size, 20);
});

test('whep: play before publish is answered 201, or refused with Retry-After', 'draft-ietf-wish-whep §4.2', async t => {
  const { whep } = t.stream();
  const answer = await t.post(whep, PLAY);
  if (answer.status === 201) {
    assertAgrees(PLAY, answer.body);
    return;
  }
  assertProblem(answer, 404, 409);
  assert.match(answer.headers['retry-after'] ?? '', /^\d+$/);
});

test('whep: an offer that only sends is refused', 'draft-ietf-wish-whep §4.2', async t => {
  const { whep } = await published(t);
  assertProblem(await t.post(whep, fixture('chromium-publish-vp8')), 400);
});

test('whep: a bearer token is accepted where none is asked for', 'RFC 6750 §2.1', async t => {
  const { whep } = await published(t);
  await t.open(whep, PLAY, { ...SDP, authorization: 'Bearer 0123456789' });
});
