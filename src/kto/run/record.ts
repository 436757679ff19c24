/**
 * The record of a training run: how far it is, what it logged, and the checkpoints that keep it. It saves them when
 * they are due and goes on from one; their files are written and read by `checkpoints.ts` and `state.ts`.
 */
import { platform } from "../../engine/platform/index.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import { arenaFromFirst, tensorsFromFirst } from "../../engine/ranks/tensors.ts";
import { DeviceLostError, errorMessage, FileError } from "../../errors.ts";
import type { RunEvaluation } from "../evaluation/run-evaluation.ts";
import { criterionOf } from "../evaluation/selection.ts";
import { type Metrics, numbersOf } from "../method/metrics.ts";
import type { RunPlan } from "../method/run-plan.ts";
import type { Update } from "../method/update.ts";
import { checkpointDue, mostCheckpoints } from "../options/checkpoint.ts";
import { warn } from "./callbacks.ts";
import { Checkpoints, type SavedState, useOf } from "./checkpoints.ts";
import { adapterOf, evaluatedRows, type Method, type RunInputs, ranksOf } from "./inputs.ts";
import type { LocalUpdates } from "./local-updates.ts";
import type { LoggingWindow } from "./logging-window.ts";
import type { StartDigests } from "./reference.ts";
import type { ReferenceSync } from "./reference-sync.ts";
import { rescue } from "./rescue.ts";
import type { Resumption } from "./resumption.ts";
import {
  digestOfExamples,
  kernelDigest,
  type LogLine,
  type RunState,
  TRAINER_STATE_FILE,
  type TrainerStateFacts,
  trainerStateText,
} from "./state.ts";

/** What is recorded of a run. */
export interface RecordedRun {
  readonly inputs: RunInputs;
  readonly method: Method;
  readonly plan: RunPlan;
  readonly update: Update;
  readonly window: LoggingWindow;
  /** undefined for a run that does not evaluate. */
  readonly evaluation: RunEvaluation | undefined;
  readonly digests: StartDigests;
  /** Given where the reference follows the policy. */
  readonly sync: ReferenceSync | undefined;
  /** Given where ranks update by themselves. */
  readonly local: LocalUpdates | undefined;
}

export class RunRecord {
  /** Updates done. */
  done = 0;
  /** The lines of the metrics so far, those of a resumed run before it included. */
  log: LogLine[] = [];
  /** Why the run ended before its last step, if it did. */
  stopReason: string | undefined;
  /** The metrics of the last logging window. */
  lastMetrics: Metrics | undefined;
  /** The kernels that the tuner of each rank chose, if there are several ranks. */
  tuningOfRanks: RunState["tuningOfRanks"];
  readonly #run: RecordedRun;
  readonly #checkpoints: Checkpoints | undefined;
  /** The settings of this run and, where it leaves them open, those of the run that it goes on from. */
  #settings: RunState["settings"];
  #digests: Pick<RunState, "data" | "evaluationData"> | undefined;

  constructor(run: RecordedRun) {
    const { policy, outputFolder, baseModel } = run.inputs;
    this.#run = run;
    this.#settings = run.inputs.settings ?? {};
    this.#checkpoints =
      outputFolder === undefined || ranksOf(run.inputs).rank > 0
        ? undefined
        : new Checkpoints({
            policy,
            update: run.update,
            options: run.method.options,
            folder: outputFolder,
            baseModel,
            reference: run.sync?.weights,
            rankStates: run.local?.states,
            warn: (sentence) => warn(run.inputs, sentence),
          });
  }

