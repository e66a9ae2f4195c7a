// One HTTP request with a deadline. Plain node:http, since fetch hides HEAD bodies, closed sockets and TLS settings.
import http from 'node:http';
import https from 'node:https';

const agents = {
  'http:': new http.Agent({ keepAlive: true, maxSockets: 16 }),
  'https:': new https.Agent({ keepAlive: true, maxSockets: 16, rejectUnauthorized: false }),
};

/** Resolves to `{ status, headers, body, url }`; rejects when nothing complete has come after `timeoutMs`. */
export function send(method, url, { headers = {}, body, timeoutMs = 5000 } = {}) {
  const target = new URL(url);
  const library = target.protocol === 'https:' ? https : http;
  return new Promise((done, fail) => {
    const options = { method, headers: { ...headers }, agent: agents[target.protocol] };
    if (body !== undefined) options.headers['content-length'] = Buffer.byteLength(body);
    const request = library.request(target, options, response => {
      const chunks = [];
      response.on('data', chunk => chunks.push(chunk));
      response.on('error', fail);
      response.on('end', () => {
        clearTimeout(timer);
        done({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString(), url });
      });
    });
    const timer = setTimeout(() => {
      request.destroy();
      fail(new Error(`${method} ${target.pathname}: no complete answer in ${timeoutMs} ms`));
    }, timeoutMs);
    request.on('error', error => {
      clearTimeout(timer);
      fail(new Error(`${method} ${target.pathname}: ${error.message}`));
    });
    request.end(body);
  });
}
