// An HTTP server that hooks call: notes what comes and answers yes, after failures that it is told to have first.
import http from 'node:http';

export class HookServer {
  calls = [];

  /** `failures`: a status, or "close" to hang up, for the first calls. */
  static async start(failures = []) {
    const hook = new HookServer();
    hook.server = http.createServer((request, response) => {
      let text = '';
      request.on('data', data => (text += data));
      request.on('end', () => {
        hook.calls.push({ path: request.url, method: request.method, type: request.headers['content-type'], body: JSON.parse(text) });
        const failure = failures.shift();
        if (failure === 'close') return response.socket.destroy();
        response.writeHead(failure ?? 200, { 'content-type': 'application/json' }).end('{"code": 0}');
      });
    });
    await new Promise(done => hook.server.listen(0, '127.0.0.1', done));
    return hook;
  }

  url(route) {
    return `http://127.0.0.1:${this.server.address().port}${route}`;
  }

  close() {
    this.server.close();
    this.server.closeAllConnections();
  }
}
