// Every recorded offer is answered, and the answer agrees with it; every malformed one is refused with a reason.
import assert from 'node:assert/strict';
import { send } from '../lib/http.mjs';
import { assertAgrees, codecs, isOffered, parse } from '../lib/sdp.mjs';
import { SDP, assertProblem, fixture, fixtures, rawFixture, test } from '../lib/suite.mjs';

/** The publisher whose stream a player of that offer can show. */
function publisherFor(play) {
  const names = parse(play).media.flatMap(section => [...codecs(section).values()]);
  const video = ['h264', 'vp8', 'vp9', 'av1'].find(codec => names.includes(codec));
  if (!video && !names.includes('opus')) return fixture('g711-publish');
  return fixture(`chromium-publish-${video ?? 'h264'}`);
}

for (const name of fixtures('-publish')) {
  test(`offer ${name}: is answered as a publisher`, 'the answer agrees with the offer', async t => {
    const offer = fixture(name);
    const answer = assertAgrees(offer, (await t.open(t.stream().whip, offer)).body);
    const asked = parse(offer).media.filter(section => isOffered(section) && section.kind === 'audio').length;
    assert.equal(answer.media.filter(section => section.kind === 'audio' && section.port !== 0).length, asked, 'all sound that is offered is accepted');
  });
}

for (const name of fixtures('-play')) {
  test(`offer ${name}: is answered as a player`, 'the answer agrees with the offer', async t => {
    const { whip, whep } = t.stream();
    const offer = fixture(name);
    await t.open(whip, publisherFor(offer));
    const answer = assertAgrees(offer, (await t.open(whep, offer)).body);
    const refused = answer.media.filter(section => section.kind !== 'application' && section.port === 0);
    assert.deepEqual(refused.map(section => section.kind), [], 'sound and picture are both accepted');
  });
}

for (const name of fixtures('', 'bad')) {
  test(`offer ${name}: is refused with a 4xx and a reason`, 'RFC 9725 §4.2, RFC 9457', async t => {
    const live = t.stream();
    await t.open(live.whip, fixture('chromium-publish-vp8'));
    for (const url of [t.stream().whip, live.whep]) {
      const answer = await send('POST', url, { headers: SDP, body: rawFixture(name) });
      if (answer.headers.location) t.opened.push(new URL(answer.headers.location, url).href);
      assert.ok(answer.status >= 400 && answer.status < 500, `POST ${new URL(url).pathname}: ${answer.status}`);
      assertProblem(answer, answer.status);
    }
  });
}
