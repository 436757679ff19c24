/** The objective of KTO on the device: its buffers, and the kernels of `src/kernels/kto-objective.ts` over them. */
import type { Device } from "../../engine/gpu/device.ts";
import type { Program } from "../../engine/gpu/program.ts";
import { reshape, sliceRows, type Tensor } from "../../engine/gpu/tensor.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { STEP_NUMBERS } from "../../kernels/adamw.ts";
import { ktoObjective, METRIC_SUMS, mismatchedPairSum, tokenSums } from "../../kernels/kto-objective.ts";
import type { Batch } from "./batch.ts";
import { type ExampleLog, exampleLog, type LoggedRow, wholeMicrobatches } from "./example-log.ts";
import { type Metrics, marginInterval, objectiveMetrics } from "./metrics.ts";
import { Objective, type ObjectiveOptions, type ObjectiveRows } from "./objective.ts";

/** Rows that share one reference point over several microbatches, and whether they are only evaluated. */
export interface UpdateRing {
  readonly rows: number;
  readonly evaluates: boolean;
}

export class KtoOnDevice extends Objective {
  readonly options: ObjectiveOptions;
  /** Written by a pass or by an upload; zero, as it was allocated, where there is no reference. */
  readonly #referenceLogProbs: Tensor;
  readonly #desirable: Tensor;
  readonly #pairValid: Tensor;
  /** f32[2]: sum and number of mismatched log-ratios that make up the reference point. */
  readonly #pairSum: Tensor;
  /** f32: the log-probabilities of a ring's rows, where the reference point is taken over them all. */
  readonly #kept: { readonly reference: Tensor; readonly policy: Tensor | undefined } | undefined;
  /** f32[2, rows] each, the examples' log-probabilities and those of their pairs: of an update that is logged. */
  readonly #logged: { readonly rows: number; readonly policy: Tensor; readonly reference: Tensor } | undefined;
  readonly #dealt: boolean;

