// The endpoints as HTTP resources: methods, types, sizes, CORS (RFC 9110, RFC 9725 §4.2, Fetch standard).
import assert from 'node:assert/strict';
import { send } from '../lib/http.mjs';
import { SDP, assertProblem, fixture, test } from '../lib/suite.mjs';

const OFFER = { whip: fixture('chromium-publish-vp8'), whep: fixture('chromium-play') };
const EXPOSED = ['location', 'etag', 'link', 'accept-patch', 'retry-after'];

function assertReadableByPages(response) {
  assert.equal(response.headers['access-control-allow-origin'], '*');
  const exposed = (response.headers['access-control-expose-headers'] ?? '').toLowerCase();
  for (const header of EXPOSED) assert.ok(exposed.includes(header), `Access-Control-Expose-Headers lacks ${header}: ${exposed}`);
}

for (const role of ['whip', 'whep']) {
  // The stream exists for viewers, and is free for publishers.
  const endpoint = async t => {
    const stream = t.stream();
    if (role === 'whep') await t.open(stream.whip, OFFER.whip);
    return stream[role];
  };

  test(`${role}: OPTIONS tell what may be posted and by whom`, 'RFC 9725 §4.2, Fetch standard', async t => {
    const answer = await send('OPTIONS', t.stream()[role], { headers: { origin: 'https://page.example', 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type,authorization' } });
    assert.ok([200, 204].includes(answer.status), `status ${answer.status}`);
    assert.match(answer.headers['accept-post'] ?? '', /application\/sdp/);
    assert.equal(answer.headers['access-control-allow-origin'], '*');
    assert.ok(answer.headers['access-control-allow-methods']?.includes('POST'), answer.headers['access-control-allow-methods']);
    for (const header of ['content-type', 'authorization']) assert.ok(answer.headers['access-control-allow-headers']?.toLowerCase().includes(header), header);
  });

  test(`${role}: GET and HEAD of the endpoint are a success without content`, 'RFC 9725 §4.2', async t => {
    for (const method of ['GET', 'HEAD']) {
      const answer = await send(method, t.stream()[role]);
      assert.ok(answer.status >= 200 && answer.status < 300, `${method}: ${answer.status}`);
      assert.equal(answer.body, '');
    }
  });

  test(`${role}: PUT and DELETE of the endpoint get 405 with Allow`, 'RFC 9110 §15.5.6', async t => {
    for (const method of ['PUT', 'DELETE']) {
      const answer = await send(method, t.stream()[role], { headers: SDP, body: OFFER[role] });
      assertProblem(answer, 405);
      assert.match(answer.headers.allow ?? '', /POST/);
    }
  });

  test(`${role}: an offer of another type gets 415`, 'RFC 9725 §4.2', async t => {
    assertProblem(await t.post(await endpoint(t), JSON.stringify({ type: 'offer', sdp: OFFER[role] }), { 'content-type': 'application/json' }), 415);
  });

  test(`${role}: parameters of the media type are ignored`, 'RFC 9110 §8.3.1', async t => {
    await t.open(await endpoint(t), OFFER[role], { 'content-type': 'Application/SDP; charset=utf-8' });
  });

  test(`${role}: an offer of 1 MB gets 413`, 'RFC 9110 §15.5.14', async t => {
    assertProblem(await t.post(await endpoint(t), OFFER[role] + 'a=x-padding\r\n'.repeat(80_000)), 413);
  });

  test(`${role}: a body that is not SDP gets 400`, 'RFC 9725 §4.2', async t => {
    assertProblem(await t.post(await endpoint(t), 'v=0 or not v=0'), 400);
  });

  test(`${role}: a trailing slash changes nothing`, 'both spellings are in use', async t => {
    const url = new URL(await endpoint(t));
    url.pathname = url.pathname.endsWith('/') ? url.pathname.slice(0, -1) : `${url.pathname}/`;
    await t.open(url.href, OFFER[role]);
  });

  test(`${role}: a stream name may be percent-encoded text`, 'RFC 3986 §2.1', async t => {
    const { whip, whep } = t.stream();
    const name = url => `${url}-%C3%A9t%C3%A9%20%2B`;
    await t.open(name(whip), OFFER.whip);
    if (role === 'whep') await t.open(name(whep), OFFER.whep);
  });

  test(`${role}: pages of other origins can read a success`, 'Fetch standard', async t => {
    assertReadableByPages(await t.open(await endpoint(t), OFFER[role], { ...SDP, origin: 'https://page.example' }));
  });

  test(`${role}: pages of other origins can read an error`, 'Fetch standard', async t => {
    const answer = await t.post(await endpoint(t), 'nonsense', { ...SDP, origin: 'https://page.example' });
    assertProblem(answer, 400);
    assertReadableByPages(answer);
  });
}

test('http: an unknown session gets 404 for every method', 'RFC 9110 §15.5.5', async t => {
  const { session } = await t.open(t.stream().whip, OFFER.whip);
  const unknown = session.replace(/.{6}$/, 'zzzzzz');
  for (const method of ['DELETE', 'GET']) assertProblem(await send(method, unknown), 404);
});

test('http: HEAD of an unknown session gets 404', 'RFC 9110 §9.3.2', async t => {
  const { session } = await t.open(t.stream().whip, OFFER.whip);
  assert.equal((await send('HEAD', session.replace(/.{6}$/, 'zzzzzz'))).status, 404);
});

test('http: an endpoint without a stream name is refused', 'a stream has a name', async t => {
  const url = new URL(t.stream().whip);
  if (!url.search) assertProblem(await t.post(new URL('/whip/', url).href, OFFER.whip), 400, 404);
});

test('http: hostile stream names are refused or taken as they are, and never a 5xx', 'robustness', async t => {
  const url = new URL(t.stream().whip);
  const parent = url.pathname.slice(0, url.pathname.lastIndexOf('/') + 1);
  for (const name of ['%00', '%ff%fe', '%2e%2e%2f%2e%2e', '..%2fetc', 'a%0d%0ab', '%', 'a'.repeat(5000), '*']) {
    const answer = await t.post(`${url.origin}${parent}${name}`, OFFER.whip);
    assert.ok(answer.status === 201 || (answer.status >= 400 && answer.status < 500), `${name.slice(0, 20)}: ${answer.status}`);
  }
});
