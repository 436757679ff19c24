/**
 * Gradient check: one microbatch through the training update. Its loss, log-ratios and gradients are read back and,
 * where the model is small enough, compared tensor by tensor with the same in float64.
 */
import { longRopeBeyond } from "../engine/model/config/config.ts";
import { adapterGradients, float64Model } from "../engine/model/float64/lora.ts";
import type { Model } from "../engine/model/model.ts";
import { DatasetError } from "../errors.ts";
import { globalNorm } from "../kernels/float64/reduce.ts";
import { METRIC_SUMS } from "../kernels/kto-objective.ts";
import { type BatchExample, checkSequences, packBatch } from "./method/batch.ts";
import { ktoFloat64Gradient } from "./method/float64/gradient.ts";
import { checkObjective, type ObjectiveOptions, usesPairs } from "./method/objective.ts";
import { mismatchedPairs } from "./method/sampler.ts";
import { Update } from "./method/update.ts";

/** Largest relative error, in norm, of a gradient tensor in f32 that still passes. */
export const GRADIENT_TOLERANCE = 1e-3;

/** Work (flops) beyond which the float64 model, in plain JavaScript, is not run: some minutes. */
const FLOAT64_BUDGET = 1e11;

/** A gradient tensor whose norm is below this share of the whole gradient's is measured against that share. */
const NEGLIGIBLE_SHARE = 1e-3;

/**
 * Where the rows' gradients cancel, f32's rounding of the terms stays behind. A row's term is its coefficient times the
 * gradient of a log-probability, so norms below this share of all coefficients' sizes are measured against that share.
 */
const CANCELLED_SHARE = 1e-2;

export interface GradientTensor {
  /** Hugging Face name. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

/** What one microbatch gave on the device; log-ratios and `kl` in nats, per example in the order of the examples. */
export interface GradientCheck {
  readonly loss: number;
  /** z0, and the mean mismatched log-ratio before the clamp. */
  readonly kl: number;
  readonly klUnclamped: number;
  readonly logRatio: number[];
  /** Empty where the reference point is 0 by choice. */
  readonly klLogRatio: number[];
  /** The norm of the device's whole gradient, before any clip. */
  readonly gradientNorm: number;
  readonly gradients: GradientTensor[];
  /** The comparison with float64; undefined where the model is too large for it. */
  readonly comparison: GradientComparison | undefined;
}

export interface GradientComparison {
  /** Largest |device - float64| / |float64| in norm over the gradient tensors. */
  readonly maxRelativeError: number;
  readonly worstParameter: string;
  /** |device loss - float64 loss|. */
  readonly lossError: number;
  readonly passed: boolean;
}

export interface GradientCheckOptions {
  readonly policy: Model;
  readonly reference: Model;
  /** One microbatch, in this order. */
  readonly examples: readonly BatchExample[];
  readonly objective: ObjectiveOptions;
  readonly tolerance?: number;
  /** Called before the float64 model computes, which nothing interrupts. */
  readonly onCompare?: () => void;
}

/**
 * Runs the check. Neither model is changed.
 *
 * @throws DatasetError without examples and for one that the models cannot take; ConfigError for an objective out of
 * range
 */
export async function checkGradients(options: GradientCheckOptions): Promise<GradientCheck> {
  const { policy, reference, examples, objective } = options;
  const maxLength = Math.min(policy.config.contextLength, reference.config.contextLength);
  checkObjective(objective);
  if (examples.length === 0) throw new DatasetError("There are no examples to check gradients on; give one or more.");
  checkSequences(examples, policy.config.vocabSize, { maxLength, limit: "the model's context of" });
  const longBeyond = longRopeBeyond(policy.config);
  const batch = packBatch(examples, { mismatched: usesPairs(objective), maxLength, longBeyond });
  const update = policy.device.allocating(
    () =>
      new Update({
        policy,
        reference,
        shapes: [batch.packed.shape],
        maxSize: batch.size,
        objective,
        optimizer: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 0 },
        referencePointScope: "microbatch",
      }),
  );
  try {
    await update.gradients([batch]);
    const metrics = await policy.device.download(update.objective.metrics);
    const sums = await update.readLogProbs(batch.size);
    const ratios = Array.from(sums.policy, (logProb, i) => logProb - (sums.reference[i] ?? 0));
    const gradients = await policy.readTensors(update.optimizer.gradients);
    const squares = gradients.reduce((total, { data }) => data.reduce((sum, g) => sum + g * g, total), 0);
    return {
      loss: metrics[METRIC_SUMS.loss] ?? Number.NaN,
      kl: metrics[METRIC_SUMS.referencePoint] ?? Number.NaN,
      klUnclamped: metrics[METRIC_SUMS.unclampedReferencePoint] ?? Number.NaN,
      logRatio: ratios.slice(0, batch.size),
      klLogRatio: ratios.slice(batch.size),
      gradientNorm: Math.sqrt(squares),
      gradients,
      comparison: await compare(options, gradients, metrics[METRIC_SUMS.loss] ?? Number.NaN, maxLength),
    };
  } finally {
    update.free();
  }
}

async function compare(
  options: GradientCheckOptions,
  gradients: readonly GradientTensor[],
  loss: number,
  maxLength: number,
): Promise<GradientComparison | undefined> {
  const { policy, reference, examples, objective, tolerance = GRADIENT_TOLERANCE } = options;
  const tokens = examples.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0);
  // A forward pass costs 2 flops a parameter and token; four of them (two models, two completions), and a backward of
  // two.
  if (12 * policy.layout.parameterCount * tokens > FLOAT64_BUDGET) return undefined;
  options.onCompare?.();
  const { pair, valid } = mismatchedPairs(examples);
  const exact = ktoFloat64Gradient({
    policy: await float64Model(policy),
    reference: await float64Model(reference),
    examples,
    pairs: pair,
    pairValid: valid,
    maxLength,
    ...objective,
  });
  const wantedGradients = policy.adapter ? await adapterGradients(policy, exact.gradients) : exact.gradients;
  const gradientNorm = globalNorm(wantedGradients.values());
  const terms = exact.coefficients.reduce((sum, coefficient) => sum + Math.abs(coefficient), 0);
  const negligible = Math.max(NEGLIGIBLE_SHARE * gradientNorm, CANCELLED_SHARE * terms, 1e-30);
  let worst = { error: -1, name: "" };
  for (const { name, data } of gradients) {
    const wanted = wantedGradients.get(name);
    let difference = 0;
    let size = 0;
    for (let i = 0; i < data.length; i++) {
      const value = wanted?.[i] ?? 0; // a tensor without a gradient
      difference += ((data[i] ?? Number.NaN) - value) ** 2;
      size += value ** 2;
    }
    const error = Math.sqrt(difference) / Math.max(Math.sqrt(size), negligible);
    if (!(error <= worst.error)) worst = { error, name };
  }
  const lossError = Math.abs(loss - exact.loss);
  return {
    maxRelativeError: worst.error,
    worstParameter: worst.name,
    lossError,
    passed: worst.error <= tolerance && lossError <= 1e-2 * tolerance * Math.max(1, Math.abs(exact.loss)),
  };
}
