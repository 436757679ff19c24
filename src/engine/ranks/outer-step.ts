/**
 * DiLoCo's outer step over an arena (Douillard et al. 2023): what the ranks changed by themselves is averaged, and a
 * step of SGD with Nesterov momentum goes along the mean. Each rank computes its slices, on the host and in float64,
 * and gives them to all; it keeps the weights of the last outer step and the momentum of its slices alone, so that no
 * device memory is taken. The same in plain numbers: `kernels/float64/outer-step.ts`.
 */
import type { Arena } from "../gpu/arena.ts";
import { partWindows } from "../gpu/parts.ts";
import { Staging } from "../gpu/staging.ts";
import { windowsOfRank } from "./arena-sum.ts";
import type { Communicator } from "./communicator.ts";
import type { Piece } from "./pieces.ts";
import { gatherSlices, Scratch, sliceSize, sumOverRanks, sumSlice } from "./sums.ts";

export interface OuterOptions {
  readonly learningRate: number;
  /** From 0 to below 1. */
  readonly momentum: number;
}

/** What a rank keeps of its slice of a piece: f32 [cuts[rank + 1] - cuts[rank]] each. */
export interface OuterSlice {
  /** The weights as the last outer step left them. */
  readonly weights: Float32Array<ArrayBuffer>;
  readonly momentum: Float32Array<ArrayBuffer>;
}

export class OuterStep {
  readonly #ranks: Communicator;
  readonly #arena: Arena;
  readonly #pieces: readonly Piece[];
  readonly #options: OuterOptions;
  readonly #staging: Staging;
  readonly #scratch = new Scratch();
  /** By piece. */
  readonly slices: readonly OuterSlice[];

  /** @param arena what is trained; pieces divide those parameters of it that are */
  constructor(ranks: Communicator, arena: Arena, pieces: readonly Piece[], options: OuterOptions) {
    this.#ranks = ranks;
    this.#arena = arena;
    this.#pieces = pieces;
    this.#options = options;
    this.#staging = new Staging(arena.device);
    this.slices = pieces.map(({ cuts }) => {
      const size = sliceSize(cuts, ranks.rank);
      return { weights: new Float32Array(size), momentum: new Float32Array(size) };
    });
  }

  /** Takes the weights as they are, the same on every rank, for those after an outer step; the momentum becomes 0. */
  async begin(): Promise<void> {
    for (const [index, piece] of this.#pieces.entries()) {
      const windows = windowsOfRank(this.#arena, piece, this.#ranks.rank);
      const slice = this.slices[index];
      if (slice) await this.#staging.readInto(windows, slice.weights);
      slice?.momentum.fill(0);
    }
  }

  /**
   * One outer step; every rank calls it, and has the same weights then.
   *
   * @returns the L2 norm of the mean change, the same on every rank
   */
  async step(): Promise<number> {
    const scratch = this.#scratch;
    let squares = 0;
    for (const [index, piece] of this.#pieces.entries()) {
      const windows = partWindows(this.#arena, piece.parts);
      const numbers = await this.#staging.readInto(windows, scratch.f32("numbers", piece.elements));
      const slice = this.slices[index];
      if (slice === undefined) throw new Error(`there is no slice of piece ${index}`);
      const room = scratch.f64("sums", slice.weights.length);
      squares += this.#move(slice, await sumSlice(this.#ranks, numbers, piece.cuts, room, scratch));
      await gatherSlices(this.#ranks, slice.weights, piece.cuts, numbers, scratch);
      this.#staging.write(windows, numbers);
    }
    const [total = Number.NaN] = await sumOverRanks(this.#ranks, Float64Array.of(squares));
    return Math.sqrt(total);
  }

  /** Gives memory back that numbers passed through. */
  free(): void {
    this.#staging.free();
  }

  /** Moves a slice. @param sums of the weights of all ranks @returns the sum of squares of the mean change */
  #move({ weights, momentum }: OuterSlice, sums: Float64Array): number {
    const { learningRate, momentum: kept } = this.#options;
    const { size } = this.#ranks;
    let squares = 0;
    for (let i = 0; i < sums.length; i++) {
      const before = weights[i] ?? Number.NaN;
      const gradient = before - (sums[i] ?? Number.NaN) / size;
      const velocity = kept * (momentum[i] ?? Number.NaN) + gradient;
      momentum[i] = velocity;
      weights[i] = before - learningRate * (gradient + kept * velocity);
      squares += gradient * gradient;
    }
    return squares;
  }
}
