/**
 * The content of a run's checkpoints: what is trained (in f32, whatever the files of the model store), both moments and
 * the state of the run, saved and brought back bit by bit. Folders are made by `engine/files/checkpoint-folders.ts`,
 * the times to save are `record.ts`'s, the choice of one to go on from `resumption.ts`'s.
 */
import {
  type CheckpointFolder,
  checkpointPath,
  pruneCheckpoints,
  removeLeftovers,
  writeCheckpointFolder,
} from "../../engine/files/checkpoint-folders.ts";
import { openSafetensors, writeSafetensors } from "../../engine/files/safetensors.ts";
import type { Arena } from "../../engine/gpu/arena.ts";
import type { Tensor } from "../../engine/gpu/tensor.ts";
import type { Model } from "../../engine/model/model.ts";
import { saveAdapter, trainedName } from "../../engine/model/peft.ts";
import { ADAPTER_WEIGHTS } from "../../engine/model/peft-tensors.ts";
import { arenaTensors, deviceTensor, fillArena, requireTensor } from "../../engine/model/weights/arena-files.ts";
import { openWeights } from "../../engine/model/weights/weight-files.ts";
import type { WeightTensor } from "../../engine/model/weights/weight-tensor.ts";
import { platform } from "../../engine/platform/index.ts";
import type { SharedMoments } from "../../engine/ranks/shared-moments.ts";
import { errorMessage, FileError } from "../../errors.ts";
import type { Update } from "../method/update.ts";
import type { RunOptions } from "../options/run.ts";
import { fillMoments, type MomentFile, momentReader, momentTensors } from "./moment-files.ts";
import { RANKS_FILE, type RankStates } from "./rank-states.ts";
import { type RunState, type TrainerStateFacts, writeRunState } from "./state.ts";

export const OPTIMIZER_FILE = "optimizer.safetensors";

/** Before the names of a reference's parameters. */
const REFERENCE = "reference.";
/** The optimizer's small state and the sums of the logging window. */
const OPTIMIZER_STATE = "optimizer_state";
const METRIC_SUMS = "metric_sums";

export interface SavedState extends CheckpointFolder {
  /** Whether a run can go on from it: not without the optimizer, which `save_only_model` leaves out. */
  readonly resumable: boolean;
}

/** What a checkpoint is good for, to follow its path in a sentence without its end. */
export function useOf({ step, resumable }: Pick<SavedState, "step" | "resumable">): string {
  return resumable
    ? `holds the run up to step ${step}: go on from there with resume_from_checkpoint`
    : `holds the model of step ${step} without the optimizer (save_only_model), so no run goes on from it: use it as a model, or start a new run from it with model_name_or_path or adapter_name_or_path`;
}

export interface CheckpointsOptions {
  readonly policy: Model;
  readonly update: Update;
  readonly options: RunOptions;
  /** The folder of the run. */
  readonly folder: string;
  /** What an adapter names as its base. */
  readonly baseModel: string | undefined;
  /** The weights of a reference that follows the policy, which no other file holds. */
  readonly reference: Arena | undefined;
  /** What each rank has by itself. */
  readonly rankStates: RankStates | undefined;
  readonly warn: (sentence: string) => void;
}

export class Checkpoints {
  readonly #run: CheckpointsOptions;
  /** The last good one: saved by this run, or the one that it goes on from. */
  #last: SavedState | undefined;

  constructor(options: CheckpointsOptions) {
    this.#run = options;
  }

  get last(): SavedState | undefined {
    return this.#last;
  }

  /** Bytes of one: weights and moments, beside which the rest is small. */
  get bytes(): number {
    const { policy, update, options, reference, rankStates } = this.#run;
    const weights = (policy.adapter ?? policy.layout).parameterCount;
    const others = rankStates?.bytes ?? 0;
    const rest = update.optimizer.momentBytes + 4 * (reference?.layout.parameterCount ?? 0) + others;
    return 4 * weights + (options.save_only_model ? 0 : rest);
  }

  /**
   * Saves a checkpoint, then throws away those beyond `save_total_limit`.
   *
   * @throws FileError for what cannot be written, after which the earlier checkpoints are all there; NumericError for
   * weights that are not finite; DeviceLostError
   */
  async save(state: RunState, facts: TrainerStateFacts): Promise<SavedState> {
    const { folder, options, warn } = this.#run;
    const path = await this.saveInto(folder, state, facts);
    this.#last = { path, step: state.step, resumable: !options.save_only_model };
    if (options.save_total_limit !== undefined) {
      const best = facts.best === undefined ? [] : [facts.best.step];
      try {
        await pruneCheckpoints(folder, options.save_total_limit, [state.step, ...best]);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        warn(`A checkpoint beyond save_total_limit is still there: ${errorMessage(error)}`);
      }
    }
    return this.#last;
  }

