// Browser side of the tests of calls: a camera of one colour, a microphone of one tone, a screen of another colour, and
// eyes and ears that tell which colours and tones a page shows and plays. Goes into a page before its own scripts.
(function (scope) {
  'use strict';
  const RATE = 15;

  /** A picture that moves a little, so that encoders have frames to send. */
  function picture(colour, width, height) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d', { alpha: false });
    let n = 0;
    const draw = () => {
      context.fillStyle = colour;
      context.fillRect(0, 0, width, height);
      context.fillStyle = '#fff';
      context.fillRect((n++ * 7) % width, 2, 12, 8);
    };
    draw();
    setInterval(draw, 1000 / RATE);
    return canvas.captureStream().getVideoTracks()[0];
  }

  function tone(hz) {
    const audio = new AudioContext();
    void audio.resume();
    const sink = audio.createMediaStreamDestination();
    const oscillator = new OscillatorNode(audio, { frequency: hz });
    oscillator.connect(new GainNode(audio, { gain: 0.3 })).connect(sink);
    oscillator.start();
    return sink.stream.getAudioTracks()[0];
  }

  /** `fail`: the name of the DOMException that devices answer with, by kind. */
  scope.useFakeMedia = ({ colour, hz, screen = '#ff00ff', fail = {} }) => {
    const refuse = kind => {
      if (fail[kind]) throw new DOMException(`${kind} refused by the test`, fail[kind]);
    };
    // Pages over plain HTTP have no devices at all.
    if (!navigator.mediaDevices) return;
    navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
      if (video) refuse('camera');
      if (audio) refuse('microphone');
      return new MediaStream([...(audio ? [tone(hz)] : []), ...(video ? [picture(colour, 320, 180)] : [])]);
    };
    navigator.mediaDevices.getDisplayMedia = async () => {
      refuse('screen');
      return new MediaStream([picture(screen, 640, 360)]);
    };
  };

  const ears = new Map();

  function hear(track) {
    if (!ears.has(track)) {
      const audio = new AudioContext({ sampleRate: 48000 });
      void audio.resume();
      const analyser = new AnalyserNode(audio, { fftSize: 8192, smoothingTimeConstant: 0 });
      audio.createMediaStreamSource(new MediaStream([track])).connect(analyser);
      ears.set(track, analyser);
    }
    const spectrum = new Float32Array(8192 / 2);
    ears.get(track).getFloatFrequencyData(spectrum);
    const loudest = spectrum.indexOf(Math.max(...spectrum));
    return spectrum[loudest] > -60 ? Math.round((loudest * 48000) / 8192) : 0;
  }

  function colourOf(video) {
    if (!video.videoWidth) return null;
    const canvas = Object.assign(document.createElement('canvas'), { width: 8, height: 8 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0, 8, 8);
    return [...context.getImageData(4, 4, 1, 1).data.slice(0, 3)];
  }

  /** What the page shows of everybody: name, colour, loudest tone, frames, and what the tile says. */
  scope.lookAround = () =>
    [...document.querySelectorAll('.tile')].map(tile => {
      const video = tile.querySelector('video');
      const track = video.srcObject?.getAudioTracks()[0];
      return {
        name: tile.dataset.name,
        isSelf: tile.classList.contains('self'),
        state: tile.dataset.state,
        isPictureless: getComputedStyle(video).visibility === 'hidden',
        isMuted: tile.classList.contains('muted'),
        isScreen: tile.classList.contains('screen'),
        isSpeaking: tile.classList.contains('speaking'),
        isSilenced: video.muted,
        grade: tile.querySelector('.quality').dataset.grade,
        note: tile.querySelector('.note').textContent,
        colour: colourOf(video),
        hz: track && !tile.classList.contains('self') ? hear(track) : 0,
        frames: video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0,
      };
    });
})(globalThis);
