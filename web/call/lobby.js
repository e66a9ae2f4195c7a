// Before joining: the preview, the choice of devices, and the microphone's level.

import { namedDevices } from '../capture.js';
import { element, setText } from '../page.js';
import { recall, remember } from './memory.js';
import { Sound } from './sound.js';
import { MicrophoneLevel, meterValue } from './speaking.js';

const METER_MS = 80;

/** @typedef {'camera' | 'microphone' | 'speaker'} Device */

/** @type {Record<Device, MediaDeviceKind>} */
const KINDS = { camera: 'videoinput', microphone: 'audioinput', speaker: 'audiooutput' };

export class Lobby {
  #local;
  #sound;
  #preview = element('preview', HTMLVideoElement);
  #level = new MicrophoneLevel();
  #opening = false;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #meterTimer;

  /** @param {import('./local.js').LocalMedia} local @param {Sound} sound */
  constructor(local, sound) {
    this.#local = local;
    this.#sound = sound;
    local.addEventListener('change', () => this.#show());
    for (const device of /** @type {Device[]} */ (Object.keys(KINDS))) {
      const select = element(device, HTMLSelectElement);
      select.addEventListener('change', () => this.#choose(device, select.value));
    }
    element('speaker-field').hidden = !Sound.choosesSpeaker;
    navigator.mediaDevices?.addEventListener('devicechange', () => void this.listDevices());
  }

  async open() {
    clearInterval(this.#meterTimer);
    this.#meterTimer = setInterval(() => this.#showLevel(), METER_MS);
    this.#opening = true;
    this.#show();
    void this.#sound.useSpeaker(recall().speaker);
    await this.#local.open(recall());
    this.#opening = false;
    this.#show();
    await this.listDevices();
  }

  /** The preview ends; the devices stay open for the call. */
  close() {
    clearInterval(this.#meterTimer);
    this.#level.listen(null);
    this.#preview.srcObject = null;
  }

  async listDevices() {
    const devices = await namedDevices();
    for (const device of /** @type {Device[]} */ (Object.keys(KINDS))) {
      const select = element(device, HTMLSelectElement);
      for (const option of [...select.options]) if (option.value) option.remove();
      for (const { label, deviceId } of devices.filter(({ kind }) => kind === KINDS[device])) select.append(new Option(label, deviceId));
      const wished = recall()[device];
      if ([...select.options].some(({ value }) => value === wished)) select.value = wished;
    }
  }

  /** @param {Device} device @param {string} id */
  #choose(device, id) {
    remember({ [device]: id });
    if (device === 'speaker') void this.#sound.useSpeaker(id);
    else void this.#local.use(device, id);
  }

  #show() {
    const { camera, microphone, cameraOn } = this.#local;
    if (document.body.dataset.view !== 'lobby') return;
    if (tracksOf(this.#preview)[0] !== (camera ?? undefined)) this.#preview.srcObject = camera && new MediaStream([camera]);
    this.#level.listen(microphone);
    let text = camera ? '' : 'Your camera is off';
    if (this.#opening && cameraOn && !camera) text = 'Waiting for the browser to open camera and microphone. It may ask for permission.';
    setText(element('overlay-text'), text);
    element('overlay').hidden = text === '';
  }

  #showLevel() {
    element('level', HTMLMeterElement).value = this.#local.microphoneOn ? meterValue(this.#level.read()) : 0;
  }
}

/** @param {HTMLVideoElement} video */
function tracksOf(video) {
  return video.srcObject instanceof MediaStream ? video.srcObject.getTracks() : [];
}
