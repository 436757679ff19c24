/**
 * What the ranks of a run tell each other after each update beside numbers of the model: what the host counted, the
 * time that each computed, whether one was asked to stop, so that all stop after the same update, and which kernels its
 * tuner chose, so that each goes on from a checkpoint with its own.
 */
import type { Tuner } from "../../engine/gpu/tuner.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { MeasuredRanks } from "../../engine/ranks/measured.ts";
import { gatherJson, gatherNumbers } from "../../engine/ranks/sums.ts";

/** What one rank reports of one update. */
export interface RankReport {
  /** Tokens of the examples trained on: of all ranks, or, where ranks have rows of their own, of this one. */
  readonly tokens: number;
  /** Token rows that the models ran forward. */
  readonly rowsRun: number;
  readonly cutPairs: number;
  readonly stops: boolean;
}

/** What all ranks together report of one update, and the time of each. */
export interface JointReport extends RankReport {
  /** By rank: milliseconds of the update, and those of them in which it waited for others. */
  readonly times: readonly { readonly ms: number; readonly waitingMs: number }[];
}

export class RankReports {
  readonly #ranks: Communicator;
  readonly #isLocal: boolean;
  readonly #tuner: Pick<Tuner, "choices">;
  #since = 0;
  /** By rank, how many choices it has told of. */
  #told: readonly number[] = [];
  /** By rank, what its tuner chose up to the last update; undefined for one process, and before an update. */
  tuning: Readonly<Record<string, string>>[] | undefined;

  /** @param isLocal whether ranks have rows of their own */
  constructor(ranks: Communicator, isLocal: boolean, tuner: Pick<Tuner, "choices">) {
    this.#ranks = ranks;
    this.#isLocal = isLocal;
    this.#tuner = tuner;
  }

  /** An update begins. */
  begin(): void {
    this.#since = performance.now();
    if (this.#ranks instanceof MeasuredRanks) this.#ranks.takeMs();
  }

  /** An update has ended on this rank. */
  async end(own: RankReport): Promise<JointReport> {
    const ms = performance.now() - this.#since;
    const waitingMs = this.#ranks instanceof MeasuredRanks ? this.#ranks.takeMs() : 0;
    if (this.#ranks.size === 1) return { ...own, times: [{ ms, waitingMs }] };
    const { choices } = this.#tuner;
    const chosen = Object.keys(choices).length;
    const numbers = Float64Array.of(own.rowsRun, own.cutPairs, own.stops ? 1 : 0, ms, waitingMs, own.tokens, chosen);
    const all = await gatherNumbers(this.#ranks, numbers);
    const told = all.map((one) => one[6] ?? 0);
    // All ranks see the same numbers, so either all gather or none. A choice stands, so most updates bring no new one.
    if (told.some((count, rank) => count !== this.#told[rank])) this.tuning = await gatherJson(this.#ranks, choices);
    this.#told = told;
    const sum = (place: number) => all.reduce((total, one) => total + (one[place] ?? 0), 0);
    const times = all.map(([, , , ms = 0, waitingMs = 0]) => ({ ms, waitingMs }));
    const tokens = this.#isLocal ? sum(5) : own.tokens;
    return { tokens, rowsRun: sum(0), cutPairs: sum(1), stops: sum(2) > 0, times };
  }
}
