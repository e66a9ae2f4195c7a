// People in calls and rooms: the real page in a real browser, with a camera of one colour and a voice of one tone.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './peers.mjs';

const fakeMedia = fs.readFileSync(path.join(path.dirname(fileURLToPath(import.meta.url)), 'fakemedia.js'), 'utf8');

/** Colours and tones far enough apart that no codec mixes them up. */
export const CAST = {
  Amy: { colour: [200, 40, 40], hz: 500 },
  Bob: { colour: [40, 40, 200], hz: 900 },
  Cat: { colour: [40, 170, 40], hz: 1400 },
  Dan: { colour: [220, 200, 40], hz: 2000 },
};
export const SCREEN = [255, 0, 255];

const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** The script that gives a page the devices of that person; `fail` as in fakemedia.js. */
export function devicesOf(name, fail = {}) {
  const { colour, hz } = CAST[name];
  return `${fakeMedia};useFakeMedia(${JSON.stringify({ colour: css(colour), hz, screen: css(SCREEN), fail })});`;
}

/** What every page shows, once it holds; throws what it shows instead. */
export async function sees(page, what, timeoutMs, condition) {
  let seen;
  try {
    return await until(what, timeoutMs, async () => {
      seen = await page.evaluate(() => lookAround());
      return condition(seen) && seen;
    });
  } catch (error) {
    const failure = await page.evaluate(() => document.getElementById('failure').innerText.trim()).catch(() => '');
    throw new Error(`${error.message}; the page shows ${JSON.stringify(seen)} ${failure}`);
  }
}

export const isNear = (seen, wanted) => seen !== null && seen.every((value, i) => Math.abs(value - wanted[i]) < 60);

/** The tile shows that person's colour, moving, and plays that person's tone. */
export const isWhole = (tile, name, { sound = true } = {}) =>
  tile.name === name && isNear(tile.colour, CAST[name].colour) && !tile.isPictureless && tile.frames > 3 && (!sound || Math.abs(tile.hz - CAST[name].hz) < 40);

export const showsScreen = tile => tile.isScreen && isNear(tile.colour, SCREEN);

/** Exactly these others, each with their own picture and tone. */
export const company = (...names) => tiles => {
  const others = tiles.filter(tile => !tile.isSelf);
  return others.length === names.length && names.every(name => others.some(tile => isWhole(tile, name)));
};

/** Opens the page as that person and waits for the preview. */
export async function arrive(browsers, url, name, { fail, script = '', as = name } = {}) {
  const address = new URL(url);
  address.searchParams.set('display', as);
  const page = await browsers.page('chromium', address.href, devicesOf(name, fail) + script);
  await page.waitForSelector('#join:enabled');
  return page;
}

/** Presses Join and waits until the seat is taken. */
export async function join(page) {
  await page.click('#join');
  await page.waitForSelector('body[data-view=meeting]', { timeout: 25_000 });
}

/** Arrives and joins. */
export async function enter(browsers, url, name, options) {
  const page = await arrive(browsers, url, name, options);
  await join(page);
  return page;
}

/** From the click on Join to the first frame of somebody else, in ms. */
export const firstPictureMs = page => page.evaluate(() => performance.getEntriesByName('call-first-picture')[0]?.duration);
