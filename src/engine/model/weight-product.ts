/**
 * Products with a matrix of weights: forward, and backward for the gradient of the input. The matrix may have any
 * format, and its layout is [out, in], or [in, out] in GPT-2. A matrix that is larger than one binding, as fused
 * matrices may be, is read in windows of its stored rows. All windows take the same tile. Where the sum goes over the
 * stored rows, each window adds to the sums of the window before it; the tile for that neither splits K nor uses
 * subgroup matrices, so the bits do not depend on how large the windows are. What the products are for stands in
 * `linear.ts` and `dora.ts`.
 */
import { AdapterError } from "../../errors.ts";
import type { Program } from "../gpu/program.ts";
import { byteLength, rowWindows, sliceRows, type Tensor } from "../gpu/tensor.ts";
import { type MatmulOptions, recordMatmul, type WindowOf } from "./matmul.ts";

/** A matrix of weights. */
export interface Weight {
  /** For messages. */
  readonly name: string;
  /** [out, in], or [in, out] where `inOut`. */
  readonly matrix: Tensor;
  readonly inOut: boolean;
}

/** What a product adds, and its part in a norm beside it. */
export type ProductOptions = Pick<MatmulOptions, "bias" | "residual" | "gives" | "takes">;

/** Records y [T, out] = x [T, in] W (+ bias) (+ residual). */
export function recordProduct(
  program: Program,
  { name, matrix, inOut }: Weight,
  x: Tensor,
  y: Tensor,
  options: ProductOptions = {},
): void {
  const { bias, residual, gives, takes } = options;
  const isWhole = !inOut && storedWindows(program, matrix).length === 1;
  if ((gives || takes) && !isWhole) throw new Error(`${name} has no part in a norm between products`);
  const windows = storedWindows(program, matrix);
  if (inOut) {
    if (windows.length > 1 && y.dtype !== "f32") throw tooLarge(program, name, matrix);
    for (const [index, { first, window, windowOf }] of windows.entries()) {
      const last = index === windows.length - 1 ? { bias, residual } : {};
      recordMatmul(program, "NN", x, window, y, { ...last, aFrom: first, continues: first > 0, windowOf });
    }
  } else if (windows.length === 1) {
    recordMatmul(program, "NT", x, matrix, y, { bias, residual, gives, takes });
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
}

/**
 * Records dx [T, in] = dy W^T, or with `accumulate` dx += it.
 *
 * @param from the first of the columns of dy [T, width] that are the matrix's outputs
 */
export function recordProductBackward(
  program: Program,
  { matrix, inOut }: Weight,
  dy: Tensor,
  dx: Tensor,
  { accumulate = false, from = 0 }: { readonly accumulate?: boolean; readonly from?: number } = {},
): void {
  for (const { first, window, windowOf } of storedWindows(program, matrix)) {
    if (inOut) {
      recordMatmul(program, "NT", dy, window, dx, {
        outFrom: first,
        windowOf,
        accumulate,
        ...(from > 0 ? { aFrom: from } : {}),
      });
    } else {
      // Later windows go on from the sums of those before, and so from what dx held.
      const place = { aFrom: from + first, continues: first > 0, windowOf };
      recordMatmul(program, "NN", dy, window, dx, { ...place, accumulate: accumulate && first === 0 });
    }
  }
}

/** The windows of stored rows, each one binding, of a matrix or its gradient; `windowOf` where there are several. */
export function storedWindows(program: Program, matrix: Tensor) {
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
