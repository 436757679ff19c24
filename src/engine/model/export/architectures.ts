/**
 * What llama.cpp calls our model families, their settings and their tensors. A family is a row of the table; what a row
 * does not know of a model is refused by name, since llama.cpp would compute without it. Read in llama.cpp's
 * conversion/*.py and src/models/*.cpp; tested by loading each in llama.cpp.
 */
import { ModelFormatError } from "../../../errors.ts";
import { type LayerRope, ropeFrequencies } from "../../../kernels/rope-table.ts";
import type { GgufValue } from "../../files/gguf.ts";
import type { ModelConfig } from "../config/config.ts";
import type { TiledHeads } from "./reordered.ts";

/** Parts of a decoder that a configuration switches on, and that llama.cpp has for some families only. */
type Part =
  | "biases of q, k and v"
  | "a bias of the attention's output"
  | "biases of the MLP"
  | "rope scaling llama3"
  | "rope scaling longrope";

interface Architecture {
  /** `general.architecture`. */
  readonly name: string;
  /**
   * Rotary pairs are neighbours (2i, 2i + 1) rather than (i, i + D/2): rows of q and k are put in that order.
   */
  readonly interleaved: boolean;
  /** What llama.cpp's code for it reads besides the parts that every model of the family has. */
  readonly reads: readonly Part[];
  /** It has sliding windows, on layers whose number and one more is no multiple of this. */
  readonly windowedBesides?: number;
  /** Names of tensors where they differ from `TENSORS`. */
  readonly tensors?: Readonly<Record<string, string>>;
  /** Settings besides the usual ones, or in place of one of these. */
  readonly settings?: (config: ModelConfig) => readonly Setting[];
  /** Why llama.cpp would compute something else, as the end of a sentence; undefined where it would not. */
  readonly differs?: (config: ModelConfig) => string | undefined;
}

/** A key without the architecture's name before it, and its value. */
type Setting = readonly [key: string, value: GgufValue];

const u32 = (value: number) => ({ u32: value });
const f32 = (value: number) => ({ f32: value });

const BIASES: readonly Part[] = ["biases of q, k and v", "a bias of the attention's output", "biases of the MLP"];

/** Norms of what attention and MLP add, in the families that have such. */
const AFTER = {
  post_attention_layernorm: "post_attention_norm",
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};

/** The norm before the head is called as if it were the embedding's, as in transformers. */
const LFM2_TENSORS = {
  operator_norm: "attn_norm",
  ffn_norm: "ffn_norm",
  embedding_norm: "token_embd_norm",
  "self_attn.q_layernorm": "attn_q_norm",
  "self_attn.k_layernorm": "attn_k_norm",
  "self_attn.out_proj": "attn_output",
  "conv.in_proj": "shortconv.in_proj",
  "conv.conv": "shortconv.conv",
  "conv.out_proj": "shortconv.out_proj",
  "feed_forward.w1": "ffn_gate",
  "feed_forward.w3": "ffn_up",
  "feed_forward.w2": "ffn_down",
};

/** A DeltaNet's, called as if it were a state space model; its decay and the bias of its steps are no weights there. */
const QWEN3_5_TENSORS = {
  post_attention_layernorm: "post_attention_norm",
  "linear_attn.in_proj_qkv": "attn_qkv",
  "linear_attn.in_proj_z": "attn_gate",
  "linear_attn.in_proj_a": "ssm_alpha",
  "linear_attn.in_proj_b": "ssm_beta",
  "linear_attn.conv1d": "ssm_conv1d",
  "linear_attn.norm": "ssm_norm",
  "linear_attn.out_proj": "ssm_out",
};

