/** The likeliest token of rows of logits and the rows of the pass about it, in plain TypeScript. */
import { NO_ROW } from "../embedding.ts";
import { NO_TOKEN } from "../next-token.ts";

/** logits [N, V] -> the least of the likeliest tokens of each row, NO_TOKEN where a logit is not finite. */
export function likeliestTokens(logits: ArrayLike<number>, rows: number): number[] {
  const width = logits.length / rows;
  return Array.from({ length: rows }, (_, row) => {
    const own = Array.from({ length: width }, (_, token) => logits[row * width + token] ?? Number.NaN);
    if (!own.every(Number.isFinite)) return NO_TOKEN;
    return own.indexOf(own.reduce((a, b) => Math.max(a, b)));
  });
}

/** One row of a pass of generation: a token of a sequence whose first token has the cache row `first`. */
export interface GeneratedRow {
  readonly token: number;
  readonly position: number;
  readonly first: number;
}

/** The arrays of a pass of `rows` rows; those without a token are padding. */
export function passArrays(given: readonly GeneratedRow[], rows: number, window: number) {
  const arrays = {
    tokens: new Uint32Array(rows),
    positions: new Uint32Array(rows),
    ranges: new Uint32Array(4 * rows),
    windowRanges: new Uint32Array(4 * rows),
    cacheRows: new Uint32Array(rows).fill(NO_ROW),
  };
  given.forEach(({ token, position, first }, row) => {
    arrays.tokens[row] = token;
    arrays.positions[row] = position;
    arrays.cacheRows[row] = first + position;
    arrays.ranges.set([0, 0, first, first + position + 1], 4 * row);
    arrays.windowRanges.set([0, 0, first + Math.max(0, position + 1 - window), first + position + 1], 4 * row);
  });
  return arrays;
}
