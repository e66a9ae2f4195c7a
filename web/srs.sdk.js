// The browser SDK that pages written for SRS load, for Freshet: the same global names, promises and fields.
//
//   <script src="https://HOST:8443/web/srs.sdk.js"></script>
//
//   const sdk = new SrsRtcPublisherAsync();
//   video.srcObject = sdk.stream;
//   sdk.publish('webrtc://HOST/live/cam').then(session => …, reason => …);
//
// A classic script, since such pages know no modules. New pages are better served by lib/whip.js and lib/whep.js, which
// reconnect, trickle and say what is wrong; what this one promises is that a page need not change.

'use strict';

(() => {
  /** SRS's API port, and the one it expects behind HTTPS. Pages leave the port out of `webrtc://` addresses. */
  const HTTP_API_PORT = 1985;
  const HTTPS_API_PORT = 443;
  const REQUEST_TIMEOUT_MS = 30_000;
  const DELETE_PATIENCE_MS = 1000;
  /** Where this script came from: the server itself, unless the page has a copy of its own. */
  const SCRIPT = document.currentScript instanceof HTMLScriptElement ? document.currentScript.src : '';

  /** Errors with a stable `name`, which pages compare: `HttpsRequiredError`. */
  class SrsError extends Error {
    /** @param {string} name @param {string} message */
    constructor(name, message) {
      super(message);
      this.name = name;
    }
  }

  /**
   * @typedef {object} Session  what `publish` and `play` resolve with; of the JSON calls, all that the server answered
   * @property {string} sessionid  "<server's ice-ufrag>:<browser's>"
   * @property {string} simulator  an address that SRS's own pages link to
   * @property {string} [sdp]
   * @property {number} [code]
   */

  /** @typedef {any} Sdk  an object whose members a page reads and replaces as it likes */

  /** Publishes to `webrtc://host/app/stream` by `/rtc/v1/publish/`. @returns {Sdk} */
  function SrsRtcPublisherAsync() {
    const sdk = blankSdk('/rtc/v1/publish/');
    sdk.constraints = { audio: true, video: { width: { ideal: 320, max: 576 } } };
    /** @param {string} url @returns {Promise<Session>} */
    sdk.publish = async (url) => {
      const target = sdk.__internal.prepareUrl(url);
      for (const kind of ['audio', 'video']) sdk.pc.addTransceiver(kind, { direction: 'sendonly' });
      await send(sdk, await openDevices('getUserMedia', sdk.constraints));
      return jsonCall(sdk, target);
    };
    return sdk;
  }

  /** Plays `webrtc://host/app/stream` by `/rtc/v1/play/`. @returns {Sdk} */
  function SrsRtcPlayerAsync() {
    const sdk = blankSdk('/rtc/v1/play/');
    receive(sdk);
    /** @param {string} url @returns {Promise<Session>} */
    sdk.play = async (url) => {
      const target = sdk.__internal.prepareUrl(url);
      for (const kind of ['audio', 'video']) sdk.pc.addTransceiver(kind, { direction: 'recvonly' });
      return jsonCall(sdk, target);
    };
    return sdk;
  }

  /** Publishes by WHIP and plays by WHEP; the addresses are the endpoints' own. @returns {Sdk} */
  function SrsRtcWhipWhepAsync() {
    const sdk = blankSdk('');
    sdk.constraints = { audio: true, video: { width: { ideal: 320, max: 576 } } };
    receive(sdk);
    /**
     * @param {string} url
     * @param {{camera?: boolean, screen?: boolean, audio?: boolean}} [options]  camera and microphone if nothing is said
     * @returns {Promise<Session>}
     */
    sdk.publish = async (url, { camera = true, screen = false, audio = true } = {}) => {
      if (!camera && !screen && !audio) throw new Error('camera, screen and audio are all off: nothing is left to publish');
      if (audio) sdk.pc.addTransceiver('audio', { direction: 'sendonly' });
      if (camera || screen) sdk.pc.addTransceiver('video', { direction: 'sendonly' });
      if (screen) await send(sdk, await openDevices('getDisplayMedia', { video: true }));
      const video = camera && !screen && sdk.constraints.video;
      const wanted = { audio: audio && sdk.constraints.audio, video };
      if (wanted.audio || wanted.video) await send(sdk, await openDevices('getUserMedia', wanted));
      return sdpCall(sdk, url);
    };
    /**
     * @param {string} url
     * @param {{videoOnly?: boolean, audioOnly?: boolean}} [options]
     * @returns {Promise<Session>}
     */
    sdk.play = async (url, { videoOnly = false, audioOnly = false } = {}) => {
      if (videoOnly && audioOnly) throw new Error('videoOnly and audioOnly exclude each other');
      if (!videoOnly) sdk.pc.addTransceiver('audio', { direction: 'recvonly' });
      if (!audioOnly) sdk.pc.addTransceiver('video', { direction: 'recvonly' });
      return sdpCall(sdk, url);
    };
    return sdk;
  }

  /**
   * The codec that each of a connection's senders uses, in words, once that is negotiated: "video/H264, 90000HZ, …".
   * @param {RTCRtpSender[]} senders
   * @param {string} kind  "audio" or "video"
   */
  function SrsRtcFormatSenders(senders, kind) {
    return senders
      .filter((sender) => sender.track?.kind === kind)
      .flatMap((sender) => sender.getParameters().codecs?.find(({ mimeType }) => !/\/(rtx|red|ulpfec|flexfec-03)$/i.test(mimeType)) ?? [])
      .map(({ mimeType, clockRate, channels, payloadType, sdpFmtpLine }) => {
        const profile = /profile-level-id=(\w+)/.exec(sdpFmtpLine ?? '')?.[1];
        return [mimeType, `${clockRate}HZ`, channels && `channels: ${channels}`, profile && `profile: ${profile}`, `pt: ${payloadType}`]
          .filter(Boolean)
          .join(', ');
      })
      .join('; ');
  }

  /** What the three have in common. @param {string} defaultPath @returns {Sdk} */
  function blankSdk(defaultPath) {
    /** @type {MediaStreamTrack[]} */
    const opened = [];
    /** @type {Sdk} */
    const sdk = {
      pc: new RTCPeerConnection(),
      stream: new MediaStream(),
      /** Hears of every track, own and received; pages replace it. @param {{track: MediaStreamTrack}} event */
      ontrack: (event) => sdk.stream.addTrack(event.track),
      close: () => {
        const { pc } = sdk;
        sdk.pc = null;
        for (const track of opened) track.stop();
        void endSession(sdk.__internal.session).then(() => pc?.close());
        sdk.__internal.session = '';
      },
      __internal: {
        defaultPath,
        opened,
        session: '',
        parse: parseUrl,
        /** @param {string} url */
        prepareUrl: (url) => prepareUrl(url, sdk.__internal.defaultPath),
      },
    };
    return sdk;
  }

  /**
   * The DELETE has to come before the connection's own end, which the server notices at once. @param {string} url
   * @returns {Promise<unknown>}
   */
  async function endSession(url) {
    if (!url) return undefined;
    // The page may be on its way out.
    const deleted = fetch(url, { method: 'DELETE', keepalive: true }).catch(() => undefined);
    return Promise.race([deleted, new Promise((resolve) => setTimeout(resolve, DELETE_PATIENCE_MS))]);
  }

  /** @param {Sdk} sdk */
  function receive(sdk) {
    sdk.pc.ontrack = (/** @type {RTCTrackEvent} */ event) => sdk.ontrack?.(event);
  }

  /** @param {Sdk} sdk @param {MediaStream} media */
  async function send(sdk, media) {
    // Closed while the browser asked for permission.
    if (!sdk.pc) {
      for (const track of media.getTracks()) track.stop();
      throw new DOMException('closed before the devices opened', 'AbortError');
    }
    for (const track of media.getTracks()) {
      sdk.__internal.opened.push(track);
      sdk.pc.addTrack(track);
      sdk.ontrack?.({ track });
    }
  }

  /**
   * @param {'getUserMedia' | 'getDisplayMedia'} method
   * @param {MediaStreamConstraints} constraints
   * @returns {Promise<MediaStream>}
   */
  async function openDevices(method, constraints) {
    if (!navigator.mediaDevices?.[method]) {
      const why = isSecureContext ? `this browser has no ${method}` : 'browsers give camera, microphone and screen only to https:// pages and to http://localhost';
      throw new SrsError('HttpsRequiredError', why);
    }
    return navigator.mediaDevices[method](constraints);
  }

  /** The older signalling: offer and answer inside JSON. @param {Sdk} sdk @param {ReturnType<typeof prepareUrl>} target */
  async function jsonCall(sdk, target) {
    const { sdp } = await sdk.pc.createOffer();
    const body = JSON.stringify({ api: target.apiUrl, tid: target.tid, streamurl: target.streamUrl, clientip: null, sdp });
    const request = await post(target.apiUrls, 'application/json', body);
    /** @type {Session} */
    const session = JSON.parse(request.responseText);
    // Pages look at the request to tell the person what the server said.
    if (session.code) throw request;
    await accept(sdk, sdp, session.sdp ?? '');
    session.simulator = `${target.schema}//${target.urlObject.server}:${target.port}/rtc/v1/nack/`;
    return session;
  }

  /** WHIP or WHEP. @param {Sdk} sdk @param {string} url @returns {Promise<Session>} */
  async function sdpCall(sdk, url) {
    const { sdp } = await sdk.pc.createOffer();
    const request = await post([url], 'application/sdp', sdp);
    const location = request.getResponseHeader('Location');
    if (location) sdk.__internal.session = new URL(location, request.responseURL).href;
    await accept(sdk, sdp, request.responseText);
    const ufrag = (/** @type {string} */ text) => /^a=ice-ufrag:(\S+)/m.exec(text)?.[1] ?? '';
    return {
      sessionid: `${ufrag(request.responseText)}:${ufrag(sdp)}`,
      simulator: new URL('/rtc/v1/nack/', request.responseURL).href,
    };
  }

  /**
   * Gathering begins with the answer: the server needs no candidates of the browser, and pages read the negotiated codecs
   * when gathering is complete.
   * @param {Sdk} sdk @param {string} offered @param {string} answered
   */
  async function accept(sdk, offered, answered) {
    if (!sdk.pc) throw new DOMException('closed before the server answered', 'AbortError');
    await Promise.all([
      sdk.pc.setLocalDescription({ type: 'offer', sdp: offered }),
      sdk.pc.setRemoteDescription({ type: 'answer', sdp: answered }),
    ]);
  }

  /**
   * Posts to the first of the addresses at which anything answers; a refusal is an answer.
   * @param {string[]} urls
   * @param {string} type
   * @param {string} body
   * @returns {Promise<XMLHttpRequest>} rejects with the request
   */
  async function post(urls, type, body) {
    for (const url of urls.slice(0, -1)) {
      try {
        return await postTo(url, type, body);
      } catch (error) {
        if (!(error instanceof XMLHttpRequest) || error.status) throw error;
      }
    }
    return postTo(urls[urls.length - 1], type, body);
  }

  /** @param {string} url @param {string} type @param {string} body @returns {Promise<XMLHttpRequest>} */
  function postTo(url, type, body) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.onload = () => (request.status === 200 || request.status === 201 ? resolve(request) : reject(request));
      request.onerror = request.ontimeout = () => reject(request);
      request.open('POST', url);
      request.timeout = REQUEST_TIMEOUT_MS;
      request.setRequestHeader('Content-Type', type);
      request.send(body);
    });
  }

  /**
   * Where the API of a `webrtc://` address is. Its query goes along to the server; `schema=https`, `api=PORT` and
   * `play=/path/` are for this side.
   * @param {string} url
   * @param {string} defaultPath
   */
  function prepareUrl(url, defaultPath) {
    const urlObject = parseUrl(url);
    const query = urlObject.user_query;
    const schema = query.schema ? `${query.schema.replace(/:$/, '')}:` : location.protocol === 'https:' ? 'https:' : 'http:';
    const port = Number(urlObject.port || query.api) || (schema === 'https:' ? HTTPS_API_PORT : HTTP_API_PORT);
    let path = query.play || defaultPath;
    if (!path.endsWith('/')) path += '/';
    const passed = new URLSearchParams(Object.entries(query).filter(([name]) => name !== 'play' && name !== 'api' && name !== 'schema')).toString();
    const rest = path + (passed && `?${passed}`);
    const apiUrl = `${schema}//${urlObject.server}:${port}${rest}`;
    const tid = Math.random().toString(16).slice(2, 9);
    const apiUrls = [apiUrl, ...(urlObject.port || query.api ? [] : otherOrigins(schema, urlObject.server).map((origin) => origin + rest))];
    return { apiUrl, apiUrls, streamUrl: urlObject.url, schema, urlObject, port, tid };
  }

  /**
   * Where else the server may be when nothing answers at SRS's port: behind the port that the page or this script came
   * from, if that is the same host.
   * @param {string} schema
   * @param {string} server
   */
  function otherOrigins(schema, server) {
    const origins = [SCRIPT, location.href].flatMap((text) => {
      const known = URL.canParse(text) ? new URL(text) : null;
      return known?.protocol === schema && known.hostname === server ? [known.origin] : [];
    });
    return [...new Set(origins)];
  }

  /** The parts of `webrtc://host[:port]/app/stream?query` under SRS's names. @param {string} url */
  function parseUrl(url) {
    const [, scheme = 'webrtc', authority = '', pathname = '', search = ''] = /^(?:([a-z]+):)?\/\/([^/?]+)([^?]*)\??(.*)$/i.exec(url.trim()) ?? [];
    const [, server = '', port = ''] = /^(.*?)(?::(\d+))?$/.exec(authority) ?? [];
    if (!server) throw new Error(`${url} names no server: write webrtc://HOST/live/cam`);
    const slash = pathname.lastIndexOf('/');
    /** @type {Record<string, string>} */
    const user_query = Object.fromEntries(new URLSearchParams(search));
    return {
      url,
      schema: scheme.toLowerCase(),
      server,
      port: port ? Number(port) : undefined,
      vhost: user_query.vhost ?? user_query.domain ?? server,
      app: pathname.slice(1, Math.max(1, slash)),
      stream: pathname.slice(slash + 1),
      user_query,
    };
  }

  Object.assign(globalThis, { SrsError, SrsRtcPublisherAsync, SrsRtcPlayerAsync, SrsRtcWhipWhepAsync, SrsRtcFormatSenders });
})();
