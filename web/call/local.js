// This person's own media: microphone, camera and screen, opened, switched and given back. Knows nothing of sending.

import { camera as cameraConstraints, microphone as microphoneConstraints } from '../capture.js';

/** @typedef {'audio' | 'video'} TrackKind */
/** @typedef {{source: 'camera' | 'microphone' | 'screen' | 'both', error: unknown}} Trouble  why a device did not open */

const SCREEN_FRAMES_PER_SECOND = 15;

/** Fires `change` when what is sent has changed, and `trouble` (see `lastTrouble`) when a device fails. */
export class LocalMedia extends EventTarget {
  /** @type {MediaStreamTrack | null} */
  camera = null;
  /** Silent while `microphoneOn` is false: reopening it on each word would take too long. @type {MediaStreamTrack | null} */
  microphone = null;
  /** @type {MediaStreamTrack | null} */
  screen = null;
  microphoneOn = true;
  /** What is wished; a camera that is off is closed, so that its light goes out. */
  cameraOn = true;
  /** @type {Trouble | null} */
  lastTrouble = null;
  /** One opening at a time: browsers ask the person, and some cameras open only once. */
  #queue = Promise.resolve();
  #deviceIds = { camera: '', microphone: '' };
  #size;

  /** @param {{width: number, height: number}} size  wished of the camera */
  constructor(size) {
    super();
    this.#size = size;
  }

  /** What others see. */
  get picture() {
    return this.screen ?? this.camera;
  }

  /** @param {{camera: string, microphone: string, cameraOn: boolean, microphoneOn: boolean}} wish */
  open({ camera, microphone, cameraOn, microphoneOn }) {
    this.#deviceIds = { camera, microphone };
    this.cameraOn = cameraOn;
    this.microphoneOn = microphoneOn;
    return this.#next(() => this.#openBoth());
  }

  /** @param {boolean} on */
  setMicrophone(on) {
    return this.#next(async () => {
      if (on && !this.microphone) await this.#openMicrophone();
      this.microphoneOn = on;
      if (this.microphone) this.microphone.enabled = on;
    });
  }

  /** @param {boolean} on */
  setCamera(on) {
    return this.#next(async () => {
      this.cameraOn = on;
      if (!on) this.#drop('camera');
      else if (!this.camera) await this.#openCamera();
    });
  }

  /** Changes to another device; one that is off stays off. @param {'camera' | 'microphone'} which @param {string} id */
  use(which, id) {
    return this.#next(async () => {
      this.#deviceIds[which] = id;
      if (!this[which]) return;
      this.#drop(which);
      await (which === 'camera' ? this.#openCamera() : this.#openMicrophone());
    });
  }

  /** Resolves when the screen is shared or the person has chosen none. */
  shareScreen() {
    return this.#next(async () => {
      try {
        const video = { width: { max: 1920 }, height: { max: 1080 }, frameRate: { max: SCREEN_FRAMES_PER_SECOND } };
        const [track] = (await navigator.mediaDevices.getDisplayMedia({ video })).getVideoTracks();
        // Text must stay readable: fewer pictures rather than blurred ones.
        track.contentHint = 'detail';
        this.#keep('screen', track);
      } catch (error) {
        this.#tell('screen', error);
      }
    });
  }

  stopScreen() {
    return this.#next(async () => this.#drop('screen'));
  }

  /** Gives all devices back. */
  close() {
    return this.#next(async () => ['camera', 'microphone', 'screen'].forEach((which) => this.#drop(/** @type {any} */ (which))));
  }

  async #openBoth() {
    if (!navigator.mediaDevices) return;
    if (this.cameraOn) {
      try {
        // One question for both devices; which of them is at fault, a refusal does not say.
        const constraints = { video: this.#cameraWish(this.#deviceIds.camera), audio: this.#microphoneWish(this.#deviceIds.microphone) };
        const stream = await navigator.mediaDevices.getUserMedia(constraints);
        this.#keep('camera', stream.getVideoTracks()[0]);
        this.#keep('microphone', stream.getAudioTracks()[0]);
        return;
      } catch (error) {
        if (isRefusal(error) && !(await isGranted('microphone'))) {
          this.cameraOn = false;
          this.microphoneOn = false;
          this.#tell('both', error);
          return;
        }
      }
    }
    await this.#openMicrophone();
    if (this.cameraOn) await this.#openCamera();
  }

  async #openCamera() {
    const track = await this.#openOne('camera', (id) => ({ video: this.#cameraWish(id) }));
    if (track) this.#keep('camera', track);
    else this.cameraOn = false;
  }

  async #openMicrophone() {
    const track = await this.#openOne('microphone', (id) => ({ audio: this.#microphoneWish(id) }));
    if (track) this.#keep('microphone', track);
    else this.microphoneOn = false;
  }

  /** @param {'camera' | 'microphone'} which @param {(id: string) => MediaStreamConstraints} constraints */
  async #openOne(which, constraints) {
    if (!navigator.mediaDevices) return null;
    const wished = this.#deviceIds[which];
    // A remembered device may have been unplugged since.
    for (const id of wished ? [wished, ''] : ['']) {
      try {
        return (await navigator.mediaDevices.getUserMedia(constraints(id))).getTracks()[0];
      } catch (error) {
        const isGone = error instanceof DOMException && (error.name === 'OverconstrainedError' || error.name === 'NotFoundError');
        if (id && isGone) continue;
        this.#tell(which, error);
        break;
      }
    }
    return null;
  }

  /** @param {string} camera */
  #cameraWish(camera) {
    return cameraConstraints({ source: 'camera', camera, microphone: '', ...this.#size });
  }

  /** @param {string} microphone */
  #microphoneWish(microphone) {
    return microphoneConstraints({ source: 'camera', camera: '', microphone, ...this.#size });
  }

  /** @param {'camera' | 'microphone' | 'screen'} which @param {MediaStreamTrack} track */
  #keep(which, track) {
    this.#drop(which);
    this[which] = track;
    if (which === 'microphone') track.enabled = this.microphoneOn;
    track.addEventListener('ended', () => {
      if (this[which] !== track) return;
      this[which] = null;
      if (which === 'camera') this.cameraOn = false;
      if (which === 'microphone') this.microphoneOn = false;
      // The browser has a button of its own to stop sharing a screen; a device that ends was unplugged.
      if (which !== 'screen') this.#tell(which, new DOMException(`${track.label || which} was disconnected`, 'DeviceLost'));
      this.#changed();
    });
  }

  /** @param {'camera' | 'microphone' | 'screen'} which */
  #drop(which) {
    const track = this[which];
    this[which] = null;
    track?.stop();
  }

  /** @param {Trouble['source']} source @param {unknown} error */
  #tell(source, error) {
    this.lastTrouble = { source, error };
    this.dispatchEvent(new Event('trouble'));
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  /** @param {() => Promise<void>} step */
  #next(step) {
    this.#queue = this.#queue.then(step).then(
      () => this.#changed(),
      (error) => this.#tell('both', error),
    );
    return this.#queue;
  }
}

/** @param {unknown} error */
function isRefusal(error) {
  return error instanceof DOMException && (error.name === 'NotAllowedError' || error.name === 'SecurityError');
}

/** Whether the person has allowed it before, so that trying brings up no second question. @param {string} name */
async function isGranted(name) {
  const permission = await navigator.permissions?.query({ name: /** @type {PermissionName} */ (name) }).catch(() => null);
  return permission?.state === 'granted';
}
