/**
 * Which rows each update of a run trains on, and the shapes that they take on the device: a pure function of data and
 * options. No models, no device.
 */
import type { RowShape } from "../../engine/model/rows.ts";
import type { RunOptions } from "../options/run.ts";
import { samplingOf } from "../options/training.ts";
import { type BatchExample, type BatchOptions, batchShape } from "./batch.ts";
import { Microbatches } from "./microbatches.ts";
import { epochSchedule, rowsLeftOut } from "./sampler.ts";

/** Beyond this many updates the shapes of a run are bounded instead of listed, so that it starts at once. */
const MOST_STEPS_LOOKED_AT = 20_000;

export type PlanOptions = Pick<
  RunOptions,
  | "per_device_train_batch_size"
  | "gradient_accumulation_steps"
  | "num_train_epochs"
  | "max_steps"
  | "seed"
  | "shuffle_dataset"
  | "train_sampling_strategy"
  | "group_by_length"
>;

export class RunPlan extends Microbatches {
  readonly options: PlanOptions;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  /**
   * Examples, 0 or 1, that an epoch leaves out because they would be a microbatch of one row; another one each epoch.
   */
  readonly rowsLeftOut: number;
  #epoch: { number: number; microbatches: number[][] } | undefined;

  constructor(examples: readonly BatchExample[], batchOptions: BatchOptions, options: PlanOptions) {
    super(examples, batchOptions);
    this.options = options;
    const first = this.#microbatches(0);
    this.rowsLeftOut = rowsLeftOut(examples.length, first);
    this.stepsPerEpoch = Math.ceil(first.length / options.gradient_accumulation_steps);
    this.totalSteps =
      options.max_steps > 0 ? options.max_steps : Math.ceil(options.num_train_epochs * this.stepsPerEpoch);
  }

  #microbatches(epoch: number): number[][] {
    if (this.#epoch?.number !== epoch) {
      const microbatches = epochSchedule(this.examples, {
        batchSize: this.options.per_device_train_batch_size,
        seed: this.options.seed,
        epoch,
        ...samplingOf(this.options),
        mismatched: this.batchOptions.mismatched,
      });
      this.#epoch = { number: epoch, microbatches };
    }
    return this.#epoch.microbatches;
  }

  override rows(step: number): number[][] {
    if (step >= this.totalSteps) return [];
    const accumulation = this.options.gradient_accumulation_steps;
    const first = (step % this.stepsPerEpoch) * accumulation;
    return this.#microbatches(Math.floor(step / this.stepsPerEpoch)).slice(first, first + accumulation);
  }

  /** Every shape class of the run or, where looking at every step would take long, one that holds them all. */
  override shapes(): RowShape[] {
    return this.totalSteps > MOST_STEPS_LOOKED_AT ? [this.#largestShape()] : super.shapes();
  }

  /** A shape that holds any microbatch: of the longest examples, and of those with the longest completions. */
  #largestShape(): RowShape {
    const longest = (length: (example: BatchExample) => number) =>
      [...this.examples].sort((a, b) => length(b) - length(a)).slice(0, this.options.per_device_train_batch_size);
    const [byTotal, byCompletion] = [
      longest(({ promptIds, completionIds }) => promptIds.length + completionIds.length),
      longest(({ completionIds }) => completionIds.length),
    ].map((examples) => batchShape(examples, { ...this.batchOptions, maxLength: Number.POSITIVE_INFINITY }));
    if (byTotal === undefined || byCompletion === undefined) throw new Error("no examples");
    const most = (key: keyof RowShape) => Math.max(byTotal[key], byCompletion[key]);
    return {
      gradientRows: most("gradientRows"),
      branchRows: most("branchRows"),
      gradientHeadRows: most("gradientHeadRows"),
      branchHeadRows: most("branchHeadRows"),
      sequences: most("sequences"),
      longest: most("longest"),
    };
  }
}
