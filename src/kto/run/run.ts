/**
 * A training run: one update after another, logged, evaluated, saved. It knows the schedule; which rows come when is
 * `RunPlan`'s, the work of an update `Update`'s, what is kept of it `RunRecord`'s. `createRun` makes one; iterate it
 * with `for await`.
 */

import type { Model, SaveOptions } from "../../engine/model/model.ts";
import { saveAdapter } from "../../engine/model/peft.ts";
import { OneAtATime } from "../../engine/one-at-a-time.ts";
import { ALONE } from "../../engine/ranks/communicator.ts";
import { learningRateAt, type Schedule } from "../../engine/schedule.ts";
import { ConfigError, DeviceLostError, errorMessage, FileError, NumericError } from "../../errors.ts";
import type { Evaluation } from "../evaluation/run-evaluation.ts";
import type { Batch } from "../method/batch.ts";
import type { Metrics } from "../method/metrics.ts";
import type { Update } from "../method/update.ts";
import type { RunOptions } from "../options/run.ts";
import { scheduleOf } from "../options/schedule.ts";
import { stepsBetween } from "../options/steps.ts";
import { precisionOf } from "../options/training.ts";
import { type TrainingStep, warn } from "./callbacks.ts";
import type { SavedState } from "./checkpoints.ts";
import { type ExampleLine, exampleLine, logsExamples } from "./example-line.ts";
import { type Method, ranksOf, rowNames } from "./inputs.ts";
import { RankReports } from "./rank-reports.ts";
import type { RecordedRun, RunRecord } from "./record.ts";
import type { CachedReference } from "./reference.ts";
import type { LogLine } from "./state.ts";

/** What a run consists of, with all its memory. */
export interface RunParts<Options extends RunOptions = RunOptions> extends RecordedRun {
  readonly method: Method<Options>;
  readonly record: RunRecord;
  readonly cached: CachedReference | undefined;
  /** Gives the device memory back. */
  readonly free: () => void;
}

/**
 * Iterating it runs one update after another and throws NumericError where gradients are not finite update after
 * update.
 */
export class Run<Options extends RunOptions = RunOptions> implements AsyncIterable<TrainingStep> {
  readonly policy: Model;
  readonly options: Options;
  /** The update on the device, for whoever looks at its numbers. */
  readonly update: Update;
  readonly #parts: RunParts<Options>;
  readonly #schedule: Schedule;
  /** Gives the output folder back. */
  readonly #release: (() => void) | undefined;
  #bestStep: number | undefined;
  #soughtBest = false;
  #warnedOfSaturation = false;
  /** Whoever saves or evaluates while the loop runs waits for the update in progress, and the next update for them. */
  readonly #weights = new OneAtATime();
  #stopping = new AbortController();
  readonly #reports: RankReports;
  /** Whether one of several ranks was asked to stop before the end of the last update. */
  #stopsTogether = false;
  #interrupted = false;
  #iterating = false;
  #freed = false;

  /** See `createRun`. */
  constructor(parts: RunParts<Options>, release: (() => void) | undefined) {
    const { options } = parts.method;
    this.#parts = parts;
    this.#release = release;
    this.policy = parts.inputs.policy;
    this.options = options;
    this.update = parts.update;
    this.#schedule = scheduleOf(options, this.totalSteps);
    this.#reports = new RankReports(ranksOf(parts.inputs), parts.plan.isLocal, parts.inputs.policy.device.tuner);
  }

  get totalSteps(): number {
    return this.#parts.plan.totalSteps;
  }

  get stepsPerEpoch(): number {
    return this.#parts.plan.stepsPerEpoch;
  }

  /**
   * Examples, 0 or 1, that an epoch leaves out because they would have no mismatched pair; another one each epoch.
   */
  get rowsLeftOut(): number {
    return this.#parts.plan.rowsLeftOut;
  }

  /** Updates done. */
  get stepsDone(): number {
    return this.#parts.record.done;
  }

  /** Whether no update is left, nor the evaluation of the last one, or an evaluation ended the run. */
  get finished(): boolean {
    return this.#parts.record.ended;
  }

