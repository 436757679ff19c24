/**
 * The win rate according to a judge. Every pair of answers is shown in both orders and each verdict counts half, so
 * that a judge who always prefers the first answer finds both models equal.
 */
import { counted, JudgeError } from "../../errors.ts";
import type { Metrics } from "../method/metrics.ts";
import { type WinRate, wilsonInterval } from "../report/statistics.ts";
import type { Judge, Verdict } from "./judge.ts";

/** A prompt with the answers of two models. */
export interface AnswerPair {
  readonly prompt: string;
  readonly model: string;
  readonly opponent: string;
}

export interface JudgedWinRate extends WinRate {
  /** Prompts that were judged in both orders; fewer than `prompts` if the judge's budget ended. */
  readonly judged: number;
  readonly prompts: number;
  /** The share of the judged prompts whose verdict changed with the order: how unsteady the judge is. */
  readonly inconsistent: number;
  /** The share of the verdicts, ties left out, for the answer that was shown first; absent if all were ties. */
  readonly firstShare?: number;
}

/** The names of the metrics of `winRateMetrics`, in their order. */
export const WIN_RATE_METRICS = [
  "win_rate",
  ...["low", "high", "wins", "ties", "losses", "judged", "inconsistent"].map((name) => `win_rate/${name}`),
];

/** A win rate as metrics of an evaluation. */
export function winRateMetrics(found: JudgedWinRate): Metrics {
  const { share, low, high, wins, ties, losses, judged, inconsistent } = found;
  const values = [share, low, high, wins, ties, losses, judged, inconsistent];
  return Object.fromEntries(values.map((value, i) => [WIN_RATE_METRICS[i] ?? "", value]));
}

/**
 * Asks the judge about every pair twice. The share is the mean over the prompts of both verdicts, in which a tie counts
 * half. Wins, ties and losses count prompts by their own mean, so that two contrary verdicts are a tie. The interval is
 * Wilson's over the prompts. Equal answers are a tie and are not shown.
 *
 * @param options.concurrency prompts that are judged at the same time; while the budget lasts, the result does not
 * depend
 *   on it
 * @throws JudgeError if the judge cannot be asked, or if its budget ends before one pair is judged
 */
export async function judgePairs(
  judge: Judge,
  pairs: readonly AnswerPair[],
  options: { readonly concurrency?: number; readonly onJudged?: (done: number) => void } = {},
): Promise<JudgedWinRate> {
  const verdicts: ([Verdict, Verdict] | undefined)[] = pairs.map(() => undefined);
  let next = 0;
  let done = 0;
  let ended = false;
  const work = async () => {
    while (!ended && next < pairs.length) {
      const index = next++;
      const pair = pairs[index];
      if (pair === undefined) return;
      const both = await askBothWays(judge, index, pair).catch((error: unknown) => {
        ended = true; // the other workers finish the pairs that they have begun
        throw error;
      });
      if (both === undefined) {
        ended = true;
        return;
      }
      verdicts[index] = both;
      options.onJudged?.(++done);
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: Math.max(1, options.concurrency ?? 1) }, work));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  const judged = verdicts.filter((both) => both !== undefined);
  if (judged.length === 0) {
    throw new JudgeError(
      pairs.length === 0
        ? "There are no answers to judge."
        : `The budget of the judge ${judge.name} ended before one prompt was judged in both orders; raise judge_budget: judging ${counted(pairs.length, "prompt")} takes ${2 * pairs.length} requests each time.`,
    );
  }
  return { ...summary(judged), judged: judged.length, prompts: pairs.length };
}

/** The verdicts with the model's answer shown first and second; undefined if the budget ended. */
async function askBothWays(
  judge: Judge,
  index: number,
  { prompt, model, opponent }: AnswerPair,
): Promise<[Verdict, Verdict] | undefined> {
  if (model === opponent) return ["tie", "tie"];
  const first = await judge.compare({ index, prompt, a: model, b: opponent, swapped: false });
  if (first === undefined) return undefined;
  const second = await judge.compare({ index, prompt, a: opponent, b: model, swapped: true });
  return second === undefined ? undefined : [first, second];
}

/** The share that a verdict gives to the answer shown first. */
const FIRST_SHARE: Readonly<Record<Verdict, number>> = { a: 1, tie: 0.5, b: 0 };

function summary(judged: readonly (readonly [Verdict, Verdict])[]): Omit<JudgedWinRate, "judged" | "prompts"> {
  const shares = judged.map(([first, second]) => (FIRST_SHARE[first] + 1 - FIRST_SHARE[second]) / 2);
  const total = shares.reduce((sum, share) => sum + share, 0);
  const decided = judged.flat().filter((verdict) => verdict !== "tie");
  return {
    ...wilsonInterval(total, judged.length),
    wins: shares.filter((share) => share > 0.5).length,
    ties: shares.filter((share) => share === 0.5).length,
    losses: shares.filter((share) => share < 0.5).length,
    inconsistent: judged.filter(([first, second]) => first !== "tie" && first === second).length / judged.length,
    ...(decided.length > 0 ? { firstShare: decided.filter((verdict) => verdict === "a").length / decided.length } : {}),
  };
}
