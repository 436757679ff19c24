/** The norm over all gradients and the factor that clips it, in float64, as `torch.nn.utils.clip_grad_norm_` does. */
import { at } from "./elements.ts";

/** `sqrt(sum of squares over every element of every array)`; 0 for none. */
export function globalNorm(arrays: Iterable<Float64Array>): number {
  let squares = 0;
  for (const values of arrays) {
    for (let i = 0; i < values.length; i++) squares += at(values, i) ** 2;
  }
  return Math.sqrt(squares);
}

/** The factor for every gradient: `min(1, maxNorm / (norm + 1e-6))`. NaN stays NaN. */
export function clipScale(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}
