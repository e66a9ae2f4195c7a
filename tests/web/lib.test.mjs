// node --test: the pure parts of web/lib.
import assert from 'node:assert/strict';
import { test } from 'node:test';
const lib = new URL('../../web/lib/', import.meta.url).pathname;
const { candidateAddresses, iceFragment, restartedAnswer, withStereoOpus } = await import(`${lib}/sdpfrag.js`);
const { iceServers } = await import(`${lib}/resource.js`);
const { age, decode, encode } = await import(`${lib}/clock.js`);
const { StatsMeter } = await import(`${lib}/stats.js`);
const { diagnose } = await import(`${lib}/diagnose.js`);
const { SessionError } = await import(`${lib}/resource.js`);

const OFFER = ['v=0', 'o=- 1 2 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=group:BUNDLE 0 1',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=ice-ufrag:abcd', 'a=ice-pwd:0123456789012345678901', 'a=mid:0', 'a=rtpmap:111 opus/48000/2', 'a=fmtp:111 minptime=10;useinbandfec=1',
  'm=video 9 UDP/TLS/RTP/SAVPF 96', 'a=ice-ufrag:abcd', 'a=ice-pwd:0123456789012345678901', 'a=mid:1', ''].join('\r\n');
const ANSWER = ['v=0', 'o=- 5 7 IN IP4 0.0.0.0', 's=-', 't=0 0', 'a=ice-lite',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=mid:0', 'a=ice-ufrag:old', 'a=ice-pwd:oldoldoldoldoldoldoldo', 'a=candidate:1 1 udp 2130706431 192.0.2.1 8000 typ host', 'a=end-of-candidates',
  'm=video 9 UDP/TLS/RTP/SAVPF 96', 'a=mid:1', 'a=ice-ufrag:old', 'a=ice-pwd:oldoldoldoldoldoldoldo', ''].join('\r\n');

test('a fragment names the section of each candidate once', () => {
  const fragment = iceFragment(OFFER, [{ sdpMid: '0', candidate: 'candidate:1 1 udp 1 198.51.100.7 5000 typ host' }], true);
  assert.deepEqual(fragment.split('\r\n').slice(2), ['m=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=mid:0', 'a=ice-ufrag:abcd', 'a=ice-pwd:0123456789012345678901', 'a=candidate:1 1 udp 1 198.51.100.7 5000 typ host', 'a=end-of-candidates', '']);
});

test('a restart replaces credentials everywhere and candidates in the first section', () => {
  const fragment = 'm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:new\r\na=ice-pwd:newnewnewnewnewnewnewn\r\na=candidate:9 1 udp 1 192.0.2.9 8000 typ host\r\n';
  const answer = restartedAnswer(ANSWER, fragment);
  assert.equal(answer.match(/a=ice-ufrag:new/g).length, 2);
  assert.deepEqual(candidateAddresses(answer), ['udp 192.0.2.9:8000']);
  assert.ok(answer.indexOf('192.0.2.9') < answer.indexOf('m=video'));
  assert.match(answer, /^o=- 5 8 /m);
});

test('a restart without candidates keeps the old ones', () => {
  assert.deepEqual(candidateAddresses(restartedAnswer(ANSWER, 'a=ice-ufrag:n\r\na=ice-pwd:p\r\n')), ['udp 192.0.2.1:8000']);
});

test('stereo is asked for once', () => {
  const once = withStereoOpus(OFFER);
  assert.match(once, /useinbandfec=1;stereo=1;sprop-stereo=1\r\n/);
  assert.equal(withStereoOpus(once), once);
});

test('link headers with credentials and several servers', () => {
  assert.deepEqual(iceServers('<stun:a.example>; rel="ice-server", <turn:b.example?transport=udp>; rel="ice-server"; username="u,1"; credential="p\\"w"; credential-type="password", </x>; rel="next"'),
    [{ urls: 'stun:a.example' }, { urls: 'turn:b.example?transport=udp', username: 'u,1', credential: 'p"w' }]);
});

test('the clock survives its own coding and tells a damaged one', () => {
  const bytes = encode(1_700_000_123_456, 65_537);
  assert.deepEqual(decode(bytes), { timeMs: 1_700_000_123_456 % (1 << 24), frame: 1 });
  bytes[2] ^= 4;
  assert.equal(decode(bytes), null);
});

test('age wraps, and is negative for a clock ahead', () => {
  assert.equal(age((1 << 24) - 10, (1 << 24) * 3 + 5), 15);
  assert.equal(age(100, 60), -40);
});

test('figures come from differences', async () => {
  const report = (bytes, frames, t, lost, got) => new Map([['v', { id: 'v', type: 'inbound-rtp', kind: 'video', timestamp: t, bytesReceived: bytes, framesDecoded: frames, packetsLost: lost, packetsReceived: got, jitterBufferDelay: frames * 0.02, jitterBufferEmittedCount: frames }]]);
  const reports = [report(1000, 10, 1000, 0, 100), report(126_000, 40, 2000, 10, 190)];
  const meter = new StatsMeter({ getStats: async () => reports.shift() });
  assert.equal((await meter.sample()).kbps, undefined);
  const { kbps, fps, lossPercent, jitterBufferMs } = await meter.sample();
  assert.deepEqual([kbps, fps, lossPercent, Math.round(jitterBufferMs)], [1000, 30, 10, 20]);
});

test('a refusal is told in the words of the server, names unharmed', () => {
  const { what, remedy } = diagnose(new SessionError({ status: 409, kind: 'stream-busy', title: 'Stream busy', detail: 'live/cam has a publisher', hint: 'choose another name' }));
  assert.deepEqual([what, remedy], ['live/cam has a publisher.', 'Choose another name.']);
});

test('a failed connection lists what was tried', () => {
  const { details, remedy } = diagnose(new SessionError({ kind: 'ice-failed', title: 'x', candidates: ['udp 192.0.2.1:8000'] }));
  assert.deepEqual(details, ['tried udp 192.0.2.1:8000']);
  assert.match(remedy, /CANDIDATE/);
});
