/**
 * SIGINT (Ctrl-C) and SIGTERM while a command works: the first one asks it to come to an end, the second one ends the
 * process at once.
 */

export type EndSignal = "SIGINT" | "SIGTERM";

const SIGNALS: readonly EndSignal[] = ["SIGINT", "SIGTERM"];
/** 128 and the number of the signal. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Runs `work`, telling the first signal to `onFirst`.
 *
 * @param work is given a function that tells which signal came, if one did
 */
export async function withSignals<T>(
  onFirst: (signal: EndSignal) => void,
  work: (came: () => EndSignal | undefined) => Promise<T>,
): Promise<T> {
  let first: EndSignal | undefined;
  const listener = (signal: EndSignal) => {
    if (first !== undefined) process.exit(EXIT_CODES[signal]);
    first = signal;
    onFirst(signal);
  };
  for (const signal of SIGNALS) process.on(signal, listener);
  try {
    return await work(() => first);
  } finally {
    for (const signal of SIGNALS) process.off(signal, listener);
  }
}
