/** The values of a matrix in another order, piece by piece as they come from a file. */

type Pieces = AsyncIterable<Float32Array<ArrayBuffer>>;

/**
 * Rows of heads in the order of neighbouring rotary pairs: of the D rows of a head, i and i + D/2 become 2i and 2i + 1.
 * A head at a time is in memory. Also for a bias, whose rows have one column.
 *
 * @param headSize D; @param columns of a row
 */
export async function* permutedRows(
  pieces: Pieces,
  headSize: number,
  columns: number,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const head = new Float32Array(headSize * columns);
  let filled = 0;
  for await (const piece of pieces) {
    for (let from = 0; from < piece.length; ) {
      const taken = piece.subarray(from, from + head.length - filled);
      head.set(taken, filled);
      filled += taken.length;
      from += taken.length;
      if (filled < head.length) continue;
      yield withNeighbours(head, headSize, columns);
      filled = 0;
    }
  }
}

function withNeighbours(head: Float32Array, headSize: number, columns: number): Float32Array<ArrayBuffer> {
  const reordered = new Float32Array(head.length);
  for (let row = 0; row < headSize; row++) {
    const half = headSize / 2;
    const to = row < half ? 2 * row : 2 * (row - half) + 1;
    reordered.set(head.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return reordered;
}

/** The transpose of a matrix [rows, columns], which is wholly in memory for it. */
export async function* transposed(
  pieces: Pieces,
  rows: number,
  columns: number,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const result = new Float32Array(rows * columns);
  let at = 0;
  for await (const piece of pieces) {
    for (const value of piece) {
      const column = at % columns;
      result[column * rows + (at - column) / columns] = value;
      at++;
    }
  }
  yield result;
}

/** The values of the pieces, in their order, times a factor. */
export async function* scaled(pieces: Pieces, factor: number): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const piece of pieces) yield factor === 1 ? piece : piece.map((value) => value * factor);
}

/** Each value as a function of it. */
export async function* mapped(
  pieces: Pieces,
  written: (value: number) => number,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const piece of pieces) yield piece.map(written);
}

/** `groups` groups of `each` heads of `size` rows or columns, from number `first` on, the last ones of a matrix. */
export interface TiledHeads {
  readonly axis: "rows" | "columns";
  readonly first: number;
  readonly groups: number;
  readonly each: number;
  readonly size: number;
}

/** The first head of every group, then the second ones. The matrix is wholly in memory for it. */
export async function* tiled(
  pieces: Pieces,
  { axis, first, groups, each, size }: TiledHeads,
  columns: number,
): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const parts: Float32Array[] = [];
  for await (const piece of pieces) parts.push(piece);
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  const result = whole.slice();
  // Of rows, a head lies in one piece; of columns, in one of each row.
  const [width, run, offset, rows] =
    axis === "rows"
      ? [whole.length, size * columns, first * columns, 1]
      : [columns, size, first, whole.length / columns];
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      for (let head = 0; head < each; head++) {
        const from = row * width + offset + (group * each + head) * run;
        result.set(whole.subarray(from, from + run), row * width + offset + (head * groups + group) * run);
      }
    }
  }
  yield result;
}
