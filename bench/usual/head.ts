/**
 * The head as it is usually written: logits of every row in memory by a plain product, log-softmax and gather over them,
 * and in the backward pass their gradient in place, then two products. For comparison only.
 */
import type { Arena } from "../../src/engine/arena.ts";
import type { Device } from "../../src/engine/device.ts";
import type { HeadBuffers } from "../../src/engine/model/head.ts";
import { recordProduct } from "../../src/engine/model/linear.ts";
import type { Model } from "../../src/engine/model/load.ts";
import type { Program } from "../../src/engine/program.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { kernel } from "../../src/kernels/kernel.ts";
import { logSoftmaxGatherCombine } from "../../src/kernels/log-softmax-gather.ts";
import { elementwise, elementwiseGrid, rowElements, rowElementsGrid } from "../../src/kernels/wgsl.ts";

/** Invocations of a row; neighbours read neighbouring logits. */
const LANES = 64;

/** logits [N, V], targets [N] -> partials [LANES, N, 2] = (maximum, sum of exponentials), targetLogits [N]. */
const softmaxPartials = kernel({
  name: "usualSoftmaxPartials",
  read: { logits: "f32[N, V]", targets: "u32[N]" },
  write: { partials: `f32[${LANES}, N, 2]`, targetLogits: "f32[N]" },
  uniforms: { N: "u32", V: "u32" },
  wgsl: /* wgsl */ `
fn element(i: u32) {
  let row = i / ${LANES}u;
  let lane = i % ${LANES}u;
  let base = row * u.V;
  var highest = -3.0e38;
  for (var id = lane; id < u.V; id += ${LANES}u) { highest = max(highest, logits[base + id]); }
  var sum = 0.0;
  for (var id = lane; id < u.V; id += ${LANES}u) { sum += exp(logits[base + id] - highest); }
  partials[2u * (lane * u.N + row)] = highest;
  partials[2u * (lane * u.N + row) + 1u] = sum;
  if (lane == 0u) { targetLogits[row] = logits[base + min(targets[row], u.V - 1u)]; }
}
${elementwise(`u.N * ${LANES}u`)}`,
  grid: ({ N = 0 }) => elementwiseGrid(N * LANES),
  cost: ({ N = 0, V = 0 }) => ({ flops: 3 * N * V, bytes: 8 * N * V }),
});

/** logits [N, V] <- coefficients[sequences[row]] (onehot - softmax); zeros where there is no such sequence. */
const softmaxGradient = kernel({
  name: "usualSoftmaxGradient",
  read: { targets: "u32[N]", sequences: "u32[N]", logSumExp: "f32[N]", coefficients: "f32[S]" },
  write: { logits: "f32[N, V]" },
  uniforms: { N: "u32", V: "u32", S: "u32" },
  wgsl: /* wgsl */ `
fn element(row: u32, id: u32) {
  let i = row * u.V + id;
  var coefficient = 0.0;
  if (sequences[row] < u.S) { coefficient = coefficients[sequences[row]]; }
  logits[i] = coefficient * (select(0.0, 1.0, id == targets[row]) - exp(logits[i] - logSumExp[row]));
}
${rowElements("u.N", "u.V")}`,
  grid: ({ N = 0, V = 0 }) => rowElementsGrid(N, V),
  cost: ({ N = 0, V = 0 }) => ({ flops: 4 * N * V, bytes: 8 * N * V }),
});

export class UsualHead {
  readonly device: Device;
  readonly #logits: Tensor;
  readonly #partials: Tensor;
  readonly #targetLogits: Tensor;
  readonly #logProbs: Tensor;
  readonly #logSumExp: Tensor;

  /** @param rows N @param vocabulary V */
  constructor(device: Device, rows: number, vocabulary: number) {
    this.device = device;
    const allocate = (name: string, ...shape: number[]) => device.allocate("scratch", `usual ${name}`, shape);
    this.#logits = allocate("logits", rows, vocabulary);
    this.#partials = allocate("partials", LANES, rows, 2);
    this.#targetLogits = allocate("target logits", rows);
    this.#logProbs = allocate("log-probs", rows);
    this.#logSumExp = allocate("log-sum-exp", rows);
  }

  /** Records the log-probabilities [N] of the targets from normed rows [N, C]. */
  recordForward(program: Program, model: Model, normed: Tensor, targets: Tensor): Tensor {
    const [logits, partials, targetLogits] = [this.#logits, this.#partials, this.#targetLogits];
    recordProduct(program, "NT", normed, model.parameter(model.headName), logits);
    program.dispatch(softmaxPartials, { logits, targets, partials, targetLogits });
    const [logProbs, logSumExp] = [this.#logProbs, this.#logSumExp];
    program.dispatch(logSoftmaxGatherCombine, { partials, targetLogits, logProbs, logSumExp });
    return logProbs;
  }

  /** Records the gradients of the normed rows, into the head's buffers, and of the head's table. */
  recordBackward(
    program: Program,
    model: Model,
    gradients: Arena,
    buffers: HeadBuffers,
    normed: Tensor,
    args: { readonly targets: Tensor; readonly sequences: Tensor; readonly coefficients: Tensor },
  ): void {
    const logits = this.#logits;
    program.dispatch(softmaxGradient, { ...args, logSumExp: this.#logSumExp, logits });
    const dNormed = buffers.tensor("dNormed", normed.shape);
    recordProduct(program, "NN", logits, model.parameter(model.headName), dNormed);
    recordProduct(program, "TN", logits, normed, gradients.window(model.headName), { accumulate: true });
  }

  free(): void {
    for (const tensor of [this.#logits, this.#partials, this.#targetLogits, this.#logProbs, this.#logSumExp]) {
      this.device.free(tensor);
    }
  }
}