function qwen35Settings({ deltaNet, layerMixer, layerRope, keyValueHeads }: ModelConfig): Setting[] {
  if (deltaNet === undefined) return [];
  const { keyHeads, valueHeads, keySize, valueSize, taps } = deltaNet;
  const pairs = (layerRope.find((rope) => rope !== undefined)?.rotated ?? 0) / 2;
  // Pairs turn by one of three positions in turn, which are the same for text.
  const sections = [0, 1, 2].map((place) => Math.ceil((pairs - place) / 3));
  return [
    ["attention.head_count_kv", u32(keyValueHeads)],
    ["full_attention_interval", u32(layerMixer.indexOf("attention") + 1)],
    ["rope.dimension_sections", Int32Array.of(...sections, 0)],
    ["ssm.conv_kernel", u32(taps)],
    ["ssm.state_size", u32(keySize)],
    ["ssm.group_count", u32(keyHeads)],
    ["ssm.time_step_rank", u32(valueHeads)],
    ["ssm.inner_size", u32(valueHeads * valueSize)],
  ];
}

function qwen35Differs({ deltaNet, layerMixer }: ModelConfig): string | undefined {
  if (deltaNet === undefined) return "it has no DeltaNets, without which llama.cpp does not load it";
  if (deltaNet.keySize !== deltaNet.valueSize) return "the keys and values of its DeltaNets are of two sizes";
  const n = layerMixer.indexOf("attention") + 1;
  if (n > 0 && layerMixer.every((mixer, layer) => (mixer === "attention") === ((layer + 1) % n === 0)))
    return undefined;
  return "its layers with attention are not every n-th one, as they are in llama.cpp";
}

/** llama.cpp knows Gemma's scale by itself: of the width of a head, and of C / H in the largest model. */
function gemmaScale(
  largest: number,
  { layers, hiddenSize, heads, headSize, attentionScale }: ModelConfig,
): string | undefined {
  const known = 1 / Math.sqrt(layers === largest ? hiddenSize / heads : headSize);
  if (Math.abs(attentionScale / known - 1) < 1e-6) return undefined;
  return `products of queries and keys are multiplied with ${attentionScale}, and in llama.cpp with ${known}`;
}

const ARCHITECTURES: Readonly<Partial<Record<string, Architecture>>> = {
  gpt2: { name: "gpt2", interleaved: false, reads: BIASES },
  llama: { name: "llama", interleaved: true, reads: [...BIASES, "rope scaling llama3"] },
  mistral: { name: "llama", interleaved: true, reads: [...BIASES, "rope scaling llama3"] },
  ministral3: {
    name: "mistral3",
    interleaved: true,
    reads: [],
    settings: ({ queryScaling }) =>
      queryScaling === undefined ? [] : [["attention.temperature_scale", f32(queryScaling.beta)]],
  },
  qwen2: { name: "qwen2", interleaved: false, reads: ["biases of q, k and v"] },
  qwen3: { name: "qwen3", interleaved: false, reads: [] },
  smollm3: {
    name: "smollm3",
    interleaved: true,
    reads: [],
    differs: ({ layerRope }) =>
      layerRope.every((rope, layer) => (rope !== undefined) === ((layer + 1) % 4 !== 0))
        ? undefined
        : "its layers without rotary positions are not every fourth one, as they are in llama.cpp",
  },
  granite: {
    name: "granite",
    interleaved: true,
    reads: BIASES,
    settings: ({ attentionScale, embeddingMultiplier, residualMultiplier, logitsScaling }) => [
      ["attention.scale", f32(attentionScale)],
      ["embedding_scale", f32(embeddingMultiplier)],
      ["residual_scale", f32(residualMultiplier)],
      ["logit_scale", f32(logitsScaling)],
    ],
  },
  olmo2: { name: "olmo2", interleaved: false, reads: [], tensors: AFTER },
  olmo3: { name: "olmo2", interleaved: false, reads: [], tensors: AFTER, windowedBesides: 4 },
  phi3: {
    name: "phi3",
    interleaved: false,
    reads: ["rope scaling longrope"],
    tensors: { "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up" },
  },
  gemma2: {
    name: "gemma2",
    interleaved: false,
    reads: [],
    tensors: AFTER,
    windowedBesides: 2,
    settings: ({ attentionSoftCap = 0, logitSoftCap = 0 }) => [
      ["attn_logit_softcapping", f32(attentionSoftCap)],
      ["final_logit_softcapping", f32(logitSoftCap)],
    ],
    differs: (config) => {
      if (config.attentionSoftCap === undefined || config.logitSoftCap === undefined) return "it has no soft caps";
      return config.tiedHead ? gemmaScale(46, config) : "its head is not the embedding";
    },
  },
  lfm2: {
    name: "lfm2",
    interleaved: false,
    reads: [],
    tensors: LFM2_TENSORS,
    settings: ({ convolution }) => [["shortconv.l_cache", u32(convolution?.taps ?? 0)]],
    differs: ({ convolution }) => {
      if (convolution === undefined) return "it has no convolutions, without which llama.cpp does not load it";
      return convolution.bias ? "its convolutions have biases, which llama.cpp leaves out" : undefined;
    },
  },
  qwen3_5_text: {
    name: "qwen35",
    interleaved: false,
    reads: [],
    tensors: QWEN3_5_TENSORS,
    settings: qwen35Settings,
    differs: qwen35Differs,
  },
  gemma3_text: {
    name: "gemma3",
    interleaved: false,
    reads: [],
    tensors: AFTER,
    windowedBesides: 6,
    differs: (config) =>
      config.logitSoftCap === undefined
        ? gemmaScale(62, config)
        : "its logits have a soft cap, which llama.cpp leaves out",
  },
};

