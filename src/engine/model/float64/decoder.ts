/**
 * A whole decoder in float64, one sequence at a time: no packing, no caches, no device. It is what `kto gradcheck` and
 * the tests compare the GPU with, composed of src/kernels/float64 only.
 */
import { embeddingBackward, embeddingForward, gatherRows, scatterRows } from "../../../kernels/float64/embedding.ts";
import { logSoftmaxGatherBackward, logSoftmaxGatherForward } from "../../../kernels/float64/log-softmax-gather.ts";
import { matmul } from "../../../kernels/float64/matmul.ts";
import { softCapped } from "../../../kernels/float64/scale.ts";
import type { ModelConfig } from "../config/config.ts";
import { type LayerActivations, layerBackward, layerForward } from "./layer.ts";
import { type Float64Tensor, float64Layer, type Layer, type Norm, type Parameter, TensorTable } from "./parameters.ts";
import { accumulate, type Float64Gradients, type NormResult, normBackward, normForward, plus, times } from "./parts.ts";

export type { Float64Tensor } from "./parameters.ts";
export type { Float64Gradients } from "./parts.ts";

type Ids = ArrayLike<number>;

interface Activations {
  readonly ids: Ids;
  readonly positions: Int32Array;
  readonly layers: readonly LayerActivations[];
  /** [T, C], input of the last norm. */
  readonly last: Float64Array;
  readonly finalNorm: NormResult;
}

/** A decoder in float64. It reads the arrays of `weights` in place and never writes them. */
export class Float64Model {
  readonly config: ModelConfig;
  /**
   * Names of the tensors in use, as the weight files spell them; other tensors (masks, a tied head's copy) are ignored.
   */
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
  constructor(config: ModelConfig, weights: ReadonlyMap<string, Float64Tensor>) {
    this.config = config;
    const tensors = new TensorTable(config, weights);
    const { hiddenSize: width, vocabSize } = config;
    const gpt2 = config.modelType === "gpt2";
    this.#embedding = tensors.parameter(gpt2 ? "wte.weight" : "embed_tokens.weight", [vocabSize, width]);
    this.#positionTable =
      config.position === "learned" ? tensors.parameter("wpe.weight", [config.contextLength, width]) : undefined;
    this.#layers = Array.from({ length: config.layers }, (_, i) => float64Layer(tensors, config, i));
    this.#finalNorm = tensors.norm({ gpt2: "ln_f", lfm2: "embedding_norm" }[config.modelType as string] ?? "norm");
    this.#head = config.tiedHead ? this.#embedding : tensors.parameter("lm_head.weight", [vocabSize, width]);
    this.parameterNames = tensors.used;
  }

  /** Logits of every position, [T, V]. @param ids [T], below V, at most the context length */
  logits(ids: Ids): Float64Array {
    const { hiddenSize: k, vocabSize: n } = this.config;
    const hidden = this.#forward(ids).finalNorm.y;
    const products = matmul({ a: hidden, b: this.#head.data, m: ids.length, n, k, transposeB: true });
    const { divisor, cap } = this.#logitOptions;
    return products.map((product) => softCapped(product / divisor, cap));
  }

  get #logitOptions() {
    return { divisor: this.config.logitsScaling, cap: this.config.logitSoftCap };
  }

  /**
   * `sum_t log pi(completion_t | prompt, completion_<t)` in nats; the first completion token is predicted by the last
   * prompt token, so the prompt holds at least one. An empty completion gives 0.
   */
  logProb(promptIds: Ids, completionIds: Ids): number {
    const { rows, targets, ids } = predictionRows(promptIds, completionIds);
    const hidden = gatherRows(this.#forward(ids).finalNorm.y, rows, this.config.hiddenSize);
    return sum(logSoftmaxGatherForward(hidden, this.#head.data, targets, this.#logitOptions).logProbs);
  }

  /**
   * Adds `coefficient * dlogProb / dparameter` to `grads` for every parameter in use, creating absent entries.
   * Returns the log-prob.
   */
  accumulateLogProbGradient(promptIds: Ids, completionIds: Ids, coefficient: number, grads: Float64Gradients): number {
    const { hiddenSize: width } = this.config;
    const { rows, targets, ids } = predictionRows(promptIds, completionIds);
    const activations = this.#forward(ids);
    const hidden = gatherRows(activations.finalNorm.y, rows, width);
    const options = this.#logitOptions;
    const table = this.#head.data;
    const { logProbs, logSumExp } = logSoftmaxGatherForward(hidden, table, targets, options);
    const coefficients = new Float64Array(targets.length).fill(coefficient);
    const head = logSoftmaxGatherBackward(hidden, table, targets, coefficients, logSumExp, options);
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
    const positions = Int32Array.from({ length: rows }, (_, t) => t);
    let x = times(embeddingForward(this.#embedding.data, ids, width), this.config.embeddingMultiplier);
    if (this.#positionTable) x = plus(x, embeddingForward(this.#positionTable.data, positions, width));
    const layers: LayerActivations[] = [];
    for (const [i, layer] of this.#layers.entries()) {
      const { y, activations } = layerForward(this.config, i, layer, x, positions);
      layers.push(activations);
      x = y;
    }
    return { ids, positions, layers, last: x, finalNorm: normForward(this.config, this.#finalNorm, x) };
  }

  #backward(activations: Activations, dHidden: Float64Array, grads: Float64Gradients): void {
    const { hiddenSize: width, vocabSize, contextLength } = this.config;
    const { ids, positions, layers, last, finalNorm } = activations;
    let dx = normBackward(this.config, this.#finalNorm, dHidden, last, finalNorm, grads);
    for (let i = layers.length - 1; i >= 0; i--) {
      const layer = this.#layers[i];
      const saved = layers[i];
      if (layer && saved) dx = layerBackward(this.config, i, layer, saved, dx, positions, grads);
    }
    const dEmbedded = times(dx, this.config.embeddingMultiplier);
    accumulate(grads, this.#embedding, embeddingBackward(dEmbedded, ids, vocabSize, width));
    if (this.#positionTable) {
      accumulate(grads, this.#positionTable, embeddingBackward(dx, positions, contextLength, width));
    }
  }
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

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}
