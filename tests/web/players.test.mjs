// node --test: the players' parts that need no browser.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
const root = new URL('../../', import.meta.url).pathname;
const lib = `${root}web/lib`;
const { FlvDemuxer } = await import(`${lib}/flv.js`);
const { Mp4Track } = await import(`${lib}/mp4.js`);
const { codecString, pictureSize } = await import(`${lib}/codecs.js`);
const { parseMaster, parseMedia, startIndex } = await import(`${lib}/m3u8.js`);
const { following } = await import(`${lib}/llhls.js`);

const fixture = name => new Uint8Array(fs.readFileSync(`${root}bridge/tests/data/${name}`));

/** Feeds a file in pieces of that size. */
function demux(bytes, size) {
  const demuxer = new FlvDemuxer();
  const all = { tracks: [], frames: [] };
  for (let at = 0; at < bytes.length; at += size) {
    const { tracks, frames } = demuxer.push(bytes.subarray(at, at + size));
    all.tracks.push(...tracks);
    all.frames.push(...frames.map(frame => ({ ...frame, data: Buffer.from(frame.data).toString('hex') })));
  }
  return all;
}

test('FLV in pieces of any size gives the same frames', () => {
  for (const name of ['bframes-pyramid.flv', 'click-aac.flv', 'click-mp3.flv', 'interlaced.flv', 'high10.flv']) {
    const whole = demux(fixture(name), 1 << 20);
    assert.ok(whole.tracks.length === 1 && whole.frames.length > 3, name);
    for (const size of [1, 7, 1000]) assert.deepEqual(demux(fixture(name), size).frames, whole.frames, `${name} by ${size}`);
  }
});

test('tracks tell codec, size and sound', () => {
  const known = name => demux(fixture(name), 4096).tracks.map(({ codec, codecString: text, width, height, sampleRate, channels }) => [codec, text, width, height, sampleRate, channels])[0];
  const [codec, text, width, height] = known('bframes-pyramid.flv');
  assert.deepEqual([codec, text.slice(0, 5), width > 0 && width % 2 === 0, height > 0], ['avc1', 'avc1.', true, true]);
  assert.deepEqual(known('click-aac.flv').slice(0, 2), ['mp4a', 'mp4a.40.2']);
  assert.equal(known('click-mp3.flv')[1], 'mp3');
});

test('H.265 and AV1 records of real encoders', () => {
  const record = name => Uint8Array.from(Buffer.from(fs.readFileSync(`${root}src/media/tests/data/${name}.hex`, 'utf8').replace(/[^0-9a-f]/gi, ''), 'hex'));
  assert.match(codecString('hvc1', record('hvcc')), /^hvc1\.\d\.[0-9a-f]+\.[LH]\d+(\.[0-9a-f]+)*$/);
  const { width, height } = pictureSize('hvc1', record('hvcc'));
  assert.ok(width >= 16 && width <= 4096 && height >= 16 && height <= 4096, `${width} × ${height}`);
});

test('what is not FLV, or damaged, is an error and never a hang', () => {
  assert.throws(() => new FlvDemuxer().push(new Uint8Array(100)), /not FLV/);
  const bytes = fixture('bframes-pyramid.flv');
  let seed = 7;
  const random = () => (seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  for (let round = 0; round < 300; round++) {
    const damaged = bytes.slice(0, 4000);
    for (let i = 0; i < 20; i++) damaged[13 + Math.floor(random() * 3987)] = Math.floor(random() * 256);
    try {
      demux(damaged, 512);
    } catch (error) {
      assert.ok(error instanceof Error && !(error instanceof RangeError) && !(error instanceof TypeError), `round ${round}: ${error.stack}`);
    }
  }
});

/** The boxes of a level: `[type, payload]` of each. */
function boxes(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at);
    const length = view.getUint32(0);
    assert.ok(length >= 8 && at + length <= bytes.length, `a box of ${length} bytes at ${at} of ${bytes.length}`);
    found.push([Buffer.from(bytes.subarray(at + 4, at + 8)).toString('latin1'), bytes.subarray(at + 8, at + length)]);
    at += length;
  }
  return found;
}

