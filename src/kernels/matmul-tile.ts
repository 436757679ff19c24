/**
 * A tile of a matmul, the body that the matmul and the language-model head share: the ways in which a workgroup
 * computes its part of op(A) op(B). Not an epilogue: the caller decides what becomes of the sums. Sums are f32, over k
 * in an order fixed by the shapes.
 */
import { type MatmulLayout, type MatmulVariant, operandLoads } from "./matmul-variant.ts";
import { ofLane } from "./wgsl.ts";

/**
 * A tile of a matmul in registers: WGSL on which other kernels build their own epilogue. The entry point has the
 * parameters `group` and `lane` and declares `firstRow` and `firstColumn`. `setup` declares `ownFirst`, the first of
 * the invocation's `ownRows` rows; `matmul` declares `sum0`, `sum1` and so on for these, each a vec4f: the columns
 * `column` to `column + 3`. M, N, K, aWidth and aFrom are members of the uniforms.
 */
export interface MatmulTile {
  readonly enable: readonly string[];
  readonly groupSize: number;
  /** Result rows and columns that one workgroup covers. */
  readonly rows: number;
  readonly columns: number;
  readonly declarations: string;
  readonly parameters: string;
  /** Once, after `firstRow`. */
  readonly setup: string;
  /** Declares the sums and computes them for `firstRow` and `firstColumn`. */
  readonly matmul: string;
  readonly ownRows: number;
  /** `columnsMax(value, lane)` and `columnsSum(value, lane)`: over all invocations that share the caller's rows. */
  readonly acrossColumns: string;
  /** Is this invocation the one that writes for its rows? */
  readonly leads: string;
}

/**
 * WGSL for `firstRow` and `firstColumn` of a workgroup of `tileGrid`. Workgroups run in about the order of their
 * numbers, x first: consecutive tiles share their part of the longer operand and walk the shorter one, which caches
 * hold. Where both are equally long, a transposed A is shared: at 1024^3 on lavapipe with tiles of 16 rows sharing A
 * takes 42 ms instead of 53 in TN, and 55 instead of 40 in NN.
 */
export const tileOrigin = ({ layout }: MatmulVariant, { rows, columns }: MatmulTile): string => /* wgsl */ `
  let place = select(group.xy, group.yx, u.N ${layout === "TN" ? ">" : ">="} u.M);
  let firstRow = place.y * ${rows}u;
  let firstColumn = place.x * ${columns}u;`;

/** Workgroups for a result of M rows and N columns. */
export function tileGrid({ layout }: MatmulVariant, tile: MatmulTile, M: number, N: number): [number, number] {
  const [rows, columns] = [Math.ceil(M / tile.rows), Math.ceil(N / tile.columns)];
  const rowsFirst = layout === "TN" ? N > M : N >= M;
  return rowsFirst ? [rows, columns] : [columns, rows];
}

/** The tile of a variant. */
export function matmulTile(variant: MatmulVariant): MatmulTile {
  switch (variant.tile) {
    case "workgroup32":
      return workgroupTile(variant, 32, 4);
    case "workgroup64":
      return workgroupTile(variant, 64, 8);
    case "registers":
      return registerTile(variant);
    default: {
      const [rows, slices] = variant.tile.slice("subgroup".length).split("k").map(Number);
      return subgroupTile(variant, rows ?? 16, slices);
    }
  }
}

const range = (count: number) => Array.from({ length: count }, (_, index) => index);
const COMPONENTS = ["x", "y", "z", "w"];

/** Loads of op(B) rows k to k + 3 at the invocation's four columns: vec4fs b0 to b3. */
function loadB(layout: MatmulLayout, read = (line: string) => `readB(${line}, column)`): string[] {
  if (layout !== "NT") return range(4).map((i) => `let b${i} = ${read(`k + ${i}u`)};`);
  return [
    ...range(4).map((i) => `let t${i} = readB(column + ${i}u, k);`),
    ...COMPONENTS.map((c, i) => `let b${i} = vec4f(t0.${c}, t1.${c}, t2.${c}, t3.${c});`),
  ];
}

/** The invocation's four rows of a transposed A, each a vec4f of four along k: a0 to a3. */
function transposedLoads(): string[] {
  return [
    ...range(4).map((i) => `let s${i} = readA(k + ${i}u, ownFirst);`),
    ...COMPONENTS.map((c, i) => `let a${i} = vec4f(s0.${c}, s1.${c}, s2.${c}, s3.${c});`),
  ];
}

/** `sum` plus a row's four along k times the four rows of B. */
const addProducts = (sum: string) =>
  `${sum} = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, ${sum}))));`;

const declareSums = (rows: number) =>
  range(rows)
    .map((row) => `  var sum${row} = vec4f();`)
    .join("\n");

