/**
 * Waiting for the GPU in Node. While one of its promises is pending, Dawn asks the driver in every turn of the event loop
 * and keeps it turning: a whole core for nothing, which on a software adapter the work itself wants (a third of an
 * update's time on two cores). So the thread sleeps within each turn, for a small share of the time waited so far.
 */

/** Share of the time waited so far that a sleep takes: how late an end is noticed. */
const SHARE = 1 / 32;
/** Sleeps in milliseconds: shorter than the least they cost more than the turn, and longer ones would keep others waiting. */
const SLEEP_MS = { least: 0.05, most: 1 } as const;

const never = new Int32Array(new SharedArrayBuffer(4));
let pending = 0;
let sleeping = false;

/** The outcome of a promise of the GPU. */
export async function withoutSpinning<T>(promise: Promise<T>): Promise<T> {
  pending++;
  if (!sleeping) {
    sleeping = true;
    sleepInTurns(performance.now());
  }
  try {
    return await promise;
  } finally {
    pending--;
  }
}

/** One for all who wait. */
function sleepInTurns(since: number): void {
  setImmediate(() => {
    if (pending === 0) {
      sleeping = false;
      return;
    }
    const ms = Math.min((performance.now() - since) * SHARE, SLEEP_MS.most);
    if (ms >= SLEEP_MS.least) Atomics.wait(never, 0, 0, ms);
    sleepInTurns(since);
  });
}
