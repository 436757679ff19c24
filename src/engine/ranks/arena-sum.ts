/**
 * The gradients of all ranks added up: every rank's arena is read back, summed in the order of the ranks (`sums.ts`)
 * and written again, bucket by bucket. A bucket may begin as soon as its parameters' gradients are final, while the
 * device computes the others; which buckets there are, and so every bit of the sums, does not depend on when.
 */
import type { Arena } from "../gpu/arena.ts";
import { byteLength, elementCount, sliceRows, type Tensor, WINDOW_ALIGNMENT } from "../gpu/tensor.ts";
import type { Communicator } from "./communicator.ts";
import { sumInPlace } from "./sums.ts";

/** Bytes from which on finished parameters are sent, and those that are read back at once: latency is small then. */
const BUCKET_BYTES = 2 ** 24;
/** Bytes that may wait on the host while the device computes on. */
const MOST_WAITING = 2 ** 28;

/** Windows of the arena that are read back together. */
interface Piece {
  readonly windows: readonly Tensor[];
  readonly bytes: number;
}

export class ArenaSum {
  readonly #ranks: Communicator;
  readonly #arena: Arena;
  /** By the stage after which they are final; a stage may have none of its own. */
  readonly #buckets: readonly (readonly Piece[])[];
  #begun = 0;
  #waiting = 0;
  #work: Promise<void> = Promise.resolve();

  /**
   * @param stages the names of the arena's parameters, as their gradients become final one stage after another; the
   * same on every rank
   */
  constructor(
    ranks: Communicator,
    arena: Arena,
    stages: readonly (readonly string[])[],
    { bucketBytes = BUCKET_BYTES }: { readonly bucketBytes?: number } = {},
  ) {
    this.#ranks = ranks;
    this.#arena = arena;
    this.#buckets = bucketsOf(arena, stages, bucketBytes);
  }

  /** Whether a bucket begins after this stage, so that it is worth a mark in a program. */
  begins(stage: number): boolean {
    return (this.#buckets[stage]?.length ?? 0) > 0;
  }

  /** Begins the sums of what is final after this stage of the work submitted so far; of every stage in turn. */
  finished(stage: number): void {
    for (; this.#begun <= stage; this.#begun++) {
      for (const piece of this.#buckets[this.#begun] ?? []) this.#begin(piece);
    }
  }

  #begin(piece: Piece): void {
    const { device } = this.#arena;
    const read = () => device.downloadAll(piece.windows);
    // Read behind the work submitted so far, or, where much waits already, when its turn has come.
    const early = this.#waiting + piece.bytes <= MOST_WAITING ? read() : undefined;
    early?.catch(() => undefined); // it is awaited below, perhaps after an earlier piece has failed
    this.#waiting += piece.bytes;
    this.#work = this.#work.then(async () => {
      const numbers = new Float32Array(await (early ?? read()));
      await sumInPlace(this.#ranks, numbers);
      let from = 0;
      for (const window of piece.windows) {
        const size = elementCount(window.shape);
        device.upload(window, numbers.subarray(from, from + size));
        from += size;
      }
      this.#waiting -= piece.bytes;
    });
    this.#work.catch(() => undefined); // `end` throws it
  }

  /** Sums what is left; done once every rank's arena holds the sums. The next sum begins at the first stage again. */
  async end(): Promise<void> {
    this.finished(this.#buckets.length - 1);
    const work = this.#work;
    this.#begun = 0;
    this.#waiting = 0;
    this.#work = Promise.resolve();
    await work;
  }
}

/** Small stages wait for the next ones, so that a bucket is worth its latency. */
function bucketsOf(arena: Arena, stages: readonly (readonly string[])[], bucketBytes: number): Piece[][] {
  let names: string[] = [];
  return stages.map((stage, index) => {
    names.push(...stage);
    const windows = neighbours(arena, names);
    const bytes = windows.reduce((sum, window) => sum + byteLength(window), 0);
    if (bytes === 0 || (bytes < bucketBytes && index < stages.length - 1)) return [];
    names = [];
    return piecesOf(windows, bucketBytes);
  });
}

/** The windows of parameters, those that lie beside each other as one; with the padding between them. */
function neighbours(arena: Arena, names: readonly string[]): Tensor[] {
  const places = names.map((name) => ({ ...arena.layout.place(name), size: 0 }));
  for (const place of places) {
    const step = WINDOW_ALIGNMENT / 4;
    place.size = Math.ceil(elementCount(place.spec.shape) / step) * step;
  }
  places.sort((a, b) => a.segment - b.segment || a.offset - b.offset);
  const merged: { segment: number; offset: number; size: number }[] = [];
  for (const { segment, offset, size } of places) {
    const last = merged.at(-1);
    if (last?.segment === segment && last.offset + last.size === offset) last.size += size;
    else merged.push({ segment, offset, size });
  }
  return merged.map(({ size, ...place }) => arena.at(place, [size]));
}

/** Windows in groups of at most so many bytes; a larger one is cut. */
function piecesOf(windows: readonly Tensor[], most: number): Piece[] {
  const pieces: { windows: Tensor[]; bytes: number }[] = [];
  const rows = Math.max(1, Math.floor(most / WINDOW_ALIGNMENT)) * (WINDOW_ALIGNMENT / 4);
  for (const window of windows) {
    const size = elementCount(window.shape);
    for (let from = 0; from < size; from += rows) {
      const part = sliceRows(window, from, Math.min(rows, size - from));
      const last = pieces.at(-1);
      if (last && last.bytes + byteLength(part) <= most) {
        last.windows.push(part);
        last.bytes += byteLength(part);
      } else pieces.push({ windows: [part], bytes: byteLength(part) });
    }
  }
  return pieces;
}
