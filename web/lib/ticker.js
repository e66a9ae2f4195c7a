// A worker that ticks at the interval (ms) it is told.

/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;

addEventListener('message', (/** @type {MessageEvent<number>} */ { data }) => {
  clearInterval(timer);
  timer = setInterval(() => postMessage(0), data);
});
