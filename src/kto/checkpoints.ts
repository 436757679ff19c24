/**
 * A run's checkpoints: what is trained (f32, whatever the files of the model store), both moments, and the state of the
 * run, saved into a folder and brought back bit by bit. How folders come and go is `engine/checkpoint.ts`' business, when
 * they are saved the trainer's.
 */
import { arenaTensors, deviceTensor, fillArena, requireTensor } from "../engine/arena-files.ts";
import {
  type CheckpointFolder,
  checkpointDamage,
  checkpointPath,
  listCheckpoints,
  pruneCheckpoints,
  removeLeftovers,
  writeCheckpointFolder,
} from "../engine/checkpoint.ts";
import { type CheckpointTensor, openCheckpoint } from "../engine/model/checkpoint-files.ts";
import type { Model } from "../engine/model/load.ts";
import { ADAPTER_WEIGHTS, saveAdapter, trainedName } from "../engine/peft.ts";
import { platform } from "../engine/platform/index.ts";
import { openSafetensors, writeSafetensors } from "../engine/safetensors.ts";
import { ConfigError, errorMessage, FileError, ModelFormatError, shown } from "../errors.ts";
import type { RunOptions } from "./run-options.ts";
import { type RunState, readRunState, type TrainerStateFacts, writeRunState } from "./run-state.ts";
import type { KtoStep } from "./step.ts";

export const OPTIMIZER_FILE = "optimizer.safetensors";

/** Names in optimizer.safetensors: torch's for the moments, before the name of the parameter. */
const FIRST_MOMENT = "exp_avg.";
const SECOND_MOMENT = "exp_avg_sq.";
/** The optimizer's small state and the sums of the logging window. */
const OPTIMIZER_STATE = "optimizer_state";
const METRIC_SUMS = "metric_sums";

/** Options that do not change what comes out of a step: a resumed run may have others than the run before. */
const MAY_CHANGE =
  /^(save_|logging_|eval_|per_device_eval_|metric_for_best_model|greater_is_better|load_best|early_stopping|resume_|gradient_checkpointing|precompute_ref|overwrite_cache|max_steps|num_train_epochs)/;

/** For people. */
const METHOD_NAMES = { kto: "KTO training", sft: "supervised fine-tuning" } as const;

export interface CheckpointsOptions {
  readonly policy: Model;
  readonly step: KtoStep;
  readonly options: RunOptions;
  /** The folder of the run. */
  readonly folder: string;
  /** What an adapter names as its base. */
  readonly baseModel: string | undefined;
  readonly warn: (sentence: string) => void;
}

export class Checkpoints {
  readonly #run: CheckpointsOptions;
  /** The last good one: saved by this run, or the one that it goes on from. */
  #last: CheckpointFolder | undefined;

  constructor(options: CheckpointsOptions) {
    this.#run = options;
  }

  get last(): CheckpointFolder | undefined {
    return this.#last;
  }

