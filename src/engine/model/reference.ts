/**
 * A whole decoder in float64, one sequence at a time: no packing, no caches, no device. It is what `kto gradcheck` and
 * the tests compare the GPU with, composed of src/kernels/reference only. Tensor names
 * and layouts are those of Hugging Face checkpoints, listed here a second time on purpose: an oracle shares no table
 * with what it judges.
 */
import { ModelFormatError } from "../../errors.ts";
import { geluBackward, geluForward, swigluBackward, swigluForward } from "../../kernels/reference/activation.ts";
import { attentionBackward, attentionForward } from "../../kernels/reference/attention.ts";
import { columnSums, joinColumns, splitColumns } from "../../kernels/reference/columns.ts";
import { add, at } from "../../kernels/reference/elements.ts";
import { embeddingBackward, embeddingForward, gatherRows, scatterRows } from "../../kernels/reference/embedding.ts";
import { logSoftmaxGatherBackward, logSoftmaxGatherForward } from "../../kernels/reference/log-softmax-gather.ts";
import { matmul } from "../../kernels/reference/matmul.ts";
import { layerNormBackward, layerNormForward, rmsNormBackward, rmsNormForward } from "../../kernels/reference/norm.ts";
import { ropeBackward, ropeForward } from "../../kernels/reference/rope.ts";
import type { ModelConfig } from "./config.ts";

export interface ReferenceTensor {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** Gradients under the names of the weights, each in its weight's layout. */
export type ReferenceGradients = Map<string, Float64Array>;

type Ids = ArrayLike<number>;

/** A parameter as the checkpoint names it. */
interface Parameter {
  readonly name: string;
  readonly data: Float64Array;
}

/** `y = x W + bias`, W stored [out, in] or, `inOut`, [in, out]. */
interface Linear {
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;
  readonly inputs: number;
  readonly outputs: number;
  readonly inOut: boolean;
}

interface Norm {
  readonly weight: Parameter;
  /** LayerNorm has one, RMSNorm has none. */
  readonly bias: Parameter | undefined;
}

interface Layer {
  readonly attentionNorm: Norm;
  /** Their outputs side by side are q, k, v: three in Llama, one fused in GPT-2. */
  readonly qkv: readonly Linear[];
  readonly attentionOutput: Linear;
  readonly mlpNorm: Norm;
  /** Their outputs side by side are what the activation takes: gate and up in Llama, one in GPT-2. */
  readonly mlpInput: readonly Linear[];
  readonly mlpOutput: Linear;
}

interface NormResult {
  readonly y: Float64Array;
  /** [T], LayerNorm only. */
  readonly mean: Float64Array;
  /** [T], inverse rms or inverse standard deviation. */
  readonly inverse: Float64Array;
}

/** What the backward pass of one layer needs of its forward pass. */
interface LayerActivations {
  readonly x: Float64Array;
  readonly attentionNorm: NormResult;
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  readonly attention: { readonly out: Float64Array; readonly logSumExp: Float64Array };
  readonly middle: Float64Array;
  readonly mlpNorm: NormResult;
  readonly mlpHidden: Float64Array;
  readonly activated: Float64Array;
}

interface Activations {
  readonly ids: Ids;
  readonly positions: Int32Array;
  /** [T, 4] */
  readonly ranges: Int32Array;
  readonly layers: readonly LayerActivations[];
  /** [T, C], input of the last norm. */
  readonly last: Float64Array;
  readonly finalNorm: NormResult;
}

/** A Llama or GPT-2 decoder in float64. It reads the arrays of `weights` in place and never writes them. */
export class ReferenceModel {
  readonly config: ModelConfig;
  /** Names of the tensors in use, as the checkpoint spells them; other tensors (masks, a tied head's copy) are ignored. */
  readonly parameterNames: readonly string[];
  readonly #embedding: Parameter;
  readonly #positionTable: Parameter | undefined;
  readonly #layers: readonly Layer[];
  readonly #finalNorm: Norm;
  readonly #head: Parameter;

