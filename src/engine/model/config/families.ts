/**
 * How the model families differ: the defaults of their configuration classes in transformers, and the parts that no key
 * switches. A family is a row of this table; what the parts are is said in `config.ts`, and no other file asks for a
 * family by its name.
 */

/** Families of one decoder with rotary positions. */
export type RotaryType =
  | "llama"
  | "mistral"
  | "ministral3"
  | "qwen2"
  | "qwen3"
  | "smollm3"
  | "granite"
  | "olmo2"
  | "olmo3"
  | "phi3"
  | "gemma2"
  | "gemma3_text"
  | "lfm2"
  | "qwen3_5_text";

/** Keys of a model's sizes. */
export type SizeKey = "vocab_size" | "hidden_size" | "intermediate_size" | "num_hidden_layers" | "num_attention_heads";

export interface Family {
  /** Key/value heads where the key is absent; null in the file means as many as query heads. */
  readonly keyValueHeads: (queryHeads: number) => number;
  readonly contextLength: number;
  /** Sizes where their keys are absent, as in the text part of Gemma 3's files; the others' files have them all. */
  readonly sizes?: Readonly<Record<SizeKey, number>>;
  readonly normEpsilon: number;
  /** The key that holds it where it is not "rms_norm_eps". */
  readonly normEpsilonKey?: string;
  readonly ropeTheta: number;
  readonly tiedHead: boolean;
  /** A name by which older files ask for a tied head. */
  readonly tiedHeadKey?: string;
  /** Width of a head where the key is absent; undefined where the heads divide the hidden size among them. */
  readonly headSize?: number;
  /** See `ModelConfig`. */
  readonly normPlaces: "before" | "after" | "around";
  readonly normUnitOffset: boolean;
  readonly qkNorm: "none" | "head" | "width";
  readonly mlp: "swiglu" | "geglu";
  /** What layers may have in place of attention (`mixer-keys.ts`). */
  readonly otherMixer: "none" | "convolution" | "deltaNet";
  /** What attention gives goes through a gate. */
  readonly gatesAttention: boolean;
  /** The width of the MLP has keys of its own, and is adjusted (`mlpWidthOf`). */
  readonly adjustsMlp: boolean;
  readonly fusedProjections: boolean;
  /** "key": on q, k, v and the output as `attention_bias` says; "qkv": always on q, k and v; "none": never. */
  readonly attentionBias: "key" | "qkv" | "none";
  /** The family has the key `mlp_bias`. */
  readonly mlpBias: boolean;
  /**
   * How the family says which layers have a sliding window: none; all, by default or only where `sliding_window` is
   * given; those from `max_window_layers` on; those without rotary positions; all but every n-th.
   */
  readonly window: "none" | "all" | "given" | "from" | "withoutRope" | { readonly fullEvery: number };
  /** Layers without rotary positions are listed. */
  readonly listsRope: boolean;
  /** Layers with a sliding window never scale their rotary positions; `localTheta`: and have a base of their own. */
  readonly windowRope: "same" | "unscaled" | "localTheta";
  /** `partial_rotary_factor` is read. */
  readonly partialRotary: boolean;
  /** Where it is absent; default 1. */
  readonly rotaryShare?: number;
  /** Text has three equal positions, so that which of them a channel turns by (`mrope_section`) is of no matter. */
  readonly multimodalRope: boolean;
  /** The scaling of rotary positions that "yarn" and "su" are old names of. */
  readonly oldLongRope: boolean;
  /** Keys that the family reads of those that other decoders are refused for (`FOREIGN_KEYS`, `FOREIGN_FACTORS`). */
  readonly ownKeys: readonly string[];
  /** Soft caps where their keys are absent; null in the file means none. */
  readonly attentionSoftCap?: number;
  readonly logitSoftCap?: number;
  /** Keys with shares of dropout. */
  readonly dropout: readonly string[];
  /** The embedding is multiplied with the square root of the hidden size. */
  readonly scalesEmbedding: boolean;
}

