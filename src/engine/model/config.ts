/**
 * What a decoder is made of, read from a Hugging Face `config.json`. One decoder with parts switched by these fields;
 * there is no code per family beyond this file and the table of tensor names in `parameters.ts`.
 */
import { ModelFormatError } from "../../errors.ts";

export interface ModelConfig {
  readonly modelType: "llama" | "gpt2";
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
  readonly mlp: "swiglu" | "gelu";
  /** Bias on q, k, v. */
  readonly qkvBias: boolean;
  /** Bias on the attention's output projection. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** Weights stored as [in, out] (GPT-2's Conv1D) instead of [out, in]. */
  readonly inOutWeights: boolean;
  /** The head shares the embedding's tensor. */
  readonly tiedHead: boolean;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
}

type Json = Record<string, unknown>;

/**
 * Parses a `config.json`. Throws ModelFormatError for an unknown architecture, a missing or mistyped key, and for
 * every option that would change the mathematics and is not implemented, naming the file and the key.
 *
 * @param text the file's content; @param file its path, for messages
 */
export function parseModelConfig(text: string, file: string): ModelConfig {
  const json = parseObject(text, file);
  const architectures = Array.isArray(json.architectures) ? json.architectures.map(String) : [];
  const type = json.model_type ?? architectures[0] ?? "";
  const name = typeof type === "string" ? type : JSON.stringify(type);
  if (name === "") throw new ModelFormatError(`${file} names no architecture: "model_type" is missing.`);
  const read = new Keys(json, file);
  if (json.quantization_config !== undefined && json.quantization_config !== null) {
    throw new ModelFormatError(`${file}: "quantization_config" is not supported; use the unquantised model.`);
  }
  if (name === "llama") return llama(read);
  if (name === "gpt2") return gpt2(read);
  throw new ModelFormatError(
    `${file}: architecture "${name}"${architectures[0] ? ` (${architectures[0]})` : ""} is not supported; supported are "llama" and "gpt2".`,
  );
}

/**
 * The end tokens of a `generation_config.json`; undefined where it names none. Throws ModelFormatError naming the file
 * and the key unless `eos_token_id` is a token id or a list of them.
 */
export function parseEndTokens(text: string, file: string): readonly number[] | undefined {
  return endTokens(parseObject(text, file), file);
}

