/**
 * LFM2's short convolution between gates as the mixer of a layer. Its rows before the first one of a pass are those of
 * the prompt that the row continues, or in generation the state that earlier passes left.
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
import type { Mixer, MixerPass } from "./mixer.ts";
import { layerName } from "./weights/parameters.ts";

/** Rows that the state of a slot has. */
export const stateRows = ({ convolution }: ModelConfig): number => (convolution ? convolution.taps - 1 : 0);

/** The kernels' variant, and the weights that they read. */
function convolutionOf({ model, program, layer }: Pick<MixerPass, "model" | "program" | "layer">) {
  const { config, weights } = model;
  if (config.convolution === undefined) throw new Error("the model has no convolutions");
  const name = layerName(layer, "convolution");
  const hasBias = weights.has(`${name}.bias`);
  const kernel: ShortConvolution = { taps: config.convolution.taps, around: "gates" };
  const bias = hasBias ? model.parameter(`${name}.bias`) : reshape(program.device.unused, [4]);
  return { name, kernel, given: { weight: model.parameter(`${name}.weight`), bias, hasBias: hasBias ? 1 : 0 } };
}

export const convolutionMixer: Mixer = {
  projection: "convolutionInput",
  reads: "convolutionInput",
  gives: "convolved",

  recordForward(pass, { positions, ranges }, cache) {
    const { program, layer, here } = pass;
    const { kernel, given } = convolutionOf(pass);
    const args = { ...given, x: here.convolutionInput, positions, out: here.convolved };
    if (cache === undefined) {
      program.dispatch(shortConvolutionForward(kernel), { ...args, ranges });
      return;
    }
    const { segments, stateRanges, states } = cache;
    const state = states[layer];
    if (state === undefined) throw new Error(`the cache has no state of layer ${layer}`);
    program.dispatch(shortConvolutionFromState(kernel), { ...args, ranges: stateRanges, state });
    program.dispatch(shortConvolutionState(kernel), { x: here.convolutionInput, segments, state });
  },

  recordBackward(pass, { positions, ranges, queryEnd }) {
    const { program, here, gradients, dMixed, dProjected: dx } = pass;
    const { name, kernel, given } = convolutionOf(pass);
    const x = here.convolutionInput;
    program.dispatch(shortConvolutionBackwardOutput(kernel), { ...given, x, positions, ranges, dOut: dMixed, dx });
    const dz = dMixed;
    program.dispatch(shortConvolutionBackwardInput(kernel), { dz, x, weight: given.weight, queryEnd, dx });
    const [rows = 0, channels = 0] = dz.shape;
    const partialsOf = (columns: number): Tensor => reshape(pass.partials, [rowBlocks(rows), columns]);
    if (gradients.has(`${name}.weight`)) {
      const partials = partialsOf(channels * kernel.taps);
      program.dispatch(shortConvolutionWeightPartials(kernel), { dz, x, ranges, positions, partials });
      program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.weight`) });
    }
    if (gradients.has(`${name}.bias`)) {
      const partials = partialsOf(channels);
      program.dispatch(columnPartials, { dy: dz, partials });
      program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.bias`) });
    }
  },
};
