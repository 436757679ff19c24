/**
 * Linear layers as matmuls, with the model's adapter beside them: forward, the input's gradient, and the gradients of
 * weight and bias where these are trained. Weights are stored as in the weight files, [out, in] or [in, out] (GPT-2), and
 * the matmul's layout follows. A matrix [out, in] that is larger than one binding, as fused matrices may be, is walked in
 * windows of output rows.
 */
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, rowWindows, sliceRows, type Tensor } from "../gpu/tensor.ts";
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
  const windows = outputWindows(program, model, model.parameter(weight));
  const whole = windows.length === 1;
  // A kernel adds a residual as wide as its result: column ranges of the result are added to one that was copied there.
  if (!whole && residual) program.copy(residual, y);
  for (const { first, window } of windows) {
    const options = whole
      ? { bias, residual }
      : {
          bias: bias && sliceRows(bias, first, window.shape[0] ?? 0),
          accumulate: residual !== undefined,
          outFrom: first,
        };
    recordMatmul(program, model.config.inOutWeights ? "NN" : "NT", x, window, y, options);
  }
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
  if (inOutWeights) recordMatmul(program, "NT", dy, model.parameter(weight), dx);
  else {
    for (const { first, window } of outputWindows(program, model, model.parameter(weight))) {
      recordMatmul(program, "NN", dy, window, dx, { aFrom: first, accumulate: first > 0 });
    }
  }
  if (gradients.has(weight)) {
    const dWeight = gradients.window(weight);
    if (inOutWeights) recordMatmul(program, "TN", x, dy, dWeight, { accumulate: true });
    else {
      for (const { first, window } of outputWindows(program, model, dWeight)) {
        recordMatmul(program, "TN", dy, x, window, { aFrom: first, accumulate: true });
      }
    }
  }
  if (gradients.has(`${name}.bias`)) {
    const [rows = 0, columns = 0] = dy.shape;
    const sums = reshape(partials, [rowBlocks(rows), columns]);
    program.dispatch(columnPartials, { dy, partials: sums });
    program.dispatch(addColumnSums, { partials: sums, out: gradients.window(`${name}.bias`) });
  }
  if (lora) model.adapter?.recordBackward(program, weight, gradients, { dy, x, dx }, lora);
}

/** The windows of output rows, each one binding, of a matrix [out, in] or its gradient; [in, out] is one window. */
function outputWindows(program: Program, model: Model, matrix: Tensor): { first: number; window: Tensor }[] {
  if (model.config.inOutWeights) return [{ first: 0, window: matrix }];
  return rowWindows(matrix, program.device.limits.maxStorageBufferBindingSize);
}
