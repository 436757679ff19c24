/**
 * The trainer: examples and two models in, one update after another out. Owns the schedule (which rows, which learning
 * rate) and the logging window; the work of an update is `step.ts`. Iterate it with `for await`.
 */
import type { ParameterLayout } from "../engine/arena.ts";
import { trainedLayout } from "../engine/model/freezing.ts";
import { Model, type SaveOptions } from "../engine/model/load.ts";
import { saveAdapter } from "../engine/peft.ts";
import { learningRateAt, type ScheduleOptions } from "../engine/schedule.ts";
import { ConfigError, DatasetError, NumericError } from "../errors.ts";
import { METRIC_SUMS } from "../kernels/kto-objective.ts";
import { type BatchExample, checkSequences, type KtoBatch } from "./batch.ts";
import { checkFloat32, ktoParseContext, type TrainerOptions, trainerOptions } from "./config.ts";
import { solveWeights } from "./data/weights.ts";
import { type ReferenceMode, referenceMode } from "./method-options.ts";
import { type Metrics, windowMetrics } from "./metrics.ts";
import { parseOptions } from "./parse-options.ts";
import { ReferenceLogProbs } from "./reference-log-probs.ts";
import { type Evaluation, RunEvaluation } from "./run-evaluation.ts";
import { RunPlan } from "./run-plan.ts";
import { KtoStep } from "./step.ts";

export interface TrainerInputs {
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
  /** Where the best weights are kept for `load_best_model_at_end`. */
  readonly outputFolder?: string;
  readonly options?: Partial<TrainerOptions>;
}

/** What an update leaves behind. */
export interface TrainingStep {
  /** Updates done, from 1; 0 for the evaluation of `eval_on_start`. */
  readonly step: number;
  readonly totalSteps: number;
  /** Passes over the data so far. */
  readonly epoch: number;
  readonly learningRate: number;
  /** On logging steps: means over the window since the last one. */
  readonly metrics?: Metrics;
  /** After steps at which the model is evaluated. */
  readonly evaluation?: Evaluation;
}

/** Updates in a row that may be skipped because a gradient was not finite, before the run is given up. */
const MOST_VAIN_STEPS = 10;

/** What a run is made of before it takes any memory. */
interface Prepared {
  readonly options: TrainerOptions;
  readonly plan: RunPlan;
  readonly mode: ReferenceMode;
  /** undefined for all that the policy trains. */
  readonly trained: ParameterLayout | undefined;
}

function prepare({ policy, reference, examples, evalExamples = [], options: given }: TrainerInputs): Prepared {
  const options = parseOptions(trainerOptions, { ...given }, ktoParseContext);
  checkFloat32(options);
  const mode = referenceMode(options, { adapter: policy.adapter !== undefined, given: reference !== undefined });
  const contexts = [policy, reference ?? policy].map(({ config }) => config.contextLength);
  const maxLength = Math.min(options.max_length, ...contexts);
  const limit = maxLength < options.max_length ? "the model's context of" : "max_length";
  checkSequences(examples, policy.config.vocabSize, { maxLength, limit });
  checkSequences(evalExamples, policy.config.vocabSize, { maxLength, limit });
  if (mode === "cached" && evalExamples.length > 0) {
    throw new ConfigError(
      'option "reference" is cached (precompute_ref_log_probs), which has numbers for the rows that are trained on only: leave evaluation out, or keep the reference as a copy.',
    );
  }
  const plan = new RunPlan(examples, { mismatched: options.loss_type === "kto", maxLength }, options);
  return { options, plan, mode, trained: trainedLayout(policy, options.freeze_parameters) };
}

/**
 * A training run, made by `KtoTrainer.create`: iterating runs one update after another and throws NumericError where
 * gradients are not finite update after update. `free` gives all device memory back but the given models'.
 */
