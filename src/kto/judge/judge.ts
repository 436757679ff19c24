/** What a judge is: it sees a prompt and two answers and says which is better. Who asks it, and how often, is `compare.ts`'s. */
import { errorMessage, JudgeError } from "../../errors.ts";

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

/** A judge that is a function; `name` is for messages. */
export function functionJudge(judge: JudgeFunction, name: string): Judge {
  return {
    name,
    async compare({ index, prompt, a, b }) {
      let answer: unknown;
      try {
        answer = await judge(prompt, a, b);
      } catch (error) {
        throw new JudgeError(`The judge ${name} failed on prompt ${index + 1}: ${errorMessage(error)}`, {
          cause: error,
        });
      }
      const verdict = verdictOf(answer);
      if (verdict !== undefined) return verdict;
      const shown = typeof answer === "number" ? String(answer) : JSON.stringify(answer);
      throw new JudgeError(
        `The judge ${name} answered ${shown} to prompt ${index + 1}; it must be "a", "b", "tie" or a number: above 0 where a is better, below 0 where b is.`,
      );
    },
  };
}

function verdictOf(answer: unknown): Verdict | undefined {
  if (answer === "a" || answer === "b" || answer === "tie") return answer;
  if (typeof answer !== "number" || Number.isNaN(answer)) return undefined;
  return answer > 0 ? "a" : answer < 0 ? "b" : "tie";
}
