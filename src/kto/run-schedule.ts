/**
 * What a run does in which update: how many there are, the rows of each, its learning rate. A pure function of data and
 * options, so that a checkpoint needs the position only. Also every shape that the device must hold.
 */
import type { RowShape } from "../engine/model/rows.ts";
import { learningRateAt, type ScheduleOptions } from "../engine/schedule.ts";
import { type BatchExample, type BatchOptions, batchShape, type KtoBatch, packBatch } from "./batch.ts";
import type { TrainerOptions } from "./config.ts";
import { epochSchedule, rowsLeftOut } from "./sampler.ts";

/** Beyond this many updates the shapes of a run are bounded instead of listed, so that it starts at once. */
const MOST_STEPS_LOOKED_AT = 20_000;

export class RunSchedule {
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  /** Examples, 0 or 1, that an epoch leaves out because they would be a microbatch of one row. */
  readonly rowsLeftOut: number;
  readonly batchOptions: BatchOptions;
  readonly #examples: readonly BatchExample[];
  readonly #options: TrainerOptions;
  readonly #learningRate: ScheduleOptions;
  #epoch: { number: number; microbatches: number[][] } | undefined;

  constructor(examples: readonly BatchExample[], options: TrainerOptions, batchOptions: BatchOptions) {
    this.#examples = examples;
    this.#options = options;
    this.batchOptions = batchOptions;
    this.rowsLeftOut = rowsLeftOut(examples.length, this.microbatches(0));
    this.stepsPerEpoch = Math.ceil(this.microbatches(0).length / options.gradient_accumulation_steps);
    this.totalSteps =
      options.max_steps > 0 ? options.max_steps : Math.ceil(options.num_train_epochs * this.stepsPerEpoch);
    this.#learningRate = {
      type: options.lr_scheduler_type,
      learningRate: options.learning_rate,
      totalSteps: this.totalSteps,
      warmupSteps: options.warmup_steps || Math.ceil(options.warmup_ratio * this.totalSteps),
    };
  }

  /** Of update `step`, counted from 0. */
  learningRate(step: number): number {
    return learningRateAt(step, this.#learningRate);
  }

  /** The microbatches of an epoch: a pure function of data, seed and epoch. */
  microbatches(epoch: number): number[][] {
    if (this.#epoch?.number !== epoch) {
      const microbatches = epochSchedule(this.#examples, {
        batchSize: this.#options.per_device_train_batch_size,
        seed: this.#options.seed,
        epoch,
        shuffle: this.#options.shuffle_dataset,
        mismatched: this.#options.loss_type === "kto",
      });
      this.#epoch = { number: epoch, microbatches };
    }
    return this.#epoch.microbatches;
  }

  /** The microbatches of update `step`, counted from 0. */
  stepExamples(step: number): BatchExample[][] {
    const accumulation = this.#options.gradient_accumulation_steps;
    const microbatches = this.microbatches(Math.floor(step / this.stepsPerEpoch));
    const first = (step % this.stepsPerEpoch) * accumulation;
    return microbatches
      .slice(first, first + accumulation)
      .map((rows) => rows.map((row) => this.#examples[row]).filter((row) => row !== undefined));
  }

  /** Every shape class of the run or, where looking at every step would take long, one that holds them all. */
  shapes(): RowShape[] {
    if (this.totalSteps > MOST_STEPS_LOOKED_AT) return [this.#largestShape()];
    const shapes = new Map<string, RowShape>();
    for (let step = 0; step < this.totalSteps; step++) {
      for (const examples of this.stepExamples(step)) {
        const shape = batchShape(examples, this.batchOptions);
        shapes.set(JSON.stringify(shape), shape);
      }
    }
    return [...shapes.values()];
  }

  /** A shape that holds any microbatch: of the longest examples, and of those with the longest completions. */
  #largestShape(): RowShape {
    const longest = (length: (example: BatchExample) => number) =>
      [...this.#examples].sort((a, b) => length(b) - length(a)).slice(0, this.#options.per_device_train_batch_size);
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
    };
  }

  pack(step: number): KtoBatch[] {
    return step < this.totalSteps
      ? this.stepExamples(step).map((examples) => packBatch(examples, this.batchOptions))
      : [];
  }
}
