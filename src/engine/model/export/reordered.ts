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

/** The same values times a factor. */
export async function* scaled(pieces: Pieces, factor: number): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const piece of pieces) yield factor === 1 ? piece : piece.map((value) => value * factor);
}

/** The same values plus 1. */
export async function* increased(pieces: Pieces): AsyncGenerator<Float32Array<ArrayBuffer>> {
  for await (const piece of pieces) yield piece.map((value) => value + 1);
}
