// Calls and rooms as people have them: the real pages, everybody with a camera of one colour and a voice of one tone, so that
// who sees and hears whom can be told.
import assert from 'node:assert/strict';
import path from 'node:path';
import { assertAccessible } from '../lib/axe.mjs';
import { CAST, arrive, company, devicesOf, enter, firstPictureMs, isNear, isWhole, join, sees, showsScreen } from '../lib/callers.mjs';
import { CLEAN, IN_LAB, LAB_ADDRESS, callInLab, endClients, startLab } from '../lib/lab.mjs';
import { Browsers, sleep, until } from '../lib/peers.mjs';
import { cache, startServer } from '../lib/server.mjs';
import { group, test } from '../lib/suite.mjs';

async function setup(cleanup) {
  const context = { server: await startServer(), browsers: new Browsers() };
  cleanup(() => context.server.stop());
  cleanup(() => context.browsers.close());
  context.url = route => `${context.server.base}${route}`;
  context.tidy = () => context.browsers.tidy();
  return context;
}

const shot = (page, name) => page.screenshot({ path: path.join(cache, `${name}.png`) });

/** Nothing that the people of a room published or played is left. */
const nothingLeft = (server, withinMs) =>
  until('all sessions have gone', withinMs, async () => (await server.api('/api/v1/clients/?count=100')).clients.length === 0);

const others = tiles => tiles.filter(tile => !tile.isSelf);

/** The failure box shows that kind; what it says. */
async function told(page, kind) {
  await page.waitForSelector(`#failure[data-kind="${kind}"]:visible`, { timeout: 8000 });
  return page.innerText('#failure');
}

