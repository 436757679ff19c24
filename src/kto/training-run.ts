/**
 * A training run, whatever it trains for: one update after another, logged, evaluated, saved, resumed. Owns the schedule
 * (which rows, which learning rate) and the run's record; what is trained and for what is the trainers' (`trainer.ts`),
 * the work of an update `step.ts`'s. Iterate it with `for await`.
 */
import type { Model, SaveOptions } from "../engine/model/load.ts";
import { saveAdapter } from "../engine/peft.ts";
import { platform } from "../engine/platform/index.ts";
import { learningRateAt, type ScheduleOptions } from "../engine/schedule.ts";
import { ConfigError, DeviceLostError, errorMessage, FileError, NumericError } from "../errors.ts";
import type { KtoBatch } from "./batch.ts";
import type { TrainerCallbacks, TrainingStep } from "./callbacks.ts";
import { checkpointDue } from "./checkpoint-options.ts";
import { Checkpoints } from "./checkpoints.ts";
import type { TrainerOptions } from "./config.ts";
import { LoggingWindow } from "./logging-window.ts";
import type { Metrics } from "./metrics.ts";
import type { Evaluation, RunEvaluation } from "./run-evaluation.ts";
import { type CachedReference, rowNames } from "./run-inputs.ts";
import type { RunPlan } from "./run-plan.ts";
import {
  digestOf,
  type LogLine,
  type RunState,
  TRAINER_STATE_FILE,
  type TrainerStateFacts,
  trainerStateText,
} from "./run-state.ts";
import type { KtoStep } from "./step.ts";

/** What a run is made of, once its device memory is there. */
export interface RunParts {
  readonly policy: Model;
  readonly options: TrainerOptions;
  readonly plan: RunPlan;
  readonly step: KtoStep;
  readonly evaluation: RunEvaluation | undefined;
  /** The reference's log-probabilities, where they were computed before. */
  readonly cached: CachedReference | undefined;
  readonly callbacks: TrainerCallbacks;
  readonly outputFolder: string | undefined;
  readonly baseModel: string | undefined;
  readonly settings: Readonly<Record<string, unknown>> | undefined;
}

/** Iterating it runs one update after another and throws NumericError where gradients are not finite update after update. */
export class TrainingRun implements AsyncIterable<TrainingStep> {
  readonly policy: Model;
  readonly options: TrainerOptions;
  readonly step: KtoStep;
  readonly #evaluation: RunEvaluation | undefined;
  #stopReason: string | undefined;
  #bestStep: number | undefined;
  /** Of the last logging window. */
  #lastMetrics: Metrics | undefined;
  readonly #plan: RunPlan;
  readonly #cached: CachedReference | undefined;
  readonly #schedule: ScheduleOptions;
  #done = 0;
  readonly #window: LoggingWindow;
  readonly #callbacks: TrainerCallbacks;
  readonly #checkpoints: Checkpoints | undefined;
  readonly #settings: Readonly<Record<string, unknown>>;
  #data: string | undefined;
  #log: LogLine[] = [];
  #stopRequested = false;
  #interrupted = false;
  #iterating = false;
  #freed = false;

