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
  readonly attentionNorm: Norm;
  /** Their outputs side by side are q, k, v: one fused in GPT-2, three elsewhere. */
  readonly qkv: readonly Linear[];
  /** RMSNorm of each query and each key head, Qwen3 only. */
  readonly queryNorm: Parameter | undefined;
  readonly keyNorm: Parameter | undefined;
  readonly attentionOutput: Linear;
  readonly mlpNorm: Norm;
  /** Their outputs side by side are what the activation takes: one in GPT-2, gate and up elsewhere. */
  readonly mlpInput: readonly Linear[];
  readonly mlpOutput: Linear;
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
  const headNorm = (part: string) =>
    config.qkNorm ? tensors.parameter(`${prefix}self_attn.${part}.weight`, [headSize]) : undefined;
  return {
    attentionNorm: tensors.norm(`${prefix}input_layernorm`),
    qkv: [
      tensors.linear(`${prefix}self_attn.q_proj`, width, heads * headSize, qkvBias),
      tensors.linear(`${prefix}self_attn.k_proj`, width, keyValueHeads * headSize, qkvBias),
      tensors.linear(`${prefix}self_attn.v_proj`, width, keyValueHeads * headSize, qkvBias),
    ],
    queryNorm: headNorm("q_norm"),
    keyNorm: headNorm("k_norm"),
    attentionOutput: tensors.linear(`${prefix}self_attn.o_proj`, heads * headSize, width, outputBias),
    mlpNorm: tensors.norm(`${prefix}post_attention_layernorm`),
    mlpInput: [
      tensors.linear(`${prefix}mlp.gate_proj`, width, intermediateSize, mlpBias),
      tensors.linear(`${prefix}mlp.up_proj`, width, intermediateSize, mlpBias),
    ],
    mlpOutput: tensors.linear(`${prefix}mlp.down_proj`, intermediateSize, width, mlpBias),
  };
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
    mlpNorm: tensors.norm(`${prefix}ln_2`),
    mlpInput: [tensors.linear(`${prefix}mlp.c_fc`, width, intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.c_proj`, intermediateSize, width, mlpBias),
  };
}
