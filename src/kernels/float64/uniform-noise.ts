/** NEFTune's noise in plain TypeScript; see `../uniform-noise.ts`. */
import { type DropoutState, dropoutHash } from "./dropout.ts";

/** amplitude (2 u - 1) for each of C elements of each row, u with the 24 bits that f32 holds. @param keys of the rows */
export function uniformNoise(
  keys: ArrayLike<number>,
  C: number,
  amplitude: number,
  stream: number,
  state: DropoutState,
): Float64Array {
  return Float64Array.from({ length: keys.length * C }, (_, i) => {
    const hash = dropoutHash(keys[Math.floor(i / C)] ?? 0, i % C, stream, state);
    return amplitude * ((hash >>> 8) / 2 ** 23 - 1);
  });
}
