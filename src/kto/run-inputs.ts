/** What a training run is made from: the inputs of the trainer checked, and what follows from them before any memory. */
import type { ParameterLayout } from "../engine/arena.ts";
import { trainedLayout } from "../engine/model/freezing.ts";
import type { Model } from "../engine/model/load.ts";
import { ConfigError, DatasetError } from "../errors.ts";
import { type BatchExample, checkSequences } from "./batch.ts";
import type { TrainerCallbacks } from "./callbacks.ts";
import { checkFloat32, ktoParseContext, type TrainerOptions, trainerOptions } from "./config.ts";
import { placeOf, type RowSource } from "./data/types.ts";
import { evaluationStrategy } from "./evaluation-options.ts";
import { EvaluationPlan } from "./evaluation-plan.ts";
import { type ReferenceMode, referenceMode } from "./method-options.ts";
import { parseOptions } from "./parse-options.ts";
import { ReferenceLogProbs } from "./reference-log-probs.ts";
import { RunPlan } from "./run-plan.ts";

export interface TrainerInputs extends TrainerCallbacks {
  /** Trained in place: its adapter where it has one, else all its weights, which must then be stored as f32. */
  readonly policy: Model;
  /**
   * Frozen. Default: the policy without its adapter, at no memory, or else a copy of it as it is now, freed with the
   * trainer. With `reference` "cached" it is not needed any more, and may be freed, once the trainer is there.
   */
  readonly reference?: Model;
  /** At least 2, with token ids of the policy's vocabulary; see `tokenizeRows`. */
  readonly examples: readonly BatchExample[];
  /** Rows to evaluate on, at least 2, of which the training sees nothing. */
  readonly evalExamples?: readonly BatchExample[];
  /** Where checkpoints and the best weights (`load_best_model_at_end`) are kept; without it there are none. */
  readonly outputFolder?: string;
  /** What else must be the same when a run is resumed, by name; plain values. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** What a checkpoint of an adapter names as its base; default: the policy's folder. */
  readonly baseModel?: string;
  readonly options?: Partial<TrainerOptions>;
}

/** What a run is made of before it takes any memory. */
export interface Prepared {
  readonly options: TrainerOptions;
  readonly plan: RunPlan;
  readonly mode: ReferenceMode;
  /** undefined for all that the policy trains. */
  readonly trained: ParameterLayout | undefined;
}

/** Parses the options, checks the rows and plans the run. Throws ConfigError, DatasetError. */
export function prepare({ policy, reference, examples, evalExamples = [], options: given }: TrainerInputs): Prepared {
  const options = parseOptions(trainerOptions, { ...given }, ktoParseContext);
  checkFloat32(options);
  const mode = referenceMode(options, { adapter: policy.adapter !== undefined, given: reference !== undefined });
  const contexts = [policy, reference ?? policy].map(({ config }) => config.contextLength);
  const maxLength = Math.min(options.max_length, ...contexts);
  const limit = maxLength < options.max_length ? "the model's context of" : "max_length";
  checkSequences(examples, policy.config.vocabSize, { maxLength, limit });
  checkSequences(evalExamples, policy.config.vocabSize, { maxLength, limit });
  const plan = new RunPlan(examples, { mismatched: options.loss_type === "kto", maxLength }, options);
  return { options, plan, mode, trained: trainedLayout(policy, options.freeze_parameters) };
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
  { plan, options }: Prepared,
  compute = true,
): Promise<CachedReference> {
  const common = { anew: options.overwrite_cache, compute };
  const evaluates = evalExamples !== undefined && evaluationStrategy(options, true) !== "no";
  // First the smaller one, so that rows which are refused are refused soon.
  const evaluation = evaluates
    ? await ReferenceLogProbs.of(
        reference,
        new EvaluationPlan(evalExamples, plan.batchOptions, options.per_device_eval_batch_size),
        { ...common, stepNames: ["evaluation microbatch", "evaluation microbatches"] },
      )
    : undefined;
  const updates = await ReferenceLogProbs.of(reference, plan, { ...common, stepNames: ["update", "updates"] });
  return { updates, evaluation };
}

/** @throws ConfigError for models that cannot be trained or compared, DatasetError for an example without a label */
export function checkInputs(inputs: TrainerInputs): void {
  if (inputs.reference === inputs.policy) {
    throw new ConfigError(
      "The reference is the policy itself, so every log-ratio would stay 0; load the reference as a model of its own, or leave it out for a frozen copy.",
    );
  }
  if (inputs.reference !== undefined && inputs.reference.device !== inputs.policy.device) {
    throw new ConfigError("The reference lies on another device than the policy; load both on one device.");
  }
  if (inputs.policy.trained.layout.format !== "f32") {
    throw new ConfigError(
      `The model ${inputs.policy.folder} is stored as ${inputs.policy.trained.layout.format}, and weights that are trained must be f32: load it with storage "f32", or train a LoRA adapter.`,
    );
  }
  const trained = parseOptions(trainerOptions, { ...inputs.options }, ktoParseContext);
  if (!trained.disable_dropout && inputs.policy.config.dropsOut) {
    throw new ConfigError(
      `option "disable_dropout" is false, but the dropout of ${inputs.policy.folder}'s own layers (see its config.json) is not implemented, only an adapter's: leave it true.`,
    );
  }
  if (inputs.reference?.adapter !== undefined) {
    throw new ConfigError(
      `The reference ${inputs.reference.folder} has an adapter, which a reference cannot have: merge it into the model first.`,
    );
  }
  checkLabels(inputs.examples);
  checkLabels(inputs.evalExamples ?? []);
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