function endTokens(json: Json, file: string): readonly number[] | undefined {
  const value = json.eos_token_id;
  if (value === undefined || value === null) return undefined;
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  if (ids.length === 0) return undefined;
  if (ids.every((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0)) return ids;
  throw new ModelFormatError(
    `${file}: "eos_token_id" is ${JSON.stringify(value)}, not a token id or a list of token ids (whole numbers of at least 0).`,
  );
}

function parseObject(text: string, file: string): Json {
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch (error) {
    throw new ModelFormatError(`${file} is not valid JSON: ${(error as Error).message}.`, { cause: error });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new ModelFormatError(`${file} does not hold a JSON object.`);
  }
  return json;
}

function llama(read: Keys): ModelConfig {
  const hiddenSize = read.count("hidden_size");
  const heads = read.count("num_attention_heads");
  read.refuse("hidden_act", "silu");
  read.refuseScaling("rope_scaling", false);
  read.refuseScaling("rope_parameters", true);
  const attentionBias = read.flag("attention_bias", false);
  const nested = new Keys((read.json.rope_parameters ?? {}) as Json, read.file);
  return checked(read, {
    modelType: "llama",
    vocabSize: read.count("vocab_size"),
    hiddenSize,
    layers: read.count("num_hidden_layers"),
    heads,
    keyValueHeads: read.count("num_key_value_heads", heads),
    headSize:
      (read.json.head_dim ?? null) === null
        ? read.headSize("hidden_size", "num_attention_heads")
        : read.count("head_dim"),
    intermediateSize: read.count("intermediate_size"),
    contextLength: read.count("max_position_embeddings", 2048),
    norm: "rms",
    normEpsilon: read.positive("rms_norm_eps", 1e-6),
    position: "rope",
    ropeTheta: nested.positive("rope_theta", read.positive("rope_theta", 10000)),
    mlp: "swiglu",
    qkvBias: attentionBias,
    outputBias: attentionBias,
    mlpBias: read.flag("mlp_bias", false),
    inOutWeights: false,
    tiedHead: read.flag("tie_word_embeddings", false),
    ...read.specialTokens(),
  });
}

function gpt2(read: Keys): ModelConfig {
  const hiddenSize = read.count("n_embd");
  const heads = read.count("n_head");
  const activation = read.json.activation_function ?? "gelu_new";
  if (activation !== "gelu_new" && activation !== "gelu_pytorch_tanh") {
    throw read.error(`"activation_function" is ${JSON.stringify(activation)}; only "gelu_new" is supported`);
  }
  read.refuse("scale_attn_weights", true);
  read.refuse("scale_attn_by_inverse_layer_idx", false);
  read.refuse("add_cross_attention", false);
  return checked(read, {
    modelType: "gpt2",
    vocabSize: read.count("vocab_size"),
    hiddenSize,
    layers: read.count("n_layer"),
    heads,
    keyValueHeads: heads,
    headSize: read.headSize("n_embd", "n_head"),
    intermediateSize: read.count("n_inner", 4 * hiddenSize),
    contextLength: read.count("n_positions", 1024),
    norm: "layer",
    normEpsilon: read.positive("layer_norm_epsilon", 1e-5),
    position: "learned",
    ropeTheta: 0,
    mlp: "gelu",
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    inOutWeights: true,
    tiedHead: read.flag("tie_word_embeddings", true),
    ...read.specialTokens(),
  });
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

/** Typed access to the keys of a config.json, with errors that name file and key. */
class Keys {
  readonly json: Json;
  readonly file: string;

  constructor(json: Json, file: string) {
    this.json = json;
    this.file = file;
  }

  error(what: string): ModelFormatError {
    return new ModelFormatError(`${this.file}: ${what}.`);
  }

  /** A whole number of at least 1. */
  count(key: string, fallback?: number): number {
    const value = this.json[key] ?? fallback;
    if (value === undefined) throw this.error(`key "${key}" is missing`);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
      throw this.error(`"${key}" is ${JSON.stringify(value)}, not a whole number of at least 1`);
    }
    return value;
  }

  /** Width of one head where the heads share the hidden size out. */
  headSize(hiddenKey: string, headsKey: string): number {
    const [hiddenSize, heads] = [this.count(hiddenKey), this.count(headsKey)];
    if (hiddenSize % heads !== 0) {
      throw this.error(`${hiddenKey} ${hiddenSize} is not a multiple of ${headsKey} ${heads}`);
    }
    return hiddenSize / heads;
  }

  positive(key: string, fallback: number): number {
    const value = this.json[key] ?? fallback;
    if (typeof value !== "number" || !(Math.fround(value) > 0) || !Number.isFinite(Math.fround(value))) {
      throw this.error(
        `"${key}" is ${JSON.stringify(value)}, not a number above 0 that 32-bit floating point can hold`,
      );
    }
    return value;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.json[key] ?? fallback;
    if (typeof value !== "boolean") throw this.error(`"${key}" is ${JSON.stringify(value)}, not true or false`);
    return value;
  }

  /** Throws unless rotary scaling is absent or of the type "default"; the type may be left out of `rope_parameters`. */
  refuseScaling(key: string, typeOptional: boolean): void {
    const value = this.json[key] ?? null;
    if (value === null) return;
    if (typeof value !== "object" || Array.isArray(value)) {
      throw this.error(`"${key}" is ${JSON.stringify(value)}, not an object`);
    }
    const { rope_type, type } = value as Json;
    const kind = rope_type ?? type ?? (typeOptional ? "default" : undefined);
    if (kind !== "default") throw this.error(`"${key}" is ${JSON.stringify(value)}, and scaling is not supported yet`);
  }

  /** Throws unless the key is absent or holds the one value that is implemented. */
  refuse(key: string, supported: unknown): void {
    const value = this.json[key];
    if (value !== undefined && value !== null && value !== supported) {
      throw this.error(`"${key}" is ${JSON.stringify(value)}; only ${JSON.stringify(supported)} is supported`);
    }
  }

  specialTokens(): { bosTokenId: number | undefined; eosTokenIds: number[] } {
    const bos = this.json.bos_token_id;
    return {
      bosTokenId: typeof bos === "number" ? bos : undefined,
      eosTokenIds: [...(endTokens(this.json, this.file) ?? [])],
    };
  }
}
