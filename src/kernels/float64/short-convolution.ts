/**
 * Causal convolution of each channel with its own few taps (depthwise), over two ranges of rows as attention sees them,
 * in float64. Alone it is the one before DeltaNet (Yang et al. 2024), gated it is LFM2's operator.
 */
import { sigmoid } from "./activation.ts";
import { add, at, idAt } from "./elements.ts";

export interface ShortConvolutionInputs {
  /** [T, W]; gated, W = 3 C and the columns are [input gate B | output gate G | y]. Else the first C columns are read. */
  readonly x: Float64Array;
  /** [C, K], the last tap for the row itself. */
  readonly weight: Float64Array;
  /** [C] */
  readonly bias?: Float64Array | undefined;
  /** K */
  readonly taps: number;
  readonly around: "nothing" | "silu" | "gates";
  /** [T, 4]: prefixStart, prefixEnd, branchStart, branchEnd. The last row of a row's branch is itself. */
  readonly ranges: ArrayLike<number>;
}

/**
 * With u = x, or gated u = B y: `z[t, c] = bias[c] + sum_{j<K} weight[c, K-1-j] u[s_j, c]`, where s_0 = t, s_1 and so on
 * are the rows before it, back through its branch and then its prefix; where there are none left, u is 0.
 *
 * @returns out [T, C] = z, silu(z) or, gated, G z; and z
 */
export function shortConvolutionForward(inputs: ShortConvolutionInputs): { out: Float64Array; z: Float64Array } {
  const { weight, bias, taps, around, ranges } = inputs;
  const rows = ranges.length / 4;
  const channels = weight.length / taps;
  const z = new Float64Array(rows * channels);
  const out = new Float64Array(rows * channels);
  for (let t = 0; t < rows; t++) {
    const seen = rowsBefore(ranges, t, taps);
    for (let c = 0; c < channels; c++) {
      let sum = bias ? at(bias, c) : 0;
      seen.forEach((row, j) => {
        sum += at(weight, c * taps + taps - 1 - j) * inputAt(inputs, row, c);
      });
      const i = t * channels + c;
      z[i] = sum;
      if (around === "gates") out[i] = gateAt(inputs, t, c) * sum;
      else out[i] = around === "silu" ? sum * sigmoid(sum) : sum;
    }
  }
  return { out, z };
}

/**
 * With dz = G dOut, silu'(z) dOut or dOut: `du[s_j, c] += weight[c, K-1-j] dz[t, c]`, `dWeight[c, K-1-j] += dz[t, c]
 * u[s_j, c]`, `dBias[c] += dz[t, c]`, and gated `dB = y du`, `dG = z dOut`, `dy = B du`.
 *
 * @param inputs as in the forward pass, with its z [T, C] and dOut [T, C]
 * @returns dx [T, W], dWeight [C, K], dBias [C]
 */
export function shortConvolutionBackward(
  inputs: ShortConvolutionInputs & { readonly z: Float64Array; readonly dOut: Float64Array },
): { dx: Float64Array; dWeight: Float64Array; dBias: Float64Array } {
  const { x, weight, taps, around, ranges, z, dOut } = inputs;
  const rows = ranges.length / 4;
  const channels = weight.length / taps;
  const width = x.length / rows;
  const dx = new Float64Array(x.length);
  const dWeight = new Float64Array(weight.length);
  const dBias = new Float64Array(channels);
  for (let t = 0; t < rows; t++) {
    const seen = rowsBefore(ranges, t, taps);
    for (let c = 0; c < channels; c++) {
      const i = t * channels + c;
      let dz = at(dOut, i);
      if (around === "gates") {
        add(dx, t * width + channels + c, dz * at(z, i));
        dz *= gateAt(inputs, t, c);
      } else if (around === "silu") {
        const s = sigmoid(at(z, i));
        dz *= s * (1 + at(z, i) * (1 - s));
      }
      add(dBias, c, dz);
      seen.forEach((row, j) => {
        const tap = c * taps + taps - 1 - j;
        add(dWeight, tap, dz * inputAt(inputs, row, c));
        const du = dz * at(weight, tap);
        const first = row * width + c;
        if (around === "gates") {
          add(dx, first, du * at(x, first + 2 * channels));
          add(dx, first + 2 * channels, du * at(x, first));
        } else add(dx, first, du);
      });
    }
  }
  return { dx, dWeight, dBias };
}

/** Row t and those before it, nearest first, `taps` of them or as many as there are. */
function rowsBefore(ranges: ArrayLike<number>, t: number, taps: number): number[] {
  const [prefixStart, prefixEnd, branchStart] = [0, 1, 2].map((k) => idAt(ranges, 4 * t + k)) as [
    number,
    number,
    number,
  ];
  const rows: number[] = [];
  for (let row = t; row >= branchStart; row--) rows.push(row);
  for (let row = prefixEnd - 1; row >= prefixStart; row--) rows.push(row);
  return rows.slice(0, taps);
}

function inputAt({ x, weight, taps, around, ranges }: ShortConvolutionInputs, row: number, c: number): number {
  const width = x.length / (ranges.length / 4);
  const value = at(x, row * width + c);
  return around === "gates" ? value * at(x, row * width + (2 * weight.length) / taps + c) : value;
}

function gateAt({ x, weight, taps, ranges }: ShortConvolutionInputs, row: number, c: number): number {
  return at(x, row * (x.length / (ranges.length / 4)) + weight.length / taps + c);
}
