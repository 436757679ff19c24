/**
 * What a config.json says of each family: keys, and the defaults of transformers' configuration classes where a key is
 * absent; and that everything which is not implemented is refused by its key.
 */
import { describe, expect, it } from "vitest";
import { type ModelConfig, parseEndTokens, parseModelConfig } from "../../../../src/engine/model/config/config.ts";
import { unwrappedText } from "../../../../src/engine/model/config/wrapped.ts";
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
    ["llama", [32, 2048, 10000, false, 2, 1e-6]],
    ["mistral", [8, 131072, 10000, false, 2, 1e-6]],
    ["qwen2", [32, 32768, 10000, false, 2, 1e-6]],
    ["qwen3", [32, 32768, 10000, false, 128, 1e-6]],
    ["smollm3", [4, 32768, 2000000, true, 2, 1e-6]],
    ["granite", [32, 2048, 10000, false, 2, 1e-6]],
    ["olmo2", [32, 2048, 10000, false, 2, 1e-5]],
    ["olmo3", [32, 2048, 10000, false, 2, 1e-5]],
    ["phi3", [32, 4096, 10000, false, 2, 1e-5]],
    ["gemma2", [4, 8192, 10000, true, 256, 1e-6]],
    ["gemma3_text", [4, 131072, 10000, true, 256, 1e-6]],
  ])("%s: key/value heads, context, base of layer 0, tied head, head size, epsilon", (type, wanted) => {
    const config = parse(of(type, bare));
    expect(config).toMatchObject({ modelType: type, norm: "rms", mlp: /gemma/.test(type) ? "geglu" : "swiglu" });
    const { keyValueHeads, contextLength, layerRope, tiedHead, headSize, normEpsilon } = config;
    expect([keyValueHeads, contextLength, layerRope[0]?.theta, tiedHead, headSize, normEpsilon]).toEqual(wanted);
    expect(parse(of(type, { ...bare, num_key_value_heads: null })).keyValueHeads).toBe(32);
  });

  it.each([
    ["llama", {}, [false, false, false, "none"]],
    ["llama", { attention_bias: true, mlp_bias: true }, [true, true, true, "none"]],
    ["mistral", { attention_bias: false, mlp_bias: false }, [false, false, false, "none"]],
    ["qwen2", {}, [true, false, false, "none"]],
    ["qwen3", {}, [false, false, false, "head"]],
    ["qwen3", { attention_bias: true }, [true, true, false, "head"]],
    ["smollm3", { attention_bias: true, mlp_bias: true }, [true, true, true, "none"]],
    ["granite", { attention_bias: true, mlp_bias: true }, [true, true, true, "none"]],
    ["olmo2", {}, [false, false, false, "width"]],
    ["phi3", { attention_bias: false }, [false, false, false, "none"]],
    ["gemma2", {}, [false, false, false, "none"]],
    ["gemma3_text", {}, [false, false, false, "head"]],
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
    expect(parse(of("llama", changes)).layerRope[0]?.scaling).toEqual(scaling);
  });

  it("rope_theta of rope_parameters goes before the outer one, and that before the family's", () => {
    const theta = (changes: Record<string, unknown>) => parse(of("qwen2", changes)).layerRope[0]?.theta;
    expect(theta({ rope_theta: 5, rope_parameters: { rope_theta: 6 } })).toBe(6);
    expect(theta({ rope_theta: 5, rope_parameters: {} })).toBe(5);
    expect(theta({ rope_theta: undefined, rope_parameters: {} })).toBe(10000);
    expect(theta({ rope_theta: undefined, rope_scaling: { type: "default", rope_theta: 7 } })).toBe(7);
  });

  it("SmolLM3 lists the layers that have them, or leaves out every n-th", () => {
    const layers = (changes: Record<string, unknown>) =>
      parse(of("smollm3", { num_hidden_layers: 5, ...changes })).layerRope.map((rope) => (rope ? 1 : 0));
    expect(layers({ no_rope_layers: [1, 0, 1, 1, 0] })).toEqual([1, 0, 1, 1, 0]);
    expect(layers({ no_rope_layers: [1, 0, 1, 1, 0, 1] })).toEqual([1, 0, 1, 1, 0]);
    expect(layers({})).toEqual([1, 1, 1, 0, 1]);
    expect(layers({ no_rope_layer_interval: 2 })).toEqual([1, 0, 1, 0, 1]);
    const every = { theta: 10000, rotated: 8, scaling: { type: "none" } };
    expect(parse(of("llama", { num_hidden_layers: 2 })).layerRope).toEqual([every, every]);
    expect(parse(gpt2Config()).layerRope).toEqual([undefined, undefined]);
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

describe("switches of families", () => {
  it("Granite's multipliers, each 1 where its key is absent", () => {
    const multipliers = (changes: Record<string, unknown>) => {
      const { attentionScale, embeddingMultiplier, residualMultiplier, logitsScaling } = parse(of("granite", changes));
      return [attentionScale, embeddingMultiplier, residualMultiplier, logitsScaling];
    };
    expect(multipliers({})).toEqual([1, 1, 1, 1]);
    const real = { attention_multiplier: 0.015625, embedding_multiplier: 12, residual_multiplier: 0.22 };
    expect(multipliers({ ...real, logits_scaling: 8 })).toEqual([0.015625, 12, 0.22, 8]);
    expect(parse(of("llama")).attentionScale).toBe(1 / Math.sqrt(8));
  });

  it("Gemma's soft caps: the family's where a key is absent, none where it is null", () => {
    const caps = (type: string, changes: Record<string, unknown> = {}) => {
      const { attentionSoftCap, logitSoftCap } = parse(of(type, changes));
      return [attentionSoftCap, logitSoftCap];
    };
    expect(caps("gemma2")).toEqual([50, 30]);
    expect(caps("gemma2", { attn_logit_softcapping: null, final_logit_softcapping: null })).toEqual([
      undefined,
      undefined,
    ]);
    expect(caps("gemma3_text")).toEqual([undefined, undefined]);
    expect(caps("gemma3_text", { final_logit_softcapping: 20 })).toEqual([undefined, 20]);
    expect(() => caps("gemma3_text", { attn_logit_softcapping: 50 })).toThrow('"attn_logit_softcapping" is 50');
    expect(parse(of("gemma2", { query_pre_attn_scalar: 144 })).attentionScale).toBe(1 / 12);
    expect(() => parse(of("gemma3_text", { use_bidirectional_attention: true }))).toThrow(
      '"use_bidirectional_attention" is true; only false is supported.',
    );
    // What older files say beside the key that decides.
    expect(parse(of("gemma2", { hidden_act: "gelu" }))).toEqual(parse(of("gemma2")));
  });

  it("windows of every n-th layer but one, and what its rotary positions are", () => {
    const layers = (type: string, changes: Record<string, unknown>) => {
      const { layerWindow, layerRope } = parse(of(type, { num_hidden_layers: 6, sliding_window: 9, ...changes }));
      return [layerWindow.map(Number).join(""), layerRope.map((rope) => `${rope?.theta} ${rope?.scaling.type}`)];
    };
    const linear = { rope_theta: 1e6, rope_scaling: { rope_type: "linear", factor: 8 } };
    expect(layers("gemma2", {})).toEqual(["101010", new Array(6).fill("10000 none")]);
    const [local, full] = ["10000 none", "1000000 linear"];
    expect(layers("gemma3_text", linear)).toEqual(["111110", [local, local, local, local, local, full]]);
    const pattern = { ...linear, _sliding_window_pattern: 3, rope_local_base_freq: 500 };
    const [own, other] = ["500 none", "1000000 linear"];
    expect(layers("gemma3_text", pattern)).toEqual(["110110", [own, own, other, own, own, other]]);
    const newer = {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
      sliding_attention: { rope_type: "default", rope_theta: 500 },
    };
    expect(layers("gemma3_text", { rope_parameters: newer, sliding_window_pattern: 3 })).toEqual(
      layers("gemma3_text", pattern),
    );
    const yarn = {
      rope_theta: 5e5,
      rope_scaling: { rope_type: "yarn", factor: 8, original_max_position_embeddings: 8 },
    };
    const [windowed, whole] = ["500000 none", "500000 yarn"];
    expect(layers("olmo3", yarn)).toEqual(["111011", [windowed, windowed, windowed, whole, windowed, windowed]]);
    // A window that never acts still decides which rotary positions a layer has.
    expect(layers("olmo3", { ...yarn, sliding_window: 4096 })[1]).toEqual(layers("olmo3", yarn)[1]);
    expect(layers("phi3", { sliding_window: null })[0]).toBe("000000");
    expect(layers("phi3", {})[0]).toBe("111111");
  });

  it("YaRN's magnitude: given, by mscale, or by the factor", () => {
    const magnitude = (changes: Record<string, unknown>) => {
      const rope_scaling = { type: "yarn", factor: 4, original_max_position_embeddings: 16, ...changes };
      const scaling = parse(of("qwen3", { rope_scaling })).layerRope[0]?.scaling;
      return scaling && "magnitude" in scaling ? scaling.magnitude : undefined;
    };
    const usual = 1 + 0.1 * Math.log(4);
    expect(magnitude({})).toBe(usual);
    expect(magnitude({ attention_factor: 1.5 })).toBe(1.5);
    expect(magnitude({ mscale: 1, mscale_all_dim: 1 })).toBe(1);
    expect(magnitude({ mscale: 1, mscale_all_dim: 0 })).toBe(usual);
    expect(magnitude({ mscale: 2, mscale_all_dim: 1 })).toBe((1 + 0.2 * Math.log(4)) / usual);
    // The context of 64 over the 16 of the first training.
    expect(magnitude({ factor: undefined })).toBe(usual);
    expect(magnitude({ factor: 0.5 })).toBe(1);
    expect(() => magnitude({ factor: undefined, original_max_position_embeddings: undefined })).toThrow(
      'key "factor" of "rope_scaling" is missing.',
    );
    expect(() => parse(of("qwen3", { rope_theta: 1, rope_scaling: { type: "yarn", factor: 4 } }))).toThrow(
      '"rope_theta" is 1, and rotary positions that are scaled by "yarn" need one above 1.',
    );
  });

  it("Phi's rotated share of a head and its LongRoPE, under its old names too", () => {
    const rope = (changes: Record<string, unknown>) => parse(of("phi3", { head_dim: 16, ...changes })).layerRope[0];
    expect(rope({ partial_rotary_factor: 0.75 })?.rotated).toBe(12);
    expect(() => rope({ partial_rotary_factor: 0.7 })).toThrow(
      '"partial_rotary_factor" 0.7 rotates 11 of 16 channels of a head; it must be an even number of them.',
    );
    const factors = { short_factor: [1, 1, 1, 1, 1, 1, 1, 1], long_factor: [1, 2, 3, 4, 5, 6, 7, 8] };
    const wanted = {
      type: "longrope",
      shortFactors: factors.short_factor,
      longFactors: factors.long_factor,
      originalContextLength: 16,
      magnitude: Math.sqrt(1 + Math.log(4) / Math.log(16)),
    };
    for (const type of ["longrope", "su", "yarn"]) {
      expect(rope({ original_max_position_embeddings: 16, rope_scaling: { type, ...factors } })?.scaling).toEqual(
        wanted,
      );
    }
    expect(() => rope({ rope_scaling: { type: "su", ...factors, long_factor: [1] } })).toThrow(
      '"long_factor" of "rope_scaling" is [1], not a list of 8 numbers above 0.',
    );
    const tiny = { type: "su", ...factors, short_factor: [1e-50, 1, 1, 1, 1, 1, 1, 1] };
    expect(() => rope({ rope_scaling: tiny })).toThrow("not a list of 8 numbers above 0.");
    expect(() => rope({ original_max_position_embeddings: 1, rope_scaling: { type: "su", ...factors } })).toThrow(
      '"original_max_position_embeddings" is 1, too short for a prompt and a completion.',
    );
  });

  it("Ministral 3's factor of queries, from its rotary positions", () => {
    const yarn = { rope_type: "yarn", factor: 16, original_max_position_embeddings: 16, llama_4_scaling_beta: 0.1 };
    expect(parse(of("ministral3", { rope_parameters: yarn })).queryScaling).toEqual({ beta: 0.1, length: 16 });
    expect(() => parse(of("ministral3"))).toThrow('key "rope_parameters" is missing.');
  });

  it("LFM2's layers, by their types or by the numbers of those with attention, and the width of its MLP", () => {
    const lfm2 = (more: Record<string, unknown> = {}) =>
      parse(of("lfm2", { num_hidden_layers: 3, intermediate_size: 12288, ...more }));
    expect(lfm2()).toMatchObject({
      layerMixer: ["attention", "attention", "attention"],
      ...{ convolution: undefined, tiedHead: true, normEpsilon: 1e-5, qkNorm: "head", intermediateSize: 8192 },
    });
    const mixed = { layerMixer: ["convolution", "attention", "convolution"], convolution: { taps: 3, bias: false } };
    expect(lfm2({ full_attn_idxs: [1] })).toMatchObject(mixed);
    expect(lfm2({ layer_types: ["conv", "full_attention", "conv"] })).toMatchObject(mixed);
    // LFM2-350M's.
    expect(lfm2({ block_ff_dim: 6656, block_ffn_dim_multiplier: 1.0 }).intermediateSize).toBe(4608);
    expect(lfm2({ block_ff_dim: 60, block_auto_adjust_ff_dim: false }).intermediateSize).toBe(60);
    expect(lfm2({ tie_embedding: false, tie_word_embeddings: true, norm_eps: 1e-3 })).toMatchObject({
      ...{ tiedHead: false, normEpsilon: 1e-3 },
    });
    expect(() => lfm2({ full_attn_idxs: [3] })).toThrow(
      '"full_attn_idxs" is [3], not a list of numbers of the 3 layers',
    );
    expect(() => lfm2({ full_attn_idxs: [1], conv_L_cache: 1 })).toThrow('"conv_L_cache" is 1');
    expect(() => lfm2({ layer_types: ["conv", "conv", "sliding_attention"] })).toThrow(
      '"layer_types" holds "sliding_attention"; only "full_attention" and "conv" are supported',
    );
  });

  it("Qwen3.5's layers and their numbers", () => {
    const qwen = (more: Record<string, unknown> = {}) =>
      parse({ model_type: "qwen3_5_text", num_hidden_layers: 4, linear_num_value_heads: 16, ...more });
    const usual = { keyHeads: 16, valueHeads: 16, keySize: 128, valueSize: 128, taps: 4 };
    expect(qwen()).toMatchObject({
      layerMixer: ["deltaNet", "deltaNet", "deltaNet", "attention"],
      ...{ deltaNet: usual, attentionGate: true, normUnitOffset: true, headSize: 256, tiedHead: false },
      layerRope: [{ rotated: 64 }, { rotated: 64 }, { rotated: 64 }, { rotated: 64 }],
    });
    expect(qwen({ full_attention_interval: 2 }).layerMixer).toEqual(["deltaNet", "attention", "deltaNet", "attention"]);
    const rope_parameters = { rope_type: "default", rope_theta: 1e7, mrope_section: [11, 11, 10] };
    expect(qwen({ rope_parameters }).layerRope[0]).toMatchObject({ theta: 1e7, rotated: 64 });
    expect(() => qwen({ linear_num_key_heads: 3 })).toThrow("16 value heads are not a multiple of 3 key heads");
    expect(() => qwen({ attn_output_gate: false })).toThrow('"attn_output_gate" is false; only true is supported');
    const wrapped = { model_type: "qwen3_5", text_config: { model_type: "qwen3_5_text" }, tie_word_embeddings: true };
    expect(parse(wrapped)).toMatchObject({ wrapper: "qwen3_5", layers: 32, tiedHead: true });
  });

  it("a model of text and images is its text model, with what only the outer file says", () => {
    const text = { ...of("gemma3_text", { bos_token_id: undefined, eos_token_id: undefined }) };
    const outer = {
      model_type: "gemma3",
      text_config: text,
      eos_token_id: [1, 106],
      vision_config: { hidden_size: 8 },
    };
    const config = parse(outer);
    expect(config).toEqual({
      ...parse(text),
      wrapper: "gemma3",
      eosTokenIds: [1, 106],
    });
    expect(parse({ ...outer, text_config: { ...text, model_type: undefined } })).toEqual(config);
    // What the file of Gemma 3 4B says of its text model; the rest are the defaults of its class.
    const real = { hidden_size: 2560, intermediate_size: 10240, num_hidden_layers: 34, sliding_window: 1024 };
    const rope_scaling = { factor: 8, rope_type: "linear" };
    const gemma4B = { model_type: "gemma3", text_config: { model_type: "gemma3_text", ...real, rope_scaling } };
    expect(parse(gemma4B)).toMatchObject({
      ...{ vocabSize: 262208, heads: 8, keyValueHeads: 4, headSize: 256, contextLength: 131072, tiedHead: true },
      attentionScale: 1 / 16,
    });
    expect(parse({ model_type: "mistral3", text_config: of("mistral") }).modelType).toBe("mistral");
    expect(() => parse({ model_type: "gemma3" })).toThrow('key "text_config" is missing.');
    expect(() => parse({ model_type: "mistral3", text_config: of("mixtral") })).toThrow(
      '"model_type" of "text_config" is "mixtral", which is not supported in "mistral3".',
    );
  });
});

it("the text model's own config.json keeps the spelling of its numbers", () => {
  const text =
    '{\n  "model_type": "gemma3",\n  "eos_token_id": [1, 106],\n  "text_config": {\n    "a": "}",\n    "rope_theta": 10000.0,\n    "eos_token_id": null\n  }\n}\n';
  expect(unwrappedText(text)).toBe(
    '{\n  "architectures": ["Gemma3ForCausalLM"],\n  "model_type": "gemma3_text",\n  "eos_token_id": [1,106],\n  "a": "}",\n  "rope_theta": 10000.0\n}\n',
  );
  expect(unwrappedText('{"model_type": "llama"}')).toBeUndefined();
});

describe("what is not implemented is refused by its key", () => {
  it.each<[Record<string, unknown>, string]>([
    [
      of("mixtral"),
      'architecture "mixtral" (LlamaForCausalLM) is not supported; supported are "llama", "mistral", "ministral3", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "olmo3", "phi3", "gemma2", "gemma3_text", "lfm2", "qwen3_5_text", "gemma3", "mistral3", "qwen3_5" and "gpt2".',
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
      { rope_scaling: { type: "longrope" } },
      '"rope_scaling" is {"type":"longrope"}, and this scaling is not supported; supported are "default", "linear", "dynamic", "llama3" and "yarn".',
    ],
    [
      { rope_scaling: { type: "yarn", factor: 4, beta_fast: 1 } },
      '"beta_fast" of "rope_scaling" is 1, not above its "beta_slow" of 1.',
    ],
    [
      { rope_scaling: { type: "yarn", factor: 4, llama_4_scaling_beta: 0.1 } },
      '"llama_4_scaling_beta" of "rope_scaling" is 0.1, which is not supported.',
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
