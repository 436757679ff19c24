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

export interface Layer {
  /** Of what attention reads; OLMo 2 has none. */
  readonly attentionNorm: Norm | undefined;
  /** Their outputs side by side are q, k, v: one fused in GPT-2 and Phi-3, three elsewhere. */
  readonly qkv: readonly Linear[];
  /** RMSNorm of each query and each key head (Qwen3, Gemma 3) or of all of them together (OLMo 2). */
  readonly queryNorm: Parameter | undefined;
  readonly keyNorm: Parameter | undefined;
  readonly attentionOutput: Linear;
  /** Of what attention gives, and further down of what the MLP gives: OLMo 2 and Gemma. */
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
  return config.modelType === "gpt2" ? gpt2Layer(tensors, config, index) : llamaLayer(tensors, config, index);
}

function llamaLayer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  const { hiddenSize: width, heads, keyValueHeads, headSize, intermediateSize, qkvBias, outputBias, mlpBias } = config;
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
    qkv: isPhi
      ? [project("self_attn.qkv_proj", (heads + 2 * keyValueHeads) * headSize, false)]
      : [
          project("self_attn.q_proj", heads * headSize, qkvBias),
          project("self_attn.k_proj", keyValueHeads * headSize, qkvBias),
          project("self_attn.v_proj", keyValueHeads * headSize, qkvBias),
        ],
    queryNorm: headNorm("q_norm", heads),
    keyNorm: headNorm("k_norm", keyValueHeads),
    attentionOutput: tensors.linear(`${prefix}self_attn.o_proj`, heads * headSize, width, outputBias),
    mlpInput: isPhi
      ? [project("mlp.gate_up_proj", 2 * intermediateSize, false)]
      : [project("mlp.gate_proj", intermediateSize, mlpBias), project("mlp.up_proj", intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.down_proj`, intermediateSize, width, mlpBias),
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
    qkv: [tensors.linear(`${prefix}attn.c_attn`, width, 3 * width, qkvBias)],
    queryNorm: undefined,
    keyNorm: undefined,
    attentionOutput: tensors.linear(`${prefix}attn.c_proj`, width, width, outputBias),
    attentionBranchNorm: undefined,
    mlpBranchNorm: undefined,
    mlpNorm: tensors.norm(`${prefix}ln_2`),
    mlpInput: [tensors.linear(`${prefix}mlp.c_fc`, width, intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.c_proj`, intermediateSize, width, mlpBias),
  };
}
