// One WHIP or WHEP session as the HTTP resource it is: POST makes it, PATCH trickles and restarts ICE, DELETE ends it
// (RFC 9725 §4). Knows nothing of RTCPeerConnection.

/** How long one request may take before the server counts as unreachable. */
const REQUEST_TIMEOUT_MS = 10_000;
const SDP = 'application/sdp';
const FRAGMENT = 'application/trickle-ice-sdpfrag';

/**
 * A connectivity check of ICE as the browser counted it.
 * @typedef {object} IceCheck
 * @property {string} protocol  "udp" or "tcp"
 * @property {string} from      this side's address; empty where the browser hides it
 * @property {string} to        "address:port" of the server
 * @property {number} sent
 * @property {number} answered
 */

/**
 * Why a session could not be made or kept: a refusal of the server (status and kind are the server's own, RFC 9457) or,
 * with status 0, something that went wrong on this side.
 */
export class SessionError extends Error {
  /**
   * @param {object} init
   * @param {number} [init.status]  HTTP status, 0 when there was no answer
   * @param {string} init.kind      stable word: `stream-busy`, `codec-mismatch`, `unreachable`, `ice-failed`…
   * @param {string} init.title
   * @param {string} [init.detail]
   * @param {string} [init.hint]
   * @param {number} [init.retryAfterMs]
   * @param {string[]} [init.candidates]  addresses that the server offered, when ICE failed
   * @param {IceCheck[]} [init.checks]    what the browser tried then
   */
  constructor({ status = 0, kind, title, detail = '', hint = '', retryAfterMs, candidates = [], checks = [] }) {
    super(detail || title);
    this.name = 'SessionError';
    this.status = status;
    this.kind = kind;
    this.title = title;
    this.detail = detail;
    this.hint = hint;
    this.retryAfterMs = retryAfterMs;
    this.candidates = candidates;
    this.checks = checks;
  }
}

export class SessionResource {
  #token;
  #etag = '';
  /** Set by the server's own word that it takes no fragments: RFC 9725 §4.3 makes both uses of PATCH optional. */
  #takesPatch = true;

  /** @param {string} endpoint @param {string} [token] */
  constructor(endpoint, token = '') {
    this.endpoint = new URL(endpoint, globalThis.location?.href).href;
    this.#token = token;
    /** Absolute address of the session, empty until there is one. */
    this.url = '';
  }

  /**
   * Not abortable: a session that the server has just made must become known, or nobody could delete it.
   * @param {string} offer
   * @returns {Promise<{answer: string, iceServers: RTCIceServer[]}>}
   */
  async create(offer) {
    const response = await this.#send(this.endpoint, 'POST', { body: offer, headers: { 'Content-Type': SDP } });
    const location = response.headers.get('Location');
    if (response.status !== 201) throw await refusal(response);
    this.url = location ? new URL(location, response.url || this.endpoint).href : '';
    this.#etag = response.headers.get('ETag') ?? '';
    return { answer: await response.text(), iceServers: iceServers(response.headers.get('Link') ?? '') };
  }

  /** Sends candidates. A refusal is not an error: ICE often connects without them. @param {string} fragment */
  async trickle(fragment) {
    if (!this.url || !this.#takesPatch) return;
    const headers = { 'Content-Type': FRAGMENT, ...(this.#etag ? { 'If-Match': this.#etag } : {}) };
    const response = await this.#send(this.url, 'PATCH', { body: fragment, headers });
    if ([405, 415, 422, 501].includes(response.status)) this.#takesPatch = false;
  }

  /**
   * Restarts ICE.
   * @param {string} fragment
   * @param {AbortSignal} [signal]
   * @returns {Promise<string>} the server's fragment
   */
  async restart(fragment, signal) {
    const headers = { 'Content-Type': FRAGMENT, 'If-Match': '"*"' };
    const response = await this.#send(this.url, 'PATCH', { body: fragment, headers, signal });
    if (response.status !== 200) throw await refusal(response);
    this.#etag = response.headers.get('ETag') ?? this.#etag;
    return response.text();
  }

  /** Whether the server still knows the session; true when it cannot be asked. */
  async exists() {
    if (!this.url) return true;
    try {
      const { status } = await this.#send(this.url, 'HEAD', {});
      return status !== 404 && status !== 410;
    } catch {
      return true;
    }
  }

  /** Ends the session, also while the page goes away (`keepalive`). The answer matters to nobody. */
  async delete() {
    if (!this.url) return;
    const url = this.url;
    this.url = '';
    await this.#send(url, 'DELETE', { keepalive: true }).catch(() => undefined);
  }

  /**
   * @param {string} url
   * @param {string} method
   * @param {{body?: string, headers?: Record<string, string>, signal?: AbortSignal, keepalive?: boolean}} options
   */
  async #send(url, method, { body, headers = {}, signal, keepalive = false }) {
    const limit = new AbortController();
    const abort = () => limit.abort();
    const timer = setTimeout(abort, REQUEST_TIMEOUT_MS);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    /** @type {Record<string, string>} */
    const authorization = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    try {
      return await fetch(url, { method, body, keepalive, headers: { ...headers, ...authorization }, signal: limit.signal });
    } catch (cause) {
      throw new SessionError({
        kind: 'unreachable',
        title: 'The server does not answer',
        detail: `${method} ${new URL(url).host}: ${cause instanceof Error ? cause.message : cause}`,
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }
}

/**
 * What a refusal of the server says.
 * @param {Response} response
 * @returns {Promise<SessionError>}
 */
export async function refusal(response) {
  const text = await response.text().catch(() => '');
  /** @type {Record<string, unknown>} */
  let problem = {};
  try {
    const parsed = JSON.parse(text);
    if (parsed && typeof parsed === 'object') problem = parsed;
  } catch {
    problem = { detail: text.slice(0, 300) };
  }
  const word = (/** @type {string} */ key) => (typeof problem[key] === 'string' ? /** @type {string} */ (problem[key]) : '');
  const retryAfter = Number(response.headers.get('Retry-After') ?? NaN);
  return new SessionError({
    status: response.status,
    kind: word('type').replace(/^urn:freshet:problem:/, '') || `http-${response.status}`,
    title: word('title') || `The server answered ${response.status} ${response.statusText}`.trim(),
    detail: word('detail'),
    hint: word('hint'),
    retryAfterMs: Number.isFinite(retryAfter) ? retryAfter * 1000 : undefined,
  });
}

/**
 * ICE servers out of a Link header (RFC 9725 §4.6).
 * @param {string} header
 * @returns {RTCIceServer[]}
 */
export function iceServers(header) {
  const servers = [];
  for (const [, url, rest] of header.matchAll(/<([^>]+)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^;,\s]+))*)/g)) {
    /** @type {Record<string, string>} */
    const parameters = {};
    for (const [, name, quoted, bare] of rest.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,\s]+))/g)) {
      parameters[name.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, '$1');
    }
    if (parameters.rel !== 'ice-server') continue;
    /** @type {RTCIceServer} */
    const server = { urls: url };
    if (parameters.username) server.username = parameters.username;
    if (parameters.credential) server.credential = parameters.credential;
    servers.push(server);
  }
  return servers;
}
