/**
 * What a config.json says of each family: keys, and the defaults of transformers' configuration classes where a key is
 * absent; and that everything which is not implemented is refused by its key.
 */
import { describe, expect, it } from "vitest";
import { type ModelConfig, parseEndTokens, parseModelConfig } from "../../../../src/engine/model/config/config.ts";
import { ModelFormatError } from "../../../../src/errors.ts";
import { gpt2Config, llamaConfig } from "../../../helpers/models.ts";

function parse(json: Readonly<Record<string, unknown>>): ModelConfig {
  return parseModelConfig(JSON.stringify(json), "m/config.json");
}

/** A configuration without these keys: the defaults of the family decide. */
const bare = {
  num_attention_heads: 32,
  hidden_size: 64,
  num_key_value_heads: undefined,
  max_position_embeddings: undefined,
  rope_theta: undefined,
  rms_norm_eps: undefined,
  tie_word_embeddings: undefined,
};
const of = (model_type: string, changes: Record<string, unknown> = {}) => llamaConfig({ model_type, ...changes });

describe("defaults of a family", () => {
  it.each([
    ["llama", { keyValueHeads: 32, contextLength: 2048, ropeTheta: 10000, tiedHead: false, headSize: 2 }],
    ["mistral", { keyValueHeads: 8, contextLength: 131072, ropeTheta: 10000, tiedHead: false, headSize: 2 }],
    ["qwen2", { keyValueHeads: 32, contextLength: 32768, ropeTheta: 10000, tiedHead: false, headSize: 2 }],
    ["qwen3", { keyValueHeads: 32, contextLength: 32768, ropeTheta: 10000, tiedHead: false, headSize: 128 }],
    ["smollm3", { keyValueHeads: 4, contextLength: 32768, ropeTheta: 2000000, tiedHead: true, headSize: 2 }],
  ])("%s", (type, wanted) => {
    const config = parse(of(type, bare));
    expect(config).toMatchObject({ modelType: type, normEpsilon: 1e-6, norm: "rms", mlp: "swiglu", ...wanted });
    expect(parse(of(type, { ...bare, num_key_value_heads: null })).keyValueHeads).toBe(32);
  });

  it.each([
    ["llama", {}, [false, false, false, false]],
    ["llama", { attention_bias: true, mlp_bias: true }, [true, true, true, false]],
    ["mistral", { attention_bias: false, mlp_bias: false }, [false, false, false, false]],
    ["qwen2", {}, [true, false, false, false]],
    ["qwen3", {}, [false, false, false, true]],
    ["qwen3", { attention_bias: true }, [true, true, false, true]],
    ["smollm3", { attention_bias: true, mlp_bias: true }, [true, true, true, false]],
  ])("%s %j: biases of qkv, output and MLP, norms of heads", (type, changes, wanted) => {
    const { qkvBias, outputBias, mlpBias, qkNorm } = parse(of(type, changes));
    expect([qkvBias, outputBias, mlpBias, qkNorm]).toEqual(wanted);
  });

  it("keys that change nothing are accepted: what the real files carry", () => {
    const smollm2 = { is_llama_config: true, rope_interleaved: false, pretraining_tp: 1, "transformers.js_config": {} };
    expect(parse(of("llama", smollm2))).toEqual(parse(of("llama")));
    const inert = { attention_dropout: 0, initializer_range: 0.02, use_cache: true, torch_dtype: "bfloat16" };
    expect(parse(of("qwen2", { ...inert, sliding_window: 32768, max_window_layers: 21 }))).toEqual(parse(of("qwen2")));
    // Training with it would be another training, which the trainer refuses where it is asked for.
    expect(parse(of("qwen2", { attention_dropout: 0.1 })).dropsOut).toBe(true);
    expect(parse(of("qwen2")).dropsOut).toBe(false);
    // SmolLM3's own file says 2; its code does not know the key.
    expect(parse(of("smollm3", { pretraining_tp: 2 }))).toEqual(parse(of("smollm3")));
    expect(parse(of("llama", { residual_multiplier: 1, num_experts: 0, alibi: false }))).toEqual(parse(of("llama")));
  });
});

