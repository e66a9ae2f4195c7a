#!/usr/bin/env node
// WHIP and WHEP conformance of any server, by URL. Needs node and nothing else; speaks HTTP only, no media.
//
//   node run.mjs --whip URL --whep URL [--srs BASE] [--only TEXT] [--report FILE]
//
// URL holds {stream} where a name of the test's own goes; without it the name is appended.
// --srs BASE (http://host:1985) adds the cases of SRS's interface. Exit status 1 when a case fails.
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import './cases/whip.mjs';
import './cases/session.mjs';
import './cases/whep.mjs';
import './cases/http.mjs';
import './cases/srs.mjs';
import './cases/offers.mjs';
import { runAll } from './lib/suite.mjs';

const text = { type: 'string' };
const { values: options } = parseArgs({ options: { whip: text, whep: text, srs: text, only: text, report: text } });
if (!options.whip || !options.whep) {
  console.error('usage: run.mjs --whip URL --whep URL [--srs BASE] [--only TEXT] [--report FILE]');
  process.exit(2);
}
const results = await runAll(options);
const failed = results.filter(result => !result.ok).length;
if (options.report) {
  fs.writeFileSync(options.report, JSON.stringify({ whip: options.whip, whep: options.whep, srs: options.srs, passed: results.length - failed, failed, cases: results }, null, 1));
}
console.log(`${results.length - failed} passed, ${failed} failed`);
process.exit(failed || !results.length ? 1 : 0);
