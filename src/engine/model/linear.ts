/**
 * Linear layers as products, with the model's adapter beside them: forward, the input's gradient, and the gradients of
 * weight and bias where these are trained.
 */
import { swigluForward } from "../../kernels/activation.ts";
import { isQuantized } from "../../kernels/kernel.ts";
import { takesGates, takesNorms } from "../../kernels/matmul-variant.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { type LoraRows, recordLoraBackward, recordLoraForward, recordMagnitudes } from "./lora-passes.ts";
import { recordMatmul, type TakenNorm } from "./matmul.ts";
import type { Model } from "./model.ts";
import {
  type ProductOptions,
  recordProduct,
  recordProductBackward,
  storedWindows,
  type Weight,
} from "./weight-product.ts";

/**
 * Records y [T, out] = x [T, in] W (+ bias) (+ residual), with the model's adapter where it has one for this layer, or
 * with the product's part in a norm beside it.
 */
export function recordLinear(
  program: Program,
  model: Model,
  name: string,
  args: {
    readonly x: Tensor;
    readonly y: Tensor;
    readonly lora: LoraRows | undefined;
  } & Pick<ProductOptions, "residual" | "gives" | "takes">,
): void {
  const { x, y, residual, gives, takes, lora } = args;
  const weight = `${name}.weight`;
  const bias = model.weights.has(`${name}.bias`) ? model.parameter(`${name}.bias`) : undefined;
  const late = lora && model.adapter?.late(weight);
  recordProduct(program, weightOf(model, weight), x, y, late ? {} : { bias, residual, gives, takes });
  if (lora && model.adapter) recordLoraForward(program, model.adapter, model, weight, x, y, lora);
  late?.recordEnd(program, weight, y, { bias, residual });
}

function weightOf(model: Model, name: string): Weight {
  return { name, matrix: model.parameter(name), inOut: model.config.inOutWeights };
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
    readonly takes?: TakenNorm | undefined;
    readonly lora: LoraRows | undefined;
  },
): void {
  const { x, gateUp, y, alone, takes, lora } = args;
  const weight = model.parameter(`${name}.weight`);
  const [[M = 0, K = 0], [, N = 0]] = [x.shape, y.shape];
  const isPlain = !(
    model.config.inOutWeights ||
    model.weights.has(`${name}.bias`) ||
    lora ||
    isQuantized(weight.dtype)
  );
  const isWhole = storedWindows(program, weight).length === 1;
  const { facts } = program.device;
  const fits = takesGates("NT", { M, N, K }, facts) && (takes === undefined || takesNorms("NT", { M, N, K }, facts));
  if (alone && isPlain && isWhole && fits) {
    recordMatmul(program, "NT", x, weight, y, { gated: true, takes });
    return;
  }
  recordLinear(program, model, name, { x, y: gateUp, takes, lora });
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
    readonly lora: LoraRows | undefined;
  },
): void {
  const { dy, x, dx, accumulate = false, partials, lora } = args;
  const { inOutWeights } = model.config;
  const weight = `${name}.weight`;
  const late = lora && model.adapter?.late(weight);
  let scaled = dy;
  if (lora && model.adapter) {
    recordMagnitudes(program, model.adapter, model, weight, gradients, { dy, x, partials }, lora);
  }
  if (late && lora?.dora) {
    scaled = late.recordScaled(program, { key: weight, from: 0, columns: dy.shape[1] ?? 0 }, dy, lora.dora);
  }
  recordProductBackward(program, weightOf(model, weight), scaled, dx, { accumulate });
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
  if (lora && model.adapter) {
    recordLoraBackward(program, model.adapter, model, weight, gradients, { dy: scaled, x, dx }, lora);
  }
}