group('call', setup, [
  test('two open a link: each sees and hears the other, and nobody else; leaving and closing the tab free everything', 80, async ({ browsers, url, server }) => {
    const amy = await enter(browsers, url('/call/two'), 'Amy');
    const bob = await enter(browsers, url('/call/two'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 8000, company('Amy'));
    await sees(amy, 'Amy sees and hears Bob', 8000, company('Bob'));
    const firstMs = await firstPictureMs(bob);
    // The bar is 1 s on a quiet machine; three times that is broken on any.
    assert.ok(firstMs < 3000, `${firstMs} ms from the click to the first remote frame`);
    await shot(amy, 'call');
    await bob.close();
    await sees(amy, 'Bob has gone with his tab', 2000, tiles => others(tiles).length === 0);
    await amy.click('#leave');
    await nothingLeft(server, 2000);
    return `click to first remote frame ${firstMs.toFixed(0)} ms`;
  }),
  test('four in a room see and hear each other, one leaves, comes back, and reloads', 150, async ({ browsers, url }) => {
    const names = ['Amy', 'Bob', 'Cat', 'Dan'];
    const pages = [];
    for (const name of names) pages.push(await enter(browsers, url('/room/four'), name));
    const allSee = (who = names) =>
      Promise.all(who.map(name => sees(pages[names.indexOf(name)], `${name} sees and hears everybody`, 25_000, company(...who.filter(one => one !== name)))));
    await allSee();
    await shot(pages[0], 'room');
    await pages[3].click('#leave');
    await allSee(['Amy', 'Bob', 'Cat']);
    await pages[3].click('#rejoin');
    await join(pages[3]);
    await allSee();
    // A reload in a meeting goes straight back, without the preview's click.
    await pages[1].reload();
    await pages[1].waitForSelector('body[data-view=meeting]', { timeout: 25_000 });
    await allSee();
  }),
  test('two of the same name are two people', 80, async ({ browsers, url }) => {
    const first = await enter(browsers, url('/room/twins'), 'Amy', { as: 'Sam' });
    const second = await enter(browsers, url('/room/twins'), 'Bob', { as: 'Sam' });
    const is = name => tiles => others(tiles).length === 1 && isWhole({ ...others(tiles)[0], name }, name) && others(tiles)[0].name === 'Sam';
    await sees(first, 'the first Sam sees the second', 8000, is('Bob'));
    await sees(second, 'the second Sam sees the first', 8000, is('Amy'));
  }),
  test('mute, camera off, screen, chat', 100, async ({ browsers, url }) => {
    const amy = await enter(browsers, url('/call/switches'), 'Amy');
    const bob = await enter(browsers, url('/call/switches'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 8000, tiles => company('Amy')(tiles) && others(tiles)[0].isSpeaking);
    await amy.click('#toggle-microphone');
    await sees(bob, 'Amy is muted, and silent', 4000, tiles => others(tiles)[0].isMuted && others(tiles)[0].hz === 0 && !others(tiles)[0].isSpeaking);
    await amy.click('#toggle-microphone');
    await sees(bob, 'Amy is heard again', 4000, company('Amy'));
    await amy.click('#toggle-camera');
    await sees(bob, 'Amy is initials, and heard', 4000, tiles => others(tiles)[0].isPictureless && Math.abs(others(tiles)[0].hz - 500) < 40);
    await amy.click('#toggle-screen');
    await sees(bob, "Amy's screen", 5000, tiles => showsScreen(others(tiles)[0]));
    await shot(bob, 'call-screen');
    await amy.click('#toggle-screen');
    await amy.click('#toggle-camera');
    await sees(bob, "Amy's face again", 5000, tiles => company('Amy')(tiles) && !others(tiles)[0].isScreen);
    await amy.click('#toggle-chat');
    await amy.fill('#chat-text', 'Is the <b>tea</b> ready?');
    await amy.keyboard.press('Enter');
    await until('the badge', 2000, async () => (await bob.innerText('#unread')) === '1 new');
    await bob.click('#toggle-chat');
    assert.match(await bob.innerText('#chat [role=log]'), /Amy.*Is the <b>tea<\/b> ready\?/s);
  }),
  test('a third person at a call is told so, and gets in when there is space', 80, async ({ browsers, url }) => {
    const amy = await enter(browsers, url('/call/full'), 'Amy');
    await enter(browsers, url('/call/full'), 'Bob');
    const cat = await arrive(browsers, url('/call/full'), 'Cat');
    await cat.click('#join');
    assert.match(await told(cat, 'room-full'), /Two people are already in this call/);
    assert.match(await cat.getAttribute('#failure-link', 'href'), /\/room\/full/);
    await amy.click('#leave');
    await cat.click('#retry');
    await cat.waitForSelector('body[data-view=meeting]');
    await sees(cat, 'Cat sees and hears Bob', 8000, company('Bob'));
  }),
  test('without camera and microphone one sees and hears the others; every reason has its remedy', 100, async ({ browsers, url }) => {
    const amy = await enter(browsers, url('/room/bare'), 'Amy');
    const cases = [
      ['NotAllowedError', 'permission-denied', /allow access/],
      ['NotFoundError', 'no-device', /Plug one in/],
      ['NotReadableError', 'device-busy', /Close the program/],
    ];
    for (const [error, kind, remedy] of cases) {
      const bob = await arrive(browsers, url('/room/bare'), 'Bob', { fail: { camera: error, microphone: error } });
      assert.match(await told(bob, kind), remedy);
      await join(bob);
      await sees(bob, 'Bob sees and hears Amy', 8000, company('Amy'));
      await sees(amy, 'Amy sees that Bob has neither', 4000, tiles => others(tiles).length === 1 && others(tiles)[0].isMuted && others(tiles)[0].isPictureless);
      await bob.click('#leave');
    }
    // A camera that comes later is sent in the session that began without one.
    const cat = await enter(browsers, url('/room/bare'), 'Cat', { fail: { camera: 'NotFoundError' } });
    await sees(amy, 'Amy hears Cat and sees initials', 8000, tiles => others(tiles)[0]?.isPictureless && Math.abs(others(tiles)[0].hz - CAST.Cat.hz) < 40);
    await cat.evaluate(devicesOf('Cat'));
    await cat.click('#toggle-camera');
    await sees(amy, 'Amy sees and hears Cat', 8000, company('Cat'));
  }),
  test("the browser's own devices: chosen, remembered, changed in the meeting", 100, async ({ browsers, url }) => {
    const bob = await enter(browsers, url('/call/devices'), 'Bob');
    const amy = await browsers.page('chromium', url('/call/devices?display=Amy'));
    const options = which => amy.$$eval(`#${which} option`, all => all.map(one => one.label));
    await until('the devices have names', 8000, async () => (await options('microphone')).length > 2 && (await options('camera')).length > 1);
    await until('the preview runs', 5000, () => amy.evaluate(() => document.getElementById('preview').videoWidth > 0 && document.getElementById('overlay').hidden));
    await until('the level moves', 5000, () => amy.evaluate(() => document.getElementById('level').value > 0.2));
    const [, , last] = await options('microphone');
    await amy.selectOption('#microphone', { label: last });
    await amy.reload();
    await until('it is remembered', 8000, () => amy.$eval('#microphone', (select, label) => select.selectedOptions[0].label === label, last));
    await join(amy);
    const sent = () => bob.evaluate(() => lookAround().find(tile => !tile.isSelf)?.frames ?? 0);
    await sees(bob, "Bob sees Chromium's camera and hears its beeps", 8000, tiles => others(tiles)[0]?.frames > 10 && others(tiles)[0].isSpeaking);
    await amy.click('#open-devices');
    await amy.selectOption('#camera', { index: 1 });
    await amy.selectOption('#microphone', { index: 1 });
    if (await amy.isVisible('#speaker')) await amy.selectOption('#speaker', { index: (await options('speaker')).length - 1 });
    await amy.keyboard.press('Escape');
    const before = await sent();
    await sees(bob, 'picture and beeps go on', 8000, tiles => others(tiles)[0].frames > before + 30 && others(tiles)[0].isSpeaking);
    await amy.click('#toggle-screen');
    await sees(bob, 'a real screen', 5000, tiles => others(tiles)[0].isScreen && !others(tiles)[0].isPictureless);
    assert.ok(!(await amy.isVisible('#failure')), await amy.innerText('#failure'));
    return `${(await options('camera')).slice(1)}; ${(await options('microphone')).slice(1)}; ${(await options('speaker')).slice(1)}`;
  }),
  test('sound that the browser holds back is asked for', 60, async ({ browsers, url }) => {
    const script = `{ const play = HTMLMediaElement.prototype.play; let blocked = true;
      addEventListener('click', event => { if (event.target.id === 'hear-button') blocked = false; }, true);
      HTMLMediaElement.prototype.play = function () { return blocked && !this.muted ? Promise.reject(new DOMException('no click yet', 'NotAllowedError')) : play.call(this); }; }`;
    await enter(browsers, url('/call/quiet'), 'Amy');
    const bob = await enter(browsers, url('/call/quiet'), 'Bob', { script });
    await bob.waitForSelector('#hear:visible', { timeout: 8000 });
    await sees(bob, 'the picture runs muted', 4000, tiles => others(tiles)[0].isSilenced && others(tiles)[0].frames > 3);
    await bob.click('#hear-button');
    await bob.waitForSelector('#hear', { state: 'hidden' });
    await sees(bob, 'Bob hears Amy', 4000, tiles => company('Amy')(tiles) && !others(tiles)[0].isSilenced);
  }),
  test('the server restarts in the middle of a call, and the call goes on', 120, async context => {
    const { browsers, url } = context;
    const amy = await enter(browsers, url('/call/restart'), 'Amy');
    const bob = await enter(browsers, url('/call/restart'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 8000, company('Amy'));
    await context.server.stop('SIGKILL');
    const died = Date.now();
    await told(amy, 'signaling-lost');
    context.server = await startServer();
    await sees(amy, 'Amy sees and hears Bob again', 20_000, company('Bob'));
    await sees(bob, 'Bob sees and hears Amy again', 20_000, company('Amy'));
    await until('the notice has gone', 5000, async () => !(await amy.isVisible('#failure')));
    return `both back ${((Date.now() - died) / 1000).toFixed(1)} s after the kill`;
  }),
  test('the pages are accessible, light and dark, wide and narrow, and by keyboard alone', 120, async ({ browsers, url }) => {
    const amy = await arrive(browsers, url('/room/access'), 'Amy', { as: 'Amy Archer' });
    const lesser = [await assertAccessible(amy, 'preview')];
    const bob = await arrive(browsers, url('/room/access'), 'Bob', { as: 'Bob Baker', fail: { microphone: 'NotFoundError', camera: 'NotFoundError' } });
    await bob.setViewportSize({ width: 390, height: 844 });
    await bob.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
    lesser.push(await assertAccessible(bob, 'preview with a failure, narrow and dark'));
    assert.ok(await bob.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing reaches out of a narrow window');
    await shot(bob, 'call-preview-390');
    await bob.click('#dismiss');
    await join(bob);
    // Amy uses no mouse: Enter in the name field joins; the focus is then on the first of her switches.
    await amy.focus('#display');
    await amy.keyboard.press('Enter');
    await amy.waitForSelector('#toggle-microphone:focus');
    await amy.keyboard.press('Space');
    await sees(bob, 'Amy has muted herself', 8000, tiles => others(tiles)[0]?.isMuted);
    await until('a screen reader hears who is here', 4000, async () => /Amy Archer is here/.test(await bob.innerText('#announcer')));
    for (let i = 0; i < 3; i++) await amy.keyboard.press('Tab');
    await amy.keyboard.press('Enter');
    await amy.waitForSelector('#chat-text:focus');
    await amy.keyboard.type('Hello');
    await amy.keyboard.press('Enter');
    lesser.push(await assertAccessible(amy, 'meeting with chat'));
    await amy.keyboard.press('Escape');
    await amy.waitForSelector('#toggle-chat:focus');
    await bob.evaluate(() => document.querySelector('.tile .quality summary').click());
    lesser.push(await assertAccessible(bob, 'meeting with figures, narrow and dark'));
    assert.ok(await bob.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing reaches out of a narrow window');
    await shot(bob, 'room-390');
    await amy.click('#open-devices');
    lesser.push(await assertAccessible(amy, 'devices'));
    await amy.keyboard.press('Escape');
    await amy.click('#leave');
    await amy.waitForSelector('#left-title:focus');
    lesser.push(await assertAccessible(amy, 'after leaving'));
    return lesser.filter(Boolean).join(' | ') || 'axe finds nothing at all';
  }),
  test("SRS's addresses and parameters", 60, async ({ browsers, url, server }) => {
    const amy = await browsers.page('chromium', url('/demos/one2one.html?room=srs&display=Amy&autostart=true'));
    await amy.waitForSelector('body[data-view=meeting]');
    const isLive = async () => (await server.api('/api/v1/streams/?count=100')).streams.some(one => one.url === '/srs/Amy' && one.publish.active);
    await until('the stream has the name that SRS gives it', 8000, isLive);
    // The old page's seat and stream have the name that the new one wants.
    await amy.reload();
    await amy.waitForSelector('body[data-view=meeting]');
    await until('the stream is there again', 8000, isLive);
    const bob = await enter(browsers, url('/demos/one2one.html?room=srs'), 'Bob');
    await sees(bob, 'Bob has a picture of Amy', 8000, tiles => others(tiles)[0]?.name === 'Amy' && others(tiles)[0].frames > 3);
  }),
]);

async function labSetup(cleanup) {
  const lab = await startLab();
  cleanup(() => lab.close());
  const server = await startServer({ address: LAB_ADDRESS });
  cleanup(() => server.stop());
  const browsers = new Browsers([], IN_LAB);
  cleanup(() => browsers.close());
  const tidy = async () => {
    await lab.set(CLEAN);
    await browsers.tidy();
    await endClients();
  };
  // Over HTTPS: that is how people on other machines get camera and microphone.
  return { lab, server, browsers, tidy, url: route => `${server.secure}${route}` };
}

group('call over a bad network', labSetup, [
  test('30 % loss for 5 s: the page says so, and the call goes on', 120, async ({ lab, browsers, url }) => {
    const amy = await enter(browsers, url('/call/lossy'), 'Amy');
    const bob = await enter(browsers, url('/call/lossy'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 10_000, company('Amy'));
    await sees(amy, 'Amy sees and hears Bob', 10_000, company('Bob'));
    await lab.set({ both: { delay: 20, loss: 30 } });
    const since = Date.now();
    await sees(bob, 'the sign of the connection is red', 5000, tiles => others(tiles)[0].grade === 'poor');
    await sleep(Math.max(0, since + 5000 - Date.now()));
    await lab.set(CLEAN);
    const before = (await sees(bob, 'nobody was lost', 1000, tiles => others(tiles).length === 1))[1].frames;
    await sees(bob, 'Bob sees and hears Amy again', 10_000, tiles => company('Amy')(tiles) && others(tiles)[0].frames > before + 15);
    await sees(amy, 'Amy sees and hears Bob again', 10_000, company('Bob'));
  }),
  test('where UDP is blocked the call goes over TCP', 120, async ({ lab, browsers, url }) => {
    await lab.set({ both: { noudp: 1 } });
    const amy = await enter(browsers, url('/call/tcp'), 'Amy');
    const bob = await enter(browsers, url('/call/tcp'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 15_000, company('Amy'));
    await sees(amy, 'Amy sees and hears Bob', 15_000, company('Bob'));
    const path = () => bob.evaluate(() => document.querySelector('.tile:not(.self) [data-figure=path]').textContent);
    await until('the page names the path', 5000, async () => /^TCP/.test(await path()));
    return path();
  }),
  test('a network that is gone for 5 s and then another one: signalling and media come back by themselves', 120, async ({ lab, browsers, url }) => {
    const amy = await enter(browsers, url('/call/gap'), 'Amy');
    const bob = await enter(browsers, url('/call/gap'), 'Bob');
    await sees(bob, 'Bob sees and hears Amy', 10_000, company('Amy'));
    await lab.set({ both: { loss: 100 } });
    await sleep(5000);
    await lab.set({ ...CLEAN, up: { nat: 1 } });
    const back = Date.now();
    await sees(bob, 'Bob sees and hears Amy again', 15_000, tiles => company('Amy')(tiles) && others(tiles)[0].grade === 'good');
    await sees(amy, 'Amy sees and hears Bob again', 15_000, tiles => company('Bob')(tiles) && others(tiles)[0].grade === 'good');
    return `${((Date.now() - back) / 1000).toFixed(1)} s after the network`;
  }),
  test('over plain HTTP the page says why there is no camera, leads to HTTPS, and watches', 60, async ({ browsers, server, url }) => {
    await enter(browsers, url('/room/plain'), 'Amy');
    const bob = await arrive(browsers, `${server.base}/room/plain`, 'Bob');
    assert.match(await told(bob, 'insecure-context'), /plain HTTP.*watch and listen/s);
    assert.match(await bob.getAttribute('#failure-link', 'href'), new RegExp(`^${server.secure}/room/plain`));
    await join(bob);
    await sees(bob, 'Bob sees and hears Amy', 10_000, company('Amy'));
  }),
  test('Firefox and Chromium', 120, async ({ browsers, url, server }) => {
    const amy = await enter(browsers, url('/call/fox'), 'Amy');
    const bob = await callInLab(url('/call/fox?display=Bob'));
    assert.ok(isNear(bob.seen.colour, CAST.Amy.colour), `Firefox shows ${bob.seen.colour}`);
    // Firefox's own fake camera changes its colour all the time.
    const [, before] = await sees(amy, 'Amy has a picture of Bob', 10_000, tiles => others(tiles).length === 1 && others(tiles)[0].frames > 3);
    await sees(amy, 'it moves', 5000, tiles => others(tiles)[0].frames > before.frames + 15);
    bob.leave();
    await sees(amy, 'Bob has gone with his tab', 5000, tiles => others(tiles).length === 0);
    await until("Firefox's sessions have gone", 3000, async () => (await server.api('/api/v1/clients/?count=100')).clients.length === 1);
  }),
]);
