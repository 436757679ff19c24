/**
 * Tiles of a matmul on subgroup matrices (tensor cores, simdgroup matrices): operands go through workgroup memory as
 * numbers of the matrices' type (`matrix-operands.ts`), sums are f32. Each operand of a tile has a scale of its own:
 * its rows or columns over all of K.
 */
import { MATRICES } from "./kernel.ts";
import { operandLoads } from "./matmul-loads.ts";
import type { MatmulTile } from "./matmul-sums.ts";
import type { MatmulVariant, MatrixParts } from "./matmul-variant.ts";
import { acrossNeighbours } from "./matmul-workgroup-tile.ts";
import {
  fillLines,
  matrixTypes,
  multiply,
  type OperandStaging,
  type StagedOperand,
  scaleMemory,
  scaleStart,
  stageAll,
  stagedArrays,
  stridedWidth,
  sumMatrices,
  unscaled,
  zeroMatrices,
} from "./matrix-operands.ts";
import { claimNumber, range, unknownCount } from "./wgsl.ts";

/** Workgroup memory that the largest tile takes, with the head's reductions: more than WebGPU guarantees. */
export const MATRIX_MEMORY = 32768;

/** How a tile is divided: among subgroups, and a subgroup's part among its lanes. */
function divided(variant: MatmulVariant, matrix: MatrixParts, rows: number, columns: number) {
  const inRow = rows > 16 ? 2 : 1; // subgroups beside one another, and one above the other
  const [ownRows, ownColumns] = [rows / inRow, columns / inRow];
  const lanes = variant.subgroupSize;
  const fours = ownColumns / 4;
  const rowStep = Math.max(1, lanes / fours);
  return {
    inRow,
    subgroups: inRow * inRow,
    ownRows,
    ownColumns,
    lanes,
    fours,
    rowStep,
    step: Math.max(matrix.M, rowStep),
  };
}

/** An operand, and how many numbers its arrays hold. */
interface TileOperand extends StagedOperand {
  readonly numbers: number;
}

/** Both operands from `k` on, with zeros outside of the matrices. */
function operands(
  variant: MatmulVariant,
  matrix: MatrixParts,
  { rows, columns, steps, group }: { rows: number; columns: number; steps: number; group: number },
  { halves, rounds }: OperandStaging,
) {
  const operand = (name: "A" | "B", parts: 1 | 2, alongK: boolean): TileOperand => {
    const [size, first, count] = name === "A" ? [rows, "firstRow", "u.M"] : [columns, "firstColumn", "u.N"];
    const [lines, width] = alongK ? [size, steps] : [steps, size];
    const [firstLine, firstColumn, lineCount, columnCount] = alongK
      ? [first, "k", count, "u.K"]
      : ["k", first, "u.K", count];
    const stride = stridedWidth(width, halves);
    const text = /* wgsl */ `let row = ${firstLine} + line;
      let column = ${firstColumn} + at;
      let inside = (vec4u(column, column + 1u, column + 2u, column + 3u) < vec4u(${columnCount})) & vec4<bool>(row < ${lineCount});`;
    const four = `select(vec4f(), read${name}(row, column), inside)`;
    const fill = fillLines({ lines, width, stride, group }, rounds, { text, four });
    return { name, scale: name, array: name, parts, alongK, stride, fill, numbers: lines * stride };
  };
  return {
    a: operand("A", matrix.aParts, variant.layout !== "TN"),
    b: operand("B", matrix.bParts, variant.layout === "NT"),
  };
}

