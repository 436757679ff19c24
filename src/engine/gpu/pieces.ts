/**
 * A dispatch in pieces: where its estimated work exceeds what one dispatch may hold, the grid of a divisible kernel is
 * cut so that no driver takes the device for hung. Workgroups compute the same in any piece, so results keep their
 * bits. Not how pieces are spread over submits, which is `Program.run`.
 */
import type { Kernel, Values } from "../../kernels/kernel.ts";

/** A box of a dispatch's grid. */
export interface GridPiece {
  /** Its first workgroup in the whole grid. */
  readonly first: readonly [number, number];
  readonly grid: readonly [number, number, number];
  /** Its share of the dispatch's work. */
  readonly work: number;
}

/**
 * The grid of a kernel in pieces of at most `most` work: slices along y, whose workgroups share operands least, and
 * along x where one row of workgroups exceeds it. A single workgroup cannot be cut further, nor a kernel that is not
 * divisible. Empty where the grid is.
 *
 * @param work of the whole dispatch, in the unit of `most`
 */
export function piecesOf(kernel: Kernel, values: Values, work: number, most: number): GridPiece[] {
  const [x, y = 1, z = 1] = kernel.grid(values);
  if (x * y * z === 0) return [];
  if (!kernel.divisible || work <= most) return [{ first: [0, 0], grid: [x, y, z], work }];
  const workgroup = work / (x * y);
  return slices(y, most / (x * workgroup)).flatMap(([fromY, rows]) =>
    slices(x, most / (rows * workgroup)).map(
      ([fromX, columns]): GridPiece => ({
        first: [fromX, fromY],
        grid: [columns, rows, z],
        work: rows * columns * workgroup,
      }),
    ),
  );
}

/** [0, count) as [first, size] of at most `most` each, all about equally large. */
function slices(count: number, most: number): (readonly [number, number])[] {
  const size = Math.ceil(count / Math.ceil(count / Math.max(1, Math.floor(most))));
  return Array.from({ length: Math.ceil(count / size) }, (_, index) => {
    return [index * size, Math.min(size, count - index * size)] as const;
  });
}
