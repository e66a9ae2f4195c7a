#!/usr/bin/env node
// Plays with werift and looks at the RTP itself: sequence numbers, timestamps, SSRCs. Decodes nothing.
//   werift-whep.mjs URL [--codec VP8|H264] [--seconds 10]
// Prints one JSON object with a record each for audio and video.
import { parseArgs } from 'node:util';
import { RTCPeerConnection, RTCRtpCodecParameters } from 'werift';

const text = { type: 'string' };
const { values: options, positionals: [url] } = parseArgs({ allowPositionals: true, options: { codec: text, seconds: text } });
const feedback = [{ type: 'nack' }, { type: 'nack', parameter: 'pli' }];
const VIDEO = {
  H264: { mimeType: 'video/H264', parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' },
  VP8: { mimeType: 'video/VP8' },
};
const pc = new RTCPeerConnection({
  iceUseIpv6: false,
  // When no server is named werift asks a public one; this one is not there.
  iceServers: [{ urls: 'stun:127.0.0.1:9' }],
  codecs: {
    audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: 48000, channels: 2, payloadType: 111 })],
    video: [new RTCRtpCodecParameters({ ...VIDEO[options.codec ?? 'VP8'], clockRate: 90000, payloadType: 96, rtcpFeedback: feedback })],
  },
});

const CLOCK_KHZ = { audio: 48, video: 90 };
const seen = {};

function note(record, header, khz) {
  const now = Date.now();
  record.packets++;
  record.ssrcs.add(header.ssrc);
  if (record.lastNumber === undefined) {
    record.lastNumber = header.sequenceNumber;
  } else {
    const step = (header.sequenceNumber - record.lastNumber) & 0xffff;
    if (step === 0 || step > 0x8000) {
      record.gaps--; // A late packet fills a gap that was counted.
      return;
    }
    record.gaps += step - 1;
    record.lastNumber = header.sequenceNumber;
    const ticks = (header.timestamp - record.lastTimestamp) | 0;
    if (ticks < 0) record.backwards++;
    if (now - record.lastAt > record.longestPauseMs) {
      record.longestPauseMs = now - record.lastAt;
      record.longestStepMs = Math.round(ticks / khz);
    }
  }
  record.lastTimestamp = header.timestamp;
  record.lastAt = now;
}

for (const kind of ['audio', 'video']) {
  pc.addTransceiver(kind, { direction: 'recvonly' }).onTrack.subscribe(track => {
    const record = (seen[kind] = { packets: 0, gaps: 0, backwards: 0, longestPauseMs: 0, longestStepMs: 0, ssrcs: new Set() });
    track.onReceiveRtp.subscribe(({ header }) => note(record, header, CLOCK_KHZ[kind]));
  });
}
await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: pc.localDescription.sdp });
const answer = await response.text();
const result = { status: response.status };
if (response.ok) {
  await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  await new Promise(done => setTimeout(done, (options.seconds ?? 10) * 1000));
  for (const [kind, { packets, gaps, backwards, longestPauseMs, longestStepMs, ssrcs }] of Object.entries(seen)) {
    result[kind] = { packets, gaps, backwards, longestPauseMs, longestStepMs, ssrcs: ssrcs.size };
  }
  await fetch(new URL(response.headers.get('location'), url), { method: 'DELETE' });
} else {
  result.error = answer.slice(0, 300);
}
console.log(JSON.stringify(result));
process.exit(0);
