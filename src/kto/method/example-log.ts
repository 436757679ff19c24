/**
 * What one update did with each of its examples: log-ratio, utility u, value v, reference point. Computed from the
 * log-probs that the device's update used, by the float64 twin of its objective; the update does not depend on it.
 */
import {
  type KtoObjectiveInputs,
  ktoObjective,
  type ReferencePointInputs,
  referencePoint,
} from "../../kernels/float64/kto-objective.ts";
import type { Batch } from "./batch.ts";

/** Examples of an update that are logged at most; of more, some at equal distances. */
export const MOST_EXAMPLES = 256;

/** A row is saturated where the slope of the sigmoid at u is below this, as in the metric `saturated`. */
const LEAST_SLOPE = 0.01;

/** The constants of the objective. */
type Constants = Pick<KtoObjectiveInputs, "beta" | "desirableWeight" | "undesirableWeight"> &
  Pick<ReferencePointInputs, "lossType" | "referenceKind">;

/** The log-probs of an update, [rows] each; those of the pairs are empty for a loss without a reference point. */
export interface UpdateLogProbs {
  readonly examples: { readonly policy: ArrayLike<number>; readonly reference: ArrayLike<number> };
  readonly pairs: { readonly policy: ArrayLike<number>; readonly reference: ArrayLike<number> };
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

/** @param wholeUpdate whether all rows share one reference point; each microbatch has its own otherwise */
export function exampleLog(
  { examples, pairs }: UpdateLogProbs,
  batches: readonly Batch[],
  options: Constants,
  wholeUpdate: boolean,
): ExampleLog {
  const { lossType, referenceKind = "model" } = options;
  const all = batches.flatMap((batch, index) =>
    Array.from(batch.desirable, (flag, row) => ({ label: flag !== 0, valid: batch.pairValid[row] !== 0, index })),
  );
  const places = all.map((_, place) => place);
  const groups = wholeUpdate
    ? [places]
    : batches.map((_, index) => places.filter((place) => all[place]?.index === index));
  const logged = new Set(spread(places, MOST_EXAMPLES));
  const found = groups.map((group, index) => {
    const of = (values: ArrayLike<number>) => group.map((place) => values[place] ?? Number.NaN);
    const usesPairs = pairs.policy.length > 0;
    const point = referencePoint({
      policyLogProbs: usesPairs ? of(pairs.policy) : [],
      referenceLogProbs: usesPairs ? of(pairs.reference) : [],
      valid: group.map((place) => all[place]?.valid ?? false),
      ...{ lossType, referenceKind },
    });
    const { values, logRatios, utilities } = ktoObjective({
      policyLogProbs: of(examples.policy),
      referenceLogProbs: of(examples.reference),
      labels: group.map((place) => all[place]?.label ?? false),
      z0: point.z0,
      ...options,
      measured: referenceKind !== "uniform" || point.pairs > 0,
    });
    const rows = group.map((place, at): LoggedExample => {
      const u = utilities[at] ?? Number.NaN;
      const sigmoid = 1 / (1 + Math.exp(-u));
      return {
        ...{ place, label: all[place]?.label ?? false, group: index },
        ...{ logRatio: logRatios[at] ?? Number.NaN, u, v: values[at] ?? Number.NaN },
        saturated: sigmoid * (1 - sigmoid) < LEAST_SLOPE,
      };
    });
    const { z0, unclamped, pairs: count } = point;
    return { point: { z0, unclamped: count > 0 ? unclamped : null, pairs: count }, rows };
  });
  return {
    rows: all.length,
    referencePoints: found.map(({ point }) => point),
    examples: found.flatMap(({ rows }) => rows).filter(({ place }) => logged.has(place)),
  };
}

/** At most so many of them, at equal distances. */
function spread<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items];
  return Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)] as T);
}
