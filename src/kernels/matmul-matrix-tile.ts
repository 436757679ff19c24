/**
 * Tiles of a matmul on subgroup matrices (tensor cores, simdgroup matrices): operands go through workgroup memory as
 * numbers of the matrices' type, sums are f32. Where matrices take f16, each operand of a tile is scaled by a power of two
 * that follows the largest number so far, and an f32 is either rounded to f16 or split into two parts of f16,
 *
 *   x = high + low,  high = f16(x),  low = f16(x - high)        a b = low high + high low + high high
 *
 * which leaves out low low: about 2^-22 of each term, as f32's own rounding. Numbers below 2^-16 of the largest in their
 * tile (its rows or columns over all of K) lose digits one by one: no number is off by more than 2^-38 of it.
 */
import { MATRICES } from "./kernel.ts";
import type { MatmulTile } from "./matmul-sums.ts";
import { type MatmulVariant, type MatrixParts, operandLoads } from "./matmul-variant.ts";
import { acrossNeighbours } from "./matmul-workgroup-tile.ts";
import { claimNumber, range, unknownCount } from "./wgsl.ts";

/** Workgroup memory that the largest tile takes, with the head's reductions: more than WebGPU guarantees. */
export const MATRIX_MEMORY = 32768;

/**
 * Where the largest number of an operand is put: 2^13 to 2^14 at first, so that larger ones to come rarely exceed f16,
 * whose end is 65504, and low parts of numbers 2^-16 of it are no subnormals.
 */
const TARGET_EXPONENT = 13;
const LARGEST_HALF = "65000.0";

/** The largest numbers of both operands that did not fit their scale, and how many invocations had such. */
const SCALE_MEMORY = /* wgsl */ `var<workgroup> largestA: atomic<u32>;
var<workgroup> largestB: atomic<u32>;
var<workgroup> misfits: atomic<u32>;`;

const SCALE_START = /* wgsl */ `var scaleA = 1.0;
  var scaleB = 1.0;
  var limitA = 0.0; // the largest number that fits
  var limitB = 0.0;
  var misfitsBefore = 0u;
  if (invocation == 0u) {
    atomicStore(&largestA, 0u);
    atomicStore(&largestB, 0u);
    atomicStore(&misfits, 0u);
  }`;

/** An operand in workgroup memory: lines as they are stored, along k or across. */
interface StagedOperand {
  readonly name: "A" | "B";
  readonly parts: 1 | 2;
  /** Its stored rows run along k. */
  readonly alongK: boolean;
  readonly lines: number;
  readonly width: number;
  /** Numbers from one line to the next: apart by a few more, so that lines start in different banks. */
  readonly stride: number;
  /** WGSL: stored row and column of the first number, and how many rows and columns there are. */
  readonly firstLine: string;
  readonly firstColumn: string;
  readonly lineCount: string;
  readonly columnCount: string;
}

const PARTS = ["high", "low"] as const;
const arrayOf = ({ name }: StagedOperand, part: number) => `${PARTS[part]}${name}`;

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

function operands(variant: MatmulVariant, matrix: MatrixParts, rows: number, columns: number, steps: number) {
  const operand = (name: "A" | "B", parts: 1 | 2, alongK: boolean): StagedOperand => {
    const [size, first, count] = name === "A" ? [rows, "firstRow", "u.M"] : [columns, "firstColumn", "u.N"];
    const [lines, width] = alongK ? [size, steps] : [steps, size];
    const [firstLine, firstColumn, lineCount, columnCount] = alongK
      ? [first, "k", count, "u.K"]
      : ["k", first, "u.K", count];
    const stride = width + (matrix.component === "f16" ? 8 : 4);
    return { name, parts, alongK, lines, width, stride, firstLine, firstColumn, lineCount, columnCount };
  };
  return {
    a: operand("A", matrix.aParts, variant.layout !== "TN"),
    b: operand("B", matrix.bParts, variant.layout === "NT"),
  };
}

