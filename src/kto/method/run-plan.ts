/**
 * Which rows each update of a run trains on, and the shapes that they take on the device: a pure function of data and
 * options. No models, no device.
 */
import type { RowShape } from "../../engine/model/rows.ts";
import type { RunOptions } from "../options/run.ts";
import { samplingOf } from "../options/training.ts";
import {
  type BatchExample,
  type BatchOptions,
  ONLY_RANK,
  type Rank,
  type ReferencePointScope,
  updateShapes,
} from "./batch.ts";
import { Microbatches } from "./microbatches.ts";
import { epochSchedule, microbatchesOf, rowsLeftOut } from "./sampler.ts";

/** Beyond this many updates the shapes of a run are bounded instead of listed, so that it starts at once. */
const MOST_LISTED = 20_000;

export type PlanOptions = Pick<
  RunOptions,
  | "per_device_train_batch_size"
  | "gradient_accumulation_steps"
  | "num_train_epochs"
  | "max_steps"
  | "seed"
  | "data_seed"
  | "shuffle_dataset"
  | "train_sampling_strategy"
  | "group_by_length"
>;

export class RunPlan extends Microbatches {
  readonly options: PlanOptions;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  /**
   * Examples, 0 or 1, that an epoch leaves out because they would stand alone on their ring; another one each epoch.
   */
  readonly rowsLeftOut: number;
  #epoch: { number: number; updates: number[][][] } | undefined;

  constructor(
    examples: readonly BatchExample[],
    batchOptions: BatchOptions,
    options: PlanOptions,
    scope: ReferencePointScope = "microbatch",
    rank: Rank = ONLY_RANK,
  ) {
    super(examples, batchOptions, scope, rank);
    this.options = options;
    const first = this.#updates(0);
    this.rowsLeftOut = rowsLeftOut(examples.length, first.flat());
    this.stepsPerEpoch = first.length;
    this.totalSteps =
      options.max_steps > 0 ? options.max_steps : Math.ceil(options.num_train_epochs * this.stepsPerEpoch);
  }

  /** Rows of a microbatch of all ranks at most. */
  get #microbatchRows(): number {
    return this.options.per_device_train_batch_size * this.rank.size;
  }

  /** Rows of an update at most, of all ranks. */
  get updateRows(): number {
    return this.#microbatchRows * this.options.gradient_accumulation_steps;
  }

  /** The microbatches of each update of an epoch. */
  #updates(epoch: number): number[][][] {
    if (this.#epoch?.number !== epoch) {
      const { gradient_accumulation_steps: accumulation } = this.options;
      const size = this.#microbatchRows;
      const seed = this.options.data_seed ?? this.options.seed;
      const rings = epochSchedule(this.examples, {
        batchSize: this.scope === "step" ? this.updateRows : size,
        ...{ seed, epoch, ...samplingOf(this.options), mismatched: this.batchOptions.mismatched },
      });
      const updates =
        this.scope === "step"
          ? rings.map((ring) => microbatchesOf(ring, size))
          : Array.from({ length: Math.ceil(rings.length / accumulation) }, (_, update) =>
              rings.slice(update * accumulation, (update + 1) * accumulation),
            );
      this.#epoch = { number: epoch, updates };
    }
    return this.#epoch.updates;
  }

  override rows(step: number): number[][] {
    if (step >= this.totalSteps) return [];
    return this.#updates(Math.floor(step / this.stepsPerEpoch))[step % this.stepsPerEpoch] ?? [];
  }

  /** Every shape class of the run or, where looking at every step would take long, one that holds them all. */
  override shapes(): RowShape[] {
    return this.totalSteps > MOST_LISTED ? [this.#largestShape()] : super.shapes();
  }

  /** A shape that holds any pass: of the longest examples, and of those with the longest completions. */
  #largestShape(): RowShape {
    const longest = (length: (example: BatchExample) => number) =>
      [...this.examples].sort((a, b) => length(b) - length(a)).slice(0, this.options.per_device_train_batch_size);
    const [byTotal, byCompletion] = [
      longest(({ promptIds, completionIds }) => promptIds.length + completionIds.length),
      longest(({ completionIds }) => completionIds.length),
    ].flatMap((examples) =>
      updateShapes([examples], { ...this.batchOptions, maxLength: Number.POSITIVE_INFINITY }, "microbatch"),
    );
    if (byTotal === undefined || byCompletion === undefined) throw new Error("no examples");
    const most = (key: keyof RowShape) => Math.max(byTotal[key], byCompletion[key]);
    const { longBeyond = Number.POSITIVE_INFINITY } = this.batchOptions;
    const mayBeLong = most("longest") > longBeyond;
    return {
      gradientRows: most("gradientRows"),
      // Where LongRoPE parts a branch from its prompt, the prompt has rows beside the branch.
      branchRows: most("branchRows") + (mayBeLong ? most("gradientRows") : 0),
      gradientHeadRows: most("gradientHeadRows"),
      branchHeadRows: most("branchHeadRows"),
      sequences: most("sequences"),
      longest: most("longest"),
    };
  }
}
