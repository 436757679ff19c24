/**
 * What one update did with each of its examples: log-ratio, utility u, value v, reference point. Computed from the
 * log-probs that the device's update used, by the float64 twin of its objective; the update does not depend on it.
 */
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { gatherJson } from "../../engine/ranks/sums.ts";
import {
  type KtoObjectiveInputs,
  ktoObjective,
  type ReferencePointInputs,
  referencePoint,
} from "../../kernels/float64/kto-objective.ts";

/** Examples of an update that are logged at most; of more, some at equal distances. */
export const MOST_EXAMPLES = 256;

/** A row is saturated where the slope of the sigmoid at u is below this, as in the metric `saturated`. */
const LEAST_SLOPE = 0.01;

/** The constants of the objective. */
type Constants = Pick<KtoObjectiveInputs, "beta" | "desirableWeight" | "undesirableWeight"> &
  Pick<ReferencePointInputs, "lossType" | "referenceKind">;

/** Log-probs under the policy and under the reference, in nats. */
type Both = readonly [policy: number, reference: number];

/** What the device's update knew of one of its rows. */
export interface LoggedRow {
  readonly label: boolean;
  /** Whether its mismatched pair counts. */
  readonly valid: boolean;
  readonly example: Both;
  /** undefined for a loss without a reference point. */
  readonly pair: Both | undefined;
}

/** The rows of whole microbatches, of which each rank gives its part. */
export async function wholeMicrobatches(
  ranks: Communicator,
  own: readonly (readonly LoggedRow[])[],
): Promise<LoggedRow[][]> {
  const parts = await gatherJson(ranks, own);
  const number = (value: number | null) => value ?? Number.NaN; // JSON has no NaN
  const both = ([policy, reference]: Both): Both => [number(policy), number(reference)];
  return own.map((_, microbatch) =>
    parts
      .flatMap((part) => part[microbatch] ?? [])
      .map((row) => ({ ...row, example: both(row.example), pair: row.pair && both(row.pair) })),
  );
}

/** The reference point of rows that share one. */
export interface LoggedReferencePoint {
  readonly z0: number;
  /** The mean over the pairs before the clamp at 0; null where no pair counts. */
  readonly unclamped: number | null;
  /** Pairs that count. */
  readonly pairs: number;
}

/** One example of the update. Log-probs in nats. */
export interface LoggedExample {
  /** The example's place among those of the update, counted from 0. */
  readonly place: number;
  readonly label: boolean;
  /** Which of the reference points it was measured against. */
  readonly group: number;
  /** r = log pi(y|x) - log pi_ref(y|x); the reward is beta r. */
  readonly logRatio: number;
  /** beta (r - z0) for a desirable example, beta (z0 - r) for an undesirable one. */
  readonly u: number;
  /** lambda sigmoid(u). */
  readonly v: number;
  readonly saturated: boolean;
}

export interface ExampleLog {
  /** Examples of the update, of which the logged ones are a part. */
  readonly rows: number;
  readonly referencePoints: readonly LoggedReferencePoint[];
  readonly examples: readonly LoggedExample[];
}

/** @param groups the rows of the update, those together that share a reference point */
export function exampleLog(groups: readonly (readonly LoggedRow[])[], options: Constants): ExampleLog {
  const { lossType, referenceKind = "model" } = options;
  const rows = groups.reduce((sum, group) => sum + group.length, 0);
  const places = Array.from({ length: rows }, (_, place) => place);
  const logged = new Set(spread(places, MOST_EXAMPLES));
  let before = 0;
  const found = groups.map((group, index) => {
    const first = before;
    before += group.length;
    const pairs = group.flatMap(({ pair, valid }) => (pair ? [{ pair, valid }] : []));
    const point = referencePoint({
      policyLogProbs: pairs.map(({ pair }) => pair[0]),
      referenceLogProbs: pairs.map(({ pair }) => pair[1]),
      valid: pairs.map(({ valid }) => valid),
      ...{ lossType, referenceKind },
    });
    const { values, logRatios, utilities } = ktoObjective({
      policyLogProbs: group.map(({ example }) => example[0]),
      referenceLogProbs: group.map(({ example }) => example[1]),
      labels: group.map(({ label }) => label),
      z0: point.z0,
      ...options,
      measured: referenceKind !== "uniform" || point.pairs > 0,
    });
    const examples = group.map(({ label }, at): LoggedExample => {
      const u = utilities[at] ?? Number.NaN;
      const sigmoid = 1 / (1 + Math.exp(-u));
      return {
        ...{ place: first + at, label, group: index },
        ...{ logRatio: logRatios[at] ?? Number.NaN, u, v: values[at] ?? Number.NaN },
        saturated: sigmoid * (1 - sigmoid) < LEAST_SLOPE,
      };
    });
    const { z0, unclamped, pairs: count } = point;
    return { point: { z0, unclamped: count > 0 ? unclamped : null, pairs: count }, examples };
  });
  return {
    rows,
    referencePoints: found.map(({ point }) => point),
    examples: found.flatMap(({ examples }) => examples).filter(({ place }) => logged.has(place)),
  };
}

/** At most so many of them, at equal distances. */
function spread<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items];
  return Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)] as T);
}
