/**
 * The KTO objective (Ethayarajh et al., 2024), from log-probabilities of sequences to one coefficient per sequence.
 * For m examples, log-probabilities being sums over completion tokens:
 *
 *   r_i = policy(x_i, y_i) - reference(x_i, y_i)               implied reward
 *   k_i = policy(x_i, y_j) - reference(x_i, y_j)               mismatched pair, j = (i + 1) mod m
 *   z0  = max(0, mean k_i)                                     reference point; no gradient flows through it
 *   u_i = beta (r_i - z0) desirable,  beta (z0 - r_i) undesirable
 *   loss = mean_i lambda_i (1 - sigmoid(u_i)) = mean_i lambda_i sigmoid(-u_i)
 *   coefficient_i = dLoss / dPolicy_i = -+ beta lambda_i sigmoid(u_i) sigmoid(-u_i) / m
 *
 * Against the uniform reference every log-probability of the reference is one constant, which cancels in r_i - z0: 0
 * stands for it, and z0 is the mean itself, without the clamp. Where no pair gave a mean, u_i is 0 and no gradient
 * flows.
 *
 * Entries [0, m) of the log-probabilities are the examples, [m, 2 m) the mismatched pairs. The sum over pairs has a
 * kernel of its own, so that a reference point can span several microbatches; every row of the update then weighs the
 * same, 1 / (rows of the update) in place of 1 / m.
 */
import { STEP_NUMBERS } from "./adamw.ts";
import { kernel } from "./kernel.ts";
import { sigmoid } from "./wgsl.ts";

/** "kto" estimates z0 from the mismatched pairs; "apo_zero_unpaired" sets it to 0 and needs no pairs. */
export type KtoLossType = "kto" | "apo_zero_unpaired";

/**
 * What log-ratios are against. "model": the log-probs of a reference model, and z0 is clamped at 0. "uniform": no
 * model; every completion has the same log-prob c under it, which cancels in r_i - z0, so 0 stands for it. A clamp at 0
 * would be one at an arbitrary c, so there is none: with c low enough it never acts.
 */
export type ReferenceKind = "model" | "uniform";

/** Places in the running sums of a logging window, f32[24]; the host divides and clears them. */
export const METRIC_SUMS = {
  loss: 0,
  /** How many means there are of loss and reference point: of microbatches, or of updates where rows weigh alike. */
  microbatches: 1,
  referencePoint: 2,
  unclampedReferencePoint: 3,
  pairs: 4,
  selfPairs: 5,
  desirable: 6,
  undesirable: 7,
  desirableReward: 8,
  undesirableReward: 9,
  desirableLogProb: 10,
  undesirableLogProb: 11,
  /** Examples whose r_i - z0 has the sign of their label. */
  correct: 12,
  /** Examples with sigmoid(u)(1 - sigmoid(u)) below 0.01: they hardly move the model any more. */
  saturated: 13,
  /** Microbatches with a mismatched pair that counts, so that the reference point was measured. */
  measured: 14,
  /** Over completion tokens of examples: how many, the sums of their rows' mean logits, and of their entropies. */
  desirableTokens: 15,
  undesirableTokens: 16,
  desirableLogits: 17,
  undesirableLogits: 18,
  entropy: 19,
  size: 24,
} as const;

/**
 * pairSum [2] += (sum of k_i, their number) over the pairs that are valid (flag not 0); counts pairs and self-pairs.
 */
