/** The gated DeltaNet of a float64 layer (Qwen3.5), from what is projected to what the output projection reads. */
import { joinColumns, splitColumns } from "../../../kernels/float64/columns.ts";
import { type DeltaInputs, gatedDeltaBackward, gatedDeltaForward } from "../../../kernels/float64/gated-delta.ts";
import { gatedNormBackward, gatedNormForward } from "../../../kernels/float64/gated-norm.ts";
import {
  type ShortConvolutionInputs,
  shortConvolutionBackward,
  shortConvolutionForward,
} from "../../../kernels/float64/short-convolution.ts";
import type { ModelConfig } from "../config/config.ts";
import type { DeltaNetParameters } from "./parameters.ts";
import { accumulate, type Float64Gradients, sequenceRanges } from "./parts.ts";

/** What the backward pass needs of the forward pass. */
export interface DeltaNetActivations {
  readonly type: "deltaNet";
  readonly convolution: ShortConvolutionInputs & { readonly z: Float64Array };
  readonly delta: DeltaInputs;
  /** What the recurrence gives, the gate of its norm, and the norm's inverses. */
  readonly x: Float64Array;
  readonly gate: Float64Array;
  readonly inverse: Float64Array;
  readonly out: Float64Array;
}

export function deltaNetForward(
  config: ModelConfig,
  parameters: DeltaNetParameters,
  input: Float64Array,
  rows: number,
): DeltaNetActivations {
  if (config.deltaNet === undefined) throw new Error("a DeltaNet without its numbers");
  const { taps, ...shape } = config.deltaNet;
  const [mixed, gate, b, a] = splitColumns(
    input,
    parameters.input.map(({ outputs }) => outputs),
    rows,
  ) as [Float64Array, Float64Array, Float64Array, Float64Array];
  const ranges = sequenceRanges(rows);
  const convolution = { x: mixed, weight: parameters.taps.data, taps, around: "silu", ranges } as const;
  const { out: qkv, z } = shortConvolutionForward(convolution);
  const previous = Int32Array.from({ length: rows }, (_, row) => row - 1);
  const delta = { ...shape, qkv, a, b, aLog: parameters.aLog.data, dtBias: parameters.dtBias.data, previous };
  const { out: x } = gatedDeltaForward(delta);
  const { y: out, inverse } = gatedNormForward(x, gate, parameters.norm.data, config.normEpsilon);
  return { type: "deltaNet", convolution: { ...convolution, z }, delta, x, gate, inverse, out };
}

/** The gradient of the input; those of the parameters are added to `grads`. */
export function deltaNetBackward(
  parameters: DeltaNetParameters,
  { convolution, delta, x, gate, inverse }: DeltaNetActivations,
  dOut: Float64Array,
  rows: number,
  grads: Float64Gradients,
): Float64Array {
  const ofNorm = gatedNormBackward(dOut, x, gate, parameters.norm.data, inverse);
  accumulate(grads, parameters.norm, ofNorm.dWeight);
  const ofDelta = gatedDeltaBackward({ ...delta, dOut: ofNorm.dx });
  accumulate(grads, parameters.aLog, ofDelta.dALog);
  accumulate(grads, parameters.dtBias, ofDelta.dDtBias);
  const ofConvolution = shortConvolutionBackward({ ...convolution, dOut: ofDelta.dQkv });
  accumulate(grads, parameters.taps, ofConvolution.dWeight);
  return joinColumns([ofConvolution.dx, ofNorm.dz, ofDelta.db, ofDelta.da], rows);
}