  /**
   * Saves a checkpoint, then throws away those beyond `save_total_limit`.
   *
   * @throws FileError for what cannot be written, after which the earlier checkpoints are all there; NumericError for
   * weights that are not finite; DeviceLostError
   */
  async save(state: RunState, facts: TrainerStateFacts): Promise<CheckpointFolder> {
    const { folder, options, policy, baseModel, warn } = this.#run;
    const path = await writeCheckpointFolder(folder, state.step, async (target) => {
      if (policy.adapter) await saveAdapter(policy, target, baseModel);
      else await policy.save(target, { dtype: "f32" });
      if (!options.save_only_model) await this.#saveOptimizer(platform.joinPath(target, OPTIMIZER_FILE));
      await writeRunState(target, state, facts, options.seed);
    });
    this.#last = { path, step: state.step };
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

  async #saveOptimizer(path: string): Promise<void> {
    const { optimizer, objective } = this.#run.step;
    const { first, second } = optimizer.moments;
    await writeSafetensors(path, [
      ...arenaTensors(first, (part) => FIRST_MOMENT + this.#name(part)),
      ...arenaTensors(second, (part) => SECOND_MOMENT + this.#name(part)),
      deviceTensor(first, OPTIMIZER_STATE, optimizer.state),
      deviceTensor(first, METRIC_SUMS, objective.metrics),
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

  /**
   * Brings weights, moments and sums back onto the device, from a checkpoint's folder or, for true, from the last good one
   * in the folder of the run; the damaged ones after it are named in warnings.
   *
   * @param now what the run would be from its own options, to be compared
   * @returns the state to go on from
   * @throws FileError, ModelFormatError if there is none or the one that was named is damaged; ConfigError for options or
   * data that are not those of the run that is resumed
   */
  async restore(
    from: string | true,
    now: Pick<RunState, "method" | "data" | "settings" | "totalSteps">,
  ): Promise<RunState> {
    await removeLeftovers(this.#run.folder);
    const { path, state } = typeof from === "string" ? await this.#open(from) : await this.#lastGood();
    this.#checkSame(path, state, now);
    await this.#fill(path);
    this.#last = { path, step: state.step };
    return state;
  }

  /** @throws ModelFormatError that says why a checkpoint cannot be used; FileError where there is none */
  async #open(path: string): Promise<{ path: string; state: RunState }> {
    if ((await platform.exists(path)) !== "folder") {
      throw new FileError(
        `There is no checkpoint "${path}"; resume_from_checkpoint names the folder of one, or is true for the last good one in output_dir.`,
      );
    }
    const damage = await checkpointDamage(path);
    if (damage !== undefined) {
      throw new ModelFormatError(`The checkpoint ${path} is damaged: ${damage}; resume from another one.`);
    }
    if ((await platform.exists(platform.joinPath(path, OPTIMIZER_FILE))) !== "file") {
      throw new ModelFormatError(
        `The checkpoint ${path} has no ${OPTIMIZER_FILE} (it was saved with save_only_model), so the run cannot go on from it; resume from another one.`,
      );
    }
    return { path, state: await readRunState(path) };
  }

  async #lastGood(): Promise<{ path: string; state: RunState }> {
    const { folder, warn } = this.#run;
    const present = await listCheckpoints(folder);
    for (const { path } of present.reverse()) {
      try {
        return await this.#open(path);
      } catch (error) {
        if (!(error instanceof ModelFormatError)) throw error;
        warn(errorMessage(error).replace("resume from another one", "the one before is used"));
      }
    }
    throw new FileError(
      `resume_from_checkpoint is true, but ${folder} has no ${present.length > 0 ? "good " : ""}checkpoint to go on from; leave it out to start anew.`,
    );
  }

  /** @throws ConfigError naming the option, or the data, that is another one than in the run that is resumed */
  #checkSame(path: string, state: RunState, now: Pick<RunState, "method" | "data" | "settings" | "totalSteps">): void {
    if (state.method !== now.method) {
      throw new ConfigError(
        `The run of ${path} is ${METHOD_NAMES[state.method]} and this one is ${METHOD_NAMES[now.method]}, which cannot go on from it: give its model as model_name_or_path, and another output_dir.`,
      );
    }
    const options: Readonly<Record<string, unknown>> = this.#run.options;
    // Of a damaged file, whose values may nest too deeply to be written.
    const text = (value: unknown) => shown(value ?? null, Number.POSITIVE_INFINITY);
    const refuse = (name: string, before: unknown, after: unknown) => {
      throw new ConfigError(
        `option "${name}" is ${text(after)}, but the run of ${path} had ${text(before)}, and a run that is resumed keeps it: set it back, or start anew in another output_dir.`,
      );
    };
    for (const [name, before] of Object.entries({ ...state.options, ...state.settings })) {
      if (MAY_CHANGE.test(name)) continue;
      const after = Object.hasOwn(now.settings, name) ? now.settings[name] : options[name];
      if (text(before) !== text(after)) refuse(name, before, after);
    }
    if (state.data !== now.data) {
      throw new ConfigError(
        `The data is not that of the run of ${path}: its rows, their order or their tokens changed; give the same data, or start anew in another output_dir.`,
      );
    }
    if (now.totalSteps < state.totalSteps) {
      throw new ConfigError(
        `The run of ${path} was to have ${state.totalSteps} updates and would now have ${now.totalSteps}: max_steps and num_train_epochs may grow when a run is resumed, not shrink.`,
      );
    }
    if (now.totalSteps > state.totalSteps) {
      this.#run.warn(
        `The run was to have ${state.totalSteps} updates and now has ${now.totalSteps}: the learning rate of the updates to come follows the new length.`,
      );
    }
  }

  async #fill(path: string): Promise<void> {
    const { policy, step } = this.#run;
    const { device, optimizer, objective } = step;
    const name = (part: string) => this.#name(part);
    if (policy.adapter) {
      await withFile(platform.joinPath(path, ADAPTER_WEIGHTS), (tensors, file) =>
        fillArena(policy.trained, tensors, file, name),
      );
    } else {
      const files = await openCheckpoint(path);
      try {
        await fillArena(policy.trained, files.tensors, files.path, name);
      } finally {
        await files.close();
      }
    }
    await withFile(platform.joinPath(path, OPTIMIZER_FILE), async (tensors, file) => {
      const { first, second } = optimizer.moments;
      await fillArena(first, tensors, file, (part) => FIRST_MOMENT + name(part));
      await fillArena(second, tensors, file, (part) => SECOND_MOMENT + name(part));
      for (const [key, tensor] of [
        [OPTIMIZER_STATE, optimizer.state],
        [METRIC_SUMS, objective.metrics],
      ] as const) {
        const stored = requireTensor(tensors, file, key, tensor.shape);
        device.upload(tensor, await stored.file.read(key));
      }
    });
  }
}

/** Opens a safetensors file as a table of its tensors. */
async function withFile(
  path: string,
  work: (tensors: ReadonlyMap<string, CheckpointTensor>, path: string) => Promise<void>,
): Promise<void> {
  const file = await openSafetensors(path);
  try {
    await work(new Map([...file.tensors].map(([name, entry]) => [name, { ...entry, file }])), path);
  } finally {
    await file.close();
  }
}
