/**
 * One decoder layer, forward and backward, written out as dispatches. Parts are switched by the configuration:
 *
 *   middle = input + BranchNorm(Output(Mixer(Projection(Norm(input)))))
 *   next   = middle + BranchNorm(Down(Activation(Up(Norm(middle)))))
 *
 * What the mixer is, attention or something else, is said in `mixer.ts` and the files of each; Up to Down is `mlp.ts`'s.
 */
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { type LayerActivations, layerKinds, normsAfter, normsBefore, upWidth } from "./activations.ts";
import { attentionMixer } from "./attention.ts";
import type { ModelConfig } from "./config/config.ts";
import type { MixerType } from "./config/mixer-keys.ts";
import { convolutionMixer, convolutionOf } from "./convolution.ts";
import { deltaNetMixer } from "./delta-net.ts";
import { recordLinear, recordLinearBackward } from "./linear.ts";
import type { BackwardRows, LayerCache, Mixer, PassRows } from "./mixer.ts";
import { recordMlpBackward, recordMlpForward } from "./mlp.ts";
import type { Model } from "./model.ts";
import { type NormPlace, normBetween } from "./norm-between.ts";
import { recordBranchNorm, recordBranchNormBackward, recordNorm, recordNormBackward } from "./norms.ts";
import { layerName } from "./weights/parameters.ts";

const MIXERS: Readonly<Record<MixerType, Mixer>> = {
  attention: attentionMixer,
  convolution: convolutionMixer,
  deltaNet: deltaNetMixer,
};

function mixerOf({ layerMixer }: ModelConfig, layer: number): Mixer {
  return MIXERS[layerMixer[layer] ?? "attention"];
}

/**
 * Records layer `layer` from `here.input` to `next` [T, C]; without `next`, only what the backward pass needs of a layer
 * whose results are not normed.
 */
export function recordBlockForward(
  program: Program,
  model: Model,
  layer: number,
  here: LayerActivations,
  next: Tensor | undefined,
  rows: PassRows,
  cache?: LayerCache,
): void {
  const { config } = model;
  const name = (part: string) => layerName(layer, part);
  const { lora } = rows;
  const [before, after] = [normsBefore(config), normsAfter(config)];
  // The rows of a product that is walked in slices are not those of the norm's.
  const squares = rows.mlpSlice === undefined ? cache?.squares : undefined;
  const between = (place: NormPlace | undefined, scaled: Tensor) =>
    squares && place && normBetween(program, model, place, scaled, squares);
  const atAttention = between(attentionNormPlace(config, layer), here.attentionNormed);
  const atMlp = between({ norm: name("mlpNorm"), from: name("output"), to: name("up") }, here.mlpNormed);
  // The next layer has its own place for normed rows where these are kept, but here nothing is.
  const atNext = between(attentionNormPlace(config, layer + 1), here.attentionNormed);

  if (before && !atAttention) {
    recordNorm(program, model, name("attentionNorm"), here.input, here.attentionNormed, here.attentionStats);
  }
  const mixer = mixerOf(config, layer);
  const x = before ? here.attentionNormed : here.input;
  const takes = atAttention?.takes;
  const pass = { program, model, layer, here };
  const isPlaced = cache !== undefined && mixer.recordProjection?.(pass, { x, takes }, rows, cache) === true;
  if (!isPlaced) {
    recordLinear(program, model, name(mixer.reads(config)), { x, y: here[mixer.reads(config)], takes, lora });
  }
  mixer.recordForward({ ...pass, isPlaced }, rows, cache);
  const mixed = here[mixer.gives(config)];
  if (after) {
    const { attentionBranch: branch, attentionBranchStats: stats } = here;
    recordLinear(program, model, name("output"), { x: mixed, y: branch, lora });
    const args = { branch, residual: here.input, y: here.middle, stats };
    recordBranchNorm(program, model, name("attentionBranchNorm"), args);
  } else {
    const args = { x: mixed, residual: here.input, y: here.middle, gives: atMlp?.gives, lora };
    recordLinear(program, model, name("output"), args);
  }

  if (before && !atMlp) recordNorm(program, model, name("mlpNorm"), here.middle, here.mlpNormed, here.mlpStats);
  const fused = { alone: cache !== undefined, takes: atMlp?.takes };
  if (next === undefined) recordMlpForward(pass, rows, undefined, fused);
  else if (after) {
    const { mlpBranch: branch, mlpBranchStats: stats } = here;
    recordMlpForward(pass, rows, { y: branch }, fused);
    recordBranchNorm(program, model, name("mlpBranchNorm"), { branch, residual: here.middle, y: next, stats });
  } else recordMlpForward(pass, rows, { y: next, residual: here.middle, gives: atNext?.gives }, fused);
}

