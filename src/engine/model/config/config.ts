/**
 * What a decoder is made of, read from a Hugging Face `config.json`. One decoder with parts switched by these fields;
 * there is no code per family beyond this file and the table of tensor names in `parameters.ts`. Keys, their meaning
 * and their defaults are those of transformers' configuration classes.
 */
import { ModelFormatError, shown } from "../../../errors.ts";
import type { RopeScaling } from "../../../kernels/rope.ts";
import { parseJsonObject } from "../../files/json-file.ts";
import { Keys } from "./config-keys.ts";
import { checkQuantization } from "./quantization.ts";

export type ModelType = "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" | "gpt2";

export interface ModelConfig {
  readonly modelType: ModelType;
  readonly vocabSize: number;
  /** C: width of the residual stream. */
  readonly hiddenSize: number;
  readonly layers: number;
  /** H: query heads. */
  readonly heads: number;
  /** Key/value heads; each serves heads / keyValueHeads query heads. */
  readonly keyValueHeads: number;
  /** D: width of one head. */
  readonly headSize: number;
  /** I: width inside the MLP. */
  readonly intermediateSize: number;
  /** Longest sequence the model was made for, in tokens. */
  readonly contextLength: number;
  readonly norm: "rms" | "layer";
  readonly normEpsilon: number;
  readonly position: "rope" | "learned";
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** One entry a layer: whether it rotates queries and keys by their positions (RoPE); the others know no positions. */
  readonly layerRope: readonly boolean[];
  /** W: in a windowed layer a token sees itself and the W - 1 before it. Undefined where no layer is windowed. */
  readonly slidingWindow: number | undefined;
  /** Layers with the sliding window, one entry a layer; the others see the whole sequence. */
  readonly layerWindow: readonly boolean[];
  readonly mlp: "swiglu" | "gelu";
  /** RMSNorm over each query and key head, before the rotary positions. */
  readonly qkNorm: boolean;
  /** Bias on q, k, v. */
  readonly qkvBias: boolean;
  /** Bias on the attention's output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** Weights stored as [in, out] (GPT-2's Conv1D) instead of [out, in]. */
  readonly inOutWeights: boolean;
  /** The head shares the embedding's tensor. */
  readonly tiedHead: boolean;
  /** The family trains with dropout, which is not implemented. */
  readonly dropsOut: boolean;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
}

/** How the Llama-like families differ: defaults of their configuration classes, and parts that no key switches. */
interface Family {
  /** Key/value heads where the key is absent; null in the file means as many as query heads. */
  readonly keyValueHeads: (queryHeads: number) => number;
  readonly contextLength: number;
  readonly ropeTheta: number;
  readonly tiedHead: boolean;
  /** Width of a head where the key is absent; undefined where the heads divide the hidden size among them. */
  readonly headSize?: number;
  readonly qkNorm: boolean;
  /** "key": on q, k, v and the output as `attention_bias` says; "qkv": always on q, k and v; "none": never. */
  readonly attentionBias: "key" | "qkv" | "none";
  /** The family has the key `mlp_bias`. */
  readonly mlpBias: boolean;
  /** How the family says which layers have a sliding window. */
  readonly window: "none" | "all" | "from" | "withoutRope";
  /** Layers without rotary positions are listed. */
  readonly listsRope: boolean;
}

const LLAMA: Family = {
  keyValueHeads: (queryHeads) => queryHeads,
  contextLength: 2048,
  ropeTheta: 10000,
  tiedHead: false,
  qkNorm: false,
  attentionBias: "key",
  mlpBias: true,
  window: "none",
  listsRope: false,
};
const MISTRAL: Family = {
  ...LLAMA,
  keyValueHeads: () => 8,
  contextLength: 131072,
  attentionBias: "none",
  mlpBias: false,
  window: "all",
};
const QWEN2: Family = {
  ...LLAMA,
  keyValueHeads: () => 32,
  contextLength: 32768,
  attentionBias: "qkv",
  mlpBias: false,
  window: "from",
};
const QWEN3: Family = { ...QWEN2, headSize: 128, qkNorm: true, attentionBias: "key" };
const SMOLLM3: Family = {
  ...LLAMA,
  keyValueHeads: () => 4,
  contextLength: 32768,
  ropeTheta: 2000000,
  tiedHead: true,
  window: "withoutRope",
  listsRope: true,
};

