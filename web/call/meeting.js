// Being in a room: the seat by signalling, one's own stream, and a person for everybody else.

import { Person } from './person.js';
import { Publisher } from './publisher.js';
import { QualityWatch } from './quality.js';
import { MicrophoneLevel, watchSpeaking } from './speaking.js';
import { Tile } from './tile.js';

const MEASURE_MS = 1000;
/** Enough for a face, bit/s: a call has the window for itself, a room divides it. */
const CAMERA_BITRATE = { call: 1_500_000, room: 700_000 };

/** @typedef {import('../lib/signaling.js').Participant} Participant */
/** @typedef {{whose: string, error: unknown, isPassing: boolean}} MediaTrouble  `whose`: a name, empty for one's own */

/**
 * Fires
 * - `people`: somebody has come, gone or changed
 * - `arrived`, `departed`: detail is the name
 * - `picture`: somebody's first frame shows
 * - `trouble`: media does not flow; detail is a MediaTrouble
 * - `recovered`: one's own media flows again
 */
export class Meeting extends EventTarget {
  /** @type {Map<string, Person>} */
  people = new Map();
  #signaling;
  #local;
  #sound;
  #publisher;
  #quality = new QualityWatch();
  #level = new MicrophoneLevel();
  #stopSpeaking;
  #measureTimer;
  #left = new AbortController();

  /**
   * @param {import('../lib/signaling.js').Signaling} signaling  that has joined
   * @param {string} display
   * @param {import('./local.js').LocalMedia} local
   * @param {import('./sound.js').Sound} sound
   * @param {import('./address.js').Kind} kind
   */
  constructor(signaling, display, local, sound, kind) {
    super();
    this.#signaling = signaling;
    this.#local = local;
    this.#sound = sound;
    this.#publisher = new Publisher(local, CAMERA_BITRATE[kind]);
    this.tile = new Tile({ name: display, isSelf: true });
    this.#stopSpeaking = watchSpeaking(() => (local.microphoneOn ? this.#level.read() : 0), (speaks) => this.tile.speaking(speaks));
    this.#measureTimer = setInterval(() => void this.#measure(), MEASURE_MS);
    const { signal } = this.#left;
    local.addEventListener('change', () => this.#showSelf(), { signal });
    this.#publisher.addEventListener('statechange', () => this.#ownMedia(), { signal });
    signaling.addEventListener('joined', () => this.#seated(), { signal });
    signaling.addEventListener('participants', () => this.#meet(), { signal });
    this.#showSelf();
    this.#seated();
  }

  /** Frees the seat and the streams; the devices stay open. */
  leave() {
    this.#left.abort();
    clearInterval(this.#measureTimer);
    this.#stopSpeaking();
    this.#level.listen(null);
    this.#publisher.close();
    void this.#signaling.leave();
    for (const person of this.people.values()) person.close();
    this.people.clear();
    this.tile.remove();
  }

  /** What of oneself is on, as the others are told. */
  get state() {
    return mediaState(this.#local);
  }

  /** Again whenever the seat was retaken: a server that has restarted gives another stream. */
  #seated() {
    const stream = this.#signaling.self?.stream ?? '';
    // Else the others would be told at once of a stream that is not there yet.
    if (this.#publisher.stream && stream !== this.#publisher.stream) void this.#signaling.unpublish().catch(() => undefined);
    this.#publisher.start(stream);
    this.#meet();
  }

  #meet() {
    const { participants, self } = this.#signaling;
    const others = new Map(participants.filter(({ id }) => id !== self?.id).map((one) => [one.id, one]));
    for (const [id, person] of this.people) {
      if (others.has(id)) continue;
      this.people.delete(id);
      person.close();
      this.#fire('departed', person.about.display);
    }
    for (const [id, about] of others) {
      const known = this.people.get(id);
      if (known) known.update(about);
      else this.#welcome(about);
    }
    this.dispatchEvent(new Event('people'));
  }

  /** @param {Participant} about */
  #welcome(about) {
    const person = new Person(about, this.#sound);
    this.people.set(about.id, person);
    person.addEventListener('picture', () => this.dispatchEvent(new Event('picture')));
    person.addEventListener('trouble', () => this.#fire('trouble', { whose: person.about.display, error: person.client?.error, isPassing: false }));
    this.#fire('arrived', about.display);
  }

  #showSelf() {
    const { picture, microphone } = this.#local;
    const shown = this.tile.video.srcObject;
    if ((shown instanceof MediaStream ? shown.getTracks()[0] : undefined) !== (picture ?? undefined)) {
      this.tile.video.srcObject = picture && new MediaStream([picture]);
    }
    this.#level.listen(microphone);
    this.tile.state(this.state);
    this.#signaling.setState(this.state);
    this.dispatchEvent(new Event('people'));
  }

  /** The others are told to play once there is something to play. */
  #ownMedia() {
    const { client } = this.#publisher;
    this.tile.element.dataset.state = client?.state ?? 'silent';
    this.tile.note(client?.state === 'waiting' ? 'Reconnecting…' : '');
    if (client?.state === 'live') {
      // What cannot be said now is said after the next join.
      void this.#signaling.publish().catch(() => undefined);
      this.dispatchEvent(new Event('recovered'));
    }
    if (client?.state === 'waiting' || client?.state === 'failed') {
      this.#fire('trouble', { whose: '', error: client.error, isPassing: client.state === 'waiting' });
    }
  }

  async #measure() {
    const { client } = this.#publisher;
    this.tile.quality(await this.#quality.sample(client?.pc ?? null, client?.state === 'live'));
    await Promise.all([...this.people.values()].map((person) => person.measure()));
  }

  /** @param {string} name @param {unknown} detail */
  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @param {import('./local.js').LocalMedia} local @returns {Required<import('./tile.js').MediaState>} */
export function mediaState({ camera, microphone, microphoneOn, screen }) {
  return { camera: camera !== null, microphone: microphone !== null && microphoneOn, screen: screen !== null };
}
