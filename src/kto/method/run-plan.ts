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
  /** This rank and the number of ranks that train together. */
  readonly ranks: Rank;
  /** Whether each rank has whole microbatches of its own, not its part of those of all. */
  readonly isLocal: boolean;
  #epoch: { number: number; rings: number[][]; updates: number[][][] } | undefined;

  /** @param isLocal whether each rank trains on rings of its own, see `LocalUpdates` */
  constructor(
    examples: readonly BatchExample[],
    batchOptions: BatchOptions,
    options: PlanOptions,
    scope: ReferencePointScope = "microbatch",
    ranks: Rank = ONLY_RANK,
    isLocal = false,
  ) {
    super(examples, batchOptions, scope, isLocal ? ONLY_RANK : ranks);
    this.options = options;
    this.ranks = ranks;
    this.isLocal = isLocal;
    const first = this.#epochOf(0);
    this.rowsLeftOut = rowsLeftOut(examples.length, first.rings);
    this.stepsPerEpoch = first.updates.length;
    this.totalSteps =
      options.max_steps > 0 ? options.max_steps : Math.ceil(options.num_train_epochs * this.stepsPerEpoch);
  }

  /** The rings of an epoch, and the microbatches of each of its updates: of all ranks, or this rank's own. */
  #epochOf(epoch: number): { readonly rings: number[][]; readonly updates: number[][][] } {
    if (this.#epoch?.number === epoch) return this.#epoch;
    const { per_device_train_batch_size, gradient_accumulation_steps: accumulation } = this.options;
    // Rows of a microbatch of all ranks, and rings of one rank in an update.
    const size = per_device_train_batch_size * this.rank.size;
    const ringsOfRank = this.scope === "step" ? 1 : accumulation;
    const seed = this.options.data_seed ?? this.options.seed;
    const rings = epochSchedule(this.examples, {
      batchSize: this.scope === "step" ? size * accumulation : size,
      ...{ seed, epoch, ...samplingOf(this.options), mismatched: this.batchOptions.mismatched },
    });
    const dealt = this.isLocal ? this.ranks.size : 1;
    const perUpdate = ringsOfRank * dealt;
    const updates = Array.from({ length: Math.ceil(rings.length / perUpdate) }, (_, update) => {
      const all = rings.slice(update * perUpdate, (update + 1) * perUpdate);
      const own = this.isLocal ? all.filter((_, i) => i % dealt === this.ranks.rank) : all;
      return this.scope === "step" ? own.flatMap((ring) => microbatchesOf(ring, size)) : own;
    });
    this.#epoch = { number: epoch, rings, updates };
    return this.#epoch;
  }

  override rows(step: number): number[][] {
    if (step >= this.totalSteps) return [];
    return this.#epochOf(Math.floor(step / this.stepsPerEpoch)).updates[step % this.stepsPerEpoch] ?? [];
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