test('a fragment holds the frames as they are, one after the other in time', () => {
  const demuxer = new FlvDemuxer();
  const { tracks, frames } = demuxer.push(fixture('bframes-pyramid.flv'));
  const muxer = new Mp4Track(tracks[0]);
  assert.deepEqual(boxes(muxer.initSegment()).map(([type]) => type), ['ftyp', 'moov']);
  let end = null;
  for (let i = 0; i + 5 < frames.length; i += 5) {
    const some = frames.slice(i, i + 5);
    const [[moof, header], [mdat, data]] = boxes(muxer.fragment(some, frames[i + 5].dtsMs));
    assert.deepEqual([moof, mdat], ['moof', 'mdat']);
    assert.deepEqual(Buffer.from(data), Buffer.concat(some.map(frame => frame.data)));
    const traf = Object.fromEntries(boxes(Object.fromEntries(boxes(header)).traf));
    const start = Number(new DataView(traf.tfdt.buffer, traf.tfdt.byteOffset).getBigUint64(4));
    assert.equal(start, some[0].dtsMs);
    if (end !== null) assert.equal(start, end, 'no hole between fragments');
    const run = new DataView(traf.trun.buffer, traf.trun.byteOffset);
    end = start;
    for (let n = 0; n < run.getUint32(4); n++) {
      assert.equal(run.getUint32(12 + 16 * n + 4), some[n].data.length);
      assert.equal(end + run.getInt32(12 + 16 * n + 12), some[n].ptsMs);
      end += run.getUint32(12 + 16 * n);
    }
    // The data begins where the run says it does, counted from the fragment.
    assert.equal(run.getUint32(8), header.length + 8 + 8);
  }
});

const BASE = 'http://h/hls/live/cam/media.m3u8?token=t';
const HEAD = '#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6,CAN-SKIP-UNTIL=12\n#EXT-X-PART-INF:PART-TARGET=0.2\n';
const part = (n, p, key) => `#EXT-X-PART:DURATION=0.2,URI="part-${n}.${p}.m4s"${key ? ',INDEPENDENT=YES' : ''}\n`;

test('a low-latency playlist: whole segments, parts, the next one and the hint', () => {
  const text = `${HEAD}#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI="init-1.mp4"\n#EXTINF:2.0,\nseg-7.m4s\n${part(8, 0, true)}${part(8, 1)}#EXTINF:0.4,\nseg-8.m4s\n${part(9, 0, true)}${part(9, 1)}${part(9, 2)}${part(9, 3)}#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-9.4.m4s"\n`;
  const playlist = parseMedia(text, BASE);
  assert.deepEqual(playlist.pieces.map(({ msn, part }) => [msn, part]), [[7, null], [8, 0], [8, 1], [9, 0], [9, 1], [9, 2], [9, 3]]);
  assert.equal(playlist.pieces[0].url, 'http://h/hls/live/cam/seg-7.m4s');
  assert.equal(playlist.pieces[6].map, 'http://h/hls/live/cam/init-1.mp4');
  assert.deepEqual([playlist.next, playlist.hint, playlist.canBlock, playlist.holdBackSeconds], [{ msn: 9, part: 4 }, 'http://h/hls/live/cam/part-9.4.m4s', true, 0.6]);
  assert.equal(playlist.pieces[startIndex(playlist)].url, 'http://h/hls/live/cam/part-9.0.m4s');
  assert.deepEqual(following(playlist, playlist.pieces[4]).map(({ part }) => part), [2, 3]);
  assert.deepEqual(following(playlist, playlist.pieces[6]), []);
});

test('a player that has fallen out of the window begins again near the end; a new stream is noticed', () => {
  const text = `${HEAD}#EXT-X-MEDIA-SEQUENCE:50\n#EXTINF:2.0,\nseg-50.m4s\n${part(51, 0, true)}${part(51, 1)}${part(51, 2)}`;
  const playlist = parseMedia(text, BASE);
  const at = (msn, part) => ({ ...playlist.pieces[0], msn, part });
  assert.deepEqual(following(playlist, at(40, 3)).map(({ msn, part }) => [msn, part]), [[51, 0], [51, 1], [51, 2]]);
  assert.deepEqual(following(playlist, at(50, null)).length, 3);
  assert.throws(() => following(playlist, at(90, 0)), /begun anew/);
});

test('beginning behind a discontinuity stays behind it', () => {
  const text = `${HEAD}#EXT-X-MEDIA-SEQUENCE:1\n${part(1, 0, true)}${part(1, 1)}#EXTINF:0.4,\nseg-1.m4s\n#EXT-X-DISCONTINUITY\n${part(2, 0, true)}`;
  const playlist = parseMedia(text, BASE);
  assert.deepEqual(playlist.pieces.map(({ era }) => era), [0, 0, 1]);
  assert.equal(startIndex(playlist), 2);
  assert.deepEqual(playlist.next, { msn: 2, part: 1 });
});

test('the best rendition of a master playlist, addresses and quoted commas intact', () => {
  const text = '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS="avc1.42e01e,mp4a.40.2"\nlow.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=900,CODECS="avc1.64001f,opus",RESOLUTION=1280x720\nmedia.m3u8?token=t\n';
  assert.deepEqual(parseMaster(text, 'http://h/hls/live/cam/index.m3u8')[0], { url: 'http://h/hls/live/cam/media.m3u8?token=t', codecs: 'avc1.64001f,opus', bandwidth: 900 });
  assert.throws(() => parseMedia('<html>', BASE), /no playlist/);
});
