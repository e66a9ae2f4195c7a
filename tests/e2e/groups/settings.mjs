// Settings that change what clients get, without media.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { binary, cache, startServer, tests } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

const offer = name => fs.readFileSync(path.join(tests, `fixtures/offers/${name}.sdp`), 'utf8');
const post = (url, body, headers = {}) => fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp', ...headers }, body });

const EXTRA = `ice_servers = ["stun:stun.example.net:3478"]

[publish]
tokens = ["secret-one"]

[play]
when_absent = "refuse"
retry_after_seconds = 7
`;

async function setup(cleanup) {
  const server = await startServer({ extra: EXTRA });
  cleanup(() => server.stop());
  return { server };
}

function check(text) {
  const file = path.join(cache, 'check.toml');
  fs.writeFileSync(file, text);
  const { status, stdout, stderr } = spawnSync(binary, ['check', '-c', file], { encoding: 'utf8', timeout: 5000 });
  return { status, said: stdout + stderr };
}

group('settings', setup, [
  test('a publisher without a token gets 401, with one 201', 10, async ({ server }) => {
    const { whip } = server.urls('guarded');
    for (const headers of [{}, { authorization: 'Bearer wrong' }]) {
      const refused = await post(whip, offer('obs-publish'), headers);
      assert.equal(refused.status, 401);
      assert.match(refused.headers.get('www-authenticate') ?? '', /^Bearer/);
      assert.match((await refused.json()).type, /unauthorized$/);
    }
    const granted = await post(whip, offer('obs-publish'), { authorization: 'Bearer secret-one' });
    assert.equal(granted.status, 201);
    assert.equal((await post(`${whip}-2?token=secret-one`, offer('obs-publish'))).status, 201);
  }),
  test('configured ICE servers are told in Link headers', 10, async ({ server }) => {
    const granted = await post(`${server.urls('linked').whip}?secret=secret-one`, offer('obs-publish'));
    assert.equal(granted.status, 201);
    assert.match(granted.headers.get('link') ?? '', /<stun:stun\.example\.net:3478>; rel="ice-server"/);
  }),
  test('a viewer of an absent stream is refused with Retry-After', 10, async ({ server }) => {
    const refused = await post(server.urls('absent').whep, offer('chromium-play'));
    assert.equal(refused.status, 409);
    assert.equal(refused.headers.get('retry-after'), '7');
    assert.match((await refused.json()).type, /stream-absent$/);
  }),
  test('check finds an unknown key with file, line and a suggestion', 10, async () => {
    const { status, said } = check('[http]\nlisten = ["127.0.0.1:18081"]\n\n[rtc]\nlitsen = "127.0.0.1:28001"\n');
    assert.notEqual(status, 0);
    assert.match(said, /check\.toml/);
    assert.match(said, /\b5\b/);
    assert.match(said, /listen/);
  }),
  test('check finds a bad value with file and line', 10, async () => {
    const { status, said } = check('[publish]\ntakeover = "sometimes"\n');
    assert.notEqual(status, 0);
    assert.match(said, /check\.toml.*2|2.*check\.toml/s);
    assert.match(said, /replace-if-silent/);
  }),
  test('check passes the file that documents all settings', 10, async () => {
    const { status, stderr } = spawnSync(binary, ['check', '-c', path.join(tests, '../conf/freshet.toml')], { encoding: 'utf8', timeout: 5000 });
    assert.equal(status, 0, stderr);
  }),
]);
