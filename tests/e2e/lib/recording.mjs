// Recorded files: where they are, and what FFmpeg says of them.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { ffmpegDone } from './ffmpeg.mjs';
import { until } from './peers.mjs';

/** Runs ffprobe; what it prints. */
function ffprobe(words) {
  return new Promise((done, fail) => {
    const child = spawn('ffprobe', ['-v', 'error', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', data => (stdout += data));
    child.stderr.on('data', data => (stderr += data));
    child.on('close', code => (code === 0 && !stderr ? done(stdout) : fail(new Error(`ffprobe ${words.at(-1)}: ${code} ${stderr.slice(-400)}`))));
  });
}

/** Streams and packets of a file: `[{ codec, kind, width, height, packets: [{ pts, dts, key }] }]`, times in seconds. */
export async function probe(file) {
  const json = JSON.parse(await ffprobe(['-show_streams', '-show_packets', '-of', 'json', file]));
  const number = text => (text === undefined ? null : Number(text));
  return json.streams.map(stream => ({
    codec: stream.codec_name,
    kind: stream.codec_type,
    width: stream.width,
    height: stream.height,
    packets: json.packets
      .filter(packet => packet.stream_index === stream.index)
      .map(packet => ({ pts: number(packet.pts_time), dts: number(packet.dts_time), key: packet.flags.includes('K') })),
  }));
}

/**
 * A file as it must be: it begins with a keyframe near its start, times run on without gaps, sound and picture begin and
 * end together, and all of it can be decoded. `gap`: longest distance of packets in seconds. Its figures.
 */
export async function assertWhole(file, { kinds = ['audio', 'video'], gap = 0.5, skew = 0.25, start = 1.6 } = {}) {
  const streams = await probe(file);
  assert.deepEqual(streams.map(one => one.kind).sort(), kinds, `tracks of ${file}`);
  const spans = streams.map(({ codec, kind, packets }) => {
    assert.ok(packets.length > 5, `${packets.length} packets of ${codec} in ${file}`);
    assert.ok(packets[0].key, `${file} begins with a keyframe`);
    packets.forEach((packet, i) => {
      if (!i) return;
      const step = packet.dts - packets[i - 1].dts;
      assert.ok(step >= 0 && step <= gap, `${kind} packet ${i} of ${file} comes ${step} s after the one before`);
    });
    const times = packets.map(packet => packet.pts);
    return { kind, first: Math.min(...times), last: Math.max(...times) };
  });
  for (const { kind, first } of spans) assert.ok(first >= -0.1 && first <= start, `${kind} of ${file} begins at ${first} s`);
  const [a, b] = spans;
  if (b) {
    assert.ok(Math.abs(a.first - b.first) <= skew, `tracks of ${file} begin at ${a.first} and ${b.first} s`);
    assert.ok(Math.abs(a.last - b.last) <= skew + gap, `tracks of ${file} end at ${a.last} and ${b.last} s`);
  }
  await assertDecodes(file);
  return { streams, seconds: Math.max(...spans.map(span => span.last)) - Math.min(...spans.map(span => span.first)) };
}

/** Every frame of a file can be decoded. */
export async function assertDecodes(file) {
  const said = await ffmpegDone(['-v', 'error', '-xerror', '-i', file, '-map', '0', '-f', 'null', '-']);
  assert.equal(said, '', file);
}

/** All recorded files below a folder, sorted by name. */
export function filesIn(folder) {
  const entries = fs.existsSync(folder) ? fs.readdirSync(folder, { withFileTypes: true, recursive: true }) : [];
  return entries.filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath ?? entry.path, entry.name)).sort();
}

/** The recordings of a stream in the API, the oldest first. */
export async function recordsOf(server, name) {
  return (await server.api('/api/v1/records/?count=1000')).records.filter(one => one.stream === `live/${name}`);
}

/** Begins a recording by request. */
export async function startRecord(server, body) {
  const response = await fetch(`${server.local}/api/v1/records/`, { method: 'POST', body: JSON.stringify(body) });
  const text = await response.text();
  assert.equal(response.status, 201, text);
  const { record } = JSON.parse(text);
  assert.equal(response.headers.get('location'), `/api/v1/records/${record.id}`);
  return record;
}

/** Waits until the publisher of a stream's recordings has gone and their files are closed, and ends them; all of them. */
export async function endRecords(server, name) {
  const waiting = await until(`recordings of ${name} wait for the publisher`, 20_000, async () => {
    const all = await recordsOf(server, name);
    return all.length > 0 && all.every(one => one.state !== 'recording' && one.files.every(file => !file.open)) && all;
  });
  return Promise.all(waiting.map(one => endRecord(server, one.id, { stop: one.state === 'waiting' })));
}

/** Waits until a recording is over and its files are closed; the recording. */
export async function endRecord(server, id, { stop = true } = {}) {
  if (stop) assert.equal((await fetch(`${server.local}/api/v1/records/${id}`, { method: 'DELETE' })).status, 200);
  return until(`recording ${id} is over`, 20_000, async () => {
    const { record } = await server.api(`/api/v1/records/${id}`);
    return record.state === 'ended' && record;
  });
}
