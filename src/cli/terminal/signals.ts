/**
 * SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is closed) while a command works: the first one asks it to come to
 * an end, the second one ends the process at once.
 */
import { SIGNAL_CODES } from "../../errors.ts";

export type EndSignal = keyof typeof SIGNAL_CODES;

const SIGNALS: readonly EndSignal[] = ["SIGHUP", "SIGINT", "SIGTERM"];

let isExplained: ((signal: EndSignal) => Promise<boolean>) | undefined;

/** From now on a signal counts only where this says that nothing else is the reason for it. */
export function screenSignals(explained: (signal: EndSignal) => Promise<boolean>): void {
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
  const listener = (signal: EndSignal) => {
    if (isExplained === undefined) act(signal);
    else void isExplained(signal).then((explained) => explained || act(signal));
  };
  for (const signal of SIGNALS) process.on(signal, listener);
  try {
    return await work(() => first);
  } finally {
    for (const signal of SIGNALS) process.off(signal, listener);
  }
}
