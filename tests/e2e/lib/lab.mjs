// Clients behind a bad network: netlab.py carries the packets, the clients run in its namespace.
import { execFile, spawn } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { SHIFT, cache, tests } from './server.mjs';

// Two runs that go side by side have a wire each.
const NAMESPACE = `freshet${SHIFT || ''}`;
const SUBNET = `10.77.${Math.floor(SHIFT / 100) % 256}`;
const CONTROL = ['--control', String(28799 + SHIFT)];
const netlab = path.join(tests, 'netlab/netlab.py');
const python = path.join(cache, 'venv/bin/python');
export const LAB_ADDRESS = `${SUBNET}.1`;
/** Runs the browser named by the variable PROGRAM in the namespace. */
export const IN_LAB = { program: path.join(tests, 'e2e/lib/in-lab.sh'), env: { LAB_NAMESPACE: NAMESPACE } };

/** Starts the wire; `set` changes it, `close` takes it down. */
export async function startLab() {
  const wire = spawn('python3', [netlab, ...CONTROL, 'up', '--ns', NAMESPACE, '--subnet', SUBNET, '--device', `lab${SHIFT || ''}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((done, fail) => {
    wire.stdout.once('data', done);
    wire.once('exit', code => fail(new Error(`netlab ended with ${code}: it needs root, /dev/net/tun and iproute2`)));
  });
  wire.removeAllListeners('exit');
  const ended = new Promise(done => wire.once('exit', done));
  return {
    set: settings => promisify(execFile)('python3', [netlab, ...CONTROL, 'set', JSON.stringify(settings)]),
    async close() {
      wire.kill('SIGTERM');
      await ended;
    },
  };
}

const clients = new Set();

function start(program, words, stdio) {
  const child = spawn(program, words, { stdio });
  clients.add(child);
  child.once('exit', () => clients.delete(child));
  return child;
}

/** Ends the clients that a case has left running. */
export async function endClients() {
  const ended = [...clients].map(child => new Promise(done => child.once('exit', done)));
  for (const child of clients) child.kill('SIGTERM');
  await Promise.all(ended);
}

export const CLEAN = { both: { delay: 0, jitter: 0, loss: 0, burst: 0, dup: 0, reorder: 0, rate: 0, queue: 200, nat: 0, noudp: 0 } };

/** Runs `exchange(plan)` in the namespace. `onStep` hears how far it is. */
export function exchangeInLab(plan, onStep = () => {}) {
  const script = path.join(tests, 'e2e/lib/exchange.mjs');
  const child = start('ip', ['netns', 'exec', NAMESPACE, process.execPath, script], ['ignore', 'inherit', 'inherit', 'ipc']);
  return new Promise((done, fail) => {
    child.on('message', ({ step, result, error }) => {
      if (step) onStep(step);
      if (result) done(result);
      if (error) fail(new Error(error));
    });
    child.on('exit', code => fail(new Error(`the client in the namespace ended with ${code}`)));
    child.send(plan);
  });
}

/**
 * Somebody in Firefox opens that call in the namespace and stays in it. Resolves once they see somebody else: `{ seen, leave }`.
 */
export async function callInLab(url) {
  const script = path.join(tests, 'e2e/lib/lab-caller.mjs');
  const child = start('ip', ['netns', 'exec', NAMESPACE, process.execPath, script], ['ignore', 'inherit', 'inherit', 'ipc']);
  const seen = await new Promise((done, fail) => {
    child.on('message', ({ result, error }) => (result ? done(result) : fail(new Error(error))));
    child.on('exit', code => fail(new Error(`Firefox's page ended with ${code}`)));
    child.send({ url });
  });
  return { seen, leave: () => child.disconnect() };
}

/** Runs a Python or node client in the namespace and parses the JSON that it prints last. */
export function runInLab(script, ...words) {
  const program = script.endsWith('.py') ? python : process.execPath;
  return runJson('ip', ['netns', 'exec', NAMESPACE, program, path.join(tests, 'e2e', script), ...words]);
}

/** The same, at loopback. */
export function run(script, ...words) {
  return runJson(python, [path.join(tests, 'e2e', script), ...words]);
}

async function runJson(program, words) {
  const child = start(program, words, ['ignore', 'pipe', 'pipe']);
  const errors = child.stderr.toArray();
  const printed = (await child.stdout.toArray()).join('').trim();
  try {
    return JSON.parse(printed.split('\n').at(-1));
  } catch {
    throw new Error(`${path.basename(words.find(word => /\.(py|mjs)$/.test(word)))} said no JSON: ${Buffer.concat(await errors).toString().slice(-500)}`);
  }
}
