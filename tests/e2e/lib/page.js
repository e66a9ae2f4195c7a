// Browser side of the tests: publishes a stamped picture and tones over WHIP, plays over WHEP, and notes what it sees.
(function (scope) {
  'use strict';
  const peers = [];
  const source = {};

  function picture({ width, height, fps }) {
    if (source.canvas) return source.canvas.captureStream().getVideoTracks()[0];
    const canvas = (source.canvas = document.createElement('canvas'));
    Object.assign(canvas, { width, height });
    document.body.append(canvas);
    const context = canvas.getContext('2d', { alpha: false });
    let n = 0;
    const draw = () => Stamp.draw(context, width, height, Date.now(), n++, { motion: Math.round(width / 100) });
    draw();
    setInterval(draw, 1000 / fps);
    // Without a rate: with one, Chromium drops every third frame of a canvas that a timer draws.
    return canvas.captureStream().getVideoTracks()[0];
  }

  // A quiet 440 Hz tone, and a loud 1 kHz beep in the first 100 ms of every second of the wall clock.
  async function tones() {
    if (!source.sound) {
      const audio = new AudioContext({ sampleRate: 48000 });
      await audio.resume();
      source.sound = audio.createMediaStreamDestination();
      const [hum, beep] = [[440, 0.1], [1000, 0]].map(([frequency, volume]) => {
        const oscillator = audio.createOscillator();
        const gain = audio.createGain();
        oscillator.frequency.value = frequency;
        gain.gain.value = volume;
        oscillator.connect(gain).connect(source.sound);
        oscillator.start();
        return gain;
      });
      source.hum = hum;
      const plan = () => {
        const wait = (1000 - (Date.now() % 1000)) / 1000;
        if (wait < 0.5) {
          beep.gain.setValueAtTime(0.5, audio.currentTime + wait);
          beep.gain.setValueAtTime(0, audio.currentTime + wait + 0.1);
        }
        setTimeout(plan, 1000 - ((Date.now() + 300) % 1000));
      };
      plan();
    }
    return source.sound.stream.getAudioTracks()[0];
  }

  function prefer(transceiver, codec, capabilities) {
    const wanted = capabilities.codecs.filter(one => one.mimeType.toLowerCase() === `video/${codec}`);
    if (!wanted.length) throw new Error(`this browser has no ${codec}`);
    transceiver.setCodecPreferences([...wanted, ...capabilities.codecs.filter(one => /rtx|red|ulpfec/i.test(one.mimeType))]);
  }

  async function negotiate(peer, config, url) {
    const { pc } = peer;
    pc.addEventListener('connectionstatechange', () => (peer.states[pc.connectionState] ??= Math.round(performance.now() - peer.began)));
    await pc.setLocalDescription(await pc.createOffer());
    peer.offer = pc.localDescription.sdp;
    if (config.wrongFingerprint) peer.offer = peer.offer.replace(/(a=fingerprint:sha-256 )(..)/g, (_, name, byte) => name + (byte === '00' ? '11' : '00'));
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: peer.offer });
    peer.answer = await response.text();
    if (response.status !== 201) throw new Error(`POST ${url}: HTTP ${response.status} ${peer.answer.slice(0, 300)}`);
    peer.session = new URL(response.headers.get('location'), url).href;
    const answer = config.tcpOnly ? peer.answer.replace(/^a=candidate:\S+ \d udp .*\r\n/gim, '') : peer.answer;
    await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  }

  function open() {
    const peer = { pc: new RTCPeerConnection({ bundlePolicy: 'max-bundle' }), began: performance.now(), states: {} };
    peers.push(peer);
    return peer;
  }

  async function publish(config, url) {
    const tracks = [];
    if (config.audio) tracks.push(config.device ? (await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()[0] : await tones());
    if (config.video) tracks.push(picture(config));
    const stream = new MediaStream(tracks);
    const peer = open();
    for (const track of tracks) {
      const init = { direction: 'sendonly', streams: [stream] };
      if (track.kind === 'video' && config.simulcast) init.sendEncodings = [{ rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' }];
      const transceiver = peer.pc.addTransceiver(track, init);
      if (track.kind === 'video' && config.codec) prefer(transceiver, config.codec, RTCRtpSender.getCapabilities('video'));
    }
    await negotiate(peer, config, url);
    return peers.length - 1;
  }

  async function play(config, url) {
    const peer = open();
    Object.assign(peer, { paints: [], unreadable: 0, colourError: 0, flashes: [], beeps: [], pauses: [], tones: [] });
    const { pc } = peer;
    if (config.audio) pc.addTransceiver('audio', { direction: 'recvonly' });
    if (config.video) {
      const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
      if (config.playCodec) prefer(transceiver, config.playCodec, RTCRtpReceiver.getCapabilities('video'));
    }
    const media = new MediaStream();
    const video = document.createElement('video');
    // Sound reaches WebAudio only when the track also hangs on a media element.
    Object.assign(video, { autoplay: true, playsInline: true, muted: true, width: 640 });
    document.body.append(video);
    pc.ontrack = event => {
      media.addTrack(event.track);
      video.srcObject = media;
      video.play().catch(() => {});
      if (event.track.kind === 'audio' && config.listen) listen(peer, event.track);
    };
    watch(peer, video);
    await negotiate(peer, config, url);
    return peers.length - 1;
  }

  // Notes of each painted frame: when, the stamp's counter, its age.
  function watch(peer, video) {
    let lit = null;
    const note = () => {
      const now = Date.now();
      peer.firstFrameMs ??= Math.round(performance.now() - peer.began);
      peer.size = `${video.videoWidth}x${video.videoHeight}`;
      const stamp = Stamp.read(video);
      if (stamp.ok) {
        peer.paints.push([now, stamp.n, stamp.age]);
        peer.colourError = Math.max(peer.paints.length > 60 ? peer.colourError : 0, stamp.colourError);
        if (lit === false && stamp.flash) peer.flashes.push(now);
        lit = stamp.flash;
      } else {
        peer.paints.push([now, null, null]);
        peer.unreadable++;
      }
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
  }

  const BEEP_FINDER = `registerProcessor('beeps', class extends AudioWorkletProcessor {
    constructor() { super(); this.on = false; this.quiet = 0; this.buffer = new Float32Array(480); this.fill = 0; }
    process(inputs) {
      for (const sample of inputs[0][0] ?? []) {
        this.buffer[this.fill++] = sample;
        if (this.fill < 480) continue;
        this.fill = 0;
        let re = 0, im = 0;
        this.buffer.forEach((x, k) => { re += x * Math.cos(2 * Math.PI * k / 48); im += x * Math.sin(2 * Math.PI * k / 48); });
        const on = 2 * Math.hypot(re, im) / 480 > 0.15;
        if (on && !this.on) this.port.postMessage({ beep: true });
        this.on = on;
        const isQuiet = this.buffer.every(x => Math.abs(x) < 0.01);
        if (!isQuiet && this.quiet) this.port.postMessage({ quietMs: this.quiet });
        this.quiet = isQuiet ? this.quiet + 10 : 0;
      }
      return true;
    }
  })`;

  // When each beep began, when each pause of the sound ended and how long it was, and the loudest frequency five times a
  // second.
  async function listen(peer, track) {
    const audio = new AudioContext({ sampleRate: 48000 });
    await audio.resume();
    await audio.audioWorklet.addModule(URL.createObjectURL(new Blob([BEEP_FINDER], { type: 'text/javascript' })));
    const input = audio.createMediaStreamSource(new MediaStream([track]));
    const finder = new AudioWorkletNode(audio, 'beeps');
    finder.port.onmessage = ({ data }) => (data.beep ? peer.beeps.push(Date.now()) : peer.pauses.push([Date.now(), data.quietMs]));
    const silence = audio.createGain();
    silence.gain.value = 0;
    const analyser = audio.createAnalyser();
    Object.assign(analyser, { fftSize: 4096, smoothingTimeConstant: 0 });
    input.connect(analyser);
    input.connect(finder).connect(silence).connect(audio.destination);
    const spectrum = new Float32Array(analyser.frequencyBinCount);
    setInterval(() => {
      analyser.getFloatFrequencyData(spectrum);
      const loudest = spectrum.indexOf(Math.max(...spectrum));
      if (spectrum[loudest] > -70) peer.tones.push(Math.round((loudest * 48000) / analyser.fftSize));
    }, 200);
  }

  async function stats(id) {
    const { pc } = peers[id];
    const all = [...(await pc.getStats()).values()];
    const byId = Object.fromEntries(all.map(one => [one.id, one]));
    const pair = all.find(one => one.type === 'candidate-pair' && one.nominated && one.state === 'succeeded');
    return {
      state: pc.connectionState,
      protocol: pair && byId[pair.localCandidateId]?.protocol,
      uplinkBps: pair?.availableOutgoingBitrate,
      streams: all.filter(one => one.type === 'inbound-rtp' || one.type === 'outbound-rtp').map(one => ({ ...one, codec: byId[one.codecId]?.mimeType.split('/')[1].toLowerCase() })),
    };
  }

  async function report(id) {
    const { pc, ...notes } = peers[id];
    return { ...notes, ...(await stats(id)) };
  }

  /** The encoder makes smaller pictures from now on. */
  async function halve(id) {
    const sender = peers[id].pc.getSenders().find(one => one.track?.kind === 'video');
    const parameters = sender.getParameters();
    parameters.encodings[0].scaleResolutionDownBy = 2;
    await sender.setParameters(parameters);
  }

  async function close(id) {
    const { pc, session } = peers[id];
    const status = session ? (await fetch(session, { method: 'DELETE' })).status : 0;
    pc.close();
    return status;
  }

  scope.Client = {
    publish, play, stats, report, close, halve,
    state: id => peers[id].pc.connectionState,
    // connectionState stays "connected" when the other side closes DTLS: the transport tells.
    dtls: id => peers[id].pc.getTransceivers()[0].sender.transport?.state ?? peers[id].pc.getReceivers()[0].transport.state,
    painted: id => peers[id].paints.length,
  };
})(globalThis);
