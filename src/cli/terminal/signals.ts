/**
 * SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is closed) while a command works: the first one asks it to come to
 * an end, the second one ends the process at once.
 */
import { SIGNAL_CODES } from "../../errors.ts";

export type EndSignal = keyof typeof SIGNAL_CODES;

const SIGNALS: readonly EndSignal[] = ["SIGHUP", "SIGINT", "SIGTERM"];

/**
 * Under a launcher one signal may come twice at once, to the whole process group and through npm, which forwards it to
 * its child. Milliseconds within which the same signal again is no second one.
 */
const ECHO_MS = 2000;

let isExplained: ((signal: EndSignal) => Promise<boolean>) | undefined;

/**
 * For a process that a launcher started: from now on a signal counts only where this says that nothing else is the
 * reason for it, and once where it comes twice at once. undefined ends this.
 */
export function screenSignals(explained: ((signal: EndSignal) => Promise<boolean>) | undefined): void {
  isExplained = explained;
}

/**
 * Runs `work` and calls `onFirst` at the first signal.
 *
 * @param work gets a function that returns the signal that came, if one did
 */
export async function withSignals<T>(
  onFirst: (signal: EndSignal) => void,
  work: (came: () => EndSignal | undefined) => Promise<T>,
): Promise<T> {
  let first: EndSignal | undefined;
  const act = (signal: EndSignal) => {
    if (first !== undefined) process.exit(SIGNAL_CODES[signal]);
    first = signal;
    onFirst(signal);
  };
  const cameAtMs = new Map<EndSignal, number>();
  const listener = (signal: EndSignal) => {
    if (isExplained === undefined) {
      act(signal);
      return;
    }
    const nowMs = performance.now();
    if (nowMs - (cameAtMs.get(signal) ?? Number.NEGATIVE_INFINITY) < ECHO_MS) return;
    cameAtMs.set(signal, nowMs);
    void isExplained(signal).then((explained) => explained || act(signal));
  };
  for (const signal of SIGNALS) process.on(signal, listener);
  try {
    return await work(() => first);
  } finally {
    for (const signal of SIGNALS) process.off(signal, listener);
  }
}
