/**
 * The parameters of a decoder and the Hugging Face tensors that they are made of. Projections that read the same input
 * are stored as one matrix: [q; k; v] and [gate; up]; their Hugging Face tensors are row ranges. The norms of query and
 * key heads lie behind one another for the same reason: one kernel reads both. Where parameters lie in memory is
 * decided in `arena.ts`.
 */
import type { ParameterSpec } from "../../gpu/arena.ts";
import type { ModelConfig, ModelType } from "../config/config.ts";
import type { MixerType } from "../config/mixer-keys.ts";

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

/** What a family calls its modules, behind "layers.N." or, of the last norm, behind the prefix. */
interface ModuleNames {
  readonly attentionNorm: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly queryNorm: string;
  readonly keyNorm: string;
  readonly attentionOutput: string;
  readonly mlpNorm: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  readonly finalNorm: string;
}

const LLAMA_NAMES: ModuleNames = {
  attentionNorm: "input_layernorm",
  query: "self_attn.q_proj",
  key: "self_attn.k_proj",
  value: "self_attn.v_proj",
  queryNorm: "self_attn.q_norm",
  keyNorm: "self_attn.k_norm",
  attentionOutput: "self_attn.o_proj",
  mlpNorm: "post_attention_layernorm",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
  finalNorm: "norm",
};

/** Names of families that differ. */
const NAMES: Readonly<Partial<Record<ModelType, Partial<ModuleNames>>>> = {
  lfm2: {
    attentionNorm: "operator_norm",
    queryNorm: "self_attn.q_layernorm",
    keyNorm: "self_attn.k_layernorm",
    attentionOutput: "self_attn.out_proj",
    mlpNorm: "ffn_norm",
    gate: "feed_forward.w1",
    up: "feed_forward.w3",
    down: "feed_forward.w2",
    finalNorm: "embedding_norm",
  },
};

/** Projections that read the same input, each with its rows; of a fused one the rows of all. */
type Projections = readonly (readonly [hfName: string, rows: number])[];

/** One layer's parameters. */
interface LayerSpecs {
  readonly config: ModelConfig;
  readonly names: ModuleNames;
  /** The name that a parameter of this layer has here. */
  readonly name: (part: string) => string;
  /** What the names of the layer's tensors begin with in Hugging Face's files, the dot included. */
  readonly hf: string;
}

function llamaSpecs(config: ModelConfig): ParameterSpec[] {
  const { hiddenSize: C, intermediateSize: I, vocabSize } = config;
  const names = { ...LLAMA_NAMES, ...NAMES[config.modelType] };
  const specs = [single("embedding", "embed_tokens.weight", [vocabSize, C])];
  for (let layer = 0; layer < config.layers; layer++) {
    const hf = `layers.${layer}.`;
    const name = (part: string) => layerName(layer, part);
    const here = { config, names, name, hf };
    const norm = (part: string, hfPart: string) =>
      specs.push(single(name(`${part}.weight`), `${hf}${hfPart}.weight`, [C]));
    const [before, after] = [config.normPlaces !== "after", config.normPlaces !== "before"];
    if (before) norm("attentionNorm", names.attentionNorm);
    specs.push(...MIXER_SPECS[config.layerMixer[layer] ?? "attention"](here));
    // With norms on both sides, the name that is the MLP's norm in Llama is that of attention's result.
    if (after) norm("attentionBranchNorm", "post_attention_layernorm");
    if (before) norm("mlpNorm", after ? "pre_feedforward_layernorm" : names.mlpNorm);
    const gateUp: Projections = config.fusedProjections
      ? [["mlp.gate_up_proj", 2 * I]]
      : [
          [names.gate, I],
          [names.up, I],
        ];
    specs.push(...projected(here, "up", gateUp, C, config.mlpBias));
    specs.push(...projected(here, "down", [[names.down, C]], I, config.mlpBias));
    if (after) norm("mlpBranchNorm", "post_feedforward_layernorm");
  }
  specs.push(single("finalNorm.weight", `${names.finalNorm}.weight`, [C]));
  if (!config.tiedHead) specs.push(single("head", "lm_head.weight", [vocabSize, C]));
  return specs;
}

/** The weight [rows of all, columns] of projections, and their bias where they have one. */
function projected(
  { name, hf }: LayerSpecs,
  part: string,
  projections: Projections,
  columns: number,
  bias: boolean,
): ParameterSpec[] {
  const parts = (suffix: string) => projections.map(([module, rows]) => [`${hf}${module}.${suffix}`, rows] as const);
  const weight = stacked(name(`${part}.weight`), columns, parts("weight"));
  return bias ? [weight, stacked(name(`${part}.bias`), undefined, parts("bias"))] : [weight];
}

