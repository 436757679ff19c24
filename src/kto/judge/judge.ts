/**
 * What a judge is: it sees a prompt and two answers and says which is better. `compare.ts` decides what it is asked.
 */
import { withDeadline } from "../../engine/platform/deadline.ts";
import { asPhrase, errorMessage, JudgeError, shown } from "../../errors.ts";

/** Which of two answers is better, in the order in which they were shown. */
export type Verdict = "a" | "b" | "tie";

export interface Question {
  /** Which prompt this is, from 0. */
  readonly index: number;
  readonly prompt: string;
  readonly a: string;
  readonly b: string;
  /** Whether the two answers have changed places: each pair is shown in both orders. */
  readonly swapped: boolean;
}

export interface Judge {
  /** For messages. */
  readonly name: string;
  /** How many questions had replies without a verdict and counted as ties. */
  readonly unclear?: number;
  /**
   * @returns undefined if the judge's budget is spent
   * @throws JudgeError if the judge cannot be asked
   */
  compare(question: Question): Promise<Verdict | undefined>;
}

/**
 * A judge as a function of its own. It returns `"a"`, `"b"` or `"tie"`, or a number that says how much better `a` is
 * than `b`: above 0 if `a` is better, below 0 if `b` is, 0 for a tie. A promise of these will do.
 */
export type JudgeFunction = (prompt: string, a: string, b: string) => unknown;

/** The last words of the messages about an answer that takes too long. */
const NOT_WAITED_FOR = "it is no longer waited for";

export interface JudgeWait {
  /** Milliseconds after which an answer counts as lost; default 60 000. */
  readonly timeoutMs?: number | undefined;
  /** Ends the waiting for answers when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** Makes a judge of a function; `name` is for messages. */
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
 * The answer of `ask`, if it comes in time.
 *
 * @param ask is given a signal that is aborted when its answer is no longer waited for
 * @throws Error if the answer does not come in time, or if `wait.signal` ends the waiting; what `ask` throws
 */
export async function answerWithin<T>(
  ask: (signal: AbortSignal) => T,
  { timeoutMs = 60_000, signal: stop }: JudgeWait,
): Promise<Awaited<T>> {
  // One turn of the event loop, so that a signal is noticed even if every answer is available at once.
  await new Promise((resolve) => setTimeout(resolve));
  if (stop?.aborted) throw new Error(NOT_WAITED_FOR);
  return await withDeadline(timeoutMs, async (signal) => {
    const stopped = new Promise<never>((_, reject) => {
      stop?.addEventListener("abort", () => reject(new Error(NOT_WAITED_FOR)), { signal });
    });
    return await Promise.race([ask(signal), stopped]);
  });
}

function verdictOf(answer: unknown): Verdict | undefined {
  if (answer === "a" || answer === "b" || answer === "tie") return answer;
  if (typeof answer !== "number" || Number.isNaN(answer)) return undefined;
  return answer > 0 ? "a" : answer < 0 ? "b" : "tie";
}