interface StageContext {
  /** Matrices take f16. */
  readonly halves: boolean;
  /** WGSL: a count as a loop's bound. */
  readonly rounds: (count: number) => string;
}

/** Writes an operand's lines from `k` on, zeros outside of the matrix; `mostA` or `mostB` becomes the invocation's largest. */
function stage(operand: StagedOperand, group: number, { halves, rounds }: StageContext): string {
  const { name, parts, lines, width, stride, firstLine, firstColumn, lineCount, columnCount } = operand;
  const quads = (lines * width) / 4;
  const store = (part: number, value: string) =>
    range(4)
      .map((i) => `${arrayOf(operand, part)}[to${i > 0 ? ` + ${i}u` : ""}] = ${value}[${i}];`)
      .join(" ");
  // Rounded as an integer: Mesa folds x - f32(f16(x)) to 0, its version 25 also what goes through pack2x16float.
  const split = /* wgsl */ `let rounded = bitcast<vec4f>((bitcast<vec4u>(x) + vec4u(0x1000u)) & vec4u(0xffffe000u));
      let high = vec4h(rounded);
      ${store(0, "high")}
      let low = vec4h(x - rounded);
      ${store(1, "low")}`;
  const plain = /* wgsl */ `let high = ${halves ? "vec4h(x)" : "x"};
      ${store(0, "high")}`;
  const body = /* wgsl */ `let line = ${firstLine} + four / ${width / 4}u;
      let at = ${firstColumn} + four % ${width / 4}u * 4u;
      let inside = (vec4u(at, at + 1u, at + 2u, at + 3u) < vec4u(${columnCount})) & vec4<bool>(line < ${lineCount});
      let read = select(vec4f(), read${name}(line, at), inside);
      ${halves ? `let size = abs(read); most${name} = max(most${name}, max(max(size.x, size.y), max(size.z, size.w)));` : ""}
      let x = ${halves ? `scale${name} * read` : "read"};
      let to = four / ${width / 4}u * ${stride}u + four % ${width / 4}u * 4u;
      ${parts === 2 ? split : plain}`;
  if (quads < group) return `if (invocation < ${quads}u) { let four = invocation;\n      ${body}\n    }`;
  return `for (var i = 0u; i < ${rounds(quads / group)}; i++) { let four = i * ${group}u + invocation;\n      ${body}\n    }`;
}

/**
 * Fills both operands; of halves again where a number does not fit the scale, which the first numbers of a tile never do.
 * Sums follow the scale: a power of two changes none of their digits.
 */
function stageAll(
  a: StagedOperand,
  b: StagedOperand,
  group: number,
  sums: readonly string[],
  context: StageContext,
): string {
  const both = `${stage(a, group, context)}\n    ${stage(b, group, context)}`;
  if (!context.halves) return `${both}\n    workgroupBarrier();`;
  const rescale = ({
    name,
  }: StagedOperand) => /* wgsl */ `let all${name} = bitcast<f32>(workgroupUniformLoad(&largest${name}));
      if (all${name} > limit${name}) {
        let exponent = max(i32(bitcast<u32>(all${name}) >> 23u) - 127, -100);
        let next = bitcast<f32>(u32(127 + ${TARGET_EXPONENT} - exponent) << 23u);
        if (limit${name} > 0.0) { change *= next / scale${name}; }
        scale${name} = next;
        limit${name} = ${LARGEST_HALF} / next;
      }`;
  return /* wgsl */ `for (var attempt = 0u; attempt < ${unknownCount(2, "u.K")}; attempt++) {
      var mostA = 0.0;
      var mostB = 0.0;
      ${both}
      if (mostA > limitA || mostB > limitB) {
        atomicMax(&largestA, bitcast<u32>(mostA));
        atomicMax(&largestB, bitcast<u32>(mostB));
        atomicAdd(&misfits, 1u);
      }
      let found = workgroupUniformLoad(&misfits); // a barrier too
      if (found == misfitsBefore) { break; }
      misfitsBefore = found;
      var change = 1.0;
      ${rescale(a)}
      ${rescale(b)}
      ${sums.map((sum) => `${sum} = subgroupMatrixScalarMultiply(${sum}, change);`).join("\n      ")}
    }`;
}

