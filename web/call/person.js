// One other participant: plays their stream while they publish, and keeps their tile true.

import { WhepClient } from '../lib/whep.js';
import { mediaAddress, token } from './address.js';
import { QualityWatch } from './quality.js';
import { receivedLevel, watchSpeaking } from './speaking.js';
import { Tile } from './tile.js';

/** @typedef {import('../lib/signaling.js').Participant} Participant */

/** Fires `picture` at the first frame, and `trouble` when their stream cannot be played (see `client.error`). */
export class Person extends EventTarget {
  /** @type {WhepClient | null} */
  client = null;
  #quality = new QualityWatch();
  #sound;
  #stopSpeaking;
  #hasPicture = false;

  /** @param {Participant} participant @param {import('./sound.js').Sound} sound */
  constructor(participant, sound) {
    super();
    this.about = participant;
    this.#sound = sound;
    this.tile = new Tile({ name: participant.display, isSelf: false });
    this.tile.element.dataset.person = participant.id;
    sound.add(this.tile.video);
    this.#stopSpeaking = watchSpeaking(
      () => (this.about.state?.microphone === false ? 0 : receivedLevel(this.client?.pc ?? null)),
      (speaks) => this.tile.speaking(speaks),
    );
    this.tile.video.addEventListener('loadeddata', () => this.#sawPicture());
    this.update(participant);
  }

  /** @param {Participant} participant */
  update(participant) {
    const moved = participant.stream !== this.about.stream;
    this.about = participant;
    this.tile.name(participant.display);
    this.tile.state(participant.state ?? {});
    if (moved || !participant.publishing) this.#stop();
    if (participant.publishing && !this.client) this.#play();
    this.#tellState();
  }

  /** Once a second. */
  async measure() {
    const { client } = this;
    const quality = await this.#quality.sample(client?.pc ?? null, client?.state === 'live');
    this.tile.quality(quality);
    // Their page may have come back as another session of the server; asking is cheap.
    if (quality.grade === 'lost') void client?.probe();
  }

  close() {
    this.#stopSpeaking();
    this.#stop();
    this.#sound.remove(this.tile.video);
    this.tile.remove();
  }

  #play() {
    const client = new WhepClient({ endpoint: mediaAddress('whep', this.about.stream), token });
    this.client = client;
    client.addEventListener('stream', () => {
      if (this.client === client && client.stream) void this.#sound.play(this.tile.video, client.stream);
    });
    client.addEventListener('statechange', () => {
      if (this.client !== client) return;
      this.#tellState();
      if (client.state === 'failed') this.dispatchEvent(new Event('trouble'));
    });
    // Failures arrive as a state.
    client.play().catch(() => undefined);
  }

  #stop() {
    void this.client?.close();
    this.client = null;
    this.#hasPicture = false;
    this.tile.video.srcObject = null;
  }

  #sawPicture() {
    if (this.tile.video.videoWidth === 0) return;
    this.#hasPicture = true;
    this.#tellState();
    this.dispatchEvent(new Event('picture'));
  }

  #tellState() {
    this.tile.note(this.#noteText());
    this.tile.element.dataset.state = this.client?.state ?? 'silent';
    // Without a picture their initials stand there, whatever they say about their camera.
    this.tile.element.classList.toggle('waiting', !this.#hasPicture);
  }

  #noteText() {
    const { away, publishing } = this.about;
    if (away) return 'Reconnecting…';
    if (!publishing) return '';
    switch (this.client?.state) {
      case 'connecting':
        return 'Connecting…';
      case 'waiting':
        return 'Reconnecting…';
      case 'failed':
        return 'Cannot be played here';
      default:
        return '';
    }
  }
}
