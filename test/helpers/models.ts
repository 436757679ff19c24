/**
 * Models of any small size with random weights, as Hugging Face folders: for what the fixtures are too small to show.
 */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { writeRandomModel } from "../../bench/random-model.ts";

/** A config.json of a tiny Llama; `changes` replaces keys. */
export function llamaConfig(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 120,
    hidden_size: 16,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    num_hidden_layers: 1,
    intermediate_size: 24,
    tie_word_embeddings: true,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 64,
    hidden_act: "silu",
    bos_token_id: 1,
    eos_token_id: 2,
    ...changes,
  };
}

/** A config.json of a tiny GPT-2; `changes` replaces keys. */
export function gpt2Config(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    model_type: "gpt2",
    architectures: ["GPT2LMHeadModel"],
    vocab_size: 96,
    n_embd: 16,
    n_head: 2,
    n_layer: 2,
    n_positions: 64,
    layer_norm_epsilon: 1e-5,
    ...changes,
  };
}

const SLIDING = ["full_attention", "sliding_attention", "sliding_attention"];

/** Tiny models of every family and of every switch, none of which there is a fixture for unless it is said. */
export const FAMILY_CONFIGS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: gpt2Config(),
  llama: llamaConfig({ num_hidden_layers: 2, tie_word_embeddings: false, attention_bias: true, mlp_bias: true }),
  "llama 3.1 and later": llamaConfig({
    rope_theta: 500000,
    max_position_embeddings: 512,
    // Two of the four channel pairs are kept, one is blended and one is slowed down.
    head_dim: 8,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 300,
    },
  }),
  "llama with linear scaling": llamaConfig({ rope_parameters: { rope_type: "linear", factor: 4, rope_theta: 10000 } }),
  smollm2: llamaConfig({ is_llama_config: true, rope_interleaved: false, pretraining_tp: 1, rope_theta: 100000 }),
  mistral: llamaConfig({
    model_type: "mistral",
    architectures: ["MistralForCausalLM"],
    num_hidden_layers: 2,
    head_dim: 6,
    sliding_window: 5,
  }),
  "mistral without a window": llamaConfig({ model_type: "mistral", sliding_window: null }),
  qwen2: llamaConfig({ model_type: "qwen2", architectures: ["Qwen2ForCausalLM"], num_hidden_layers: 2 }),
  "qwen2 with windowed layers": llamaConfig({
    model_type: "qwen2",
    num_hidden_layers: 3,
    use_sliding_window: true,
    sliding_window: 4,
    max_window_layers: 1,
  }),
  qwen3: llamaConfig({
    model_type: "qwen3",
    architectures: ["Qwen3ForCausalLM"],
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 10,
    attention_bias: true,
  }),
  "qwen3 with windowed layers": llamaConfig({
    model_type: "qwen3",
    num_hidden_layers: 3,
    head_dim: 8,
    use_sliding_window: true,
    sliding_window: 3,
    layer_types: SLIDING,
  }),
  "granite with biases": llamaConfig({
    model_type: "granite",
    attention_bias: true,
    mlp_bias: true,
    embedding_multiplier: 3,
    residual_multiplier: 0.5,
    logits_scaling: 2,
    attention_multiplier: 1 / Math.sqrt(8),
  }),
  smollm3: llamaConfig({
    model_type: "smollm3",
    architectures: ["SmolLM3ForCausalLM"],
    num_hidden_layers: 3,
    no_rope_layers: [1, 0, 1],
    pretraining_tp: 2,
    attention_bias: true,
  }),
  "smollm3 with windowed layers": llamaConfig({
    model_type: "smollm3",
    num_hidden_layers: 2,
    no_rope_layer_interval: 2,
    use_sliding_window: true,
    sliding_window: 6,
  }),
};

/** Writes a model of this configuration into a new folder under `parent`; returns the folder. */
export async function randomModel(
  parent: string,
  config: Readonly<Record<string, unknown>>,
  seed: number,
): Promise<string> {
  const folder = mkdtempSync(join(parent, "model-"));
  await writeRandomModel(folder, config, seed);
  return folder;
}
