/**
 * The seam between models and method: from log-probabilities per sequence to coefficients per sequence, on the device.
 * A method is one kernel and its float64 twin, wrapped in one of these (`kto-on-device.ts`, `sft-on-device.ts`);
 * nothing else changes.
 */
import type { Device } from "../../engine/gpu/device.ts";
import type { Program } from "../../engine/gpu/program.ts";
import { elementCount, reshape, type Tensor } from "../../engine/gpu/tensor.ts";
import type { TokenSums } from "../../engine/model/head.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { ConfigError, shown } from "../../errors.ts";
import type { KtoLossType, ReferenceKind } from "../../kernels/kto-objective.ts";
import { solveWeights } from "../data/weights.ts";
import type { MethodOptions } from "../options/method.ts";
import type { Batch } from "./batch.ts";
import type { ExampleLog } from "./example-log.ts";
import type { Metrics } from "./metrics.ts";

/** The constants of KTO. */
export interface ObjectiveOptions {
  /** Scale of log-ratios (nats) in the value function; above 0. */
  readonly beta: number;
  /** lambda_D and lambda_U. */
  readonly desirableWeight: number;
  readonly undesirableWeight: number;
  /** "apo_zero_unpaired": the reference point is 0 and no mismatched pairs are computed. */
  readonly lossType: KtoLossType;
  /** "uniform": the reference's log-probabilities are one constant, for which 0 stands; default "model". */
  readonly referenceKind?: ReferenceKind;
}

/** The constants that options ask for; weights that are "auto" balance these rows. */
export function objectiveOptions(
  options: Pick<MethodOptions, "beta" | "desirable_weight" | "undesirable_weight" | "loss_type">,
  rows: readonly { readonly label: boolean }[],
): ObjectiveOptions {
  const weights = solveWeights(options.desirable_weight, options.undesirable_weight, rows);
  const { beta, loss_type: lossType } = options;
  return { beta, desirableWeight: weights.desirable, undesirableWeight: weights.undesirable, lossType };
}

/**
 * What a model is trained for: KTO with these constants, or "sft", the cross-entropy of completions, which has none.
 */
export type TrainedFor = ObjectiveOptions | "sft";

/**
 * Checks constants that no option's schema has checked.
 *
 * @throws ConfigError for a constant out of range, with which every number would be wrong
 */
export function checkObjective(objective: TrainedFor): void {
  if (objective === "sft") return;
  const { beta, desirableWeight, undesirableWeight, lossType } = objective;
  for (const [name, value] of Object.entries({ beta, desirableWeight, undesirableWeight })) {
    if (value > 0 && Number.isFinite(Math.fround(value))) continue;
    throw new ConfigError(`${name} of the objective is ${value}; it must be a number above 0.`);
  }
  if (lossType === "kto" || lossType === "apo_zero_unpaired") return;
  throw new ConfigError(`lossType of the objective is ${shown(lossType)}; it must be "kto" or "apo_zero_unpaired".`);
}

/** What an objective reads of rows beside their log-probabilities. */
export type ObjectiveRows = Pick<Batch, "desirable" | "pairValid" | "completionTokens" | "referenceLogProbs">;

/** What an objective reads of the microbatches of a ring, as if they were one. */
export function labelsOf(batches: readonly Batch[]): ObjectiveRows {
  const joined = (name: "desirable" | "pairValid" | "completionTokens") =>
    Uint32Array.from(batches.flatMap((batch) => Array.from(batch[name])));
  return {
    desirable: joined("desirable"),
    pairValid: joined("pairValid"),
    completionTokens: joined("completionTokens"),
  };
}

/** Whether mismatched pairs are computed beside the examples. */
export function usesPairs(objective: TrainedFor): boolean {
  return objective !== "sft" && objective.lossType === "kto";
}

export abstract class Objective {
  readonly device: Device;
  readonly #allocated: Tensor[] = [];
  /** Log-probabilities of a microbatch's sequences: the examples, then the pairs if there are any. */
  readonly #policyLogProbs: Tensor;
  readonly #coefficients: Tensor;
  readonly #tokenSums: TokenSums;
  /** f32: the running sums of a logging window, whose places are the kernel's. */
  readonly metrics: Tensor;
  readonly usesPairs: boolean;

