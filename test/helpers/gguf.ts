/**
 * Models for llama.cpp to load: tiny random ones of every exported family, each with a real tokenizer cut down to a few
 * hundred tokens, adapters over them, and what llama.cpp itself says of a GGUF file. Without vitest, since
 * scripts/gguf-table.ts uses it too.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { normals } from "../../bench/measure/case.ts";
import { writeRandomModel } from "../../bench/random-model.ts";
import { writeSafetensors } from "../../src/engine/files/safetensors.ts";
import { adapterSpecs } from "../../src/engine/model/adapter-specs.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { type LoraOptions, selectModules } from "../../src/engine/model/lora-modules.ts";
import { ADAPTER_CONFIG, adapterConfig } from "../../src/engine/model/peft-config.ts";
import { ADAPTER_WEIGHTS, peftName } from "../../src/engine/model/peft-tensors.ts";
import { Random } from "../../src/engine/random.ts";
import { gpt2Config, llamaConfig } from "./models.ts";
import { tokenizerFolders } from "./tokenizers.ts";

/** One job for scripts/llama-cpp.mjs. */
export interface LlamaCppJob {
  readonly model: string;
  readonly loras?: readonly string[];
  /** Token ids, of which greedy decoding goes on. */
  readonly prompts?: readonly (readonly number[])[];
  readonly steps?: number;
  readonly texts?: readonly string[];
  /** Tokens that may end a generation. */
  readonly asked?: readonly number[];
}

export interface LlamaCppAnswer {
  /** Where llama.cpp does not load the file. */
  readonly error?: string;
  readonly facts: {
    readonly description: string;
    readonly bos: number;
    readonly eos: number;
    readonly addsBos: boolean;
    /** Those of the tokens asked for that end a generation. */
    readonly ends: readonly number[];
  };
  /** The ids of each text, without a beginning-of-sequence token. */
  readonly tokenized: readonly (readonly number[])[];
  readonly answers: readonly {
    /** Of the first next token, by id. */
    readonly logProbs: readonly number[];
    readonly generated: readonly number[];
  }[];
}

/** What llama.cpp answers to jobs, in a process of its own. */
export function askLlamaCpp(jobs: readonly LlamaCppJob[]): LlamaCppAnswer[] {
  const input = jobs.map((job) => `${JSON.stringify(job)}\n`).join("");
  const { stdout, stderr, status } = spawnSync(process.execPath, ["scripts/llama-cpp.mjs"], {
    input,
    encoding: "utf8",
    maxBuffer: 2 ** 30,
  });
  const lines = stdout.trim().split("\n");
  if (lines.length !== jobs.length || status !== 0) {
    throw new Error(`llama.cpp ended with ${status} after ${lines.length} of ${jobs.length} jobs: ${stderr}`);
  }
  return lines.map((line) => JSON.parse(line) as LlamaCppAnswer);
}

/** Token ids that a tiny tokenizer has besides its special ones. */
const WORDS = 400;
/** Tokens of the tiny models, with some rows of the embedding that no token has. */
export const TINY_VOCABULARY = 416;

type TokenizerKind = keyof typeof tokenizerFolders | "stories";

/** A family and what its tiny model is made of. */
export interface TinyModel {
  readonly tokenizer: TokenizerKind;
  readonly config: Readonly<Record<string, unknown>>;
}

const tiny = (changes: Readonly<Record<string, unknown>>) =>
  llamaConfig({
    vocab_size: TINY_VOCABULARY,
    hidden_size: 64,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    num_hidden_layers: 2,
    intermediate_size: 96,
    bos_token_id: null,
    eos_token_id: WORDS,
    ...changes,
  });

const YARN = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 };

/**
 * The largest difference of f32 log-probs. ggml takes GELU, which Gemma has too, from a table of f16 numbers: with that
 * table in the float64 model GPT-2 differs by 2e-5 and Gemma 3 by 5e-6, without it by 1.4e-3 and 6e-3.
 */
export const LARGEST_DIFFERENCE = (name: string): number => (/^(gpt2|gemma)/.test(name) ? 1e-2 : 1e-4);