/** One subgroup, or two by two, each with its part of the tile in matrices. */
export function matrixTile(variant: MatmulVariant, rows: number, columns: number): MatmulTile {
  const { matrix } = variant;
  if (matrix === undefined) throw new Error(`the tile ${variant.tile} needs matrices`);
  const { M, N, K, aParts, bParts } = matrix;
  const halves = matrix.component === "f16";
  const { inRow, subgroups, ownRows, ownColumns, lanes, fours, rowStep, step } = divided(
    variant,
    matrix,
    rows,
    columns,
  );
  const group = subgroups * lanes;
  const steps = Math.max(K, aParts + bParts > 2 || !halves ? 16 : 32);
  const rounds = (count: number) => (variant.software ? unknownCount(count, "u.K") : `${count}u`);
  const staging = { halves, rounds };
  const { a, b } = operands(variant, matrix, { rows, columns, steps, group }, staging);
  const [down, across] = [ownRows / M, ownColumns / N];
  const matrices = sumMatrices(down, across);
  const sharing = inRow * fours; // invocations that share a row
  return {
    enable: ["subgroups", ...(halves ? ["f16"] : []), MATRICES],
    groupSize: group,
    rows,
    columns,
    declarations: `${operandLoads(variant)}${matrixTypes(matrix)}
${[a, b].map(({ array, parts, numbers }) => stagedArrays(array, parts, numbers, halves)).join("\n")}
var<workgroup> results: array<f32, ${subgroups * step * ownColumns}>;
${halves ? scaleMemory(["A", "B"]) : ""}
${subgroups > 1 ? "var<workgroup> subgroupsClaimed: atomic<u32>;" : ""}`,
    parameters:
      "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) ownLane: u32",
    setup: `${subgroups > 1 ? claimNumber("subgroupsClaimed", "subgroup") : "let subgroup = 0u;"}
  let partRow = subgroup / ${inRow}u * ${ownRows}u;
  let partColumn = subgroup % ${inRow}u * ${ownColumns}u;
  let ownFirst = firstRow + partRow + ownLane / ${fours}u;
  // Invocations that share rows are neighbours by this number.
  let lane = (subgroup / ${inRow}u * ${Math.max(1, lanes / fours)}u + ownLane / ${fours}u) * ${sharing}u + subgroup % ${inRow}u * ${fours}u + ownLane % ${fours}u;`,
    matmul: /* wgsl */ `let column = firstColumn + partColumn + ownLane % ${fours}u * 4u;
  ${zeroMatrices(matrices)}
  ${halves ? scaleStart(["A", "B"]) : ""}
  for (var k = 0u; k < u.K; k += ${steps}u) {
    workgroupBarrier();
    ${stageAll([a, b], matrices, staging, "u.K")}
    for (var i = 0u; i < ${rounds(steps / K)}; i++) {
      let step = i * ${K}u;
      ${multiply(a, b, matrix, down, across)}
    }
  }
  ${range(ownRows / step)
    .map((part) => handOut(part))
    .join("\n  ")}`,
    ownRows: ownRows / rowStep,
    rowStep,
    ownFours: 1,
    fourStep: 0,
    acrossColumns: acrossNeighbours(sharing, group),
    leads: `lane % ${sharing}u == 0u`,
  };

  /** Some rows of the matrices, through workgroup memory, to the lanes that have them. */
  function handOut(part: number): string {
    const [inPart, size] = [step / rowStep, step * ownColumns];
    const stores = range(step / M).flatMap((m) =>
      range(across).map((n) => {
        const at = m * M * ownColumns + n * N;
        const name = `matrix${(part * step) / M + m}_${n}`;
        return `subgroupMatrixStore<row_major>(&results, subgroup * ${size}u + ${at}u, ${name}, ${ownColumns}u);`;
      }),
    );
    const sums = range(inPart).map((row) => {
      const at = `from${part} + ${row * rowStep * ownColumns}u`;
      const four = `vec4f(results[${at}], results[${at} + 1u], results[${at} + 2u], results[${at} + 3u])`;
      return `let sum${part * inPart + row} = ${four}${halves ? ` * ${unscaled(a, b)}` : ""};`;
    });
    return /* wgsl */ `workgroupBarrier();
  ${stores.join("\n  ")}
  workgroupBarrier();
  let from${part} = subgroup * ${size}u + ownLane / ${fours}u * ${ownColumns}u + ownLane % ${fours}u * 4u;
  ${sums.join("\n  ")}`;
  }
}
