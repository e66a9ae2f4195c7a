// Named cases with a deadline each. A case gets a context that opens sessions, and closes them when it is over.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { send } from './http.mjs';

const CASE_DEADLINE_MS = 20_000;
const offers = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../fixtures/offers');
const cases = [];

/** Declares a case. `needs` names options that the caller must have given (`srs`). */
export function test(name, rule, run, needs = []) {
  cases.push({ name, rule, run, needs });
}

/** A recorded offer. */
export function fixture(name) {
  return fs.readFileSync(path.join(offers, `${name}.sdp`), 'utf8');
}

/** Names of the recorded offers of that folder that hold `part`. */
export function fixtures(part, folder = '') {
  return fs.readdirSync(path.join(offers, folder)).filter(file => file.endsWith('.sdp') && file.includes(part)).map(file => path.join(folder, file.slice(0, -4))).sort();
}

/** A malformed offer, byte for byte. */
export function rawFixture(name) {
  return fs.readFileSync(path.join(offers, `${name}.sdp`));
}

export const SDP = { 'content-type': 'application/sdp' };
export const FRAGMENT = { 'content-type': 'application/trickle-ice-sdpfrag' };

class Context {
  constructor(options) {
    this.options = options;
    this.opened = [];
  }

  /** Two URLs of a stream that no other case uses. */
  stream() {
    const name = `c${process.pid}-${++Context.streams}`;
    const fill = url => (url.includes('{stream}') ? url.replaceAll('{stream}', name) : `${url}-${name}`);
    return { name, whip: fill(this.options.whip), whep: fill(this.options.whep) };
  }

  /** Posts an offer. Whatever session that opens is ended after the case. */
  async post(url, offer, headers = SDP) {
    const answer = await send('POST', url, { headers, body: offer });
    if (answer.headers.location) this.opened.push(answer.session = new URL(answer.headers.location, url).href);
    return answer;
  }

  /** Posts an offer that must be granted. */
  async open(url, offer, headers = SDP) {
    const answer = await this.post(url, offer, headers);
    assert.equal(answer.status, 201, `POST ${url}: ${answer.status} ${answer.body.slice(0, 200)}`);
    assert.ok(answer.session, 'a 201 has a Location');
    return answer;
  }

  async close() {
    for (const session of this.opened) await send('DELETE', session).catch(() => {});
  }
}
Context.streams = 0;

/** Fails unless the response is a problem document (RFC 9457) of that status that explains itself. */
export function assertProblem(response, ...statuses) {
  assert.ok(statuses.includes(response.status), `status ${response.status}, expected ${statuses.join(' or ')}: ${response.body.slice(0, 200)}`);
  assert.match(response.headers['content-type'] ?? '', /^application\/problem\+json/, 'content type of an error');
  const problem = JSON.parse(response.body);
  assert.equal(problem.status, response.status, 'the document repeats the status');
  assert.match(problem.type, /^urn:freshet:problem:[a-z-]+$/, 'type');
  for (const field of ['title', 'detail', 'hint']) assert.ok(problem[field]?.length > 3, `${field} says something`);
  assert.equal(typeof problem.code, 'number', 'code is a number');
  assert.equal(response.headers['access-control-allow-origin'], '*', 'an error can be read by a page of another origin');
  return problem;
}

/** Runs all cases, one after the other, printing a line each. */
export async function runAll(options) {
  const results = [];
  for (const { name, rule, run, needs } of cases.filter(one => !options.only || one.name.includes(options.only))) {
    if (needs.some(need => !options[need])) continue;
    const started = Date.now();
    const context = new Context(options);
    let error = null;
    try {
      let timer;
      const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`not done in ${CASE_DEADLINE_MS} ms`)), CASE_DEADLINE_MS)));
      await Promise.race([run(context), late]).finally(() => clearTimeout(timer));
    } catch (caught) {
      error = caught.message;
    }
    await context.close();
    results.push({ name, rule, ok: !error, error, ms: Date.now() - started });
    console.log(`${error ? 'FAIL' : 'ok  '} ${name}${error ? `\n       ${error.replaceAll('\n', '\n       ')}\n       (${rule})` : ''}`);
  }
  return results;
}
