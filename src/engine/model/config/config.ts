/**
 * What a decoder is made of, read from a Hugging Face `config.json`. One decoder with parts switched by these fields;
 * there is no code per family beyond the table of `families.ts` and that of tensor names in `parameters.ts`. Keys and
 * their meaning are those of transformers' configuration classes.
 */
import { ModelFormatError, shown } from "../../../errors.ts";
import type { LayerRope } from "../../../kernels/rope-table.ts";
import { parseJsonObject } from "../../files/json-file.ts";
import { Keys, listed } from "./config-keys.ts";
import { FAMILIES, type Family, type RotaryType, type SizeKey } from "./families.ts";
import { adjustedMlpWidth, type Mixers, mixersOf, onlyAttention } from "./mixer-keys.ts";
import { checkQuantization } from "./quantization.ts";
import { ropesOf } from "./rope-keys.ts";
import { windowsOf } from "./window-keys.ts";
import { isWrapper, textConfigOf, WRAPPERS, type WrapperType } from "./wrapped.ts";

export type ModelType = RotaryType | "gpt2";

export interface ModelConfig extends Mixers {
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
  /** RMSNorm adds 1 to its weights, which are stored around 0. */
  readonly normUnitOffset: boolean;
  /** Where a layer's norms stand: before attention and MLP, after them (before their result is added), or both. */
  readonly normPlaces: "before" | "after" | "around";
  readonly position: "rope" | "learned";
  /** One entry a layer: how it rotates queries and keys by their positions (RoPE); the others know no positions. */
  readonly layerRope: readonly (LayerRope | undefined)[];
  /** Queries at position p are multiplied with 1 + beta ln(1 + floor(p / length)) after the rotation. */
  readonly queryScaling: { readonly beta: number; readonly length: number } | undefined;
  /** What products of queries and keys are multiplied with. */
  readonly attentionScale: number;
  /** Scores s become cap tanh(s / cap); logits in the same way. */
  readonly attentionSoftCap: number | undefined;
  readonly logitSoftCap: number | undefined;
  /** Factors of the embedding and of what each layer's two parts add to the residual stream; 1 mostly. */
  readonly embeddingMultiplier: number;
  readonly residualMultiplier: number;
  /** What logits are divided by, before their soft cap. */
  readonly logitsScaling: number;
  /** W: in a windowed layer a token sees itself and the W - 1 before it. Undefined where no layer is windowed. */
  readonly slidingWindow: number | undefined;
  /** Layers with the sliding window, one entry a layer; the others see the whole sequence. */
  readonly layerWindow: readonly boolean[];
  readonly mlp: "swiglu" | "geglu" | "gelu";
  /** RMSNorm over each query and key head, or all of them together, before the rotary positions. */
  readonly qkNorm: "none" | "head" | "width";
  /** Bias on q, k, v. */
  readonly qkvBias: boolean;
  /** Bias on the attention's output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** The weight files hold q, k and v as one tensor, and gate and up as one. */
  readonly fusedProjections: boolean;
  /** Weights stored as [in, out] (GPT-2's Conv1D) instead of [out, in]. */
  readonly inOutWeights: boolean;
  /** The head shares the embedding's tensor. */
  readonly tiedHead: boolean;
  /** The family trains with dropout, which is not implemented. */
  readonly dropsOut: boolean;
  /** The model of text and images that holds this one, where it is not alone in its files. */
  readonly wrapper: WrapperType | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
}

/** Tokens beyond which a sequence has LongRoPE's long factors; undefined for models without them. */
export function longRopeBeyond({ layerRope }: ModelConfig): number | undefined {
  const scaling = layerRope.find((rope) => rope)?.scaling;
  return scaling?.type === "longrope" ? scaling.originalContextLength : undefined;
}

const SUPPORTED = [...Object.keys(FAMILIES), ...WRAPPERS, "gpt2"];

