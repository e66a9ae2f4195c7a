// Figures a person can read, from the difference of two getStats() reports (W3C webrtc-stats).

/**
 * @typedef {object} Figures  undefined: not known (yet)
 * @property {number} [kbps]             all media
 * @property {number} [videoKbps]
 * @property {number} [audioKbps]
 * @property {number} [rttMs]
 * @property {number} [lossPercent]      of the packets since the last sample
 * @property {number} [fps]
 * @property {number} [width]
 * @property {number} [height]
 * @property {string} [videoCodec]
 * @property {string} [audioCodec]
 * @property {number} [jitterBufferMs]   mean time in the jitter buffer since the last sample
 * @property {number} [freezes]          since the connection began
 * @property {number} [frozenMs]
 * @property {number} [audioLevel]       0…1
 * @property {string} [limitedBy]        what holds the encoder back: "bandwidth", "cpu"
 * @property {string} [path]             transport and remote address in use
 * @property {number} mediaBytes         grows while media flows
 */

/** @typedef {Record<string, any>} Report */

export class StatsMeter {
  #pc;
  /** @type {Map<string, Report>} */
  #last = new Map();

  /** @param {RTCPeerConnection} pc */
  constructor(pc) {
    this.#pc = pc;
  }

  /** @returns {Promise<Figures>} */
  async sample() {
    /** @type {Map<string, Report>} */
    const now = new Map();
    (await this.#pc.getStats()).forEach((report) => now.set(report.id, report));
    const last = this.#last;
    this.#last = now;
    /** @type {Figures} */
    const figures = { mediaBytes: 0 };
    for (const report of now.values()) {
      const before = last.get(report.id);
      switch (report.type) {
        case 'inbound-rtp':
          received(figures, report, before, now);
          break;
        case 'outbound-rtp':
          sent(figures, report, before, now);
          break;
        case 'remote-inbound-rtp':
          reported(figures, report, before, now.get(report.localId), last.get(report.localId));
          break;
        case 'media-source':
          if (report.kind === 'audio') figures.audioLevel = report.audioLevel;
          break;
        case 'candidate-pair':
          if (report.nominated && report.state === 'succeeded') path(figures, report, now);
          break;
      }
    }
    return figures;
  }
}

/** @param {Figures} figures @param {Report} report @param {Report | undefined} before @param {Map<string, Report>} all */
function received(figures, report, before, all) {
  flow(figures, report, before, all, report.bytesReceived, before?.bytesReceived);
  if (before) {
    const lost = report.packetsLost - before.packetsLost;
    const arrived = report.packetsReceived - before.packetsReceived;
    if (lost + arrived > 0) worst(figures, (100 * Math.max(0, lost)) / (lost + arrived));
  }
  if (report.kind === 'audio') {
    figures.audioLevel = report.audioLevel;
    return;
  }
  picture(figures, report, before, report.framesDecoded, before?.framesDecoded);
  figures.freezes = report.freezeCount;
  figures.frozenMs = report.totalFreezesDuration === undefined ? undefined : report.totalFreezesDuration * 1000;
  const emitted = before ? report.jitterBufferEmittedCount - before.jitterBufferEmittedCount : 0;
  if (before && emitted > 0) figures.jitterBufferMs = (1000 * (report.jitterBufferDelay - before.jitterBufferDelay)) / emitted;
}

/** @param {Figures} figures @param {Report} report @param {Report | undefined} before @param {Map<string, Report>} all */
function sent(figures, report, before, all) {
  flow(figures, report, before, all, report.bytesSent, before?.bytesSent);
  if (report.kind !== 'video') return;
  picture(figures, report, before, report.framesEncoded, before?.framesEncoded);
  if (report.qualityLimitationReason && report.qualityLimitationReason !== 'none') figures.limitedBy = report.qualityLimitationReason;
}

/**
 * The receiver's view of what was sent. `fractionLost` covers only the last report, so the counters are preferred.
 * @param {Figures} figures
 * @param {Report} report
 * @param {Report | undefined} before
 * @param {Report | undefined} outbound
 * @param {Report | undefined} outboundBefore
 */
function reported(figures, report, before, outbound, outboundBefore) {
  if (report.roundTripTime !== undefined) figures.rttMs ??= report.roundTripTime * 1000;
  const packets = outbound && outboundBefore ? outbound.packetsSent - outboundBefore.packetsSent : 0;
  if (before && packets > 0) worst(figures, Math.min(100, (100 * Math.max(0, report.packetsLost - before.packetsLost)) / packets));
}

/** @param {Figures} figures @param {Report} pair @param {Map<string, Report>} all */
function path(figures, pair, all) {
  if (pair.currentRoundTripTime !== undefined) figures.rttMs = pair.currentRoundTripTime * 1000;
  const local = all.get(pair.localCandidateId);
  const remote = all.get(pair.remoteCandidateId);
  if (!remote) return;
  const address = remote.address?.includes(':') ? `[${remote.address}]` : remote.address;
  const protocol = (local?.protocol ?? remote.protocol ?? '').toUpperCase();
  // Browsers hide the address of a peer-reflexive candidate.
  figures.path = address ? `${protocol} ${address}:${remote.port}` : `${protocol} port ${remote.port}`;
}

/**
 * @param {Figures} figures
 * @param {Report} report
 * @param {Report | undefined} before
 * @param {Map<string, Report>} all
 * @param {number} bytes
 * @param {number | undefined} bytesBefore
 */
function flow(figures, report, before, all, bytes, bytesBefore) {
  figures.mediaBytes += bytes;
  const codec = all.get(report.codecId)?.mimeType?.split('/')[1];
  if (report.kind === 'video') figures.videoCodec ??= codec;
  else figures.audioCodec ??= codec;
  if (!before || bytesBefore === undefined || report.timestamp <= before.timestamp) return;
  const kbps = (8 * (bytes - bytesBefore)) / (report.timestamp - before.timestamp);
  figures.kbps = (figures.kbps ?? 0) + kbps;
  if (report.kind === 'video') figures.videoKbps = (figures.videoKbps ?? 0) + kbps;
  else figures.audioKbps = (figures.audioKbps ?? 0) + kbps;
}

/**
 * @param {Figures} figures
 * @param {Report} report
 * @param {Report | undefined} before
 * @param {number} frames
 * @param {number | undefined} framesBefore
 */
function picture(figures, report, before, frames, framesBefore) {
  if (report.frameWidth) {
    figures.width = report.frameWidth;
    figures.height = report.frameHeight;
  }
  if (before && framesBefore !== undefined && report.timestamp > before.timestamp) {
    figures.fps = (1000 * (frames - framesBefore)) / (report.timestamp - before.timestamp);
  }
}

/** @param {Figures} figures @param {number} lossPercent */
function worst(figures, lossPercent) {
  figures.lossPercent = Math.max(figures.lossPercent ?? 0, lossPercent);
}
