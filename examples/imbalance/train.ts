/**
 * One run of the study: stories260K trained by the library on one split with one weighting, and what the rewards of the
 * validation rows are worth afterwards. Which runs there are is `run.ts`'s.
 */
import {
  completionLogProbs,
  type Device,
  type Example,
  KtoTrainer,
  type Metrics,
  Model,
  type TrainerOptions,
} from "../../src/index.ts";
import { modelFolder } from "../quickstart/stories.ts";
import { maxLength } from "./comparisons.ts";
import type { Split } from "./design.ts";

/** Chosen on seed 0, which is not reported (docs/imbalance.md). */
export const trainingOptions = {
  per_device_train_batch_size: 16,
  per_device_eval_batch_size: 32,
  num_train_epochs: 1,
  learning_rate: 1e-4,
  lr_scheduler_type: "cosine",
  warmup_ratio: 0.1,
  beta: 0.1,
  max_length: maxLength,
} as const satisfies Partial<TrainerOptions>;

export type Weighting = "1/1" | "auto";

/** How well the rewards r of some rows agree with their labels. */
export interface RewardShares {
  /** Share of desirable (undesirable) rows with r above (below) one z0 for all rows, the evaluation's `eval_kl`. */
  readonly desirableRight: number;
  readonly undesirableRight: number;
  /** Share of comparisons in which the better answer has the higher reward; a tie counts half. */
  readonly pairedAccuracy: number;
}

/** All shares are of validation rows, which hold as many desirable rows as undesirable ones. */
export interface Outcome extends RewardShares {
  /** The primary metric: `eval_rewards/accuracies` of the trainer's evaluation after the last update. */
  readonly accuracy: number;
  /** The same rewards against the annotators' labels: what shuffled labels teach that agrees with them all the same. */
  readonly byTrueLabels: RewardShares;
  readonly desirableWeight: number;
  readonly updates: number;
  readonly seconds: number;
  /** All of the last evaluation. */
  readonly evaluation: Metrics;
}

/** log p(completion | prompt) in nats, row by row. */
export function validationLogProbs(model: Model, rows: readonly Example[]): Promise<Float64Array> {
  return completionLogProbs(model, rows, trainingOptions.per_device_eval_batch_size);
}

export interface Arm {
  readonly split: Split;
  readonly weighting: Weighting;
  readonly seed: number;
  /** The validation rows in the same order with the annotators' labels. */
  readonly truth: readonly Example[];
  /** Log-probabilities of the validation rows under the model before training: `validationLogProbs`. */
  readonly before: ArrayLike<number>;
  /** Instead of some of `trainingOptions`, for a short run. */
  readonly options?: Partial<TrainerOptions>;
}

export async function trainArm(
  device: Device,
  { split, weighting, seed, truth, before, options }: Arm,
): Promise<Outcome> {
  const { training, validation } = split;
  const started = performance.now();
  const policy = await Model.load(device, modelFolder);
  const weight = weighting === "auto" ? weighting : 1;
  const trainer = await KtoTrainer.create({
    policy, // a frozen copy of it is the reference
    examples: training,
    evalExamples: validation,
    options: {
      ...trainingOptions,
      ...options,
      desirable_weight: weight,
      undesirable_weight: weight,
      seed,
      eval_strategy: "epoch",
    },
  });
  try {
    let evaluation: Metrics = {};
    for await (const step of trainer) evaluation = step.evaluation?.metrics ?? evaluation;
    const after = await validationLogProbs(policy, validation);
    const logRatios = after.map((logProb, row) => logProb - (before[row] ?? Number.NaN));
    const referencePoint = evaluation.eval_kl ?? Number.NaN;
    return {
      accuracy: evaluation["eval_rewards/accuracies"] ?? Number.NaN,
      ...rewardShares(validation, logRatios, referencePoint),
      byTrueLabels: rewardShares(truth, logRatios, referencePoint),
      desirableWeight: trainer.weights.desirable,
      updates: trainer.stepsDone,
      seconds: (performance.now() - started) / 1000,
      evaluation,
    };
  } finally {
    trainer.free();
    policy.free();
  }
}

/**
 * @param logRatios r of each row, in nats
 * @param referencePoint one z0 for all rows
 */
export function rewardShares(
  rows: readonly Pick<Example, "label" | "pairId">[],
  logRatios: ArrayLike<number>,
  referencePoint: number,
): RewardShares {
  const rated = rows.map((row, at) => ({ ...row, ratio: logRatios[at] ?? Number.NaN }));
  const desirable = rated.filter(({ label }) => label);
  const undesirable = rated.filter(({ label }) => !label);
  const others = new Map(undesirable.map(({ pairId, ratio }) => [pairId, ratio]));
  return {
    desirableRight: mean(desirable.map(({ ratio }) => Number(ratio > referencePoint))),
    undesirableRight: mean(undesirable.map(({ ratio }) => Number(ratio < referencePoint))),
    pairedAccuracy: mean(
      desirable.map(({ pairId, ratio }) => {
        const margin = ratio - (others.get(pairId) ?? Number.NaN);
        return margin > 0 ? 1 : margin === 0 ? 0.5 : 0;
      }),
    ),
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
