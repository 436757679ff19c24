/**
 * Tiles of a matmul for adapters of any kind, which need no subgroups: one whose operands lie in workgroup memory, and
 * one whose invocations load all that they need. What subgroups hand round is in `matmul-subgroup-tile.ts`.
 */

import { operandLoads } from "./matmul-loads.ts";
import { addProducts, declareSums, fourRows, loadB, type MatmulTile } from "./matmul-sums.ts";
import type { MatmulVariant } from "./matmul-variant.ts";
import { COMPONENTS, range, unknownCount } from "./wgsl.ts";

/** An operand's part of workgroup memory. */
interface SharedOperand {
  readonly name: "A" | "B";
  /** Its stored rows run along k. */
  readonly alongK: boolean;
  /** Fours of rows of the result (columns for B). */
  readonly quads: number;
  /** WGSL: the first of these rows. */
  readonly first: string;
}

/** An array of vec4f for each operand, k-major: `steps` lines of `quads`. */
export const declareShared = (operands: readonly SharedOperand[], steps: number): string =>
  operands.map(({ name, quads }) => `\nvar<workgroup> tile${name}: array<vec4f, ${quads * steps}>;`).join("");

/**
 * WGSL: how often a loop runs. A GPU's compiler may unroll it, and Tint sees how large its indices get and adds no
 * clamps to them. On software adapters, and where operands are no aligned vectors, compiling what is unrolled would
 * take longer than what it saves.
 */
const rounds = (count: number, { software, loadsA, loadsB }: MatmulVariant) =>
  software || loadsA !== "aligned" || loadsB !== "aligned" ? unknownCount(count, "u.K") : `${count}u`;

/**
 * Fills an operand's array with the steps from `k` on, zeros beyond K, by the `group` invocations named `invocation`.
 * Rows that run along k go in by blocks of four by four, transposed: so every store is a whole vector.
 */
export function fillShared(
  { name, alongK, quads, first }: SharedOperand,
  steps: number,
  group: number,
  variant: MatmulVariant,
): string {
  const read = (row: string, step: string) => {
    const place = alongK ? `${first} + 4u * quad + ${row}, k + ${step}` : `k + ${step}, ${first} + 4u * quad`;
    return `select(vec4f(), read${name}(${place}), k + ${step} < u.K)`;
  };
  const lines = alongK
    ? [
        `let quad = block / ${steps / 4}u;`,
        `let step = block % ${steps / 4}u * 4u;`,
        ...range(4).map((i) => `let t${i} = ${read(`${i}u`, "step")};`),
        ...range(4).map((i) => `tile${name}[(step + ${i}u) * ${quads}u + quad] = ${fourRows("t", i)};`),
      ]
    : [
        `let quad = block % ${quads}u;`,
        `let step = block / ${quads}u;`,
        `tile${name}[step * ${quads}u + quad] = ${read("0u", "step")};`,
      ];
  const blocks = (alongK ? quads / 4 : quads) * steps;
  const body = lines.join("\n      ");
  if (blocks < group) {
    return `if (invocation < ${blocks}u) {
      let block = invocation;
      ${body}
    }`;
  }
  return `for (var i = 0u; i < ${rounds(blocks / group, variant)}; i++) {
      let block = i * ${group}u + invocation;
      ${body}
    }`;
}

/** Sums over the invocations of a row, `lanes` neighbours in a workgroup of `group`, through workgroup memory. */
export const acrossNeighbours = (lanes: number, group: number) => /* wgsl */ `
var<workgroup> acrossColumns: array<f32, ${group}>;
fn columnsMax(value: f32, lane: u32) -> f32 {
  workgroupBarrier();
  acrossColumns[lane] = value;
  workgroupBarrier();
  var result = value;
  for (var i = 0u; i < ${lanes}u; i++) { result = max(result, acrossColumns[lane / ${lanes}u * ${lanes}u + i]); }
  return result;
}
fn columnsSum(value: f32, lane: u32) -> f32 {
  workgroupBarrier();
  acrossColumns[lane] = value;
  workgroupBarrier();
  var result = 0.0;
  for (var i = 0u; i < ${lanes}u; i++) { result += acrossColumns[lane / ${lanes}u * ${lanes}u + i]; }
  return result;
}
`;

/** Rows and fours of columns that an invocation has in a tile in workgroup memory: 64 multiply-adds for 4 vectors. */
const OWN_ROWS = 8;
const OWN_FOURS = 2;

