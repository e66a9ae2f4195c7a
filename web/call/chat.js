// The chat: lines of text to everybody in the room, kept for as long as the page is open.

import { setText } from '../page.js';

/** Older lines go, so that a long meeting does not fill the page. */
const MAX_LINES = 500;
/** A message of the signalling protocol holds 16 KB. */
const MAX_LETTERS = 2000;

/** Fires `unread` when the number of unread lines changes. */
export class Chat extends EventTarget {
  #panel;
  #log;
  #field;
  unread = 0;

  /**
   * @param {HTMLElement} panel
   * @param {(text: string) => Promise<void>} send
   */
  constructor(panel, send) {
    super();
    this.#panel = panel;
    this.#log = /** @type {HTMLElement} */ (panel.querySelector('[role=log]'));
    this.#field = /** @type {HTMLInputElement} */ (panel.querySelector('input'));
    this.#field.maxLength = MAX_LETTERS;
    /** @type {HTMLFormElement} */ (panel.querySelector('form')).addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.#field.value.trim();
      if (!text) return;
      this.#field.value = '';
      send(text).then(
        () => this.add('You', text, true),
        (error) => {
          // What could not be sent stands in the field again.
          if (!this.#field.value) this.#field.value = text;
          this.add('', `Not sent: ${error instanceof Error ? error.message : error}`);
        },
      );
    });
    panel.addEventListener('keydown', ({ key }) => key === 'Escape' && this.close());
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  open() {
    this.#panel.hidden = false;
    this.#count(0);
    this.#field.focus();
    this.#scroll();
    this.dispatchEvent(new Event('toggle'));
  }

  close() {
    this.#panel.hidden = true;
    this.dispatchEvent(new Event('toggle'));
  }

  /** @param {string} from  empty: the page itself @param {string} text @param {boolean} [isOwn] */
  add(from, text, isOwn = false) {
    const line = document.createElement('p');
    line.classList.toggle('own', isOwn);
    if (from) line.append(part('strong', from), ' ');
    else line.classList.add('system');
    const time = part('time', new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
    line.append(time, part('span', text.slice(0, MAX_LETTERS)));
    this.#log.append(line);
    while (this.#log.children.length > MAX_LINES) this.#log.firstElementChild?.remove();
    if (this.isOpen) this.#scroll();
    else if (!isOwn) this.#count(this.unread + 1);
  }

  /** Empties it for another room. */
  clear() {
    this.#log.replaceChildren();
    this.#count(0);
  }

  /** @param {number} unread */
  #count(unread) {
    this.unread = unread;
    this.dispatchEvent(new Event('unread'));
  }

  #scroll() {
    this.#log.scrollTop = this.#log.scrollHeight;
  }
}

/** @param {string} tag @param {string} text */
function part(tag, text) {
  const made = document.createElement(tag);
  setText(made, text);
  return made;
}