/** Names of tensors, without what stands before the layer's number and after the last dot. */
const TENSORS: Readonly<Record<string, string>> = {
  embed_tokens: "token_embd",
  wte: "token_embd",
  wpe: "position_embd",
  norm: "output_norm",
  ln_f: "output_norm",
  lm_head: "output",
  input_layernorm: "attn_norm",
  ln_1: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "attn.c_attn": "attn_qkv",
  "attn.c_proj": "attn_output",
  post_attention_layernorm: "ffn_norm",
  ln_2: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};

/** The families that can be exported. */
export const EXPORTED_FAMILIES = Object.keys(ARCHITECTURES);

/** llama.cpp's side of a model. */
export interface LlamaCppModel {
  readonly name: string;
  /** With the architecture's name before each key. */
  readonly settings: readonly Setting[];
  /** Whether rows of this tensor are put in llama.cpp's order of rotary pairs. */
  readonly isPermuted: (part: string) => boolean;
  /** Where this tensor has heads that llama.cpp has in another order. */
  readonly tiled: (part: string) => TiledHeads | undefined;
  readonly tensorName: (part: string) => string;
  /** What is written in place of a value of this tensor; undefined where all are as they are. */
  readonly written: (part: string) => ((value: number) => number) | undefined;
  /** Sentences on what llama.cpp computes otherwise in rare cases. */
  readonly warnings: readonly string[];
}

/**
 * What llama.cpp makes of a model.
 *
 * @param folder of the model, for messages
 * @throws ModelFormatError naming what llama.cpp does not compute
 */
