/**
 * Tiles of a matmul whose operands a subgroup's lanes hand to each other. They need subgroups of one known size; the
 * tiles of adapters without are in `matmul-workgroup-tile.ts`.
 */

import { operandLoads } from "./matmul-loads.ts";
import { factorOfRow } from "./matmul-norm.ts";
import { addProducts, declareSums, fourRows, loadB, type MatmulTile } from "./matmul-sums.ts";
import { firstHalf, type MatmulVariant } from "./matmul-variant.ts";
import { declareShared, fillShared } from "./matmul-workgroup-tile.ts";
import { claimNumber, ofLane, range, sigmoid } from "./wgsl.ts";

/** The vectors of B of a lane's four of columns; one has no number. */
const fourOf = (four: number, fours: number) => (fours === 1 ? "b" : `b${four}_`);

/** Adds a row's four along k to its sums of each four of columns. */
const addToFours = (row: number, fours: number) =>
  range(fours)
    .map((four) => addProducts(`sum${row * fours + four}`, fourOf(four, fours)))
    .join(" ");

interface SharedRows {
  /** Declares what the loads take. */
  readonly setup: string;
  /** An invocation's part of the four steps along k. */
  readonly loads: readonly string[];
  /** The products of every row, in order. */
  readonly products: readonly string[];
}

/** Rows of op(A) that lie along k: an invocation loads four numbers along k of every `lanes`-th row. */
function rowsAlongK(rows: number, variant: MatmulVariant, first = "firstRow", fours = 1): SharedRows {
  const lanes = variant.subgroupSize;
  const registers = Math.max(1, rows / lanes);
  const four = (row: number) => ofLane(row % lanes, `a${Math.floor(row / lanes) % registers}`, variant);
  return {
    setup: `let loadRow = ${first} + lane % ${Math.min(lanes, rows)}u;`,
    loads: range(registers).map((i) => `let a${i}: vec4f = readA(loadRow + ${i * lanes}u, k);`),
    products: range(rows).map((row) => `{ let a = ${four(row)}; ${addToFours(row, fours)} }`),
  };
}

/**
 * Rows of op(A) that lie across k (A is transposed): an invocation loads four rows at some of the four steps along k,
 * others the same rows at other steps, and a lane's vector is four rows' at one step.
 */
function rowsAcrossK(rows: number, variant: MatmulVariant, first = "firstRow", fours = 1): SharedRows {
  const lanes = variant.subgroupSize;
  const quads = rows / 4;
  const steps = Math.min(4, lanes / quads);
  const four = (quad: number, step: number) =>
    ofLane(quad + quads * (step % steps), `a${Math.floor(step / steps)}`, variant);
  return {
    setup: `let loadRow = ${first} + (lane % ${quads}u) * 4u;
  let loadStep = (lane / ${quads}u) % ${steps}u;`,
    loads: range(4 / steps).map((i) => `let a${i}: vec4f = readA(k + ${i * steps}u + loadStep, loadRow);`),
    products: range(quads).map(
      (quad) => `{
      ${range(4)
        .map((step) => `let s${step} = ${four(quad, step)};`)
        .join(" ")}
      ${range(4)
        .map((i) => `{ let a = ${fourRows("s", i)}; ${addToFours(4 * quad + i, fours)} }`)
        .join("\n      ")}
    }`,
    ),
  };
}

/**
 * One subgroup, which hands the vectors of its rows of A from lane to lane; or `slices` of them, each with every
 * `slices`-th step along k, whose sums are added at the end. With several `fours` of columns a lane, a vector of A that
 * was loaded serves more of them.
 */
export function subgroupTile(
  variant: MatmulVariant,
  wantedRows: number,
  { slices = 1, fours: wantedFours = 1 }: { readonly slices?: number; readonly fours?: number } = {},
): MatmulTile {
  const { subgroupSize: lanes, gated, norm, turns } = variant;
  const across = variant.layout === "TN";
  // Gated, a lane has one four of gates and one of what they are for; of heads that are turned one of each half.
  const fours = gated || turns ? 2 : wantedFours;
  const ownFours = gated ? 1 : fours;
  const fourStep = turns ? turns / 2 : 4 * lanes;
  const rows = across ? Math.min(wantedRows, 4 * lanes) : wantedRows;
  const { setup, loads, products } = (across ? rowsAcrossK : rowsAlongK)(rows, variant, "firstRow", fours);
  const split = slices > 1;
  // Slices may not hand over within the loop, and one lane alone may not look codes up.
  const shifted = variant.loadsB === "shifted" && !split && variant.format !== "nf4";
  const readB = (line: string, column: string) =>
    shifted ? `readBOfLane(${line}, ${column}, lane)` : `readB(${line}, ${column})`;
  const ownColumn = (four: number) => (four === 0 ? "column" : `column + ${gated ? "u.N" : `${fourStep * four}u`}`);
  const columnsInB = shifted ? range(fours).map((four) => `let inB${four} = min(${ownColumn(four)}, u.N - 1u);`) : [];
  const loadsB = range(fours).flatMap((four) => {
    const column = shifted ? `inB${four}` : ownColumn(four);
    return loadB(variant.layout, (line) => readB(line, column), { name: fourOf(four, fours), column });
  });
  return {
    enable: ["subgroups"],
    groupSize: slices * lanes,
    rows,
    columns: 4 * lanes * ownFours,
    declarations: [
      operandLoads(variant, shifted ? lanes : 0),
      split ? sliceDeclarations(rows * lanes) : "",
      norm === "takes" ? factorOfRow : "",
      gated ? `\nalias E = vec4f;${sigmoid("E")}` : "",
    ].join(""),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32",
    setup: `let ownFirst = firstRow;
  ${setup}${split ? claimNumber("slicesClaimed", "slice") : ""}`,
    matmul: /* wgsl */ `${turns ? `${firstHalf(turns)}\n  ` : ""}${split ? "var" : "let"} column = ${turns ? "firstHalf" : "firstColumn"} + lane * 4u;
${columnsInB.map((line) => `  ${line}\n`).join("")}${declareSums(variant, rows, fours, fourStep)}
  ${split ? "@diagnostic(off, subgroup_uniformity) // a slice is a whole subgroup" : ""}
  for (var k = ${split ? "4u * slice" : "0u"}; k < u.K; k += ${4 * slices}u) {
    ${[...loads, ...loadsB, ...products].join("\n    ")}
  }${split ? addSlices(rows, lanes, slices) : ""}${norm === "takes" ? scaleRows(rows, fours, variant) : ""}${gated ? applyGates(rows) : ""}`,
    ownRows: rows,
    rowStep: 1,
    ownFours,
    fourStep,
    acrossColumns: ACROSS_LANES,
    leads: split ? "(lane == 0u && slice == 0u)" : "lane == 0u",
  };
}