  /** Whether no update is left, nor the evaluation of the last one, or an evaluation ended the run. */
  get ended(): boolean {
    if (this.#run.evaluation?.due(this.done)) return false;
    return this.done >= this.#run.plan.totalSteps || this.stopReason !== undefined;
  }

  /** The last good checkpoint: saved by this run, or the one that it goes on from. */
  get last(): SavedState | undefined {
    return this.#checkpoints?.last;
  }

  /** The disk space of the checkpoints, see `Run.checkpointSpace`. */
  get checkpointSpace(): { readonly bytes: number; readonly most: number } | undefined {
    const { method, plan, evaluation } = this.#run;
    const { totalSteps, stepsPerEpoch } = plan;
    const most = mostCheckpoints(method.options, { totalSteps, stepsPerEpoch, evaluates: evaluation !== undefined });
    return this.#checkpoints && most > 0 ? { bytes: this.#checkpoints.bytes, most } : undefined;
  }

  #state(): RunState {
    const { inputs, method, plan, window, evaluation, digests } = this.#run;
    const rows = evaluatedRows(inputs.evalExamples, method.options);
    this.#digests ??= { data: digestOfExamples(plan.examples), evaluationData: rows && digestOfExamples(rows) };
    return {
      version: 1,
      method: method.name,
      step: this.done,
      totalSteps: plan.totalSteps,
      stepsPerEpoch: plan.stepsPerEpoch,
      pairsWithin: plan.scope,
      ranks: plan.ranks.size,
      stopReason: this.stopReason,
      localUpdates: this.#run.local?.since,
      counts: window.counts,
      lastMetrics: this.lastMetrics,
      evaluation: evaluation?.state as RunState["evaluation"],
      tuning: inputs.policy.device.tuner.choices,
      tuningOfRanks: this.tuningOfRanks,
      adapter: adapterOf(inputs.policy.device),
      kernels: kernelDigest(),
      ...digests,
      ...this.#digests,
      options: { ...method.options },
      settings: this.#settings,
      log: this.log,
    };
  }

  async #facts(): Promise<TrainerStateFacts> {
    const { evaluation, method } = this.#run;
    const best = evaluation?.selection.state.best;
    const saved = best && (best.step === this.done || (await this.#checkpoints?.has(best.step)));
    const bestCheckpoint = saved ? this.#checkpoints?.path(best.step) : undefined;
    return { options: method.options, best, bestCheckpoint };
  }

  /** Writes trainer_state.json, as it is after the last update, into a folder. */
  async saveState(folder: string): Promise<void> {
    const text = trainerStateText(this.#state(), await this.#facts());
    await platform.writeFileAtomic(platform.joinPath(folder, TRAINER_STATE_FILE), text);
  }

  /** Saves a checkpoint if one is due. Where the disk is full the run goes on with the checkpoints that there are. */
  async saveIfDue(): Promise<void> {
    await this.#together(() => this.#saveIfDue());
  }

  /**
   * What rank 0 saves, while the others give it what they alone have: their shares of the moments, or all that differs
   * where they update by themselves. Where ranks have the same, the others go on meanwhile.
   */
  async #together(save: () => Promise<void>): Promise<void> {
    const { update, local } = this.#run;
    const requests = local ? local.states.requests : update.sharedMoments && update.requests;
    if (requests === undefined) await save();
    else await requests.during(save);
  }

  async #saveIfDue(): Promise<void> {
    const { plan, inputs, method } = this.#run;
    const checkpoints = this.#checkpoints;
    // A checkpoint of this step lacks the evaluation that a stop broke off.
    const again = checkpoints?.last?.step === this.done;
    const due = checkpointDue(method.options, {
      step: this.done,
      stepsPerEpoch: plan.stepsPerEpoch,
      totalSteps: plan.totalSteps,
      ends: this.ended,
    });
    if (checkpoints === undefined || !(again || due)) return;
    try {
      await checkpoints.save(this.#state(), await this.#facts());
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      const { last } = checkpoints;
      warn(
        inputs,
        `The checkpoint of step ${this.done} was not saved: ${errorMessage(error)} The training goes on${last ? `; the last good checkpoint is ${last.path}` : ""}.`,
      );
      return;
    }
    await this.#tellOfCheckpoint(checkpoints);
  }

  /**
   * Saves a run that was stopped between checkpoints.
   *
   * @throws FileError for a folder that cannot be written, with the last checkpoint, and where this one is saved
   * instead
   */
  async saveStopped(): Promise<void> {
    await this.#together(() => this.#saveStopped());
  }

  async #saveStopped(): Promise<void> {
    const checkpoints = this.#checkpoints;
    if (checkpoints === undefined || this.done === 0 || checkpoints.last?.step === this.done) return;
    const { folder } = checkpoints;
    const [state, facts] = [this.#state(), await this.#facts()];
    try {
      await checkpoints.save(state, facts);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      throw await rescue(this.unsaved(error), this.done, {
        folder,
        write: async (place) => void (await checkpoints.saveInto(place, state, facts)),
        remedy: this.#run.method.options.save_only_model
          ? "its checkpoint has no optimizer (save_only_model), so use it as a model"
          : `move its checkpoint into ${folder}, then go on with resume_from_checkpoint`,
      });
    }
    await this.#tellOfCheckpoint(checkpoints);
  }

  /** Apart from the saving, since what a callback throws is its own. */
  async #tellOfCheckpoint({ last }: Checkpoints): Promise<void> {
    if (last) await this.#run.inputs.onCheckpoint?.({ folder: last.path, step: last.step });
  }

