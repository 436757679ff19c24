/**
 * The matmul of two tensors, recorded with the kernel for its layout, shape and storage. Knows no model: linear
 * layers, adapters and the head are made of it.
 */
import type { ActivationFormat, WeightFormat } from "../../kernels/kernel.ts";
import { type MatmulLayout, type MatmulShape, matmul } from "../../kernels/matmul.ts";
import type { Together } from "../gpu/dispatch.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";

/** What the products over the windows of one matrix have in common. */
export interface WindowOf {
  /** Stored rows of the matrix. */
  readonly rows: number;
  readonly together: Together;
}

/** What the product before the norm gives: x gain [T, C], and sums of squares of x [T, tiles]. */
export interface GivenNorm {
  readonly gain: Tensor;
  /** 1 where the gain is stored around 0, else 0. */
  readonly gainOffset: number;
  readonly scaled: Tensor;
  readonly squares: Tensor;
}

/** What the product behind it takes, whose A is x gain. */
export type TakenNorm = Pick<GivenNorm, "squares"> & { readonly epsilon: number };

export interface MatmulOptions {
  /** [N], added to every row. */
  readonly bias?: Tensor | undefined;
  /** [M, N], added elementwise. */
  readonly residual?: Tensor | undefined;
  /** Add to what `out` holds. */
  readonly accumulate?: boolean;
  /** The sums start from what `out`, f32, holds: a product over the next rows of `b`. */
  readonly continues?: boolean;
  /** The product is SwiGLU's, of b's first half of rows and its second, where `takesGates`. */
  readonly gated?: boolean;
  /** RMSNorm between two products, of which this is the one before it or the one behind; see `norm-between.ts`. */
  readonly gives?: GivenNorm | undefined;
  readonly takes?: TakenNorm | undefined;
  /** `b`, or in TN the result, is a window of a matrix that exceeds one binding. */
  readonly windowOf?: WindowOf | undefined;
  /** Multiplies the product; default 1. */
  readonly scale?: number;
  /** First columns of A and of the result, where these are column ranges of `a` and `out`. */
  readonly aFrom?: number;
  readonly outFrom?: number;
}

/**
 * Records out [M, N] = scale op(a) op(b) with the kernel for this layout, this shape and the operands' formats. With a
 * first column given, A or the result is a column range of a wider matrix, as wide as b makes it.
 */
export function recordMatmul(
  program: Program,
  layout: MatmulLayout,
  a: Tensor,
  b: Tensor,
  out: Tensor,
  options: MatmulOptions = {},
): void {
  const [M = 0, outWidth = 0] = out.shape;
  const [bRows = 0, bColumns = 0] = b.shape;
  const { aFrom = 0, outFrom = 0, scale = 1, continues = false, gated = false, gives, takes, windowOf } = options;
  const [N, K] = layout === "NT" ? [gated ? bRows / 2 : bRows, bColumns] : [bColumns, bRows];
  checkColumns(layout, { M, N, K }, a, outWidth, options);
  const { unused } = program.device;
  const operands = {
    format: b.dtype as WeightFormat,
    aFormat: a.dtype as ActivationFormat,
    outFormat: out.dtype as ActivationFormat,
    products: program.products,
    aWidth: a.shape[1] ?? 0,
    aFrom,
    outWidth,
    outFrom,
    continues,
    gated,
    norm: gives ? ("gives" as const) : takes && ("takes" as const),
    continued: windowOf !== undefined && layout === "NN",
    whole: windowOf && wholeShape(layout, { M, N, K }, windowOf),
  };
  const kernel = matmul(layout, { M, N, K }, program.device.facts, operands);
  const args = {
    a,
    b,
    bias: options.bias ?? reshape(unused, [4]),
    residual: options.residual ?? unused,
    out,
    M,
    N,
    K,
    aFrom,
    outFrom,
    scale,
    hasBias: options.bias ? 1 : 0,
    hasResidual: options.residual ? 1 : 0,
    accumulate: options.accumulate ? 1 : 0,
    ...(gives ?? takes),
  };
  program.dispatch(kernel, args, windowOf?.together);
}

/** The product over all windows: a window's rows are B's columns in NT, its rows in NN, and the result's rows in TN. */
function wholeShape(layout: MatmulLayout, { M, N, K }: MatmulShape, { rows }: WindowOf): MatmulShape {
  if (layout === "NT") return { M, N: rows, K };
  return layout === "NN" ? { M, N, K: rows } : { M: rows, N, K };
}

/** Without a first column, widths must be exactly those of the matmul; with one, the range must lie inside. */
function checkColumns(
  layout: MatmulLayout,
  { M, N, K }: { M: number; N: number; K: number },
  a: Tensor,
  outWidth: number,
  { aFrom, outFrom }: MatmulOptions,
): void {
  const [aRows = 0, aWidth = 0] = a.shape;
  const wanted = layout === "TN" ? { rows: K, columns: M } : { rows: M, columns: K };
  const fits = (width: number, columns: number, from: number | undefined) =>
    from === undefined ? width === columns : from + columns <= width;
  if (aRows === wanted.rows && fits(aWidth, wanted.columns, aFrom) && fits(outWidth, N, outFrom)) return;
  throw new Error(
    `matmul${layout}: a [${aRows}, ${aWidth}] from column ${aFrom ?? 0} and a result of ${outWidth} columns from ${outFrom ?? 0} do not fit a matmul of ${M} x ${N} x ${K}`,
  );
}
