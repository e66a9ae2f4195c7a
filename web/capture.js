// Opens what a publisher shows: camera, screen, microphone or the test picture.

import { testSource } from './lib/testpicture.js';

/**
 * @typedef {object} CaptureChoice
 * @property {string} source      "camera", "screen", "audio" or "test"
 * @property {string} camera      device id, empty for the default
 * @property {string} microphone  device id, empty for the default, "none" for silence
 * @property {number} width
 * @property {number} height
 */

/** @typedef {{stream: MediaStream, stop: () => void}} Capture */

/** @param {CaptureChoice} choice @returns {Promise<Capture>} */
export async function openCapture(choice) {
  switch (choice.source) {
    case 'test':
      return testSource({ width: choice.width, height: choice.height });
    case 'screen':
      return stoppable(await screen(choice));
    case 'audio':
      return stoppable(await navigator.mediaDevices.getUserMedia({ audio: microphone(choice) || true }));
    default:
      return stoppable(await navigator.mediaDevices.getUserMedia({ video: camera(choice), audio: microphone(choice) }));
  }
}

/** @param {string} source */
export function needsSecureContext(source) {
  return source !== 'test' && !navigator.mediaDevices;
}

/** Devices have names only after the person has given permission once. */
export async function namedDevices() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((device) => device.label && device.deviceId && device.deviceId !== 'default');
}

/** @param {CaptureChoice} choice @returns {MediaTrackConstraints} */
export function camera({ camera: deviceId, width, height }) {
  return { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 }, ...(deviceId ? { deviceId: { exact: deviceId } } : {}) };
}

/** @param {CaptureChoice} choice @returns {MediaTrackConstraints | false} */
export function microphone({ microphone: deviceId }) {
  if (deviceId === 'none') return false;
  return { echoCancellation: true, noiseSuppression: true, ...(deviceId ? { deviceId: { exact: deviceId } } : {}) };
}

/** @param {CaptureChoice} choice */
async function screen(choice) {
  const { width, height } = choice;
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: { width: { max: width }, height: { max: height }, frameRate: { ideal: 30 } }, audio: true });
  for (const track of stream.getVideoTracks()) track.contentHint = 'detail';
  const voice = microphone(choice);
  if (stream.getAudioTracks().length === 0 && voice) {
    // A screen without a voice is still worth showing.
    const sound = await navigator.mediaDevices.getUserMedia({ audio: voice }).catch(() => null);
    for (const track of sound?.getTracks() ?? []) stream.addTrack(track);
  }
  return stream;
}

/** @param {MediaStream} stream @returns {Capture} */
function stoppable(stream) {
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}