describe("rotary positions", () => {
  const llama3 = { factor: 32, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
  const wanted = {
    type: "llama3",
    factor: 32,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContextLength: 8192,
  };

  it.each([
    ["rope_scaling of type", { rope_scaling: { type: "linear", factor: 2 } }, { type: "linear", factor: 2 }],
    [
      "rope_scaling of rope_type",
      { rope_scaling: { rope_type: "linear", factor: 2.5 } },
      { type: "linear", factor: 2.5 },
    ],
    [
      "rope_type before type",
      { rope_scaling: { rope_type: "linear", type: "yarn", factor: 2 } },
      { type: "linear", factor: 2 },
    ],
    ["llama3", { rope_scaling: { rope_type: "llama3", ...llama3 } }, wanted],
    ["rope_parameters", { rope_parameters: { rope_type: "llama3", rope_theta: 7, ...llama3 } }, wanted],
    ["null", { rope_scaling: null, rope_parameters: null }, { type: "none" }],
    ["default", { rope_scaling: { rope_type: "default" } }, { type: "none" }],
    ["parameters without a type", { rope_parameters: { rope_theta: 5 } }, { type: "none" }],
    ["dynamic: plain within the context", { rope_scaling: { type: "dynamic", factor: 4 } }, { type: "none" }],
    [
      "both, alike",
      { rope_scaling: { type: "linear", factor: 2 }, rope_parameters: { rope_type: "linear", factor: 2 } },
      { type: "linear", factor: 2 },
    ],
  ])("%s", (_, changes, scaling) => {
    expect(parse(of("llama", changes)).ropeScaling).toEqual(scaling);
  });

  it("rope_theta of rope_parameters goes before the outer one, and that before the family's", () => {
    const theta = (changes: Record<string, unknown>) => parse(of("qwen2", changes)).ropeTheta;
    expect(theta({ rope_theta: 5, rope_parameters: { rope_theta: 6 } })).toBe(6);
    expect(theta({ rope_theta: 5, rope_parameters: {} })).toBe(5);
    expect(theta({ rope_theta: undefined, rope_parameters: {} })).toBe(10000);
    expect(theta({ rope_theta: undefined, rope_scaling: { type: "default", rope_theta: 7 } })).toBe(7);
  });

  it("SmolLM3 lists the layers that have them, or leaves out every n-th", () => {
    const layers = (changes: Record<string, unknown>) =>
      parse(of("smollm3", { num_hidden_layers: 5, ...changes })).layerRope.map(Number);
    expect(layers({ no_rope_layers: [1, 0, 1, 1, 0] })).toEqual([1, 0, 1, 1, 0]);
    expect(layers({ no_rope_layers: [1, 0, 1, 1, 0, 1] })).toEqual([1, 0, 1, 1, 0]);
    expect(layers({})).toEqual([1, 1, 1, 0, 1]);
    expect(layers({ no_rope_layer_interval: 2 })).toEqual([1, 0, 1, 0, 1]);
    expect(parse(of("llama", { num_hidden_layers: 2 })).layerRope).toEqual([true, true]);
    expect(parse(gpt2Config()).layerRope).toEqual([false, false]);
  });
});

describe("sliding windows", () => {
  const layers = (type: string, changes: Record<string, unknown>) => {
    const { slidingWindow, layerWindow } = parse(of(type, { num_hidden_layers: 4, ...changes }));
    return [slidingWindow, layerWindow.map(Number)];
  };
  const types = (text: string) => [...text].map((one) => (one === "s" ? "sliding_attention" : "full_attention"));

  it.each<[string, Record<string, unknown>, unknown]>([
    ["mistral", { sliding_window: 9 }, [9, [1, 1, 1, 1]]],
    ["mistral", { sliding_window: null }, [undefined, [0, 0, 0, 0]]],
    // 4096 where the key is absent, which no sequence within a context of 64 exceeds.
    ["mistral", {}, [undefined, [0, 0, 0, 0]]],
    ["mistral", { max_position_embeddings: 8192 }, [4096, [1, 1, 1, 1]]],
    ["mistral", { sliding_window: 9, layer_types: types("ssss") }, [9, [1, 1, 1, 1]]],
    ["qwen2", { sliding_window: 9, max_window_layers: 0 }, [undefined, [0, 0, 0, 0]]],
    ["qwen2", { use_sliding_window: true, sliding_window: 9, max_window_layers: 3 }, [9, [0, 0, 0, 1]]],
    ["qwen2", { use_sliding_window: true, sliding_window: 9, max_window_layers: 0 }, [9, [1, 1, 1, 1]]],
    ["qwen2", { use_sliding_window: true, sliding_window: 9 }, [undefined, [0, 0, 0, 0]]],
    ["qwen2", { use_sliding_window: true, sliding_window: null, max_window_layers: 0 }, [undefined, [0, 0, 0, 0]]],
    ["qwen3", { use_sliding_window: true, sliding_window: 9, layer_types: types("fsfs") }, [9, [0, 1, 0, 1]]],
    ["qwen3", { layer_types: types("ffff") }, [undefined, [0, 0, 0, 0]]],
    ["smollm3", { use_sliding_window: true, sliding_window: 9 }, [9, [0, 0, 0, 1]]],
    ["smollm3", { sliding_window: 9 }, [undefined, [0, 0, 0, 0]]],
    ["smollm3", { use_sliding_window: true, sliding_window: 9, layer_types: types("sfff") }, [9, [1, 0, 0, 0]]],
    ["llama", { layer_types: types("ffff") }, [undefined, [0, 0, 0, 0]]],
  ])("%s %j", (type, changes, wanted) => {
    expect(layers(type, changes)).toEqual(wanted);
  });

  it.each<[string, Record<string, unknown>]>([
    ["llama", {}],
    ["qwen2", { sliding_window: 9 }],
    ["mistral", { sliding_window: null }],
    ["smollm3", { use_sliding_window: true, sliding_window: null }],
  ])("%s %j: layer types that ask for a window which there is not are refused", (type, changes) => {
    expect(() => layers(type, { ...changes, layer_types: types("fffs") })).toThrow(
      'm/config.json: "layer_types" makes layer 3 "sliding_attention", which "sliding_window" and the model type contradict.',
    );
  });

  it("mistral's layers are all windowed", () => {
    expect(() => layers("mistral", { sliding_window: 9, layer_types: types("fsss") })).toThrow(
      '"layer_types" makes layer 0 "full_attention"',
    );
  });
});

describe("what is not implemented is refused by its key", () => {
  it.each<[Record<string, unknown>, string]>([
    [
      of("mixtral"),
      'architecture "mixtral" (LlamaForCausalLM) is not supported; supported are "llama", "mistral", "qwen2", "qwen3", "smollm3" and "gpt2".',
    ],
    [
      of("qwen3_moe", { architectures: undefined }),
      'architecture "qwen3_moe" is not supported; supported are "llama", ',
    ],
    [of("toString"), 'architecture "toString" (LlamaForCausalLM) is not supported'],
    ...["gptq", "awq", "fp8", "compressed-tensors"].map((method): [Record<string, unknown>, string] => [
      of("llama", { quantization_config: { quant_method: method, bits: 4 } }),
      `the weights are quantised by "${method}" ("quantization_config"), and only those of bitsandbytes in nf4 can be read; use the unquantised model;`,
    ]),
    [of("llama", { quantization_config: { bits: 4 } }), "the weights are quantised by a method without a name"],
    [
      of("llama", { quantization_config: { load_in_8bit: true } }),
      'the weights are quantised by bitsandbytes as "int8"',
    ],
    [
      of("llama", { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } }),
      'the weights are quantised by bitsandbytes as "fp4"',
    ],
    [of("llama", { hidden_act: "gelu" }), '"hidden_act" is "gelu"; only "silu" is supported.'],
    [of("llama", { pretraining_tp: 2 }), '"pretraining_tp" is 2; only 1 is supported.'],
    [of("llama", { rope_interleaved: true }), '"rope_interleaved" is true, which is not supported.'],
    [of("llama", { partial_rotary_factor: 0.5 }), '"partial_rotary_factor" is 0.5; only 1 is supported.'],
    [of("llama", { sliding_window: 4096 }), '"sliding_window" is 4096, which is not supported.'],
    [of("mistral", { attention_bias: true }), '"attention_bias" is true; only false is supported.'],
    [of("qwen2", { mlp_bias: true }), '"mlp_bias" is true; only false is supported.'],
    [of("qwen2", { attn_logit_softcapping: 50 }), '"attn_logit_softcapping" is 50, which is not supported.'],
    [of("qwen2", { final_logit_softcapping: 30 }), '"final_logit_softcapping" is 30, which is not supported.'],
    [of("llama", { residual_multiplier: 0.22 }), '"residual_multiplier" is 0.22; only 1 is supported.'],
    [of("llama", { embedding_multiplier: 12 }), '"embedding_multiplier" is 12; only 1 is supported.'],
    [of("llama", { logits_scaling: 8 }), '"logits_scaling" is 8; only 1 is supported.'],
    [of("llama", { attention_multiplier: 0.01 }), '"attention_multiplier" is 0.01, which is not supported.'],
    [of("llama", { num_local_experts: 8 }), '"num_local_experts" is 8, which is not supported.'],
    [of("qwen3", { num_experts: 64 }), '"num_experts" is 64, which is not supported.'],
    [of("llama", { alibi: true }), '"alibi" is true, which is not supported.'],
    [gpt2Config({ add_cross_attention: true }), '"add_cross_attention" is true, which is not supported.'],
    [gpt2Config({ activation_function: "relu" }), '"activation_function" is "relu"; only "gelu_new" is supported.'],
    [
      gpt2Config({ scale_attn_by_inverse_layer_idx: true }),
      '"scale_attn_by_inverse_layer_idx" is true; only false is supported.',
    ],
    [
      of("llama", { num_attention_heads: 3, head_dim: 8, num_key_value_heads: 2 }),
      "3 query heads are not a multiple of 2 key/value heads.",
    ],
    [of("llama", { head_dim: 7 }), "rotary positions need an even head size, not 7."],
    [
      of("smollm3", { no_rope_layers: [] }),
      '"no_rope_layers" is [], not a list with an entry for each of the 1 layers.',
    ],
    [of("smollm3", { no_rope_layers: [2] }), '"no_rope_layers" holds 2; only 0 and 1 are supported.'],
    [
      of("qwen3", { layer_types: ["chunked_attention"] }),
      '"layer_types" holds "chunked_attention"; only "full_attention" and "sliding_attention" are supported.',
    ],
  ])("case %#", (json, message) => {
    expect(() => parse(json)).toThrow(ModelFormatError);
    expect(() => parse(json)).toThrow(`m/config.json: ${message}`);
  });

  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  it.each<[Record<string, unknown>, string]>([
    [
      { rope_scaling: { rope_type: "yarn", factor: 4 } },
      '"rope_scaling" is {"rope_type":"yarn","factor":4}, and this scaling is not supported; supported are "default", "linear", "dynamic" and "llama3".',
    ],
    [
      { rope_scaling: { type: "longrope" } },
      '"rope_scaling" is {"type":"longrope"}, and this scaling is not supported',
    ],
    [{ rope_scaling: {} }, '"rope_scaling" is {}, and this scaling is not supported'],
    [
      { rope_parameters: { full_attention: { rope_theta: 1 } } },
      '"full_attention" of "rope_parameters" is {"rope_theta":1}, which is not supported.',
    ],
    [
      { rope_parameters: { partial_rotary_factor: 0.25 } },
      '"partial_rotary_factor" of "rope_parameters" is 0.25; only 1 is supported.',
    ],
    [
      { rope_scaling: { type: "default", mrope_section: [16, 24, 24] } },
      '"mrope_section" of "rope_scaling" is [16,24,24], which is not supported.',
    ],
    [{ rope_scaling: { type: "linear" } }, 'key "factor" of "rope_scaling" is missing.'],
    [{ rope_scaling: { type: "linear", factor: -2 } }, '"factor" of "rope_scaling" is -2, not a number above 0'],
    [{ rope_scaling: { type: "dynamic" } }, 'key "factor" of "rope_scaling" is missing.'],
    [{ rope_scaling: llama3 }, 'key "original_max_position_embeddings" of "rope_scaling" is missing.'],
    [
      { rope_scaling: { ...llama3, high_freq_factor: 1, original_max_position_embeddings: 8 } },
      '"high_freq_factor" of "rope_scaling" is 1, not above its "low_freq_factor" of 1.',
    ],
    [
      { rope_scaling: { type: "dynamic", factor: 2, original_max_position_embeddings: 32 } },
      '"original_max_position_embeddings" of "rope_scaling" is 32; only 64 is supported.',
    ],
    [
      { rope_scaling: { type: "linear", factor: 2 }, rope_parameters: { rope_theta: 5 } },
      '"rope_scaling" and "rope_parameters" scale the rotary positions differently; keep one of them.',
    ],
  ])("rotary scaling, case %#", (changes, message) => {
    expect(() => parse(of("llama", changes))).toThrow(`m/config.json: ${message}`);
  });

  it("a file that is no object, and end tokens that are none", () => {
    expect(() => parseModelConfig("[]", "c.json")).toThrow("c.json does not hold a JSON object.");
    expect(parseEndTokens('{"eos_token_id": [1, 2]}', "g.json")).toEqual([1, 2]);
  });
});
