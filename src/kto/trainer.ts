/**
 * The trainer: examples and two models in, one update after another out. Owns the schedule (which rows, which learning
 * rate) and the logging window; the work of an update is `step.ts`. Iterate it with `for await`.
 */
import { Model, type SaveOptions } from "../engine/model/load.ts";
import type { RowShape } from "../engine/model/rows.ts";
import { saveAdapter } from "../engine/peft.ts";
import { learningRateAt, type ScheduleOptions } from "../engine/schedule.ts";
import { ConfigError, DatasetError, NumericError } from "../errors.ts";
import { METRIC_SUMS } from "../kernels/kto-objective.ts";
import { type BatchExample, type BatchOptions, batchShape, checkSequences, type KtoBatch, packBatch } from "./batch.ts";
import { checkFloat32, ktoParseContext, type TrainerOptions, trainerOptions } from "./config.ts";
import { solveWeights } from "./data/weights.ts";
import { type Metrics, windowMetrics } from "./metrics.ts";
import { parseOptions } from "./parse-options.ts";
import { type Evaluation, RunEvaluation } from "./run-evaluation.ts";
import { epochSchedule, rowsLeftOut } from "./sampler.ts";
import { KtoStep } from "./step.ts";

export interface TrainerInputs {
  /** Trained in place: its adapter where it has one, else all its weights, which must then be stored as f32. */
  readonly policy: Model;
  /**
   * Frozen. Default: the policy without its adapter, at no memory, or else a copy of it as it is now, freed with the
   * trainer.
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

/** Beyond this many updates the shapes of a run are bounded instead of listed, so that it starts at once. */
const MOST_STEPS_LOOKED_AT = 20_000;

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
  readonly #examples: readonly BatchExample[];
  readonly #ownReference: Model | undefined;
  readonly #evaluation: RunEvaluation | undefined;
  #stopReason: string | undefined;
  #bestStep: number | undefined;
  /** Of the last logging window. */
  #lastMetrics: Metrics | undefined;
  readonly #batchOptions: BatchOptions;
  readonly #schedule: ScheduleOptions;
  #epoch: { number: number; microbatches: number[][] } | undefined;
  #done = 0;
  #tokens = 0;
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

