// Low-latency HLS: what its playlists promise is kept, and players are about a second behind.
import assert from 'node:assert/strict';
import { BASELINE, ffmpeg, ffmpegDone, live, push } from '../lib/ffmpeg.mjs';
import { figures, playInChromium } from '../lib/hls.mjs';
import { sleep, until } from '../lib/peers.mjs';
import { serverAndClients } from '../lib/setup.mjs';
import { group, test } from '../lib/suite.mjs';

const TOKEN = 's+e/c=';
const MAX_WHIP_DELAY_MS = 1500;
const MAX_TS_DELAY_MS = 4500;
/** What pages that want to be live tell hls.js: to catch up by playing faster. */
const CATCH_UP = { maxLiveSyncPlaybackRate: 1.5 };

const folderOf = (server, name) => `${server.base}/hls/live/${name}`;
const masterOf = (server, name) => `${folderOf(server, name)}/index.m3u8`;

/** A media playlist: its last segment's number, the parts of the open one, and all that it lists. */
function parse(text) {
  const value = pattern => pattern.exec(text)?.[1];
  const first = Number(value(/#EXT-X-MEDIA-SEQUENCE:(\d+)/));
  const segments = [...text.matchAll(/^seg-(\d+)\.m4s\S*$/gm)].map(([uri, number]) => ({ uri, number: Number(number) }));
  const skipped = Number(value(/SKIPPED-SEGMENTS=(\d+)/) ?? 0);
  const parts = [...text.matchAll(/#EXT-X-PART:DURATION=([\d.]+),URI="([^"]+)"/g)].map(([, seconds, uri]) => ({ seconds: Number(seconds), uri }));
  const open = text.slice(text.lastIndexOf('#EXTINF'));
  return {
    text, first, segments, skipped, parts,
    next: first + skipped + segments.length,
    openParts: [...open.matchAll(/#EXT-X-PART:/g)].length,
    partTarget: Number(value(/PART-TARGET=([\d.]+)/) ?? 0),
    target: Number(value(/TARGETDURATION:(\d+)/)),
    init: value(/#EXT-X-MAP:URI="([^"]+)"/),
    hint: value(/#EXT-X-PRELOAD-HINT:TYPE=PART,URI="([^"]+)"/),
    ended: text.includes('#EXT-X-ENDLIST'),
  };
}

async function ask(url) {
  const began = Date.now();
  const response = await fetch(url);
  const text = await response.text();
  return { status: response.status, headers: response.headers, took: Date.now() - began, text };
}

/** The media playlist once it has parts. */
async function withParts(url) {
  return until('parts', 15_000, async () => {
    const { status, text } = await ask(url);
    assert.equal(status, 200, text);
    const found = parse(text);
    return found.parts.length > 0 && found;
  });
}

/** A case: a browser publishes, hls.js plays at the live edge. */
function plays(codec, title, limit) {
  return test(title, 80, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls(codec).whip, { codec });
    const seen = await playInChromium(browsers, 'hls.js', masterOf(server, codec), { seconds: limit ? 6 : 3, warmup: limit ? 4 : 2, options: CATCH_UP });
    assert.ok(!limit || seen.p50 <= limit, figures(seen));
    await publisher.close();
    return figures(seen);
  });
}

group('low latency', serverAndClients(''), [
  test('requests wait for what they ask for, and for nothing that is far ahead', 60, async ({ server }) => {
    const publisher = push(server.urls('wait').rtmp, { size: '320x240' });
    await live(server, 'wait', publisher);
    const master = await ask(masterOf(server, 'wait'));
    assert.equal(master.status, 200, master.text);
    assert.match(master.text, /#EXT-X-STREAM-INF:BANDWIDTH=\d+,AVERAGE-BANDWIDTH=\d+,CODECS="avc1\.[0-9a-fA-F]{6},mp4a\.40\.2",RESOLUTION=320x240,FRAME-RATE=(29|30)[.\d]*\nmedia\.m3u8\n/);
    const url = `${folderOf(server, 'wait')}/media.m3u8`;
    let now = await withParts(url);
    // Part after part, as a player asks: each answer holds what was asked for, and comes when that is there.
    const waits = [];
    for (let i = 0; i < 12; i++) {
      const [sequence, part] = [now.next, now.openParts];
      const { status, headers, text, took } = await ask(`${url}?_HLS_msn=${sequence}&_HLS_part=${part}&_HLS_skip=YES`);
      assert.equal(status, 200, text);
      assert.equal(headers.get('cache-control'), `max-age=${6 * now.target}`);
      now = parse(text);
      assert.ok(now.next > sequence || now.openParts > part, `part ${part} of ${sequence} is not in ${text}`);
      waits.push(took);
    }
    for (const { seconds } of now.parts) assert.ok(seconds <= now.partTarget + 0.0005, `${seconds} s at a part target of ${now.partTarget} s`);
    const sorted = waits.toSorted((a, b) => a - b);
    assert.ok(sorted[6] > 60 && sorted[6] < 500, `answers after ${waits} ms`);
    const whole = await ask(`${url}?_HLS_msn=${now.next}`);
    assert.ok(whole.status === 200 && parse(whole.text).next > now.next && whole.took > 100, `${whole.took} ms`);
    for (const query of [`_HLS_msn=${now.next + 9}`, '_HLS_part=1', '_HLS_msn=x', `_HLS_msn=${now.next + 1}&_HLS_part=900`]) {
      const refused = await ask(`${url}?${query}`);
      assert.deepEqual([refused.status, refused.headers.get('cache-control')], [400, 'no-store'], query);
    }
    // The part that is hinted at is waited for, an old one is there, an unknown one is not.
    now = await withParts(url);
    const hinted = await fetch(new URL(now.hint, url));
    assert.deepEqual([hinted.status, hinted.headers.get('content-type'), hinted.headers.get('cache-control')], [200, 'video/mp4', 'max-age=86400, immutable']);
    const bytes = new Uint8Array(await hinted.arrayBuffer());
    assert.equal(String.fromCharCode(...bytes.slice(4, 8)), 'moof');
    for (const [uri, status] of [[now.parts[0].uri, 200], [now.segments[0].uri, 200], [now.init, 200], ['part-1.m4s', 404], ['seg-1.m4s', 404], ['init-1.mp4', 404]]) {
      assert.equal((await ask(new URL(uri, url))).status, status, uri);
    }
    await publisher.stop();
    // Nothing comes any more: who waits is told so within three target durations.
    const late = parse((await ask(url)).text);
    const vain = await ask(`${url}?_HLS_msn=${late.next}&_HLS_part=${late.openParts}`);
    assert.ok(vain.status === 503 && vain.took < 3 * late.target * 1000 + 1500, `${vain.status} after ${vain.took} ms`);
    return `answers after ${Math.min(...waits)} to ${Math.max(...waits)} ms, the last refusal after ${vain.took} ms`;
  }),
  plays('h264', `hls.js is at most ${MAX_WHIP_DELAY_MS} ms behind a browser that publishes H.264`, MAX_WHIP_DELAY_MS),
  plays('vp9', 'VP9 of a browser plays in hls.js'),
  plays('av1', 'AV1 of a browser plays in hls.js'),
  test('ffmpeg and Chromium itself play it, over HTTP/2 too', 80, async ({ server, browsers }) => {
    const publisher = push(server.urls('others').rtmp, { video: BASELINE });
    await live(server, 'others', publisher);
    const { code, stderr } = await ffmpeg(['-i', masterOf(server, 'others'), '-t', '4', '-f', 'null', '-']).ended;
    assert.ok(code === 0 && !/error|invalid|corrupt|non monoton/i.test(stderr), stderr);
    const secure = masterOf(server, 'others').replace(server.base, server.secure);
    await ffmpegDone(['-tls_verify', '0', '-i', secure, '-t', '2', '-c', 'copy', '-f', 'null', '-']);
    const hlsJs = await playInChromium(browsers, 'hls.js', secure, { seconds: 3, warmup: 2, options: CATCH_UP });
    const native = await playInChromium(browsers, 'native', masterOf(server, 'others'), { seconds: 3 });
    await publisher.stop();
    return `RTMP in, hls.js over HTTP/2 ${figures(hlsJs)}; Chromium ${figures(native)}`;
  }),
  test('MPEG-TS of a browser in segments of 2 s', 80, async ({ server, browsers }) => {
    const publisher = await browsers.publish(server.urls('ts').whip, { codec: 'h264' });
    const url = `${server.base}/live/ts.m3u8`;
    const seen = await playInChromium(browsers, 'hls.js', url, { seconds: 4, warmup: 3, options: { liveSyncDurationCount: 1, ...CATCH_UP } });
    const lengths = [...(await ask(url)).text.matchAll(/#EXTINF:([\d.]+)/g)].map(([, seconds]) => Number(seconds));
    assert.ok(lengths.slice(1).every(seconds => seconds > 1.8 && seconds < 2.4), `segments of ${lengths} s`);
    assert.ok(seen.p50 <= MAX_TS_DELAY_MS, figures(seen));
    await publisher.close();
    return `${figures(seen)}, segments of ${lengths.join(', ')} s`;
  }),
]);

group('low latency tokens', serverAndClients(`[play]\ntokens = ["${TOKEN}"]\n`), [
  test('every file needs the token, and playlists pass it on', 40, async ({ server }) => {
    const publisher = push(server.urls('secret').rtmp, { size: '320x240' });
    await live(server, 'secret', publisher);
    const master = masterOf(server, 'secret');
    assert.equal((await ask(master)).status, 401);
    const { text } = await ask(`${master}?token=${encodeURIComponent(TOKEN)}`);
    const media = new URL(/^media\.m3u8\S*$/m.exec(text)[0], master);
    assert.equal(media.searchParams.get('token'), TOKEN);
    const now = await withParts(media.href);
    for (const uri of [now.init, now.segments[0].uri, now.parts[0].uri, now.hint]) {
      const url = new URL(uri, media);
      assert.equal((await ask(url)).status, 200, uri);
      url.search = '';
      assert.equal((await ask(url)).status, 401, uri);
    }
    await sleep(100);
    await publisher.stop();
  }),
]);
