/** NEFTune's noise in plain TypeScript; see `../uniform-noise.ts`. */
import { dropoutHash } from "./dropout.ts";

/** amplitude (2 u - 1) for each of `count` elements, u with the 24 bits that f32 holds. */
export function uniformNoise(
  count: number,
  amplitude: number,
  stream: number,
  state: readonly [number, number, number, number],
): Float64Array {
  return Float64Array.from(
    { length: count },
    (_, i) => amplitude * ((dropoutHash(i, stream, state) >>> 8) / 2 ** 23 - 1),
  );
}
