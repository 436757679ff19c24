/**
 * RMSNorm of each head, gated by SiLU (Qwen3.5's DeltaNet), forward and backward, in float64: `y = rms(x) weight
 * silu(z)`. All heads share one weight of D numbers; rows are heads, N = T heads of them.
 */
import { sigmoid } from "./activation.ts";
import { add, at } from "./elements.ts";
import { rmsNormBackward, rmsNormForward } from "./norm.ts";

const silu = (x: number) => x * sigmoid(x);
const siluSlope = (x: number) => sigmoid(x) * (1 + x * sigmoid(-x));

/**
 * `y[n, d] = x[n, d] inverse[n] weight[d] silu(z[n, d])`, `inverse[n] = 1 / sqrt(mean_d x[n, d]^2 + epsilon)`.
 *
 * @param x [N, D] @param z [N, D] @param weight [D]
 * @returns y [N, D], inverse [N]
 */
export function gatedNormForward(
  x: Float64Array,
  z: Float64Array,
  weight: Float64Array,
  epsilon: number,
): { y: Float64Array; inverse: Float64Array } {
  const { y, inverseRms } = rmsNormForward(x, weight, epsilon);
  return { y: y.map((value, i) => value * silu(at(z, i))), inverse: inverseRms };
}

/**
 * @param dy [N, D] @param x [N, D] @param z [N, D] @param weight [D] @param inverse [N]
 * @returns dx [N, D], dz [N, D], dWeight [D]
 */
export function gatedNormBackward(
  dy: Float64Array,
  x: Float64Array,
  z: Float64Array,
  weight: Float64Array,
  inverse: Float64Array,
): { dx: Float64Array; dz: Float64Array; dWeight: Float64Array } {
  const size = weight.length;
  const dNormed = dy.map((value, i) => value * silu(at(z, i)));
  const { dx, dWeight } = rmsNormBackward(dNormed, x, weight, inverse);
  const dz = new Float64Array(z.length);
  for (let i = 0; i < z.length; i++) {
    const normed = at(x, i) * at(inverse, Math.floor(i / size)) * at(weight, i % size);
    add(dz, i, at(dy, i) * normed * siluSlope(at(z, i)));
  }
  return { dx, dz, dWeight };
}
