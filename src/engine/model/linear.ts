/**
 * Linear layers as matrix products: forward, input gradient, weight and bias gradient. Weights lie as the checkpoint
 * has them, [out, in] or [in, out] (GPT-2); the layout of the product follows.
 */
import { type MatmulLayout, matmul } from "../../kernels/matmul.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import type { Program } from "../program.ts";
import { reshape, type Tensor } from "../tensor.ts";

export interface ProductOptions {
  /** [N], added to every row. */
  readonly bias?: Tensor | undefined;
  /** [M, N], added elementwise. */
  readonly residual?: Tensor | undefined;
  /** Add to what `out` holds. */
  readonly accumulate?: boolean;
}

/** Records out [M, N] = op(a) op(b) with the kernel for this layout and shape. */
export function recordProduct(
  program: Program,
  layout: MatmulLayout,
  a: Tensor,
  b: Tensor,
  out: Tensor,
  options: ProductOptions = {},
): void {
  const [M = 0, N = 0] = out.shape;
  const K = (layout === "TN" ? a.shape[0] : a.shape[1]) ?? 0;
  const { unused } = program.device;
  program.dispatch(matmul(layout, { M, N, K }, program.device.facts), {
    a,
    b,
    bias: options.bias ?? reshape(unused, [4]),
    residual: options.residual ?? unused,
    out,
    hasBias: options.bias ? 1 : 0,
    hasResidual: options.residual ? 1 : 0,
    accumulate: options.accumulate ? 1 : 0,
  });
}

/** y [T, out] = x [T, in] W (+ bias) (+ residual). */
export function recordLinear(
  program: Program,
  inOut: boolean,
  args: { x: Tensor; weight: Tensor; y: Tensor; bias?: Tensor | undefined; residual?: Tensor | undefined },
): void {
  const { x, weight, y, bias, residual } = args;
  recordProduct(program, inOut ? "NN" : "NT", x, weight, y, { bias, residual });
}

/**
 * dx [T, in] = dy [T, out] W^T, dWeight += the outer products of x and dy summed over rows, dBias += dy summed over
 * rows. `partials` is scratch for the bias.
 */
export function recordLinearBackward(
  program: Program,
  inOut: boolean,
  args: {
    dy: Tensor;
    x: Tensor;
    weight: Tensor;
    dx: Tensor;
    dWeight: Tensor;
    dBias?: Tensor | undefined;
    partials: Tensor;
  },
): void {
  const { dy, x, weight, dx, dWeight, dBias, partials } = args;
  recordProduct(program, inOut ? "NT" : "NN", dy, weight, dx);
  if (inOut) recordProduct(program, "TN", x, dy, dWeight, { accumulate: true });
  else recordProduct(program, "TN", dy, x, dWeight, { accumulate: true });
  if (dBias) {
    const [rows = 0, columns = 0] = dy.shape;
    const sums = reshape(partials, [rowBlocks(rows), columns]);
    program.dispatch(columnPartials, { dy, partials: sums });
    program.dispatch(addColumnSums, { partials: sums, out: dBias });
  }
}
