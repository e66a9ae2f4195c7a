// The session resource, the same for WHIP and WHEP: trickle, ICE restart, DELETE (RFC 9725 §4.3, RFC 8840).
import assert from 'node:assert/strict';
import { send } from '../lib/http.mjs';
import { parse, value, values } from '../lib/sdp.mjs';
import { FRAGMENT, assertProblem, fixture, test } from '../lib/suite.mjs';

const CANDIDATE = 'a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1';
const NEW_UFRAG = 'q8Zf';
const NEW_PWD = 'P2uYro0UCOQ4zxjKXaWCBui1';

/** A fragment that trickles one candidate to the first m-line of that offer. */
function trickle(offer, lines = [CANDIDATE]) {
  const description = parse(offer);
  const first = description.media[0];
  const credentials = [`a=ice-ufrag:${value(description, first, 'ice-ufrag')}`, `a=ice-pwd:${value(description, first, 'ice-pwd')}`];
  return fragment(offer, credentials, lines);
}

function fragment(offer, credentials, lines = []) {
  const first = parse(offer).media[0];
  const group = parse(offer).session.filter(line => line.startsWith('a=group:BUNDLE'));
  return [...group, ...credentials, `m=${first.kind} 9 UDP/TLS/RTP/SAVPF 0`, `a=mid:${values(first.lines, 'mid')[0]}`, ...lines, ''].join('\r\n');
}

const restart = offer => fragment(offer, [`a=ice-ufrag:${NEW_UFRAG}`, `a=ice-pwd:${NEW_PWD}`]);
const patch = (session, ifMatch, body, headers = FRAGMENT) =>
  send('PATCH', session, { headers: { ...headers, ...(ifMatch ? { 'if-match': ifMatch } : {}) }, body });

async function openPublisher(t) {
  const offer = fixture('chromium-publish-vp8');
  return { offer, opened: await t.open(t.stream().whip, offer) };
}

async function openPlayer(t) {
  const { whip, whep } = t.stream();
  await t.open(whip, fixture('chromium-publish-vp8'));
  const offer = fixture('chromium-play');
  return { offer, opened: await t.open(whep, offer) };
}

