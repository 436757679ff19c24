/**
 * What a training run is made from: the caller's inputs, and the method (KTO, supervised fine-tuning) that says what
 * they are trained for. `planRun` checks them, before anything is allocated.
 */

import type { Device } from "../../engine/gpu/device.ts";
import { longRopeBeyond } from "../../engine/model/config/config.ts";
import { trainedLayout } from "../../engine/model/freezing.ts";
import { Model } from "../../engine/model/model.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { AdapterError, ConfigError, counted, DatasetError } from "../../errors.ts";
import { placeOf, type RowSource } from "../data/types.ts";
import type { OwnMetrics } from "../evaluation/run-evaluation.ts";
import { checkMetric } from "../evaluation/selection.ts";
import { type BatchExample, checkSequences, type ReferencePointScope } from "../method/batch.ts";
import { metricNames } from "../method/metrics.ts";
import { type TrainedFor, usesPairs } from "../method/objective.ts";
import { RunPlan } from "../method/run-plan.ts";
import { evaluationStrategy } from "../options/evaluation.ts";
import type { RunOptions } from "../options/run.ts";
import { stepsBetween } from "../options/steps.ts";
import { precisionOf } from "../options/training.ts";
import type { TrainerCallbacks } from "./callbacks.ts";
import type { SyncOptions } from "./reference-sync.ts";

/** What the caller of every trainer gives. */
export interface RunInputs extends TrainerCallbacks {
  /** Trained in place: its adapter where it has one, else all its weights, which must then be stored as f32. */
  readonly policy: Model;
  /** With token ids of the policy's vocabulary; see `tokenizeRows`. KTO needs at least 2. */
  readonly examples: readonly BatchExample[];
  /** Rows to evaluate on, which are not trained on. KTO needs at least 2. */
  readonly evalExamples?: readonly BatchExample[];
  /**
   * Where checkpoints and the best weights (`load_best_model_at_end`) are kept; without it there are none. One run at a
   * time has a folder, from `create` to `free`.
   */
  readonly outputFolder?: string;
  /** Gives back `outputFolder`, which the caller has locked already; called once, when the run is freed or refused. */
  readonly unlock?: (() => void) | undefined;
  /** What else must be the same when a run is resumed, by name; plain values. What is undefined may be anything. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Metrics of each evaluation that the caller measures. */
  readonly ownMetrics?: OwnMetrics | undefined;
  /** What a checkpoint of an adapter names as its base; default: the policy's folder. */
  readonly baseModel?: string;
  /**
   * The ranks that train together, one trainer each with the same inputs: every rank computes its part of the rows, and
   * all have the same weights after each update. Rank 0 alone reads and writes `outputFolder`. Default: this process
   * alone.
   */
  readonly ranks?: Communicator | undefined;
}

/** The ranks that train together; by default this process alone. */
export const ranksOf = ({ ranks = ALONE }: Pick<RunInputs, "ranks">): Communicator => ranks;

/** What a run is trained for, said by a trainer. */
export interface Method<Options extends RunOptions = RunOptions> {
  readonly name: "kto" | "sft";
  /** Complete and in range. */
  readonly options: Options;
  readonly objective: TrainedFor;
  /**
   * What the policy is compared with: a model of its own; the policy as it starts, or without its adapter; "uniform",
   * one constant for every row; or nothing.
   */
  readonly reference: Model | "start" | "base" | "uniform" | "none";
  /**
   * Given where the reference's log-probs are computed before the run: whether those on the disk are computed again,
   * and whether a reference model is freed once they are there.
   */
  readonly caching?: { readonly recompute: boolean; readonly freeReference: boolean } | undefined;
  /** Given where the reference follows the policy. */
  readonly sync?: SyncOptions | undefined;
  /** The rows over which the reference point is taken where gradients are accumulated. */
  readonly referencePointScope: ReferencePointScope;
}

/** Checks models, rows and options, and plans the run. Throws ConfigError, DatasetError, AdapterError. */
export function planRun(inputs: RunInputs, method: Method): RunPlan {
  const { options, objective, reference, referencePointScope } = method;
  const { policy, examples, evalExamples = [] } = inputs;
  checkPolicy(policy, options);
  trainedLayout(policy, options.freeze_parameters); // throws for a pattern that cannot be used
  if (precisionOf(options) === "fp16") checkF16(policy.device);
  const models = reference instanceof Model ? [policy, reference] : [policy];
  const maxLength = Math.min(options.max_length, ...models.map(({ config }) => config.contextLength));
  const limit = maxLength < options.max_length ? "the model's context of" : "max_length";
  for (const rows of [examples, evalExamples]) {
    checkLabels(rows);
    checkSequences(rows, policy.config.vocabSize, { maxLength, limit });
  }
  const evaluated = evaluatedRows(inputs.evalExamples, options);
  if (evaluated && options.metric_for_best_model !== undefined) {
    const lossType = objective === "sft" ? objective : objective.lossType;
    const names = metricNames(lossType, new Set(evaluated.map(({ label }) => label)));
    checkMetric(options.metric_for_best_model, [...names, ...(inputs.ownMetrics?.names ?? [])]);
  }
  const longBeyond = longRopeBeyond(policy.config);
  const batches = { mismatched: usesPairs(objective), maxLength, longBeyond };
  const isLocal = options.sync_every !== undefined;
  const plan = new RunPlan(examples, batches, options, referencePointScope, ranksOf(inputs), isLocal);
  if (isLocal) checkLocal(method, plan, evaluated !== undefined);
  return plan;
}

