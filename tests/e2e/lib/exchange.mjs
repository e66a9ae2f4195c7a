// One publisher and one player for a while, as one call: what runs in a network namespace is told so by message.
import { Browsers, sleep } from './peers.mjs';

/**
 * `plan`: `{ whip?, whep?, publisher, player, warmupMs, measureMs, republish, flags }`. Returns the player's figures, with
 * the publisher's bandwidth estimate and, for a republish, the time at which the second publisher was connected.
 */
export async function exchange(plan, progress = () => {}) {
  const browsers = new Browsers(plan.flags ?? []);
  try {
    const publisher = plan.whip && (await browsers.publish(plan.whip, plan.publisher));
    progress('published');
    const player = plan.whep && (await browsers.play(plan.whep, plan.player));
    progress('playing');
    await sleep(plan.warmupMs);
    const since = Date.now();
    progress('measuring');
    if (plan.republish) {
      await publisher.close();
      await sleep(1000);
      await publisher.open(plan.whip);
    }
    const again = Date.now();
    await sleep(plan.measureMs);
    const result = player ? await player.measure(since) : {};
    if (publisher) result.publisher = await publisher.call('stats');
    if (plan.republish) result.framesAfterRepublish = (await player.measure(again + 500)).frames;
    await player?.close();
    await publisher?.close();
    return result;
  } finally {
    await browsers.close();
  }
}

if (process.send) {
  process.on('message', async plan => {
    try {
      process.send({ result: await exchange(plan, step => process.send({ step })) });
    } catch (error) {
      process.send({ error: error.message });
    }
    process.exit();
  });
}
