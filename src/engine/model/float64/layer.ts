/**
 * One layer of the float64 decoder, forward and backward, its parts switched by the configuration. Formulas as they are
 * published: no stream is rescaled, nothing is fused.
 */
import {
  gegluBackward,
  gegluForward,
  geluBackward,
  geluForward,
  swigluBackward,
  swigluForward,
} from "../../../kernels/float64/activation.ts";
import { joinColumns } from "../../../kernels/float64/columns.ts";
import type { ModelConfig } from "../config/config.ts";
import { type AttentionActivations, attentionMixerBackward, attentionMixerForward } from "./attention.ts";
import { type ConvolutionActivations, convolutionMixerBackward, convolutionMixerForward } from "./convolution.ts";
import { type DeltaNetActivations, deltaNetBackward, deltaNetForward } from "./delta-net.ts";
import type { Layer, Norm } from "./parameters.ts";
import {
  type Float64Gradients,
  linearBackward,
  linearForward,
  type NormResult,
  normBackward,
  normForward,
  plus,
  times,
} from "./parts.ts";

/** What the backward pass of one layer needs of its forward pass. */
export interface LayerActivations {
  readonly x: Float64Array;
  /** What the mixer reads, and further down what the MLP reads: normed or, without a norm, as it is. */
  readonly attentionNorm: NormResult;
  readonly mixer: AttentionActivations | ConvolutionActivations | DeltaNetActivations;
  readonly attentionBranch: Branch;
  readonly middle: Float64Array;
  readonly mlpNorm: NormResult;
  readonly mlpHidden: Float64Array;
  readonly activated: Float64Array;
  readonly mlpBranch: Branch;
}

/** What the mixer or the MLP gives, before its norm and after it. */
interface Branch {
  readonly x: Float64Array;
  readonly norm: NormResult;
}

export function layerForward(
  config: ModelConfig,
  index: number,
  layer: Layer,
  x: Float64Array,
  positions: Int32Array,
): { y: Float64Array; activations: LayerActivations } {
  const { residualMultiplier } = config;
  const rows = positions.length;
  const attentionNorm = normForward(config, layer.attentionNorm, x);
  const parts = layer.mixer.input.map((part) => linearForward(part, attentionNorm.y, rows));
  const mixer = mixerForward(config, index, layer, joinColumns(parts, rows), positions);
  const attentionOut = linearForward(layer.mixer.output, mixer.out, rows);
  const attentionBranch = { x: attentionOut, norm: normForward(config, layer.attentionBranchNorm, attentionOut) };
  const middle = plus(x, times(attentionBranch.norm.y, residualMultiplier));
  const mlpNorm = normForward(config, layer.mlpNorm, middle);
  const mlpParts = layer.mlpInput.map((part) => linearForward(part, mlpNorm.y, rows));
  const mlpHidden = joinColumns(mlpParts, rows);
  const activated = activationForward(config, mlpHidden);
  const mlpOut = linearForward(layer.mlpOutput, activated, rows);
  const mlpBranch = { x: mlpOut, norm: normForward(config, layer.mlpBranchNorm, mlpOut) };
  const y = plus(middle, times(mlpBranch.norm.y, residualMultiplier));
  const ofMixer = { x, attentionNorm, mixer, attentionBranch };
  return { y, activations: { ...ofMixer, middle, mlpNorm, mlpHidden, activated, mlpBranch } };
}

function mixerForward(
  config: ModelConfig,
  index: number,
  { mixer }: Layer,
  input: Float64Array,
  positions: Int32Array,
): LayerActivations["mixer"] {
  if (mixer.type === "attention") return attentionMixerForward(config, index, mixer, input, positions);
  if (mixer.type === "convolution") return convolutionMixerForward(config, mixer, input, positions.length);
  return deltaNetForward(config, mixer, input, positions.length);
}

function mixerBackward(
  config: ModelConfig,
  index: number,
  { mixer }: Layer,
  saved: LayerActivations["mixer"],
  dOut: Float64Array,
  positions: Int32Array,
  grads: Float64Gradients,
): Float64Array {
  if (mixer.type === "attention" && saved.type === "attention")
    return attentionMixerBackward(config, index, mixer, saved, dOut, positions, grads);
  if (mixer.type === "convolution" && saved.type === "convolution")
    return convolutionMixerBackward(config, mixer, saved, dOut, positions.length, grads);
  if (mixer.type === "deltaNet" && saved.type === "deltaNet")
    return deltaNetBackward(mixer, saved, dOut, positions.length, grads);
  throw new Error(`activations of ${saved.type} were given to a layer of ${mixer.type}`);
}

function activationForward({ mlp, intermediateSize }: ModelConfig, x: Float64Array): Float64Array {
  if (mlp === "gelu") return geluForward(x);
  return (mlp === "swiglu" ? swigluForward : gegluForward)(x, intermediateSize);
}

function activationBackward({ mlp, intermediateSize }: ModelConfig, dy: Float64Array, x: Float64Array): Float64Array {
  if (mlp === "gelu") return geluBackward(dy, x);
  return (mlp === "swiglu" ? swigluBackward : gegluBackward)(dy, x, intermediateSize);
}

export function layerBackward(
  config: ModelConfig,
  index: number,
  layer: Layer,
  saved: LayerActivations,
  dy: Float64Array,
  positions: Int32Array,
  grads: Float64Gradients,
): Float64Array {
  const rows = positions.length;
  /** The gradient of what a part of the layer gives, from that of the residual stream behind it. */
  const branchBackward = (norm: Norm | undefined, d: Float64Array, { x, norm: result }: Branch) =>
    normBackward(config, norm, times(d, config.residualMultiplier), x, result, grads);
  const dMlp = branchBackward(layer.mlpBranchNorm, dy, saved.mlpBranch);
  const dActivated = linearBackward([layer.mlpOutput], dMlp, saved.activated, rows, grads);
  const dMlpHidden = activationBackward(config, dActivated, saved.mlpHidden);
  const dMlpNorm = linearBackward(layer.mlpInput, dMlpHidden, saved.mlpNorm.y, rows, grads);
  const dMiddle = plus(dy, normBackward(config, layer.mlpNorm, dMlpNorm, saved.middle, saved.mlpNorm, grads));
  const dMixer = branchBackward(layer.attentionBranchNorm, dMiddle, saved.attentionBranch);
  const dOut = linearBackward([layer.mixer.output], dMixer, saved.mixer.out, rows, grads);
  const dInput = mixerBackward(config, index, layer, saved.mixer, dOut, positions, grads);
  const dAttentionNorm = linearBackward(layer.mixer.input, dInput, saved.attentionNorm.y, rows, grads);
  return plus(dMiddle, normBackward(config, layer.attentionNorm, dAttentionNorm, saved.x, saved.attentionNorm, grads));
}
