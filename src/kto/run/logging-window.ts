/**
 * The logging window of a run: what the host counts since the last line of the metrics, the sums that the device keeps
 * meanwhile, and the error where no update is possible any more. Everything but time is part of a checkpoint.
 */
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { byFirst } from "../../engine/ranks/sums.ts";
import { NumericError } from "../../errors.ts";
import { OPTIMIZER_STATE } from "../../kernels/reduce.ts";
import { type Metrics, numbersOf, type RankTimes, windowMetrics } from "../method/metrics.ts";
import type { Update } from "../method/update.ts";
import type { JointReport } from "./rank-reports.ts";

/** Updates in a row that may be skipped because a gradient was not finite, before the run is given up. */
const MOST_SKIPPED = 10;

/** The counts of the host; plain numbers, as they stand in a checkpoint. */
export interface WindowCounts {
  /** Tokens of examples trained on since the start. */
  readonly tokens: number;
  /** Token rows that the models ran forward since the start. */
  readonly rowsRun: number;
  readonly windowTokens: number;
  readonly windowCutPairs: number;
  /** The norm of the mean change of the window's last outer step, if it had one. */
  readonly windowOuterNorm?: number | undefined;
}

/** Where a run is when a window ends. */
export interface WindowEnd {
  readonly step: number;
  readonly totalSteps: number;
  readonly epoch: number;
  readonly learningRate: number;
  /** Names of the rows of the last microbatch, to say where gradients were not finite. */
  readonly rows: () => string;
}

export class LoggingWindow {
  readonly #update: Update;
  #counts: WindowCounts = { tokens: 0, rowsRun: 0, windowTokens: 0, windowCutPairs: 0 };
  /** Milliseconds of the window in which the loop ran, and since when it runs now. */
  #ms = 0;
  #runningSince = 0;
  readonly #ranks: Communicator;
  /** By rank, over the window. */
  #times: { ms: number; waitingMs: number }[] = [];

  /** @param ranks whose metrics all get those of rank 0, which has everybody's sums */
  constructor(update: Update, ranks: Communicator) {
    this.#update = update;
    this.#ranks = ranks;
  }

  get counts(): WindowCounts {
    return this.#counts;
  }

  /** Goes on from the counts of a checkpoint; the device's sums are restored beside them. */
  restore(counts: WindowCounts): void {
    this.#counts = counts;
  }

  /** Time counts from here to `pause` or `end`. */
  resume(): void {
    this.#runningSince = performance.now();
  }

  pause(): void {
    this.#ms += performance.now() - this.#runningSince;
  }

  /** Counts an outer step. @param norm of the mean change */
  outerStep(norm: number): void {
    this.#counts = { ...this.#counts, windowOuterNorm: norm };
  }

  /** Counts an update. */
  add({ tokens, rowsRun, cutPairs, times }: JointReport): void {
    this.#times = times.map(({ ms, waitingMs }, rank) => {
      const before = this.#times[rank] ?? { ms: 0, waitingMs: 0 };
      return { ms: before.ms + ms, waitingMs: before.waitingMs + waitingMs };
    });
    const { windowTokens, windowCutPairs, ...rest } = this.#counts;
    this.#counts = {
      ...rest,
      tokens: rest.tokens + tokens,
      rowsRun: rest.rowsRun + rowsRun,
      windowTokens: windowTokens + tokens,
      windowCutPairs: windowCutPairs + cutPairs,
    };
  }

  /** The window's metrics; begins the next one. Throws NumericError when updates have long been impossible. */
  async end({ step, totalSteps, epoch, learningRate, rows }: WindowEnd): Promise<Metrics> {
    const { device, objective, optimizer } = this.#update;
    const deviceTimeShare = await this.#update.deviceTimeShare();
    const sums = await device.download(objective.metrics);
    const state = await device.download(optimizer.state);
    objective.clearMetrics();
    const seconds = Math.max(1e-3, (this.#ms + performance.now() - this.#runningSince) / 1000);
    const { windowTokens, windowCutPairs, windowOuterNorm: outerNorm, ...totals } = this.#counts;
    const own = windowMetrics(objective.metricsOf(sums, windowCutPairs), state, {
      epoch,
      learningRate,
      tokens: totals.tokens,
      tokensComputed: totals.rowsRun,
      tokensPerSecond: windowTokens / seconds,
      deviceTimeShare,
      outerNorm,
      memory: device.memory(),
      ranks: this.#ranks.size > 1 ? rankTimes(this.#times) : undefined,
    });
    const metrics = numbersOf(await byFirst(this.#ranks, async () => own));
    const skipped = state[OPTIMIZER_STATE.skippedInRow] ?? 0;
    // At the end of a run nothing is left to recover in: two in a row are enough there.
    const most = step === totalSteps ? 2 : MOST_SKIPPED;
    if (skipped >= Math.min(most, totalSteps)) {
      throw new NumericError(
        `The gradients were not finite in ${skipped === 1 ? "the update" : `any of the ${skipped} updates`} up to step ${step}, so the model no longer changes; lower learning_rate, ${this.#update.precision === "fp16" ? "leave fp16 out (an activation may be beyond 65504), " : ""}or look for damaged weights (rows of the last microbatch: ${rows()}).`,
      );
    }
    this.#counts = { ...totals, windowTokens: 0, windowCutPairs: 0 };
    this.#ms = 0;
    this.#times = [];
    return metrics;
  }
}

/** The slowest rank is the one that waits least for others. */
function rankTimes(times: readonly { readonly ms: number; readonly waitingMs: number }[]): RankTimes {
  const computing = times.map(({ ms, waitingMs }) => ms - waitingMs);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return {
    count: times.length,
    slowest: computing.indexOf(Math.max(...computing)),
    communicationShare: 1 - sum(computing) / Math.max(1e-3, sum(times.map(({ ms }) => ms))),
  };
}
