// Recording: what is published over RTMP and WHIP is on the disk, whole, whatever happens meanwhile.
import assert from 'node:assert/strict';
import path from 'node:path';
import { ffmpeg, ffmpegDone, live, packets, push } from '../lib/ffmpeg.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { assertWhole, endRecord, recordsOf, startRecord } from '../lib/recording.mjs';
import { cache } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const RECORD = `
[record]
enabled = true
streams = ["live/auto*"]
min_free_mb = 10
republish_seconds = 4
`;

const setup = extra => serverAndClients(`${RECORD}${extra}`);
const fileOf = (server, record, i = -1) => path.join(server.folder, 'recordings', record.files.at(i).path);

const PICTURE = ['-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=30'];
const SOUND = ['-f', 'lavfi', '-i', 'sine=440:sample_rate=48000'];
const H264 = ['-c:v', 'libx264', '-preset', 'veryfast', '-g', '60', '-bf', '2', '-b:v', '800k'];

const listOf = async file => packets(await ffmpegDone(['-i', file, '-c', 'copy', '-f', 'framemd5', '-']));
const digest = async (file, track) => (await ffmpegDone(['-i', file, '-map', `0:${track}`, '-f', 'md5', '-'])).trim();

/** Every packet of each track. */
function assertSamePackets(recorded, sent) {
  for (const stream of new Set(sent.map(one => one.stream))) {
    const [got, wanted] = [recorded, sent].map(list => list.filter(one => one.stream === stream));
    assert.deepEqual(got.map(one => one.md5), wanted.map(one => one.md5), `packets of stream ${stream}`);
  }
}

group('record', setup(''), [
  test('RTMP with B-frames, by pattern and by request: the same packets', 60, async ({ server }) => {
    const file = path.join(cache, 'record.flv');
    await ffmpegDone([...PICTURE, ...SOUND, '-t', '8', ...H264, '-c:a', 'aac', '-f', 'flv', file]);
    const { rtmp } = server.urls('auto');
    const publisher = ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', rtmp]);
    await live(server, 'auto', publisher);
    const asked = await startRecord(server, { stream: 'live/auto', format: 'ts' });
    await until('two clients of type record', 3000, async () => {
      const clients = (await server.api('/api/v1/clients/?count=1000')).clients.filter(one => one.name === 'auto' && !one.publish);
      return clients.map(one => one.type).join() === 'record,record';
    });
    await publisher.ended;
    const all = await until('both recordings are over', 12_000, async () => {
      const all = await recordsOf(server, 'auto');
      return all.every(one => one.state === 'ended') && all;
    });
    assert.deepEqual(all.map(one => [one.by, one.format, one.files.length, one.error]).sort(), [['api', 'ts', 1, null], ['pattern', 'flv', 1, null]]);
    const flv = fileOf(server, all.find(one => one.by === 'pattern'));
    const { seconds } = await assertWhole(flv);
    assertSamePackets(await listOf(flv), await listOf(file));
    const ts = fileOf(server, all.find(one => one.id === asked.id));
    await assertWhole(ts);
    for (const track of ['v', 'a']) assert.equal(await digest(ts, track), await digest(file, track), `decoded ${track} of the transport stream`);
    return `${seconds.toFixed(2)} s`;
  }),
  test('a browser over WHIP, started and stopped in mid-stream', 60, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls('whip').whip, { codec: 'h264' });
    await sleep(1500);
    const { id } = await startRecord(server, { stream: 'live/whip', format: 'flv' });
    await sleep(6000);
    const record = await endRecord(server, id);
    assert.equal(record.error, null);
    const { streams, seconds } = await assertWhole(fileOf(server, record));
    assert.deepEqual(streams.map(one => one.codec).sort(), ['aac', 'h264']);
    assert.ok(seconds > 4 && Math.abs(seconds - record.duration) < 0.3, `${seconds} s, the API says ${record.duration}`);
    await publisher.close();
    return `${seconds.toFixed(2)} s, ${record.bytes} bytes`;
  }),
  test('a publisher that comes back with another size goes on in another file', 60, async ({ server }) => {
    const { rtmp } = server.urls('auto-again');
    for (const size of ['320x240', '480x360']) {
      const publisher = push(rtmp, { size });
      await live(server, 'auto-again', publisher);
      await sleep(3000);
      await publisher.stop();
      await sleep(500);
    }
    const record = await until('the recording is over', 12_000, async () => {
      const [record] = await recordsOf(server, 'auto-again');
      return record.state === 'ended' && record;
    });
    assert.equal((await recordsOf(server, 'auto-again')).length, 1, 'one recording');
    const widths = [];
    for (const i of record.files.keys()) widths.push((await assertWhole(fileOf(server, record, i))).streams.find(one => one.kind === 'video').width);
    assert.deepEqual(widths, [320, 480]);
  }),
  test('requests that cannot be granted say why', 20, async ({ server }) => {
    const ask = async (body, method = 'POST', route = '') => {
      const response = await fetch(`${server.local}/api/v1/records/${route}`, { method, body });
      return [response.status, (await response.json()).type?.split(':').at(-1)];
    };
    assert.deepEqual(await ask('{"stream":"live/nobody"}'), [404, 'stream-absent']);
    assert.deepEqual(await ask('{"stream":"live/x","format":"avi"}'), [400, 'bad-record']);
    assert.deepEqual(await ask('{"stream":"live/../x"}'), [400, 'bad-stream-name']);
    assert.deepEqual(await ask('stream=live/x'), [400, 'bad-record']);
    assert.deepEqual(await ask(undefined, 'DELETE', 'nothing'), [404, 'no-record']);
    assert.deepEqual(await ask(undefined, 'GET', 'nothing'), [404, 'no-record']);
  }),
]);
