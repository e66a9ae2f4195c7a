// Groups of named cases. A group starts its own server and browsers, and everything has a deadline.
const groups = [];

/**
 * `setup(cleanup)` returns what the cases of the group get; `cleanup(fn)` registers what must be undone. Its `tidy` is
 * called after every case, its `server` is asked for the end of its log when a case fails.
 */
export function group(name, setup, cases) {
  groups.push({ name, setup, cases });
}

/** A case: returns a line of figures to print, or throws. */
export const test = (name, deadlineSeconds, run) => ({ name, deadlineSeconds, run });

async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`not done in ${seconds} s`)), seconds * 1000)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs the cases whose "group: name" contains one of `only`; all when there is none. */
export async function runAll(only) {
  let passed = 0;
  let failed = 0;
  for (const { name, setup, cases } of groups) {
    const chosen = cases.filter(one => !only.length || only.some(text => `${name}: ${one.name}`.includes(text)));
    if (!chosen.length) continue;
    const cleanups = [];
    const report = (title, error, started, figures) => {
      const seconds = ((Date.now() - started) / 1000).toFixed(1);
      console.log(`${error ? 'FAIL' : 'ok  '} ${name}: ${title} (${seconds} s)${figures ? `  ${figures}` : ''}`);
      if (error) console.log(`       ${String(error.message ?? error).replaceAll('\n', '\n       ')}`);
    };
    let context = null;
    const began = Date.now();
    try {
      context = await within(60, setup(undo => cleanups.push(undo)));
    } catch (error) {
      failed += chosen.length;
      report('set-up', error, began);
    }
    for (const { name: title, deadlineSeconds, run } of context ? chosen : []) {
      const started = Date.now();
      try {
        const figures = await within(deadlineSeconds, run(context));
        passed++;
        report(title, null, started, figures);
      } catch (error) {
        failed++;
        report(title, error, started);
        if (context.server) console.log(context.server.log().split('\n').slice(-8).map(line => `       | ${line.slice(0, 200)}`).join('\n'));
      }
      await within(20, Promise.resolve(context.tidy?.())).catch(() => {});
    }
    for (const undo of cleanups.reverse()) await within(20, undo()).catch(error => console.log(`       clean-up of ${name}: ${error.message}`));
  }
  return { passed, failed };
}