/** Multiplies the sums of each row with its factor, which a lane computes for the rows of A that it loads. */
function scaleRows(rows: number, fours: number, variant: MatmulVariant): string {
  const { subgroupSize: lanes } = variant;
  const factor = (row: number) => ofLane(row % lanes, `factor${Math.floor(row / lanes)}`, variant);
  return /* wgsl */ `
  ${range(Math.max(1, rows / lanes))
    .map((i) => `let factor${i}: f32 = rowFactor(loadRow + ${i * lanes}u);`)
    .join(" ")}
  ${range(rows)
    .map((row) => {
      const sums = range(fours).map((four) => `sum${row * fours + four} *= factor;`);
      return `{ let factor = ${factor(row)}; ${sums.join(" ")} }`;
    })
    .join("\n  ")}`;
}

/** Makes one sum of a row's gates and what they are multiplied with, from the first row on: none is read again. */
const applyGates = (rows: number): string => `
  ${range(rows)
    .map((row) => `sum${row} = sum${2 * row} * sigmoid(sum${2 * row}) * sum${2 * row + 1};`)
    .join("\n  ")}`;

export const ACROSS_LANES = /* wgsl */ `
fn columnsMax(value: f32, lane: u32) -> f32 { return subgroupMax(value); }
fn columnsSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }
`;

/**
 * Several subgroups, one above the other, each with its own rows of A, which share the columns of B through workgroup
 * memory: four of 16 rows read 0.33 times the bytes of a single one at 32 lanes, and half at 8. A's rows are never
 * moved by whole vectors beyond K, so it takes aligned operands only.
 */
export function sharingTile(variant: MatmulVariant, rows: number, subgroups: number): MatmulTile {
  const lanes = variant.subgroupSize;
  const group = subgroups * lanes;
  const steps = lanes <= 32 ? 16 : 8; // 64 lanes have 256 columns, of which 16 KiB hold no more
  const across = variant.layout === "TN";
  const { setup, loads, products } = (across ? rowsAcrossK : rowsAlongK)(rows, variant, "ownFirst");
  const b = { name: "B", alongK: variant.layout === "NT", quads: lanes, first: "firstColumn" } as const;
  return {
    enable: ["subgroups"],
    groupSize: group,
    rows: subgroups * rows,
    columns: 4 * lanes,
    declarations: `${operandLoads(variant)}
var<workgroup> subgroupsClaimed: atomic<u32>;${declareShared([b], steps)}`,
    parameters:
      "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) lane: u32",
    setup: `${claimNumber("subgroupsClaimed", "subgroup")}
  let ownFirst = firstRow + subgroup * ${rows}u;
  ${setup}`,
    matmul: /* wgsl */ `let column = firstColumn + lane * 4u;
${declareSums(variant, rows)}
  for (var start = 0u; start < u.K; start += ${steps}u) {
    workgroupBarrier();
    { let k = start;
    ${fillShared(b, steps, group, variant)} }
    workgroupBarrier();
    for (var four = 0u; four < ${steps / 4}u; four++) {
      let i = 4u * four; // so that Tint can tell how large it gets
      let k = start + i;
      ${[
        ...loads,
        ...range(4).map((j) => `let b${j} = tileB[(i + ${j}u) * ${lanes}u + lane % ${lanes}u];`),
        ...products,
      ].join("\n      ")}
    }
  }`,
    ownRows: rows,
    rowStep: 1,
    ownFours: 1,
    fourStep: 0,
    acrossColumns: ACROSS_LANES,
    leads: "lane == 0u",
  };
}

/** Split-K: room for the sums of one slice, a vec4f of every lane and row. */
const sliceDeclarations = (sums: number) => /* wgsl */ `
var<workgroup> slicesClaimed: atomic<u32>;
var<workgroup> sliceSums: array<vec4f, ${sums}>;`;

/** Adds the slices' sums to those of slice 0, in their order; the others are left without columns. */
function addSlices(rows: number, lanes: number, slices: number): string {
  const at = (row: number) => `sliceSums[${row * lanes}u + lane]`;
  const each = (statement: (row: number) => string) => range(rows).map(statement).join(" ");
  return /* wgsl */ `
  for (var other = 1u; other < ${slices}u; other++) {
    workgroupBarrier();
    if (slice == other) { ${each((row) => `${at(row)} = sum${row};`)} }
    workgroupBarrier();
    if (slice == 0u) { ${each((row) => `sum${row} += ${at(row)};`)} }
  }
  column = select(u.N, column, slice == 0u);`;
}
