// Shows how loud a stream is, on a <meter>.

const UPDATE_MS = 60;
/** Speech sits around a tenth of full scale; shown as amplitude it would hardly move the bar. */
const FLOOR_DB = -60;

/**
 * @param {MediaStream} stream
 * @param {HTMLMeterElement} meter
 * @returns {() => void} stops
 */
export function showLevel(stream, meter) {
  if (stream.getAudioTracks().length === 0) return () => undefined;
  const audio = new AudioContext();
  const analyser = new AnalyserNode(audio, { fftSize: 1024 });
  audio.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const peak = samples.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0);
    meter.value = peak > 0 ? Math.max(0, 1 - (20 * Math.log10(peak)) / FLOOR_DB) : 0;
  }, UPDATE_MS);
  return () => {
    clearInterval(timer);
    meter.value = 0;
    void audio.close();
  };
}
