#!/usr/bin/env node
// Starts the built server at loopback and runs the conformance test against it.
//   node tests/conformance/against-build.mjs [--only TEXT]
import { spawn } from 'node:child_process';
import path from 'node:path';
import { cache, clearLogs, startServer, tests } from '../e2e/lib/server.mjs';

clearLogs();
const server = await startServer();
const where = ['--whip', `${server.base}/whip/live/{stream}`, '--whep', `${server.base}/whep/live/{stream}`, '--srs', server.base];
const report = ['--report', path.join(cache, 'conformance.json')];
const run = spawn(process.execPath, [path.join(tests, 'conformance/run.mjs'), ...where, ...report, ...process.argv.slice(2)], { stdio: 'inherit' });
const status = await new Promise(done => run.on('exit', done));
const ended = await server.stop();
if (ended.code !== 0) console.log(`the server ended with ${JSON.stringify(ended)}\n${server.log()}`);
process.exit(ended.code === 0 ? status : 1);
