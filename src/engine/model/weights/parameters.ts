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
    const [queries, keys] = [heads * headSize, keyValueHeads * headSize];
    const qkv: [string, number][] = config.fusedProjections
      ? [[`${hf}.self_attn.qkv_proj`, queries + 2 * keys]]
      : [
          [`${hf}.self_attn.q_proj`, queries],
          [`${hf}.self_attn.k_proj`, keys],
          [`${hf}.self_attn.v_proj`, keys],
        ];
    const gateUp: [string, number][] = config.fusedProjections
      ? [[`${hf}.mlp.gate_up_proj`, 2 * I]]
      : [
          [`${hf}.mlp.gate_proj`, I],
          [`${hf}.mlp.up_proj`, I],
        ];
    const weights = (parts: readonly (readonly [string, number])[], suffix: string) =>
      parts.map(([part, rows]) => [`${part}.${suffix}`, rows] as const);
    const norm = (part: string, hfPart: string) =>
      specs.push(single(name(`${part}.weight`), `${hf}.${hfPart}.weight`, [C]));
    const [before, after] = [config.normPlaces !== "after", config.normPlaces !== "before"];
    if (before) norm("attentionNorm", "input_layernorm");
    specs.push(stacked(name("qkv.weight"), C, weights(qkv, "weight")));
    if (config.qkvBias) specs.push(stacked(name("qkv.bias"), undefined, weights(qkv, "bias")));
    if (config.qkNorm !== "none") {
      const [ofQueries, ofKeys] = config.qkNorm === "head" ? [headSize, headSize] : [queries, keys];
      const norms = [
        [`${hf}.self_attn.q_norm.weight`, ofQueries],
        [`${hf}.self_attn.k_norm.weight`, ofKeys],
      ] as const;
      specs.push(stacked(name("qkNorm.weight"), undefined, norms));
    }
    specs.push(single(name("output.weight"), `${hf}.self_attn.o_proj.weight`, [C, heads * headSize]));
    if (config.outputBias) specs.push(single(name("output.bias"), `${hf}.self_attn.o_proj.bias`, [C]));
    // With norms on both sides, the name that is the MLP's norm in Llama is that of attention's result.
    if (after) norm("attentionBranchNorm", "post_attention_layernorm");
    if (before) norm("mlpNorm", after ? "pre_feedforward_layernorm" : "post_attention_layernorm");
    specs.push(stacked(name("up.weight"), C, weights(gateUp, "weight")));
    if (config.mlpBias) specs.push(stacked(name("up.bias"), undefined, weights(gateUp, "bias")));
    specs.push(single(name("down.weight"), `${hf}.mlp.down_proj.weight`, [C, I]));
    if (config.mlpBias) specs.push(single(name("down.bias"), `${hf}.mlp.down_proj.bias`, [C]));
    if (after) norm("mlpBranchNorm", "post_feedforward_layernorm");
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

/** Whether a name is that of such a tensor. */
export const isNoParameter = (name: string): boolean => NOT_PARAMETERS.some((pattern) => pattern.test(name));

/** Tensors of a wrapped model that belong to its images. */
const OF_IMAGES = /^(model\.)?(vision_tower|vision_model|multi_modal_projector)\./;

/** Where a text model stands in the classes of wrapped models: today's, and that by which most files are named. */
const WRAPPED_PREFIX = "model.language_model.";
const OLD_WRAPPED_PREFIX = "language_model.model.";

/** Where the decoder's modules stand in Hugging Face's class of the family; weight files may leave it out. */
export function modulePrefix(config: ModelConfig): string {
  return config.wrapper === undefined ? writtenPrefix(config) : WRAPPED_PREFIX;
}

/** The head's module, which stands beside the decoder in Hugging Face's classes. */
export const HEAD_MODULE = "lm_head";

/** The whole name of a module or a tensor in Hugging Face's class of the family. */
export function moduleName(config: ModelConfig, part: string): string {
  return isOfHead(part) ? part : `${modulePrefix(config)}${part}`;
}

const isOfHead = (part: string) => part === HEAD_MODULE || part.startsWith(`${HEAD_MODULE}.`);

/** The same in the class of a text model alone, as which one is written that was read out of a wrapped model. */
export function writtenPrefix(config: ModelConfig): string {
  return config.modelType === "gpt2" ? "transformer." : "model.";
}

/** What weight files with this prefix call a tensor. */
export function tensorName(prefix: string, part: string): string {
  if (!isOfHead(part)) return `${prefix}${part}`;
  return prefix === OLD_WRAPPED_PREFIX ? `language_model.${part}` : part;
}

/**
 * The name that PEFT gives a tensor of an adapter today, from one that it has or had: its modules are named by the class
 * of the base, which changed for wrapped models.
 */
export function currentModuleName(config: ModelConfig, name: string): string {
  return config.wrapper !== undefined && name.startsWith(OLD_WRAPPED_PREFIX)
    ? `${WRAPPED_PREFIX}${name.slice(OLD_WRAPPED_PREFIX.length)}`
    : name;
}

/**
 * The prefix of the decoder's tensors in the weight files ("transformer." for GPT-2, "model." for the others, a longer one
 * in wrapped models, or none), and which names they may hold beside the parameters.
 */
export function storedNaming(
  config: ModelConfig,
  names: Iterable<string>,
): { prefix: string; fullName: (part: string) => string; ignorable: (name: string) => boolean } {
  const usual = config.wrapper === undefined ? [modulePrefix(config)] : [WRAPPED_PREFIX, OLD_WRAPPED_PREFIX];
  const all = [...names];
  const prefix = usual.find((one) => all.some((name) => name.startsWith(one))) ?? "";
  const fullName = (part: string) => tensorName(prefix, part);
  const ignorable = (name: string) =>
    isNoParameter(name) ||
    (config.tiedHead && name === fullName("lm_head.weight")) ||
    (config.wrapper !== undefined && OF_IMAGES.test(name));
  return { prefix, fullName, ignorable };
}
