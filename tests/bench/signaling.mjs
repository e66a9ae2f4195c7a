// Opens N sockets of `/sig/v1/rtc` two by two in rooms, lets them be silent, and tells what they cost the server.
//   node tests/bench/signaling.mjs HTTP-BASE SERVER-PID [N]
import fs from 'node:fs';
import { createRequire } from 'node:module';
const WebSocket = createRequire(new URL('../package.json', import.meta.url))('ws');

const [base, pid, count = '10000'] = process.argv.slice(2);
const N = Number(count);
const SILENT_S = 32;
const rssKb = () => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
/** Seconds of processor time; fields 14 and 15 of proc(5), in hundredths. */
const cpu = () => fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ').slice(11, 13).reduce((sum, n) => sum + Number(n), 0) / 100;
const sleep = ms => new Promise(done => setTimeout(done, ms));

// Of the fresh server: an allocator keeps what it once had, so the second round would look too cheap.
const rss = rssKb();
const sockets = [];
let pings = 0;
let lost = 0;

/** Opens the socket of person `i` and joins, or only opens it. */
function person(i, joins) {
  return new Promise((done, fail) => {
    const socket = new WebSocket(`${base.replace('http', 'ws')}/sig/v1/rtc`, { perMessageDeflate: false });
    sockets.push(socket);
    socket.on('error', fail);
    socket.on('ping', () => pings++);
    socket.on('close', () => lost++);
    socket.on('open', () => {
      if (!joins) return done();
      socket.send(JSON.stringify({ tid: '1', msg: { action: 'join', room: `r${i >> 1}`, display: `person ${i}`, kind: 'call', stream: 'assign', capabilities: ['resume'] } }));
      socket.once('message', data => (JSON.parse(data).error ? fail(new Error(String(data))) : done()));
    });
  });
}

/** Opens them all, 100 at a time. */
async function open(joins) {
  const began = performance.now();
  for (let i = 0; i < N; i += 100) await Promise.all(Array.from({ length: Math.min(100, N - i) }, (_, k) => person(i + k, joins)));
  return (performance.now() - began) / 1000;
}

async function close() {
  for (const socket of sockets.splice(0)) socket.terminate();
  for (let s = 0; s < 30; s++) {
    await sleep(1000);
    const text = await (await fetch(`${base}/metrics`)).text();
    if (/^freshet_people 0$/m.test(text) && /^freshet_signaling_sockets 0$/m.test(text)) return;
  }
  throw new Error('sockets or people are left over');
}

for (const [name, joins] of [['open', false], ['in rooms of two', true]]) {
  await sleep(1000);
  const cpuBefore = cpu();
  lost = 0;
  const seconds = await open(joins);
  const cpuJoins = cpu() - cpuBefore;
  await sleep(3000);
  const each = (rssKb() - rss) / N;
  pings = 0;
  const idleFrom = cpu();
  await sleep(SILENT_S * 1000);
  const idle = (cpu() - idleFrom) / SILENT_S;
  const stillEach = (rssKb() - rss) / N;
  console.log(`${N} sockets ${name}: ${each.toFixed(1)} KB each (${stillEach.toFixed(1)} after ${SILENT_S} s), opened in ${seconds.toFixed(1)} s with ${(cpuJoins / N * 1000).toFixed(2)} ms of CPU each; ` +
    `then ${(idle * 100).toFixed(1)} % of a core and ${(pings / SILENT_S).toFixed(0)} pings/s, ${lost} lost`);
  if (lost) process.exitCode = 1;
  await close();
}
process.exit();
