/**
 * RMSNorm between two products of few rows, without a dispatch of its own: the product that adds to the residual stream
 * also gives what the norm needs, and the next one takes it (`NormPart`). For passes that keep nothing for a backward
 * pass, where a dispatch costs as much as reading some 100 kB of weights. Norms with a dispatch are in `norms.ts`.
 */
import { isQuantized, type StoredFormat } from "../../kernels/kernel.ts";
import { matmul } from "../../kernels/matmul.ts";
import { takesNorms } from "../../kernels/matmul-variant.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { normsAfter, normsBefore } from "./activations.ts";
import type { GivenNorm, TakenNorm } from "./matmul.ts";
import type { Model } from "./model.ts";
import { streamEpsilon } from "./norms.ts";
import { storedWindows } from "./weight-product.ts";

/** A norm by the names of its parameters and of the linear layers before and behind it. */
export interface NormPlace {
  readonly norm: string;
  readonly from: string;
  readonly to: string;
}

export interface NormBetween {
  readonly gives: GivenNorm;
  readonly takes: TakenNorm;
}

/**
 * How the norm of a place goes into the products around it; undefined where it takes a dispatch: with an adapter, whose
 * products add to their results, with quantised weights and matrices of several windows, and where no tile can.
 *
 * @param scaled [T, C], to be written
 * @param scratch numbers for the sums of squares: [T, C / 4] or more
 */
export function normBetween(
  program: Program,
  model: Model,
  { norm, from, to }: NormPlace,
  scaled: Tensor,
  scratch: Tensor,
): NormBetween | undefined {
  const { config } = model;
  const isRms = config.norm === "rms" && normsBefore(config) && !normsAfter(config);
  if (!isRms || config.inOutWeights || model.adapter || scaled.dtype !== "f32") return undefined;
  const { facts } = program.device;
  const [M = 0] = scaled.shape;
  const shapes = [from, to].map((name) => {
    const matrix = model.parameter(`${name}.weight`);
    const [N = 0, K = 0] = matrix.shape;
    const isWhole = !isQuantized(matrix.dtype) && storedWindows(program, matrix).length === 1;
    return { M, N, K, format: matrix.dtype as StoredFormat, fits: isWhole && takesNorms("NT", { M, N, K }, facts) };
  });
  const [given] = shapes;
  if (given === undefined || !shapes.every(({ fits }) => fits)) return undefined;
  const { N, K, format } = given;
  const operands = { format, norm: "gives", aWidth: K, outWidth: N } as const;
  const tiles = matmul("NT", given, facts, operands)
    .grid({ M, N, K })
    .reduce((product, size) => product * size, 1);
  const squares = reshape(scratch, [M, tiles]);
  return {
    gives: { gain: model.parameter(`${norm}.weight`), gainOffset: config.normUnitOffset ? 1 : 0, scaled, squares },
    takes: { squares, epsilon: streamEpsilon(config) },
  };
}
