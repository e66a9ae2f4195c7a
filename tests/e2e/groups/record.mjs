// Recording: what is published over RTMP and WHIP is on the disk, whole, whatever happens meanwhile.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { endFfmpegs, ffmpeg, ffmpegDone, live, packets, push } from '../lib/ffmpeg.mjs';
import { HookServer } from '../lib/hook-server.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { assertWhole, endRecord, endRecords, filesIn, recordsOf, startRecord } from '../lib/recording.mjs';
import { cache, startServer } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const config = (extra = '') => `
[record]
enabled = true
streams = ["live/auto*"]
min_free_mb = 10
republish_seconds = 20
${extra}`;

const setup = extra => serverAndClients(config(extra));
const folderOf = server => path.join(server.folder, 'recordings');
const fileOf = (server, record, i = -1) => path.join(folderOf(server), record.files.at(i).path);

const PICTURE = ['-f', 'lavfi', '-i', 'testsrc2=size=640x360:rate=30'];
const SOUND = ['-f', 'lavfi', '-i', 'sine=440:sample_rate=48000'];
const H264 = ['-c:v', 'libx264', '-preset', 'veryfast', '-g', '60', '-bf', '2', '-b:v', '800k'];

const listOf = async (file, options) => packets(await ffmpegDone(['-i', file, '-c', 'copy', '-f', 'framemd5', '-'], options));
const digest = async (file, track) => (await ffmpegDone(['-i', file, '-map', `0:${track}`, '-f', 'md5', '-'])).trim();

/** Every packet of each kind, whatever the order of the tracks is. */
function assertSamePackets(recorded, sent, what) {
  const sums = list => list.map(one => one.md5).sort();
  assert.deepEqual(sums(recorded), sums(sent), what);
}

async function metric(server, line) {
  const text = await (await fetch(`${server.local}/metrics`)).text();
  return Number(text.split('\n').find(one => one.startsWith(`${line} `))?.split(' ').at(-1));
}

/** A case: codecs that MP4 takes come back as they were sent. */
function same(name, title, codecs, options = {}) {
  return test(title, 60, async ({ server }) => {
    const file = path.join(cache, `record-${name}.flv`);
    await ffmpegDone([...PICTURE, ...SOUND, '-t', '4', ...codecs, '-f', 'flv', file], options);
    const publisher = ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', server.urls(`auto-${name}`).rtmp], options);
    await publisher.ended;
    const [record] = await endRecords(server, `auto-${name}`);
    const mp4 = fileOf(server, record);
    await assertWhole(mp4);
    assertSamePackets(await listOf(mp4, options), await listOf(file, options), 'packets of the MP4 file');
    return `${record.duration.toFixed(2)} s`;
  });
}

