/**
 * A tile of a matmul, the body that the matmul and the language-model head share: the ways in which a workgroup
 * computes its part of op(A) op(B), and the grid of workgroups over a result. Not an epilogue: the caller decides what
 * becomes of the sums. Sums are f32, over k in an order fixed by the shapes.
 */

import { tableLookup } from "./matmul-loads.ts";
import { matrixTile } from "./matmul-matrix-tile.ts";
import { columnTile, rowTile } from "./matmul-row-tile.ts";
import { sharingTile, subgroupTile } from "./matmul-subgroup-tile.ts";
import type { MatmulTile } from "./matmul-sums.ts";
import type { MatmulVariant } from "./matmul-variant.ts";
import { registerTile, workgroupTile } from "./matmul-workgroup-tile.ts";
import { nf4Setup } from "./stored-nf4.ts";

export { eachRow, type MatmulTile } from "./matmul-sums.ts";

/**
 * WGSL for `firstRow` and `firstColumn` of a workgroup of `tileGrid`. Workgroups run in about the order of their
 * numbers, x first: consecutive tiles share their part of the longer operand and walk the shorter one, which caches
 * hold. Where both are equally long, a transposed A is shared: at 1024^3 on lavapipe with tiles of 16 rows sharing A
 * takes 42 ms instead of 53 in TN, and 55 instead of 40 in NN.
 */
export const tileOrigin = ({ layout }: MatmulVariant, { rows, columns }: MatmulTile): string => /* wgsl */ `
  let origin = placeInGrid(group);
  let place = select(origin.xy, origin.yx, u.N ${layout === "TN" ? ">" : ">="} u.M);
  let firstRow = place.y * ${rows}u;
  let firstColumn = place.x * ${columns}u;`;

/** Workgroups for a result of M rows and N columns. */
export function tileGrid({ layout }: MatmulVariant, tile: MatmulTile, M: number, N: number): [number, number] {
  const [rows, columns] = [Math.ceil(M / tile.rows), Math.ceil(N / tile.columns)];
  const rowsFirst = layout === "TN" ? N > M : N >= M;
  return rowsFirst ? [rows, columns] : [columns, rows];
}

/** The tile of a variant, which begins with what its format of B needs. */
export function matmulTile(variant: MatmulVariant): MatmulTile {
  const tile = tileOf(variant);
  if (variant.format !== "nf4") return tile;
  const lookup = tableLookup(variant);
  const builtin = typeof lookup === "object" ? "subgroup_invocation_id" : "local_invocation_index";
  const [, known] = new RegExp(`${builtin}\\) (\\w+)`).exec(tile.parameters) ?? [];
  const parameters = known === undefined ? `${tile.parameters}, @builtin(${builtin}) tablePlace: u32` : tile.parameters;
  return { ...tile, parameters, setup: `${nf4Setup(lookup, known ?? "tablePlace", tile.groupSize)}\n  ${tile.setup}` };
}

/** By the numbers in its name. */
function tileOf(variant: MatmulVariant): MatmulTile {
  const [kind = "", ...sizes] = variant.tile.split(/(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])/);
  const [rows = 0, other = 1] = sizes.filter((_, i) => i % 2 === 0).map(Number);
  if (kind === "workgroup") return workgroupTile(variant, rows, other);
  if (kind === "matrix") return matrixTile(variant, rows, other);
  if (kind === "registers") return registerTile(variant, rows);
  if (kind === "row") return rowTile(variant, rows);
  if (kind === "column") return columnTile(variant);
  if (sizes[1] === "x") return sharingTile(variant, rows, other);
  return subgroupTile(variant, rows, sizes[1] === "w" ? { fours: other } : { slices: other });
}
