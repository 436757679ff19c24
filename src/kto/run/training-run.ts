/**
 * A training run, whatever it trains for: one update after another, logged, evaluated, saved, resumed. Owns the schedule
 * (which rows, which learning rate); what is trained and for what is the trainers' (`trainer.ts`),
 * the work of an update `step.ts`'s. Iterate it with `for await`.
 */
import type { Device } from "../../engine/gpu/device.ts";
import type { Model, SaveOptions } from "../../engine/model/model.ts";
import { saveAdapter } from "../../engine/model/peft.ts";
import { learningRateAt, type Schedule } from "../../engine/schedule.ts";
import { ConfigError, DeviceLostError, errorMessage, FileError, NumericError } from "../../errors.ts";
import { type Evaluation, RunEvaluation } from "../evaluation/run-evaluation.ts";
import type { KtoBatch } from "../method/batch.ts";
import type { Metrics } from "../method/metrics.ts";
import type { TrainedFor } from "../method/objective.ts";
import type { RunPlan } from "../method/run-plan.ts";
import { KtoStep, type StepReference } from "../method/update.ts";
import type { RunOptions } from "../options/run.ts";
import { scheduleOf } from "../options/schedule.ts";
import { type TrainerCallbacks, type TrainingStep, warn } from "./callbacks.ts";
import { checkHostMemory } from "./fitting.ts";
import { type CachedReference, type Prepared, type RunInputs, rowNames } from "./inputs.ts";
import { LoggingWindow } from "./logging-window.ts";
import { RunRecord } from "./record.ts";
import type { Resumption } from "./resumption.ts";
import type { LogLine } from "./state.ts";
import { type RunTimes, timeRun } from "./timing.ts";

/** What a run is made of before it takes memory. */
export interface RunParts<Options extends RunOptions> {
  readonly inputs: RunInputs;
  readonly prepared: Prepared<Options>;
  readonly objective: TrainedFor;
  readonly reference: StepReference;
  readonly referencePointScope: "microbatch" | "step";
  /** The reference's log-probabilities, where they were computed before. */
  readonly cached?: CachedReference | undefined;
}

/** Iterating it runs one update after another and throws NumericError where gradients are not finite update after update. */
export class TrainingRun<Options extends RunOptions> implements AsyncIterable<TrainingStep> {
  readonly policy: Model;
  readonly options: Options;
  readonly step: KtoStep;
  readonly #evaluation: RunEvaluation | undefined;
  #bestStep: number | undefined;
  #bestSought = false;
  /** The warning of it was given. */
  #saturated = false;
  readonly #plan: RunPlan;
  readonly #cached: CachedReference | undefined;
  readonly #schedule: Schedule;
  readonly #window: LoggingWindow;
  readonly #record: RunRecord;
  readonly #callbacks: TrainerCallbacks;
  #stopping = new AbortController();
  #interrupted = false;
  #iterating = false;
  #freed = false;

