/**
 * The trainer of the supervised stage before KTO: completions to be imitated, said to `createRun` as a method. The run
 * and the update are KTO's, with an objective that knows neither a reference nor pairs of rows.
 */
import { DatasetError } from "../errors.ts";
import type { Checked } from "./options/checked.ts";
import { type SftTrainerOptions, sftTrainerOptions } from "./options/sft.ts";
import { createRun, savingsOf, timeRun } from "./run/create.ts";
import type { Method, RunInputs } from "./run/inputs.ts";
import type { Run } from "./run/run.ts";
import type { Savings } from "./run/savings.ts";
import type { RunTimes } from "./run/timing.ts";

/** The examples of supervised fine-tuning are all to be imitated: their label is true. */
export interface SftTrainerInputs extends RunInputs {
  /** Some of them, parsed here, or all of them as a command line has parsed them. */
  readonly options?: Partial<SftTrainerOptions> | Checked<SftTrainerOptions>;
}

/**
 * A run of supervised fine-tuning: the loss is the mean cross-entropy over the completion tokens of an update. `free`
 * gives back all device memory but the model's, and the folder.
 */
export type SftTrainer = Run<SftTrainerOptions>;

export const SftTrainer = {
  /**
   * Checks options and examples, allocates all device memory of the run and, with `resume_from_checkpoint`, puts a
   * checkpoint's weights into the policy.
   *
   * @throws ConfigError for an option out of range, or one of KTO's; DatasetError for examples that the model cannot
   * take or that are thumbs down; AdapterError when the device cannot hold the run; FileError where another run has
   * `outputFolder`
   */
  async create(inputs: SftTrainerInputs): Promise<SftTrainer> {
    return await createRun(inputs, sftMethod(inputs));
  },

  /** Measures the run without training, see `KtoTrainer.time`. */
  async time(inputs: SftTrainerInputs): Promise<RunTimes> {
    return await timeRun(inputs, sftMethod(inputs));
  },

  /** What would make the run smaller, see `KtoTrainer.savings`. */
  async savings(inputs: SftTrainerInputs): Promise<Savings> {
    return await savingsOf(inputs, sftMethod(inputs));
  },
};

function sftMethod(inputs: SftTrainerInputs): Method<SftTrainerOptions> {
  const options = sftTrainerOptions.parse(inputs.options);
  for (const examples of [inputs.examples, inputs.evalExamples ?? []]) {
    const at = examples.findIndex(({ label }) => label === false);
    if (at < 0) continue;
    throw new DatasetError(
      `Example ${at + 1} of ${examples.length} has the label false (thumbs down), and supervised fine-tuning imitates every example; leave such rows out.`,
    );
  }
  return { name: "sft", options, objective: "sft", reference: "none", referencePointScope: "microbatch" };
}