  /** Goes on from a checkpoint, which rank 0 reads. */
  async resume({ path, state }: Resumption): Promise<void> {
    const ranks = ranksOf(this.#run.inputs);
    await byFirst(ranks, async () => await this.#checkpoints?.restore({ path, step: state.step }));
    const { device, policy, optimizer, sharedMoments } = this.#run.update;
    const { first, second, coded } = optimizer.moments;
    const reference = this.#run.sync?.weights;
    const tensors = [...coded.values()].flatMap(({ first, second, scales }) => [first, second, scales]);
    const moments = sharedMoments ? [] : [first, second];
    for (const arena of [policy.trained, ...moments, ...(reference ? [reference] : [])]) {
      await arenaFromFirst(ranks, arena);
    }
    await tensorsFromFirst(ranks, device, [...(sharedMoments ? [] : tensors), optimizer.state]);
    if (sharedMoments !== undefined) {
      if (this.#checkpoints) await this.#checkpoints.shareMoments(path, sharedMoments);
      else await sharedMoments.fill(undefined);
    }
    const { local } = this.#run;
    if (local !== undefined) {
      local.since = state.localUpdates ?? 0;
      if (this.#checkpoints) await this.#checkpoints.shareStates(path, local.states);
      else await local.states.restore(undefined);
      await device.idle();
    }
    this.adopt(state);
  }

  /** Goes on from the state of a checkpoint, without what lies on the device. */
  adopt(state: RunState): void {
    this.done = state.step;
    this.log = [...state.log];
    if (state.ranks === this.#run.plan.ranks.size) this.tuningOfRanks = state.tuningOfRanks;
    const given = Object.entries(this.#settings).filter(([, value]) => value !== undefined);
    this.#settings = { ...state.settings, ...Object.fromEntries(given) };
    this.#run.window.restore(state.counts);
    this.lastMetrics = state.lastMetrics && numbersOf(state.lastMetrics);
    if (state.evaluation) {
      const { selection, lastStep } = state.evaluation;
      const { metric_for_best_model, greater_is_better } = state.options;
      const asked = criterionOf({ metric: metric_for_best_model, greaterIsBetter: greater_is_better });
      // Older checkpoints do not say which metric they went by.
      const { best, metric = asked.metric, greaterIsBetter = asked.greaterIsBetter } = selection;
      const told = this.#run.evaluation?.restore({
        selection: { ...selection, best, metric, greaterIsBetter },
        lastStep,
      });
      if (told !== undefined) warn(this.#run.inputs, told);
      // A run that was stopped early goes on where early_stopping_patience is now larger.
      if (state.stopReason !== undefined) this.stopReason = this.#run.evaluation?.selection.stop;
    }
  }

  /** The error of a lost device, with what is left of the run. */
  afterLoss(error: DeviceLostError): DeviceLostError {
    const left = this.#left ?? "no checkpoint was saved, so the run starts from its beginning";
    // Of several ranks the first alone knows what is saved, and tells it.
    const told = ranksOf(this.#run.inputs).rank > 0 ? "" : `; ${left}`;
    return new DeviceLostError(`${error.message.replace(/\.?$/, ".")} It was after step ${this.done}${told}.`, {
      cause: error,
    });
  }

  /** The error of a folder that could not be written, with what is left of the run. */
  unsaved(error: FileError): FileError {
    const left = this.#left;
    return left === undefined
      ? error
      : new FileError(`${error.message} The training is not lost: ${left}.`, { cause: error });
  }

  get #left(): string | undefined {
    const { last } = this;
    return last && `${last.path} ${useOf(last)}`;
  }
}
