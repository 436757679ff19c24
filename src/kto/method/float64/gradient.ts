/**
 * The whole gradient of KTO's microbatch in float64, one sequence at a time: the oracle of gradient checks. Composed of
 * the float64 model and the float64 objective; it shares nothing with the device's step but the formulas.
 */
import type { Float64Gradients, Float64Model } from "../../../engine/model/float64/decoder.ts";
import { at } from "../../../kernels/float64/elements.ts";
import { ktoObjective, referencePoint } from "../../../kernels/float64/kto-objective.ts";
import { globalNorm } from "../../../kernels/float64/reduce.ts";
import type { KtoLossType, ReferenceKind } from "../../../kernels/kto-objective.ts";

type Ids = ArrayLike<number>;

export interface KtoFloat64Inputs {
  readonly policy: Float64Model;
  /** Not asked where its log-probabilities are one constant ("uniform"). */
  readonly reference: Pick<Float64Model, "logProb">;
  readonly referenceKind?: ReferenceKind;
  /** [m], one microbatch. */
  readonly examples: readonly { readonly promptIds: Ids; readonly completionIds: Ids; readonly label: boolean }[];
  /** [m] j: example i's prompt is continued with example j's completion to estimate z0. */
  readonly pairs: readonly number[];
  /** [m] false for pairs that are not mismatched; they leave the mean. */
  readonly pairValid: readonly boolean[];
  readonly beta: number;
  readonly desirableWeight: number;
  readonly undesirableWeight: number;
  readonly lossType: KtoLossType;
  /** Tokens that prompt and mismatched completion may have together; the completion is cut. Default: no limit. */
  readonly maxLength?: number;
}

/** Log-probs in nats; lists of numbers are [m], those of mismatched pairs empty with "apo_zero_unpaired". */
export interface KtoFloat64Result {
  readonly loss: number;
  /** z0 */
  readonly kl: number;
  readonly klUnclamped: number;
  readonly logRatio: number[];
  /** The log-ratio of every mismatched pair, also of those that do not count in the mean. */
  readonly klLogRatio: number[];
  readonly policyLogProbs: number[];
  readonly referenceLogProbs: number[];
  readonly klPolicyLogProbs: number[];
  readonly klReferenceLogProbs: number[];
  /** `v_i` */
  readonly values: number[];
  /** `dloss / dlogProb_i` */
  readonly coefficients: number[];
  /** `dloss / dparameter` of the policy. */
  readonly gradients: Float64Gradients;
  /** Over all parameters, before any clip. */
  readonly gradientNorm: number;
}

/** Loss and gradient of one microbatch, one sequence after another. The formulas are those of `ktoObjective`. */
export function ktoFloat64Gradient(inputs: KtoFloat64Inputs): KtoFloat64Result {
  const { policy, examples, pairs, pairValid, lossType, referenceKind = "model" } = inputs;
  const reference = referenceKind === "uniform" ? { logProb: () => 0 } : inputs.reference;
  const policyLogProbs = examples.map((row) => policy.logProb(row.promptIds, row.completionIds));
  const referenceLogProbs = examples.map((row) => reference.logProb(row.promptIds, row.completionIds));
  const mismatched = lossType === "apo_zero_unpaired" ? [] : examples.map((row, i) => mismatch(inputs, row, pairs[i]));
  const klPolicyLogProbs = mismatched.map((row) => policy.logProb(row.promptIds, row.completionIds));
  const klReferenceLogProbs = mismatched.map((row) => reference.logProb(row.promptIds, row.completionIds));
  const point = referencePoint({
    policyLogProbs: klPolicyLogProbs,
    referenceLogProbs: klReferenceLogProbs,
    valid: pairValid,
    lossType,
    referenceKind,
  });
  const objective = ktoObjective({
    policyLogProbs,
    referenceLogProbs,
    labels: examples.map((row) => row.label),
    z0: point.z0,
    measured: referenceKind !== "uniform" || point.pairs > 0,
    beta: inputs.beta,
    desirableWeight: inputs.desirableWeight,
    undesirableWeight: inputs.undesirableWeight,
  });
  const gradients: Float64Gradients = new Map();
  examples.forEach((row, i) => {
    policy.accumulateLogProbGradient(row.promptIds, row.completionIds, at(objective.coefficients, i), gradients);
  });
  return {
    loss: objective.loss,
    kl: point.z0,
    klUnclamped: point.unclamped,
    logRatio: [...objective.logRatios],
    klLogRatio: klPolicyLogProbs.map((logProb, i) => logProb - (klReferenceLogProbs[i] ?? Number.NaN)),
    policyLogProbs,
    referenceLogProbs,
    klPolicyLogProbs,
    klReferenceLogProbs,
    values: [...objective.values],
    coefficients: [...objective.coefficients],
    gradients,
    gradientNorm: globalNorm(gradients.values()),
  };
}

function mismatch(inputs: KtoFloat64Inputs, row: { readonly promptIds: Ids }, pair: number | undefined) {
  const other = pair === undefined ? undefined : inputs.examples[pair];
  if (!other) throw new RangeError(`Pair ${pair} is not a row of the microbatch of ${inputs.examples.length}.`);
  const room = Math.max(1, (inputs.maxLength ?? Number.POSITIVE_INFINITY) - row.promptIds.length);
  return { promptIds: row.promptIds, completionIds: Array.from(other.completionIds).slice(0, room) };
}
