// One RTCPeerConnection tied to one session resource: offer and answer, trickled candidates, ICE restart, and the news
// that the connection is lost for good. Does not retry; `session.js` does.

import { SessionError, SessionResource } from './resource.js';
import { candidateAddresses, iceFragment, restartedAnswer } from './sdpfrag.js';

/** ICE and DTLS together; browsers give up on ICE alone after 15 to 30 s, long after a viewer has. */
const CONNECT_TIMEOUT_MS = 12_000;
/** Candidates of one gathering run arrive within a few milliseconds of each other: one PATCH carries them all. */
const TRICKLE_BATCH_MS = 30;
/** A server that does not answer the DELETE must not keep the camera on. */
const DELETE_PATIENCE_MS = 1000;
/** The server forgets a silent session after 10 s by default, so recovering for longer is of no use. */
const RECOVERY_LIMIT_MS = 12_000;
const RECOVERY_STEP_MS = 3_000;

/**
 * @typedef {object} ConnectionOptions
 * @property {string} endpoint
 * @property {string} [token]
 * @property {RTCIceServer[]} [iceServers]
 * @property {number} [connectTimeoutMs]
 * @property {(pc: RTCPeerConnection) => void} prepare  adds tracks or transceivers
 * @property {(sdp: string) => string} [tuneOffer]
 */

export class Connection {
  #options;
  #resource;
  #abort = new AbortController();
  #closing = false;
  #answer = '';
  #offer = '';
  /** @type {RTCIceCandidate[]} */
  #candidates = [];
  #gathered = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #trickleTimer;
  #patches = Promise.resolve();
  #recovering = false;
  #connecting = false;
  /** @type {(error: SessionError | null) => void} */
  #end = () => undefined;