/** The norm that a layer begins with, where another layer is before it. */
function attentionNormPlace(config: ModelConfig, layer: number): NormPlace | undefined {
  if (layer === 0 || layer === config.layers) return undefined;
  const name = (part: string) => layerName(layer, part);
  return {
    norm: name("attentionNorm"),
    from: layerName(layer - 1, "down"),
    to: name(mixerOf(config, layer).reads(config)),
  };
}

/** Scratch of the backward pass, shared by all layers; rows are those of region A, the MLP's those of a slice. */
export type BackwardScratch = Readonly<Record<keyof ReturnType<typeof backwardWidths> | "partials", Tensor>>;

/** Columns of each scratch buffer; `partials` holds blocks of the widest bias, or of the taps of convolutions. */
export function backwardWidths(config: ModelConfig) {
  const kinds = layerKinds(config);
  const mixers = Object.values(MIXERS);
  return {
    /** Gradient of the residual stream; carried from layer to layer. */
    dx: config.hiddenSize,
    dNormed: normsBefore(config) ? config.hiddenSize : 0,
    dBranch: normsAfter(config) ? config.hiddenSize : 0,
    dProjected: Math.max(...mixers.map(({ reads }) => kinds[reads(config)])),
    dMixed: Math.max(...mixers.map(({ gives }) => kinds[gives(config)])),
    delta: kinds.logSumExp,
    dQkv: config.attentionGate ? kinds.qkv : 0,
    dDeltaOut: kinds.deltaOut,
    dDeltaQkv: kinds.deltaQkv,
    dDeltaHeads: 2 * (config.deltaNet ? config.deltaNet.valueHeads * config.deltaNet.keySize : 0),
    deltaTerms: 2 * kinds.deltaInverse,
    aLogTerms: kinds.deltaInverse,
    dActivated: config.intermediateSize,
    dUp: upWidth(config),
  };
}

/** Elements of `partials` for any number of rows. */
export function partialsSize(config: ModelConfig): number {
  const widths = backwardWidths(config);
  const { convolved, deltaQkv } = layerKinds(config);
  const ofTaps = (convolutionOf(config)?.taps ?? 0) * Math.max(convolved, deltaQkv);
  return 64 * Math.max(widths.dx, widths.dProjected, widths.dUp, ofTaps);
}

/**
 * Records the backward pass of layer `layer` over region A, whose activations are `here`. On entry dx holds the
 * gradient of the layer's output, at the end that of its input.
 */
export function recordBlockBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  layer: number,
  here: LayerActivations,
  scratch: BackwardScratch,
  rows: BackwardRows,
): void {
  const { config } = model;
  const name = (part: string) => layerName(layer, part);
  const { dx, dBranch, dNormed, partials } = scratch;
  const { lora } = rows;
  const shared = { partials, lora };
  const [before, after] = [normsBefore(config), normsAfter(config)];

  if (after) {
    const args = { dy: dx, branch: here.mlpBranch, stats: here.mlpBranchStats, dBranch, partials };
    recordBranchNormBackward(program, model, gradients, name("mlpBranchNorm"), args);
  }
  const dMlp = { dy: after ? dBranch : dx, dx: before ? dNormed : dx, accumulate: !before };
  recordMlpBackward({ program, model, layer, here }, rows, gradients, scratch, dMlp);
  if (before) {
    recordNormBackward(program, model, gradients, name("mlpNorm"), {
      dy: dNormed,
      x: here.middle,
      stats: here.mlpStats,
      dx,
      partials,
    });
  }

  if (after) {
    const args = { dy: dx, branch: here.attentionBranch, stats: here.attentionBranchStats, dBranch, partials };
    recordBranchNormBackward(program, model, gradients, name("attentionBranchNorm"), args);
  }
  const mixer = mixerOf(config, layer);
  const projection = mixer.reads(config);
  const [mixed, projected] = [here[mixer.gives(config)], here[projection]];
  // The widest mixer's scratch serves all.
  const dMixed = reshape(scratch.dMixed, mixed.shape);
  const dProjected = reshape(scratch.dProjected, projected.shape);
  const ofOutput = { dy: after ? dBranch : dx, x: mixed, dx: dMixed, ...shared };
  recordLinearBackward(program, model, gradients, name("output"), ofOutput);
  mixer.recordBackward({ program, model, layer, here, gradients, dMixed, dProjected, scratch }, rows);
  if (before) {
    recordLinearBackward(program, model, gradients, name(projection), {
      dy: dProjected,
      x: here.attentionNormed,
      dx: dNormed,
      ...shared,
    });
    recordNormBackward(program, model, gradients, name("attentionNorm"), {
      dy: dNormed,
      x: here.input,
      stats: here.attentionStats,
      dx,
      partials,
    });
  } else {
    const args = { dy: dProjected, x: here.input, dx, accumulate: true, ...shared };
    recordLinearBackward(program, model, gradients, name(projection), args);
  }
}