export class KtoTrainer implements AsyncIterable<TrainingStep> {
  readonly policy: Model;
  readonly options: TrainerOptions;
  /** lambda_D and lambda_U, with "auto" solved. */
  readonly weights: { readonly desirable: number; readonly undesirable: number };
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  /** Examples, 0 or 1, that an epoch leaves out because they would be a microbatch of one row; another one each epoch. */
  readonly rowsLeftOut: number;
  readonly step: KtoStep;
  readonly referenceMode: ReferenceMode;
  /** Where cached log-probabilities of the reference come from, for people. */
  readonly referenceNote: string | undefined;
  readonly #ownReference: Model | undefined;
  readonly #evaluation: RunEvaluation | undefined;
  #stopReason: string | undefined;
  #bestStep: number | undefined;
  /** Of the last logging window. */
  #lastMetrics: Metrics | undefined;
  readonly #plan: RunPlan;
  readonly #cached: ReferenceLogProbs | undefined;
  readonly #schedule: ScheduleOptions;
  #done = 0;
  #tokens = 0;
  #rowsRun = 0;
  #windowTokens = 0;
  #windowSteps = 0;
  #windowCutPairs = 0;
  /** Milliseconds of the window in which the loop ran, and since when it runs now. */
  #windowMs = 0;
  #runningSince = 0;
  #skipped = 0;
  #iterating = false;
  #freed = false;
  /** Updates since the last window in which one was possible. */
  #vainSteps = 0;