/**
 * Keys of other decoders that would change the mathematics. A family that has one names it (`ownKeys`); a file of another
 * that carries one was made for another implementation.
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
 * type "dynamic" is taken within the context that the file names; the longer one that it allows is not offered. Of a
 * model of text and images it is the text model.
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
  if (isWrapper(name)) {
    const text = textConfigOf(read, name);
    return { ...configOf(new Keys(text, file), text.model_type as RotaryType), wrapper: name };
  }
  return configOf(read, name as ModelType);
}

function configOf(read: Keys, name: ModelType): ModelConfig {
  const ownKeys = name === "gpt2" ? [] : FAMILIES[name].ownKeys;
  const isForeign = (key: string) => !ownKeys.includes(key);
  for (const key of FOREIGN_KEYS.filter(isForeign)) read.refuseUse(key);
  for (const key of FOREIGN_FACTORS.filter(isForeign)) read.refuse(key, 1);
  return checked(read, name === "gpt2" ? gpt2(read) : rotary(read, name));
}

/**
 * The end tokens of a `generation_config.json`; undefined where it names none. Throws ModelFormatError naming the file
 * and the key unless `eos_token_id` is a token id or a list of them.
 */
export function parseEndTokens(text: string, file: string): readonly number[] | undefined {
  return new Keys(parseJsonObject(text, file), file).endTokens();
}

/** Llama and the families that are built like it. */
function rotary(read: Keys, modelType: RotaryType): ModelConfig {
  const family = FAMILIES[modelType];
  const size = (key: SizeKey) => read.count(key, family.sizes?.[key]);
  const layers = layerCount(read, "num_hidden_layers", family.sizes?.num_hidden_layers);
  const heads = size("num_attention_heads");
  const hiddenSize = size("hidden_size");
  const contextLength = read.count("max_position_embeddings", family.contextLength);
  checkActivation(read, family);
  // Above 1 Llama's code computes in slices, which gives other last bits; the other families ignore the key.
  if (modelType === "llama") read.refuse("pretraining_tp", 1);
  if (family.attentionBias === "none") read.refuse("attention_bias", false);
  if (!family.mlpBias) read.refuse("mlp_bias", false);
  // A second name of the base, which transformers 5 reads and 4 does not.
  if (family.otherMixer === "convolution") read.refuse("theta", read.positive("rope_theta", family.ropeTheta));
  read.refuse("use_bidirectional_attention", false);
  const attentionBias = family.attentionBias === "key" && read.flag("attention_bias", false);
  const keyValueHeads = read.json.num_key_value_heads === null ? heads : family.keyValueHeads(heads);
  const headSize =
    read.has("head_dim") || family.headSize !== undefined
      ? read.count("head_dim", family.headSize)
      : read.headSize("hidden_size", "num_attention_heads");
  const turns = family.listsRope ? ropeLayers(read, layers) : new Array<boolean>(layers).fill(true);
  const { types, acting } = windowsOf(read, family, turns, contextLength);
  const ropes = ropesOf(read, family, headSize, contextLength);
  const own = (key: string, fallback: number) =>
    family.ownKeys.includes(key) ? read.positive(key, fallback) : fallback;
  return {
    modelType,
    vocabSize: size("vocab_size"),
    hiddenSize,
    layers,
    heads,
    keyValueHeads: read.count("num_key_value_heads", keyValueHeads),
    headSize,
    intermediateSize: family.adjustsMlp ? adjustedMlpWidth(read) : size("intermediate_size"),
    contextLength,
    norm: "rms",
    normEpsilon: read.positive(family.normEpsilonKey ?? "rms_norm_eps", family.normEpsilon),
    normUnitOffset: family.normUnitOffset,
    normPlaces: family.normPlaces,
    position: "rope",
    layerRope: turns.map((rope, layer) => (rope ? ropes[types[layer] ? "windowed" : "full"] : undefined)),
    queryScaling: queryScalingOf(read, family),
    attentionScale: attentionScaleOf(read, family, headSize),
    attentionSoftCap: softCapOf(read, family, "attn_logit_softcapping", family.attentionSoftCap),
    logitSoftCap: softCapOf(read, family, "final_logit_softcapping", family.logitSoftCap),
    embeddingMultiplier: family.scalesEmbedding ? Math.sqrt(hiddenSize) : own("embedding_multiplier", 1),
    residualMultiplier: own("residual_multiplier", 1),
    logitsScaling: own("logits_scaling", 1),
    ...acting,
    mlp: family.mlp,
    qkNorm: family.qkNorm,
    qkvBias: attentionBias || family.attentionBias === "qkv",
    outputBias: attentionBias,
    mlpBias: family.mlpBias && read.flag("mlp_bias", false),
    fusedProjections: family.fusedProjections,
    inOutWeights: false,
    tiedHead: tiedHeadOf(read, family),
    ...mixersOf(read, family, layers),
    dropsOut: read.any(family.dropout, 0),
    wrapper: undefined,
    ...read.specialTokens(),
  };
}