for (const [role, open] of [['whip', openPublisher], ['whep', openPlayer]]) {
  test(`${role}: trickled candidates are taken with 204`, 'RFC 9725 §4.3.1.1', async t => {
    const { offer, opened } = await open(t);
    const answer = await patch(opened.session, opened.headers.etag, trickle(offer));
    assert.equal(answer.status, 204, answer.body);
    assert.equal(answer.body, '');
  });

  test(`${role}: end-of-candidates is taken with 204`, 'RFC 8840 §8.2', async t => {
    const { offer, opened } = await open(t);
    assert.equal((await patch(opened.session, opened.headers.etag, trickle(offer, ['a=end-of-candidates']))).status, 204);
  });

  test(`${role}: a candidate with an mDNS name does no harm`, 'draft-ietf-mmusic-mdns-ice-candidates', async t => {
    const { offer, opened } = await open(t);
    const named = CANDIDATE.replace('192.0.2.1', '4f2c8a10-9d4e-4b77-8c5e-0d9f6a1b2c3d.local');
    assert.equal((await patch(opened.session, opened.headers.etag, trickle(offer, [named]))).status, 204);
  });

  test(`${role}: a PATCH without If-Match gets 428`, 'RFC 9725 §4.3.1, RFC 6585 §3', async t => {
    const { offer, opened } = await open(t);
    assertProblem(await patch(opened.session, undefined, trickle(offer)), 428);
  });

  test(`${role}: a PATCH with a stale If-Match gets 412`, 'RFC 9725 §4.3.1', async t => {
    const { offer, opened } = await open(t);
    assertProblem(await patch(opened.session, '"stale"', trickle(offer)), 412);
  });

  test(`${role}: an ICE restart gets 200, a new ETag and new credentials`, 'RFC 9725 §4.3.1.2', async t => {
    const { offer, opened } = await open(t);
    const answer = await patch(opened.session, '*', restart(offer));
    assert.equal(answer.status, 200, answer.body);
    assert.match(answer.headers['content-type'] ?? '', /^application\/trickle-ice-sdpfrag\b/);
    assert.match(answer.headers.etag ?? '', /^"[^"]+"$/);
    assert.notEqual(answer.headers.etag, opened.headers.etag);
    const before = parse(opened.body);
    const after = answer.body.split(/\r?\n/);
    for (const name of ['ice-ufrag', 'ice-pwd']) {
      assert.ok(values(after, name)[0], `the fragment has ${name}`);
      assert.notEqual(values(after, name)[0], value(before, before.media[0], name), `${name} is new`);
    }
  });

  test(`${role}: after an ICE restart the old ETag is stale and the new one counts`, 'RFC 9725 §4.3.1.2', async t => {
    const { offer, opened } = await open(t);
    const { headers } = await patch(opened.session, '*', restart(offer));
    const late = fragment(offer, [`a=ice-ufrag:${NEW_UFRAG}`, `a=ice-pwd:${NEW_PWD}`], [CANDIDATE]);
    assertProblem(await patch(opened.session, opened.headers.etag, late), 412);
    assert.equal((await patch(opened.session, headers.etag, late)).status, 204);
  });

  test(`${role}: a failed ICE restart leaves the session as it was`, 'RFC 9725 §4.3.1.2', async t => {
    const { offer, opened } = await open(t);
    const short = fragment(offer, [`a=ice-ufrag:${NEW_UFRAG}`, 'a=ice-pwd:short']);
    assertProblem(await patch(opened.session, '*', short), 400);
    assert.equal((await patch(opened.session, opened.headers.etag, trickle(offer))).status, 204);
  });

  test(`${role}: a malformed fragment gets 400 and leaves the session`, 'RFC 9725 §4.3.1', async t => {
    const { offer, opened } = await open(t);
    for (const body of ['', 'not a fragment', '\0\0\0\0', 'a=ice-ufrag:\r\na=ice-pwd:\r\n']) {
      assertProblem(await patch(opened.session, opened.headers.etag, body), 400);
    }
    assert.equal((await patch(opened.session, opened.headers.etag, trickle(offer))).status, 204);
  });

  test(`${role}: a PATCH of another type gets 415`, 'RFC 5789 §2.2', async t => {
    const { opened } = await open(t);
    assertProblem(await patch(opened.session, opened.headers.etag, '{}', { 'content-type': 'application/json' }), 415);
  });

  test(`${role}: a PATCH of 1 MB gets 413`, 'RFC 9110 §15.5.14', async t => {
    const { opened } = await open(t);
    assertProblem(await patch(opened.session, opened.headers.etag, 'a=x\r\n'.repeat(200_000)), 413);
  });

  test(`${role}: DELETE gets 200, a second one 404`, 'RFC 9725 §4.2', async t => {
    const { opened } = await open(t);
    assert.equal((await send('DELETE', opened.session)).status, 200);
    assertProblem(await send('DELETE', opened.session), 404);
  });

  test(`${role}: a PATCH after DELETE gets 404`, 'RFC 9725 §4.3', async t => {
    const { offer, opened } = await open(t);
    await send('DELETE', opened.session);
    assertProblem(await patch(opened.session, opened.headers.etag, trickle(offer)), 404);
  });

  test(`${role}: GET and HEAD of a session are a success without content`, 'RFC 9725 §4.2', async t => {
    const { opened } = await open(t);
    for (const method of ['GET', 'HEAD']) {
      const answer = await send(method, opened.session);
      assert.ok(answer.status >= 200 && answer.status < 300, `${method}: ${answer.status}`);
      assert.equal(answer.body, '');
    }
  });

  test(`${role}: POST and PUT to a session get 405 with Allow`, 'RFC 9725 §4.2, RFC 9110 §15.5.6', async t => {
    const { offer, opened } = await open(t);
    for (const method of ['POST', 'PUT']) {
      const answer = await send(method, opened.session, { headers: { 'content-type': 'application/sdp' }, body: offer });
      assertProblem(answer, 405);
      assert.match(answer.headers.allow ?? '', /PATCH/);
      assert.match(answer.headers.allow ?? '', /DELETE/);
    }
  });

  test(`${role}: OPTIONS of a session allow PATCH and DELETE to a page`, 'Fetch standard, CORS preflight', async t => {
    const { opened } = await open(t);
    const answer = await send('OPTIONS', opened.session, { headers: { origin: 'https://page.example', 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'content-type,if-match,authorization' } });
    assert.ok([200, 204].includes(answer.status), `status ${answer.status}`);
    for (const method of ['PATCH', 'DELETE']) assert.ok(answer.headers['access-control-allow-methods']?.includes(method), method);
    for (const header of ['content-type', 'if-match', 'authorization']) assert.ok(answer.headers['access-control-allow-headers']?.toLowerCase().includes(header), header);
  });
}
