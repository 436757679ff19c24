/**
 * Rotary positions (Su et al. 2021) in float64, in Hugging Face's "rotate_half" convention: channel i of a head turns
 * with channel i + D/2, not with its neighbour. Each row has a position of its own; the row index plays no part.
 */
import type { RopeScaling } from "../rope-table.ts";
import { at, idAt } from "./elements.ts";

export interface RopeInputs {
  /** [T, heads, D] */
  readonly x: Float64Array;
  /** [T] */
  readonly positions: ArrayLike<number>;
  readonly heads: number;
  /** D */
  readonly headSize: number;
  readonly theta: number;
  /** Default: none. */
  readonly scaling?: RopeScaling;
  /** r, even: the first channels of a head, which alone are rotated. Default: all. */
  readonly rotated?: number;
  /** Tokens of the whole sequence, by which "longrope" chooses. Default: short. */
  readonly length?: number;
}

/**
 * Radians a position of channel pair i of `size` channels: `theta^(-2i/size)`, scaled.
 *
 * "linear": over the factor. "llama3", by the wavelength `2 pi / frequency` and the original context L: wavelengths
 * above `L / lowFrequencyFactor` over the factor, those below `L / highFrequencyFactor` as they are, between them
 * `(1 - s) frequency / factor + s frequency` with `s = (L / wavelength - low) / (high - low)`. "yarn": the same blend,
 * with `1 - s` growing from 0 to 1 between the pairs that turn betaFast and betaSlow times within L. "longrope": over
 * the pair's own factor, of the long ones where the sequence has more tokens than L.
 */
export function ropeFrequency(i: number, size: number, theta: number, scaling?: RopeScaling, tokens = 0): number {
  const frequency = 1 / theta ** ((2 * i) / size);
  if (scaling === undefined || scaling.type === "none") return frequency;
  if (scaling.type === "linear") return frequency / scaling.factor;
  if (scaling.type === "longrope") {
    const factors = tokens > scaling.originalContextLength ? scaling.longFactors : scaling.shortFactors;
    return frequency / (factors[i] ?? Number.NaN);
  }
  if (scaling.type === "yarn") {
    // theta^(2j/size) = L / (2 pi turns), solved for the pair j.
    const pairs = [scaling.betaFast, scaling.betaSlow].map(
      (turns) => (Math.log(scaling.originalContextLength / (2 * Math.PI * turns)) / Math.log(theta)) * (size / 2),
    );
    const [fast = 0, slow = 0] = scaling.truncate ? [Math.floor(pairs[0] ?? 0), Math.ceil(pairs[1] ?? 0)] : pairs;
    const from = fast > 0 ? fast : 0;
    let to = slow < size - 1 ? slow : size - 1;
    if (to === from) to += 0.001;
    const through = (i - from) / (to - from);
    if (through <= 0) return frequency;
    if (through >= 1) return frequency / scaling.factor;
    return (1 - through) * frequency + (through * frequency) / scaling.factor;
  }
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: length } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > length / low) return frequency / factor;
  if (wavelength < length / high) return frequency;
  const s = (length / wavelength - low) / (high - low);
  return ((1 - s) * frequency) / factor + s * frequency;
}

/**
 * With `angle = position frequency(i)`, i < r/2, and the scaling's magnitude m (1 where it has none):
 * `y[i] = m (x[i] cos - x[i + r/2] sin)`, `y[i + r/2] = m (x[i + r/2] cos + x[i] sin)`; channels from r on stay.
 *
 * @returns [T, heads, D]
 */
export function ropeForward(inputs: RopeInputs): Float64Array {
  return rotate(inputs, 1);
}

/**
 * The gradient of a rotation is the rotation by the negative angle, times the same magnitude. `x` is dy [T, heads, D]; returns dx, same shape.
 */
export function ropeBackward(inputs: RopeInputs): Float64Array {
  return rotate(inputs, -1);
}

function rotate(inputs: RopeInputs, direction: 1 | -1): Float64Array {
  const { x, positions, heads, headSize, theta, scaling, rotated = headSize, length } = inputs;
  const half = rotated / 2;
  const magnitude = scaling && "magnitude" in scaling ? scaling.magnitude : 1;
  const y = x.slice();
  const frequencies = Float64Array.from({ length: half }, (_, i) => ropeFrequency(i, rotated, theta, scaling, length));
  for (let t = 0; t < positions.length; t++) {
    for (let i = 0; i < half; i++) {
      const angle = direction * idAt(positions, t) * at(frequencies, i);
      const cos = magnitude * Math.cos(angle);
      const sin = magnitude * Math.sin(angle);
      for (let h = 0; h < heads; h++) {
        const first = (t * heads + h) * headSize + i;
        const second = first + half;
        y[first] = at(x, first) * cos - at(x, second) * sin;
        y[second] = at(x, second) * cos + at(x, first) * sin;
      }
    }
  }
  return y;
}
