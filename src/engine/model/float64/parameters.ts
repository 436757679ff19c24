/**
 * The parameters of the float64 decoder (`decoder.ts`), under the names of Hugging Face's weight files. The names are
 * listed here a second time on purpose: an oracle shares no table with what it judges.
 */
import { ModelFormatError } from "../../../errors.ts";
import type { ModelConfig } from "../config/config.ts";

export interface Float64Tensor {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** A parameter as the weight files name it. */
export interface Parameter {
  readonly name: string;
  readonly data: Float64Array;
}

/** `y = x W + bias`, W stored [out, in] or, `inOut`, [in, out]. */
export interface Linear {
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;
  readonly inputs: number;
  readonly outputs: number;
  readonly inOut: boolean;
}

export interface Norm {
  readonly weight: Parameter;
  /** LayerNorm has one, RMSNorm has none. */
  readonly bias: Parameter | undefined;
}

/** A layer whose tokens see others by attention. */
export interface AttentionParameters {
  readonly type: "attention";
  /** Their outputs side by side are q, k, v: one fused in GPT-2 and Phi-3, three elsewhere. */
  readonly input: readonly Linear[];
  /** RMSNorm of each query and each key head (Qwen3, Gemma 3) or of all of them together (OLMo 2). */
  readonly queryNorm: Parameter | undefined;
  readonly keyNorm: Parameter | undefined;
  readonly output: Linear;
}

/** One whose tokens see the few before them, by a convolution between gates (LFM2). */
export interface ConvolutionParameters {
  readonly type: "convolution";
  readonly input: readonly Linear[];
  /** [C, 1, K] and [C]. */
  readonly taps: Parameter;
  readonly bias: Parameter | undefined;
  readonly output: Linear;
}

/** A gated DeltaNet (Qwen3.5). */
export interface DeltaNetParameters {
  readonly type: "deltaNet";
  /** Their outputs side by side: queries, keys and values together, then z, b and a. */
  readonly input: readonly Linear[];
  /** [C, 1, K]. */
  readonly taps: Parameter;
  readonly aLog: Parameter;
  readonly dtBias: Parameter;
  readonly norm: Parameter;
  readonly output: Linear;
}

export interface Layer {
  /** Norm of what the mixer reads; undefined in OLMo 2. */
  readonly attentionNorm: Norm | undefined;
  readonly mixer: AttentionParameters | ConvolutionParameters | DeltaNetParameters;
  /** Norms of what attention gives and, below, of what the MLP gives, in OLMo 2 and Gemma. */
  readonly attentionBranchNorm: Norm | undefined;
  readonly mlpNorm: Norm | undefined;
  /** Their outputs side by side are what the activation takes: one in GPT-2 and Phi-3, gate and up elsewhere. */
  readonly mlpInput: readonly Linear[];
  readonly mlpOutput: Linear;
  readonly mlpBranchNorm: Norm | undefined;
}

/** Looks tensors up by their name without prefix, checks shapes, remembers which are used. */
export class TensorTable {
  readonly used: string[] = [];
  readonly #config: ModelConfig;
  readonly #byShortName = new Map<string, { name: string; tensor: Float64Tensor }>();

  constructor(config: ModelConfig, weights: ReadonlyMap<string, Float64Tensor>) {
    this.#config = config;
    for (const [name, tensor] of weights)
      this.#byShortName.set(name.replace(/^(transformer|model)\./, ""), { name, tensor });
  }

  parameter(shortName: string, shape: readonly number[]): Parameter {
    const found = this.#byShortName.get(shortName);
    if (!found) throw new ModelFormatError(`Tensor "${shortName}" of the ${this.#config.modelType} model is missing.`);
    const { name, tensor } = found;
    if (tensor.shape.join() !== shape.join()) {
      throw new ModelFormatError(`Tensor "${name}" has shape [${tensor.shape.join(", ")}], not [${shape.join(", ")}].`);
    }
    this.used.push(name);
    return { name, data: tensor.data };
  }