interface SharedRows {
  /** Declares what the loads take. */
  readonly setup: string;
  /** An invocation's part of the four steps along k. */
  readonly loads: readonly string[];
  /** The products of every row, in order. */
  readonly products: readonly string[];
}

/** Rows of op(A) that lie along k: an invocation loads four numbers along k of every `lanes`-th row. */
function rowsAlongK(rows: number, variant: MatmulVariant): SharedRows {
  const lanes = variant.subgroupSize;
  const registers = Math.max(1, rows / lanes);
  const four = (row: number) => ofLane(row % lanes, `a${Math.floor(row / lanes) % registers}`, variant);
  return {
    setup: `let loadRow = firstRow + lane % ${Math.min(lanes, rows)}u;`,
    loads: range(registers).map((i) => `let a${i} = readA(loadRow + ${i * lanes}u, k);`),
    products: range(rows).map((row) => `{ let a = ${four(row)}; ${addProducts(`sum${row}`)} }`),
  };
}

/**
 * Rows of op(A) that lie across k (A is transposed): an invocation loads four rows at some of the four steps along k,
 * others the same rows at other steps, and a lane's vector is four rows' at one step.
 */
function rowsAcrossK(rows: number, variant: MatmulVariant): SharedRows {
  const lanes = variant.subgroupSize;
  const quads = rows / 4;
  const steps = Math.min(4, lanes / quads);
  const four = (quad: number, step: number) =>
    ofLane(quad + quads * (step % steps), `a${Math.floor(step / steps)}`, variant);
  return {
    setup: `let loadRow = firstRow + (lane % ${quads}u) * 4u;
  let loadStep = (lane / ${quads}u) % ${steps}u;`,
    loads: range(4 / steps).map((i) => `let a${i} = readA(k + ${i * steps}u + loadStep, loadRow);`),
    products: range(quads).map(
      (quad) => `{
      ${range(4)
        .map((step) => `let s${step} = ${four(quad, step)};`)
        .join(" ")}
      ${COMPONENTS.map(
        (c, i) => `{ let a = vec4f(s0.${c}, s1.${c}, s2.${c}, s3.${c}); ${addProducts(`sum${4 * quad + i}`)} }`,
      ).join("\n      ")}
    }`,
    ),
  };
}

function subgroupTile(variant: MatmulVariant, wantedRows: number, slices = 1): MatmulTile {
  const lanes = variant.subgroupSize;
  const across = variant.layout === "TN";
  const rows = across ? Math.min(wantedRows, 4 * lanes) : wantedRows;
  const { setup, loads, products } = across ? rowsAcrossK(rows, variant) : rowsAlongK(rows, variant);
  const split = slices > 1;
  const shifted = variant.loadsB === "shifted" && !split; // slices may not hand over within the loop
  const readB = (line: string) => (shifted ? `readBOfLane(${line}, column, lane)` : `readB(${line}, column)`);
  return {
    enable: ["subgroups"],
    groupSize: slices * lanes,
    rows,
    columns: 4 * lanes,
    declarations: operandLoads(variant, shifted ? lanes : 0) + (split ? sliceDeclarations(rows * lanes) : ""),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32",
    setup: `let ownFirst = firstRow;
  ${setup}${split ? CLAIM_SLICE : ""}`,
    matmul: /* wgsl */ `${split ? "var" : "let"} column = firstColumn + lane * 4u;
${declareSums(rows)}
  ${split ? "@diagnostic(off, subgroup_uniformity) // a slice is a whole subgroup" : ""}
  for (var k = ${split ? "4u * slice" : "0u"}; k < u.K; k += ${4 * slices}u) {
    ${[...loads, ...loadB(variant.layout, readB), ...products].join("\n    ")}
  }${split ? addSlices(rows, lanes, slices) : ""}`,
    ownRows: rows,
    acrossColumns: /* wgsl */ `
fn columnsMax(value: f32, lane: u32) -> f32 { return subgroupMax(value); }
fn columnsSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }
`,
    leads: split ? "(lane == 0u && slice == 0u)" : "lane == 0u",
  };
}

/** Split-K: room for the sums of one slice, a vec4f of every lane and row. */
const sliceDeclarations = (sums: number) => /* wgsl */ `
var<workgroup> slicesClaimed: atomic<u32>;
var<workgroup> sliceSums: array<vec4f, ${sums}>;`;

/**
 * Each subgroup draws its slice, since WGSL does not say which invocations of a workgroup are a subgroup. Whoever gets
 * which, the sums of a slice are the same.
 */
const CLAIM_SLICE = /* wgsl */ `
  var claim = 0u;
  if (subgroupElect()) { claim = atomicAdd(&slicesClaimed, 1u); }
  let slice = subgroupBroadcastFirst(claim);`;

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

