/** What a training run is made from: the inputs of the trainer checked, and what follows from them before any memory. */
import type { ParameterLayout } from "../../engine/gpu/arena.ts";
import type { Device } from "../../engine/gpu/device.ts";
import { trainedLayout } from "../../engine/model/freezing.ts";
import type { Model } from "../../engine/model/model.ts";
import { AdapterError, ConfigError, DatasetError } from "../../errors.ts";
import { placeOf, type RowSource } from "../data/types.ts";
import type { OwnMetrics } from "../evaluation/run-evaluation.ts";
import { checkMetric } from "../evaluation/selection.ts";
import { type BatchExample, checkSequences } from "../method/batch.ts";
import { EvaluationPlan } from "../method/evaluation-plan.ts";
import { metricNames } from "../method/metrics.ts";
import { ReferenceLogProbs } from "../method/reference-log-probs.ts";
import { RunPlan } from "../method/run-plan.ts";
import type { Checked } from "../options/checked.ts";
import { evaluationStrategy } from "../options/evaluation.ts";
import { type TrainerOptions, trainerOptions } from "../options/kto.ts";
import { type ReferenceMode, referenceMode } from "../options/method.ts";
import type { RunOptions } from "../options/run.ts";
import { type SftTrainerOptions, sftTrainerOptions } from "../options/sft.ts";
import type { TrainerCallbacks } from "./callbacks.ts";

/** What every training run is made from. */
export interface RunInputs extends TrainerCallbacks {
  /** Trained in place: its adapter where it has one, else all its weights, which must then be stored as f32. */
  readonly policy: Model;
  /** With token ids of the policy's vocabulary; see `tokenizeRows`. KTO needs at least 2. */
  readonly examples: readonly BatchExample[];
  /** Rows to evaluate on, of which the training sees nothing. KTO needs at least 2. */
  readonly evalExamples?: readonly BatchExample[];
  /** Where checkpoints and the best weights (`load_best_model_at_end`) are kept; without it there are none. */
  readonly outputFolder?: string;
  /** What else must be the same when a run is resumed, by name; plain values. What is undefined may be anything. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Metrics of each evaluation that the caller measures. */
  readonly ownMetrics?: OwnMetrics | undefined;
  /** What a checkpoint of an adapter names as its base; default: the policy's folder. */
  readonly baseModel?: string;
}

export interface TrainerInputs extends RunInputs {
  /**
   * Frozen. Default: the policy without its adapter, at no memory, or else a copy of it as it is now, freed with the
   * trainer. With `reference` "cached" it is not needed any more, and may be freed, once the trainer is there.
   */
  readonly reference?: Model;
  /**
   * The trainer may free the reference: with "cached" it does so once the log-probabilities are there, before the run is
   * allocated, so that both are never in memory together.
   */
  readonly ownsReference?: boolean;
  /** Some of them, parsed here, or all of them as a command line has parsed them. */
  readonly options?: Partial<TrainerOptions> | Checked<TrainerOptions>;
}

/** The examples of supervised fine-tuning are all to be imitated: their label is true. */
export interface SftTrainerInputs extends RunInputs {
  readonly options?: Partial<SftTrainerOptions> | Checked<SftTrainerOptions>;
}

/** What a run is made of before it takes any memory. */
export interface Prepared<Options extends RunOptions> {
  readonly options: Options;
  readonly plan: RunPlan;
  /** undefined for all that the policy trains. */
  readonly trained: ParameterLayout | undefined;
}

/** Parses the options, checks models and rows and plans the run. Throws ConfigError, DatasetError. */
export function prepare(inputs: TrainerInputs): Prepared<TrainerOptions> & { readonly mode: ReferenceMode } {
  const { policy, reference } = inputs;
  checkReference(policy, reference);
  const options = trainerOptions.parse(inputs.options);
  const mode = referenceMode(options, { adapter: policy.adapter !== undefined, given: reference !== undefined });
  return { ...planned(inputs, options, [policy, reference ?? policy], options.loss_type), mode };
}