  private constructor(inputs: TrainerInputs) {
    const { policy, examples } = inputs;
    this.policy = policy;
    this.options = parseOptions(trainerOptions, { ...inputs.options }, ktoParseContext);
    checkFloat32(this.options);
    this.#examples = examples;
    this.weights = solveWeights(this.options.desirable_weight, this.options.undesirable_weight, examples);
    const contexts = [policy, inputs.reference ?? policy].map(({ config }) => config.contextLength);
    this.#batchOptions = {
      mismatched: this.options.loss_type === "kto",
      maxLength: Math.min(this.options.max_length, ...contexts),
    };
    const { maxLength } = this.#batchOptions;
    const limit = maxLength < this.options.max_length ? "the model's context of" : "max_length";
    checkSequences(examples, policy.config.vocabSize, { maxLength, limit });
    checkSequences(inputs.evalExamples ?? [], policy.config.vocabSize, { maxLength, limit });
    this.rowsLeftOut = rowsLeftOut(examples.length, this.#microbatches(0));
    this.stepsPerEpoch = Math.ceil(this.#microbatches(0).length / this.options.gradient_accumulation_steps);
    this.totalSteps =
      this.options.max_steps > 0
        ? this.options.max_steps
        : Math.ceil(this.options.num_train_epochs * this.stepsPerEpoch);
    this.#schedule = {
      type: this.options.lr_scheduler_type,
      learningRate: this.options.learning_rate,
      totalSteps: this.totalSteps,
      warmupSteps: this.options.warmup_steps || Math.ceil(this.options.warmup_ratio * this.totalSteps),
    };
    this.#ownReference = inputs.reference || policy.adapter ? undefined : Model.copyOf(policy, "reference weights");
    const reference = inputs.reference ?? this.#ownReference ?? policy.base;
    const objective = {
      beta: this.options.beta,
      desirableWeight: this.weights.desirable,
      undesirableWeight: this.weights.undesirable,
      lossType: this.options.loss_type,
    };
    this.step = new KtoStep({
      policy,
      reference,
      shapes: this.#shapes(),
      maxSize: this.options.per_device_train_batch_size,
      objective,
      optimizer: {
        beta1: this.options.adam_beta1,
        beta2: this.options.adam_beta2,
        epsilon: this.options.adam_epsilon,
        weightDecay: this.options.weight_decay,
        maxGradientNorm: this.options.max_grad_norm,
      },
      referencePointScope: this.options.reference_point_scope,
      dropoutSeed: this.options.disable_dropout ? undefined : this.options.seed,
    });
    this.#evaluation = RunEvaluation.create({
      policy, // without dropout
      reference,
      examples: inputs.evalExamples,
      objective,
      maxLength,
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
    const trainer = device.allocating(() => new KtoTrainer(inputs));
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

  /** The microbatches of an epoch: a pure function of data, seed and epoch. */
  #microbatches(epoch: number): number[][] {
    if (this.#epoch?.number !== epoch) {
      const microbatches = epochSchedule(this.#examples, {
        batchSize: this.options.per_device_train_batch_size,
        seed: this.options.seed,
        epoch,
        shuffle: this.options.shuffle_dataset,
        mismatched: this.options.loss_type === "kto",
      });
      this.#epoch = { number: epoch, microbatches };
    }
    return this.#epoch.microbatches;
  }

  /** The microbatches of update `step`, counted from 0. */
  #stepExamples(step: number): BatchExample[][] {
    const accumulation = this.options.gradient_accumulation_steps;
    const microbatches = this.#microbatches(Math.floor(step / this.stepsPerEpoch));
    const first = (step % this.stepsPerEpoch) * accumulation;
    return microbatches
      .slice(first, first + accumulation)
      .map((rows) => rows.map((row) => this.#examples[row]).filter((row) => row !== undefined));
  }

  /** Every shape class of the run or, where looking at every step would take long, one that holds them all. */
  #shapes(): RowShape[] {
    if (this.totalSteps > MOST_STEPS_LOOKED_AT) return [this.#largestShape()];
    const shapes = new Map<string, RowShape>();
    for (let step = 0; step < this.totalSteps; step++) {
      for (const examples of this.#stepExamples(step)) {
        const shape = batchShape(examples, this.#batchOptions);
        shapes.set(JSON.stringify(shape), shape);
      }
    }
    return [...shapes.values()];
  }

  /** A shape that holds any microbatch: of the longest examples, and of those with the longest completions. */
  #largestShape(): RowShape {
    const longest = (length: (example: BatchExample) => number) =>
      [...this.#examples].sort((a, b) => length(b) - length(a)).slice(0, this.options.per_device_train_batch_size);
    const [byTotal, byCompletion] = [
      longest(({ promptIds, completionIds }) => promptIds.length + completionIds.length),
      longest(({ completionIds }) => completionIds.length),
    ].map((examples) => batchShape(examples, { ...this.#batchOptions, maxLength: Number.POSITIVE_INFINITY }));
    if (byTotal === undefined || byCompletion === undefined) throw new Error("no examples");
    const most = (key: keyof RowShape) => Math.max(byTotal[key], byCompletion[key]);
    return {
      gradientRows: most("gradientRows"),
      branchRows: most("branchRows"),
      gradientHeadRows: most("gradientHeadRows"),
      branchHeadRows: most("branchHeadRows"),
      sequences: most("sequences"),
    };
  }

  #pack(step: number): KtoBatch[] {
    return step < this.totalSteps
      ? this.#stepExamples(step).map((examples) => packBatch(examples, this.#batchOptions))
      : [];
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