  /** Allocates all device memory of the run but the models'. */
  protected constructor({ inputs, prepared, objective, reference, referencePointScope, cached }: RunParts<Options>) {
    const { policy, outputFolder } = inputs;
    const { options, plan, trained } = prepared;
    this.policy = policy;
    this.options = options;
    this.#plan = plan;
    this.#cached = cached;
    this.#callbacks = inputs;
    this.#schedule = scheduleOf(options, this.totalSteps);
    this.step = new KtoStep({
      policy,
      reference,
      shapes: plan.shapes(),
      maxSize: options.per_device_train_batch_size,
      objective,
      optimizer: {
        beta1: options.adam_beta1,
        beta2: options.adam_beta2,
        epsilon: options.adam_epsilon,
        weightDecay: options.weight_decay,
        maxGradientNorm: options.max_grad_norm,
      },
      trained,
      fp16: options.fp16,
      gradientCheckpointing: options.gradient_checkpointing,
      referencePointScope,
      dropoutSeed: options.disable_dropout ? undefined : options.seed,
    });
    this.#evaluation = RunEvaluation.create({
      policy, // without dropout
      reference: reference === "cached" ? (cached?.evaluation ?? policy.base) : reference,
      examples: inputs.evalExamples,
      objective,
      maxLength: plan.batchOptions.maxLength,
      fp16: options.fp16,
      options,
      totalSteps: this.totalSteps,
      stepsPerEpoch: this.stepsPerEpoch,
      ownMetrics: inputs.ownMetrics,
      outputFolder,
    });
    this.#window = new LoggingWindow(this.step);
    this.#record = new RunRecord({
      inputs,
      method: objective === "sft" ? "sft" : "kto",
      options,
      plan,
      step: this.step,
      window: this.#window,
      evaluation: this.#evaluation,
    });
  }

  /**
   * Makes a run and, where it is resumed, puts the checkpoint's weights into the policy.
   *
   * @param explained what to say of an error of the allocations
   */
  protected static async started<Run extends TrainingRun<RunOptions>>(
    device: Device,
    resumed: Resumption | undefined,
    make: () => Run,
    explained: (error: unknown) => Promise<unknown>,
  ): Promise<Run> {
    const run = await TrainingRun.#allocated(device, make, explained);
    try {
      if (resumed) await run.#record.resume(resumed);
    } catch (error) {
      run.free();
      throw error;
    }
    return run;
  }

  /**
   * How long a run, or what is left of it, would take: allocates it, runs a little of it and frees it. The policy's
   * weights stay as they are.
   */
  protected static async timed(
    device: Device,
    resumed: Resumption | undefined,
    make: () => TrainingRun<RunOptions>,
    explained: (error: unknown) => Promise<unknown>,
  ): Promise<RunTimes> {
    const run = await TrainingRun.#allocated(device, make, explained);
    try {
      const [plan, step, evaluation] = [run.#plan, run.step, run.#evaluation];
      if (resumed) run.#record.adopt(resumed.state);
      const { done, ended } = run.#record;
      return await timeRun({ plan, step, evaluation, cached: run.#cached, done, last: ended ? done : run.totalSteps });
    } finally {
      run.free();
    }
  }

  /** Makes a run and sees that the device holds it. */
  static async #allocated<Run extends TrainingRun<RunOptions>>(
    device: Device,
    make: () => Run,
    explained: (error: unknown) => Promise<unknown>,
  ): Promise<Run> {
    let run: Run;
    try {
      run = device.allocating(make);
    } catch (error) {
      throw await explained(error);
    }
    try {
      checkHostMemory(device);
      await device.idle(); // an adapter out of memory says so only now
    } catch (error) {
      run.free();
      throw await explained(error);
    }
    return run;
  }

  get totalSteps(): number {
    return this.#plan.totalSteps;
  }

  get stepsPerEpoch(): number {
    return this.#plan.stepsPerEpoch;
  }

  /** Examples, 0 or 1, that an epoch leaves out because they would be a microbatch of one row; another one each epoch. */
  get rowsLeftOut(): number {
    return this.#plan.rowsLeftOut;
  }

  /** Updates done. */
  get stepsDone(): number {
    return this.#record.done;
  }

  #pack(step: number): KtoBatch[] {
    const batches = this.#plan.batches(step);
    return this.#cached?.updates.attach(step, batches) ?? batches;
  }

  /**
   * Runs the updates that are left; may be left and entered again.
   *
   * @throws NumericError; DeviceLostError that says what was saved; FileError where a run that was stopped cannot be
   * saved; what a callback throws
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrainingStep> {
    if (this.#freed) throw new ConfigError("The trainer was freed; create another one.");
    if (this.#iterating) throw new ConfigError("The trainer is iterated already; leave that loop first.");
    this.#iterating = true;
    try {
      yield* this.#steps();
    } catch (error) {
      throw error instanceof DeviceLostError ? this.#record.afterLoss(error) : error;
    } finally {
      this.#iterating = false;
      this.#stopping = new AbortController();
    }
  }

  async *#steps(): AsyncGenerator<TrainingStep> {
    const { device } = this.policy;
    this.#interrupted = false;
    // That of eval_on_start, or the one that a stop broke off.
    if (this.#evaluation?.due(this.#record.done)) {
      const { done } = this.#record;
      const step = await this.#evaluated(undefined, done === 0 ? 0 : learningRateAt(done - 1, this.#schedule));
      if (step.evaluation) {
        if (done > 0) await this.#record.saveIfDue();
        if (this.#record.ended) await this.#loadBest();
        yield step;
      }
    }
    let batches = this.#pack(this.#record.done);
    while (!this.#record.ended) {
      this.#interrupted = this.#stopping.signal.aborted;
      if (this.#interrupted) {
        await this.#record.saveStopped();
        return;
      }
      this.#window.resume();
      const learningRate = learningRateAt(this.#record.done, this.#schedule);
      await this.step.run(batches, learningRate, this.#record.done, this.#logs(this.#record.done + 1));
      this.#record.done++;
      this.#window.add(batches, this.step.rowsRun(batches));
      batches = this.#pack(this.#record.done); // while the device works
      let metrics: Metrics | undefined;
      if (this.#logs(this.#record.done)) metrics = await this.#endWindow(learningRate);
      else {
        await device.idle();
        this.#window.pause();
      }
      const step = await this.#evaluated(metrics, learningRate);
      await this.#callbacks.onStep?.(step);
      await this.#record.saveIfDue();
      if (this.#record.ended) await this.#loadBest();
      yield step;
    }
    await this.#loadBest(); // resumed at its end
  }

  /**
   * Ends the iteration after the update in progress, with a checkpoint in `outputFolder` whatever `save_strategy` says.
   * An evaluation is broken off and leaves nothing behind. A later iteration, or a run that is resumed, goes on, with that
   * evaluation first.
   */
  stop(): void {
    this.#stopping.abort();
  }

  /** No update is left, nor the evaluation of the last one, or the evaluations ended the run. */
  get finished(): boolean {
    return this.#record.ended;
  }

  /** Whether `stop` ended the last iteration, with something left to do. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** The lines of the metrics so far, those of a resumed run before it included: what metrics.jsonl holds. */
  get log(): readonly LogLine[] {
    return this.#record.log;
  }

  /** The last good checkpoint: saved by this run, or the one that it goes on from. */
  get lastCheckpoint(): { readonly path: string; readonly step: number } | undefined {
    return this.#record.last;
  }

  /** The disk space of its checkpoints, if nothing stops the run: bytes of one, and how many there are at once, at most. */
  get checkpointSpace(): { readonly bytes: number; readonly most: number } | undefined {
    return this.#record.checkpointSpace;
  }

  /** Writes trainer_state.json, as it is after the last update, into a folder. */
  async saveState(folder: string): Promise<void> {
    await this.#record.saveState(folder);
  }

  /**
   * Evaluates after the last update, if that is due.
   *
   * @param logged the metrics of the window that ended with it
   */
  async #evaluated(logged: Metrics | undefined, learningRate: number): Promise<TrainingStep> {
    const { done } = this.#record;
    const evaluation = await this.#evaluate();
    let metrics = logged;
    if (evaluation?.stop !== undefined && !this.#logs(done)) {
      this.#window.resume(); // the evaluation's time is not the window's
      metrics = await this.#endWindow(learningRate);
    }
    return {
      ...{ step: done, totalSteps: this.totalSteps, epoch: done / this.stepsPerEpoch, learningRate },
      ...(metrics ? { metrics } : {}),
      ...(evaluation ? { evaluation } : {}),
    };
  }

  /** undefined where none is due after the last update, and where a stop breaks it off. */
  async #evaluate(): Promise<Evaluation | undefined> {
    if (!this.#evaluation?.due(this.#record.done)) return undefined;
    const { signal } = this.#stopping;
    let evaluation: Evaluation;
    try {
      evaluation = await this.#evaluation.run(this.#record.done, this.#record.lastMetrics, signal);
    } catch (error) {
      if (error === signal.reason) return undefined;
      throw error;
    }
    if (this.#record.done < this.totalSteps) this.#record.stopReason = evaluation.stop;
    this.#record.log.push({
      step: this.#record.done,
      epoch: this.#record.done / this.stepsPerEpoch,
      ...evaluation.metrics,
    });
    await this.#callbacks.onEvaluate?.({ step: this.#record.done, ...evaluation });
    return evaluation;
  }

  /** Once in a run. */
  async #loadBest(): Promise<void> {
    if (this.#bestSought) return;
    this.#bestSought = true;
    try {
      this.#bestStep = await this.#evaluation?.loadBest();
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      warn(
        this.#callbacks,
        `The best model cannot be put back: ${errorMessage(error)} The model is that of the last update.`,
      );
    }
  }

  /** Why the run ended before its last step, if it did. */
  get stopReason(): string | undefined {
    return this.#record.stopReason;
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

  async #endWindow(learningRate: number): Promise<Metrics> {
    const metrics = await this.#window.end({
      step: this.#record.done,
      totalSteps: this.totalSteps,
      epoch: this.#record.done / this.stepsPerEpoch,
      learningRate,
      rows: () => rowNames(this.#plan.examplesOf(this.#record.done - 1).at(-1) ?? [], this.#plan.examples),
    });
    this.#record.lastMetrics = metrics;
    this.#record.log.push({ step: this.#record.done, ...metrics });
    if (metrics.saturated === 1 && !this.#saturated) {
      this.#saturated = true;
      warn(
        this.#callbacks,
        `since step ${this.#record.done} no row moves the model any more (saturated is 1): either it knows all rows by heart, or learning_rate is too high and the model may be ruined; look at what it says before you use it.`,
      );
    }
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
    const [batch] = this.#pack(Math.max(0, this.#record.done - 1));
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
  }
}