/** The products of the steps in workgroup memory, a matrix's K at a time. */
function multiply(a: StagedOperand, b: StagedOperand, matrix: MatrixParts, down: number, across: number): string {
  const load = (operand: StagedOperand, type: string, part: number, name: string, first: string) => {
    const { alongK, stride } = operand;
    const order = (operand.name === "A") === alongK ? "row_major" : "col_major";
    const at = alongK ? `(${first}) * ${stride}u + step` : `step * ${stride}u + ${first}`;
    return `let ${name} = subgroupMatrixLoad<${type}, ${order}>(&${arrayOf(operand, part)}, ${at}, ${stride}u);`;
  };
  const loads = [
    ...range(down).flatMap((m) =>
      range(a.parts).map((part) => load(a, "Left", part, `a${m}_${part}`, `partRow + ${m * matrix.M}u`)),
    ),
  ];
  const columns = range(across).flatMap((n) => [
    ...range(b.parts).map((part) => load(b, "Right", part, `b${n}_${part}`, `partColumn + ${n * matrix.N}u`)),
    // Small terms first.
    ...range(down).flatMap((m) =>
      [
        [1, 0],
        [0, 1],
        [0, 0],
      ]
        .filter(([pa = 0, pb = 0]) => pa < a.parts && pb < b.parts)
        .map(([pa, pb]) => {
          const sum = `matrix${m}_${n}`;
          return `${sum} = subgroupMatrixMultiplyAccumulate(a${m}_${pa}, b${n}_${pb}, ${sum});`;
        }),
    ),
  ]);
  return [...loads, ...columns].join("\n      ");
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
  const { a, b } = operands(variant, matrix, rows, columns, steps);
  const [down, across] = [ownRows / M, ownColumns / N];
  const matrices = range(down).flatMap((m) => range(across).map((n) => `matrix${m}_${n}`));
  const rounds = (count: number) => (variant.software ? unknownCount(count, "u.K") : `${count}u`);
  // Tint zeroes a matrix without an initial value once and not at its declaration, which the head's loop meets again.
  const zeroed = matrices.map((name) => `var ${name} = Sums();`).join(" ");
  const element = halves ? "f16" : "f32";
  const sharing = inRow * fours; // invocations that share a row
  return {
    enable: ["subgroups", ...(halves ? ["f16"] : []), MATRICES],
    groupSize: group,
    rows,
    columns,
    declarations: `${operandLoads(variant)}
alias Left = subgroup_matrix_left<${element}, ${K}, ${M}>;
alias Right = subgroup_matrix_right<${element}, ${N}, ${K}>;
alias Sums = subgroup_matrix_result<f32, ${N}, ${M}>;
${[a, b]
  .flatMap((operand) =>
    range(operand.parts).map(
      (part) => `var<workgroup> ${arrayOf(operand, part)}: array<${element}, ${operand.lines * operand.stride}>;`,
    ),
  )
  .join("\n")}
var<workgroup> results: array<f32, ${subgroups * step * ownColumns}>;
${halves ? SCALE_MEMORY : ""}
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
  ${zeroed}
  ${halves ? SCALE_START : ""}
  for (var k = 0u; k < u.K; k += ${steps}u) {
    workgroupBarrier();
    ${stageAll(a, b, group, matrices, { halves, rounds })}
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
      return `let sum${part * inPart + row} = ${four}${halves ? " * (1.0 / scaleA) * (1.0 / scaleB)" : ""};`;
    });
    return /* wgsl */ `workgroupBarrier();
  ${stores.join("\n  ")}
  workgroupBarrier();
  let from${part} = subgroup * ${size}u + ownLane / ${fours}u * ${ownColumns}u + ownLane % ${fours}u * 4u;
  ${sums.join("\n  ")}`;
  }
}