  /** @param maxSize the largest microbatch */
  protected constructor(device: Device, objective: TrainedFor, maxSize: number, metricSums: number) {
    this.device = device;
    this.usesPairs = usesPairs(objective);
    this.#policyLogProbs = this.allocate("policy log-probs", this.sequences(maxSize));
    this.#coefficients = this.allocate("coefficients", maxSize);
    this.#tokenSums = {
      entropies: this.allocate("entropies", maxSize),
      logits: this.allocate("mean logits", maxSize),
    };
    this.metrics = this.allocate("metric sums", metricSums);
  }

  /** Memory that `free` gives back: f32 scratch, or u32 of the batch. */
  protected allocate(label: string, size: number, dtype: "f32" | "u32" = "f32"): Tensor {
    const tensor = this.device.allocate(dtype === "u32" ? "batch" : "scratch", label, [size], dtype);
    this.#allocated.push(tensor);
    return tensor;
  }

  /** Sequences of a microbatch of m: the examples, then the pairs if there are any. */
  protected sequences(size: number): number {
    return this.usesPairs ? 2 * size : size;
  }

  policyLogProbs(size: number): Tensor {
    return reshape(this.#policyLogProbs, [this.sequences(size)]);
  }

  coefficients(size: number): Tensor {
    return reshape(this.#coefficients, [size]);
  }

  /** Where the sums over the examples' completion tokens go. */
  tokenSums(size: number): TokenSums {
    const { entropies, logits } = this.#tokenSums;
    return { entropies: reshape(entropies, [size]), logits: reshape(logits, [size]) };
  }

  /** Where a reference's log-probabilities go; undefined for a method without one. */
  referenceLogProbs(_size: number): Tensor | undefined {
    return undefined;
  }

  /** Where the hits of a microbatch's sequences go, see `recordTargetHits`; undefined for a method that counts none. */
  hitCounts(_size: number): Tensor | undefined {
    return undefined;
  }

  /** Uploads what the objective needs of a microbatch, or of a ring of them, beside its log-probabilities. */
  abstract upload(labels: ObjectiveRows): void;

  /** f32[2], sum and number of the mismatched log-ratios of `recordPairs`; undefined for a method without. */
  get pairSum(): Tensor | undefined {
    return undefined;
  }

  /** Records that the reference point starts at nothing, where the method has one. */
  recordClearPairs(_program: Program): void {}

  /** Records adding this microbatch's mismatched log-ratios to the reference point, and counting them. */
  recordPairs(_program: Program, _size: number): void {}

  /**
   * Records coefficients and metric sums from the log-probabilities and the reference point as it stands.
   *
   * @param stepNumbers the optimizer's; without them the coefficients are 0, which an evaluation does not read
   */
  abstract recordCoefficients(program: Program, size: number, stepNumbers: Tensor | undefined): void;

  /** Records adding `tokenSums` to the metric sums. @param sequenceRanges u32[S, 2], head rows of the sequences */
  abstract recordTokens(program: Program, size: number, sequenceRanges: Tensor): void;

  /** The factor on the coefficients of each of these microbatches, which make up one update. */
  abstract microbatchWeight(batches: readonly Batch[]): number;

  /** Keeps the reference's log-probabilities of the last microbatch's examples, from row `start` of the update on. */
  abstract keepReference(start: number, size: number): void;

  /** Puts back what `keepReference` kept. */
  abstract restoreReference(start: number, size: number): void;

  /**
   * Keeps the log-probabilities of the last pass as those of the rows from `start` on of an update whose examples are
   * logged: of its examples, of their mismatched pairs, or of both.
   */
  keepForLog(_part: "examples" | "pairs" | "both", _start: number, _size: number): void {}

  /**
   * What an update did with each of its examples, if `keepForLog` kept them all; undefined for a method without.
   *
   * @param ranks whose parts of the update are put together
   */
  async exampleLog(_batches: readonly Batch[], _ranks: Communicator = ALONE): Promise<ExampleLog | undefined> {
    return undefined;
  }

  /** Keeps all log-probabilities of the last microbatch, whose rows are those from `start` on of a ring of `ring`. */
  keepLogProbs(_start: number, _size: number, _ring: number): void {
    throw new Error("without mismatched pairs rows have no ring");
  }

  /** Puts back what `keepLogProbs` kept of a whole ring, as if it had been one microbatch. */
  restoreLogProbs(_ring: number): void {
    throw new Error("without mismatched pairs rows have no ring");
  }

  /**
   * What the sums tell, of training and of evaluation, under TRL's names.
   *
   * @param sums as long as `metrics`
   * @param cutPairs mismatched completions that were cut to what their new prompt leaves
   */
  abstract metricsOf(sums: ArrayLike<number>, cutPairs: number): Metrics;

  /**
   * The 95% intervals of metrics whose rows were measured in several groups, under `<metric>/low` and `<metric>/high`.
   *
   * @param groups the sums of each
   */
  intervalsOf(_groups: readonly ArrayLike<number>[]): Metrics {
    return {};
  }

  /** Begins a new window. */
  clearMetrics(): void {
    this.device.upload(this.metrics, new Float32Array(elementCount(this.metrics.shape)));
  }

  /** Gives the device memory back. */
  free(): void {
    for (const tensor of this.#allocated) this.device.free(tensor);
  }
}