/** The rows that a run evaluates on, if it does. */
export function evaluatedRows(
  evalExamples: readonly BatchExample[] | undefined,
  options: RunOptions,
): readonly BatchExample[] | undefined {
  return evaluationStrategy(options, evalExamples !== undefined) === "no" ? undefined : evalExamples;
}

/** The reference's log-probabilities of a run whose reference is "cached". */
export interface CachedReference {
  readonly updates: ReferenceLogProbs;
  /** undefined for a run that does not evaluate. */
  readonly evaluation: ReferenceLogProbs | undefined;
}

/**
 * From the cache or by passes of the reference, before anything of the run is allocated.
 *
 * @param compute false for zeros in their place
 * @throws NumericError where the reference gives numbers that are not finite
 */
export async function cachedReference(
  { policy, reference = policy.base, evalExamples }: TrainerInputs,
  { plan, options }: Prepared<TrainerOptions>,
  compute = true,
): Promise<CachedReference> {
  const common = { anew: options.overwrite_cache, fp16: options.fp16, compute };
  const rows = evaluatedRows(evalExamples, options);
  // First the smaller one, so that rows which are refused are refused soon.
  const evaluation = rows
    ? await ReferenceLogProbs.of(
        reference,
        new EvaluationPlan(rows, plan.batchOptions, options.per_device_eval_batch_size),
        { ...common, stepNames: ["evaluation microbatch", "evaluation microbatches"] },
      )
    : undefined;
  const updates = await ReferenceLogProbs.of(reference, plan, { ...common, stepNames: ["update", "updates"] });
  return { updates, evaluation };
}

/** As `prepare`, for supervised fine-tuning. */
export function prepareSft(inputs: SftTrainerInputs): Prepared<SftTrainerOptions> {
  const options = sftTrainerOptions.parse(inputs.options);
  for (const examples of [inputs.examples, inputs.evalExamples ?? []]) {
    const at = examples.findIndex(({ label }) => label === false);
    if (at < 0) continue;
    throw new DatasetError(
      `Example ${at + 1} of ${examples.length} has the label false (thumbs down), and supervised fine-tuning imitates every example; leave such rows out.`,
    );
  }
  return planned(inputs, options, [inputs.policy], "sft");
}

/** @param models that run the rows: their contexts bound the rows' lengths */
function planned<Options extends RunOptions>(
  inputs: RunInputs,
  options: Options,
  models: readonly Model[],
  lossType: TrainerOptions["loss_type"] | "sft",
): Prepared<Options> {
  const { policy, examples, evalExamples = [] } = inputs;
  checkPolicy(policy, options);
  if (options.fp16) checkF16(policy.device);
  const maxLength = Math.min(options.max_length, ...models.map(({ config }) => config.contextLength));
  const limit = maxLength < options.max_length ? "the model's context of" : "max_length";
  for (const rows of [examples, evalExamples]) {
    checkLabels(rows);
    checkSequences(rows, policy.config.vocabSize, { maxLength, limit });
  }
  const evaluated = evaluatedRows(inputs.evalExamples, options);
  if (evaluated && options.metric_for_best_model !== undefined) {
    const names = metricNames(lossType, new Set(evaluated.map(({ label }) => label)));
    checkMetric(options.metric_for_best_model, [...names, ...(inputs.ownMetrics?.names ?? [])]);
  }
  const plan = new RunPlan(examples, { mismatched: lossType === "kto", maxLength }, options);
  return { options, plan, trained: trainedLayout(policy, options.freeze_parameters) };
}

/** @throws ConfigError for a reference that the policy cannot be compared with */
function checkReference(policy: Model, reference: Model | undefined): void {
  if (reference === undefined) return;
  if (reference === policy) {
    throw new ConfigError(
      "The reference is the policy itself, so every log-ratio would stay 0; load the reference as a model of its own, or leave it out for a frozen copy.",
    );
  }
  if (reference.device !== policy.device) {
    throw new ConfigError("The reference lies on another device than the policy; load both on one device.");
  }
  if (reference.adapter !== undefined) {
    throw new ConfigError(
      `The reference ${reference.folder} has an adapter, which a reference cannot have: merge it into the model first.`,
    );
  }
}

/** @throws ConfigError for a model that cannot be trained */
function checkPolicy(policy: Model, options: RunOptions): void {
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