export const mismatchedPairSum = kernel({
  name: "mismatchedPairSum",
  read: { policy: "f32[2*m]", reference: "f32[2*m]", pairValid: "u32[m]" },
  write: { pairSum: "f32[2]", metrics: `f32[${METRIC_SUMS.size}]` },
  uniforms: { m: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  var count = 0.0;
  for (var i = 0u; i < u.m; i++) {
    if (pairValid[i] == 0u) { continue; }
    sum += policy[u.m + i] - reference[u.m + i];
    count += 1.0;
  }
  pairSum[0] += sum;
  pairSum[1] += count;
  metrics[${METRIC_SUMS.pairs}] += f32(u.m);
  metrics[${METRIC_SUMS.selfPairs}] += f32(u.m) - count;
}`,
  grid: () => [1],
  cost: ({ m = 0 }) => ({ flops: 2 * m, bytes: 12 * m }),
});

/**
 * Writes coefficients [m] and adds to METRIC_SUMS, except the sums over pairs and tokens. policy and reference have
 * S = 2 m entries, or S = m where z0 is 0 by choice: no pairs were computed, and pairSum must be zero. `clamped` is 0
 * against the uniform reference, else 1. `wholeUpdate` is 1 where the m rows are a part of `updateRows` that weigh
 * alike, 0 where they are a mean of their own.
 */
export const ktoObjective = kernel({
  name: "ktoObjective",
  read: {
    policy: "f32[S]",
    reference: "f32[S]",
    desirable: "u32[m]",
    pairSum: "f32[2]",
    step: `f32[${STEP_NUMBERS.size}]`,
  },
  write: { coefficients: "f32[m]", metrics: `f32[${METRIC_SUMS.size}]` },
  uniforms: {
    m: "u32",
    beta: "f32",
    desirableWeight: "f32",
    undesirableWeight: "f32",
    clamped: "u32",
    wholeUpdate: "u32",
  },
  wgsl: /* wgsl */ `${sigmoid("f32")}
@compute @workgroup_size(1)
fn main() {
  let measured = pairSum[1] > 0.0;
  let mean = select(0.0, pairSum[0] / pairSum[1], measured);
  // max(0, NaN) may be 0: a pair that overflowed must not turn into a reference point.
  let z0 = select(mean, 0.0, u.clamped != 0u && mean < 0.0);
  let known = select(0.0, 1.0, measured || u.clamped != 0u);
  let rows = select(f32(u.m), step[${STEP_NUMBERS.updateRows}], u.wholeUpdate != 0u);
  let share = 1.0 / rows;
  let part = f32(u.m) / rows;
  var loss = 0.0;
  for (var i = 0u; i < u.m; i++) {
    let reward = policy[i] - reference[i];
    let good = desirable[i] != 0u;
    let sign = select(-1.0, 1.0, good);
    let weight = select(u.undesirableWeight, u.desirableWeight, good);
    let gain = known * sign * (reward - z0);
    let utility = u.beta * gain;
    let slope = sigmoid(utility) * sigmoid(-utility);
    loss += weight * sigmoid(-utility) * share;
    coefficients[i] = -known * sign * weight * u.beta * slope * share * step[${STEP_NUMBERS.microbatchWeight}];
    if (good) {
      metrics[${METRIC_SUMS.desirable}] += 1.0;
      metrics[${METRIC_SUMS.desirableReward}] += u.beta * reward;
      metrics[${METRIC_SUMS.desirableLogProb}] += policy[i];
    } else {
      metrics[${METRIC_SUMS.undesirable}] += 1.0;
      metrics[${METRIC_SUMS.undesirableReward}] += u.beta * reward;
      metrics[${METRIC_SUMS.undesirableLogProb}] += policy[i];
    }
    if (gain > 0.0) { metrics[${METRIC_SUMS.correct}] += 1.0; }
    if (slope < 0.01) { metrics[${METRIC_SUMS.saturated}] += 1.0; }
  }
  metrics[${METRIC_SUMS.loss}] += loss;
  metrics[${METRIC_SUMS.microbatches}] += part;
  metrics[${METRIC_SUMS.referencePoint}] += part * z0;
  metrics[${METRIC_SUMS.unclampedReferencePoint}] += part * mean;
  if (measured) { metrics[${METRIC_SUMS.measured}] += part; }
}`,
  grid: () => [1],
  cost: ({ m = 0 }) => ({ flops: 20 * m, bytes: 16 * m }),
});

/**
 * Adds the sums of METRIC_SUMS over completion tokens: `ranges` are the head rows of the examples, one a token,
 * `entropies` and `logits` sums over them.
 */
export const tokenSums = kernel({
  name: "tokenSums",
  read: { ranges: "u32[m, 2]", entropies: "f32[m]", logits: "f32[m]", desirable: "u32[m]" },
  write: { metrics: `f32[${METRIC_SUMS.size}]` },
  uniforms: { m: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  for (var i = 0u; i < u.m; i++) {
    let tokens = f32(ranges[2u * i + 1u] - ranges[2u * i]);
    metrics[${METRIC_SUMS.entropy}] += entropies[i];
    if (desirable[i] != 0u) {
      metrics[${METRIC_SUMS.desirableTokens}] += tokens;
      metrics[${METRIC_SUMS.desirableLogits}] += logits[i];
    } else {
      metrics[${METRIC_SUMS.undesirableTokens}] += tokens;
      metrics[${METRIC_SUMS.undesirableLogits}] += logits[i];
    }
  }
}`,
  grid: () => [1],
  cost: ({ m = 0 }) => ({ flops: 3 * m, bytes: 20 * m }),
});
