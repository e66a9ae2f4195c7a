// Chromium to Chromium through the server: every video codec, measured picture and sound.
import assert from 'node:assert/strict';
import { assertLipSync, assertPicture, assertSound, figures } from '../lib/expect.mjs';
import { Browsers, sleep } from '../lib/peers.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const SECONDS = 8;

async function setup(cleanup) {
  const server = await startServer();
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  return { server, browsers, tidy: () => browsers.tidy() };
}

async function exchange({ server, browsers }, name, config) {
  const { whip, whep } = server.urls(name);
  const publisher = await browsers.publish(whip, config);
  const player = await browsers.play(whep, config);
  await sleep(2000);
  const since = Date.now();
  await sleep(SECONDS * 1000);
  const seen = await player.measure(since);
  assert.equal(await player.close(), 200, 'DELETE of the player');
  assert.equal(await publisher.close(), 200, 'DELETE of the publisher');
  return seen;
}

const codec = name => test(`${name} with Opus, picture and sound`, 60, async context => {
  const seen = await exchange(context, name, { codec: name });
  assert.equal(seen.codec, name);
  // Chromium's AV1 encoder leaves the stamp's cells half-way between black and white in up to one frame of ten.
  assertPicture(seen, SECONDS, { size: '640x480', unreadable: name === 'av1' ? 0.15 : 0.02 });
  assertSound(seen, SECONDS);
  assertLipSync(seen);
  return figures(seen);
});

group('chromium', setup, [
  codec('h264'),
  codec('vp8'),
  codec('vp9'),
  codec('av1'),
  test('whatever the browser offers first', 60, async context => {
    const seen = await exchange(context, 'default', {});
    assertPicture(seen, SECONDS);
    return `${seen.codec}, ${figures(seen)}`;
  }),
  test('sound only', 60, async context => {
    const seen = await exchange(context, 'sound', { video: false });
    assertSound(seen, SECONDS);
    return `${seen.beeps} beeps, tone ${seen.tone} Hz`;
  }),
  test('picture only', 60, async context => {
    const seen = await exchange(context, 'picture', { audio: false });
    assertPicture(seen, SECONDS);
    return figures(seen);
  }),
  test('1280x720', 60, async context => {
    const seen = await exchange(context, 'large', { codec: 'h264', width: 1280, height: 720 });
    assertPicture(seen, SECONDS);
    return figures(seen);
  }),
  test('media over ICE-TCP alone', 60, async context => {
    const seen = await exchange(context, 'tcp', { tcpOnly: true });
    assert.equal(seen.protocol, 'tcp');
    assertPicture(seen, SECONDS);
    return figures(seen);
  }),
]);