  private constructor(
    inputs: TrainerInputs,
    { options, plan, mode, trained }: Prepared,
    cached: ReferenceLogProbs | undefined,
  ) {
    const { policy, examples } = inputs;
    this.policy = policy;
    this.options = options;
    this.referenceMode = mode;
    this.referenceNote = cached?.note;
    this.#plan = plan;
    this.#cached = cached;
    this.weights = solveWeights(this.options.desirable_weight, this.options.undesirable_weight, examples);
    this.rowsLeftOut = plan.rowsLeftOut;
    this.stepsPerEpoch = plan.stepsPerEpoch;
    this.totalSteps = plan.totalSteps;
    this.#schedule = {
      type: this.options.lr_scheduler_type,
      learningRate: this.options.learning_rate,
      totalSteps: this.totalSteps,
      warmupSteps: this.options.warmup_steps || Math.ceil(this.options.warmup_ratio * this.totalSteps),
    };
    this.#ownReference =
      mode === "copy" && inputs.reference === undefined ? Model.copyOf(policy.base, "reference weights") : undefined;
    const reference =
      mode === "cached" || mode === "uniform" ? mode : (inputs.reference ?? this.#ownReference ?? policy.base);
    const objective = {
      beta: this.options.beta,
      desirableWeight: this.weights.desirable,
      undesirableWeight: this.weights.undesirable,
      lossType: this.options.loss_type,
    };
    this.step = new KtoStep({
      policy,
      reference,
      shapes: plan.shapes(),
      maxSize: this.options.per_device_train_batch_size,
      objective,
      optimizer: {
        beta1: this.options.adam_beta1,
        beta2: this.options.adam_beta2,
        epsilon: this.options.adam_epsilon,
        weightDecay: this.options.weight_decay,
        maxGradientNorm: this.options.max_grad_norm,
      },
      trained,
      gradientCheckpointing: this.options.gradient_checkpointing,
      referencePointScope: this.options.reference_point_scope,
      dropoutSeed: this.options.disable_dropout ? undefined : this.options.seed,
    });
    this.#evaluation = RunEvaluation.create({
      policy, // without dropout
      reference: reference === "cached" ? policy.base : reference, // with cached numbers there are no rows to evaluate
      examples: inputs.evalExamples,
      objective,
      maxLength: plan.batchOptions.maxLength,
      options: this.options,
      totalSteps: this.totalSteps,
      stepsPerEpoch: this.stepsPerEpoch,
      outputFolder: inputs.outputFolder,
    });
  }

  /**
   * Checks options and examples and allocates all device memory of the run.
   *
   * @throws ConfigError for an option out of range; DatasetError for examples that the model cannot take; AdapterError
   * when the device cannot hold the run
   */
  static async create(inputs: TrainerInputs): Promise<KtoTrainer> {
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
    const { device } = inputs.policy;
    const prepared = prepare(inputs);
    // Before anything of the run is allocated: the reference's pass and the training are never in memory together.
    const cached =
      prepared.mode === "cached"
        ? await ReferenceLogProbs.of(
            inputs.reference ?? inputs.policy.base,
            prepared.plan,
            prepared.options.overwrite_cache,
          )
        : undefined;
    const trainer = device.allocating(() => new KtoTrainer(inputs, prepared, cached));
    try {
      await device.idle(); // an adapter out of memory says so only now
    } catch (error) {
      trainer.free();
      throw error;
    }
    return trainer;
  }

  /** Updates done. */
  get stepsDone(): number {
    return this.#done;
  }

  #pack(step: number): KtoBatch[] {
    const batches = this.#plan.batches(step);
    return this.#cached?.attach(step, batches) ?? batches;
  }

  /** Runs the updates that are left; may be left and entered again. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrainingStep> {
    if (this.#freed) throw new ConfigError("The trainer was freed; create another one.");
    if (this.#iterating) throw new ConfigError("The trainer is iterated already; leave that loop first.");
    this.#iterating = true;
    try {
      yield* this.#steps();
    } finally {
      this.#iterating = false;
    }
  }

  async *#steps(): AsyncGenerator<TrainingStep> {
    const { device } = this.policy;
    if (this.#done === 0 && this.#evaluation?.due(0)) {
      const evaluation = await this.#evaluation.run(0, undefined);
      yield { step: 0, totalSteps: this.totalSteps, epoch: 0, learningRate: 0, evaluation };
    }
    let batches = this.#pack(this.#done);
    while (this.#done < this.totalSteps && this.#stopReason === undefined) {
      this.#runningSince = performance.now();
      const learningRate = learningRateAt(this.#done, this.#schedule);
      await this.step.run(batches, learningRate, this.#done);
      const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
      this.#done++;
      this.#tokens += tokens;
      this.#rowsRun += this.step.rowsRun(batches);
      this.#windowTokens += tokens;
      this.#windowSteps++;
      this.#windowCutPairs += batches.reduce((sum, batch) => sum + batch.cutPairs, 0);
      batches = this.#pack(this.#done); // while the device works
      const epoch = this.#done / this.stepsPerEpoch;
      const base = { step: this.#done, totalSteps: this.totalSteps, epoch, learningRate };
      let metrics: Metrics | undefined;
      if (this.#logs(this.#done)) metrics = await this.#readMetrics(learningRate, epoch);
      else {
        await device.idle();
        this.#windowMs += performance.now() - this.#runningSince;
      }
      const evaluation = await this.#evaluate();
      if (evaluation?.stop !== undefined && metrics === undefined) {
        this.#runningSince = performance.now(); // the evaluation's time is not the window's
        metrics = await this.#readMetrics(learningRate, epoch);
      }
      if (this.#done === this.totalSteps || this.#stopReason !== undefined) {
        this.#bestStep = await this.#evaluation?.loadBest();
      }
      yield { ...base, ...(metrics ? { metrics } : {}), ...(evaluation ? { evaluation } : {}) };
    }
  }

  /** The evaluation that is due after the last update, if one is. */
  async #evaluate(): Promise<Evaluation | undefined> {
    if (!this.#evaluation?.due(this.#done)) return undefined;
    const evaluation = await this.#evaluation.run(this.#done, this.#lastMetrics);
    if (this.#done < this.totalSteps) this.#stopReason = evaluation.stop;
    return evaluation;
  }

  /** Why the run ended before its last step, if it did. */
  get stopReason(): string | undefined {
    return this.#stopReason;
  }

  /** The step whose weights the policy has, once the run has ended with `load_best_model_at_end`. */
  get bestStep(): number | undefined {
    return this.#bestStep;
  }

  /**
   * The metrics of the rows to evaluate on, as the model is now. Changes nothing.
   *
   * @throws ConfigError for a run that does not evaluate
   */
  async evaluate(): Promise<Metrics> {
    if (this.#evaluation === undefined) {
      throw new ConfigError("This run does not evaluate: create the trainer with evalExamples.");
    }
    return await this.#evaluation.metrics();
  }

  #logs(step: number): boolean {
    const { logging_steps, logging_first_step } = this.options;
    return step % logging_steps === 0 || step === this.totalSteps || (step === 1 && logging_first_step);
  }

  /** The window's metrics; clears the device's sums. Throws NumericError when updates have long been impossible. */
  async #readMetrics(learningRate: number, epoch: number): Promise<Metrics> {
    const { device } = this.policy;
    const sums = await device.download(this.step.objective.metrics);
    const state = await device.download(this.step.optimizer.state);
    device.upload(this.step.objective.metrics, new Float32Array(METRIC_SUMS.size));
    const seconds = Math.max(1e-3, (this.#windowMs + performance.now() - this.#runningSince) / 1000);
    const metrics = windowMetrics(sums, state, {
      epoch,
      learningRate,
      tokens: this.#tokens,
      tokensComputed: this.#rowsRun,
      tokensPerSecond: this.#windowTokens / seconds,
      cutPairs: this.#windowCutPairs,
      memory: device.memory(),
    });
    const skipped = (metrics.skipped_steps ?? 0) - this.#skipped;
    this.#vainSteps = skipped < this.#windowSteps ? 0 : this.#vainSteps + skipped;
    // At the end of a run nothing is left to recover in: two in a row are enough there.
    const most = this.#done === this.totalSteps ? 2 : MOST_VAIN_STEPS;
    if (this.#vainSteps >= Math.min(most, this.totalSteps)) {
      throw new NumericError(
        `The gradients were not finite in any of the ${this.#vainSteps} updates up to step ${this.#done}, so the model no longer changes; lower learning_rate, or look for damaged weights.`,
      );
    }
    this.#skipped += skipped;
    this.#windowTokens = 0;
    this.#windowSteps = 0;
    this.#windowCutPairs = 0;
    this.#windowMs = 0;
    this.#lastMetrics = metrics;
    return metrics;
  }

  /**
   * Writes the policy as a Hugging Face folder (`Model.save`), or its adapter as PEFT does (`saveAdapter`).
   *
   * @throws NumericError, before anything is written, when the policy no longer gives finite log-probabilities
   */
  async save(folder: string, options: SaveOptions & { readonly baseModel?: string } = {}): Promise<void> {
    if (this.#freed) throw new ConfigError("The trainer was freed; save before that.");
    // The last update's gradients were finite before it, which says nothing of the weights after it.
    const [batch] = this.#pack(Math.max(0, this.#done - 1));
    if (batch && !(await this.step.policyLogProbs(batch)).every(Number.isFinite)) {
      throw new NumericError(
        "The model is not saved: its log-probabilities are not finite numbers any more, so the training diverged; lower learning_rate.",
      );
    }
    if (this.policy.adapter) await saveAdapter(this.policy, folder, options.baseModel);
    else await this.policy.save(folder, options);
  }

  /** Gives back all device memory of the run; the policy stays loaded. */
  free(): void {
    this.#freed = true;
    this.step.free();
    this.#evaluation?.free();
    this.#ownReference?.free();
  }
}

/** @throws DatasetError for an example whose label is neither true nor false */
function checkLabels(examples: readonly BatchExample[]): void {
  const at = examples.findIndex(({ label }) => typeof label !== "boolean");
  if (at < 0) return;
  throw new DatasetError(
    `Example ${at + 1} of ${examples.length} has the label ${JSON.stringify(examples[at]?.label)}; it must be true (thumbs up) or false.`,
  );
}
