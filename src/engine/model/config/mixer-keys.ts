/**
 * By what each layer of a config.json mixes its tokens: attention, or in families that have others, a short convolution
 * or a DeltaNet; and the width of the MLP in LFM2, which has keys of its own too.
 */
import type { Keys } from "./config-keys.ts";
import type { Family } from "./families.ts";
import { FULL } from "./window-keys.ts";

/** What of a layer lets a token see others. */
export type MixerType = "attention" | "convolution" | "deltaNet";

/** LFM2's operator between its projections. */
export interface ConvolutionConfig {
  /** K, the tokens that one sees, itself included. */
  readonly taps: number;
  /** On the taps' sum and on both projections. */
  readonly bias: boolean;
}

/** Qwen3.5's gated DeltaNet. */
export interface DeltaNetConfig {
  /** Heads of queries and keys, and of values, which are a multiple. */
  readonly keyHeads: number;
  readonly valueHeads: number;
  /** Channels of a query or key, and of a value. */
  readonly keySize: number;
  readonly valueSize: number;
  /** Taps of the short convolution before the recurrence. */
  readonly taps: number;
}

export interface Mixers {
  /** One entry a layer. */
  readonly layerMixer: readonly MixerType[];
  /** Where a layer has one. */
  readonly convolution: ConvolutionConfig | undefined;
  readonly deltaNet: DeltaNetConfig | undefined;
  /** What attention gives is multiplied with the sigmoid of a gate, which the queries' projection gives too. */
  readonly attentionGate: boolean;
}

/** What `layer_types` calls a layer without attention. */
const OTHER = { convolution: "conv", deltaNet: "linear_attention" } as const;

/** The mixers of a model whose every layer has plain attention. */
export function onlyAttention(layers: number): Mixers {
  const layerMixer = new Array<MixerType>(layers).fill("attention");
  return { layerMixer, convolution: undefined, deltaNet: undefined, attentionGate: false };
}

/** The mixers of a model, from `layer_types` or from the family's own keys. */
export function mixersOf(read: Keys, { otherMixer: other, gatesAttention }: Family, layers: number): Mixers {
  const plain = { ...onlyAttention(layers), attentionGate: gatesAttention };
  if (gatesAttention) read.refuse("attn_output_gate", true);
  if (other === "none") return plain;
  const types = read.perLayer("layer_types", layers, [FULL, OTHER[other]]);
  const attends = types?.map((type) => type === FULL) ?? attendsByKeys(read, other, layers);
  const layerMixer = attends.map((attention): MixerType => (attention ? "attention" : other));
  if (!layerMixer.includes(other)) return plain;
  const ofOther = other === "convolution" ? { convolution: convolutionOf(read) } : { deltaNet: deltaNetOf(read) };
  return { ...plain, layerMixer, ...ofOther };
}

/** Whether layers have attention where `layer_types` does not say it. */
function attendsByKeys(read: Keys, other: keyof typeof OTHER, layers: number): boolean[] {
  if (other === "convolution") return attentionLayers(read, layers);
  const every = read.count("full_attention_interval", 4);
  return Array.from({ length: layers }, (_, layer) => (layer + 1) % every === 0);
}

/** LFM2's `full_attn_idxs`: layers with attention by their numbers; without it all of them. */
function attentionLayers(read: Keys, layers: number): boolean[] {
  const numbers = read.json.full_attn_idxs ?? null;
  if (numbers === null) return new Array<boolean>(layers).fill(true);
  const isLayer = (one: unknown) => Number.isInteger(one) && (one as number) >= 0 && (one as number) < layers;
  if (!Array.isArray(numbers) || !numbers.every(isLayer)) {
    throw read.error(`"full_attn_idxs" is ${JSON.stringify(numbers)}, not a list of numbers of the ${layers} layers`);
  }
  return Array.from({ length: layers }, (_, layer) => numbers.includes(layer));
}

function convolutionOf(read: Keys): ConvolutionConfig {
  return { taps: tapsOf(read, "conv_L_cache", 3), bias: read.flag("conv_bias", false) };
}

function deltaNetOf(read: Keys): DeltaNetConfig {
  const [keyHeads, valueHeads] = [read.count("linear_num_key_heads", 16), read.count("linear_num_value_heads", 32)];
  if (valueHeads % keyHeads !== 0) {
    throw read.error(
      `${valueHeads} value heads are not a multiple of ${keyHeads} key heads ("linear_num_value_heads")`,
    );
  }
  return {
    keyHeads,
    valueHeads,
    keySize: read.count("linear_key_head_dim", 128),
    valueSize: read.count("linear_value_head_dim", 128),
    taps: tapsOf(read, "linear_conv_kernel_dim", 4),
  };
}

function tapsOf(read: Keys, key: string, usual: number): number {
  const taps = read.count(key, usual);
  if (taps >= 2) return taps;
  throw read.error(`"${key}" is ${taps}; a convolution sees at least 2 tokens`);
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
