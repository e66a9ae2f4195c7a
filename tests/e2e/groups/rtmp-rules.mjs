// Who may publish and play over RTMP, what clients are told, and how sessions end.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { AAC, BASELINE, endFfmpegs, ffmpeg, live, pull, push, streamOf } from '../lib/ffmpeg.mjs';
import { openHttp } from '../lib/flv.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { startServer, tests } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const OFFER = fs.readFileSync(path.join(tests, 'fixtures/offers/chromium-play.sdp'), 'utf8');
const PUBLISH_OFFER = fs.readFileSync(path.join(tests, 'fixtures/offers/obs-publish.sdp'), 'utf8');
const post = (url, body = OFFER) => fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body });
const SMALL = { size: '320x240' };

/** FFmpeg publishes to that URL, is refused or sent away, and prints why. */
async function assertSentAway(publisher, reason) {
  const { code, log } = await Promise.race([publisher.ended, sleep(20_000).then(() => assert.fail('the publisher was not sent away'))]);
  assert.notEqual(code, 0, `the publisher ended well: ${log}`);
  if (reason) assert.match(log, reason);
  return log;
}

/** FFmpeg plays that URL and is refused. */
async function assertPlayRefused(url, reason) {
  const { code, stderr } = await Promise.race([ffmpeg(['-i', url, '-f', 'null', '-']).ended, sleep(20_000).then(() => assert.fail(`${url}: the player was not refused`))]);
  assert.notEqual(code, 0, stderr);
  if (reason) assert.match(stderr, reason);
}

async function clientOf(server, name, role) {
  return (await server.api('/api/v1/clients/?count=1000')).clients.find(one => one.name === name && one.publish === (role === 'publish'));
}

