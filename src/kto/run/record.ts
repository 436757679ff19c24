/**
 * The record of a training run: how far it is, what it logged, and the checkpoints that keep it, saved when they are due
 * and gone on from. What is in a checkpoint's files is `checkpoints.ts`' and `run-state.ts`' business.
 */
import type { Model } from "../../engine/model/model.ts";
import { platform } from "../../engine/platform/index.ts";
import { DeviceLostError, errorMessage, FileError } from "../../errors.ts";
import type { RunEvaluation } from "../evaluation/run-evaluation.ts";
import { criterionOf } from "../evaluation/selection.ts";
import type { Metrics } from "../method/metrics.ts";
import type { RunPlan } from "../method/run-plan.ts";
import type { KtoStep } from "../method/update.ts";
import { checkpointDue, mostCheckpoints } from "../options/checkpoint.ts";
import type { RunOptions } from "../options/run.ts";
import { type TrainerCallbacks, warn } from "./callbacks.ts";
import { Checkpoints } from "./checkpoints.ts";
import { evaluatedRows, type RunInputs } from "./inputs.ts";
import type { LoggingWindow } from "./logging-window.ts";
import type { Resumption } from "./resumption.ts";
import {
  digestOf,
  type LogLine,
  type RunState,
  TRAINER_STATE_FILE,
  type TrainerStateFacts,
  trainerStateText,
} from "./state.ts";

export interface RecordedRun {
  readonly inputs: RunInputs;
  readonly method: RunState["method"];
  readonly options: RunOptions;
  readonly plan: RunPlan;
  readonly step: KtoStep;
  readonly window: LoggingWindow;
  readonly evaluation: RunEvaluation | undefined;
}

export class RunRecord {
  /** Updates done. */
  done = 0;
  /** The lines of the metrics so far, those of a resumed run before it included. */
  log: LogLine[] = [];
  /** Why the run ended before its last step, if it did. */
  stopReason: string | undefined;
  /** Of the last logging window. */
  lastMetrics: Metrics | undefined;
  readonly #run: RecordedRun;
  readonly #policy: Model;
  readonly #callbacks: TrainerCallbacks;
  readonly #checkpoints: Checkpoints | undefined;
  /** Those of this run, and what it leaves open, as the run before it had that. */
  #settings: RunState["settings"];
  #digests: Pick<RunState, "data" | "evaluationData"> | undefined;