/** The parameters of what mixes tokens, from its first projection to `output`. */
const MIXER_SPECS: Readonly<Record<MixerType, (here: LayerSpecs) => ParameterSpec[]>> = {
  attention: (here) => {
    const { config, names, name, hf } = here;
    const { hiddenSize: C, heads, keyValueHeads, headSize } = config;
    const [queries, keys] = [heads * headSize, keyValueHeads * headSize];
    const qkv: Projections = config.fusedProjections
      ? [["self_attn.qkv_proj", queries + 2 * keys]]
      : [
          // With a gate each head's rows are D of its queries and D of its gates.
          [names.query, (config.attentionGate ? 2 : 1) * queries],
          [names.key, keys],
          [names.value, keys],
        ];
    const specs = projected(here, config.attentionGate ? "gatedQkv" : "qkv", qkv, C, config.qkvBias);
    if (config.qkNorm !== "none") {
      const [ofQueries, ofKeys] = config.qkNorm === "head" ? [headSize, headSize] : [queries, keys];
      const norms = [
        [`${hf}${names.queryNorm}.weight`, ofQueries],
        [`${hf}${names.keyNorm}.weight`, ofKeys],
      ] as const;
      specs.push(stacked(name("qkNorm.weight"), undefined, norms));
    }
    specs.push(...projected(here, "output", [[names.attentionOutput, C]], queries, config.outputBias));
    return specs;
  },
  convolution: (here) => {
    const { config, name, hf } = here;
    const { hiddenSize: C, convolution: { taps, bias } = { taps: 0, bias: false } } = config;
    return [
      ...projected(here, "convolutionInput", [["conv.in_proj", 3 * C]], C, bias),
      tapsSpec(name("convolution.weight"), `${hf}conv.conv.weight`, C, taps),
      ...(bias ? [single(name("convolution.bias"), `${hf}conv.conv.bias`, [C])] : []),
      ...projected(here, "output", [["conv.out_proj", C]], C, bias),
    ];
  },
  deltaNet: (here) => {
    const { config, name, hf } = here;
    const { hiddenSize: C, deltaNet: { valueHeads, valueSize, taps } = NO_DELTA_NET } = config;
    const { qkv, values } = deltaWidths(config);
    const own = (part: string) => `${hf}linear_attn.${part}`;
    const inputs: Projections = [
      ["linear_attn.in_proj_qkv", qkv],
      ["linear_attn.in_proj_z", values],
      ["linear_attn.in_proj_b", valueHeads],
      ["linear_attn.in_proj_a", valueHeads],
    ];
    return [
      ...projected(here, "deltaInput", inputs, C, false),
      tapsSpec(name("convolution.weight"), own("conv1d.weight"), qkv, taps),
      // transformers exempts names with "bias" and "norm" from weight decay, and no others.
      { ...single(name("delta.aLog"), own("A_log"), [valueHeads]), decay: true },
      single(name("delta.dtBias"), own("dt_bias"), [valueHeads]),
      single(name("deltaNorm.weight"), own("norm.weight"), [valueSize]),
      ...projected(here, "output", [["linear_attn.out_proj", C]], values, false),
    ];
  },
};

const NO_DELTA_NET = { valueHeads: 0, valueSize: 0, taps: 0 };

/** Widths of a DeltaNet: of queries, keys and values together, and of values alone, as gates and results are. */
export function deltaWidths({ deltaNet }: ModelConfig): { readonly qkv: number; readonly values: number } {
  if (deltaNet === undefined) return { qkv: 0, values: 0 };
  const { keyHeads, valueHeads, keySize, valueSize } = deltaNet;
  return { qkv: 2 * keyHeads * keySize + valueHeads * valueSize, values: valueHeads * valueSize };
}

/** The taps of channels as one vector, which stays f32 and is no linear layer's; their tensor is [channels, 1, taps]. */
function tapsSpec(name: string, hfName: string, channels: number, taps: number): ParameterSpec {
  return { name, shape: [channels * taps], decay: true, parts: [{ name: hfName, shape: [channels, 1, taps] }] };
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
const OF_IMAGES = /^(model\.)?(vision_tower|vision_model|multi_modal_projector|visual)\./;

/** Tensors of Qwen3.5 that predict further tokens, and that transformers leaves out too. */
const OF_FURTHER_TOKENS = /^mtp\./;

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

/**
 * Where the decoder's modules stand in the class of a text model alone. A text model that was read out of a wrapped one
 * is written as that class.
 */
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
    (config.modelType === "qwen3_5_text" && OF_FURTHER_TOKENS.test(name)) ||
    (config.wrapper !== undefined && OF_IMAGES.test(name));
  return { prefix, fullName, ignorable };
}