/** By name, every family that is exported, with the switches that llama.cpp has for it. */
export const TINY_MODELS: Readonly<Record<string, TinyModel>> = {
  gpt2: {
    tokenizer: "gpt2",
    config: gpt2Config({ vocab_size: TINY_VOCABULARY, n_embd: 64, n_head: 4, eos_token_id: WORDS }),
  },
  llama: { tokenizer: "llama3_1", config: tiny({ tie_word_embeddings: false, attention_bias: true, mlp_bias: true }) },
  "llama with llama3 scaling": {
    tokenizer: "llama3_1",
    config: tiny({
      head_dim: 32,
      max_position_embeddings: 512,
      rope_theta: 500000,
      rope_scaling: {
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 300,
      },
    }),
  },
  "llama with linear scaling": {
    tokenizer: "llama3_1",
    config: tiny({ rope_parameters: { rope_type: "linear", factor: 4, rope_theta: 10000 } }),
  },
  mistral: { tokenizer: "llama3_1", config: tiny({ model_type: "mistral", sliding_window: null, head_dim: 32 }) },
  qwen2: { tokenizer: "qwen3", config: tiny({ model_type: "qwen2" }) },
  qwen3: { tokenizer: "qwen3", config: tiny({ model_type: "qwen3", head_dim: 32, tie_word_embeddings: false }) },
  smollm3: { tokenizer: "llama3_1", config: tiny({ model_type: "smollm3", num_hidden_layers: 5 }) },
  "qwen3 with YaRN": {
    tokenizer: "qwen3",
    config: tiny({ model_type: "qwen3", head_dim: 32, max_position_embeddings: 256, rope_scaling: YARN }),
  },
  ministral3: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "ministral3",
      head_dim: 32,
      max_position_embeddings: 256,
      // Positions from 16 on have larger queries.
      rope_parameters: {
        ...YARN,
        original_max_position_embeddings: 16,
        rope_theta: 10000,
        mscale: 1,
        mscale_all_dim: 1,
        llama_4_scaling_beta: 0.1,
      },
    }),
  },
  granite: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "granite",
      embedding_multiplier: 3,
      attention_multiplier: 0.2,
      residual_multiplier: 0.5,
      logits_scaling: 2,
    }),
  },
  olmo2: { tokenizer: "llama3_1", config: tiny({ model_type: "olmo2", tie_word_embeddings: false }) },
  olmo3: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "olmo3",
      num_hidden_layers: 4,
      sliding_window: 5,
      tie_word_embeddings: false,
      max_position_embeddings: 256,
      rope_scaling: YARN,
    }),
  },
  phi3: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "phi3",
      sliding_window: null,
      partial_rotary_factor: 0.75,
      head_dim: null,
      hidden_size: 128,
    }),
  },
  "phi3 with LongRoPE": {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "phi3",
      sliding_window: null,
      head_dim: null,
      hidden_size: 128,
      max_position_embeddings: 2048,
      original_max_position_embeddings: 512,
      rope_scaling: {
        type: "longrope",
        short_factor: Array.from({ length: 16 }, (_, i) => 1 + i / 20),
        long_factor: Array.from({ length: 16 }, (_, i) => 2 + i / 5),
      },
    }),
  },
  gemma2: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "gemma2",
      sliding_window: 4,
      head_dim: 32,
      query_pre_attn_scalar: 32,
      hidden_activation: "gelu_pytorch_tanh",
    }),
  },
  lfm2: {
    tokenizer: "llama3_1",
    config: tiny({ model_type: "lfm2", num_hidden_layers: 3, full_attn_idxs: [1], block_auto_adjust_ff_dim: false }),
  },
  "qwen3.5": {
    tokenizer: "qwen3",
    config: tiny({
      model_type: "qwen3_5_text",
      num_hidden_layers: 4,
      head_dim: 32,
      linear_num_key_heads: 2,
      linear_num_value_heads: 6,
      linear_key_head_dim: 16,
      linear_value_head_dim: 16,
      linear_conv_kernel_dim: 4,
    }),
  },
  gemma3: {
    tokenizer: "llama3_1",
    config: tiny({
      model_type: "gemma3_text",
      num_hidden_layers: 6,
      sliding_window: 4,
      head_dim: 32,
      query_pre_attn_scalar: 32,
      rope_theta: 100000,
      rope_local_base_freq: 10000,
      hidden_activation: "gelu_pytorch_tanh",
    }),
  },
};