export function architectureOf(config: ModelConfig, folder: string): LlamaCppModel {
  const architecture = ARCHITECTURES[config.modelType];
  const refused = (why: string) => new ModelFormatError(`${folder} cannot be exported for llama.cpp: ${why}.`);
  if (architecture === undefined) {
    throw refused(`its family "${config.modelType}" is none of ${EXPORTED_FAMILIES.join(", ")}`);
  }
  const { name, tensors = {}, reads, interleaved } = architecture;
  const scaling = mainRope(config)?.scaling.type;
  const has: Readonly<Record<Part, boolean>> = {
    "biases of q, k and v": config.qkvBias,
    "a bias of the attention's output": config.outputBias,
    "biases of the MLP": config.mlpBias,
    "rope scaling llama3": scaling === "llama3",
    "rope scaling longrope": scaling === "longrope",
  };
  const missing = (Object.keys(has) as Part[]).filter((part) => has[part] && !reads.includes(part));
  if (missing.length > 0) throw refused(`it has ${missing.join(" and ")}, which llama.cpp's "${name}" has not`);
  const difference = architecture.differs?.(config) ?? ropeDiffers(config) ?? windowDiffers(config, architecture);
  if (difference !== undefined) throw refused(difference);
  const settings = [
    ...usualSettings(config),
    ...ropeSettings(config),
    ...windowSettings(config, architecture),
    ...(architecture.settings?.(config) ?? []),
  ];
  return {
    name,
    settings: settings.map(([key, value]) => [`${name}.${key}`, value] as const),
    isPermuted: (part) => interleaved && /\.[qk]_proj\./.test(part),
    tensorName: (part) => {
      const [, layer, module = "", kind = ""] = /^(?:(?:layers|h)\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(part) ?? [];
      const [, number, vector = ""] = /^layers\.(\d+)\.linear_attn\.(\w+)$/.exec(part) ?? [];
      const whole = { A_log: "ssm_a", dt_bias: "ssm_dt.bias" }[vector];
      if (whole !== undefined) return `blk.${number}.${whole}`;
      const own = tensors[module] ?? TENSORS[module];
      if (own === undefined) throw refused(`its tensor "${part}" has no name there`);
      return `${layer === undefined ? "" : `blk.${layer}.`}${own}.${kind}`;
    },
    tiled: (part) => tiledHeads(config, part),
    written: (part) => {
      if (part.endsWith(".A_log")) return (value) => -Math.exp(value);
      const adds = config.normUnitOffset && /norm\.weight$/.test(part) && !part.endsWith("linear_attn.norm.weight");
      return adds ? (value) => value + 1 : undefined;
    },
    warnings: [...windowWarning(config, architecture, folder), ...longRopeWarning(config, folder)],
  };
}

/**
 * Several value heads of a DeltaNet share a key head: those of one key head lie together, and in llama.cpp the first one
 * of every key head, then the second ones.
 */
function tiledHeads({ deltaNet }: ModelConfig, part: string): TiledHeads | undefined {
  const [, module] = /^layers\.\d+\.linear_attn\.(\w+)/.exec(part) ?? [];
  if (deltaNet === undefined || module === undefined || module === "norm") return undefined;
  const { keyHeads: groups, valueHeads, keySize, valueSize } = deltaNet;
  const each = valueHeads / groups;
  if (each === 1) return undefined;
  const isOfSteps = ["in_proj_a", "in_proj_b", "A_log", "dt_bias"].includes(module);
  // Queries and keys lie before the values.
  const first = ["in_proj_qkv", "conv1d"].includes(module) ? 2 * groups * keySize : 0;
  return { axis: module === "out_proj" ? "columns" : "rows", first, groups, each, size: isOfSteps ? 1 : valueSize };
}

function usualSettings(config: ModelConfig): Setting[] {
  return [
    ["vocab_size", u32(config.vocabSize)],
    ["context_length", u32(config.contextLength)],
    ["embedding_length", u32(config.hiddenSize)],
    ["block_count", u32(config.layers)],
    ["feed_forward_length", u32(config.intermediateSize)],
    ["attention.head_count", u32(config.heads)],
    ["attention.head_count_kv", keyValueHeadsOf(config)],
    [
      config.norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      f32(config.normEpsilon),
    ],
  ];
}

/** One number, or one a layer where some have no attention, which are told by a 0. */
function keyValueHeadsOf({ layerMixer, keyValueHeads }: ModelConfig): GgufValue {
  if (layerMixer.every((mixer) => mixer === "attention")) return u32(keyValueHeads);
  return Int32Array.from(layerMixer, (mixer) => (mixer === "attention" ? keyValueHeads : 0));
}

/** The rotation of layers that see the whole sequence; undefined without rotary positions. */
function mainRope({ layerRope, layerWindow }: ModelConfig): LayerRope | undefined {
  return layerRope.find((rope, layer) => rope && !layerWindow[layer]) ?? layerRope.find((rope) => rope);
}

function ropeSettings(config: ModelConfig): Setting[] {
  const rope = mainRope(config);
  if (rope === undefined) return [];
  const { scaling } = rope;
  const settings: Setting[] = [
    ["attention.key_length", u32(config.headSize)],
    ["attention.value_length", u32(config.headSize)],
    ["rope.dimension_count", u32(rope.rotated)],
    ["rope.freq_base", f32(rope.theta)],
  ];
  const windowed = config.layerRope.find((one, layer) => one && config.layerWindow[layer]);
  if (windowed) settings.push(["rope.freq_base_swa", f32(windowed.theta)]);
  if (scaling.type === "linear") {
    settings.push(["rope.scaling.type", "linear"], ["rope.scaling.factor", f32(scaling.factor)]);
  } else if (scaling.type === "yarn") {
    settings.push(
      ["rope.scaling.type", "yarn"],
      ["rope.scaling.factor", f32(scaling.factor)],
      ["rope.scaling.original_context_length", u32(scaling.originalContextLength)],
      // llama.cpp multiplies the cosines with this and with YaRN's usual magnitude.
      ["rope.scaling.attn_factor", f32(scaling.magnitude / (1 + 0.1 * Math.log(scaling.factor)))],
      ["rope.scaling.yarn_beta_fast", f32(scaling.betaFast)],
      ["rope.scaling.yarn_beta_slow", f32(scaling.betaSlow)],
    );
  } else if (scaling.type === "longrope") {
    settings.push(
      ["rope.scaling.type", "longrope"],
      ["rope.scaling.original_context_length", u32(scaling.originalContextLength)],
      ["rope.scaling.attn_factor", f32(scaling.magnitude)],
    );
  }
  return settings;
}

function ropeDiffers(config: ModelConfig): string | undefined {
  const rope = mainRope(config);
  if (rope?.scaling.type === "yarn" && !rope.scaling.truncate) return "its YaRN blends at no whole pairs";
  return undefined;
}

/** Tensors that hold what rotary frequencies are divided by, [r/2], where a scaling is no setting. */
export function frequencyDivisors(
  config: ModelConfig,
): readonly (readonly [name: string, Float32Array<ArrayBuffer>])[] {
  const rope = mainRope(config);
  if (rope?.scaling.type === "longrope") {
    const { shortFactors, longFactors } = rope.scaling;
    return [
      ["rope_factors_long.weight", Float32Array.from(longFactors)],
      ["rope_factors_short.weight", Float32Array.from(shortFactors)],
    ];
  }
  if (rope?.scaling.type !== "llama3") return [];
  const plain = ropeFrequencies({ ...rope, scaling: { type: "none" } });
  const scaled = ropeFrequencies(rope);
  return [["rope_freqs.weight", Float32Array.from(plain, (frequency, i) => frequency / (scaled[i] as number))]];
}

function windowSettings({ slidingWindow }: ModelConfig, { windowedBesides }: Architecture): Setting[] {
  if (windowedBesides === undefined || slidingWindow === undefined) return [];
  return [
    ["attention.sliding_window", u32(slidingWindow)],
    ["attention.sliding_window_pattern", u32(windowedBesides)],
  ];
}

/** llama.cpp takes its own layers for those with windows. */
function windowDiffers(
  { slidingWindow, layerWindow }: ModelConfig,
  { windowedBesides: n }: Architecture,
): string | undefined {
  if (n === undefined || slidingWindow === undefined) return undefined;
  if (layerWindow.every((windowed, layer) => windowed === ((layer + 1) % n !== 0))) return undefined;
  return `its layers without a sliding window are not every ${n}th one, as they are in llama.cpp`;
}

/** An architecture without sliding windows sees the whole sequence. */
function windowWarning(
  { slidingWindow, modelType }: ModelConfig,
  { windowedBesides }: Architecture,
  folder: string,
): string[] {
  if (slidingWindow === undefined || windowedBesides !== undefined) return [];
  return [
    `${folder} has layers that see ${slidingWindow} tokens only, and llama.cpp has no such window for ${modelType}: sequences longer than that give other numbers there.`,
  ];
}

/** llama.cpp chooses LongRoPE's factors once, by the context that it is started with. */
function longRopeWarning(config: ModelConfig, folder: string): string[] {
  const scaling = mainRope(config)?.scaling;
  if (scaling?.type !== "longrope") return [];
  return [
    `${folder} turns sequences of up to ${scaling.originalContextLength} tokens otherwise than longer ones; llama.cpp goes by the context that it is started with, so give it one of at most as many for short texts.`,
  ];
}