const FAMILIES: Readonly<Record<Exclude<ModelType, "gpt2">, Family>> = {
  llama: LLAMA,
  mistral: MISTRAL,
  qwen2: QWEN2,
  qwen3: QWEN3,
  smollm3: SMOLLM3,
};

const SUPPORTED = [...Object.keys(FAMILIES), "gpt2"];

/**
 * Keys of other decoders that would change the mathematics. None of the families here has them; a file that carries
 * one was made for another implementation.
 */
const FOREIGN_KEYS = [
  ...[
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "attention_multiplier",
    "scale_depth",
  ],
  ...["num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"],
  ...[
    "alibi",
    "clip_qkv",
    "use_qk_norm",
    "qk_layernorm",
    "use_parallel_residual",
    "parallel_attn",
    "new_decoder_architecture",
  ],
  ...[
    "rope_interleaved",
    "attention_chunk_size",
    "attn_temperature_tuning",
    "is_encoder_decoder",
    "add_cross_attention",
  ],
];

/** Factors of other decoders, which a 1 switches off. */
const FOREIGN_FACTORS = ["residual_multiplier", "embedding_multiplier", "logits_scaling", "logit_scale", "scale_emb"];

/**
 * Parses a `config.json`. Throws ModelFormatError for an unknown architecture, a missing or mistyped key, and for
 * every option that would change the mathematics and is not implemented, naming the file and the key. Rotary scaling of
 * type "dynamic" is taken within the context that the file names; the longer one that it allows is not offered.
 *
 * @param text the file's content; @param file its path, for messages
 */
export function parseModelConfig(text: string, file: string): ModelConfig {
  const json = parseJsonObject(text, file);
  const architectures = Array.isArray(json.architectures)
    ? json.architectures.map((name) => (typeof name === "string" ? name : shown(name)))
    : [];
  const type = json.model_type ?? architectures[0] ?? "";
  const name = typeof type === "string" ? type : shown(type);
  if (name === "") throw new ModelFormatError(`${file} names no architecture: "model_type" is missing.`);
  const read = new Keys(json, file);
  checkQuantization(read);
  if (!SUPPORTED.includes(name)) {
    throw read.error(
      `architecture "${name}"${architectures[0] ? ` (${architectures[0]})` : ""} is not supported; supported are ${listed(SUPPORTED)}`,
    );
  }
  for (const key of FOREIGN_KEYS) read.refuseUse(key);
  for (const key of FOREIGN_FACTORS) read.refuse(key, 1);
  return checked(read, name === "gpt2" ? gpt2(read) : rotary(read, name as Exclude<ModelType, "gpt2">));
}