group('rtmp rules', serverAndClients(''), [
  test('a second publisher is told that the stream is taken, the first goes on', 60, async ({ server }) => {
    const { rtmp, whip } = server.urls('busy');
    const first = push(rtmp, SMALL);
    await live(server, 'busy', first);
    const log = await assertSentAway(push(rtmp, SMALL), /publish/i);
    const refused = await post(whip, PUBLISH_OFFER);
    assert.equal(refused.status, 409);
    const problem = await refused.json();
    const seen = await pull(rtmp, { seconds: 3, warmup: 1 });
    assert.ok(seen.frames > 30, JSON.stringify(seen));
    assert.equal((await first.stop()).code, 0);
    return `FFmpeg: ${log.split('\n').find(line => /error/i.test(line))?.replace(/^\[[^\]]*\] /, '')}; WHIP: ${problem.detail}`;
  }),
  test('RTMP over a live WHIP publisher is refused', 60, async ({ server, browsers }) => {
    const { rtmp, whip } = server.urls('busy-whip');
    const publisher = await browsers.publish(whip);
    await assertSentAway(push(rtmp, SMALL), /publish/i);
    assert.equal(await publisher.call('state'), 'connected');
    await publisher.close();
  }),
  test('a browser that cannot play the codec of an RTMP stream is told so', 60, async ({ server }) => {
    const { rtmp, whep } = server.urls('hevc');
    const publisher = push(rtmp, { ...SMALL, newer: true, video: ['-c:v', 'libx265', '-preset', 'ultrafast', '-g', '60', '-x265-params', 'bframes=0:log-level=error'] });
    await live(server, 'hevc', publisher);
    const refused = await post(whep);
    assert.equal(refused.status, 406);
    const { detail, type } = await refused.json();
    assert.match(type, /codec-mismatch$/);
    assert.match(detail, /H265/);
    assert.equal((await publisher.stop()).code, 0);
  }),
  test('an operator ends a publisher and a player', 60, async ({ server }) => {
    const { rtmp, flv } = server.urls('kicked');
    const publisher = push(rtmp, SMALL);
    await live(server, 'kicked', publisher);
    const player = openHttp(flv);
    await until('the player is listed', 5000, () => clientOf(server, 'kicked', 'play'));
    const kick = async role => {
      const { id } = await clientOf(server, 'kicked', role);
      assert.equal((await (await fetch(`${server.local}/api/v1/clients/${id}`, { method: 'DELETE' })).json()).code, 0);
    };
    await kick('play');
    assert.equal(await Promise.race([player.done.then(() => 'over'), sleep(5000)]), 'over', 'the player’s file ends');
    await kick('publish');
    await assertSentAway(publisher);
    await until('the stream is over', 5000, async () => !(await streamOf(server, 'kicked'))?.publish.active);
  }),
  test('RTMPS on the port of HTTPS', 60, async ({ server }) => {
    const url = `${server.rtmps}/live/rtmps`;
    const publisher = ffmpeg([
      '-re', '-f', 'lavfi', '-i', 'testsrc2=size=320x240:rate=30', '-t', '12', ...BASELINE, '-tls_verify', '0', '-f', 'flv', url,
    ]);
    await live(server, 'rtmps', publisher, { audio: false });
    const player = ffmpeg(['-tls_verify', '0', '-i', url, '-t', '3', '-f', 'null', '-']);
    const { code, stderr } = await player.ended;
    assert.equal(code, 0, stderr);
    assert.equal((await publisher.ended).code, 0);
  }),
  test('RTMP on the port of HTTP', 60, async ({ server }) => {
    const url = `rtmp://${new URL(server.base).host}/live/any-port`;
    const publisher = push(url, SMALL);
    await live(server, 'any-port', publisher);
    assert.equal((await publisher.stop()).code, 0);
  }),
  test('addresses: depth, query and slashes', 60, async ({ server }) => {
    const base = `rtmp://${server.address}:${server.rtmpPort}`;
    for (const [address, key] of [
      ['live/plain?a=1&b=x/y', 'live/plain'],
      ['a/b/deep', 'a/b/deep'],
      ['live//slashes', 'live/slashes'],
    ]) {
      const publisher = push(`${base}/${address}`, { ...SMALL, audio: null });
      const found = await until(`${address} is ${key}`, 10_000, async () => {
        const { streams } = await server.api('/api/v1/streams/?count=1000');
        return streams.find(one => one.publish.active);
      });
      assert.ok(found.key.endsWith(key), `${address} became ${found.key}`);
      await publisher.stop();
      await until('it is over', 5000, async () => !(await server.api('/api/v1/streams/?count=1000')).streams.some(one => one.publish.active));
    }
  }),
  test('bad names are refused with the reason', 40, async ({ server }) => {
    const log = await assertSentAway(push(`rtmp://${server.address}:${server.rtmpPort}/live/${'x'.repeat(2000)}`, SMALL));
    return log.split('\n').find(line => /error/i.test(line))?.slice(0, 200);
  }),
]);

group('rtmp tokens', serverAndClients('[publish]\ntokens = ["secret-one"]\n\n[play]\ntokens = ["secret-two"]\nwhen_absent = "refuse"\nretry_after_seconds = 7\n'), [
  test('publishers need their token, players theirs', 60, async ({ server }) => {
    const { rtmp, flv } = server.urls('guarded');
    for (const query of ['', '?token=wrong', '?token=secret-two']) await assertSentAway(push(rtmp + query, SMALL), /token/i);
    const publisher = push(`${rtmp}?token=secret-one`, SMALL);
    await live(server, 'guarded', publisher);
    await assertPlayRefused(rtmp, /token/i);
    assert.equal((await fetch(flv)).status, 401);
    const seen = await pull(`${rtmp}?token=secret-two`, { seconds: 2, warmup: 0 });
    assert.ok(seen.frames > 20, JSON.stringify(seen));
    const player = openHttp(`${flv}?token=secret-two`);
    await until('FLV', 5000, () => player.length > 10_000);
    player.stop();
    assert.equal((await publisher.stop()).code, 0);
  }),
  test('players of an absent stream are refused when told so', 40, async ({ server }) => {
    const { rtmp, flv } = server.urls('absent');
    await assertPlayRefused(`${rtmp}?token=secret-two`);
    const refused = await fetch(`${flv}?token=secret-two`);
    assert.equal(refused.status, 409);
    assert.equal(refused.headers.get('retry-after'), '7');
    return (await refused.json()).detail;
  }),
]);