/**
 * After `matmul`, a loop over the invocation's rows that exist, for an epilogue in terms of `row` and its sums `value`.
 * The sums leave their registers once for it; compilers do not know how often it runs, so that none unrolls it: on
 * lavapipe the branches of 16 epilogues took 2.5 of 2.8 s to compile.
 */
export function eachRow({ ownRows }: MatmulTile, body: string): string {
  return /* wgsl */ `var sums = array<vec4f, ${ownRows}>(${range(ownRows)
    .map((row) => `sum${row}`)
    .join(", ")});
  for (var row = ownFirst; row < min(ownFirst + ${ownRows}u, u.M); row++) {
    let value = sums[row - ownFirst];
    ${body}
  }`;
}

/** Along k, what a tile in workgroup memory holds at once. */
const TILE_K = 16;

/** Sums over the invocations of a row, `lanes` neighbours in a workgroup of `group`, through workgroup memory. */
const acrossNeighbours = (lanes: number, group: number) => /* wgsl */ `
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

/** A square of `size` rows and columns, each invocation with `rows` rows by 4 columns of it. */
function workgroupTile(variant: MatmulVariant, size: number, rows: number): MatmulTile {
  const perRow = size / 4;
  const group = (size / rows) * perRow;
  // Tiles lie k-major, [TILE_K][size]. An operand whose stored rows run along k is scattered on the way in.
  const loadTile = (name: "A" | "B", alongK: boolean, first: string) => {
    const perInvocation = (size * TILE_K) / 4 / group;
    const quadsPerLine = (alongK ? TILE_K : size) / 4;
    const places = alongK
      ? range(4).map((i) => `(at + ${i}u) * ${size}u + line`)
      : range(4).map((i) => `line * ${size}u + at + ${i}u`);
    return /* wgsl */ `
    for (var i = 0u; i < ${perInvocation}u; i++) {
      let quad = i * ${group}u + lane;
      let line = quad / ${quadsPerLine}u;
      let at = (quad % ${quadsPerLine}u) * 4u;
      let value = ${alongK ? `read${name}(${first} + line, k + at)` : `read${name}(k + line, ${first} + at)`};
      ${places.map((place, i) => `tile${name}[${place}] = value.${COMPONENTS[i]};`).join("\n      ")}
    }`;
  };
  return {
    enable: [],
    groupSize: group,
    rows: size,
    columns: size,
    declarations: /* wgsl */ `${operandLoads(variant)}
var<workgroup> tileA: array<f32, ${size * TILE_K}>;
var<workgroup> tileB: array<f32, ${size * TILE_K}>;`,
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32",
    setup: `let ownRow = (lane / ${perRow}u) * ${rows}u;
  let ownFirst = firstRow + ownRow;`,
    matmul: /* wgsl */ `let ownColumn = (lane % ${perRow}u) * 4u;
  let column = firstColumn + ownColumn;
${declareSums(rows)}
  for (var k = 0u; k < u.K; k += ${TILE_K}u) {
    workgroupBarrier();
    ${loadTile("A", variant.layout !== "TN", "firstRow")}
    ${loadTile("B", variant.layout === "NT", "firstColumn")}
    workgroupBarrier();
    // Vector loads past K read clamped values: only the k that exist take part.
    let last = min(${TILE_K}u, u.K - k);
    for (var i = 0u; i < last; i++) {
      let at = i * ${size}u;
      let b = vec4f(${range(4)
        .map((c) => `tileB[at + ownColumn + ${c}u]`)
        .join(", ")});
${range(rows)
  .map((row) => `      sum${row} = fma(vec4f(tileA[at + ownRow + ${row}u]), b, sum${row});`)
  .join("\n")}
    }
  }`,
    ownRows: rows,
    acrossColumns: acrossNeighbours(perRow, group),
    leads: `lane % ${perRow}u == 0u`,
  };
}

/** 8 by 8 invocations, each with 4 rows by 4 columns. */
function registerTile(variant: MatmulVariant): MatmulTile {
  const loadA =
    variant.layout === "TN" ? transposedLoads() : range(4).map((i) => `let a${i} = readA(ownFirst + ${i}u, k);`);
  return {
    enable: [],
    groupSize: 64,
    rows: 32,
    columns: 32,
    declarations: operandLoads(variant),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32",
    setup: "let ownFirst = firstRow + (lane / 8u) * 4u;",
    matmul: /* wgsl */ `let column = firstColumn + (lane % 8u) * 4u;
${declareSums(4)}
  for (var k = 0u; k < u.K; k += 4u) {
    ${loadA.join("\n    ")}
    ${loadB(variant.layout).join("\n    ")}
${range(4)
  .map((row) => `    { let a = a${row}; ${addProducts(`sum${row}`)} }`)
  .join("\n")}
  }`,
    ownRows: 4,
    acrossColumns: acrossNeighbours(8, 64),
    leads: "lane % 8u == 0u",
  };
}
