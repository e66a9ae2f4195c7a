// Publishes a MediaStream over WHIP (RFC 9725).
//
//   const client = new WhipClient({ endpoint: '/whip/live/cam', codec: 'H264', maxBitrate: 2_500_000 });
//   client.addEventListener('statechange', () => console.log(client.state, client.error));
//   client.publish(await navigator.mediaDevices.getUserMedia({ video: true, audio: true }));

import { Session, SessionError } from './session.js';
import { withStereoOpus } from './sdpfrag.js';

export { SessionError };

/**
 * @typedef {import('./session.js').SessionOptions & {codec?: string, maxBitrate?: number, reserve?: TrackKind[]}} WhipOptions
 *   codec: name as in the media type ("H264"); maxBitrate: of the video, bit/s; reserve: kinds that are negotiated even
 *   without a track, since WHIP cannot negotiate again when one is added later
 */

/** @typedef {'audio' | 'video'} TrackKind */

export class WhipClient extends Session {
  #codec;
  #maxBitrate;
  #reserve;
  #stream = new MediaStream();

  /** @param {WhipOptions} options */
  constructor(options) {
    super(options);
    this.#codec = options.codec ?? '';
    this.#maxBitrate = options.maxBitrate ?? 0;
    this.#reserve = options.reserve ?? [];
  }

  /** @param {MediaStream} stream */
  publish(stream) {
    this.#stream = stream;
    void this.run();
  }

  /** Swaps camera or microphone without a new session. @param {MediaStreamTrack} track */
  async replaceTrack(track) {
    await this.setTrack(/** @type {TrackKind} */ (track.kind), track);
  }

  /** Sends that track, or nothing, from now on. @param {TrackKind} kind @param {MediaStreamTrack | null} track */
  async setTrack(kind, track) {
    for (const old of this.#stream.getTracks()) if (old.kind === kind) this.#stream.removeTrack(old);
    if (track) this.#stream.addTrack(track);
    const sender = this.pc?.getTransceivers().find((t) => t.receiver.track.kind === kind)?.sender;
    await sender?.replaceTrack(track);
  }

  /** @param {number} bitsPerSecond  0: leave it to the browser */
  async setMaxBitrate(bitsPerSecond) {
    this.#maxBitrate = bitsPerSecond;
    const sender = this.pc?.getTransceivers().find((t) => t.receiver.track.kind === 'video')?.sender;
    const parameters = sender?.getParameters();
    if (!sender || !parameters?.encodings?.length) return;
    if (bitsPerSecond) parameters.encodings[0].maxBitrate = bitsPerSecond;
    else delete parameters.encodings[0].maxBitrate;
    await sender.setParameters(parameters);
  }

  /** @override @param {RTCPeerConnection} pc */
  prepare(pc) {
    // Audio first: the order players and recorders expect.
    this.#offerKind(pc, 'audio', this.#stream.getAudioTracks());
    this.#offerKind(pc, 'video', this.#stream.getVideoTracks());
  }

  /** @param {RTCPeerConnection} pc @param {TrackKind} kind @param {MediaStreamTrack[]} tracks */
  #offerKind(pc, kind, tracks) {
    const isReserved = tracks.length === 0 && this.#reserve.includes(kind);
    for (const media of isReserved ? [kind] : tracks) {
      const transceiver = pc.addTransceiver(media, {
        direction: 'sendonly',
        streams: [this.#stream],
        sendEncodings: kind === 'video' && this.#maxBitrate ? [{ maxBitrate: this.#maxBitrate }] : undefined,
      });
      if (kind === 'video' && this.#codec) preferCodec(transceiver, this.#codec);
    }
  }

  /** @override @param {string} sdp */
  tuneOffer(sdp) {
    return this.#stream.getAudioTracks()[0]?.getSettings().channelCount === 2 ? withStereoOpus(sdp) : sdp;
  }

  /**
   * After a lost connection the server may hold the stream for the session it has not yet missed.
   * @override @param {SessionError} error @param {boolean} wasLive
   */
  passes(error, wasLive) {
    return super.passes(error, wasLive) || (wasLive && error.status === 409);
  }
}

/** Video codecs this browser can send, best known first: "H264", "VP8"… */
export function sendableVideoCodecs() {
  const found = RTCRtpSender.getCapabilities?.('video')?.codecs.map((c) => c.mimeType.slice('video/'.length)) ?? [];
  return ['H264', 'VP8', 'VP9', 'AV1', 'H265'].filter((name) => found.includes(name));
}

/** @param {RTCRtpTransceiver} transceiver @param {string} codec */
function preferCodec(transceiver, codec) {
  const all = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
  const wanted = all.filter((c) => c.mimeType.toLowerCase() === `video/${codec.toLowerCase()}`);
  if (!wanted.length) {
    throw new SessionError({ kind: 'codec-missing', title: `This browser cannot encode ${codec}` });
  }
  const repair = all.filter((c) => /\/(rtx|red|ulpfec)$/i.test(c.mimeType));
  transceiver.setCodecPreferences?.([...wanted, ...repair]);
}
