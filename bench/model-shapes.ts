/**
 * What config.json says of the shape of published models, for random models of the same. What trains or writes them
 * stands elsewhere.
 */

/** HuggingFaceTB/SmolLM2-135M: 135 million parameters, 30 layers, head size 64. */
export const smolLM2Shape = {
  architectures: ["LlamaForCausalLM"],
  bos_token_id: 0,
  eos_token_id: 0,
  hidden_act: "silu",
  hidden_size: 576,
  intermediate_size: 1536,
  max_position_embeddings: 8192,
  model_type: "llama",
  num_attention_heads: 9,
  num_hidden_layers: 30,
  num_key_value_heads: 3,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  vocab_size: 49152,
};

/** Qwen/Qwen3-0.6B: 596 million parameters, 28 layers, head size 128. */
export const qwen3Shape = {
  architectures: ["Qwen3ForCausalLM"],
  bos_token_id: 151643,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: "silu",
  hidden_size: 1024,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  model_type: "qwen3",
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  vocab_size: 151936,
};

/** google/gemma-3-1b-it: 1.0 billion parameters, 26 layers of which every sixth sees all tokens, head size 256. */
export const gemma3Shape = {
  architectures: ["Gemma3ForCausalLM"],
  bos_token_id: 2,
  eos_token_id: 1,
  head_dim: 256,
  hidden_activation: "gelu_pytorch_tanh",
  hidden_size: 1152,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: "gemma3_text",
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  torch_dtype: "bfloat16",
  vocab_size: 262144,
};
