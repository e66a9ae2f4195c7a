// What happens to viewers when publishers come and go, and simulcast.
import assert from 'node:assert/strict';
import { assertPicture, figures } from '../lib/expect.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const setup = extra => async cleanup => {
  const server = await startServer({ extra });
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  return { server, browsers, tidy: () => browsers.tidy() };
};

async function seenFor(player, seconds) {
  const since = Date.now();
  await sleep(seconds * 1000);
  return player.measure(since);
}

group('sessions', setup(''), [
  test('a viewer survives its publisher leaving and another coming', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('republish');
    const publisher = await browsers.publish(whip, { codec: 'h264' });
    const player = await browsers.play(whep);
    assertPicture(await seenFor(player, 3), 3);
    await publisher.close();
    await sleep(2000);
    const next = await browsers.publish(whip, { codec: 'h264' });
    const began = Date.now();
    const before = await player.call('painted');
    await until('a frame of the second publisher', 3000, async () => (await player.call('painted')) > before);
    const resumed = Date.now() - began;
    await sleep(1500);
    const seen = await seenFor(player, 4);
    assertPicture(seen, 4);
    assert.equal(seen.state, 'connected');
    await player.close();
    await next.close();
    return `painted ${resumed} ms after the second publisher was connected, ${figures(seen)}`;
  }),
  test('a viewer that comes before the publisher starts by itself', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('early');
    const player = await browsers.play(whep, { mayStarve: true });
    await sleep(1000);
    const publisher = await browsers.publish(whip);
    await until('a painted frame', 5000, () => player.call('painted'));
    const seen = await seenFor(player, 4);
    assertPicture(seen, 4);
    await player.close();
    await publisher.close();
    return figures(seen);
  }),
  test('three viewers see the same stream, and one more starts at once', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('several');
    const publisher = await browsers.publish(whip, { codec: 'vp8', width: 320, height: 240 });
    const players = [];
    for (let i = 0; i < 3; i++) players.push(await browsers.play(whep, { listen: false }));
    await sleep(2000);
    const late = await browsers.play(whep, { listen: false });
    const first = (await late.measure()).firstFrameMs;
    for (const player of players) assertPicture(await player.measure(Date.now() - 1500), 1.5, { fps: 20 });
    assert.ok(first < 3000, `first frame painted after ${first} ms`);
    for (const player of [...players, late]) await player.close();
    await publisher.close();
    return `first frame ${first} ms after the request`;
  }),
  test('simulcast: the best layer that arrives is shown', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('simulcast');
    const publisher = await browsers.publish(whip, { codec: 'vp8', simulcast: true, width: 1280, height: 720 });
    const player = await browsers.play(whep);
    const sent = async () => {
      const { streams, uplinkBps } = await publisher.call('stats');
      return `${streams.filter(one => one.kind === 'video').map(one => `${one.rid} ${one.packetsSent} ${one.qualityLimitationReason}`)}, estimate ${Math.round(uplinkBps / 1000)} kbit/s`;
    };
    await until('the full size', 30_000, async () => (await player.measure()).size === '1280x720').catch(async error => {
      throw new Error(`${error.message}; shown ${(await player.measure()).size}, packets sent per layer: ${await sent()}`);
    });
    await sleep(1000);
    const seen = await seenFor(player, 4);
    assertPicture(seen, 4, { size: '1280x720' });
    const { streams } = await publisher.call('stats');
    const rids = streams.filter(one => one.kind === 'video' && one.packetsSent > 50).map(one => one.rid).sort();
    assert.deepEqual(rids, ['f', 'h', 'q'], 'all three layers are sent');
    await player.close();
    await publisher.close();
    return figures(seen);
  }),
  test('DELETE by the publisher is noticed in the lists', 30, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls('listed').whip);
    const listed = async () => (await server.api('/api/v1/streams/?count=1000')).streams.some(one => one.name === 'listed' && one.publish.active);
    await until('listed', 3000, listed);
    await publisher.close();
    await until('no longer listed', 3000, async () => !(await listed()));
  }),
  test('a browser that vanishes frees its stream within the timeout', 40, async ({ server, browsers }) => {
    const { whip } = server.urls('vanished');
    const publisher = await browsers.publish(whip);
    await publisher.page.close();
    const began = Date.now();
    const busy = async () => (await server.api('/api/v1/clients/?count=1000')).clients.some(one => one.name === 'vanished');
    await until('the session is gone', 20_000, async () => !(await busy()));
    return `${((Date.now() - began) / 1000).toFixed(1)} s`;
  }),
  test('a client with another certificate than its offer says gets no media', 30, async ({ server, browsers }) => {
    const { whip } = server.urls('impostor');
    const publisher = await browsers.publish(whip, { wrongFingerprint: true });
    await sleep(5000);
    assert.notEqual(await publisher.call('state'), 'connected');
    const stream = (await server.api('/api/v1/streams/?count=1000')).streams.find(one => one.name === 'impostor');
    assert.ok(!stream || stream.frames === 0, 'no frame of it was taken');
    await publisher.close();
  }),
]);

group('takeover', setup('[publish]\ntakeover = "replace"\n'), [
  test('replace: the second publisher takes the stream, viewers stay', 60, async ({ server, browsers }) => {
    const { whip, whep } = server.urls('taken');
    const first = await browsers.publish(whip, { codec: 'vp8' });
    const player = await browsers.play(whep);
    await sleep(1000);
    const second = await browsers.publish(whip, { codec: 'vp8' });
    await sleep(2000);
    const seen = await seenFor(player, 4);
    assertPicture(seen, 4);
    await until('the first is told that it is over', 5000, async () => (await first.call('dtls')) === 'closed');
    await player.close();
    await second.close();
    return figures(seen);
  }),
]);
