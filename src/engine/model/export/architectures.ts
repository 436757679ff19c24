/**
 * What llama.cpp calls our model families, their settings and their tensors. A family is a row of the table; what a row
 * does not know of a model is refused by name, since llama.cpp would compute without it. Read in llama.cpp's
 * conversion/*.py and src/models/*.cpp; tested by loading each in llama.cpp.
 */
import { ModelFormatError } from "../../../errors.ts";
import { ropeFrequencies } from "../../../kernels/rope.ts";
import type { GgufValue } from "../../files/gguf.ts";
import type { ModelConfig } from "../config/config.ts";

/** Parts of a decoder that a configuration switches on, and that llama.cpp has for some families only. */
type Part = "biases of q, k and v" | "a bias of the attention's output" | "biases of the MLP" | "rope scaling llama3";

interface Architecture {
  /** `general.architecture`. */
  readonly name: string;
  /**
   * Rotary pairs are neighbours (2i, 2i + 1) rather than (i, i + D/2): rows of q and k are put in that order.
   */
  readonly interleaved: boolean;
  /** What llama.cpp's code for it reads besides the parts that every model of the family has. */
  readonly reads: readonly Part[];
  /** Names of tensors where they differ from `TENSORS`. */
  readonly tensors?: Readonly<Record<string, string>>;
  /** Settings besides the usual ones. */
  readonly settings?: (config: ModelConfig) => readonly Setting[];
  /** Why llama.cpp would compute something else, as the end of a sentence; undefined where it would not. */
  readonly differs?: (config: ModelConfig) => string | undefined;
}

/** A key without the architecture's name before it, and its value. */
type Setting = readonly [key: string, value: GgufValue];

/** Every part, for the architecture that has them all. */
const ALL: readonly Part[] = [
  "biases of q, k and v",
  "a bias of the attention's output",
  "biases of the MLP",
  "rope scaling llama3",
];

const ARCHITECTURES: Readonly<Partial<Record<string, Architecture>>> = {
  gpt2: { name: "gpt2", interleaved: false, reads: ALL },
  llama: { name: "llama", interleaved: true, reads: ALL },
  mistral: { name: "llama", interleaved: true, reads: ALL },
  qwen2: { name: "qwen2", interleaved: false, reads: ["biases of q, k and v"] },
  qwen3: { name: "qwen3", interleaved: false, reads: [] },
  smollm3: {
    name: "smollm3",
    interleaved: true,
    reads: [],
    differs: ({ layerRope }) =>
      layerRope.every((rope, layer) => rope === ((layer + 1) % 4 !== 0))
        ? undefined
        : "its layers without rotary positions are not every fourth one, as they are in llama.cpp",
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
  readonly tensorName: (part: string) => string;
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
  const has: Readonly<Record<Part, boolean>> = {
    "biases of q, k and v": config.qkvBias,
    "a bias of the attention's output": config.outputBias,
    "biases of the MLP": config.mlpBias,
    "rope scaling llama3": config.ropeScaling.type === "llama3",
  };
  const missing = (Object.keys(has) as Part[]).filter((part) => has[part] && !reads.includes(part));
  if (missing.length > 0) throw refused(`it has ${missing.join(" and ")}, which llama.cpp's "${name}" has not`);
  const difference = architecture.differs?.(config);
  if (difference !== undefined) throw refused(difference);
  const settings = [...usualSettings(config), ...(architecture.settings?.(config) ?? [])];
  return {
    name,
    settings: settings.map(([key, value]) => [`${name}.${key}`, value] as const),
    isPermuted: (part) => interleaved && /\.[qk]_proj\./.test(part),
    tensorName: (part) => {
      const [, layer, module = "", kind = ""] = /^(?:(?:layers|h)\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(part) ?? [];
      const own = tensors[module] ?? TENSORS[module];
      if (own === undefined) throw refused(`its tensor "${part}" has no name there`);
      return `${layer === undefined ? "" : `blk.${layer}.`}${own}.${kind}`;
    },
    warnings: windowWarning(config, folder),
  };
}

function usualSettings(config: ModelConfig): Setting[] {
  const u32 = (value: number) => ({ u32: value });
  const f32 = (value: number) => ({ f32: value });
  const settings: Setting[] = [
    ["vocab_size", u32(config.vocabSize)],
    ["context_length", u32(config.contextLength)],
    ["embedding_length", u32(config.hiddenSize)],
    ["block_count", u32(config.layers)],
    ["feed_forward_length", u32(config.intermediateSize)],
    ["attention.head_count", u32(config.heads)],
    ["attention.head_count_kv", u32(config.keyValueHeads)],
    [
      config.norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      f32(config.normEpsilon),
    ],
  ];
  if (config.position !== "rope") return settings;
  settings.push(
    ["attention.key_length", u32(config.headSize)],
    ["attention.value_length", u32(config.headSize)],
    ["rope.dimension_count", u32(config.headSize)],
    ["rope.freq_base", f32(config.ropeTheta)],
  );
  const { ropeScaling } = config;
  if (ropeScaling.type === "linear") {
    settings.push(["rope.scaling.type", "linear"], ["rope.scaling.factor", f32(ropeScaling.factor)]);
  }
  return settings;
}

/**
 * What llama.cpp divides the rotary frequencies by, where a scaling is no setting but a tensor, rope_freqs.weight [D/2].
 */
export function frequencyDivisors({
  headSize,
  ropeTheta,
  ropeScaling,
}: ModelConfig): Float32Array<ArrayBuffer> | undefined {
  if (ropeScaling.type !== "llama3") return undefined;
  const plain = ropeFrequencies(headSize, ropeTheta, { type: "none" });
  const scaled = ropeFrequencies(headSize, ropeTheta, ropeScaling);
  return Float32Array.from(plain, (frequency, i) => frequency / (scaled[i] as number));
}

/** None of these architectures has sliding windows in llama.cpp, which sees the whole sequence. */
function windowWarning({ slidingWindow, modelType }: ModelConfig, folder: string): string[] {
  if (slidingWindow === undefined) return [];
  return [
    `${folder} has layers that see ${slidingWindow} tokens only, and llama.cpp has no such window for ${modelType}: sequences longer than that give other numbers there.`,
  ];
}
