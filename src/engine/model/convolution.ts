/**
 * Short convolutions in a layer, and LFM2's between gates as its mixer. The rows before the first one of a pass are those
 * of the prompt that it continues, or in generation the state that earlier passes left.
 */
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import {
  type ShortConvolution,
  shortConvolutionBackwardInput,
  shortConvolutionBackwardOutput,
  shortConvolutionForward,
  shortConvolutionFromState,
  shortConvolutionState,
  shortConvolutionWeightPartials,
} from "../../kernels/short-convolution.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config/config.ts";
import type { BackwardRows, LayerCache, Mixer, MixerBackwardPass, MixerPass, PassRows } from "./mixer.ts";
import { layerName } from "./weights/parameters.ts";

/** The kernels of a model's convolutions; undefined where it has none. */
export function convolutionOf({ convolution, deltaNet }: ModelConfig): ShortConvolution | undefined {
  if (convolution) return { taps: convolution.taps, around: "gates" };
  return deltaNet && { taps: deltaNet.taps, around: "silu" };
}

/** The convolution of a pass's layer, and the weights that it reads. */
function partsOf({ model, program, layer }: Pick<MixerPass, "model" | "program" | "layer">) {
  const { config, weights } = model;
  const kernel = convolutionOf(config);
  if (kernel === undefined) throw new Error("the model has no convolutions");
  const name = layerName(layer, "convolution");
  const hasBias = weights.has(`${name}.bias`);
  const bias = hasBias ? model.parameter(`${name}.bias`) : reshape(program.device.unused, [4]);
  return { name, kernel, given: { weight: model.parameter(`${name}.weight`), bias, hasBias: hasBias ? 1 : 0 } };
}

/** Records out [T, C] = the layer's convolution of x [T, W], and in generation the state that it leaves. */
export function recordConvolution(
  pass: MixerPass,
  { positions, ranges }: PassRows,
  { x, out }: { readonly x: Tensor; readonly out: Tensor },
  cache?: LayerCache,
): void {
  const { program, layer } = pass;
  const { kernel, given } = partsOf(pass);
  const args = { ...given, x, positions, out };
  if (cache === undefined) {
    program.dispatch(shortConvolutionForward(kernel), { ...args, ranges });
    return;
  }
  const state = stateOf(cache, layer).convolution;
  const { segments, stateRanges } = cache;
  program.dispatch(shortConvolutionFromState(kernel), { ...args, ranges: stateRanges, state });
  program.dispatch(shortConvolutionState(kernel), { x, segments, state });
}

/** The state of a layer that has one. */
export function stateOf({ states }: LayerCache, layer: number) {
  const state = states[layer];
  if (state === undefined) throw new Error(`the cache has no state of layer ${layer}`);
  return state;
}

/** Records the columns of x in dx [T, W] from dOut [T, C], which is written over, and the gradients of what is trained. */
export function recordConvolutionBackward(
  pass: MixerBackwardPass,
  { positions, ranges, queryEnd }: BackwardRows,
  { x, dOut, dx }: { readonly x: Tensor; readonly dOut: Tensor; readonly dx: Tensor },
): void {
  const { program, gradients, scratch } = pass;
  const { name, kernel, given } = partsOf(pass);
  program.dispatch(shortConvolutionBackwardOutput(kernel), { ...given, x, positions, ranges, dOut, dx });
  const dz = dOut;
  program.dispatch(shortConvolutionBackwardInput(kernel), { dz, x, weight: given.weight, queryEnd, dx });
  const [rows = 0, channels = 0] = dz.shape;
  const partialsOf = (columns: number) => reshape(scratch.partials, [rowBlocks(rows), columns]);
  if (gradients.has(`${name}.weight`)) {
    const partials = partialsOf(channels * kernel.taps);
    program.dispatch(shortConvolutionWeightPartials(kernel), { dz, x, ranges, positions, partials });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.weight`) });
  }
  if (gradients.has(`${name}.bias`)) {
    const partials = partialsOf(channels);
    program.dispatch(columnPartials, { dy: dz, partials, firstColumn: 0 });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.bias`) });
  }
}

export const convolutionMixer: Mixer = {
  reads: () => "convolutionInput",
  gives: () => "convolved",

  recordForward(pass, rows, cache) {
    const { convolutionInput: x, convolved: out } = pass.here;
    recordConvolution(pass, rows, { x, out }, cache);
  },

  recordBackward(pass, rows) {
    const { here, dMixed: dOut, dProjected: dx } = pass;
    recordConvolutionBackward(pass, rows, { x: here.convolutionInput, dOut, dx });
  },
};
