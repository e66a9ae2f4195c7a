// Reads HLS playlists (RFC 8216bis): as much of them as a live player of one rendition needs.

/**
 * @typedef {object} Piece  a part, or a whole segment where its parts are not listed (`part` null)
 * @property {number} msn   media sequence number of the segment
 * @property {number | null} part
 * @property {string} url
 * @property {number} seconds
 * @property {boolean} isIndependent  begins with a keyframe
 * @property {number} era   grows with every discontinuity
 * @property {string} map   address of the initialisation section
 */

/**
 * @typedef {object} Playlist
 * @property {number} targetSeconds
 * @property {number} holdBackSeconds  distance to the end that the server advises
 * @property {boolean} canBlock
 * @property {Piece[]} pieces
 * @property {{msn: number, part: number}} next  the part that follows the last one listed
 * @property {string} hint  address of a part that is about to come, or empty
 * @property {boolean} hasEnded
 */

/** Without a word from the server (§4.4.3.8). */
const TARGETS_BEHIND = 3;

/** A list of attributes (§4.2). @param {string} text @returns {Record<string, string>} */
function attributes(text) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const [, name, quoted, bare] of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g)) found[name] = quoted ?? bare;
  return found;
}

/** @param {string} text @returns {boolean} */
export function isMaster(text) {
  return text.includes('#EXT-X-STREAM-INF');
}

/** @param {string} text @param {string} base @returns {{url: string, codecs: string, bandwidth: number}[]} best first */
export function parseMaster(text, base) {
  const lines = text.split(/\r?\n/);
  const variants = lines.flatMap((line, i) => {
    if (!line.startsWith('#EXT-X-STREAM-INF:')) return [];
    const { CODECS = '', BANDWIDTH = '0' } = attributes(line.slice(line.indexOf(':') + 1));
    const uri = lines.slice(i + 1).find((next) => next && !next.startsWith('#'));
    return uri ? [{ url: new URL(uri, base).href, codecs: CODECS, bandwidth: Number(BANDWIDTH) }] : [];
  });
  return variants.sort((a, b) => b.bandwidth - a.bandwidth);
}

/** @param {string} text @param {string} base @returns {Playlist} throws on what is none */
export function parseMedia(text, base) {
  if (!text.startsWith('#EXTM3U')) throw new Error('the answer is no playlist');
  const address = (/** @type {string} */ uri) => new URL(uri, base).href;
  let [target, hold, partHold, msn, era, seconds] = [0, 0, 0, 0, 0, 0];
  let [map, hint, canBlock, hasEnded] = ['', '', false, false];
  /** @type {Piece[]} */
  const pieces = [];
  /** @type {Piece[]} */
  let parts = [];
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(':');
    const tag = line.startsWith('#') ? line.slice(0, colon < 0 ? undefined : colon) : '';
    const value = colon < 0 ? '' : line.slice(colon + 1);
    switch (tag) {
      case '':
        if (!line) break;
        // A segment's parts stand in front of it; once they are no longer listed it is taken as a whole.
        pieces.push(...(parts.length ? parts : [{ msn, part: null, url: address(line), seconds, isIndependent: true, era, map }]));
        parts = [];
        msn++;
        break;
      case '#EXT-X-TARGETDURATION':
        target = Number(value);
        break;
      case '#EXT-X-MEDIA-SEQUENCE':
        msn = Number(value);
        break;
      case '#EXT-X-DISCONTINUITY-SEQUENCE':
        era = Number(value);
        break;
      case '#EXT-X-DISCONTINUITY':
        era++;
        break;
      case '#EXT-X-SERVER-CONTROL': {
        const control = attributes(value);
        canBlock = control['CAN-BLOCK-RELOAD'] === 'YES';
        hold = Number(control['HOLD-BACK'] ?? 0);
        partHold = Number(control['PART-HOLD-BACK'] ?? 0);
        break;
      }
      case '#EXT-X-MAP':
        map = address(attributes(value).URI ?? '');
        break;
      case '#EXTINF':
        seconds = Number.parseFloat(value);
        break;
      case '#EXT-X-PART': {
        const part = attributes(value);
        parts.push({ msn, part: parts.length, url: address(part.URI ?? ''), seconds: Number(part.DURATION ?? 0), isIndependent: part.INDEPENDENT === 'YES', era, map });
        break;
      }
      case '#EXT-X-PRELOAD-HINT': {
        const { TYPE, URI = '' } = attributes(value);
        if (TYPE === 'PART') hint = address(URI);
        break;
      }
      case '#EXT-X-ENDLIST':
        hasEnded = true;
        break;
    }
  }
  pieces.push(...parts);
  const hasParts = pieces.some(({ part }) => part !== null);
  return {
    targetSeconds: target,
    holdBackSeconds: (hasParts && partHold) || hold || TARGETS_BEHIND * target,
    canBlock,
    pieces,
    next: { msn, part: parts.length },
    hint,
    hasEnded,
  };
}

/** Where to begin: at a keyframe, the advised distance from the end, behind the last discontinuity. @param {Playlist} playlist */
export function startIndex({ pieces, holdBackSeconds }) {
  const last = pieces[pieces.length - 1];
  let behind = 0;
  let start = -1;
  for (let i = pieces.length - 1; i >= 0 && pieces[i].era === last.era; i--) {
    behind += pieces[i].seconds;
    if (!pieces[i].isIndependent) continue;
    start = i;
    if (behind >= holdBackSeconds) break;
  }
  return start;
}
