/**
 * Rotary positions (Su et al. 2021) in float64, in Hugging Face's "rotate_half" convention: channel i of a head turns
 * with channel i + D/2, not with its neighbour. Each row has a position of its own; the row index plays no part.
 */
import type { RopeScaling } from "../rope.ts";
import { at, idAt } from "./elements.ts";

export interface RopeInputs {
  /** [T, heads, D] */
  readonly x: Float64Array;
  /** [T] */
  readonly positions: ArrayLike<number>;
  readonly heads: number;
  /** D, even. */
  readonly headSize: number;
  readonly theta: number;
  /** Default: none. */
  readonly scaling?: RopeScaling;
}

/**
 * Radians a position of channel pair i: `theta^(-2i/D)`, scaled.
 *
 * "linear": over the factor. "llama3", by the wavelength `2 pi / frequency` and the original context L: wavelengths
 * above `L / lowFrequencyFactor` over the factor, those below `L / highFrequencyFactor` as they are, between them
 * `(1 - s) frequency / factor + s frequency` with `s = (L / wavelength - low) / (high - low)`.
 */
export function ropeFrequency(i: number, headSize: number, theta: number, scaling?: RopeScaling): number {
  const frequency = 1 / theta ** ((2 * i) / headSize);
  if (scaling?.type === "linear") return frequency / scaling.factor;
  if (scaling?.type !== "llama3") return frequency;
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: length } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > length / low) return frequency / factor;
  if (wavelength < length / high) return frequency;
  const s = (length / wavelength - low) / (high - low);
  return ((1 - s) * frequency) / factor + s * frequency;
}

/**
 * With `angle = position frequency(i)`, i < D/2:
 * `y[i] = x[i] cos - x[i + D/2] sin`, `y[i + D/2] = x[i + D/2] cos + x[i] sin`.
 *
 * @returns [T, heads, D]
 */
export function ropeForward(inputs: RopeInputs): Float64Array {
  return rotate(inputs, 1);
}

/**
 * The gradient of a rotation is the rotation by the negative angle. `x` is dy [T, heads, D]; returns dx, same shape.
 */
export function ropeBackward(inputs: RopeInputs): Float64Array {
  return rotate(inputs, -1);
}

function rotate({ x, positions, heads, headSize, theta, scaling }: RopeInputs, direction: 1 | -1): Float64Array {
  const half = headSize / 2;
  const y = new Float64Array(x.length);
  const frequencies = Float64Array.from({ length: half }, (_, i) => ropeFrequency(i, headSize, theta, scaling));
  for (let t = 0; t < positions.length; t++) {
    for (let i = 0; i < half; i++) {
      const angle = direction * idAt(positions, t) * at(frequencies, i);
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
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