/** Writes a tiny model with its tokenizer into a folder. */
export async function writeTinyModel(folder: string, { config, tokenizer }: TinyModel, seed: number): Promise<void> {
  await writeRandomModel(folder, config, seed);
  writeTinyTokenizer(folder, tokenizer);
}

/** What `tinyTokenizer` made: the files that it is cut from have up to 150,000 tokens. */
const tinyTokenizers = new Map<TokenizerKind, readonly [json: string, settings: string]>();

/** Writes tokenizer.json and tokenizer_config.json of `TINY_VOCABULARY` tokens or fewer into a folder. */
export function writeTinyTokenizer(folder: string, kind: TokenizerKind): void {
  let texts = tinyTokenizers.get(kind);
  if (texts === undefined) {
    const { json, settings } = tinyTokenizer(kind);
    texts = [JSON.stringify(json), JSON.stringify(settings)];
    tinyTokenizers.set(kind, texts);
  }
  writeFileSync(join(folder, "tokenizer.json"), texts[0]);
  writeFileSync(join(folder, "tokenizer_config.json"), texts[1]);
}

interface TokenizerJson {
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
  added_tokens: { id: number; content: string }[];
  post_processor: unknown;
}

/**
 * The first tokens of a byte-level tokenizer, whose ids are in the order of its merges, and its first added tokens
 * behind them.
 */
function tinyTokenizer(kind: TokenizerKind): { readonly json: unknown; readonly settings: Record<string, unknown> } {
  const folder = kind === "stories" ? "examples/quickstart/model" : tokenizerFolders[kind];
  const json = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as TokenizerJson;
  const settings = JSON.parse(readFileSync(join(folder, "tokenizer_config.json"), "utf8")) as Record<string, unknown>;
  if (kind === "stories") return { json, settings };
  const { vocab, merges } = json.model;
  const kept = Object.fromEntries(Object.entries(vocab).filter(([text, id]) => id < WORDS && text !== "<|endoftext|>"));
  const keptMerges = merges.filter((merge) => {
    const [left = "", right = ""] = typeof merge === "string" ? merge.split(" ") : merge;
    return left in kept && right in kept && left + right in kept;
  });
  // The token that ends a text comes first, so that its id is the same for all.
  const eos = String(settings.eos_token);
  const added = [...json.added_tokens]
    .sort((a, b) => Number(b.content === eos) - Number(a.content === eos))
    .slice(0, 8)
    .map((token, index) => ({ ...token, id: WORDS + index }));
  const ids = new Map(added.map(({ content, id }) => [content, id]));
  const processor = JSON.parse(JSON.stringify(json.post_processor), (key, value) => {
    if (key !== "special_tokens") return value;
    return Object.fromEntries(
      Object.entries(value).map(([text, token]) => [text, { ...(token as object), ids: [ids.get(text)] }]),
    );
  }) as unknown;
  const { added_tokens_decoder: _, ...rest } = settings;
  const model = { ...json.model, vocab: kept, merges: keptMerges };
  return { json: { ...json, model, added_tokens: added, post_processor: processor }, settings: rest };
}

/** Writes an adapter of random numbers over a model's folder. */
export async function writeRandomAdapter(
  folder: string,
  baseFolder: string,
  options: LoraOptions,
  seed: number,
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const file = join(baseFolder, "config.json");
  const config = parseModelConfig(readFileSync(file, "utf8"), file);
  const random = new Random(seed);
  const parts = adapterSpecs(selectModules(config, options), options).flatMap((spec) => spec.parts);
  const tensors = parts.map(({ name, shape }) => ({
    name: peftName(config, name),
    shape,
    data: normals(
      random,
      shape.reduce((product, size) => product * size, 1),
      0.1,
    ),
  }));
  await writeSafetensors(join(folder, ADAPTER_WEIGHTS), tensors);
  writeFileSync(join(folder, ADAPTER_CONFIG), JSON.stringify(adapterConfig(config, options, baseFolder)));
}
