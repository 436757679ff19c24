/**
 * Waits for the GPU in Node. While one of its promises is pending, Dawn asks the driver in every turn of the event loop
 * and keeps the loop turning. That takes a whole core, which a software adapter needs for its work (a third of an
 * update's time on two cores). So the thread sleeps in each turn, for a small share of the time waited so far.
 */

/** The length of a sleep, as a share of the time waited so far; the end of the wait is noticed so much later. */
const SHARE = 1 / 32;
/** Milliseconds. A shorter sleep costs more than it saves; a longer one would keep other work waiting. */
const SLEEP_MS = { least: 0.05, most: 1 } as const;
/** Not on Windows, whose timer may make 16 ms of one. */
const SLEEPS = process.platform !== "win32";

const never = new Int32Array(new SharedArrayBuffer(4));
let pending = 0;
/** When the present waiting began, by performance.now(). */
let since = 0;
let sleeping = false;

/** The value of a promise of the GPU. */
export async function withoutSpinning<T>(promise: Promise<T>): Promise<T> {
  if (!SLEEPS) return await promise;
  if (pending++ === 0) since = performance.now();
  if (!sleeping) {
    sleeping = true;
    sleepInTurns();
  }
  try {
    return await promise;
  } finally {
    pending--;
  }
}

/** One loop for all that wait. */
function sleepInTurns(): void {
  setImmediate(() => {
    if (pending === 0) {
      sleeping = false;
      return;
    }
    const ms = Math.min((performance.now() - since) * SHARE, SLEEP_MS.most);
    if (ms >= SLEEP_MS.least) Atomics.wait(never, 0, 0, ms);
    sleepInTurns();
  });
}
