/**
 * Linear layers as matmuls, with the model's adapter beside them: forward, the input's gradient, and the gradients of
 * weight and bias where these are trained. Weights are stored as in the checkpoint, [out, in] or [in, out] (GPT-2), and
 * the matmul's layout follows.
 */
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import type { LoraScratch } from "./lora.ts";
import { recordMatmul } from "./matmul.ts";
import type { Model } from "./model.ts";

/** Records y [T, out] = x [T, in] W (+ bias) (+ residual), with the model's adapter where it has one for this layer. */
export function recordLinear(
  program: Program,
  model: Model,
  name: string,
  args: {
    readonly x: Tensor;
    readonly y: Tensor;
    readonly residual?: Tensor | undefined;
    readonly lora: LoraScratch | undefined;
  },
): void {
  const { x, y, residual, lora } = args;
  const weight = `${name}.weight`;
  const bias = model.weights.has(`${name}.bias`) ? model.parameter(`${name}.bias`) : undefined;
  recordMatmul(program, model.config.inOutWeights ? "NN" : "NT", x, model.parameter(weight), y, { bias, residual });
  if (lora) model.adapter?.recordForward(program, weight, x, y, lora);
}

/**
 * Records dx [T, in] = dy [T, out] W^T and, for what is trained: dWeight += the outer products of x and dy summed over
 * rows, dBias += dy summed over rows, the adapter's gradients. `partials` is scratch for the bias.
 */
export function recordLinearBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  name: string,
  args: {
    readonly dy: Tensor;
    readonly x: Tensor;
    readonly dx: Tensor;
    readonly partials: Tensor;
    readonly lora: LoraScratch | undefined;
  },
): void {
  const { dy, x, dx, partials, lora } = args;
  const { inOutWeights } = model.config;
  const weight = `${name}.weight`;
  recordMatmul(program, inOutWeights ? "NT" : "NN", dy, model.parameter(weight), dx);
  if (gradients.has(weight)) {
    const dWeight = gradients.window(weight);
    if (inOutWeights) recordMatmul(program, "TN", x, dy, dWeight, { accumulate: true });
    else recordMatmul(program, "TN", dy, x, dWeight, { accumulate: true });
  }
  if (gradients.has(`${name}.bias`)) {
    const [rows = 0, columns = 0] = dy.shape;
    const sums = reshape(partials, [rowBlocks(rows), columns]);
    program.dispatch(columnPartials, { dy, partials: sums });
    program.dispatch(addColumnSums, { partials: sums, out: gradients.window(`${name}.bias`) });
  }
  if (lora) model.adapter?.recordBackward(program, weight, gradients, { dy, x, dx }, lora);
}
