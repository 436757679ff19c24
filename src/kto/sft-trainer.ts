/**
 * The trainer of the supervised stage before KTO: completions to be imitated in, a training run out. The same run and
 * the same step as KTO's, with an objective that knows neither a reference nor pairs of rows.
 */

import type { SftTrainerOptions } from "./options/sft.ts";
import { withWhatFits } from "./run/fitting.ts";
import { type Prepared, prepareSft, type SftTrainerInputs } from "./run/inputs.ts";
import { resumption } from "./run/resumption.ts";
import type { RunTimes } from "./run/timing.ts";
import { TrainingRun } from "./run/training-run.ts";

/**
 * A run of supervised fine-tuning, made by `SftTrainer.create`: the loss is the mean cross-entropy over the completion
 * tokens of an update. `free` gives all device memory back but the model's.
 */
export class SftTrainer extends TrainingRun<SftTrainerOptions> {
  private constructor(inputs: SftTrainerInputs, prepared: Prepared<SftTrainerOptions>) {
    super({ inputs, prepared, objective: "sft", reference: "none", referencePointScope: "microbatch" });
  }

  /**
   * Checks options and examples, allocates all device memory of the run and, with `resume_from_checkpoint`, puts a
   * checkpoint's weights into the policy.
   *
   * @throws ConfigError for an option out of range, or one of KTO's; DatasetError for examples that the model cannot
   * take or that are thumbs down; AdapterError when the device cannot hold the run
   */
  static async create(inputs: SftTrainerInputs): Promise<SftTrainer> {
    const prepared = prepareSft(inputs);
    const resumed = await resumption(inputs, "sft", prepared);
    return await TrainingRun.started(inputs.policy.device, resumed, ...SftTrainer.#made(inputs, prepared));
  }

  /** As `KtoTrainer.time`. */
  static async time(inputs: SftTrainerInputs): Promise<RunTimes> {
    const prepared = prepareSft(inputs);
    const resumed = await resumption(inputs, "sft", prepared);
    return await TrainingRun.timed(inputs.policy.device, resumed, ...SftTrainer.#made(inputs, prepared));
  }

  static #made(inputs: SftTrainerInputs, prepared: Prepared<SftTrainerOptions>) {
    return [
      () => new SftTrainer(inputs, prepared),
      (error: unknown) => withWhatFits(error, inputs, 1, (fewer) => new SftTrainer(fewer, prepareSft(fewer))),
    ] as const;
  }
}
