// One person on the screen: picture or initials, name, what is switched off, who speaks, how good the connection is.

import { ms, setText } from '../page.js';

/** @typedef {{microphone?: boolean, camera?: boolean, screen?: boolean}} MediaState */

const SIGNS = /** @type {const} */ (['microphone-off', 'screen-on']);

export class Tile {
  #note;
  #name = '';

  /** @param {{name: string, isSelf: boolean}} who */
  constructor({ name, isSelf }) {
    const template = /** @type {HTMLTemplateElement} */ (document.getElementById('tile'));
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.element = /** @type {HTMLElement} */ (copy.querySelector('.tile'));
    this.video = /** @type {HTMLVideoElement} */ (copy.querySelector('video'));
    this.#note = this.#part('.note');
    this.element.classList.toggle('self', isSelf);
    this.isSelf = isSelf;
    if (isSelf) this.video.muted = true;
    this.name(name);
  }

  /** @param {string} name */
  name(name) {
    if (name === this.#name) return;
    this.#name = name;
    this.element.dataset.name = name;
    setText(this.#part('.name'), this.isSelf ? 'You' : name);
    setText(this.#part('.initials'), initials(name));
    this.#part('.initials').dataset.hue = String(hue(name));
    this.video.setAttribute('aria-label', this.isSelf ? 'Your own picture' : `Picture of ${name}`);
  }

  /** @param {MediaState} state */
  state({ microphone = true, camera = true, screen = false }) {
    const { classList } = this.element;
    classList.toggle('muted', !microphone);
    classList.toggle('pictureless', !camera && !screen);
    classList.toggle('screen', screen);
    const isShown = { 'microphone-off': !microphone, 'screen-on': screen };
    for (const sign of SIGNS) this.#part(`.${sign}`).hidden = !isShown[sign];
  }

  /** A line over the picture; empty: none. @param {string} text */
  note(text) {
    setText(this.#note, text);
    this.#note.hidden = text === '';
  }

  /** @param {boolean} isSpeaking */
  speaking(isSpeaking) {
    this.element.classList.toggle('speaking', isSpeaking);
  }

  /** @param {import('./quality.js').Quality} quality */
  quality({ grade, text, figures }) {
    const box = this.#part('.quality');
    box.dataset.grade = grade;
    setText(this.#part('.quality .words'), text);
    this.#figure('rtt', figures?.rttMs, ms);
    this.#figure('loss', figures?.lossPercent, (value) => `${value.toFixed(1)} %`);
    this.#figure('frozen', figures?.frozenMs, (value) => `${(value / 1000).toFixed(1)} s`);
    this.#figure('picture', figures?.width && figures.fps !== undefined ? figures.fps : undefined, (value) => `${figures?.width} × ${figures?.height}, ${value.toFixed(0)} fps`);
    this.#figure('path', figures?.path, String);
  }

  remove() {
    this.video.srcObject = null;
    this.element.remove();
  }

  /**
   * @param {string} name
   * @param {any} value
   * @param {(value: any) => string} format
   */
  #figure(name, value, format) {
    setText(this.#part(`[data-figure=${name}]`), value === undefined ? '–' : format(value));
  }

  /** @param {string} selector */
  #part(selector) {
    return /** @type {HTMLElement} */ (this.element.querySelector(selector));
  }
}

/** @param {string} name */
function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]].map((word) => [...word][0]) : [...(words[0] ?? '')].slice(0, 2);
  return letters.join('').toUpperCase();
}

/** A colour per name, the same on every screen. @param {string} name */
function hue(name) {
  return [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 997, 7) % 6;
}
