// The switches for microphone, camera and screen: in the preview and in the bar, both always telling the truth.

import { element } from '../page.js';
import { remember } from './memory.js';

/** @param {import('./local.js').LocalMedia} local */
export function connectSwitches(local) {
  const microphones = [element('preview-microphone'), element('toggle-microphone')];
  const cameras = [element('preview-camera'), element('toggle-camera')];
  const screen = element('toggle-screen');
  const isOn = {
    microphone: () => local.microphone !== null && local.microphoneOn,
    camera: () => local.camera !== null,
  };
  for (const button of microphones) {
    button.addEventListener('click', () => {
      const on = !isOn.microphone();
      remember({ microphoneOn: on });
      void local.setMicrophone(on);
    });
  }
  for (const button of cameras) {
    button.addEventListener('click', () => {
      const on = !isOn.camera();
      remember({ cameraOn: on });
      void local.setCamera(on);
    });
  }
  // Phones cannot share their screens.
  screen.hidden = !navigator.mediaDevices?.getDisplayMedia;
  screen.addEventListener('click', () => void (local.screen ? local.stopScreen() : local.shareScreen()));
  const show = () => {
    for (const button of microphones) press(button, 'microphone', isOn.microphone());
    for (const button of cameras) press(button, 'camera', isOn.camera());
    screen.setAttribute('aria-pressed', String(local.screen !== null));
  };
  local.addEventListener('change', show);
  show();
}

/** @param {HTMLElement} button @param {'microphone' | 'camera'} what @param {boolean} isOn */
function press(button, what, isOn) {
  button.setAttribute('aria-pressed', String(isOn));
  button.querySelector('use')?.setAttribute('href', `#icon-${what}${isOn ? '' : '-off'}`);
}
