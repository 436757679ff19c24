/** Dropout's mask in plain TypeScript; see `../dropout.ts`. */

/** The hash that decides about element i: PCG4D's first word. `state` is [seed, update, microbatch, spare]. */
export function dropoutHash(i: number, stream: number, state: readonly [number, number, number, number]): number {
  const step = (word: number) => (Math.imul(word, 1664525) + 1013904223) >>> 0;
  const [seed, update, microbatch, spare] = state;
  let x = step(i);
  let y = step((stream ^ Math.imul(spare, 0x9e3779b9)) >>> 0);
  let z = step(seed);
  let w = step((Math.imul(update, 65536) + microbatch) >>> 0);
  x = (x + Math.imul(y, w)) >>> 0;
  y = (y + Math.imul(z, x)) >>> 0;
  z = (z + Math.imul(x, y)) >>> 0;
  w = (w + Math.imul(y, z)) >>> 0;
  x ^= x >>> 16;
  y ^= y >>> 16;
  w ^= w >>> 16;
  return (x + Math.imul(y, w)) >>> 0;
}

/** dropout(x) with the share p left out. */
export function dropout(
  x: Float64Array,
  p: number,
  stream: number,
  state: readonly [number, number, number, number],
): Float64Array {
  const threshold = Math.round(p * 2 ** 32);
  return x.map((value, i) => (dropoutHash(i, stream, state) >= threshold ? value / (1 - p) : 0));
}
