// Reads and writes the few SDP lines that WHIP and WHEP exchange after the first answer
// (RFC 9725 §4.3, RFC 8840). Pure functions; everything else in an SDP is left to the browser.

/**
 * @typedef {object} IceSection
 * @property {string} mline  the whole `m=` line
 * @property {string} mid
 */

/**
 * @typedef {object} IceDescription
 * @property {string} ufrag
 * @property {string} pwd
 * @property {IceSection[]} sections
 */

/**
 * The ICE credentials and the media sections of a description.
 * @param {string} sdp
 * @returns {IceDescription}
 */
export function iceDescription(sdp) {
  /** @type {IceDescription} */
  const found = { ufrag: '', pwd: '', sections: [] };
  for (const line of lines(sdp)) {
    if (line.startsWith('m=')) found.sections.push({ mline: line, mid: '' });
    else if (line.startsWith('a=mid:') && found.sections.length) found.sections[found.sections.length - 1].mid = line.slice(6);
    else if (line.startsWith('a=ice-ufrag:')) found.ufrag ||= line.slice(12);
    else if (line.startsWith('a=ice-pwd:')) found.pwd ||= line.slice(10);
  }
  return found;
}

/**
 * The body of a PATCH: credentials, and candidates sorted under the section they belong to.
 * @param {string} sdp  the local offer
 * @param {RTCIceCandidate[]} candidates
 * @param {boolean} complete  gathering has ended
 */
export function iceFragment(sdp, candidates, complete) {
  const { ufrag, pwd, sections } = iceDescription(sdp);
  const out = ['a=ice-options:trickle ice2', `a=group:BUNDLE ${sections.map((s) => s.mid).join(' ')}`];
  sections.forEach((section, index) => {
    const own = candidates.filter((c) => c.sdpMid === section.mid);
    // Bundled: the first section carries the transport, so the others need no mention of their own.
    if (index > 0 && own.length === 0) return;
    out.push(section.mline, `a=mid:${section.mid}`, `a=ice-ufrag:${ufrag}`, `a=ice-pwd:${pwd}`);
    for (const c of own) out.push(`a=${c.candidate}`);
    if (complete && index === 0) out.push('a=end-of-candidates');
  });
  return out.join('\r\n') + '\r\n';
}

/**
 * The remote answer after an ICE restart: the old one with the credentials and candidates of the server's fragment.
 * @param {string} answer
 * @param {string} fragment
 */
export function restartedAnswer(answer, fragment) {
  const { ufrag, pwd } = iceDescription(fragment);
  const candidates = candidateLines(fragment);
  const out = [];
  let sections = 0;
  let placed = candidates.length === 0;
  for (const line of lines(answer)) {
    if (candidates.length && /^a=(candidate:|end-of-candidates)/.test(line)) continue;
    if (line.startsWith('m=') && ++sections === 2 && !placed) {
      out.push(...candidates);
      placed = true;
    }
    if (line.startsWith('o=')) out.push(nextVersion(line));
    else if (line.startsWith('a=ice-ufrag:')) out.push(`a=ice-ufrag:${ufrag}`);
    else if (line.startsWith('a=ice-pwd:')) out.push(`a=ice-pwd:${pwd}`);
    else out.push(line);
  }
  if (!placed) out.push(...candidates);
  return out.join('\r\n') + '\r\n';
}

/**
 * The addresses a description offers, for people: "udp 192.0.2.1:8000".
 * @param {string} sdp
 * @returns {string[]}
 */
export function candidateAddresses(sdp) {
  const found = candidateLines(sdp).map((line) => {
    const [, , transport, , address, port] = line.slice('a=candidate:'.length).split(' ');
    return `${transport.toLowerCase()} ${address.includes(':') ? `[${address}]` : address}:${port}`;
  });
  return [...new Set(found)];
}

/**
 * Asks for stereo Opus: browsers decode and encode mono unless the format parameters say otherwise (RFC 7587 §7.1).
 * @param {string} sdp
 */
export function withStereoOpus(sdp) {
  const opus = /^a=rtpmap:(\d+) opus\/48000\/2/im.exec(sdp);
  if (!opus) return sdp;
  const fmtp = new RegExp(`^a=fmtp:${opus[1]} .*$`, 'm');
  return sdp.replace(fmtp, (line) => (/\bstereo=/.test(line) ? line : `${line};stereo=1;sprop-stereo=1`));
}

/** @param {string} sdp */
function lines(sdp) {
  return sdp.split(/\r?\n/).filter((line) => line !== '');
}

/** @param {string} sdp */
function candidateLines(sdp) {
  return lines(sdp).filter((line) => line.startsWith('a=candidate:'));
}

/** @param {string} origin */
function nextVersion(origin) {
  const fields = origin.split(' ');
  fields[2] = /^\d+$/.test(fields[2]) ? String(BigInt(fields[2]) + 1n) : fields[2];
  return fields.join(' ');
}