  /**
   * @param maxSize the largest microbatch
   * @param loggedRows rows of an update whose examples may be logged; undefined where none are
   * @param ring rows of an update or of an evaluation's ring at most, where the reference point is taken over all of
   * them and they weigh alike; undefined where every microbatch is a mean of its own
   * @param dealt whether the rows of a microbatch are a part of it, so that the host says over how many its mean is
   */
  constructor(
    device: Device,
    options: ObjectiveOptions,
    maxSize: number,
    loggedRows?: number,
    ring?: UpdateRing,
    dealt = false,
  ) {
    const most = ring?.evaluates ? ring.rows : maxSize;
    super(device, options, most, METRIC_SUMS.size);
    this.options = options;
    this.#dealt = dealt;
    this.#referenceLogProbs = this.allocate("reference log-probs", this.sequences(most));
    this.#desirable = this.allocate("labels", most, "u32");
    this.#pairValid = this.allocate("pair flags", most, "u32");
    this.#pairSum = this.allocate("reference point", 2);
    if (loggedRows !== undefined) {
      const log = (label: string) => this.allocate(label, 2 * loggedRows);
      this.#logged = {
        rows: loggedRows,
        policy: log("logged log-probs"),
        reference: log("logged reference log-probs"),
      };
    }
    if (ring === undefined) return;
    const keep = (label: string) => this.allocate(label, ring.evaluates ? this.sequences(ring.rows) : ring.rows);
    this.#kept = {
      reference: keep("kept log-probs"),
      policy: ring.evaluates ? keep("kept log-probs of the policy") : undefined,
    };
  }

  override referenceLogProbs(size: number): Tensor {
    return reshape(this.#referenceLogProbs, [this.sequences(size)]);
  }

  override upload({ desirable, pairValid, referenceLogProbs }: ObjectiveRows): void {
    this.device.upload(this.#desirable, desirable);
    this.device.upload(this.#pairValid, pairValid);
    if (referenceLogProbs) this.device.upload(this.#referenceLogProbs, referenceLogProbs);
  }

  override get pairSum(): Tensor {
    return this.#pairSum;
  }

  override recordClearPairs(program: Program): void {
    program.clear(this.#pairSum);
  }

  override recordPairs(program: Program, size: number): void {
    if (!this.usesPairs) return;
    program.dispatch(mismatchedPairSum, {
      policy: this.policyLogProbs(size),
      reference: this.referenceLogProbs(size),
      pairValid: reshape(this.#pairValid, [size]),
      pairSum: this.#pairSum,
      metrics: this.metrics,
    });
  }

  override recordCoefficients(program: Program, size: number, stepNumbers: Tensor | undefined): void {
    const { beta, desirableWeight, undesirableWeight } = this.options;
    program.dispatch(ktoObjective, {
      policy: this.policyLogProbs(size),
      reference: this.referenceLogProbs(size),
      desirable: reshape(this.#desirable, [size]),
      pairSum: this.#pairSum,
      step: stepNumbers ?? reshape(this.device.unused, [STEP_NUMBERS.size]),
      coefficients: this.coefficients(size),
      metrics: this.metrics,
      beta,
      desirableWeight,
      undesirableWeight,
      clamped: this.options.referenceKind === "uniform" ? 0 : 1,
      wholeUpdate: (this.#kept || this.#dealt) && stepNumbers ? 1 : 0,
    });
  }

  override recordTokens(program: Program, size: number, sequenceRanges: Tensor): void {
    program.dispatch(tokenSums, {
      ranges: sliceRows(sequenceRanges, 0, size),
      ...this.tokenSums(size),
      desirable: reshape(this.#desirable, [size]),
      metrics: this.metrics,
    });
  }

  /** The losses of microbatches are averaged, as TRL does, unless all rows of an update weigh alike. */
  override microbatchWeight(batches: readonly Batch[]): number {
    return this.#kept ? 1 : 1 / batches.length;
  }

  override keepReference(start: number, size: number): void {
    this.device.copy(sliceRows(this.#referenceLogProbs, 0, size), this.#keptRows(start, size));
  }

  override restoreReference(start: number, size: number): void {
    this.device.copy(this.#keptRows(start, size), sliceRows(this.#referenceLogProbs, 0, size));
  }

  override keepLogProbs(start: number, size: number, ring: number): void {
    for (const [now, kept] of this.#nowAndKept(size)) {
      this.device.copy(sliceRows(now, 0, size), sliceRows(kept, start, size));
      this.device.copy(sliceRows(now, size, size), sliceRows(kept, ring + start, size));
    }
  }

  override restoreLogProbs(ring: number): void {
    for (const [now, kept] of this.#nowAndKept(ring)) this.device.copy(sliceRows(kept, 0, 2 * ring), now);
  }

  /** The log-probabilities of the policy and of the reference, and where they are kept. */
  #nowAndKept(size: number): [now: Tensor, kept: Tensor][] {
    const { reference, policy } = this.#kept ?? {};
    if (reference === undefined || policy === undefined) throw new Error("a ring is kept where it is evaluated");
    return [
      [this.policyLogProbs(size), policy],
      [this.referenceLogProbs(size), reference],
    ];
  }

  #keptRows(start: number, size: number): Tensor {
    if (this.#kept === undefined)
      throw new Error("log-probabilities are kept where a reference point spans microbatches");
    return sliceRows(this.#kept.reference, start, size);
  }

  override keepForLog(part: "examples" | "pairs" | "both", start: number, size: number): void {
    if (this.#logged === undefined) throw new Error("an update is logged where its rows have room");
    const { rows, policy, reference } = this.#logged;
    const both: [now: Tensor, kept: Tensor][] = [
      [this.policyLogProbs(size), policy],
      [this.referenceLogProbs(size), reference],
    ];
    for (const [now, kept] of both) {
      if (part !== "pairs") this.device.copy(sliceRows(now, 0, size), sliceRows(kept, start, size));
      if (part === "examples" || !this.usesPairs) continue;
      this.device.copy(sliceRows(now, size, size), sliceRows(kept, rows + start, size));
    }
  }

  override async exampleLog(batches: readonly Batch[], ranks: Communicator): Promise<ExampleLog | undefined> {
    if (this.#logged === undefined) return undefined;
    const { rows } = this.#logged;
    const [policy, reference] = await Promise.all([
      this.device.download(this.#logged.policy),
      this.device.download(this.#logged.reference),
    ]);
    let row = 0;
    const own = batches.map(({ desirable, pairValid }) =>
      Array.from(desirable, (flag, i): LoggedRow => {
        const at = row++;
        const ratio = (place: number) => [policy[place] ?? Number.NaN, reference[place] ?? Number.NaN] as const;
        return {
          ...{ label: flag !== 0, valid: pairValid[i] !== 0, example: ratio(at) },
          pair: this.usesPairs ? ratio(rows + at) : undefined,
        };
      }),
    );
    const microbatches = await wholeMicrobatches(ranks, own);
    return exampleLog(this.#kept ? [microbatches.flat()] : microbatches, this.options);
  }

  override metricsOf(sums: ArrayLike<number>, cutPairs: number): Metrics {
    return objectiveMetrics(sums, cutPairs);
  }

  override intervalsOf(groups: readonly ArrayLike<number>[]): Metrics {
    return marginInterval(groups);
  }
}