group('rtmp takeover', serverAndClients('[publish]\ntakeover = "replace"\n'), [
  test('replace: the second publisher takes the stream, viewers stay', 60, async ({ server, browsers }) => {
    const { rtmp, whep } = server.urls('taken');
    const first = push(rtmp, SMALL);
    await live(server, 'taken', first);
    const player = await browsers.play(whep);
    await sleep(1000);
    const second = push(rtmp, { size: '640x360', audio: AAC });
    await assertSentAway(first);
    await until('the second one is shown', 10_000, async () => (await player.measure()).size === '640x360');
    const since = Date.now();
    await sleep(3000);
    const seen = await player.measure(since);
    assert.ok(seen.frames > 40, `${seen.frames} frames in 3 s`);
    await player.close();
    assert.equal((await second.stop()).code, 0);
  }),
  test('replace: RTMP takes over from WHIP and back', 60, async ({ server, browsers }) => {
    const { rtmp, whip, whep } = server.urls('mixed');
    const browser = await browsers.publish(whip, { codec: 'h264', width: 320, height: 240 });
    const player = await browsers.play(whep);
    const encoder = push(rtmp, { size: '640x360' });
    await live(server, 'mixed', encoder);
    await until('the browser is told that it is over', 5000, async () => (await browser.call('dtls')) === 'closed');
    await until('the encoder’s picture', 10_000, async () => (await player.measure()).size === '640x360');
    const next = await browsers.publish(whip, { codec: 'h264', width: 800, height: 600 });
    await assertSentAway(encoder);
    const before = await player.call('painted');
    await until('the picture of the second browser', 10_000, async () => (await player.call('painted')) > before + 10);
    await player.close();
    await next.close();
  }),
]);

group('rtmp2rtc off', serverAndClients('[rtmp2rtc]\nenabled = false\n'), [
  test('WHEP of an RTMP stream is refused with the reason', 40, async ({ server }) => {
    const { rtmp, whep } = server.urls('no-crossing');
    const publisher = push(rtmp, SMALL);
    await live(server, 'no-crossing', publisher);
    const refused = await post(whep);
    assert.equal(refused.status, 409);
    const { detail, type } = await refused.json();
    assert.match(detail, /rtmp2rtc/);
    assert.match(type, /no-crossing$/);
    await publisher.stop();
    return detail;
  }),
]);

group('rtmp off', serverAndClients('[rtmp]\nenabled = false\n\n[http_flv]\nenabled = false\n'), [
  test('what is off is not spoken', 40, async ({ server }) => {
    const { rtmp, flv } = server.urls('off');
    await assertSentAway(push(rtmp, SMALL));
    await assertSentAway(push(`rtmp://${new URL(server.base).host}/live/off`, SMALL));
    assert.equal((await fetch(flv)).status, 404);
  }),
]);

async function setupEnds(cleanup) {
  cleanup(endFfmpegs);
  const servers = [];
  cleanup(() => Promise.all(servers.map(server => server.stop('SIGKILL'))));
  const start = async () => {
    servers.push(await startServer());
    return servers.at(-1);
  };
  return { start, tidy: endFfmpegs };
}

group('rtmp shutdown', setupEnds, [
  test('SIGTERM ends publishers and players, with status 0 within 3 s', 40, async ({ start }) => {
    const server = await start();
    const { rtmp, flv } = server.urls('term');
    const publisher = push(rtmp, SMALL);
    await live(server, 'term', publisher);
    const player = ffmpeg(['-i', rtmp, '-c', 'copy', '-f', 'null', '-']);
    const file = openHttp(flv);
    await until('both players', 10_000, async () => (await streamOf(server, 'term')).viewers === 2);
    await sleep(1000);
    const began = Date.now();
    assert.deepEqual(await server.stop('SIGTERM'), { code: 0, signal: null }, server.log());
    const took = Date.now() - began;
    assert.ok(took < 3000, `took ${took} ms`);
    assert.ok(!/panick|ERROR|before everything was closed/.test(server.log()), server.log());
    await assertSentAway(publisher);
    for (const [what, ended] of [['the RTMP player', player.ended], ['the FLV player', file.done]]) {
      assert.notEqual(await Promise.race([ended.then(() => 'over'), sleep(5000)]), undefined, `${what} ends`);
    }
    return `${took} ms`;
  }),
]);
