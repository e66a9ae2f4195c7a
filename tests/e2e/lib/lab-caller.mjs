// Somebody in Firefox in a call, run in the network namespace: joins, looks around until the other is there, tells by message.
import { Browsers, until } from './peers.mjs';

process.once('message', async ({ url }) => {
  const browsers = new Browsers();
  try {
    const page = await browsers.page('firefox', url);
    await page.waitForSelector('#join:not(:disabled)');
    await page.click('#join');
    const look = () =>
      page.evaluate(() => {
        const video = document.querySelector('.tile:not(.self) video');
        if (!video?.videoWidth) return null;
        const canvas = Object.assign(document.createElement('canvas'), { width: 8, height: 8 });
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0, 8, 8);
        return { colour: [...context.getImageData(4, 4, 1, 1).data.slice(0, 3)], at: video.currentTime };
      });
    const first = await until('a picture in Firefox', 20_000, look);
    await until('it moves', 5000, async () => (await look()).at > first.at + 1);
    process.send({ result: await look() });
    await new Promise(done => process.once('disconnect', done));
    await page.close();
  } catch (error) {
    process.send({ error: error.message });
  } finally {
    await browsers.close();
    process.exit();
  }
});