  /** @param {ConnectionOptions} options */
  constructor(options) {
    this.#options = options;
    this.#resource = new SessionResource(options.endpoint, options.token);
    this.pc = new RTCPeerConnection({ iceServers: options.iceServers ?? [], bundlePolicy: 'max-bundle' });
    /** Fulfilled when the connection is over: with the reason, or with null after `close()`. @type {Promise<SessionError | null>} */
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  /** Resolves once media can flow. @param {(pc: RTCPeerConnection) => void} [onAnswer] */
  async open(onAnswer) {
    const { pc } = this;
    this.#options.prepare(pc);
    const { sdp = '' } = await pc.createOffer();
    this.#offer = this.#options.tuneOffer?.(sdp) ?? sdp;
    const { answer, iceServers } = await this.#resource.create(this.#offer);
    this.#answer = answer;
    // Gathering starts with setLocalDescription: only after the answer can it use the ICE servers the answer names.
    if (iceServers.length) pc.setConfiguration({ ...pc.getConfiguration(), iceServers });
    pc.addEventListener('icecandidate', ({ candidate }) => this.#trickle(candidate));
    pc.addEventListener('connectionstatechange', () => this.#watch());
    try {
      await pc.setLocalDescription({ type: 'offer', sdp: this.#offer });
      await pc.setRemoteDescription({ type: 'answer', sdp: answer });
    } catch (cause) {
      throw new SessionError({
        kind: 'bad-answer',
        title: 'The browser does not accept the answer of the server',
        detail: cause instanceof Error ? cause.message : String(cause),
      });
    }
    onAnswer?.(pc);
    await this.#connected(this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS, true);
    for (const { transport } of [...pc.getSenders(), ...pc.getReceivers()]) {
      transport?.addEventListener('statechange', () => this.#watch());
    }
  }

  /** New credentials and candidates for the same session; nothing changes when the server refuses. */
  async restartIce() {
    const { pc } = this;
    const { sdp = '' } = await pc.createOffer({ iceRestart: true });
    const offer = this.#options.tuneOffer?.(sdp) ?? sdp;
    const fragment = await this.#resource.restart(iceFragment(offer, [], false), this.#abort.signal);
    this.#candidates = [];
    this.#gathered = false;
    this.#offer = offer;
    this.#answer = restartedAnswer(this.#answer, fragment);
    await pc.setLocalDescription({ type: 'offer', sdp: offer });
    await pc.setRemoteDescription({ type: 'answer', sdp: this.#answer });
  }

  /** Ends the connection early when the server has forgotten the session, as after a restart. */
  async probe() {
    if (!(await this.#resource.exists())) this.#lose(gone());
  }

  async close() {
    // The server ends the session as soon as it sees DTLS close; the DELETE has to come first to find it.
    this.#closing = true;
    const deleted = this.#resource.delete();
    await Promise.race([deleted, new Promise((resolve) => setTimeout(resolve, DELETE_PATIENCE_MS))]);
    this.#lose(null);
    await deleted;
  }

  /** @param {SessionError | null} error */
  #lose(error) {
    clearTimeout(this.#trickleTimer);
    this.#abort.abort();
    this.pc.close();
    this.#end(error);
  }

  /** @param {RTCIceCandidate | null} candidate */
  #trickle(candidate) {
    if (candidate?.candidate) this.#candidates.push(candidate);
    if (!candidate) this.#gathered = true;
    clearTimeout(this.#trickleTimer);
    this.#trickleTimer = setTimeout(() => {
      const fragment = iceFragment(this.#offer, this.#candidates.splice(0), this.#gathered);
      this.#patches = this.#patches.then(() => this.#resource.trickle(fragment)).catch(() => undefined);
    }, TRICKLE_BATCH_MS);
  }

  #watch() {
    const { pc } = this;
    const closed = [...pc.getSenders(), ...pc.getReceivers()].some((s) => s.transport?.state === 'closed' || s.transport?.state === 'failed');
    if (this.#closing || this.#abort.signal.aborted) return;
    if (closed || pc.connectionState === 'closed') this.#lose(gone());
    else if (pc.connectionState === 'disconnected' || pc.connectionState === 'failed') void this.#recover();
  }

  async #recover() {
    // A first connection that fails is the business of open().
    if (this.#recovering || this.#connecting) return;
    this.#recovering = true;
    const deadline = performance.now() + RECOVERY_LIMIT_MS;
    /** @type {SessionError} */
    let reason = gone();
    while (performance.now() < deadline && !this.#abort.signal.aborted) {
      try {
        await this.restartIce();
        await this.#connected(RECOVERY_STEP_MS, false);
        break;
      } catch (error) {
        if (this.pc.connectionState === 'connected') break;
        if (error instanceof SessionError) reason = error;
        if (reason.status === 404 || reason.status === 410) break;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
    this.#recovering = false;
    if (this.pc.connectionState !== 'connected') this.#lose(reason);
  }

  /**
   * @param {number} limitMs
   * @param {boolean} failFast  believe `failed` at once; a restart begins in that state
   */
  async #connected(limitMs, failFast) {
    const { pc } = this;
    const settled = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    this.#connecting = true;
    try {
      await new Promise((resolve, reject) => {
        const fail = () => void this.#connectFailed().then(reject);
        const check = () => {
          if (pc.connectionState === 'connected') resolve(undefined);
          else if (failFast && pc.connectionState === 'failed') fail();
        };
        timer = setTimeout(fail, limitMs);
        pc.addEventListener('connectionstatechange', check, { signal: settled.signal });
        this.#abort.signal.addEventListener('abort', fail, { signal: settled.signal });
        check();
      });
    } finally {
      clearTimeout(timer);
      settled.abort();
      this.#connecting = false;
    }
  }

  async #connectFailed() {
    const reached = ['connected', 'completed'].includes(this.pc.iceConnectionState);
    const checks = await checksMade(this.pc).catch(() => []);
    return new SessionError({
      kind: reached ? 'dtls-failed' : 'ice-failed',
      title: reached ? 'The media connection could not be encrypted' : 'No media connection to the server',
      candidates: candidateAddresses(this.#answer),
      checks,
    });
  }
}

/**
 * What ICE has tried, read from the pairs of candidates before the connection is closed.
 * @param {RTCPeerConnection} pc
 * @returns {Promise<import('./resource.js').IceCheck[]>}
 */
async function checksMade(pc) {
  const reports = await pc.getStats();
  /** @type {import('./resource.js').IceCheck[]} */
  const checks = [];
  reports.forEach((/** @type {any} */ pair) => {
    if (pair.type !== 'candidate-pair') return;
    const local = reports.get(pair.localCandidateId);
    const remote = reports.get(pair.remoteCandidateId);
    if (!remote) return;
    checks.push({
      protocol: local?.protocol ?? remote.protocol ?? 'udp',
      from: local?.address ?? '',
      to: `${remote.address ?? '?'}:${remote.port}`,
      sent: pair.requestsSent ?? 0,
      answered: pair.responsesReceived ?? 0,
    });
  });
  return checks;
}

function gone() {
  return new SessionError({ kind: 'connection-lost', title: 'The connection to the server was lost' });
}
