/**
 * How an arena is exchanged: in pieces, each divided into one slice for each rank, which that rank adds up and, where
 * optimizer state is sharded, updates. All follows from the layout and the number of ranks, so every rank knows it.
 */
import type { ParameterLayout } from "../gpu/arena.ts";
import { PART_STEP, type ParameterSlice, paddedSize } from "../gpu/parts.ts";
import { elementCount } from "../gpu/tensor.ts";
import { PIECE_BYTES } from "./communicator.ts";

/** What is exchanged at once: parts in the order of their memory, one behind the other with their padding. */
export interface Piece {
  readonly parts: readonly ParameterSlice[];
  /** Padding included. */
  readonly elements: number;
  /** Rank r has the elements [cuts[r], cuts[r + 1]). */
  readonly cuts: readonly number[];
}

/**
 * The pieces of an arena by the stage after which they are final; a stage whose parameters are few has none of its own
 * and leaves them to the next one, so that a piece is worth its latency.
 *
 * @param stages the names of the arena's parameters
 */
export function piecesOfStages(
  layout: ParameterLayout,
  stages: readonly (readonly string[])[],
  ranks: number,
  pieceBytes = PIECE_BYTES,
): Piece[][] {
  let names: string[] = [];
  return stages.map((stage, index) => {
    names.push(...stage);
    const bytes = names.reduce((sum, name) => sum + 4 * paddedSize(sizeOf(layout, name)), 0);
    if (bytes === 0 || (bytes < pieceBytes && index < stages.length - 1)) return [];
    const pieces = piecesOf(layout, names, ranks, pieceBytes);
    names = [];
    return pieces;
  });
}

const sizeOf = (layout: ParameterLayout, name: string) => elementCount(layout.place(name).spec.shape);

/** Parameters in pieces of at most so many bytes, in the order of their memory; a larger one is divided. */
function piecesOf(layout: ParameterLayout, names: readonly string[], ranks: number, pieceBytes: number): Piece[] {
  const most = Math.max(1, Math.floor(pieceBytes / 4 / PART_STEP)) * PART_STEP;
  const inOrder = names
    .map((name) => ({ name, ...layout.place(name) }))
    .sort((a, b) => a.segment - b.segment || a.offset - b.offset);
  const pieces: ParameterSlice[][] = [];
  let room = 0;
  for (const { name, spec } of inOrder) {
    const size = elementCount(spec.shape);
    for (let from = 0; from < size; ) {
      const whole = paddedSize(size - from);
      if (room < Math.min(whole, PART_STEP)) {
        pieces.push([]);
        room = most;
      }
      const here = whole <= room ? size - from : Math.floor(room / PART_STEP) * PART_STEP;
      pieces.at(-1)?.push({ name, from, size: here });
      room -= paddedSize(here);
      from += here;
    }
  }
  return pieces.map((parts) => {
    const elements = parts.reduce((sum, { size }) => sum + paddedSize(size), 0);
    return { parts, elements, cuts: cutsOf(parts, elements, ranks) };
  });
}

/** Cuts into slices as equal as parts allow. */
function cutsOf(parts: readonly ParameterSlice[], elements: number, ranks: number): number[] {
  const cuts = Array.from({ length: ranks }, (_, rank) => (rank * elements) / ranks);
  let start = 0;
  for (const { size } of parts) {
    const padded = paddedSize(size);
    for (const [rank, cut] of cuts.entries()) {
      if (cut <= start || cut >= start + padded) continue;
      const within = Math.round((cut - start) / PART_STEP) * PART_STEP;
      cuts[rank] = start + Math.min(within, padded);
    }
    start += padded;
  }
  return [...cuts, elements];
}

/** The parts of a piece that a rank has. */
export function partsOfRank({ parts, cuts }: Piece, rank: number): ParameterSlice[] {
  const [first = 0, end = 0] = [cuts[rank], cuts[rank + 1]];
  let start = 0;
  return parts.flatMap((part) => {
    const begin = start;
    start += paddedSize(part.size);
    const [low, high] = [Math.max(0, first - begin), Math.min(part.size, end - begin)];
    return low < high ? [{ name: part.name, from: part.from + low, size: high - low }] : [];
  });
}
