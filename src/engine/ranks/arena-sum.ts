/**
 * The gradients of all ranks added up: every rank's arena is read back, summed in the order of the ranks (`sums.ts`)
 * and written again, piece by piece. A piece may begin as soon as its parameters' gradients are final, while the device
 * computes the others; which pieces there are, and so every bit of the sums, does not depend on when.
 */
import type { Arena } from "../gpu/arena.ts";
import { partWindows } from "../gpu/parts.ts";
import type { Reading, Staging } from "../gpu/staging.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Communicator } from "./communicator.ts";
import { type Piece, partsOfRank } from "./pieces.ts";
import { gatherSlices, Scratch, sliceSize, sumSlice } from "./sums.ts";

/** Bytes that may wait on the host while the device computes on. */
const MOST_WAITING = 2 ** 27;

/** What becomes of one piece, for whoever measures; milliseconds of `performance.now()`. */
export interface PieceTimes {
  readonly bytes: number;
  /** When it may begin, when its numbers are on the host, and when the sums are on their way to the device. */
  readonly begun: number;
  readonly read: number;
  readonly summed: number;
}

export class ArenaSum {
  readonly #ranks: Communicator;
  readonly #arena: Arena;
  readonly #pieces: readonly (readonly Piece[])[];
  readonly #scatters: boolean;
  readonly #staging: Staging;
  readonly #scratch = new Scratch();
  #begun = 0;
  #waiting = 0;
  #work: Promise<void> = Promise.resolve();
  /** Told of every piece that is done; nothing by default. */
  onPiece: ((times: PieceTimes) => void) | undefined;

  /**
   * @param pieces by the stage after which they are final, see `piecesOfStages`
   * @param staging of the arena's device; whoever made it frees it
   * @param options.scatters whether a rank needs the sums of its own slices alone; the others keep its own numbers
   */
  constructor(
    ranks: Communicator,
    arena: Arena,
    pieces: readonly (readonly Piece[])[],
    staging: Staging,
    { scatters = false }: { readonly scatters?: boolean } = {},
  ) {
    this.#ranks = ranks;
    this.#arena = arena;
    this.#pieces = pieces;
    this.#staging = staging;
    this.#scatters = scatters;
  }

  /** Whether a piece begins after this stage, so that it is worth a mark in a program. */
  begins(stage: number): boolean {
    return (this.#pieces[stage]?.length ?? 0) > 0;
  }

  /** Begins the sums of what is final after this stage of the work submitted so far; of every stage in turn. */
  finished(stage: number): void {
    for (; this.#begun <= stage; this.#begun++) {
      for (const piece of this.#pieces[this.#begun] ?? []) this.#begin(piece);
    }
  }

  #begin(piece: Piece): void {
    const windows = partWindows(this.#arena, piece.parts);
    const bytes = 4 * piece.elements;
    const begun = performance.now();
    const staging = this.#staging;
    // Read behind the work submitted so far, or, where much waits already, when its turn has come.
    const early: Reading | undefined = this.#waiting + bytes <= MOST_WAITING ? staging.read(windows) : undefined;
    this.#waiting += bytes;
    this.#work = this.#work.then(async () => {
      const scratch = this.#scratch;
      const numbers = scratch.f32("numbers", piece.elements);
      await (early ?? staging.read(windows)).take(numbers);
      const at = performance.now();
      const room = scratch.f32("sums", sliceSize(piece.cuts, this.#ranks.rank));
      const sums = await sumSlice(this.#ranks, numbers, piece.cuts, room, scratch);
      if (this.#scatters) {
        staging.write(windowsOfRank(this.#arena, piece, this.#ranks.rank), sums);
      } else {
        await gatherSlices(this.#ranks, sums, piece.cuts, numbers, scratch);
        staging.write(windows, numbers);
      }
      this.#waiting -= bytes;
      this.onPiece?.({ bytes, begun, read: at, summed: performance.now() });
    });
    this.#work.catch(() => undefined); // `end` throws it
  }

  /** Sums what is left; done once every rank's arena holds the sums. The next sum begins at the first stage again. */
  async end(): Promise<void> {
    this.finished(this.#pieces.length - 1);
    const work = this.#work;
    this.#begun = 0;
    this.#waiting = 0;
    this.#work = Promise.resolve();
    await work;
  }
}

/**
 * Gives every rank the numbers that each rank has of its own slices of an arena.
 *
 * @param staging of the arena's device
 * @param scratch see `Scratch`
 */
export async function gatherArena(
  ranks: Communicator,
  arena: Arena,
  pieces: readonly Piece[],
  staging: Staging,
  scratch = new Scratch(),
): Promise<void> {
  const read = (piece: Piece | undefined) => piece && staging.read(windowsOfRank(arena, piece, ranks.rank));
  let next = read(pieces[0]);
  for (const [index, piece] of pieces.entries()) {
    const own = scratch.f32("own", next?.length ?? 0);
    await next?.take(own);
    next = read(pieces[index + 1]);
    const all = scratch.f32("all", piece.elements);
    await gatherSlices(ranks, own, piece.cuts, all, scratch);
    staging.write(partWindows(arena, piece.parts), all);
  }
}

/** The windows of a rank's slice of a piece. */
export function windowsOfRank(arena: Arena, piece: Piece, rank: number): Tensor[] {
  return partWindows(arena, partsOfRank(piece, rank));
}
