/**
 * How sure a measured share or mean is: Wilson's score interval (Wilson 1927, without continuity correction), the win
 * rate of one model over another on the same prompts, Student's interval of a mean. Not tests of significance.
 */
import { ConfigError } from "../../errors.ts";

/** A share and the interval that it lies in with 95% confidence, all from 0 to 1. */
export interface Share {
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

/** 95% of the standard normal distribution lies within this many standard deviations. */
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

/** A mean and the interval that it lies in with 95% confidence, in the unit of the values. */
export interface Mean {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

/**
 * The mean of repeated measurements with Student's interval, mean +- t sqrt(s^2 (1/n + overlap)).
 *
 * @param values two or more
 * @param overlap 0 for independent measurements. For repeated random splits of one data set, whose measurements are not
 * independent, Nadeau and Bengio (2003) put here the held-out rows over the training rows, so that the interval holds
 * for other rows of the same kind too
 * @throws ConfigError for fewer than two values, or an overlap below 0
 */
export function meanInterval(values: readonly number[], overlap = 0): Mean {
  const count = values.length;
  if (count < 2 || !(overlap >= 0)) {
    throw new ConfigError(
      `${count} values with an overlap of ${overlap} have no interval; there must be two values or more, and no overlap below 0.`,
    );
  }
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
  const half = studentT95(count - 1) * Math.sqrt(variance * (1 / count + overlap));
  return { mean, low: mean - half, high: mean + half };
}

/** What one of several groups of rows adds to the means of two classes: how many rows, and the sum of their values. */
export interface ClassSums {
  readonly counts: readonly [number, number];
  readonly sums: readonly [number, number];
}

/**
 * The mean of the first class less that of the second, over groups of rows that were measured one after another, with
 * Student's interval. Each mean is a ratio of sums; its variance is that of the linearised ratio over the groups
 * (Cochran 1977, Sampling Techniques, section 6.4), so rows of a group may depend on each other.
 *
 * @returns undefined for fewer than two groups, and without a row of each class
 */
export function differenceInterval(groups: readonly ClassSums[]): Mean | undefined {
  const total = (of: "counts" | "sums", which: 0 | 1) => groups.reduce((sum, group) => sum + group[of][which], 0);
  const rows = [total("counts", 0), total("counts", 1)] as const;
  if (groups.length < 2 || rows[0] === 0 || rows[1] === 0) return undefined;
  const means = [total("sums", 0) / rows[0], total("sums", 1) / rows[1]] as const;
  const part = ({ counts, sums }: ClassSums, which: 0 | 1) =>
    (sums[which] - means[which] * counts[which]) / rows[which];
  const squares = groups.reduce((sum, group) => sum + (part(group, 0) - part(group, 1)) ** 2, 0);
  const mean = means[0] - means[1];
  const half = studentT95(groups.length - 1) * Math.sqrt((squares * groups.length) / (groups.length - 1));
  return { mean, low: mean - half, high: mean + half };
}

/**
 * t with P(|T| < t) = 0.95 for a whole number of degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4, solved.
 */
function studentT95(freedom: number): number {
  const within = (angle: number): number => {
    const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
    const odd = freedom % 2 === 1;
    let term = odd ? cosine : 1;
    let sum = freedom === 1 ? 0 : term;
    for (let k = odd ? 3 : 2; k < freedom; k += 2) {
      term *= ((k - 1) / k) * cosine ** 2;
      sum += term;
    }
    return odd ? (2 / Math.PI) * (angle + sine * sum) : sine * sum;
  };
  let [low, high] = [0, Math.PI / 2];
  for (let halving = 0; halving < 60; halving++) {
    const middle = (low + high) / 2;
    if (within(middle) < 0.95) low = middle;
    else high = middle;
  }
  return Math.sqrt(freedom) * Math.tan(low);
}
