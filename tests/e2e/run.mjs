#!/usr/bin/env node
// End-to-end tests: the built server against clients that we did not write.
//   node tests/e2e/run.mjs [TEXT...]     only the cases whose "group: name" contains one of the texts
import { clearLogs } from './lib/server.mjs';
import { runAll } from './lib/suite.mjs';
import './groups/codecs.mjs';
import './groups/sessions.mjs';
import './groups/rtmp.mjs';
import './groups/flv.mjs';
import './groups/hls.mjs';
import './groups/hls-delivery.mjs';
import './groups/hls-disk.mjs';
import './groups/record.mjs';
import './groups/low-latency.mjs';
import './groups/fmp4.mjs';
import './groups/rtmp-rules.mjs';
import './groups/rtmp-rude.mjs';
import './groups/rtc2rtmp.mjs';
import './groups/rtc2rtmp-loss.mjs';
import './groups/signaling.mjs';
import './groups/forward.mjs';
import './groups/snapshot.mjs';
import './groups/pages.mjs';
import './groups/srs-sdk.mjs';
import './groups/watch.mjs';
import './groups/call.mjs';
import './groups/clients.mjs';
import './groups/network.mjs';
import './groups/hostile.mjs';
import './groups/settings.mjs';
import './groups/lifecycle.mjs';
import './groups/leaks.mjs';

clearLogs();
const { passed, failed } = await runAll(process.argv.slice(2));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
