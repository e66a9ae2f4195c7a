// FFmpeg as publisher and as player: of the stamped picture (ffmpeg-push.py, ffmpeg-pull.py) and of files.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import path from 'node:path';
import { sleep, until } from './peers.mjs';
import { cache, tests } from './server.mjs';

const python = path.join(cache, 'venv/bin/python');
const children = new Set();

function start(program, words) {
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  child.text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', data => (child.text[name] = (child.text[name] + data).slice(-4_000_000)));
  child.ended = new Promise(done => child.once('close', (code, signal) => {
    children.delete(child);
    done({ code, signal, ...child.text });
  }));
  return child;
}

/** Ends what a case has left running; what does not want to is killed. */
export async function endFfmpegs() {
  const left = [...children];
  for (const child of left) child.kill('SIGTERM');
  await Promise.race([Promise.all(left.map(child => child.ended)), sleep(5000)]);
  for (const child of children) child.kill('SIGKILL');
}

let newest;
/** The FFmpeg of imageio-ffmpeg, which knows Enhanced RTMP. */
export function newerFfmpeg() {
  newest ??= execFileSync(python, ['-c', 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())'], { encoding: 'utf8' }).trim();
  return newest;
}

/** Runs FFmpeg; `{ stop(), ended }`, where `ended` gives `{ code, stdout, stderr }`. */
export function ffmpeg(words, { newer = false } = {}) {
  const child = start(newer ? newerFfmpeg() : 'ffmpeg', ['-hide_banner', '-nostdin', '-loglevel', 'warning', '-y', ...words]);
  return {
    ended: child.ended,
    /** As Ctrl-C does: the first one is heard between packets, the second one while it waits for one. */
    async stop() {
      child.kill('SIGINT');
      if (await Promise.race([child.ended, sleep(300)])) return child.ended;
      child.kill('SIGINT');
      return child.ended;
    },
  };
}

/** Runs FFmpeg to its end, which must be a good one. */
export async function ffmpegDone(words, options) {
  const { code, stdout, stderr } = await ffmpeg(words, options).ended;
  assert.equal(code, 0, `ffmpeg ${words.join(' ')}: ${stderr.slice(-500)}`);
  return stdout;
}

export const BASELINE = ['-c:v', 'libx264', '-preset', 'veryfast', '-tune', 'zerolatency', '-x264-params', 'sliced-threads=0', '-profile:v', 'baseline', '-b:v', '1200k', '-g', '60', '-sc_threshold', '0'];
export const AAC = ['-c:a', 'aac', '-b:a', '96k', '-ar', '48000', '-ac', '2'];

/**
 * Publishes the stamped picture. `source`: `{ seconds, size, fps, filter, video, audio, newer, extra }`, where video and
 * audio are FFmpeg's options, or null for a stream without. Returns `{ stop(), ended }`: what ffmpeg-push.py printed.
 */
export function push(url, source = {}) {
  const { seconds = 60, size = '640x480', fps = 30, filter = '', video = BASELINE, audio = AAC, newer = false, extra = [] } = source;
  const words = [path.join(tests, 'e2e/ffmpeg-push.py'), url, '--seconds', String(seconds), '--size', size, '--fps', String(fps), '--filter', filter];
  if (!video) words.push('--no-video');
  if (!audio) words.push('--no-audio');
  if (newer) words.push('--newer');
  const child = start(python, [...words, '--', ...(video ?? []), ...(audio ?? []), ...extra]);
  const ended = child.ended.then(parsed);
  // Nobody may be waiting when it fails.
  ended.catch(() => {});
  return {
    ended,
    stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}

/** Plays with FFmpeg and reads the stamps: the figures of ffmpeg-pull.py. */
export async function pull(url, { seconds = 6, warmup = 2, patience = 15, fast = false, newer = false, audio = true } = {}) {
  const words = [path.join(tests, 'e2e/ffmpeg-pull.py'), url, '--seconds', String(seconds), '--warmup', String(warmup), '--patience', String(patience)];
  if (fast) words.push('--fast');
  if (newer) words.push('--newer');
  if (!audio) words.push('--no-audio');
  return parsed(await start(python, words).ended);
}

function parsed({ code, stdout, stderr }) {
  try {
    return JSON.parse(stdout.trim().split('\n').at(-1));
  } catch {
    throw new Error(`ended with ${code} and no JSON: ${stderr.slice(-500)}`);
  }
}

/** The stream in the API, or undefined. */
export async function streamOf(server, name) {
  return (await server.api('/api/v1/streams/?count=1000')).streams.find(one => one.name === name);
}

/** Waits until a publisher's tracks are known; the stream in the API. */
export async function live(server, name, publisher, { video = true, audio = true } = {}) {
  let over;
  publisher?.ended.then(result => (over = result), error => (over = error));
  return until(`${name} is live`, 15_000, async () => {
    if (over) throw new Error(`the publisher has ended: ${over.log ?? over.stderr ?? over.message}`);
    const stream = await streamOf(server, name);
    return stream?.publish.active && (!video || stream.video) && (!audio || stream.audio) && stream;
  });
}

/** The packets of a file or stream as FFmpeg lists them: `{ stream, dts, pts, size, md5 }` of each. */
export function packets(framemd5) {
  return framemd5
    .split('\n')
    .filter(line => line && !line.startsWith('#'))
    .map(line => line.split(',').map(word => word.trim()))
    .filter(words => words.length >= 6)
    .map(([stream, dts, pts, , size, md5]) => ({ stream: Number(stream), dts: Number(dts), pts: Number(pts), size: Number(size), md5 }));
}