  /**
   * @param weights by Hugging Face name, with or without the leading "transformer." or "model."
   * Throws ModelFormatError for a missing or mis-shaped tensor, naming it.
   */
  constructor(config: ModelConfig, weights: ReadonlyMap<string, ReferenceTensor>) {
    this.config = config;
    const tensors = new TensorTable(config, weights);
    const { hiddenSize: width, vocabSize } = config;
    const llama = config.modelType === "llama";
    this.#embedding = tensors.parameter(llama ? "embed_tokens.weight" : "wte.weight", [vocabSize, width]);
    this.#positionTable =
      config.position === "learned" ? tensors.parameter("wpe.weight", [config.contextLength, width]) : undefined;
    const layers: Layer[] = [];
    for (let i = 0; i < config.layers; i++) {
      layers.push(llama ? llamaLayer(tensors, config, i) : gpt2Layer(tensors, config, i));
    }
    this.#layers = layers;
    this.#finalNorm = tensors.norm(llama ? "norm" : "ln_f");
    this.#head = config.tiedHead ? this.#embedding : tensors.parameter("lm_head.weight", [vocabSize, width]);
    this.parameterNames = tensors.used;
  }

  /** Logits of every position, [T, V]. @param ids [T], below V, at most the context length */
  logits(ids: Ids): Float64Array {
    const { hiddenSize: k, vocabSize: n } = this.config;
    const hidden = this.#forward(ids).finalNorm.y;
    return matmul({ a: hidden, b: this.#head.data, m: ids.length, n, k, transposeB: true });
  }

  /**
   * `sum_t log pi(completion_t | prompt, completion_<t)` in nats; the first completion token is predicted by the last
   * prompt token, so the prompt holds at least one. An empty completion gives 0.
   */
  logProb(promptIds: Ids, completionIds: Ids): number {
    const { rows, targets, ids } = predictionRows(promptIds, completionIds);
    const hidden = gatherRows(this.#forward(ids).finalNorm.y, rows, this.config.hiddenSize);
    return sum(logSoftmaxGatherForward(hidden, this.#head.data, targets).logProbs);
  }

  /**
   * Adds `coefficient * dlogProb / dparameter` to `grads` for every parameter in use, creating absent entries.
   * Returns the log-prob.
   */
  accumulateLogProbGradient(
    promptIds: Ids,
    completionIds: Ids,
    coefficient: number,
    grads: ReferenceGradients,
  ): number {
    const { hiddenSize: width } = this.config;
    const { rows, targets, ids } = predictionRows(promptIds, completionIds);
    const activations = this.#forward(ids);
    const hidden = gatherRows(activations.finalNorm.y, rows, width);
    const { logProbs, logSumExp } = logSoftmaxGatherForward(hidden, this.#head.data, targets);
    const coefficients = new Float64Array(targets.length).fill(coefficient);
    const head = logSoftmaxGatherBackward(hidden, this.#head.data, targets, coefficients, logSumExp);
    accumulate(grads, this.#head, head.dTable);
    this.#backward(activations, scatterRows(head.dHidden, rows, ids.length, width), grads);
    return sum(logProbs);
  }

  #forward(ids: Ids): Activations {
    const { hiddenSize: width, contextLength } = this.config;
    const rows = ids.length;
    if (rows > contextLength) {
      throw new RangeError(`A sequence of ${rows} tokens is longer than the model's context of ${contextLength}.`);
    }
    const positions = new Int32Array(rows);
    const ranges = new Int32Array(4 * rows);
    for (let t = 0; t < rows; t++) {
      positions[t] = t;
      ranges[4 * t + 3] = t + 1;
    }
    let x = embeddingForward(this.#embedding.data, ids, width);
    if (this.#positionTable) x = plus(x, embeddingForward(this.#positionTable.data, positions, width));
    const layers: LayerActivations[] = [];
    for (const layer of this.#layers) {
      const { y, activations } = layerForward(this.config, layer, x, positions, ranges);
      layers.push(activations);
      x = y;
    }
    return { ids, positions, ranges, layers, last: x, finalNorm: normForward(this.config, this.#finalNorm, x) };
  }

  #backward(activations: Activations, dHidden: Float64Array, grads: ReferenceGradients): void {
    const { hiddenSize: width, vocabSize, contextLength } = this.config;
    const { ids, positions, ranges, layers, last, finalNorm } = activations;
    let dx = normBackward(this.#finalNorm, dHidden, last, finalNorm, grads);
    for (let i = layers.length - 1; i >= 0; i--) {
      const layer = this.#layers[i];
      const saved = layers[i];
      if (layer && saved) dx = layerBackward(this.config, layer, saved, dx, positions, ranges, grads);
    }
    accumulate(grads, this.#embedding, embeddingBackward(dx, ids, vocabSize, width));
    if (this.#positionTable) {
      accumulate(grads, this.#positionTable, embeddingBackward(dx, positions, contextLength, width));
    }
  }
}

/** Looks tensors up by their name without prefix, checks shapes, remembers which are used. */
class TensorTable {
  readonly used: string[] = [];
  readonly #config: ModelConfig;
  readonly #byShortName = new Map<string, { name: string; tensor: ReferenceTensor }>();

  constructor(config: ModelConfig, weights: ReadonlyMap<string, ReferenceTensor>) {
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

function llamaLayer(tensors: TensorTable, config: ModelConfig, index: number): Layer {
  const { hiddenSize: width, heads, keyValueHeads, headSize, intermediateSize, qkvBias, outputBias, mlpBias } = config;
  const prefix = `layers.${index}.`;
  return {
    attentionNorm: tensors.norm(`${prefix}input_layernorm`),
    qkv: [
      tensors.linear(`${prefix}self_attn.q_proj`, width, heads * headSize, qkvBias),
      tensors.linear(`${prefix}self_attn.k_proj`, width, keyValueHeads * headSize, qkvBias),
      tensors.linear(`${prefix}self_attn.v_proj`, width, keyValueHeads * headSize, qkvBias),
    ],
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
    attentionOutput: tensors.linear(`${prefix}attn.c_proj`, width, width, outputBias),
    mlpNorm: tensors.norm(`${prefix}ln_2`),
    mlpInput: [tensors.linear(`${prefix}mlp.c_fc`, width, intermediateSize, mlpBias)],
    mlpOutput: tensors.linear(`${prefix}mlp.c_proj`, intermediateSize, width, mlpBias),
  };
}

function layerForward(
  config: ModelConfig,
  layer: Layer,
  x: Float64Array,
  positions: Int32Array,
  ranges: Int32Array,
): { y: Float64Array; activations: LayerActivations } {
  const { heads, keyValueHeads, headSize, intermediateSize } = config;
  const rows = positions.length;
  const attentionNorm = normForward(config, layer.attentionNorm, x);
  const qkv = layer.qkv.map((part) => linearForward(part, attentionNorm.y, rows));
  const widths = [heads * headSize, keyValueHeads * headSize, keyValueHeads * headSize];
  const [q, k, v] = splitColumns(joinColumns(qkv, rows), widths, rows) as [Float64Array, Float64Array, Float64Array];
  const rotatedQ = rotateForward(config, q, heads, positions);
  const rotatedK = rotateForward(config, k, keyValueHeads, positions);
  const attention = attentionForward({ q: rotatedQ, k: rotatedK, v, ranges, heads, keyValueHeads, headSize });
  const middle = linearForward(layer.attentionOutput, attention.out, rows, x);
  const mlpNorm = normForward(config, layer.mlpNorm, middle);
  const mlpParts = layer.mlpInput.map((part) => linearForward(part, mlpNorm.y, rows));
  const mlpHidden = joinColumns(mlpParts, rows);
  const activated = config.mlp === "swiglu" ? swigluForward(mlpHidden, intermediateSize) : geluForward(mlpHidden);
  const y = linearForward(layer.mlpOutput, activated, rows, middle);
  return {
    y,
    activations: { x, attentionNorm, q: rotatedQ, k: rotatedK, v, attention, middle, mlpNorm, mlpHidden, activated },
  };
}

function layerBackward(
  config: ModelConfig,
  layer: Layer,
  saved: LayerActivations,
  dy: Float64Array,
  positions: Int32Array,
  ranges: Int32Array,
  grads: ReferenceGradients,
): Float64Array {
  const { heads, keyValueHeads, headSize, intermediateSize } = config;
  const rows = positions.length;
  const dActivated = linearBackward([layer.mlpOutput], dy, saved.activated, rows, grads);
  const dMlpHidden =
    config.mlp === "swiglu"
      ? swigluBackward(dActivated, saved.mlpHidden, intermediateSize)
      : geluBackward(dActivated, saved.mlpHidden);
  const dMlpNorm = linearBackward(layer.mlpInput, dMlpHidden, saved.mlpNorm.y, rows, grads);
  const dMiddle = plus(dy, normBackward(layer.mlpNorm, dMlpNorm, saved.middle, saved.mlpNorm, grads));
  const dOut = linearBackward([layer.attentionOutput], dMiddle, saved.attention.out, rows, grads);
  const { q, k, v, attention } = saved;
  const { logSumExp } = attention;
  const d = attentionBackward({ q, k, v, ranges, heads, keyValueHeads, headSize, dOut, logSumExp });
  const dq = rotateBackward(config, d.dq, heads, positions);
  const dk = rotateBackward(config, d.dk, keyValueHeads, positions);
  const dAttentionNorm = linearBackward(
    layer.qkv,
    joinColumns([dq, dk, d.dv], rows),
    saved.attentionNorm.y,
    rows,
    grads,
  );
  return plus(dMiddle, normBackward(layer.attentionNorm, dAttentionNorm, saved.x, saved.attentionNorm, grads));
}

function normForward(config: ModelConfig, norm: Norm, x: Float64Array): NormResult {
  if (norm.bias) {
    const { y, mean, inverseStd } = layerNormForward(x, norm.weight.data, norm.bias.data, config.normEpsilon);
    return { y, mean, inverse: inverseStd };
  }
  const { y, inverseRms } = rmsNormForward(x, norm.weight.data, config.normEpsilon);
  return { y, mean: new Float64Array(0), inverse: inverseRms };
}

function normBackward(
  norm: Norm,
  dy: Float64Array,
  x: Float64Array,
  saved: NormResult,
  grads: ReferenceGradients,
): Float64Array {
  if (norm.bias) {
    const d = layerNormBackward(dy, x, norm.weight.data, saved.mean, saved.inverse);
    accumulate(grads, norm.weight, d.dWeight);
    accumulate(grads, norm.bias, d.dBias);
    return d.dx;
  }
  const d = rmsNormBackward(dy, x, norm.weight.data, saved.inverse);
  accumulate(grads, norm.weight, d.dWeight);
  return d.dx;
}

function rotateForward(config: ModelConfig, x: Float64Array, heads: number, positions: Int32Array): Float64Array {
  if (config.position !== "rope") return x;
  return ropeForward({ x, positions, heads, headSize: config.headSize, theta: config.ropeTheta });
}

function rotateBackward(config: ModelConfig, dy: Float64Array, heads: number, positions: Int32Array): Float64Array {
  if (config.position !== "rope") return dy;
  return ropeBackward({ x: dy, positions, heads, headSize: config.headSize, theta: config.ropeTheta });
}

function linearForward(linear: Linear, x: Float64Array, rows: number, residual?: Float64Array): Float64Array {
  const { weight, bias, inputs: k, outputs: n, inOut } = linear;
  return matmul({ a: x, b: weight.data, m: rows, n, k, transposeB: !inOut, bias: bias?.data, residual });
}

/** dx of linears that share the input x [T, in]; dy [T, sum of outputs] holds their outputs' gradients side by side. */
function linearBackward(
  linears: readonly Linear[],
  dy: Float64Array,
  x: Float64Array,
  rows: number,
  grads: ReferenceGradients,
): Float64Array {
  const outputs = linears.map((linear) => linear.outputs);
  const parts = splitColumns(dy, outputs, rows);
  let dx: Float64Array | undefined;
  linears.forEach((linear, i) => {
    const part = parts[i] as Float64Array;
    const { weight, bias, inputs, outputs: width, inOut } = linear;
    const dWeight = inOut
      ? matmul({ a: x, b: part, m: inputs, n: width, k: rows, transposeA: true })
      : matmul({ a: part, b: x, m: width, n: inputs, k: rows, transposeA: true });
    accumulate(grads, weight, dWeight);
    if (bias) accumulate(grads, bias, columnSums(part, rows, width));
    dx = matmul({ a: part, b: weight.data, m: rows, n: inputs, k: width, transposeB: inOut, residual: dx });
  });
  return dx ?? new Float64Array(x.length);
}

/** Rows of the hidden states that predict a completion token, and those tokens. */
function predictionRows(
  promptIds: Ids,
  completionIds: Ids,
): { ids: Int32Array; rows: Int32Array; targets: Int32Array } {
  if (promptIds.length === 0) throw new RangeError("A prompt of no tokens predicts nothing; give it at least one.");
  const targets = Int32Array.from(completionIds);
  const ids = new Int32Array(promptIds.length + targets.length);
  ids.set(promptIds);
  ids.set(targets, promptIds.length);
  const rows = targets.map((_, n) => promptIds.length - 1 + n);
  return { ids, rows, targets };
}

function plus(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + at(b, i));
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

function accumulate(grads: ReferenceGradients, parameter: Parameter, gradient: Float64Array): void {
  let total = grads.get(parameter.name);
  if (!total) {
    total = new Float64Array(parameter.data.length);
    grads.set(parameter.name, total);
  }
  for (let i = 0; i < total.length; i++) add(total, i, at(gradient, i));
}
