/**
 * How sure a measured share is. Wilson's score interval (Wilson 1927, without continuity correction) and the win rate
 * of one model over another on the same prompts. Not tests of significance.
 */
import { ConfigError } from "../../errors.ts";

/** A share and the interval that it lies in with 95% confidence, all from 0 to 1. */
export interface Share {
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

/** Of the standard normal distribution: 95% lies within this many standard deviations. */
const NORMAL_95 = 1.959963984540054;

/**
 * The share of successes in independent trials with Wilson's interval, which stays within [0, 1] and is right for
 * shares near 0 and 1 too. `successes` may be fractional (ties that count half); the interval is then too wide, not
 * too narrow.
 *
 * @throws ConfigError unless 0 <= successes <= trials and trials is a whole number of at least 1
 */
export function wilsonInterval(successes: number, trials: number): Share {
  if (!Number.isInteger(trials) || trials < 1 || !(successes >= 0 && successes <= trials)) {
    throw new ConfigError(`${successes} successes in ${trials} trials are not a share; there must be a trial or more.`);
  }
  const share = successes / trials;
  const z2 = NORMAL_95 ** 2 / trials;
  const centre = (share + z2 / 2) / (1 + z2);
  const half = Math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2);
  return {
    share,
    // At the ends the two terms are equal but for rounding.
    low: share === 0 ? 0 : Math.max(0, centre - half),
    high: share === 1 ? 1 : Math.min(1, centre + half),
  };
}

export interface WinRate extends Share {
  readonly wins: number;
  readonly ties: number;
  readonly losses: number;
}

/**
 * How often the second of two models does better on the same prompt, a tie counting half: (wins + ties / 2) / pairs.
 * 0.5 means that neither is better.
 *
 * @param scores one pair for each prompt: [first model's score, second model's score], higher is better
 */
export function winRate(scores: readonly (readonly [number, number])[]): WinRate {
  const wins = scores.filter(([first, second]) => second > first).length;
  const losses = scores.filter(([first, second]) => second < first).length;
  const ties = scores.length - wins - losses;
  return { ...wilsonInterval(wins + ties / 2, scores.length), wins, ties, losses };
}

/** Do two intervals have no point in common? */
export function disjoint(a: Share, b: Share): boolean {
  return a.high < b.low || b.high < a.low;
}
