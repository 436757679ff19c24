/**
 * Supervised fine-tuning on completions, from log-probabilities of sequences to one coefficient per sequence. Of n
 * completion tokens in the whole update, all its microbatches together:
 *
 *   loss = -sum_i policy_i / n                            mean cross-entropy of a completion token
 *   coefficient_i = dLoss / dPolicy_i = -1 / n
 *
 * policy_i is the sum over the tokens of completion i. Every token of an update weighs the same, in whatever microbatch
 * it is (transformers' num_items_in_batch). The host gives 1 / n, since a microbatch knows only its own tokens.
 */
import { STEP_NUMBERS } from "./adamw.ts";
import { kernel } from "./kernel.ts";

/** Places in the running sums of a logging window, f32[8]; the host divides and clears them. */
export const SFT_SUMS = {
  logProb: 0,
  tokens: 1,
  /** Tokens that have the highest probability of all. */
  hits: 2,
  /** Over the tokens of updates whose entropies were computed: how many, and these. */
  measuredTokens: 3,
  entropy: 4,
  size: 8,
} as const;

/** coefficients [m], and the sums of log-probabilities, of completion tokens and of those that were hit (hits [m]). */
export const sftObjective = kernel({
  name: "sftObjective",
  read: { policy: "f32[m]", hits: "f32[m]", completionTokens: "u32[m]", step: `f32[${STEP_NUMBERS.size}]` },
  write: { coefficients: "f32[m]", metrics: `f32[${SFT_SUMS.size}]` },
  uniforms: { m: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  var logProb = 0.0;
  var tokens = 0.0;
  var hit = 0.0;
  for (var i = 0u; i < u.m; i++) {
    logProb += policy[i];
    tokens += f32(completionTokens[i]);
    hit += hits[i];
    coefficients[i] = -step[${STEP_NUMBERS.microbatchWeight}];
  }
  metrics[${SFT_SUMS.logProb}] += logProb;
  metrics[${SFT_SUMS.tokens}] += tokens;
  metrics[${SFT_SUMS.hits}] += hit;
}`,
  grid: () => [1],
  cost: ({ m = 0 }) => ({ flops: 3 * m, bytes: 16 * m }),
});

/** Adds the entropies of completion tokens, sums [m] over those of each sequence, and their number. */
export const sftTokenSums = kernel({
  name: "sftTokenSums",
  read: { completionTokens: "u32[m]", entropies: "f32[m]" },
  write: { metrics: `f32[${SFT_SUMS.size}]` },
  uniforms: { m: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main() {
  for (var i = 0u; i < u.m; i++) {
    metrics[${SFT_SUMS.measuredTokens}] += f32(completionTokens[i]);
    metrics[${SFT_SUMS.entropy}] += entropies[i];
  }
}`,
  grid: () => [1],
  cost: ({ m = 0 }) => ({ flops: 2 * m, bytes: 8 * m }),
});
