// Starts a stock browser, headless, with an empty profile, and serves it a page from loopback:
// http://127.0.0.1 is a secure context, so getUserMedia works without TLS.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));

// Chromium opens one UDP socket per interface, and none on loopback. With this policy it lets the kernel choose the
// source address, which for a server at 127.0.0.1 is 127.0.0.1; its offers then hold no candidate at all.
export const LOOPBACK = '--webrtc-ip-handling-policy=default_public_interface_only';

const CHROMIUM_FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-default-apps', '--disable-domain-reliability',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
  '--proxy-server=direct://', '--proxy-bypass-list=*',
];

const FIREFOX_PREFS = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.gmp-manager.updateEnabled': false,
  'app.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'toolkit.telemetry.enabled': false,
  'privacy.reduceTimerPrecision': false,
  'network.proxy.type': 0,
  // H.264 without the OpenH264 plugin, which Firefox would download: these let it use the system's FFmpeg.
  'media.webrtc.hw.h264.enabled': true,
  'media.webrtc.encoder_creation_strategy': 1,
  'media.navigator.mediadatadecoder_h264_enabled': true,
  'media.ffmpeg.encoder.enabled': true,
  'gfx.blacklist.webrtc.hw.acceleration.h264': 1,
  'gfx.blacklist.webrtc.hw.acceleration.encode': 1,
  'gfx.blacklist.webrtc.hw.acceleration.decode': 1,
  'gfx.blacklist.hardwarevideoencoding': 1,
  'gfx.blacklist.hardwarevideodecoding': 1,
};

/** Serves an empty page that holds the browser side of the tests (page.js). */
export async function blankPage() {
  const scripts = ['stamp.js', 'page.js'].map(name => fs.readFileSync(path.join(here, name), 'utf8'));
  const page = `<!doctype html><meta charset=utf-8><title>client</title><body><script>${scripts.join('</script><script>')}</script></body>`;
  const server = http.createServer((_, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(page);
  });
  await new Promise(done => server.listen(0, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

/**
 * Returns `{ kind, version, newPage(url, script), close() }`; every page has a window of its own, since hidden tabs do not
 * paint. `script` runs in the page before the page's own.
 */
export async function launch(kind, { flags = [], permissions = [], wrapper } = {}) {
  const attempt = () => (kind === 'firefox' ? launchFirefox(flags) : launchChromium(flags, permissions, wrapper));
  try {
    return await attempt();
  } catch (error) {
    console.error(`[retry] ${kind} did not start: ${error.message.split('\n')[0]}`);
    return attempt();
  }
}

/** `wrapper`: `{ program, env }` that starts the browser named by PROGRAM. */
async function launchChromium(flags, permissions, wrapper) {
  const { chromium } = await import('playwright-core');
  const program = process.env.CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({
    executablePath: wrapper?.program ?? program,
    env: { ...process.env, ...wrapper?.env, PROGRAM: program },
    headless: true,
    args: [...CHROMIUM_FLAGS, ...flags],
    timeout: 30_000,
  });
  return {
    kind: 'chromium',
    version: browser.version(),
    async newPage(url, script) {
      const context = await browser.newContext({ permissions, viewport: { width: 1280, height: 800 }, ignoreHTTPSErrors: true });
      const page = await context.newPage();
      page.on('pageerror', error => console.error(`[page] ${error.message}`));
      if (script) await page.addInitScript(script);
      await page.goto(url);
      return page;
    },
    close: () => browser.close(),
  };
}

async function launchFirefox(flags) {
  const { default: puppeteer } = await import('puppeteer-core');
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'freshet-firefox-'));
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    userDataDir: profile,
    acceptInsecureCerts: true,
    args: flags,
    extraPrefsFirefox: FIREFOX_PREFS,
    timeout: 60_000,
  });
  return {
    kind: 'firefox',
    version: await browser.version(),
    async newPage(url, script) {
      const page = await browser.newPage();
      if (script) await page.evaluateOnNewDocument(script);
      await page.goto(url);
      return page;
    },
    async close() {
      await browser.close();
      fs.rmSync(profile, { recursive: true, force: true });
    },
  };
}
