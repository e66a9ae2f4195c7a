// What most groups work with: a server of their own, browsers, and whatever FFmpegs their cases start.
import { endFfmpegs } from './ffmpeg.mjs';
import { Browsers } from './peers.mjs';
import { startServer } from './server.mjs';

/** A group's setup. `extra` is configuration of the server. */
export const serverAndClients = extra => async cleanup => {
  const server = await startServer({ extra });
  cleanup(() => server.stop());
  const browsers = new Browsers();
  cleanup(() => browsers.close());
  cleanup(endFfmpegs);
  const tidy = async () => {
    await browsers.tidy();
    await endFfmpegs();
  };
  return { server, browsers, tidy };
};