  /** Saves a checkpoint into any folder, and removes none. Returns the checkpoint's path. */
  async saveInto(folder: string, state: RunState, facts: TrainerStateFacts): Promise<string> {
    const { options, policy, baseModel, rankStates } = this.#run;
    return await writeCheckpointFolder(folder, state.step, async (target) => {
      if (policy.adapter) await saveAdapter(policy, target, baseModel);
      else await policy.save(target, { dtype: "f32" });
      if (!options.save_only_model) {
        await this.#saveOptimizer(platform.joinPath(target, OPTIMIZER_FILE));
        if (rankStates) await writeSafetensors(platform.joinPath(target, RANKS_FILE), rankStates.tensors());
      }
      await writeRunState(target, state, facts);
    });
  }

  /** The folder of the run. */
  get folder(): string {
    return this.#run.folder;
  }

  async #saveOptimizer(path: string): Promise<void> {
    const { update, reference } = this.#run;
    const { optimizer, objective } = update;
    const tensor = (name: string, of: Tensor) => deviceTensor(optimizer.gradients, name, of);
    await writeSafetensors(path, [
      ...momentTensors(optimizer, (part) => this.#name(part), update.sharedMoments),
      ...(reference ? arenaTensors(reference, (part) => REFERENCE + this.#name(part)) : []),
      tensor(OPTIMIZER_STATE, optimizer.state),
      tensor(METRIC_SUMS, objective.metrics),
    ]);
  }

  #name(part: string): string {
    return trainedName(this.#run.policy, part);
  }

  /** Where the checkpoint of a step lies, or would. */
  path(step: number): string {
    return checkpointPath(this.#run.folder, step);
  }

  async has(step: number): Promise<boolean> {
    return (await platform.exists(this.path(step))) === "folder";
  }

  /** Brings weights, moments and sums of a good checkpoint back onto the device. */
  async restore(from: CheckpointFolder): Promise<void> {
    await removeLeftovers(this.#run.folder);
    await this.#fill(from.path);
    this.#last = { ...from, resumable: true };
  }

  async #fill(path: string): Promise<void> {
    const { policy, update, reference } = this.#run;
    const { device, optimizer, objective } = update;
    const name = (part: string) => this.#name(part);
    const { adapter } = policy;
    if (adapter) {
      await withFile(platform.joinPath(path, ADAPTER_WEIGHTS), (tensors, file) =>
        fillArena(adapter.weights, tensors, file, name, adapter.parts()),
      );
    } else {
      const files = await openWeights(path);
      try {
        await fillArena(policy.trained, files.tensors, files.path, name);
      } finally {
        await files.close();
      }
    }
    await this.#withOptimizer(path, async (file) => {
      const { tensors, path } = file;
      if (update.sharedMoments === undefined) await fillMoments(optimizer, file);
      if (reference) await fillArena(reference, tensors, path, (part) => REFERENCE + name(part));
      for (const [key, tensor] of [
        [OPTIMIZER_STATE, optimizer.state],
        [METRIC_SUMS, objective.metrics],
      ] as const) {
        const stored = requireTensor(tensors, path, key, tensor.shape);
        device.upload(tensor, await stored.file.read(key));
      }
    });
  }

  /** Gives every rank its share of the moments of a good checkpoint; the others call `SharedMoments.fill` meanwhile. */
  async shareMoments(from: string, shared: SharedMoments): Promise<void> {
    const { optimizer } = this.#run.update;
    await this.#withOptimizer(from, (file) => shared.fill(momentReader(optimizer, file)));
  }

  /** Gives every rank what it has by itself; the others call `RankStates.restore` meanwhile. */
  async shareStates(from: string, states: RankStates): Promise<void> {
    await withFile(platform.joinPath(from, RANKS_FILE), (tensors, path) =>
      states.restore(async (name, words) => {
        const { file } = requireTensor(tensors, path, name, [words], "U32");
        return await file.read(name);
      }),
    );
  }

  async #withOptimizer(path: string, work: (file: MomentFile) => Promise<void>): Promise<void> {
    const nameOf = (part: string) => this.#name(part);
    const file = platform.joinPath(path, OPTIMIZER_FILE);
    await withFile(file, (tensors, path) => work({ tensors, path, nameOf }));
  }
}

/** Opens a safetensors file as a table of its tensors. */
async function withFile(
  path: string,
  work: (tensors: ReadonlyMap<string, WeightTensor>, path: string) => Promise<void>,
): Promise<void> {
  const file = await openSafetensors(path);
  try {
    await work(new Map([...file.tensors].map(([name, entry]) => [name, { ...entry, file }])), path);
  } finally {
    await file.close();
  }
}