  linear(shortName: string, inputs: number, outputs: number, bias: boolean): Linear {
    const inOut = this.#config.inOutWeights;
    return {
      weight: this.parameter(`${shortName}.weight`, inOut ? [inputs, outputs] : [outputs, inputs]),
      bias: bias ? this.parameter(`${shortName}.bias`, [outputs]) : undefined,
      inputs,
      outputs,
      inOut,
    };
  }

  norm(shortName: string): Norm {
    const { hiddenSize, norm } = this.#config;
    return {
      weight: this.parameter(`${shortName}.weight`, [hiddenSize]),
      bias: norm === "layer" ? this.parameter(`${shortName}.bias`, [hiddenSize]) : undefined,
    };
  }
}

/** Layer `index` of a decoder. */
export function float64Layer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  if (config.modelType === "gpt2") return gpt2Layer(tensors, config, index);
  return config.modelType === "lfm2" ? lfm2Layer(tensors, config, index) : llamaLayer(tensors, config, index);
}

function llamaLayer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  const { hiddenSize: width, heads, keyValueHeads, headSize, intermediateSize, outputBias, mlpBias } = config;
  const prefix = `layers.${index}.`;
  const headNorm = (part: string, partHeads: number) =>
    config.qkNorm === "none"
      ? undefined
      : tensors.parameter(`${prefix}self_attn.${part}.weight`, [
          config.qkNorm === "width" ? partHeads * headSize : headSize,
        ]);
  const project = (part: string, outputs: number, bias: boolean) =>
    tensors.linear(`${prefix}${part}`, width, outputs, bias);
  const isPhi = config.modelType === "phi3";
  return {
    ...llamaNorms(tensors, config, prefix),
    mixer:
      config.layerMixer[index] === "deltaNet"
        ? deltaNet(tensors, config, prefix)
        : {
            type: "attention",
            input: isPhi
              ? [project("self_attn.qkv_proj", (heads + 2 * keyValueHeads) * headSize, false)]
              : separateQkv(tensors, config, prefix),
            queryNorm: headNorm("q_norm", heads),
            keyNorm: headNorm("k_norm", keyValueHeads),
            output: tensors.linear(`${prefix}self_attn.o_proj`, heads * headSize, width, outputBias),
          },
    mlpInput: isPhi
      ? [project("mlp.gate_up_proj", 2 * intermediateSize, false)]
      : [project("mlp.gate_proj", intermediateSize, mlpBias), project("mlp.up_proj", intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.down_proj`, intermediateSize, width, mlpBias),
  };
}

function deltaNet(tensors: TensorTable, config: ModelConfig, prefix: string): DeltaNetParameters {
  if (config.deltaNet === undefined) throw new Error("a DeltaNet without its numbers");
  const { keyHeads, valueHeads, keySize, valueSize, taps } = config.deltaNet;
  const [channels, values] = [2 * keyHeads * keySize + valueHeads * valueSize, valueHeads * valueSize];
  const name = (part: string) => `${prefix}linear_attn.${part}`;
  const input = (part: string, outputs: number) => tensors.linear(name(part), config.hiddenSize, outputs, false);
  return {
    type: "deltaNet",
    input: [
      ...[input("in_proj_qkv", channels), input("in_proj_z", values)],
      ...[input("in_proj_b", valueHeads), input("in_proj_a", valueHeads)],
    ],
    taps: tensors.parameter(name("conv1d.weight"), [channels, 1, taps]),
    aLog: tensors.parameter(name("A_log"), [valueHeads]),
    dtBias: tensors.parameter(name("dt_bias"), [valueHeads]),
    norm: tensors.parameter(name("norm.weight"), [valueSize]),
    output: tensors.linear(name("out_proj"), values, config.hiddenSize, false),
  };
}

function separateQkv(
  tensors: TensorTable,
  { hiddenSize, heads, keyValueHeads, headSize, qkvBias, attentionGate }: ModelConfig,
  prefix: string,
): Linear[] {
  const project = (part: string, ofHeads: number) =>
    tensors.linear(`${prefix}self_attn.${part}`, hiddenSize, ofHeads * headSize, qkvBias);
  return [
    project("q_proj", attentionGate ? 2 * heads : heads),
    project("k_proj", keyValueHeads),
    project("v_proj", keyValueHeads),
  ];
}

function lfm2Layer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  const { hiddenSize: width, heads, headSize, intermediateSize, convolution } = config;
  const prefix = `layers.${index}.`;
  const { taps, bias } = convolution ?? { taps: 0, bias: false };
  const attends = config.layerMixer[index] === "attention";
  return {
    attentionNorm: tensors.norm(`${prefix}operator_norm`),
    mixer: attends
      ? {
          type: "attention",
          input: separateQkv(tensors, config, prefix),
          queryNorm: tensors.parameter(`${prefix}self_attn.q_layernorm.weight`, [headSize]),
          keyNorm: tensors.parameter(`${prefix}self_attn.k_layernorm.weight`, [headSize]),
          output: tensors.linear(`${prefix}self_attn.out_proj`, heads * headSize, width, false),
        }
      : {
          type: "convolution",
          input: [tensors.linear(`${prefix}conv.in_proj`, width, 3 * width, bias)],
          taps: tensors.parameter(`${prefix}conv.conv.weight`, [width, 1, taps]),
          bias: bias ? tensors.parameter(`${prefix}conv.conv.bias`, [width]) : undefined,
          output: tensors.linear(`${prefix}conv.out_proj`, width, width, bias),
        },
    attentionBranchNorm: undefined,
    mlpBranchNorm: undefined,
    mlpNorm: tensors.norm(`${prefix}ffn_norm`),
    mlpInput: ["w1", "w3"].map((part) =>
      tensors.linear(`${prefix}feed_forward.${part}`, width, intermediateSize, false),
    ),
    mlpOutput: tensors.linear(`${prefix}feed_forward.w2`, intermediateSize, width, false),
  };
}

/** The norms of a layer by the names of its family: Llama's second one is Gemma's of what attention gives. */
function llamaNorms(tensors: TensorTable, { normPlaces }: ModelConfig, prefix: string) {
  const norm = (part: string) => tensors.norm(`${prefix}${part}`);
  const none = {
    attentionNorm: undefined,
    mlpNorm: undefined,
    attentionBranchNorm: undefined,
    mlpBranchNorm: undefined,
  };
  if (normPlaces === "before") {
    return { ...none, attentionNorm: norm("input_layernorm"), mlpNorm: norm("post_attention_layernorm") };
  }
  const after = {
    attentionBranchNorm: norm("post_attention_layernorm"),
    mlpBranchNorm: norm("post_feedforward_layernorm"),
  };
  if (normPlaces === "after") return { ...none, ...after };
  return { ...after, attentionNorm: norm("input_layernorm"), mlpNorm: norm("pre_feedforward_layernorm") };
}

function gpt2Layer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  const { hiddenSize: width, intermediateSize, qkvBias, outputBias, mlpBias } = config;
  const prefix = `h.${index}.`;
  return {
    attentionNorm: tensors.norm(`${prefix}ln_1`),
    mixer: {
      type: "attention",
      input: [tensors.linear(`${prefix}attn.c_attn`, width, 3 * width, qkvBias)],
      queryNorm: undefined,
      keyNorm: undefined,
      output: tensors.linear(`${prefix}attn.c_proj`, width, width, outputBias),
    },
    attentionBranchNorm: undefined,
    mlpBranchNorm: undefined,
    mlpNorm: tensors.norm(`${prefix}ln_2`),
    mlpInput: [tensors.linear(`${prefix}mlp.c_fc`, width, intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.c_proj`, intermediateSize, width, mlpBias),
  };
}