group('record', setup(''), [
  test('RTMP with B-frames as mp4, flv and ts: the same packets', 90, async ({ server }) => {
    const file = path.join(cache, 'record.flv');
    await ffmpegDone([...PICTURE, ...SOUND, '-t', '6', ...H264, '-c:a', 'aac', '-f', 'flv', file]);
    const publisher = ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', server.urls('auto').rtmp]);
    await live(server, 'auto', publisher);
    for (const format of ['flv', 'ts']) await startRecord(server, { stream: 'live/auto', format });
    await until('three clients of type record', 5000, async () => {
      const clients = (await server.api('/api/v1/clients/?count=1000')).clients.filter(one => one.name === 'auto' && !one.publish);
      return clients.map(one => one.type).join() === 'record,record,record';
    });
    await publisher.ended;
    const all = await endRecords(server, 'auto');
    assert.deepEqual(all.map(one => `${one.by} ${one.format} ${one.files.length} ${one.error}`).sort(), ['api flv 1 null', 'api ts 1 null', 'pattern mp4 1 null']);
    const said = [];
    for (const record of all) {
      const recorded = fileOf(server, record);
      const { seconds } = await assertWhole(recorded);
      if (record.format === 'ts') {
        for (const track of ['v', 'a']) assert.equal(await digest(recorded, track), await digest(file, track), `decoded ${track} of the transport stream`);
      } else {
        assertSamePackets(await listOf(recorded), await listOf(file), `packets of the ${record.format} file`);
      }
      said.push(`${record.format} ${seconds.toFixed(2)} s`);
    }
    return said.join(', ');
  }),
  same('hevc', 'HEVC and Opus over Enhanced RTMP as mp4', ['-c:v', 'libx265', '-preset', 'ultrafast', '-g', '30', '-x265-params', 'bframes=2:log-level=error', '-c:a', 'libopus'], { newer: true }),
  test('a browser over WHIP, started and stopped in mid-stream', 60, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls('whip').whip, { codec: 'h264' });
    await sleep(1500);
    const { id } = await startRecord(server, { stream: 'live/whip' });
    await sleep(4000);
    const record = await endRecord(server, id);
    assert.equal(record.error, null);
    const { streams, seconds } = await assertWhole(fileOf(server, record));
    assert.deepEqual(streams.map(one => one.codec).sort(), ['aac', 'h264']);
    assert.ok(seconds > 2.5 && Math.abs(seconds - record.duration) < 0.3, `${seconds} s, the API says ${record.duration}`);
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
    const records = await endRecords(server, 'auto-again');
    assert.equal(records.length, 1, 'one recording');
    const widths = [];
    for (const i of records[0].files.keys()) widths.push((await assertWhole(fileOf(server, records[0], i))).streams.find(one => one.kind === 'video').width);
    assert.deepEqual(widths, [320, 480]);
  }),
  test('segments begin with keyframes and lose nothing between them', 60, async ({ server }) => {
    const file = path.join(cache, 'record-segments.flv');
    await ffmpegDone([...PICTURE, ...SOUND, '-t', '5', ...H264, '-g', '30', '-c:a', 'aac', '-f', 'flv', file]);
    const publisher = ffmpeg(['-re', '-i', file, '-c', 'copy', '-f', 'flv', server.urls('parts').rtmp]);
    await live(server, 'parts', publisher);
    await startRecord(server, { stream: 'live/parts', format: 'mp4', plan: 'segment', segment_seconds: 2 });
    await publisher.ended;
    const [record] = await endRecords(server, 'parts');
    const lists = [];
    for (const i of record.files.keys()) {
      await assertWhole(fileOf(server, record, i));
      lists.push(await listOf(fileOf(server, record, i)));
    }
    assertSamePackets(lists.flat(), await listOf(file), 'packets of all files');
    assert.deepEqual(record.files.map(one => Math.round(one.duration)), [2, 2, 1]);
  }),
  test('hostile names of streams stay in the folder', 60, async ({ server }) => {
    const names = ['auto..%2f..%2f..%2fescape', 'auto%2e%2e', 'auto%3B%24%28touch%20x%29', `auto${'x'.repeat(200)}`, 'auto%00nul', 'auto ..'];
    const before = new Set(filesIn(server.folder).filter(file => !file.startsWith(folderOf(server))));
    const publishers = names.map(name => ffmpeg(['-re', ...PICTURE, '-t', '3', '-c:v', 'libx264', '-preset', 'ultrafast', '-g', '30', '-f', 'flv', `rtmp://${server.address}:${server.rtmpPort}/live/${name}`]));
    await Promise.all(publishers.map(one => one.ended));
    await until('files are closed', 10_000, async () => (await metric(server, 'freshet_recordings{state="recording"}')) === 0);
    const outside = filesIn(server.folder).filter(file => !file.startsWith(folderOf(server)) && !before.has(file));
    assert.deepEqual(outside, []);
    const written = filesIn(folderOf(server)).map(file => path.relative(folderOf(server), file)).filter(file => /auto(\.\.|x|_|%)/.test(file));
    assert.ok(written.length >= 3, written.join());
    for (const file of written) assert.match(file, /^[\p{L}\p{N}._/-]+$/u);
    return `${written.length} of ${names.length} names were taken`;
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

/** A group whose cases start servers of their own. */
async function bare(cleanup) {
  cleanup(endFfmpegs);
  return { tidy: endFfmpegs };
}

async function withServer(extra, run) {
  const server = await startServer({ extra: config(extra) });
  try {
    return await run(server);
  } catch (error) {
    throw new Error(`${error.message}\n${server.log()}`);
  } finally {
    await server.stop();
  }
}

group('record ends', bare, [
  test('kill -9 costs no more than the last fragment', 60, () => withServer('', async server => {
    const publisher = push(server.urls('auto-kill').rtmp, { size: '320x240' });
    await live(server, 'auto-kill', publisher);
    for (const format of ['flv', 'ts']) await startRecord(server, { stream: 'live/auto-kill', format });
    await sleep(6000);
    const said = [];
    const before = await recordsOf(server, 'auto-kill');
    await server.stop('SIGKILL');
    for (const record of before) {
      const { seconds } = await assertWhole(fileOf(server, record));
      assert.ok(seconds > record.duration - 0.2 && seconds > 3, `${seconds} s of ${record.format}, ${record.duration} s were written`);
      said.push(`${record.format} ${seconds.toFixed(2)} s`);
    }
    return said.join(', ');
  })),
  test('SIGTERM closes the files and calls the hooks', 60, async () => {
    const hook = await HookServer.start();
    try {
      return await withServer(`[hooks]\non_record = ["${hook.url('/record?secret=s')}"]\non_dvr = ["${hook.url('/dvr')}"]`, async server => {
        const publisher = push(server.urls('auto-term').rtmp, { size: '320x240' });
        await live(server, 'auto-term', publisher);
        await sleep(4000);
        const [record] = await recordsOf(server, 'auto-term');
        const cid = (await server.api('/api/v1/streams/?count=100')).streams.find(one => one.name === 'auto-term').publish.cid;
        const began = Date.now();
        assert.deepEqual(await server.stop(), { code: 0, signal: null });
        const took = Date.now() - began;
        const { seconds } = await assertWhole(fileOf(server, record));
        assert.deepEqual(hook.calls.map(one => one.path).sort(), ['/dvr', '/record?secret=s']);
        const [dvr, own] = hook.calls.sort((a, b) => a.path.length - b.path.length).map(one => one.body);
        const file = path.join('recordings', record.files[0].path);
        const common = { client_id: cid, ip: '127.0.0.1', vhost: '__defaultVhost__', app: 'live', tcUrl: 'rtmp://__defaultVhost__/live', stream: 'auto-term', param: '', stream_url: '/live/auto-term', cwd: fs.realpathSync(server.folder), file };
        for (const body of [dvr, own]) {
          const { server_id, service_id, stream_id } = body;
          assert.ok(server_id.startsWith('vid-') && service_id.length === 8 && stream_id.startsWith('vid-'), JSON.stringify(body));
        }
        const without = ({ server_id, service_id, stream_id, ...rest }) => rest;
        assert.deepEqual(without(dvr), { action: 'on_dvr', ...common });
        const { size, duration, started_at, ...rest } = without(own);
        assert.deepEqual(rest, { action: 'on_record', ...common, format: 'mp4', record_id: record.id, complete: true });
        assert.equal(size, fs.statSync(path.join(server.folder, file)).size);
        assert.ok(Math.abs(duration - seconds) < 0.3 && Math.abs(Date.parse(started_at) - began) < 20_000, `${duration} s from ${started_at}`);
        return `${seconds.toFixed(2)} s; ended after ${took} ms`;
      });
    } finally {
      hook.close();
    }
  }),
  test('a hook that fails is called again', 60, async () => {
    const hook = await HookServer.start([500, 'close']);
    try {
      await withServer(`[hooks]\non_record = ["${hook.url('/record')}"]`, async server => {
        await push(server.urls('auto-retry').rtmp, { size: '320x240', seconds: 3 }).ended;
        await until('the third call', 20_000, () => hook.calls.length === 3);
        await until('it counts', 5000, async () => (await metric(server, 'freshet_hook_events_total{action="on_record",outcome="delivered"}')) === 1);
      });
      assert.equal(new Set(hook.calls.map(one => JSON.stringify(one.body))).size, 1, 'the same event three times');
    } finally {
      hook.close();
    }
  }),
]);

group('record trouble', bare, [
  test('a folder that is a file: the stream goes on, the error is told, and recording begins when it is mended', 60, async () => {
    await withServer('', async server => {
      fs.writeFileSync(folderOf(server), 'in the way');
      const publisher = push(server.urls('auto-way').rtmp, { size: '320x240' });
      await live(server, 'auto-way', publisher);
      const record = await until('the error', 10_000, async () => (await recordsOf(server, 'auto-way')).find(one => one.error));
      assert.match(record.error, /recordings.*(Not a directory|File exists)/);
      assert.ok((await metric(server, 'freshet_record_errors_total{cause="open"}')) >= 1);
      assert.equal(server.log().split('cannot record').length, 2, 'logged once');
      assert.ok((await live(server, 'auto-way')).publish.active, 'the stream goes on');
      fs.rmSync(folderOf(server));
      await until('it is recorded', 25_000, async () => (await recordsOf(server, 'auto-way'))[0].bytes > 0);
      assert.equal((await recordsOf(server, 'auto-way'))[0].error, null);
      await publisher.stop();
      const [ended] = await endRecords(server, 'auto-way');
      await assertWhole(fileOf(server, ended));
    });
  }),
  test('a disk that is full: what was written plays, the stream goes on, and so does recording when there is room', 90, async () => {
    await withServer('', async server => {
      const folder = folderOf(server);
      fs.mkdirSync(folder);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', folder]);
      try {
        const publisher = push(server.urls('auto-full').rtmp, { video: ['-c:v', 'libx264', '-preset', 'ultrafast', '-b:v', '3M', '-minrate', '3M', '-maxrate', '3M', '-bufsize', '1M', '-nal-hrd', 'cbr', '-g', '30'] });
        await live(server, 'auto-full', publisher);
        // Twelve megabytes, ten of which must stay free: the second check of four megabytes ends it.
        const record = await until('the error', 30_000, async () => (await recordsOf(server, 'auto-full')).find(one => one.error));
        assert.match(record.error, /MB left, record.min_free_mb is 10/);
        assert.ok((await metric(server, 'freshet_record_errors_total{cause="space"}')) >= 1);
        assert.ok(record.files.length && record.files.every(file => !file.open && !file.complete), JSON.stringify(record.files));
        const { seconds } = await assertWhole(fileOf(server, record, 0));
        assert.ok((await live(server, 'auto-full')).publish.active, 'the stream goes on');
        execFileSync('mount', ['-o', 'remount,size=200m', folder]);
        await until('it is recorded again', 25_000, async () => (await recordsOf(server, 'auto-full'))[0].files.length > record.files.length);
        await publisher.stop();
        const [ended] = await endRecords(server, 'auto-full');
        await assertWhole(fileOf(server, ended));
        return `${seconds.toFixed(2)} s before, ${ended.files.at(-1).duration.toFixed(2)} s after`;
      } finally {
        execFileSync('umount', ['-l', folder]);
      }
    });
  }),
  test('what tokens guard, and what cannot be recorded', 60, () => withServer('[publish]\ntokens = ["t"]', async server => {
    const post = headers => fetch(`${server.local}/api/v1/records/`, { method: 'POST', body: '{"stream":"live/x"}', headers });
    assert.equal((await post({})).status, 401);
    assert.equal((await post({ authorization: 'Bearer t' })).status, 404);
  })),
]);
