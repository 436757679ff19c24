/**
 * Deadlines for what comes over a network, and bodies of HTTP answers read piece by piece up to a limit. Which requests
 * are sent, and when they are sent again, is up to the hub and to the judges.
 *
 * Not AbortSignal.timeout and AbortSignal.any: Node 20 holds both weakly, so that a garbage collection can take the
 * timer away and leave the request waiting for ever.
 */

/** The time was up. */
export class DeadlineError extends Error {
  constructor(milliseconds: number) {
    super(`no answer within ${milliseconds / 1000} s`);
  }
}

/**
 * Runs `work` until it ends or `milliseconds` have passed. The timer keeps the process alive meanwhile.
 *
 * @param work is given a signal that is aborted when it is no longer waited for, and a function that starts the time
 * again
 * @throws DeadlineError when the time is up; what `work` throws
 */
export async function withDeadline<T>(
  milliseconds: number,
  work: (signal: AbortSignal, startAgain: () => void) => T,
): Promise<Awaited<T>> {
  const given = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    return await new Promise<Awaited<T>>((resolve, reject) => {
      const startAgain = () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          const error = new DeadlineError(milliseconds);
          reject(error);
          given.abort(error);
        }, milliseconds);
      };
      startAgain();
      Promise.resolve(work(given.signal, startAgain)).then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    given.abort();
  }
}

/**
 * The body of an answer, piece by piece; what is not read is cancelled.
 *
 * @throws the signal's reason once it is aborted; what reading the body throws
 */
export async function* bodyPieces(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  // fetch may lose its own connection to the signal when its Request is collected.
  const cancel = () => void reader.cancel().catch(() => undefined);
  signal.addEventListener("abort", cancel);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return;
      yield value;
    }
  } finally {
    signal.removeEventListener("abort", cancel);
    cancel();
  }
}

/**
 * The text of a body (UTF-8), read no further than the piece in which it grows beyond `mostBytes`.
 *
 * @param onPiece is called for each piece that arrives
 */
export async function bodyText(
  response: Response,
  mostBytes: number,
  signal: AbortSignal,
  onPiece: () => void = () => undefined,
): Promise<{ readonly text: string; readonly isCut: boolean }> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const piece of bodyPieces(response, signal)) {
    onPiece();
    bytes += piece.length;
    text += decoder.decode(piece, { stream: true });
    if (bytes > mostBytes) return { text, isCut: true };
  }
  return { text: text + decoder.decode(), isCut: false };
}