/** Two names or more, quoted, for messages. */
function listed(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`);
  return `${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}`;
}

/**
 * The end tokens of a `generation_config.json`; undefined where it names none. Throws ModelFormatError naming the file
 * and the key unless `eos_token_id` is a token id or a list of them.
 */
export function parseEndTokens(text: string, file: string): readonly number[] | undefined {
  return new Keys(parseJsonObject(text, file), file).endTokens();
}

/** Llama and the families that are built like it. */
function rotary(read: Keys, modelType: Exclude<ModelType, "gpt2">): ModelConfig {
  const family = FAMILIES[modelType];
  const layers = layerCount(read, "num_hidden_layers");
  const heads = read.count("num_attention_heads");
  const contextLength = read.count("max_position_embeddings", family.contextLength);
  read.refuse("hidden_act", "silu");
  read.refuse("partial_rotary_factor", 1);
  // Above 1 Llama's code computes in slices, which gives other last bits; the other families ignore the key.
  if (modelType === "llama") read.refuse("pretraining_tp", 1);
  if (family.attentionBias === "none") read.refuse("attention_bias", false);
  if (!family.mlpBias) read.refuse("mlp_bias", false);
  const attentionBias = family.attentionBias === "key" && read.flag("attention_bias", false);
  const keyValueHeads = read.json.num_key_value_heads === null ? heads : family.keyValueHeads(heads);
  const rope = ropeOf(read, family.ropeTheta, contextLength);
  const layerRope = family.listsRope ? ropeLayers(read, layers) : new Array<boolean>(layers).fill(true);
  return {
    modelType,
    vocabSize: read.count("vocab_size"),
    hiddenSize: read.count("hidden_size"),
    layers,
    heads,
    keyValueHeads: read.count("num_key_value_heads", keyValueHeads),
    headSize:
      read.has("head_dim") || family.headSize !== undefined
        ? read.count("head_dim", family.headSize)
        : read.headSize("hidden_size", "num_attention_heads"),
    intermediateSize: read.count("intermediate_size"),
    contextLength,
    norm: "rms",
    normEpsilon: read.positive("rms_norm_eps", 1e-6),
    position: "rope",
    ...rope,
    layerRope,
    ...windowsOf(read, family, layerRope, contextLength),
    mlp: "swiglu",
    qkNorm: family.qkNorm,
    qkvBias: attentionBias || family.attentionBias === "qkv",
    outputBias: attentionBias,
    mlpBias: family.mlpBias && read.flag("mlp_bias", false),
    inOutWeights: false,
    tiedHead: read.flag("tie_word_embeddings", family.tiedHead),
    dropsOut: read.any(["attention_dropout"], 0),
    ...read.specialTokens(),
  };
}

function gpt2(read: Keys): ModelConfig {
  const hiddenSize = read.count("n_embd");
  const heads = read.count("n_head");
  const layers = layerCount(read, "n_layer");
  const activation = read.json.activation_function ?? "gelu_new";
  if (activation !== "gelu_new" && activation !== "gelu_pytorch_tanh") {
    throw read.error(`"activation_function" is ${shown(activation)}; only "gelu_new" is supported`);
  }
  read.refuse("scale_attn_weights", true);
  read.refuse("scale_attn_by_inverse_layer_idx", false);
  return {
    modelType: "gpt2",
    vocabSize: read.count("vocab_size"),
    hiddenSize,
    layers,
    heads,
    keyValueHeads: heads,
    headSize: read.headSize("n_embd", "n_head"),
    intermediateSize: read.count("n_inner", 4 * hiddenSize),
    contextLength: read.count("n_positions", 1024),
    norm: "layer",
    normEpsilon: read.positive("layer_norm_epsilon", 1e-5),
    position: "learned",
    ropeTheta: 0,
    ropeScaling: { type: "none" },
    layerRope: new Array<boolean>(layers).fill(false),
    slidingWindow: undefined,
    layerWindow: new Array<boolean>(layers).fill(false),
    mlp: "gelu",
    qkNorm: false,
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    inOutWeights: true,
    tiedHead: read.flag("tie_word_embeddings", true),
    dropsOut: read.any(["attn_pdrop", "embd_pdrop", "resid_pdrop"], 0.1),
    ...read.specialTokens(),
  };
}

/** Base and scaling of the rotary frequencies: `rope_theta` with `rope_scaling`, or both within `rope_parameters`. */
function ropeOf(read: Keys, theta: number, contextLength: number): { ropeTheta: number; ropeScaling: RopeScaling } {
  const [older, newer] = [read.object("rope_scaling"), read.object("rope_parameters")];
  const [scalingOfOlder, scalingOfNewer] = [older, newer].map((keys) => keys && scalingOf(keys, contextLength));
  if (
    older &&
    newer &&
    shown(scalingOfOlder, Number.POSITIVE_INFINITY) !== shown(scalingOfNewer, Number.POSITIVE_INFINITY)
  ) {
    throw read.error(`"rope_scaling" and "rope_parameters" scale the rotary positions differently; keep one of them`);
  }
  const outer = read.positive("rope_theta", theta);
  return {
    ropeTheta: (newer ?? older)?.positive("rope_theta", outer) ?? outer,
    ropeScaling: scalingOfNewer ?? scalingOfOlder ?? { type: "none" },
  };
}

const SCALINGS = ["default", "linear", "dynamic", "llama3"];

function scalingOf(keys: Keys, contextLength: number): RopeScaling {
  const { rope_type, type } = keys.json;
  // rope_scaling without a type is damaged; rope_parameters without one only gives the base.
  const kind = rope_type ?? type ?? (keys.inside === "rope_parameters" ? "default" : undefined);
  if (!SCALINGS.some((one) => one === kind)) {
    throw keys.error(
      `"${keys.inside}" is ${shown(keys.json)}, and this scaling is not supported; supported are ${listed(SCALINGS)}`,
    );
  }
  keys.refuse("partial_rotary_factor", 1);
  keys.refuse("attention_factor", 1);
  for (const key of ["mrope_section", FULL, SLIDING]) keys.refuseUse(key);
  if (kind === "linear") return { type: "linear", factor: keys.positive("factor") };
  if (kind === "llama3") return llama3Scaling(keys);
  // Dynamic scaling changes the base only for sequences beyond the context, which are never run: the longer context
  // that its factor promises is not offered.
  if (kind === "dynamic") {
    keys.positive("factor");
    keys.refuse("original_max_position_embeddings", contextLength);
  }
  return { type: "none" };
}

function llama3Scaling(keys: Keys): RopeScaling {
  const [low, high] = [keys.positive("low_freq_factor"), keys.positive("high_freq_factor")];
  if (high <= low) {
    throw keys.error(`"high_freq_factor" of "${keys.inside}" is ${high}, not above its "low_freq_factor" of ${low}`);
  }
  return {
    type: "llama3",
    factor: keys.positive("factor"),
    lowFrequencyFactor: low,
    highFrequencyFactor: high,
    originalContextLength: keys.count("original_max_position_embeddings"),
  };
}

/** `no_rope_layers` has a 1 for a layer WITH rotary positions; without it every n-th layer goes without. */
function ropeLayers(read: Keys, layers: number): boolean[] {
  const uses = read.perLayer("no_rope_layers", layers, [0, 1]);
  if (uses) return uses.map((entry) => entry === 1);
  const interval = read.count("no_rope_layer_interval", 4);
  return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
}

const FULL = "full_attention";
const SLIDING = "sliding_attention";

/** The sliding window and the layers that have it, from `sliding_window` and the family's own switch. */
function windowsOf(
  read: Keys,
  family: Family,
  layerRope: readonly boolean[],
  contextLength: number,
): { slidingWindow: number | undefined; layerWindow: readonly boolean[] } {
  const window = windowOf(read, family);
  const layers = layerRope.length;
  const first = family.window === "from" && window !== undefined ? firstWindowed(read) : 0;
  const usual = layerRope.map(
    (rope, layer) => window !== undefined && layer >= first && !(family.window === "withoutRope" && rope),
  );
  const types = read.perLayer("layer_types", layers, [FULL, SLIDING]);
  const layerWindow = types ? types.map((type) => type === SLIDING) : usual;
  const listIsIgnored = family.window === "none" || family.window === "all";
  const at = layerWindow.findIndex(
    (windowed, layer) => (listIsIgnored || window === undefined) && windowed !== usual[layer],
  );
  if (at >= 0) {
    throw read.error(
      `"layer_types" makes layer ${at} "${layerWindow[at] ? SLIDING : FULL}", which "sliding_window" and the model type contradict`,
    );
  }
  const everActs = window !== undefined && window < contextLength && layerWindow.includes(true);
  return everActs
    ? { slidingWindow: window, layerWindow }
    : { slidingWindow: undefined, layerWindow: layerWindow.map(() => false) };
}

function windowOf(read: Keys, family: Family): number | undefined {
  switch (family.window) {
    case "none":
      read.refuseUse("sliding_window");
      return undefined;
    case "all":
      return read.json.sliding_window === null ? undefined : read.count("sliding_window", 4096);
    case "from":
      if (!read.flag("use_sliding_window", false) || read.json.sliding_window === null) return undefined;
      return read.count("sliding_window", 4096);
    case "withoutRope":
      return read.flag("use_sliding_window", false) && read.has("sliding_window")
        ? read.count("sliding_window")
        : undefined;
  }
}

/** `max_window_layers`: layers from this one on are windowed. */
function firstWindowed(read: Keys): number {
  return read.json.max_window_layers === 0 ? 0 : read.count("max_window_layers", 28);
}

/**
 * Far beyond any model, so that a damaged number does not make lists with an entry for each layer exhaust the memory.
 */
const MOST_LAYERS = 10_000;

function layerCount(read: Keys, key: string): number {
  const layers = read.count(key);
  if (layers > MOST_LAYERS) throw read.error(`"${key}" is ${layers}, more than the ${MOST_LAYERS} that are supported`);
  return layers;
}

function checked(read: Keys, config: ModelConfig): ModelConfig {
  if (config.heads % config.keyValueHeads !== 0) {
    throw read.error(`${config.heads} query heads are not a multiple of ${config.keyValueHeads} key/value heads`);
  }
  if (config.position === "rope" && config.headSize % 2 !== 0) {
    throw read.error(`rotary positions need an even head size, not ${config.headSize}`);
  }
  if (config.contextLength < 2) throw read.error("a context of 1 token leaves no room for a prompt and a completion");
  return config;
}
