/**
 * Linear layers as matmuls, with the model's adapter beside them: forward, the input's gradient, and the gradients of
 * weight and bias where these are trained. Weights are stored as in the weight files, [out, in] or [in, out] (GPT-2),
 * and the matmul's layout follows. A matrix that is larger than one binding, as fused matrices may be, is walked in
 * windows of its stored rows, which all take one tile. Where rows are summed over, the sums of a window continue those
 * of the one before, to the same bits however large the windows are (by a tile that neither splits K nor is on
 * matrices).
 */
import { AdapterError } from "../../errors.ts";
import { swigluForward } from "../../kernels/activation.ts";
import { isQuantized } from "../../kernels/kernel.ts";
import { takesGates } from "../../kernels/matmul-variant.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { byteLength, reshape, rowWindows, sliceRows, type Tensor } from "../gpu/tensor.ts";
import type { LoraScratch } from "./lora.ts";
import { recordMatmul, type WindowOf } from "./matmul.ts";
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
  const windows = storedWindows(program, model.parameter(weight));
  if (model.config.inOutWeights) {
    if (windows.length > 1 && y.dtype !== "f32") throw tooLarge(program, weight, model.parameter(weight));
    for (const [index, { first, window, windowOf }] of windows.entries()) {
      const last = index === windows.length - 1 ? { bias, residual } : {};
      recordMatmul(program, "NN", x, window, y, { ...last, aFrom: first, continues: first > 0, windowOf });
    }
  } else if (windows.length === 1) {
    recordMatmul(program, "NT", x, model.parameter(weight), y, { bias, residual });
  } else {
    // A kernel adds a residual as wide as its result: column ranges of the result are added to one that was copied
    // there.
    if (residual) program.copy(residual, y);
    for (const { first, window, windowOf } of windows) {
      recordMatmul(program, "NT", x, window, y, {
        windowOf,
        bias: bias && sliceRows(bias, first, window.shape[0] ?? 0),
        accumulate: residual !== undefined,
        outFrom: first,
      });
    }
  }
  if (lora) model.adapter?.recordForward(program, weight, x, y, lora);
}

/**
 * Records y [T, I] = SwiGLU(x [T, in] W), W's rows being gates and what they are for, through `gateUp` [T, 2 I]; in one
 * dispatch, and without writing that, where `alone` says that nobody else reads it and a tile can.
 */
export function recordSwigluLinear(
  program: Program,
  model: Model,
  name: string,
  args: {
    readonly x: Tensor;
    readonly gateUp: Tensor;
    readonly y: Tensor;
    readonly alone: boolean;
    readonly lora: LoraScratch | undefined;
  },
): void {
  const { x, gateUp, y, alone, lora } = args;
  const weight = model.parameter(`${name}.weight`);
  const [[M = 0, K = 0], [, N = 0]] = [x.shape, y.shape];
  const isPlain = !(
    model.config.inOutWeights ||
    model.weights.has(`${name}.bias`) ||
    lora ||
    isQuantized(weight.dtype)
  );
  const isWhole = storedWindows(program, weight).length === 1;
  if (alone && isPlain && isWhole && takesGates("NT", { M, N, K }, program.device.facts)) {
    recordMatmul(program, "NT", x, weight, y, { gated: true });
    return;
  }
  recordLinear(program, model, name, { x, y: gateUp, lora });
  program.dispatch(swigluForward, { gateUp, y });
}

/**
 * Records dx [T, in] = dy [T, out] W^T, or with `accumulate` dx += it, and, for what is trained: dWeight += the outer
 * products of x and dy summed over
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
    readonly accumulate?: boolean;
    readonly partials: Tensor;
    readonly lora: LoraScratch | undefined;
  },
): void {
  const { dy, x, dx, accumulate = false, partials, lora } = args;
  const { inOutWeights } = model.config;
  const weight = `${name}.weight`;
  for (const { first, window, windowOf } of storedWindows(program, model.parameter(weight))) {
    if (inOutWeights) recordMatmul(program, "NT", dy, window, dx, { outFrom: first, windowOf, accumulate });
    else {
      // Later windows go on from the sums of those before, and so from what dx held.
      const place = { aFrom: first, continues: first > 0, windowOf };
      recordMatmul(program, "NN", dy, window, dx, { ...place, accumulate: accumulate && first === 0 });
    }
  }
  if (gradients.has(weight)) {
    const [a, b] = inOutWeights ? [x, dy] : [dy, x];
    for (const { first, window, windowOf } of storedWindows(program, gradients.window(weight))) {
      recordMatmul(program, "TN", a, b, window, { aFrom: first, accumulate: true, windowOf });
    }
  }
  if (gradients.has(`${name}.bias`)) {
    const [rows = 0, columns = 0] = dy.shape;
    const sums = reshape(partials, [rowBlocks(rows), columns]);
    program.dispatch(columnPartials, { dy, partials: sums, firstColumn: 0 });
    program.dispatch(addColumnSums, { partials: sums, out: gradients.window(`${name}.bias`) });
  }
  if (lora) model.adapter?.recordBackward(program, weight, gradients, { dy, x, dx }, lora);
}

/** The windows of stored rows, each one binding, of a matrix or its gradient; `windowOf` where there are several. */
function storedWindows(program: Program, matrix: Tensor) {
  const windows = rowWindows(matrix, program.device.limits.maxStorageBufferBindingSize);
  const [rows = 0] = matrix.shape;
  const windowOf: WindowOf | undefined = windows.length > 1 ? { rows, together: {} } : undefined;
  return windows.map((one) => ({ ...one, windowOf }));
}

function tooLarge({ device }: Program, name: string, matrix: Tensor): AdapterError {
  return new AdapterError(
    `${name} [${matrix.shape.join(", ")}] has ${byteLength(matrix)} bytes, the adapter "${device.description}" binds at most ${device.limits.maxStorageBufferBindingSize}, and its parts can be added up in f32 alone; set fp16: false.`,
  );
}
