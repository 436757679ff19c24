/**
 * The parameters of a decoder and the Hugging Face tensors that they are made of. Projections that read the same input
 * are stored as one matrix: [q; k; v] and [gate; up]; their Hugging Face tensors are row ranges. The norms of query and
 * key heads lie behind one another for the same reason: one kernel reads both. Where parameters lie in memory is
 * decided in `arena.ts`.
 */
import type { ParameterSpec } from "../../gpu/arena.ts";
import type { ModelConfig } from "../config/config.ts";

/** Names of the parameters of one layer. */
export function layerName(layer: number, part: string): string {
  return `layers.${layer}.${part}`;
}

function single(name: string, hfName: string, shape: readonly number[]): ParameterSpec {
  return { name, shape, decay: shape.length > 1, parts: [{ name: hfName, shape }] };
}

function stacked(
  name: string,
  columns: number | undefined,
  parts: readonly (readonly [string, number])[],
): ParameterSpec {
  const rows = parts.reduce((sum, [, count]) => sum + count, 0);
  const shape = (count: number) => (columns === undefined ? [count] : [count, columns]);
  return {
    name,
    shape: shape(rows),
    decay: columns !== undefined,
    parts: parts.map(([part, count]) => ({ name: part, shape: shape(count) })),
  };
}

/** The parameters of a decoder in the order of a forward pass. */
export function parameterSpecs(config: ModelConfig): ParameterSpec[] {
  return config.modelType === "gpt2" ? gpt2Specs(config) : llamaSpecs(config);
}

function llamaSpecs(config: ModelConfig): ParameterSpec[] {
  const { hiddenSize: C, intermediateSize: I, heads, keyValueHeads, headSize, vocabSize } = config;
  const specs = [single("embedding", "embed_tokens.weight", [vocabSize, C])];
  for (let layer = 0; layer < config.layers; layer++) {
    const hf = `layers.${layer}`;
    const name = (part: string) => layerName(layer, part);
    const qkv = [
      [`${hf}.self_attn.q_proj`, heads * headSize],
      [`${hf}.self_attn.k_proj`, keyValueHeads * headSize],
      [`${hf}.self_attn.v_proj`, keyValueHeads * headSize],
    ] as const;
    const gateUp = [
      [`${hf}.mlp.gate_proj`, I],
      [`${hf}.mlp.up_proj`, I],
    ] as const;
    const weights = (parts: readonly (readonly [string, number])[], suffix: string) =>
      parts.map(([part, rows]) => [`${part}.${suffix}`, rows] as const);
    specs.push(single(name("attentionNorm.weight"), `${hf}.input_layernorm.weight`, [C]));
    specs.push(stacked(name("qkv.weight"), C, weights(qkv, "weight")));
    if (config.qkvBias) specs.push(stacked(name("qkv.bias"), undefined, weights(qkv, "bias")));
    if (config.qkNorm) {
      const norms = ["q_norm", "k_norm"].map((part) => [`${hf}.self_attn.${part}.weight`, headSize] as const);
      specs.push(stacked(name("qkNorm.weight"), undefined, norms));
    }
    specs.push(single(name("output.weight"), `${hf}.self_attn.o_proj.weight`, [C, heads * headSize]));
    if (config.outputBias) specs.push(single(name("output.bias"), `${hf}.self_attn.o_proj.bias`, [C]));
    specs.push(single(name("mlpNorm.weight"), `${hf}.post_attention_layernorm.weight`, [C]));
    specs.push(stacked(name("up.weight"), C, weights(gateUp, "weight")));
    if (config.mlpBias) specs.push(stacked(name("up.bias"), undefined, weights(gateUp, "bias")));
    specs.push(single(name("down.weight"), `${hf}.mlp.down_proj.weight`, [C, I]));
    if (config.mlpBias) specs.push(single(name("down.bias"), `${hf}.mlp.down_proj.bias`, [C]));
  }
  specs.push(single("finalNorm.weight", "norm.weight", [C]));
  if (!config.tiedHead) specs.push(single("head", "lm_head.weight", [vocabSize, C]));
  return specs;
}

function gpt2Specs(config: ModelConfig): ParameterSpec[] {
  const { hiddenSize: C, intermediateSize: I, vocabSize } = config;
  const specs = [
    single("embedding", "wte.weight", [vocabSize, C]),
    single("positions", "wpe.weight", [config.contextLength, C]),
  ];
  for (let layer = 0; layer < config.layers; layer++) {
    const hf = `h.${layer}`;
    const name = (part: string) => layerName(layer, part);
    const linear = (part: string, hfPart: string, inputs: number, outputs: number) => [
      single(name(`${part}.weight`), `${hf}.${hfPart}.weight`, [inputs, outputs]),
      single(name(`${part}.bias`), `${hf}.${hfPart}.bias`, [outputs]),
    ];
    const norm = (part: string, hfPart: string) => [
      single(name(`${part}.weight`), `${hf}.${hfPart}.weight`, [C]),
      single(name(`${part}.bias`), `${hf}.${hfPart}.bias`, [C]),
    ];
    specs.push(
      ...norm("attentionNorm", "ln_1"),
      ...linear("qkv", "attn.c_attn", C, 3 * C),
      ...linear("output", "attn.c_proj", C, C),
      ...norm("mlpNorm", "ln_2"),
      ...linear("up", "mlp.c_fc", C, I),
      ...linear("down", "mlp.c_proj", I, C),
    );
  }
  specs.push(single("finalNorm.weight", "ln_f.weight", [C]), single("finalNorm.bias", "ln_f.bias", [C]));
  if (!config.tiedHead) specs.push(single("head", "lm_head.weight", [vocabSize, C]));
  return specs;
}

/** Tensors that weight files carry and that hold no parameter: causal masks and frequency tables. */
const NOT_PARAMETERS = [/\.attn\.(bias|masked_bias)$/, /\.rotary_emb\.inv_freq$/];

/** Where the decoder's modules stand in Hugging Face's class of the family; weight files may leave it out. */
export function modulePrefix(config: ModelConfig): string {
  return config.modelType === "gpt2" ? "transformer." : "model.";
}

/** The name in weight files with this prefix of a tensor of ours. */
export function tensorName(prefix: string, part: string): string {
  return part === "lm_head.weight" ? part : `${prefix}${part}`;
}

/**
 * The prefix of the decoder's tensors in the weight files ("transformer." for GPT-2, "model." for the others, or none),
 * and which names they may hold beside the parameters.
 */
export function storedNaming(
  config: ModelConfig,
  names: Iterable<string>,
): { prefix: string; fullName: (part: string) => string; ignorable: (name: string) => boolean } {
  const usual = modulePrefix(config);
  const prefix = [...names].some((name) => name.startsWith(usual)) ? usual : "";
  const fullName = (part: string) => tensorName(prefix, part);
  const ignorable = (name: string) =>
    NOT_PARAMETERS.some((pattern) => pattern.test(name)) || (config.tiedHead && name === "lm_head.weight");
  return { prefix, fullName, ignorable };
}
