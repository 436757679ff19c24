/** One KTO step on the device as a function: microbatches in, every number that it leaves on the device out. */

import { longRopeBeyond } from "../../src/engine/model/config/config.ts";
import type { Float64Gradients, Float64Model } from "../../src/engine/model/float64/decoder.ts";
import type { Model } from "../../src/engine/model/model.ts";
import type { Precision } from "../../src/engine/model/precision.ts";
import { packRows, type RowBranch, type RowShape, rowShape } from "../../src/engine/model/rows.ts";
import { ktoObjective, referencePoint } from "../../src/kernels/float64/kto-objective.ts";
import { globalNorm } from "../../src/kernels/float64/reduce.ts";
import { METRIC_SUMS } from "../../src/kernels/kto-objective.ts";
import { type Batch, type BatchExample, packBatch } from "../../src/kto/method/batch.ts";
import type { ObjectiveOptions } from "../../src/kto/method/objective.ts";
import { mismatchedPairs } from "../../src/kto/method/sampler.ts";
import { Update } from "../../src/kto/method/update.ts";
import { arenaNumbers } from "./arenas.ts";

/** An optimizer that the tests of gradients do not run. */
export const noOptimizer = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradientNorm: 0 };

export interface StepResult {
  /** The sums of METRIC_SUMS over the microbatches. */
  readonly sums: (name: Exclude<keyof typeof METRIC_SUMS, "size">) => number;
  /** Mean over the microbatches. */
  readonly loss: number;
  /** z0 and its mean before the clamp, means over the microbatches. */
  readonly kl: number;
  readonly klUnclamped: number;
  /** The coefficients and log-probs of the last microbatch: [m], and [m] or [2 m] with the mismatched pairs behind. */
  readonly coefficients: Float32Array<ArrayBuffer>;
  readonly policy: Float32Array<ArrayBuffer>;
  readonly reference: Float32Array<ArrayBuffer>;
  /** The whole arena, padding (zeros) included. */
  readonly gradients: Float32Array<ArrayBuffer>;
  /** The same by Hugging Face name. */
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

/** The shape classes of the passes of a microbatch. */
export function shapesOfBatch({ packed, apart }: Batch): RowShape[] {
  return [packed, ...(apart ? Object.values(apart) : [])].map(({ shape }) => shape);
}

/** A step for these shapes; free it. */
export function updateFor(
  policy: Model,
  reference: Model,
  objective: ObjectiveOptions,
  batches: readonly Batch[],
  scope: "microbatch" | "step" = "microbatch",
  gradientCheckpointing = false,
): Update {
  return new Update({
    policy,
    reference,
    shapes: batches.flatMap(shapesOfBatch),
    maxSize: Math.max(...batches.map((batch) => batch.size)),
    objective,
    optimizer: noOptimizer,
    referencePointScope: scope,
    maxUpdateRows: batches.reduce((sum, { size }) => sum + size, 0),
    gradientCheckpointing,
  });
}

/** Runs microbatches to gradients and reads everything back; metric sums start from zero. */
export async function gradientsOf(step: Update, batches: readonly Batch[]): Promise<StepResult> {
  const { device, policy: model, objective, optimizer } = step;
  device.upload(objective.metrics, new Float32Array(METRIC_SUMS.size));
  await step.gradients(batches);
  const last = batches.at(-1)?.size ?? 0;
  const metrics = await device.download(objective.metrics);
  const sums: StepResult["sums"] = (name) => metrics[METRIC_SUMS[name]] ?? Number.NaN;
  const logProbs = await step.readLogProbs(last);
  const count = sums("microbatches");
  return {
    sums,
    loss: sums("loss") / count,
    kl: sums("referencePoint") / count,
    klUnclamped: sums("unclampedReferencePoint") / count,
    coefficients: await device.download(objective.coefficients(last)),
    policy: logProbs.policy as Float32Array<ArrayBuffer>,
    reference: logProbs.reference as Float32Array<ArrayBuffer>,
    gradients: await arenaNumbers(optimizer.gradients),
    tensors: new Map((await model.readTensors(optimizer.gradients)).map(({ name, data }) => [name, data])),
  };
}

/** `gradientsOf` with a step of its own. */
export async function runUpdate(
  policy: Model,
  reference: Model,
  objective: ObjectiveOptions,
  batches: readonly Batch[],
  scope: "microbatch" | "step" = "microbatch",
  gradientCheckpointing = false,
): Promise<StepResult> {
  const step = updateFor(policy, reference, objective, batches, scope, gradientCheckpointing);
  try {
    return await gradientsOf(step, batches);
  } finally {
    step.free();
  }
}

/** How the passes of an update compute. */
export interface Passes {
  readonly precision?: Precision;
  readonly gradientCheckpointing?: boolean;
  readonly dropoutSeed?: number;
}

/** One microbatch with its mismatched pairs to gradients; `inspect` sees the update before it is freed. */
export async function microbatchGradients(
  policy: Model,
  reference: Model,
  objective: ObjectiveOptions,
  examples: readonly BatchExample[],
  passes: Passes = {},
  inspect: (update: Update) => void = () => undefined,
): Promise<StepResult> {
  const { contextLength: maxLength } = policy.config;
  const longBeyond = longRopeBeyond(policy.config);
  const batch = packBatch(examples, { mismatched: true, maxLength, longBeyond });
  const update = new Update({
    policy,
    reference,
    shapes: [batch.packed.shape],
    maxSize: batch.size,
    objective,
    optimizer: noOptimizer,
    referencePointScope: "microbatch",
    ...passes,
  });
  try {
    const found = await gradientsOf(update, [batch]);
    inspect(update);
    return found;
  } finally {
    update.free();
  }
}

/** A microbatch whose mismatched pairs are chosen by hand: branch i continues prompt i with the completion given. */
export function batchWithPairs(
  examples: readonly BatchExample[],
  pairs: readonly { readonly completionIds: ArrayLike<number>; readonly valid?: boolean }[],
  capacity: Partial<RowShape> = {},
): Batch {
  const branches = pairs.map(({ completionIds }, prompt): RowBranch => ({ prompt, completionIds }));
  const packed = packRows(examples, branches, { ...rowShape(examples, branches), ...capacity });
  return {
    size: examples.length,
    whole: { size: examples.length, first: 0, completionTokens: 0, tokens: 0, longestTokens: 0 },
    packed,
    desirable: Uint32Array.from(examples, ({ label }) => (label ? 1 : 0)),
    completionTokens: Uint32Array.from(examples, ({ completionIds }) => completionIds.length),
    pairValid: Uint32Array.from(examples, (_, i) => ((pairs[i]?.valid ?? true) ? 1 : 0)),
    cutPairs: 0,
    rows: packed.usedRows,
  };
}

/** The numbers of a step in float64, one sequence after another. */
export interface ExactStep {
  readonly loss: number;
  readonly kl: number;
  readonly gradients: Float64Gradients;
  readonly gradientNorm: number;
}

/**
 * The oracle of steps of several microbatches: each has its own pairs and reference point and losses are averaged, or
 * all rows are one ring with one reference point and weigh alike.
 */
export function exactStep(
  policy: Float64Model,
  reference: Pick<Float64Model, "logProb">,
  options: ObjectiveOptions,
  microbatches: readonly (readonly BatchExample[])[],
  scope: "microbatch" | "step" = "microbatch",
): ExactStep {
  const pairsOf = (examples: readonly BatchExample[]) => {
    const { pair, valid } = mismatchedPairs(examples);
    const ids = examples.map(({ promptIds }, i) => [promptIds, examples[pair[i] ?? 0]?.completionIds ?? []] as const);
    return {
      policyLogProbs: ids.map(([prompt, completion]) => policy.logProb(prompt, completion)),
      referenceLogProbs: ids.map(([prompt, completion]) => reference.logProb(prompt, completion)),
      valid,
    };
  };
  const rings = scope === "step" ? [microbatches.flat()] : microbatches;
  const gradients: Float64Gradients = new Map();
  let loss = 0;
  let kl = 0;
  for (const examples of rings) {
    const { z0 } = referencePoint({ ...pairsOf(examples), lossType: options.lossType });
    const result = ktoObjective({
      policyLogProbs: examples.map((row) => policy.logProb(row.promptIds, row.completionIds)),
      referenceLogProbs: examples.map((row) => reference.logProb(row.promptIds, row.completionIds)),
      labels: examples.map((row) => row.label),
      z0,
      ...options,
    });
    loss += result.loss / rings.length;
    kl += z0 / rings.length;
    examples.forEach((row, i) => {
      const coefficient = (result.coefficients[i] ?? Number.NaN) / rings.length;
      policy.accumulateLogProbGradient(row.promptIds, row.completionIds, coefficient, gradients);
    });
  }
  return { loss, kl, gradients, gradientNorm: globalNorm(gradients.values()) };
}
