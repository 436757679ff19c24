/** The short convolution between gates of a float64 layer (LFM2), from its input to what the output projection reads. */
import {
  type ShortConvolutionInputs,
  shortConvolutionBackward,
  shortConvolutionForward,
} from "../../../kernels/float64/short-convolution.ts";
import type { ModelConfig } from "../config/config.ts";
import type { ConvolutionParameters } from "./parameters.ts";
import { accumulate, type Float64Gradients, sequenceRanges } from "./parts.ts";

/** What the backward pass needs of the forward pass. */
export interface ConvolutionActivations {
  readonly type: "convolution";
  readonly x: Float64Array;
  readonly z: Float64Array;
  readonly out: Float64Array;
}

export function convolutionMixerForward(
  config: ModelConfig,
  parameters: ConvolutionParameters,
  x: Float64Array,
  rows: number,
): ConvolutionActivations {
  return { type: "convolution", x, ...shortConvolutionForward(inputsOf(config, parameters, x, rows)) };
}

/** The gradient of the input; those of taps and bias are added to `grads`. */
export function convolutionMixerBackward(
  config: ModelConfig,
  parameters: ConvolutionParameters,
  { x, z }: ConvolutionActivations,
  dOut: Float64Array,
  rows: number,
  grads: Float64Gradients,
): Float64Array {
  const d = shortConvolutionBackward({ ...inputsOf(config, parameters, x, rows), z, dOut });
  accumulate(grads, parameters.taps, d.dWeight);
  if (parameters.bias) accumulate(grads, parameters.bias, d.dBias);
  return d.dx;
}

/** One sequence: every row sees those before it. */
function inputsOf(
  { convolution }: ModelConfig,
  { taps, bias }: ConvolutionParameters,
  x: Float64Array,
  rows: number,
): ShortConvolutionInputs {
  const ranges = sequenceRanges(rows);
  const around = "gates";
  return { x, weight: taps.data, bias: bias?.data, taps: convolution?.taps ?? 0, around, ranges };
}