  protected constructor(parts: RunParts) {
    const { policy, options, plan, step, outputFolder, baseModel } = parts;
    this.policy = policy;
    this.options = options;
    this.step = step;
    this.#plan = plan;
    this.#cached = parts.cached;
    this.#evaluation = parts.evaluation;
    this.#callbacks = parts.callbacks;
    this.#settings = parts.settings ?? {};
    this.#schedule = {
      type: options.lr_scheduler_type,
      learningRate: options.learning_rate,
      totalSteps: this.totalSteps,
      warmupSteps: options.warmup_steps || Math.ceil(options.warmup_ratio * this.totalSteps),
    };
    this.#window = new LoggingWindow(step);
    this.#checkpoints =
      outputFolder === undefined
        ? undefined
        : new Checkpoints({
            policy,
            step,
            options,
            folder: outputFolder,
            baseModel,
            warn: (sentence) => this.#warn(sentence),
          });
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
    return this.#done;
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
      throw error instanceof DeviceLostError ? this.#afterLoss(error) : error;
    } finally {
      this.#iterating = false;
      this.#stopRequested = false;
    }
  }

  async *#steps(): AsyncGenerator<TrainingStep> {
    const { device } = this.policy;
    if (this.#done === 0 && this.#evaluation?.due(0)) {
      const evaluation = await this.#evaluate();
      const start = { step: 0, totalSteps: this.totalSteps, epoch: 0, learningRate: 0 };
      yield { ...start, ...(evaluation ? { evaluation } : {}) };
    }
    let batches = this.#pack(this.#done);
    while (!this.#ended) {
      this.#interrupted = this.#stopRequested;
      if (this.#interrupted) {
        await this.#saveStopped();
        return;
      }
      this.#window.resume();
      const learningRate = learningRateAt(this.#done, this.#schedule);
      await this.step.run(batches, learningRate, this.#done, this.#logs(this.#done + 1));
      this.#done++;
      this.#window.add(batches, this.step.rowsRun(batches));
      batches = this.#pack(this.#done); // while the device works
      const epoch = this.#done / this.stepsPerEpoch;
      let metrics: Metrics | undefined;
      if (this.#logs(this.#done)) metrics = await this.#endWindow(learningRate, epoch);
      else {
        await device.idle();
        this.#window.pause();
      }
      const evaluation = await this.#evaluate();
      if (evaluation?.stop !== undefined && metrics === undefined) {
        this.#window.resume(); // the evaluation's time is not the window's
        metrics = await this.#endWindow(learningRate, epoch);
      }
      const step: TrainingStep = {
        ...{ step: this.#done, totalSteps: this.totalSteps, epoch, learningRate },
        ...(metrics ? { metrics } : {}),
        ...(evaluation ? { evaluation } : {}),
      };
      await this.#callbacks.onStep?.(step);
      await this.#saveIfDue();
      if (this.#ended) await this.#loadBest();
      yield step;
    }
    if (this.#bestStep === undefined) await this.#loadBest(); // resumed at its end
  }

  /** No update is left, or the evaluations ended the run. */
  get #ended(): boolean {
    return this.#done >= this.totalSteps || this.#stopReason !== undefined;
  }

  /**
   * Ends the iteration after the update in progress, with a checkpoint in `outputFolder` whatever `save_strategy` says.
   * A later iteration goes on.
   */
  stop(): void {
    this.#stopRequested = true;
  }

  /** Whether `stop` ended the last iteration, with updates left to do. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** The lines of the metrics so far, those of a resumed run before it included: what metrics.jsonl holds. */
  get log(): readonly LogLine[] {
    return this.#log;
  }

  /** The last good checkpoint: saved by this run, or the one that it goes on from. */
  get lastCheckpoint(): { readonly path: string; readonly step: number } | undefined {
    return this.#checkpoints?.last;
  }

  #warn(sentence: string): void {
    if (this.#callbacks.onWarning) this.#callbacks.onWarning(sentence);
    else console.warn(sentence);
  }

  /** Where the run is. */
  #state(): RunState {
    this.#data ??= digestOf(this.#plan.examples);
    return {
      version: 1,
      step: this.#done,
      totalSteps: this.totalSteps,
      stepsPerEpoch: this.stepsPerEpoch,
      stopReason: this.#stopReason,
      counts: this.#window.counts,
      lastMetrics: this.#lastMetrics,
      evaluation: this.#evaluation?.state as RunState["evaluation"],
      data: this.#data,
      options: this.options,
      settings: this.#settings,
      log: this.#log,
    };
  }

  async #facts(): Promise<TrainerStateFacts> {
    const best = this.#evaluation?.selection.state.best;
    const saved = best && (best.step === this.#done || (await this.#checkpoints?.has(best.step)));
    return {
      epoch: this.#done / this.stepsPerEpoch,
      best,
      bestCheckpoint: saved ? this.#checkpoints?.path(best.step) : undefined,
      trainBatchSize: this.options.per_device_train_batch_size,
      numTrainEpochs: Math.ceil(this.options.num_train_epochs),
      loggingSteps: this.options.logging_steps,
      saveSteps: this.options.save_steps,
    };
  }

  /** Writes trainer_state.json, as it is after the last update, into a folder. */
  async saveState(folder: string): Promise<void> {
    const text = trainerStateText(this.#state(), await this.#facts());
    await platform.writeFileAtomic(platform.joinPath(folder, TRAINER_STATE_FILE), text);
  }

  /** A disk that is full for a while is no reason to lose the run: it goes on with the checkpoints that there are. */
  async #saveIfDue(): Promise<void> {
    const run = { step: this.#done, stepsPerEpoch: this.stepsPerEpoch, ends: this.#ended };
    const checkpoints = this.#checkpoints;
    if (checkpoints === undefined || !checkpointDue(this.options, run)) return;
    try {
      await checkpoints.save(this.#state(), await this.#facts());
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      const { last } = checkpoints;
      this.#warn(
        `The checkpoint of step ${this.#done} was not saved: ${errorMessage(error)} The training goes on${last ? `; the last good checkpoint is ${last.path}` : ""}.`,
      );
      return;
    }
    await this.#tellOfCheckpoint(checkpoints);
  }

  async #saveStopped(): Promise<void> {
    const checkpoints = this.#checkpoints;
    if (checkpoints === undefined || this.#done === 0 || checkpoints.last?.step === this.#done) return;
    await checkpoints.save(this.#state(), await this.#facts());
    await this.#tellOfCheckpoint(checkpoints);
  }

  /** Apart from the saving, since what a callback throws is its own. */
  async #tellOfCheckpoint({ last }: Checkpoints): Promise<void> {
    if (last) await this.#callbacks.onCheckpoint?.({ folder: last.path, step: last.step });
  }

  /** Goes on from the checkpoint that `resume_from_checkpoint` names, if it names one. */
  protected async resume(): Promise<void> {
    const { resume_from_checkpoint: from } = this.options;
    if (from === false || this.policy.device.counts) return;
    if (this.#checkpoints === undefined) {
      throw new ConfigError(
        'option "resume_from_checkpoint" is set, but there is no folder of the run that is resumed: give outputFolder.',
      );
    }
    const state = await this.#checkpoints.restore(from, this.#state());
    this.#done = state.step;
    this.#log = [...state.log];
    this.#stopReason = state.stopReason;
    this.#window.restore(state.counts);
    this.#lastMetrics = state.lastMetrics && numbers(state.lastMetrics);
    if (state.evaluation) {
      const { selection, lastStep } = state.evaluation;
      this.#evaluation?.restore({ selection: { ...selection, best: selection.best }, lastStep });
    }
  }

  /** The error of a lost device, with what is left of the run. */
  #afterLoss(error: DeviceLostError): DeviceLostError {
    const last = this.#checkpoints?.last;
    const left = last
      ? `${last.path} holds the run up to step ${last.step}: go on from there with resume_from_checkpoint`
      : "no checkpoint was saved, so the run is to be started anew";
    return new DeviceLostError(`${error.message.replace(/\.?$/, ".")} It was after step ${this.#done}; ${left}.`, {
      cause: error,
    });
  }

  /** The evaluation that is due after the last update, if one is. */
  async #evaluate(): Promise<Evaluation | undefined> {
    if (!this.#evaluation?.due(this.#done)) return undefined;
    const evaluation = await this.#evaluation.run(this.#done, this.#lastMetrics);
    if (this.#done < this.totalSteps) this.#stopReason = evaluation.stop;
    this.#log.push({ step: this.#done, epoch: this.#done / this.stepsPerEpoch, ...evaluation.metrics });
    await this.#callbacks.onEvaluate?.({ step: this.#done, ...evaluation });
    return evaluation;
  }

  async #loadBest(): Promise<void> {
    this.#bestStep = await this.#evaluation?.loadBest();
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

  async #endWindow(learningRate: number, epoch: number): Promise<Metrics> {
    const metrics = await this.#window.end({
      step: this.#done,
      totalSteps: this.totalSteps,
      epoch,
      learningRate,
      rows: () => rowNames(this.#plan.examplesOf(this.#done - 1).at(-1) ?? [], this.#plan.examples),
    });
    this.#lastMetrics = metrics;
    this.#log.push({ step: this.#done, ...metrics });
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
  }
}

/** What JSON holds as null is not a number. */
function numbers(values: Readonly<Record<string, number | null>>): Metrics {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? Number.NaN]));
}
