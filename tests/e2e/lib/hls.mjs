// HLS as players and tests see it: playlists taken apart and held to the rules, pages that play.
import assert from 'node:assert/strict';
import path from 'node:path';
import { blankPage } from './browser.mjs';
import { sleep, until } from './peers.mjs';
import { tests } from './server.mjs';

/** A playlist, taken apart. */
export function parse(text) {
  const value = tag => Number(new RegExp(`#EXT-X-${tag}:(\\d+)`).exec(text)?.[1] ?? 0);
  const segments = [...text.matchAll(/(#EXT-X-DISCONTINUITY\n)?#EXT-X-PROGRAM-DATE-TIME:(\S+)\n#EXTINF:([\d.]+),\n(\S+)\n/g)];
  return {
    text,
    target: value('TARGETDURATION'),
    sequence: value('MEDIA-SEQUENCE'),
    ended: text.includes('#EXT-X-ENDLIST'),
    segments: segments.map(([, mark, date, seconds, uri]) => ({ discontinuous: Boolean(mark), at: Date.parse(date), seconds: Number(seconds), uri })),
  };
}

/** Asks for a playlist, which must be there. */
export async function playlist(url) {
  const response = await fetch(url);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.equal(response.headers.get('content-type'), 'application/vnd.apple.mpegurl');
  assert.equal(response.headers.get('cache-control'), 'max-age=1');
  return parse(text);
}

/** Reads the playlist until `done`, and holds every change to the rules. */
export async function watch(url, done, timeoutMs) {
  const seen = new Map();
  let last = null;
  await until(`the playlist of ${url}`, timeoutMs, async () => {
    const now = await playlist(url);
    assert.match(now.text, /^#EXTM3U\n#EXT-X-VERSION:3\n/);
    assert.ok(now.segments.length > 0, now.text);
    if (last) {
      assert.equal(now.target, last.target, 'the target duration never changes');
      assert.ok(now.sequence >= last.sequence, 'the sequence never goes back');
    }
    now.segments.forEach((segment, i) => {
      const number = Number(/-(\d+)\.ts/.exec(segment.uri)[1]);
      assert.equal(number, now.sequence + i, 'names are numbered without a gap');
      assert.ok(Math.round(segment.seconds) <= now.target, `${segment.seconds} s at a target of ${now.target} s`);
      const before = seen.get(number);
      if (before) assert.deepEqual(segment, before, 'a segment that is listed never changes');
      seen.set(number, segment);
    });
    last = now;
    return done(now, seen);
  });
  return { last, segments: [...seen.values()] };
}

/** A page plays the moving picture: what it saw in some seconds after a warm-up. `how`: "native" or "hls.js", with its options. */
export async function playInChromium(browsers, how, url, { seconds = 6, warmup = 0, options = {} } = {}) {
  const blank = await blankPage();
  try {
    const page = await browsers.page('chromium', blank.url);
    if (how === 'hls.js') await page.addScriptTag({ path: path.join(tests, 'node_modules/hls.js/dist/hls.js') });
    await page.evaluate(watchPicture, [how, url, options]);
    await until('a painted frame', 35_000, () => page.evaluate(() => globalThis.seen.painted > 5));
    await sleep(warmup * 1000);
    await page.evaluate(() => (globalThis.seen.ages.length = globalThis.seen.painted = 0));
    await sleep(seconds * 1000);
    const seen = await page.evaluate(() => {
      const protocols = performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol).filter(Boolean);
      return { ...globalThis.seen, protocols: [...new Set(protocols)] };
    });
    assert.deepEqual(seen.errors, []);
    const { ages, painted } = seen;
    assert.ok(painted > 10 * seconds && ages.length > 5 * seconds, `${painted} frames painted, ${ages.length} of them readable`);
    ages.sort((a, b) => a - b);
    return { ...seen, seconds, p50: ages[ages.length >> 1], p95: ages[Math.floor(ages.length * 0.95)] };
  } finally {
    blank.close();
  }
}

/** What playInChromium saw, as figures to print. */
export const figures = ({ painted, seconds, firstMs, attempts, p50, p95 }) =>
  `${painted} frames painted in ${seconds} s, first after ${firstMs} ms${attempts > 1 ? `, at attempt ${attempts}` : ''}, delay p50 ${p50} p95 ${p95} ms`;

/** In the page: plays and notes what it sees. */
function watchPicture([how, url, options]) {
  const seen = (globalThis.seen = { painted: 0, attempts: 0, ages: [], errors: [] });
  const video = document.createElement('video');
  Object.assign(video, { autoplay: true, muted: true, width: 640, crossOrigin: 'anonymous' });
  document.body.append(video);
  const began = performance.now();
  const note = () => {
    seen.firstMs ??= Math.round(performance.now() - began);
    seen.painted++;
    const stamp = Stamp.read(video);
    if (stamp.ok) seen.ages.push(stamp.age);
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  if (how === 'native') {
    // Chromium's own player is young and gives up for good at a playlist that it finds too short; a page asks again.
    const load = () => (video.src = `${url}${url.includes('?') ? '&' : '?'}attempt=${++seen.attempts}`);
    video.addEventListener('error', () => (seen.painted || seen.attempts > 3 ? seen.errors.push(video.error.message) : setTimeout(load, 1500)));
    load();
  } else {
    video.addEventListener('error', () => seen.errors.push(video.error.message));
    const hls = new Hls(options);
    hls.on(Hls.Events.ERROR, (_, data) => data.fatal && seen.errors.push(`${data.type}/${data.details}`));
    hls.loadSource(url);
    hls.attachMedia(video);
  }
  video.play().catch(() => {});
}