  /** Whether `stop` ended the last iteration, with something left to do. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Why the run ended before its last step, if it did. */
  get stopReason(): string | undefined {
    return this.#parts.record.stopReason;
  }

  /** The step whose weights the policy has, once the run has ended with `load_best_model_at_end`. */
  get bestStep(): number | undefined {
    return this.#bestStep;
  }

  /** The lines of the metrics so far, those before a resumed run included: what metrics.jsonl holds. */
  get log(): readonly LogLine[] {
    return this.#parts.record.log;
  }

  /** The last good checkpoint: saved by this run, or the one that it goes on from. */
  get lastCheckpoint(): SavedState | undefined {
    return this.#parts.record.last;
  }

  /**
   * The disk space of the checkpoints, if nothing stops the run: bytes of one, and how many there are at once, at most.
   */
  get checkpointSpace(): { readonly bytes: number; readonly most: number } | undefined {
    return this.#parts.record.checkpointSpace;
  }

  /** Where the log-probs of a cached reference come from, for people. */
  get referenceNote(): string | undefined {
    const { cached } = this.#parts;
    return cached && [cached.updates, cached.evaluation].flatMap((one) => one?.note ?? []).join("; ");
  }

  /** What bf16 means on this adapter, for people; undefined without it. */
  get precisionNote(): string | undefined {
    const { method, update } = this.#parts;
    if (precisionOf(method.options) !== "bf16") return undefined;
    const { matrices } = update.device.facts;
    if (matrices === undefined)
      return "the adapter has no subgroup matrices for kernels, so products are computed in f32";
    const { component, M, N, K } = matrices;
    return `products of layers and of attention on subgroup matrices of ${component} (${M} x ${N} x ${K}) with sums in f32, where they are faster; weights and activations are f32`;
  }

  /** Whether a later run finds the log-probs of a cached reference on the disk; true without one. */
  get referenceIsKept(): boolean {
    const { cached } = this.#parts;
    return cached === undefined || (cached.updates.isKept && cached.evaluation?.isKept !== false);
  }

