/** The token that follows rows of logits and the rows of the pass about it, in plain TypeScript. */
import { NO_ROW } from "../embedding.ts";
import { NO_TOKEN, THREEFRY_PARITY, THREEFRY_TURNS } from "../next-token.ts";

type Words = readonly [number, number];

/** Threefry-2x32 with 20 rounds: two random words of a key and a counter. */
export function threefry([key0, key1]: Words, [counter0, counter1]: Words): Words {
  const words = [key0, key1, (key0 ^ key1 ^ THREEFRY_PARITY) >>> 0];
  const word = (index: number) => words[index % 3] ?? 0;
  let [x, y] = [(counter0 + key0) >>> 0, (counter1 + key1) >>> 0];
  for (let round = 0; round < 20; round++) {
    const turn = THREEFRY_TURNS[round % 8] ?? 0;
    x = (x + y) >>> 0;
    y = (((y << turn) | (y >>> (32 - turn))) ^ x) >>> 0;
    if (round % 4 < 3) continue;
    const injection = (round + 1) / 4;
    x = (x + word(injection)) >>> 0;
    y = (y + word(injection + 1) + injection) >>> 0;
  }
  return [x, y];
}

/** What is drawn in a row: a key and a position in the sequence, at a temperature. */
export interface Draw {
  readonly key: Words;
  readonly position: number;
  readonly temperature: number;
}

/** The Gumbel noise of a token. Its uniform number is rounded as f32 rounds it, to fewer digits the nearer it is to 1. */
export function gumbelNoise({ key, position }: Draw, token: number): number {
  const pair = threefry(key, [token >>> 1, position]);
  const bits = pair[token & 1] ?? 0;
  const uniform = Math.min(Math.fround(Math.fround(bits) + 0.5) * 2 ** -32, 1 - 2 ** -24);
  return -Math.log(-Math.log1p(-uniform));
}

/** Logits [N, V] -> what the token of each row is the largest of. */
export function tokenValues(logits: ArrayLike<number>, draws: readonly Draw[]): number[][] {
  const width = logits.length / draws.length;
  return draws.map((draw, row) =>
    Array.from({ length: width }, (_, token) => {
      const logit = logits[row * width + token] ?? Number.NaN;
      return draw.temperature === 0 ? logit : logit + draw.temperature * gumbelNoise(draw, token);
    }),
  );
}

/** The least of the tokens with the largest value of each row, NO_TOKEN where a logit is not finite. */
export function nextTokens(logits: ArrayLike<number>, draws: readonly Draw[]): number[] {
  return tokenValues(logits, draws).map((values) => {
    if (!values.every(Number.isFinite)) return NO_TOKEN;
    return values.indexOf(values.reduce((a, b) => Math.max(a, b)));
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