const LLAMA: Family = {
  keyValueHeads: (queryHeads) => queryHeads,
  contextLength: 2048,
  normEpsilon: 1e-6,
  ropeTheta: 10000,
  tiedHead: false,
  normPlaces: "before",
  normUnitOffset: false,
  qkNorm: "none",
  mlp: "swiglu",
  otherMixer: "none",
  gatesAttention: false,
  adjustsMlp: false,
  fusedProjections: false,
  attentionBias: "key",
  mlpBias: true,
  window: "none",
  listsRope: false,
  windowRope: "same",
  partialRotary: false,
  multimodalRope: false,
  oldLongRope: false,
  ownKeys: [],
  dropout: ["attention_dropout"],
  scalesEmbedding: false,
};
const MISTRAL: Family = {
  ...LLAMA,
  keyValueHeads: () => 8,
  contextLength: 131072,
  attentionBias: "none",
  mlpBias: false,
  window: "all",
};
const MINISTRAL3: Family = {
  ...MISTRAL,
  contextLength: 262144,
  normEpsilon: 1e-5,
  ropeTheta: 1000000,
  headSize: 128,
  window: "given",
  ownKeys: ["llama_4_scaling_beta"],
};
const QWEN2: Family = {
  ...LLAMA,
  keyValueHeads: () => 32,
  contextLength: 32768,
  attentionBias: "qkv",
  mlpBias: false,
  window: "from",
};
const QWEN3: Family = { ...QWEN2, headSize: 128, qkNorm: "head", attentionBias: "key" };
const SMOLLM3: Family = {
  ...LLAMA,
  keyValueHeads: () => 4,
  contextLength: 32768,
  ropeTheta: 2000000,
  tiedHead: true,
  window: "withoutRope",
  listsRope: true,
};
const GRANITE: Family = {
  ...LLAMA,
  ownKeys: ["attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"],
};
const OLMO2: Family = { ...LLAMA, normEpsilon: 1e-5, normPlaces: "after", qkNorm: "width", mlpBias: false };
const OLMO3: Family = { ...OLMO2, window: { fullEvery: 4 }, windowRope: "unscaled" };
const PHI3: Family = {
  ...LLAMA,
  contextLength: 4096,
  normEpsilon: 1e-5,
  fusedProjections: true,
  attentionBias: "none",
  mlpBias: false,
  window: "given",
  partialRotary: true,
  oldLongRope: true,
  dropout: ["attention_dropout", "embd_pdrop", "resid_pdrop"],
};
const GEMMA2: Family = {
  ...LLAMA,
  keyValueHeads: () => 4,
  contextLength: 8192,
  tiedHead: true,
  headSize: 256,
  normPlaces: "around",
  normUnitOffset: true,
  mlp: "geglu",
  mlpBias: false,
  window: { fullEvery: 2 },
  ownKeys: ["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"],
  attentionSoftCap: 50,
  logitSoftCap: 30,
  scalesEmbedding: true,
};
// Gemma 3's attention has no soft cap; a file that asks for one is refused.
const { attentionSoftCap: _, logitSoftCap: __, ...WITHOUT_CAPS } = GEMMA2;
const GEMMA3: Family = {
  ...WITHOUT_CAPS,
  contextLength: 131072,
  sizes: {
    vocab_size: 262208,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
  },
  ropeTheta: 1000000,
  qkNorm: "head",
  window: { fullEvery: 6 },
  windowRope: "localTheta",
  ownKeys: ["query_pre_attn_scalar", "final_logit_softcapping"],
};
const LFM2: Family = {
  ...LLAMA,
  keyValueHeads: () => 8,
  contextLength: 128000,
  normEpsilon: 1e-5,
  normEpsilonKey: "norm_eps",
  ropeTheta: 1000000,
  tiedHead: true,
  tiedHeadKey: "tie_embedding",
  qkNorm: "head",
  otherMixer: "convolution",
  adjustsMlp: true,
  attentionBias: "none",
  mlpBias: false,
  dropout: [],
};
const QWEN3_5: Family = {
  ...LLAMA,
  keyValueHeads: () => 4,
  contextLength: 32768,
  sizes: {
    vocab_size: 248320,
    hidden_size: 4096,
    intermediate_size: 12288,
    num_hidden_layers: 32,
    num_attention_heads: 16,
  },
  headSize: 256,
  normUnitOffset: true,
  qkNorm: "head",
  otherMixer: "deltaNet",
  gatesAttention: true,
  mlpBias: false,
  partialRotary: true,
  rotaryShare: 0.25,
  multimodalRope: true,
};

export const FAMILIES: Readonly<Record<RotaryType, Family>> = {
  llama: LLAMA,
  mistral: MISTRAL,
  ministral3: MINISTRAL3,
  qwen2: QWEN2,
  qwen3: QWEN3,
  smollm3: SMOLLM3,
  granite: GRANITE,
  olmo2: OLMO2,
  olmo3: OLMO3,
  phi3: PHI3,
  gemma2: GEMMA2,
  gemma3_text: GEMMA3,
  lfm2: LFM2,
  qwen3_5_text: QWEN3_5,
};
