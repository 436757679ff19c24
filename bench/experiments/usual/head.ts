/**
 * The head as it is usually written: a matmul writes the logits of every row to memory, log-softmax and gather read
 * them, and the backward pass writes their gradient in place, then two matmuls follow. For comparison only.
 */
import type { Arena } from "../../../src/engine/gpu/arena.ts";
import type { Device } from "../../../src/engine/gpu/device.ts";
import type { Program } from "../../../src/engine/gpu/program.ts";
import type { Tensor } from "../../../src/engine/gpu/tensor.ts";
import type { HeadBuffers } from "../../../src/engine/model/head.ts";
import { recordMatmul } from "../../../src/engine/model/matmul.ts";
import type { Model } from "../../../src/engine/model/model.ts";
import { kernel } from "../../../src/kernels/kernel.ts";
import { logSoftmaxGatherCombine } from "../../../src/kernels/log-softmax-gather.ts";
import { elementwise, elementwiseGrid, inVectors, rowElements, rowElementsGrid } from "../../../src/kernels/wgsl.ts";

/** Invocations of a row; neighbours read neighbouring logits. */
const ROW_LANES = 64;

/** logits [N, V], targets [N] -> partials [ROW_LANES, N, 2] = (maximum, sum of exponentials), targetLogits [N]. */
const softmaxPartials = inVectors(
  ({ V }) => [V],
  ({ count, view, wgsl }) =>
    kernel({
      name: "usualSoftmaxPartials",
      read: { logits: `f32[N, V]${view}`, targets: "u32[N]" },
      write: { partials: `f32[${ROW_LANES}, N, 2]`, targetLogits: "f32[N]" },
      uniforms: { N: "u32", V: "u32" },
      wgsl: /* wgsl */ `${wgsl}
fn most(x: E) -> f32 { return ${count === 4 ? "max(max(x.x, x.y), max(x.z, x.w))" : "x"}; }
fn element(i: u32) {
  let row = i / ${ROW_LANES}u;
  let lane = i % ${ROW_LANES}u;
  let end = (row + 1u) * u.V / LANES;
  let start = row * u.V / LANES;
  var highest = -3.0e38;
  for (var at = start + lane; at < end; at += ${ROW_LANES}u) { highest = max(highest, most(logits[at])); }
  var sum = 0.0;
  for (var at = start + lane; at < end; at += ${ROW_LANES}u) { sum += total(exp(logits[at] - highest)); }
  partials[2u * (lane * u.N + row)] = highest;
  partials[2u * (lane * u.N + row) + 1u] = sum;
  if (lane == 0u) {
    let chosen = row * u.V + min(targets[row], u.V - 1u);
    targetLogits[row] = logits[chosen / LANES]${count === 4 ? "[chosen % LANES]" : ""};
  }
}
${elementwise(`u.N * ${ROW_LANES}u`)}`,
      grid: ({ N = 0 }) => elementwiseGrid(N * ROW_LANES),
      cost: ({ N = 0, V = 0 }) => ({ flops: 3 * N * V, bytes: 8 * N * V }),
    }),
);

/** logits [N, V] <- coefficients[sequences[row]] (onehot - softmax); zeros where there is no such sequence. */
const softmaxGradient = inVectors(
  ({ V }) => [V],
  ({ count, view, wgsl }) =>
    kernel({
      name: "usualSoftmaxGradient",
      read: { targets: "u32[N]", sequences: "u32[N]", logSumExp: "f32[N]", coefficients: "f32[S]" },
      write: { logits: `f32[N, V]${view}` },
      uniforms: { N: "u32", V: "u32", S: "u32" },
      wgsl: /* wgsl */ `${wgsl}
fn element(row: u32, column: u32) {
  let at = row * u.V / LANES + column;
  var coefficient = 0.0;
  if (sequences[row] < u.S) { coefficient = coefficients[sequences[row]]; }
  let hit = ${count === 4 ? "vec4u(0u, 1u, 2u, 3u) == vec4u(targets[row] - 4u * column)" : "column == targets[row]"};
  logits[at] = coefficient * (select(E(), E(1.0), hit) - exp(logits[at] - logSumExp[row]));
}
${rowElements("u.N", "u.V / LANES")}`,
      grid: ({ N = 0, V = 0 }) => rowElementsGrid(N, V / count),
      cost: ({ N = 0, V = 0 }) => ({ flops: 4 * N * V, bytes: 8 * N * V }),
    }),
);

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
    this.#partials = allocate("partials", ROW_LANES, rows, 2);
    this.#targetLogits = allocate("target logits", rows);
    this.#logProbs = allocate("log-probs", rows);
    this.#logSumExp = allocate("log-sum-exp", rows);
  }

  /** Records the log-probabilities [N] of the targets from normed rows [N, C]. */
  recordForward(program: Program, model: Model, normed: Tensor, targets: Tensor): Tensor {
    const [logits, partials, targetLogits] = [this.#logits, this.#partials, this.#targetLogits];
    recordMatmul(program, "NT", normed, model.parameter(model.headName), logits);
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
    recordMatmul(program, "NN", logits, model.parameter(model.headName), dNormed);
    recordMatmul(program, "TN", logits, normed, gradients.window(model.headName), { accumulate: true });
  }

  free(): void {
    for (const tensor of [this.#logits, this.#partials, this.#targetLogits, this.#logProbs, this.#logSumExp]) {
      this.device.free(tensor);
    }
  }
}