  constructor(run: RecordedRun) {
    const { policy, outputFolder, baseModel } = run.inputs;
    this.#run = run;
    this.#policy = policy;
    this.#callbacks = run.inputs;
    this.#settings = run.inputs.settings ?? {};
    this.#checkpoints =
      outputFolder === undefined
        ? undefined
        : new Checkpoints({
            policy,
            step: run.step,
            options: run.options,
            folder: outputFolder,
            baseModel,
            warn: (sentence) => warn(this.#callbacks, sentence),
          });
  }

  /** No update is left, nor the evaluation of the last one, or the evaluations ended the run. */
  get ended(): boolean {
    if (this.#run.evaluation?.due(this.done)) return false;
    return this.done >= this.#run.plan.totalSteps || this.stopReason !== undefined;
  }

  /** The last good checkpoint: saved by this run, or the one that it goes on from. */
  get last(): { readonly path: string; readonly step: number } | undefined {
    return this.#checkpoints?.last;
  }

  /** The disk space of its checkpoints, if nothing stops the run: bytes of one, and how many there are at once, at most. */
  get checkpointSpace(): { readonly bytes: number; readonly most: number } | undefined {
    const { options, plan, evaluation } = this.#run;
    const { totalSteps, stepsPerEpoch } = plan;
    const most = mostCheckpoints(options, { totalSteps, stepsPerEpoch, evaluates: evaluation !== undefined });
    return this.#checkpoints && most > 0 ? { bytes: this.#checkpoints.bytes, most } : undefined;
  }

  /** Where the run is. */
  #state(): RunState {
    const rows = evaluatedRows(this.#run.inputs.evalExamples, this.#run.options);
    this.#digests ??= {
      data: digestOf(this.#run.plan.examples),
      evaluationData: rows && digestOf(rows),
    };
    return {
      version: 1,
      method: this.#run.method,
      step: this.done,
      totalSteps: this.#run.plan.totalSteps,
      stepsPerEpoch: this.#run.plan.stepsPerEpoch,
      stopReason: this.stopReason,
      counts: this.#run.window.counts,
      lastMetrics: this.lastMetrics,
      evaluation: this.#run.evaluation?.state as RunState["evaluation"],
      tuning: this.#policy.device.tuner.choices,
      ...this.#digests,
      options: { ...this.#run.options },
      settings: this.#settings,
      log: this.log,
    };
  }

  async #facts(): Promise<TrainerStateFacts> {
    const best = this.#run.evaluation?.selection.state.best;
    const saved = best && (best.step === this.done || (await this.#checkpoints?.has(best.step)));
    return {
      epoch: this.done / this.#run.plan.stepsPerEpoch,
      best,
      bestCheckpoint: saved ? this.#checkpoints?.path(best.step) : undefined,
      trainBatchSize: this.#run.options.per_device_train_batch_size,
      numTrainEpochs: Math.ceil(this.#run.options.num_train_epochs),
      loggingSteps: this.#run.options.logging_steps,
      saveSteps: this.#run.options.save_steps,
    };
  }

  /** Writes trainer_state.json, as it is after the last update, into a folder. */
  async saveState(folder: string): Promise<void> {
    const text = trainerStateText(this.#state(), await this.#facts());
    await platform.writeFileAtomic(platform.joinPath(folder, TRAINER_STATE_FILE), text);
  }

  /** A disk that is full for a while is no reason to lose the run: it goes on with the checkpoints that there are. */
  async saveIfDue(): Promise<void> {
    const run = { step: this.done, stepsPerEpoch: this.#run.plan.stepsPerEpoch, ends: this.ended };
    const checkpoints = this.#checkpoints;
    // One of this step lacks the evaluation that a stop broke off.
    const again = checkpoints?.last?.step === this.done;
    if (checkpoints === undefined || !(again || checkpointDue(this.#run.options, run))) return;
    try {
      await checkpoints.save(this.#state(), await this.#facts());
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      const { last } = checkpoints;
      warn(
        this.#callbacks,
        `The checkpoint of step ${this.done} was not saved: ${errorMessage(error)} The training goes on${last ? `; the last good checkpoint is ${last.path}` : ""}.`,
      );
      return;
    }
    await this.#tellOfCheckpoint(checkpoints);
  }

  /** Saves a run that was stopped between checkpoints. */
  async saveStopped(): Promise<void> {
    const checkpoints = this.#checkpoints;
    if (checkpoints === undefined || this.done === 0 || checkpoints.last?.step === this.done) return;
    await checkpoints.save(this.#state(), await this.#facts());
    await this.#tellOfCheckpoint(checkpoints);
  }

  /** Apart from the saving, since what a callback throws is its own. */
  async #tellOfCheckpoint({ last }: Checkpoints): Promise<void> {
    if (last) await this.#callbacks.onCheckpoint?.({ folder: last.path, step: last.step });
  }

  /** Goes on from a checkpoint. */
  async resume({ path, state }: Resumption): Promise<void> {
    await this.#checkpoints?.restore({ path, step: state.step });
    this.adopt(state);
  }

  /** Goes on from a checkpoint but for what lies on the device. */
  adopt(state: RunState): void {
    this.done = state.step;
    this.log = [...state.log];
    const given = Object.entries(this.#settings).filter(([, value]) => value !== undefined);
    this.#settings = { ...state.settings, ...Object.fromEntries(given) };
    this.#run.window.restore(state.counts);
    this.lastMetrics = state.lastMetrics && numbers(state.lastMetrics);
    if (state.evaluation) {
      const { selection, lastStep } = state.evaluation;
      const { metric_for_best_model, greater_is_better } = state.options;
      const asked = criterionOf({ metric: metric_for_best_model, greaterIsBetter: greater_is_better });
      // Checkpoints did not always say which metric they went by.
      const { best, metric = asked.metric, greaterIsBetter = asked.greaterIsBetter } = selection;
      const anew = this.#run.evaluation?.restore({
        selection: { ...selection, best, metric, greaterIsBetter },
        lastStep,
      });
      if (anew !== undefined) warn(this.#callbacks, anew);
      // A run that was stopped early goes on where early_stopping_patience is now larger.
      if (state.stopReason !== undefined) this.stopReason = this.#run.evaluation?.selection.stop;
    }
  }

  /** The error of a lost device, with what is left of the run. */
  afterLoss(error: DeviceLostError): DeviceLostError {
    const last = this.#checkpoints?.last;
    const left = last
      ? `${last.path} holds the run up to step ${last.step}: go on from there with resume_from_checkpoint`
      : "no checkpoint was saved, so the run is to be started anew";
    return new DeviceLostError(`${error.message.replace(/\.?$/, ".")} It was after step ${this.done}; ${left}.`, {
      cause: error,
    });
  }
}

/** What JSON holds as null is not a number. */
function numbers(values: Readonly<Record<string, number | null>>): Metrics {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? Number.NaN]));
}
