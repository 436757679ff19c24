/** What a judge is: it sees a prompt and two answers and says which is better. Who asks it, and how often, is `compare.ts`'s. */
import { asPhrase, errorMessage, JudgeError, shown } from "../../errors.ts";

/** Which of two answers is better, in the order in which they were shown. */
export type Verdict = "a" | "b" | "tie";

export interface Question {
  /** Which prompt this is, from 0. */
  readonly index: number;
  readonly prompt: string;
  readonly a: string;
  readonly b: string;
  /** Whether the answers were shown the other way round: each pair is asked both ways. */
  readonly swapped: boolean;
}

export interface Judge {
  /** For people. */
  readonly name: string;
  /** Questions whose replies held no verdict and count as ties. */
  readonly unclear?: number;
  /**
   * undefined: the judge's budget is spent.
   *
   * @throws JudgeError if it cannot be asked
   */
  compare(question: Question): Promise<Verdict | undefined>;
}

/**
 * A judge's own program: `"a"`, `"b"` or `"tie"`, or how much better `a` is than `b` as a number: above 0, below 0, or 0
 * for a tie.
 */
export type JudgeFunction = (prompt: string, a: string, b: string) => unknown;

const NOT_WAITED_FOR = "it is not waited for any more";

export interface JudgeWait {
  /** Milliseconds until an answer counts as lost; default 60 000. */
  readonly timeoutMs?: number | undefined;
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
}

/** A judge that is a function; `name` is for messages. */
export function functionJudge(judge: JudgeFunction, name: string, wait: JudgeWait = {}): Judge {
  return {
    name,
    async compare({ index, prompt, a, b }) {
      let answer: unknown;
      try {
        answer = await answerWithin(() => judge(prompt, a, b), wait);
      } catch (error) {
        const reason = asPhrase(errorMessage(error));
        throw new JudgeError(`The judge ${name} failed on prompt ${index + 1}: ${reason}.`, { cause: error });
      }
      const verdict = verdictOf(answer);
      if (verdict !== undefined) return verdict;
      const said = typeof answer === "number" ? String(answer) : asPhrase(shown(answer));
      throw new JudgeError(
        `The judge ${name} answered ${said} to prompt ${index + 1}; it must be "a", "b", "tie" or a number: above 0 where a is better, below 0 where b is.`,
      );
    },
  };
}

/**
 * What becomes of an answer, if it comes in time. The timer also keeps a process alive that waits for nothing else.
 *
 * @throws Error if it does not, or if the waiting was ended; what `ask` throws
 */
export async function answerWithin<T>(ask: () => T, { timeoutMs = 60_000, signal }: JudgeWait): Promise<Awaited<T>> {
  const given = new AbortController();
  await new Promise((resolve) => setTimeout(resolve)); // a signal comes through, also where all answers are at once there
  if (signal?.aborted) throw new Error(NOT_WAITED_FOR);
  try {
    return await Promise.race([
      ask(),
      new Promise<never>((_, reject) => {
        const end = (reason: string) => reject(new Error(reason));
        const timer = setTimeout(end, timeoutMs, `no answer within ${timeoutMs / 1000} s`);
        given.signal.addEventListener("abort", () => clearTimeout(timer));
        signal?.addEventListener("abort", () => end(NOT_WAITED_FOR), { signal: given.signal });
      }),
    ]);
  } finally {
    given.abort();
  }
}

function verdictOf(answer: unknown): Verdict | undefined {
  if (answer === "a" || answer === "b" || answer === "tie") return answer;
  if (typeof answer !== "number" || Number.isNaN(answer)) return undefined;
  return answer > 0 ? "a" : answer < 0 ? "b" : "tie";
}
