// As much of SDP as the tests need: sections, attributes, and whether an answer agrees with its offer (RFC 3264, RFC 9429).
import assert from 'node:assert/strict';

/** Splits a description into its session part and its m-sections. */
export function parse(text) {
  const lines = text.split(/\r?\n/).filter(Boolean);
  const sections = [];
  const session = [];
  for (const line of lines) {
    if (line.startsWith('m=')) sections.push([]);
    (sections.at(-1) ?? session).push(line);
  }
  return {
    session,
    media: sections.map(section => {
      const [kind, port, proto, ...formats] = section[0].slice(2).split(' ');
      return { kind, port: Number(port), proto, formats, lines: section };
    }),
  };
}

/** All values of `a=NAME:` (or `a=NAME`, as the empty string) in those lines. */
export function values(lines, name) {
  return lines
    .filter(line => line === `a=${name}` || line.startsWith(`a=${name}:`))
    .map(line => line.slice(name.length + 3));
}

/** The value of an attribute in an m-section, or failing that of the session. */
export function value(description, section, name) {
  return values(section.lines, name)[0] ?? values(description.session, name)[0];
}

/** Payload type → lower-case encoding name. */
export function codecs(section) {
  const names = new Map([['0', 'pcmu'], ['8', 'pcma']].filter(([pt]) => section.formats.includes(pt)));
  for (const map of values(section.lines, 'rtpmap')) {
    const [pt, encoding] = map.split(' ');
    if (section.formats.includes(pt)) names.set(pt, encoding.split('/')[0].toLowerCase());
  }
  return names;
}

export function direction(description, section) {
  const all = ['sendrecv', 'sendonly', 'recvonly', 'inactive'];
  return all.find(name => section.lines.includes(`a=${name}`)) ?? all.find(name => description.session.includes(`a=${name}`)) ?? 'sendrecv';
}

/** Whether an m-section of an offer asks for something; port 0 with bundle-only is not a rejection (RFC 9143 §6). */
export function isOffered(section) {
  return section.port !== 0 || section.lines.includes('a=bundle-only');
}

const REPAIR = ['rtx', 'red', 'ulpfec', 'flexfec-03', 'cn', 'telephone-event'];
const MIRROR = { sendonly: ['recvonly', 'inactive'], recvonly: ['sendonly', 'inactive'], sendrecv: ['sendrecv', 'sendonly', 'recvonly', 'inactive'], inactive: ['inactive'] };
const SETUP = { actpass: ['active', 'passive'], active: ['passive'], passive: ['active'] };

/** Throws unless the answer is one that a browser takes for that offer. Returns the answer, parsed. */
export function assertAgrees(offerText, answerText) {
  const offer = parse(offerText);
  const answer = parse(answerText);
  assert.equal(answer.session[0], 'v=0', 'the answer begins with v=0');
  assert.ok(answerText.endsWith('\r\n') && !/[^\r]\n/.test(answerText), 'every line of the answer ends with CRLF');
  assert.ok(values(answer.session, 'ice-lite').length, 'a=ice-lite at session level (RFC 8839 §5.3)');
  assert.equal(answer.media.length, offer.media.length, 'as many m-lines as the offer has (RFC 3264 §6)');
  const accepted = answer.media.filter(section => section.port !== 0);
  assert.ok(accepted.length, 'at least one m-line is accepted');
  answer.media.forEach((section, i) => assertSectionAgrees(offer, offer.media[i], answer, section, `m-line ${i} (${section.kind})`));
  const bundle = values(answer.session, 'group').find(group => group.startsWith('BUNDLE'))?.split(' ').slice(1);
  assert.deepEqual(bundle, accepted.map(section => values(section.lines, 'mid')[0]), 'BUNDLE holds exactly the accepted mids');
  return answer;
}

function assertSectionAgrees(offer, asked, answer, section, where) {
  assert.equal(section.kind, asked.kind, `${where}: same kind as in the offer`);
  assert.equal(section.proto, asked.proto, `${where}: same protocol`);
  if (section.port === 0) return;
  assert.ok(isOffered(asked), `${where}: only accepted when offered`);
  assert.notEqual(section.kind, 'application', `${where}: data channels are refused with port 0`);
  assert.deepEqual(values(section.lines, 'mid'), values(asked.lines, 'mid'), `${where}: same mid`);
  assert.ok(section.lines.includes('a=rtcp-mux'), `${where}: rtcp-mux`);
  assert.ok(SETUP[value(offer, asked, 'setup') ?? 'active'].includes(value(answer, section, 'setup')), `${where}: a=setup fits the offer's (RFC 8842 §5.3)`);
  assert.ok(MIRROR[direction(offer, asked)].includes(direction(answer, section)), `${where}: direction mirrors the offer's`);
  assert.match(value(answer, section, 'ice-ufrag') ?? '', /^[A-Za-z0-9+/]{4,256}$/, `${where}: ice-ufrag`);
  assert.match(value(answer, section, 'ice-pwd') ?? '', /^[A-Za-z0-9+/]{22,256}$/, `${where}: ice-pwd`);
  assert.match(value(answer, section, 'fingerprint') ?? '', /^sha-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}$/, `${where}: fingerprint`);
  assertFormatsAgree(asked, section, where);
  assertExtensionsAgree(offer, asked, section, where);
  assertLayersAgree(asked, section, where);
}

function assertFormatsAgree(asked, section, where) {
  const offered = codecs(asked);
  const chosen = codecs(section);
  assert.ok([...chosen.values()].some(name => !REPAIR.includes(name)), `${where}: names a media codec`);
  for (const [pt, name] of chosen) assert.equal(name, offered.get(pt), `${where}: payload type ${pt} means what the offer says`);
  for (const format of section.formats) assert.ok(chosen.has(format), `${where}: payload type ${format} has its rtpmap`);
  for (const name of ['fmtp', 'rtcp-fb']) {
    for (const line of values(section.lines, name)) {
      const pt = line.split(' ')[0];
      assert.ok(pt === '*' || section.formats.includes(pt), `${where}: no a=${name} of a payload type that is not there (${pt})`);
    }
  }
  for (const fmtp of values(section.lines, 'fmtp')) {
    const apt = /\bapt=(\d+)/.exec(fmtp)?.[1];
    if (apt) assert.ok(section.formats.includes(apt), `${where}: rtx repairs a payload type that is there (${apt})`);
  }
}

function assertExtensionsAgree(offer, asked, section, where) {
  const offered = new Map([...values(offer.session, 'extmap'), ...values(asked.lines, 'extmap')].map(line => [line.split(' ')[1], line.split(/[ /]/)[0]]));
  for (const line of values(section.lines, 'extmap')) {
    assert.equal(line.split(/[ /]/)[0], offered.get(line.split(' ')[1]), `${where}: header extension ${line} has the offer's number (RFC 8285 §6)`);
  }
}

function assertLayersAgree(asked, section, where) {
  const simulcast = values(asked.lines, 'simulcast')[0];
  if (!simulcast) {
    assert.deepEqual(values(section.lines, 'rid'), [], `${where}: no rid that was not offered`);
    return;
  }
  const rids = simulcast.replace(/^send /, '').split(';');
  const received = values(section.lines, 'rid').map(line => line.split(' '));
  assert.deepEqual(received.map(([rid]) => rid), rids, `${where}: a=rid for every layer offered (RFC 8853 §5.3)`);
  assert.ok(received.every(([, way]) => way === 'recv'), `${where}: a=rid … recv`);
  assert.deepEqual(values(section.lines, 'simulcast'), [`recv ${rids.join(';')}`], `${where}: a=simulcast:recv`);
}
