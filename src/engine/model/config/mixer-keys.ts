/**
 * By what each layer of a config.json mixes its tokens: attention, or in families that have others, a short convolution;
 * and the width of the MLP in these, which has keys of its own too.
 */
import type { Keys } from "./config-keys.ts";
import type { Family } from "./families.ts";
import { FULL } from "./window-keys.ts";

/** What of a layer lets a token see others. */
export type MixerType = "attention" | "convolution";

/** LFM2's operator between its projections. */
export interface ConvolutionConfig {
  /** K, the tokens that one sees, itself included. */
  readonly taps: number;
  /** On the taps' sum and on both projections. */
  readonly bias: boolean;
}

export interface Mixers {
  /** One entry a layer. */
  readonly layerMixer: readonly MixerType[];
  /** Where a layer has one. */
  readonly convolution: ConvolutionConfig | undefined;
}

/** What `layer_types` calls a layer with a convolution. */
const CONVOLUTION = "conv";

/** The mixers of a model, from `layer_types` or from the list of layers with attention, `full_attn_idxs`. */
export function mixersOf(read: Keys, { convolves }: Family, layers: number): Mixers {
  const all = (type: MixerType) => new Array<MixerType>(layers).fill(type);
  if (!convolves) return { layerMixer: all("attention"), convolution: undefined };
  const types = read.perLayer("layer_types", layers, [FULL, CONVOLUTION]);
  const layerMixer = types ? types.map(mixerOf) : (attentionLayers(read, layers) ?? all("attention"));
  if (!layerMixer.includes("convolution")) return { layerMixer, convolution: undefined };
  const taps = read.count("conv_L_cache", 3);
  if (taps < 2) throw read.error(`"conv_L_cache" is ${taps}; a convolution sees at least 2 tokens`);
  return { layerMixer, convolution: { taps, bias: read.flag("conv_bias", false) } };
}

const mixerOf = (type: string): MixerType => (type === FULL ? "attention" : "convolution");

/** Layers with attention by their numbers; undefined where they are not listed. */
function attentionLayers(read: Keys, layers: number): MixerType[] | undefined {
  const numbers = read.json.full_attn_idxs ?? null;
  if (numbers === null) return undefined;
  const isLayer = (one: unknown) => Number.isInteger(one) && (one as number) >= 0 && (one as number) < layers;
  if (!Array.isArray(numbers) || !numbers.every(isLayer)) {
    throw read.error(`"full_attn_idxs" is ${JSON.stringify(numbers)}, not a list of numbers of the ${layers} layers`);
  }
  return Array.from({ length: layers }, (_, layer) => (numbers.includes(layer) ? "attention" : "convolution"));
}

/**
 * LFM2's width of the MLP: two thirds of `block_ff_dim`, or else of `intermediate_size`, times
 * `block_ffn_dim_multiplier`, up to a multiple of `block_multiple_of`; or as it is without `block_auto_adjust_ff_dim`.
 */
export function adjustedMlpWidth(read: Keys): number {
  const width = read.has("block_ff_dim") ? read.count("block_ff_dim") : read.count("intermediate_size", 12288);
  if (!read.flag("block_auto_adjust_ff_dim", true)) return width;
  const share = Math.floor((2 * width) / 3);
  const factor = read.positive("block_ffn_dim_multiplier", 1);
  const step = read.count("block_multiple_of", 256);
  return step * Math.ceil(Math.floor(factor * share) / step);
}