  /**
   * Runs the updates that are left; may be left and entered again.
   *
   * @throws NumericError; DeviceLostError that says what was saved; FileError where a run that was stopped cannot be
   * saved; what a callback throws
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrainingStep> {
    this.#requireMemory("create another one");
    if (this.#iterating) throw new ConfigError("The trainer is iterated already; leave that loop first.");
    this.#iterating = true;
    try {
      yield* this.#steps();
    } catch (error) {
      throw error instanceof DeviceLostError ? this.#parts.record.afterLoss(error) : error;
    } finally {
      this.#iterating = false;
      this.#stopping = new AbortController();
      this.#stopsTogether = false;
    }
  }

  get #stops(): boolean {
    return ranksOf(this.#parts.inputs).size > 1 ? this.#stopsTogether : this.#stopping.signal.aborted;
  }

  async *#steps(): AsyncGenerator<TrainingStep> {
    const { inputs, record, window } = this.#parts;
    this.#interrupted = false;
    yield* this.#pendingEvaluation();
    let batches = this.#batches(record.done);
    while (!record.ended) {
      this.#requireMemory("create another one"); // whoever iterates may have freed the run
      if (this.#stops) {
        this.#interrupted = true;
        await record.saveStopped();
        return;
      }
      const learningRate = learningRateAt(record.done, this.#schedule);
      const { metrics, examples } = await this.#weights.run(async () => {
        window.resume();
        const logged = this.#logs(record.done + 1);
        const ran = batches;
        const wanted = { tokens: logged, examples: logged && this.#logsExamples(record.done + 1) };
        this.#reports.begin();
        await this.update.run(ran, learningRate, record.done, wanted);
        record.done++;
        await this.#parts.sync?.after(record.done);
        const outer = await this.#parts.local?.after(record.done, record.done === this.totalSteps);
        if (outer !== undefined) window.outerStep(outer);
        const report = await this.#reports.end({
          tokens: ran.reduce((sum, { whole }) => sum + whole.tokens, 0),
          rowsRun: this.update.rowsRun(ran),
          cutPairs: ran.reduce((sum, batch) => sum + batch.cutPairs, 0),
          stops: this.#stopping.signal.aborted,
        });
        this.#stopsTogether = report.stops;
        record.tuningOfRanks = this.#reports.tuning;
        window.add(report);
        batches = this.#batches(record.done); // while the device works
        if (logged) {
          return {
            metrics: await this.#endWindow(learningRate),
            examples: wanted.examples ? await this.#exampleLine(ran) : undefined,
          };
        }
        await this.policy.device.idle();
        window.pause();
        return { metrics: undefined, examples: undefined };
      });
      const step = { ...(await this.#evaluated(metrics, learningRate)), ...(examples ? { examples } : {}) };
      await inputs.onStep?.(step);
      await record.saveIfDue();
      if (record.ended) await this.#loadBest();
      yield step;
    }
    await this.#loadBest(); // of a run that was resumed at its end
  }

  /** The evaluation of `eval_on_start`, or the one that a stop broke off. */
  async *#pendingEvaluation(): AsyncGenerator<TrainingStep> {
    const { record, evaluation } = this.#parts;
    const { done } = record;
    if (!evaluation?.due(done)) return;
    const step = await this.#evaluated(undefined, done === 0 ? 0 : learningRateAt(done - 1, this.#schedule));
    if (step.evaluation === undefined) return;
    if (done > 0) await record.saveIfDue();
    if (record.ended) await this.#loadBest();
    yield step;
  }

  /** The microbatches of an update, counted from 0, with the log-probs of a cached reference. */
  #batches(step: number): Batch[] {
    const batches = this.#parts.plan.batches(step);
    return this.#parts.cached?.updates.attach(step, batches) ?? batches;
  }

  get #loggingSteps(): number {
    return stepsBetween(this.options.logging_steps, this.totalSteps);
  }

  #logs(step: number): boolean {
    const isFirst = step === 1 && this.options.logging_first_step;
    return isFirst || step % this.#loggingSteps === 0 || step === this.totalSteps;
  }

  #logsExamples(step: number): boolean {
    return this.options.log_examples && logsExamples(step, this.totalSteps, this.#loggingSteps);
  }

  /** What the last update, of these microbatches, did with each example. */
  async #exampleLine(batches: readonly Batch[]): Promise<ExampleLine | undefined> {
    const { plan, record } = this.#parts;
    const { objective } = this.#parts.method;
    // Ranks that update by themselves log their own rows; those of rank 0 are kept.
    if (batches.length === 0) return undefined;
    const ranks = plan.isLocal ? ALONE : ranksOf(this.#parts.inputs);
    const log = await this.update.objective.exampleLog(batches, ranks);
    if (log === undefined || objective === "sft") return undefined;
    const places = plan.rows(record.done - 1).flat();
    return exampleLine(record.done, log, objective, (place) => {
      const at = places[place] ?? -1;
      const example = plan.examples[at];
      return example !== undefined && "index" in example && typeof example.index === "number" ? example.index : at;
    });
  }

  async #endWindow(learningRate: number): Promise<Metrics> {
    const { record, window, plan, inputs } = this.#parts;
    const metrics = await window.end({
      step: record.done,
      totalSteps: this.totalSteps,
      epoch: record.done / this.stepsPerEpoch,
      learningRate,
      rows: () => rowNames(plan.examplesOf(record.done - 1).at(-1) ?? [], plan.examples),
    });
    record.lastMetrics = metrics;
    record.log.push({ step: record.done, ...metrics });
    if (metrics.saturated === 1 && !this.#warnedOfSaturation) {
      this.#warnedOfSaturation = true;
      warn(
        inputs,
        `since step ${record.done} no row moves the model any more (saturated is 1): either it knows all rows by heart, or learning_rate is too high and the model may be ruined; look at what it says before you use it.`,
      );
    }
    return metrics;
  }

  /**
   * What the last update leaves behind, with its evaluation if one is due.
   *
   * @param logged the metrics of the window that ended with it
   */
  async #evaluated(logged: Metrics | undefined, learningRate: number): Promise<TrainingStep> {
    const { done: step } = this.#parts.record;
    const evaluation = await this.#evaluate();
    let metrics = logged;
    if (evaluation?.stop !== undefined && !this.#logs(step)) {
      this.#parts.window.resume(); // the evaluation's time is not the window's
      metrics = await this.#endWindow(learningRate);
    }
    return {
      ...{ step, totalSteps: this.totalSteps, epoch: step / this.stepsPerEpoch, learningRate },
      ...(metrics ? { metrics } : {}),
      ...(evaluation ? { evaluation } : {}),
    };
  }

  /** undefined where none is due after the last update, and where a stop breaks it off. */
  async #evaluate(): Promise<Evaluation | undefined> {
    const { record, evaluation: evaluations, inputs } = this.#parts;
    const { done: step } = record;
    if (!evaluations?.due(step)) return undefined;
    const { signal } = this.#stopping;
    let evaluation: Evaluation;
    try {
      evaluation = await evaluations.run(step, record.lastMetrics, signal);
    } catch (error) {
      if (error === signal.reason) return undefined;
      throw error;
    }
    if (step < this.totalSteps) record.stopReason = evaluation.stop;
    record.log.push({ step, epoch: step / this.stepsPerEpoch, ...evaluation.metrics });
    await inputs.onEvaluate?.({ step, ...evaluation });
    return evaluation;
  }

  /** Puts the best weights back, once in a run. */
  async #loadBest(): Promise<void> {
    if (this.#soughtBest) return;
    this.#soughtBest = true;
    try {
      this.#bestStep = await this.#weights.run(async () => await this.#parts.evaluation?.loadBest());
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      warn(
        this.#parts.inputs,
        `The best model cannot be put back: ${errorMessage(error)} The model is that of the last update.`,
      );
    }
  }

  /**
   * Ends the iteration after the update in progress, with a checkpoint in `outputFolder` whatever `save_strategy` says.
   * An evaluation is broken off and leaves nothing behind. A later iteration, or a run that is resumed, goes on, with
   * that evaluation first.
   */
  stop(): void {
    this.#stopping.abort();
  }

  /**
   * The metrics of the rows to evaluate on, as the model is now. Changes nothing.
   *
   * @throws ConfigError for a run that does not evaluate, or was freed
   */
  async evaluate(): Promise<Metrics> {
    return await this.#weights.run(async () => {
      this.#requireMemory("evaluate before that");
      const { evaluation } = this.#parts;
      if (evaluation) return await evaluation.metrics();
      throw new ConfigError("This run does not evaluate: create the trainer with evalExamples.");
    });
  }

  /**
   * Writes the policy as a Hugging Face folder (`Model.save`), or its adapter as PEFT does (`saveAdapter`).
   *
   * @throws NumericError, before anything is written, when the policy no longer gives finite log-probs; FileError for
   * what cannot be written, which names the checkpoint that holds the training, if one does
   */
  async save(folder: string, options: SaveOptions & { readonly baseModel?: string } = {}): Promise<void> {
    await this.#weights.run(() => this.#save(folder, options));
  }

  async #save(folder: string, options: SaveOptions & { readonly baseModel?: string }): Promise<void> {
    this.#requireMemory("save before that");
    // The last update's gradients were finite before it, which says nothing of the weights after it.
    const [batch] = this.#batches(Math.max(0, this.stepsDone - 1));
    if (batch && !(await this.update.policyLogProbs(batch)).every(Number.isFinite)) {
      throw new NumericError(
        "The model is not saved: its log-probabilities are not finite numbers any more, so the training diverged; lower learning_rate.",
      );
    }
    try {
      if (this.policy.adapter) await saveAdapter(this.policy, folder, options.baseModel);
      else await this.policy.save(folder, options);
    } catch (error) {
      throw error instanceof FileError ? this.#parts.record.unsaved(error) : error;
    }
  }

  /** Writes trainer_state.json, as it is after the last update, into a folder. */
  async saveState(folder: string): Promise<void> {
    await this.#parts.record.saveState(folder);
  }

  #requireMemory(remedy: string): void {
    if (this.#freed) throw new ConfigError(`The trainer was freed; ${remedy}.`);
  }

  /** Gives back all device memory of the run, and the output folder; the policy stays loaded. */
  free(): void {
    this.#freed = true;
    this.#parts.free();
    this.#release?.();
  }
}