/** The older name wins, as in transformers. */
function tiedHeadOf(read: Keys, { tiedHead, tiedHeadKey }: Family): boolean {
  const key = tiedHeadKey !== undefined && read.has(tiedHeadKey) ? tiedHeadKey : "tie_word_embeddings";
  return read.flag(key, tiedHead);
}

/** Gemma's `hidden_activation` decides; its files' `hidden_act` is to be ignored. */
function checkActivation(read: Keys, { mlp }: Family): void {
  if (mlp === "geglu") read.refuse("hidden_activation", "gelu_pytorch_tanh");
  else read.refuse("hidden_act", "silu");
}

function attentionScaleOf(read: Keys, { ownKeys }: Family, headSize: number): number {
  if (ownKeys.includes("attention_multiplier")) return read.positive("attention_multiplier", 1);
  if (ownKeys.includes("query_pre_attn_scalar")) return 1 / Math.sqrt(read.positive("query_pre_attn_scalar", 256));
  return 1 / Math.sqrt(headSize);
}

/** A soft cap of a family that has the key: null in the file means none. */
function softCapOf(read: Keys, { ownKeys }: Family, key: string, usual: number | undefined): number | undefined {
  if (!ownKeys.includes(key) || read.json[key] === null) return undefined;
  return usual === undefined && !read.has(key) ? undefined : read.positive(key, usual);
}

/** Llama 4's factor of queries, from the object of the rotary positions. */
function queryScalingOf(read: Keys, { ownKeys }: Family): ModelConfig["queryScaling"] {
  if (!ownKeys.includes("llama_4_scaling_beta")) return undefined;
  const keys = read.object("rope_parameters") ?? read.object("rope_scaling");
  // Its class fills in scaled positions of its own where the object is missing.
  if (keys === undefined) throw read.error(`key "rope_parameters" is missing`);
  if (!keys.has("llama_4_scaling_beta")) return undefined;
  const length = keys.count("original_max_position_embeddings");
  return { beta: keys.positive("llama_4_scaling_beta"), length };
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
    normUnitOffset: false,
    normPlaces: "before",
    position: "learned",
    layerRope: new Array<undefined>(layers).fill(undefined),
    queryScaling: undefined,
    attentionScale: 1 / Math.sqrt(read.headSize("n_embd", "n_head")),
    attentionSoftCap: undefined,
    logitSoftCap: undefined,
    embeddingMultiplier: 1,
    residualMultiplier: 1,
    logitsScaling: 1,
    slidingWindow: undefined,
    layerWindow: new Array<boolean>(layers).fill(false),
    ...onlyAttention(layers),
    mlp: "gelu",
    qkNorm: "none",
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    fusedProjections: false,
    inOutWeights: true,
    tiedHead: read.flag("tie_word_embeddings", true),
    dropsOut: read.any(["attn_pdrop", "embd_pdrop", "resid_pdrop"], 0.1),
    wrapper: undefined,
    ...read.specialTokens(),
  };
}

/** `no_rope_layers` has a 1 for a layer WITH rotary positions; without it every n-th layer goes without. */
function ropeLayers(read: Keys, layers: number): boolean[] {
  const uses = read.perLayer("no_rope_layers", layers, [0, 1]);
  if (uses) return uses.map((entry) => entry === 1);
  const interval = read.count("no_rope_layer_interval", 4);
  return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
}

/**
 * Far beyond any model, so that a damaged number does not make lists with an entry for each layer exhaust the memory.
 */
const MOST_LAYERS = 10_000;

function layerCount(read: Keys, key: string, usual?: number): number {
  const layers = read.count(key, usual);
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