/** Both operands in workgroup memory, each invocation with 8 rows by 8 columns in registers. */
export function workgroupTile(variant: MatmulVariant, rows: number, columns: number): MatmulTile {
  const [down, across] = [rows / OWN_ROWS, columns / (4 * OWN_FOURS)];
  const group = down * across;
  // 16 KiB is what every adapter has, and the head needs a little of it.
  const steps = rows + columns <= 192 ? 16 : 8;
  const a = { name: "A", alongK: variant.layout !== "TN", quads: rows / 4, first: "firstRow" } as const;
  const b = { name: "B", alongK: variant.layout === "NT", quads: columns / 4, first: "firstColumn" } as const;
  const ownQuads = OWN_ROWS / 4;
  const loads = [
    ...range(ownQuads).map((i) => `let a${i} = tileA[i * ${a.quads}u + ownQuad + ${i}u];`),
    ...range(OWN_FOURS).map((i) => `let b${i} = tileB[i * ${b.quads}u + ${i * across}u + ownFour];`),
  ];
  const products = range(OWN_ROWS).flatMap((row) =>
    range(OWN_FOURS).map((four) => {
      const sum = `sum${row * OWN_FOURS + four}`;
      return `${sum} = fma(vec4f(a${Math.floor(row / 4)}.${COMPONENTS[row % 4]}), b${four}, ${sum});`;
    }),
  );
  return {
    enable: [],
    groupSize: group,
    rows,
    columns,
    declarations: operandLoads(variant) + declareShared([a, b], steps),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32",
    setup: `let lane = invocation;
  let ownQuad = invocation / ${across}u * ${ownQuads}u;
  let ownFour = invocation % ${across}u;
  let ownFirst = firstRow + 4u * ownQuad;`,
    matmul: /* wgsl */ `let column = firstColumn + 4u * ownFour;
${declareSums(variant, OWN_ROWS, OWN_FOURS, 4 * across)}
  for (var k = 0u; k < u.K; k += ${steps}u) {
    workgroupBarrier();
    ${fillShared(a, steps, group, variant)}
    ${fillShared(b, steps, group, variant)}
    workgroupBarrier();
    for (var i = 0u; i < ${rounds(steps, variant)}; i++) {
      ${[...loads, ...products].join("\n      ")}
    }
  }`,
    ownRows: OWN_ROWS,
    rowStep: 1,
    ownFours: OWN_FOURS,
    fourStep: 4 * across,
    acrossColumns: acrossNeighbours(across, group),
    leads: `lane % ${across}u == 0u`,
  };
}

/** Invocations of a tile in registers, and the most rows that one of them has. */
const REGISTERS_GROUP = 32;
const REGISTERS_ROWS = 16;

/**
 * Every invocation loads all that it needs of its rows, 16 where the tile has as many, by 8 columns of the result:
 * where caches do the sharing, and a barrier or a load from workgroup memory costs as much as any other.
 */
export function registerTile(variant: MatmulVariant, rows: number): MatmulTile {
  const ownRows = Math.min(rows, REGISTERS_ROWS);
  const across = REGISTERS_GROUP / (rows / ownRows);
  const loadsB = range(OWN_FOURS).flatMap((four) => {
    const column = `column + ${4 * across * four}u`;
    return loadB(variant.layout, (line) => `readB(${line}, ${column})`, { name: `b${four}_`, column });
  });
  const products = (row: number, a: string) =>
    `{ let a = ${a}; ${range(OWN_FOURS)
      .map((four) => addProducts(`sum${row * OWN_FOURS + four}`, `b${four}_`))
      .join(" ")} }`;
  const ofRows =
    variant.layout === "TN"
      ? range(ownRows / 4).flatMap((quad) => [
          ...range(4).map((i) => `let s${quad}_${i} = readA(k + ${i}u, ownFirst + ${4 * quad}u);`),
          ...range(4).map((i) => products(4 * quad + i, fourRows(`s${quad}_`, i))),
        ])
      : range(ownRows).map((row) => products(row, `readA(ownFirst + ${row}u, k)`));
  return {
    enable: [],
    groupSize: REGISTERS_GROUP,
    rows,
    columns: 4 * OWN_FOURS * across,
    declarations: operandLoads(variant),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32",
    setup: `let ownFirst = firstRow + lane / ${across}u * ${ownRows}u;`,
    matmul: /* wgsl */ `let column = firstColumn + lane % ${across}u * 4u;
${declareSums(variant, ownRows, OWN_FOURS, 4 * across)}
  for (var k = 0u; k < u.K; k += 4u) {
    ${[...loadsB, ...ofRows].join("\n    ")}
  }`,
    ownRows,
    rowStep: 1,
    ownFours: OWN_FOURS,
    fourStep: 4 * across,
    acrossColumns: acrossNeighbours(across, REGISTERS_GROUP),
    leads: `lane % ${across}u == 0u`,
  };
}
