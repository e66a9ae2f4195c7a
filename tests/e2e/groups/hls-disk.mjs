// HLS as files for another web server, and encrypted segments.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { ffmpeg, ffmpegDone, live, push, streamOf } from '../lib/ffmpeg.mjs';
import { figures, playInChromium, playlist } from '../lib/hls.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { cache } from '../lib/server.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const WINDOW_SECONDS = 6;
const DISPOSE_SECONDS = 2;
const TOKEN = 's+e/c=';

/** A server that writes to a folder of its own, and whatever gives that folder out. */
const withFolder = extra => async cleanup => {
  const folder = fs.mkdtempSync(path.join(cache, 'server-hls-'));
  const context = await serverAndClients(`[hls]\nwindow_seconds = ${WINDOW_SECONDS}\ndispose_seconds = ${DISPOSE_SECONDS}\nfolder = "${folder}"\n${extra}`)(cleanup);
  const web = http.createServer((request, response) => {
    response.setHeader('access-control-allow-origin', '*');
    fs.readFile(path.join(folder, decodeURIComponent(new URL(request.url, 'http://x').pathname)), (error, data) => {
      response.statusCode = error ? 404 : 200;
      response.end(data);
    });
  });
  await new Promise(done => web.listen(0, '127.0.0.1', done));
  cleanup(() => web.close());
  return { ...context, folder, web: `http://127.0.0.1:${web.address().port}` };
};

const filesBelow = folder => fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).map(entry => entry.name);
const metric = async (server, name) => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(await (await fetch(`${server.local}/metrics`)).text())?.[1]);

/** The playlist on disk; every file in it must be there. */
function onDisk(folder, name) {
  const text = fs.readFileSync(path.join(folder, 'live', `${name}.m3u8`), 'utf8');
  const files = text.split('\n').filter(line => line && !line.startsWith('#'));
  for (const file of files) assert.ok(fs.statSync(path.join(folder, 'live', file)).size > 1000, file);
  return { text, files };
}

group('hls on disk', withFolder(''), [
  test('files follow the playlist from the start, are whole at any time, and go with the stream', 60, async ({ server, folder, web }) => {
    const publisher = push(server.urls('cam').rtmp, { size: '320x240' });
    await live(server, 'cam', publisher);
    await until('a playlist on disk', 10_000, () => fs.existsSync(path.join(folder, 'live/cam.m3u8')));
    // Asked over and over, the folder never shows half of anything.
    const names = new Set();
    for (const end = Date.now() + 13_000; Date.now() < end; await sleep(50)) {
      for (const file of onDisk(folder, 'cam').files) names.add(file);
    }
    assert.ok(names.size >= 6, `${names.size} segments`);
    const left = filesBelow(folder).length;
    assert.ok(left <= 4 + 5 + 2, `${left} files at a window of ${WINDOW_SECONDS} s`);
    const { segments } = await playlist(`${server.base}/live/cam.m3u8`);
    const served = Buffer.from(await (await fetch(new URL(segments[0].uri, `${server.base}/live/`))).arrayBuffer());
    assert.ok(served.equals(fs.readFileSync(path.join(folder, 'live', segments[0].uri))), 'the same bytes as over HTTP');
    await ffmpegDone(['-i', `${web}/live/cam.m3u8`, '-t', '3', '-c', 'copy', '-f', 'null', '-']);
    await publisher.stop();
    await until('the end is written', (DISPOSE_SECONDS + 4) * 1000, () => onDisk(folder, 'cam').text.includes('#EXT-X-ENDLIST'));
    await until('the folder is empty', (WINDOW_SECONDS + 6) * 1000, () => fs.readdirSync(folder).length === 0);
    return `${names.size} segments, ${left} files at most`;
  }),
  test('a folder that cannot be written stops nothing and is told of', 40, async ({ server, folder }) => {
    fs.writeFileSync(path.join(folder, 'live'), 'a file where a folder is needed');
    const publisher = push(server.urls('stuck').rtmp, { size: '320x240' });
    await live(server, 'stuck', publisher);
    await until('the API tells', 10_000, async () => (await streamOf(server, 'stuck')).hls_disk_error);
    await playlist(`${server.base}/live/stuck.m3u8`);
    await sleep(4500);
    const errors = await metric(server, 'freshet_hls_disk_errors_total');
    assert.ok(errors >= 2 && (await metric(server, 'freshet_hls_disk_failing_streams')) === 1, `${errors} errors`);
    const told = server.log().match(/HLS on disk stands still/g)?.length;
    assert.equal(told, 1, `told ${told} times`);
    fs.rmSync(path.join(folder, 'live'));
    await until('it is written again', 6000, () => fs.existsSync(path.join(folder, 'live/stuck.m3u8')));
    assert.equal((await streamOf(server, 'stuck')).hls_disk_error, null);
    await publisher.stop();
  }),
]);

group('hls at the end', withFolder(''), [
  test('a server that ends takes its files with it', 30, async ({ server, folder }) => {
    const publisher = push(server.urls('end').rtmp, { size: '320x240' });
    await live(server, 'end', publisher);
    await until('a playlist on disk', 10_000, () => fs.existsSync(path.join(folder, 'live/end.m3u8')));
    assert.deepEqual(await server.stop(), { code: 0, signal: null });
    assert.deepEqual(fs.readdirSync(folder), []);
    await publisher.stop();
  }),
]);

group('hls encrypted', withFolder(`encrypt = true\nsegments_per_key = 2\n\n[play]\ntokens = ["${TOKEN}"]\n`), [
  test('keys are given by the rule of the stream; ffmpeg, hls.js and Chromium itself play, also from disk', 90, async ({ server, browsers, web, folder }) => {
    const publisher = push(server.urls('locked').rtmp);
    await live(server, 'locked', publisher);
    const url = `${server.base}/live/locked.m3u8?token=${encodeURIComponent(TOKEN)}`;
    const { segments, text } = await playlist(url);
    const key = new URL(/#EXT-X-KEY:METHOD=AES-128,URI="([^"]+)"/.exec(text)[1], url);
    const given = await fetch(key);
    assert.deepEqual([given.status, given.headers.get('cache-control'), (await given.arrayBuffer()).byteLength], [200, 'no-store', 16]);
    key.search = '';
    assert.equal((await fetch(key)).status, 401);
    const sealed = new Uint8Array(await (await fetch(new URL(segments[0].uri, url))).arrayBuffer());
    assert.ok(sealed.length % 16 === 0 && [0, 188, 376].some(at => sealed[at] !== 0x47), 'it is no MPEG-TS');
    const { code, stderr } = await ffmpeg(['-live_start_index', '0', '-i', url, '-t', '5', '-f', 'null', '-']).ended;
    assert.ok(code === 0 && !/error|invalid|corrupt/i.test(stderr), stderr);
    await ffmpegDone(['-i', `${web}/live/locked.m3u8`, '-t', '3', '-f', 'null', '-']);
    const hlsJs = await playInChromium(browsers, 'hls.js', url, { seconds: 3 });
    const native = await playInChromium(browsers, 'native', url, { seconds: 3 });
    await publisher.stop();
    await until('keys and all are gone', (DISPOSE_SECONDS + WINDOW_SECONDS + 6) * 1000, () => fs.readdirSync(folder).length === 0);
    return `hls.js ${figures(hlsJs)}; Chromium ${figures(native)}`;
  }),
]);