/**
 * Whether everything that looks at the model comes when all ranks have the same.
 *
 * @throws ConfigError naming the options that contradict each other
 */
function checkLocal({ options, sync }: Method, { totalSteps, stepsPerEpoch }: RunPlan, evaluates: boolean): void {
  const { sync_every: every = 1, eval_steps, logging_steps } = options;
  if (sync !== undefined) {
    throw new ConfigError(
      "sync_ref_model and sync_every are both set, but between two outer steps each rank has a model of its own, which the reference cannot follow: keep one.",
    );
  }
  if (!evaluates) return;
  const isByEpoch = options.eval_strategy === "epoch";
  const steps = isByEpoch ? stepsPerEpoch : stepsBetween(eval_steps ?? logging_steps, totalSteps);
  if (steps % every === 0 || steps >= totalSteps) return;
  const [found, remedy] = isByEpoch
    ? [`an epoch has ${counted(steps, "update")}`, 'set eval_strategy "steps" and eval_steps to a multiple']
    : [`the run evaluates every ${counted(steps, "update")}`, "set eval_steps to a multiple"];
  throw new ConfigError(
    `${found}, which is no multiple of sync_every ${every}, and between two outer steps each rank has a model of its own: ${remedy}.`,
  );
}

/**
 * The adapter of a device, and what kernels are written for it by, for people: with others, numbers round otherwise.
 */
export function adapterOf({ description, facts }: Pick<Device, "description" | "facts">): string {
  const { subgroupSize } = facts;
  return `${description}, ${subgroupSize > 0 ? `subgroups of ${subgroupSize} threads` : "without subgroups of one size"}`;
}

/** The rows that a run evaluates on, if it does. */
export function evaluatedRows(
  evalExamples: readonly BatchExample[] | undefined,
  options: RunOptions,
): readonly BatchExample[] | undefined {
  return evaluationStrategy(options, evalExamples !== undefined) === "no" ? undefined : evalExamples;
}

/** @throws ConfigError for a model that cannot be trained */
function checkPolicy(policy: Model, options: RunOptions): void {
  if (policy.adapter === undefined && policy.quantizedFormats.length > 0) {
    throw new ConfigError(
      `The weights of ${policy.folder} are quantised, so only a LoRA adapter over them can be trained: set use_peft.`,
    );
  }
  const { format } = policy.trained.layout;
  if (format !== "f32") {
    throw new ConfigError(
      `The model ${policy.folder} is stored as ${format}, and weights that are trained must be f32: load it with storage "f32", or train a LoRA adapter.`,
    );
  }
  if (!options.disable_dropout && policy.config.dropsOut) {
    throw new ConfigError(
      `option "disable_dropout" is false, but the dropout of ${policy.folder}'s own layers (see its config.json) is not implemented, only an adapter's: leave it true.`,
    );
  }
}

/** @throws AdapterError for a device without f16 in kernels */
function checkF16({ gpu, description }: Device): void {
  if (gpu.features.has("shader-f16")) return;
  throw new AdapterError(
    `option "fp16" is true, but the adapter "${description}" does not have shader-f16, or KTO_FEATURES=core leaves it out: leave fp16 out to train in f32.`,
  );
}

/** @throws DatasetError for an example whose label is neither true nor false */
function checkLabels(examples: readonly BatchExample[]): void {
  const at = examples.findIndex(({ label }) => typeof label !== "boolean");
  if (at < 0) return;
  throw new DatasetError(
    `Example ${at + 1} of ${examples.length} has the label ${JSON.stringify(examples[at]?.label)}; it must be true (thumbs up) or false.`,
  );
}

/** Rows by the lines that they came from, or else by their places among the examples, counted from 1. */
export function rowNames(rows: readonly BatchExample[], examples: readonly BatchExample[]): string {
  return rows
    .map((row) => ("source" in row ? placeOf(row.source as RowSource) : `example ${examples.indexOf(row) + 1}`))
    .join(", ");
}
