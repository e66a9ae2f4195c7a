// The built server as a child process: fresh, on ports of its own, with its log kept.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './peers.mjs';

export const tests = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const cache = path.join(tests, '.cache');
export const binary = process.env.FRESHET ?? path.join(tests, '../target/release/freshet');
/** Added to every port, so that two runs can go side by side. */
export const SHIFT = Number(process.env.PORT_SHIFT ?? 0);

/** The ports of a run's first, second, … server. */
export function portsOf(number) {
  const shift = SHIFT + 20 * number;
  return { http: 18080 + shift, https: 18443 + shift, rtc: 28000 + shift, rtmp: 19350 + shift };
}

/** Removes what servers of earlier runs have left in the cache. */
export function clearLogs() {
  fs.mkdirSync(cache, { recursive: true });
  for (const name of fs.readdirSync(cache)) {
    if (name.startsWith('server-')) fs.rmSync(path.join(cache, name), { recursive: true, force: true });
  }
}

/**
 * Starts a server at that address. `candidates`: where it says that media goes. `extra`: further lines of configuration;
 * `number`: 1 and up for further servers beside the first one, on ports of their own; `variables`: of its environment.
 */
export async function startServer({ address = '127.0.0.1', candidates = [address], extra = '', number = 0, variables = {} } = {}) {
  const folder = fs.mkdtempSync(path.join(cache, 'server-'));
  const ports = portsOf(number);
  const http = [...new Set(['127.0.0.1', address])].map(host => `"${host}:${ports.http}"`);
  const config = path.join(folder, 'freshet.toml');
  fs.writeFileSync(config, `[http]
listen = [${http.join(', ')}]

[https]
listen = ["${address}:${ports.https}"]

[rtc]
listen = "${address}:${ports.rtc}"
candidates = ${JSON.stringify(candidates)}
${extra}`);
  const log = fs.openSync(path.join(folder, 'log'), 'w');
  const env = { ...process.env, FRESHET_RTMP_LISTEN: `${address}:${ports.rtmp}`, ...variables };
  const child = spawn(binary, ['-c', config], { cwd: folder, env, stdio: ['ignore', log, log] });
  const server = new Server(child, folder, address, ports);
  try {
    await until('/healthz', 10_000, () => {
      if (child.exitCode !== null) throw new Error(`the server ended at once:\n${server.log()}`);
      return fetch(`${server.local}/healthz`).then(response => response.ok, () => false);
    });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return server;
}

class Server {
  constructor(child, folder, address, ports) {
    Object.assign(this, { child, folder, address });
    this.local = `http://127.0.0.1:${ports.http}`;
    this.base = `http://${address}:${ports.http}`;
    this.secure = `https://${address}:${ports.https}`;
    this.rtcPort = ports.rtc;
    this.rtmpPort = ports.rtmp;
    this.rtmps = `rtmps://${address}:${ports.https}`;
    this.exited = new Promise(done => child.on('exit', (code, signal) => done({ code, signal })));
  }

  urls(name) {
    return {
      whip: `${this.base}/whip/live/${name}`,
      whep: `${this.base}/whep/live/${name}`,
      rtmp: `rtmp://${this.address}:${this.rtmpPort}/live/${name}`,
      flv: `${this.base}/live/${name}.flv`,
    };
  }

  rssMb() {
    return Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${this.child.pid}/status`, 'utf8'))[1]) / 1024;
  }

  log() {
    return fs.readFileSync(path.join(this.folder, 'log'), 'utf8').slice(-3000);
  }

  async api(route) {
    return (await fetch(`${this.local}${route}`)).json();
  }

  /** Ends it with that signal; `{ code, signal }`. One that does not end in 10 s is killed. */
  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    const killer = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    const result = await this.exited;
    clearTimeout(killer);
    return result;
  }
}
