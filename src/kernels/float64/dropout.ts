/** Dropout's mask in plain TypeScript; see `../dropout.ts`. */

/** [seed, update]. */
export type DropoutState = readonly [number, number];

/** The hash that decides about one element: PCG4D's first word. */
export function dropoutHash(key: number, column: number, stream: number, [seed, update]: DropoutState): number {
  const step = (word: number) => (Math.imul(word, 1664525) + 1013904223) >>> 0;
  let x = step(key);
  let y = step((column + Math.imul(stream, 0x9e3779b9)) >>> 0);
  let z = step(seed);
  let w = step(update);
  x = (x + Math.imul(y, w)) >>> 0;
  y = (y + Math.imul(z, x)) >>> 0;
  z = (z + Math.imul(x, y)) >>> 0;
  w = (w + Math.imul(y, z)) >>> 0;
  x ^= x >>> 16;
  y ^= y >>> 16;
  w ^= w >>> 16;
  return (x + Math.imul(y, w)) >>> 0;
}

/** dropout(x [T, C]) with the share p left out. @param keys of its T rows */
export function dropout(
  x: Float64Array,
  keys: ArrayLike<number>,
  p: number,
  stream: number,
  state: DropoutState,
): Float64Array {
  const threshold = Math.round(p * 2 ** 32);
  const C = x.length / keys.length;
  return x.map((value, i) => {
    const hash = dropoutHash(keys[Math.floor(i / C)] ?? 0, i % C, stream, state);
    return hash >= threshold ? value / (1 - p) : 0;
  });
}
