/**
 * Waiting for the GPU in Node. While one of its promises is pending, Dawn asks the driver in every turn of the event loop
 * and keeps it turning: a whole core for nothing, which on a software adapter the work itself wants (a third of an
 * update's time on two cores). So the thread sleeps within each turn, for a small share of the time waited so far.
 */

/** Share of the time waited so far that a sleep takes: how late an end is noticed. */
const SHARE = 1 / 32;
/** Sleeps in milliseconds: shorter than the least they cost more than the turn, and longer ones would keep others waiting. */
const SLEEP_MS = { least: 0.05, most: 1 } as const;
/** Windows may make 16 ms of a millisecond, by its timer. */
const SLEEPS = process.platform !== "win32";

const never = new Int32Array(new SharedArrayBuffer(4));
let pending = 0;
/** When somebody began to wait where nobody had. */
let since = 0;
let sleeping = false;

/** The outcome of a promise of the GPU. */
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

/** One for all who wait. */
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
