/**
 * Matrix product  out = scale op(A) op(B) [+ bias] [+ residual] [+ out],  op = identity or transpose.
 *
 *   NN  A [M, K]  B [K, N]     a linear layer on [in, out] weights; the input gradient of one on [out, in] weights
 *   NT  A [M, K]  B [N, K]     a linear layer on [out, in] weights; the input gradient of one on [in, out] weights
 *   TN  A [K, M]  B [K, N]     weight gradients (K counts rows of the batch)
 *
 * B may be stored as f32, f16 or bf16; A and the result are f32. A and the result may be column ranges of wider matrices,
 * as the parts of fused rows are.
 *
 * One template: a layout only changes how operands are loaded. Two bodies: with subgroups of a known size, each lane
 * loads vec4s of A for its own rows once, `subgroupBroadcast` hands them round, and every lane multiplies them with
 * its own four columns of B, so nothing passes through workgroup memory and there is no barrier. Elsewhere, square
 * tiles in workgroup memory. Sums are f32, in an order fixed by the shapes.
 */
import { type Kernel, kernel, type StoredFormat } from "./kernel.ts";
import { storedBinding, storedBytes, storedElement, storedFunctions, storedVector } from "./stored.ts";
import type { AdapterFacts } from "./wgsl.ts";

export type MatmulLayout = "NN" | "NT" | "TN";

export interface MatmulShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export type MatmulKernel = Kernel<
  "a" | "b" | "bias" | "residual" | "out",
  "M" | "N" | "K" | "aWidth" | "aFrom" | "outWidth" | "outFrom" | "scale" | "hasBias" | "hasResidual" | "accumulate"
>;

/** What a product's kernel depends on beside its layout and shape. */
export interface ProductOperands {
  /** How B is stored; default f32. */
  readonly format?: StoredFormat;
  /** Widths of the matrices that A and the result are column ranges of, and the first columns of these; default whole. */
  readonly aWidth?: number;
  readonly aFrom?: number;
  readonly outWidth?: number;
  readonly outFrom?: number;
}

const cache = new Map<string, MatmulKernel>();

/**
 * The kernel for a product of this layout and shape. `scale` multiplies the product; `hasBias` adds `bias[N]` to each
 * row, `hasResidual` adds `residual[M, N]`, `accumulate` adds what `out` held; pass any other small tensor for an operand
 * that is not used. A is the columns from `aFrom` on of a, the result those from `outFrom` on of out.
 */
export function matmul(
  layout: MatmulLayout,
  shape: MatmulShape,
  facts: AdapterFacts,
  operands: ProductOperands = {},
): MatmulKernel {
  const variant = productVariant(layout, shape, facts, operands);
  const key = JSON.stringify(variant);
  let found = cache.get(key);
  if (found === undefined) {
    found = buildMatmul(variant);
    cache.set(key, found);
  }
  return found;
}

/** What a product's text depends on. */
export interface ProductVariant {
  readonly layout: MatmulLayout;
  /** Operands are read as vec4f: their contiguous axis and K are multiples of 4. */
  readonly vectorLoads: boolean;
  /** `out` and `residual` are seen as vec4f: N is a multiple of 4. */
  readonly vectorStores: boolean;
  readonly subgroupSize: number;
  /** How B is stored. */
  readonly format: StoredFormat;
}

/** The variant for a shape: vectors wherever the contiguous axes allow them. */
export function productVariant(
  layout: MatmulLayout,
  { M, N, K }: MatmulShape,
  facts: AdapterFacts,
  { format = "f32", aWidth = 0, aFrom = 0, outWidth = 0, outFrom = 0 }: ProductOperands = {},
): ProductVariant {
  const contiguousA = layout === "TN" ? M : K;
  const contiguousB = layout === "NT" ? K : N;
  const fours = (...sizes: number[]) => sizes.every((size) => size % 4 === 0);
  return {
    layout,
    vectorLoads: fours(contiguousA, contiguousB, K, aWidth, aFrom),
    vectorStores: fours(N, outWidth, outFrom),
    subgroupSize: facts.subgroupSize,
    format,
  };
}

/** The declarations of the two operands, named a and b, for a kernel that computes a product. */
export function operandBindings(variant: ProductVariant): { a: string; b: string } {
  const { layout, vectorLoads, format } = variant;
  return {
    a: storedBinding("f32", layout === "TN" ? "K, aWidth" : "M, aWidth", vectorLoads),
    b: storedBinding(format, layout === "NT" ? "N, K" : "K, N", vectorLoads),
  };
}

function buildMatmul(variant: ProductVariant): MatmulKernel {
  const tile = productTile(variant);
  const result = variant.vectorStores ? " as vec4f" : "";
  return kernel({
    name: `matmul${variant.layout}`,
    read: {
      ...operandBindings(variant),
      bias: "f32[biasSize]",
      residual: `f32[residualRows, residualColumns]${result}`,
    },
    write: { out: `f32[M, outWidth]${result}` },
    uniforms: {
      M: "u32",
      N: "u32",
      K: "u32",
      aWidth: "u32",
      aFrom: "u32",
      outWidth: "u32",
      outFrom: "u32",
      scale: "f32",
      hasBias: "u32",
      hasResidual: "u32",
      accumulate: "u32",
    },
    enable: tile.enable,
    wgsl: /* wgsl */ `${tile.declarations}
${epilogue(variant)}

@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {
  let firstRow = group.y * ${tile.rows}u;
  let firstColumn = group.x * ${tile.columns}u;
  ${tile.setup}
  ${tile.product}
  ${tile.eachRow("store(row, column, value);")}
}`,
    grid: ({ M = 0, N = 0 }) => [Math.ceil(N / tile.columns), Math.ceil(M / tile.rows)],
    cost: ({ M = 0, N = 0, K = 0 }) => ({
      flops: 2 * M * N * K,
      bytes: 4 * (M * K + M * N) + storedBytes(variant.format) * K * N,
    }),
  });
}

/** `store(row, column, value)`: four neighbouring columns through the epilogue, whatever lies outside left alone. */
function epilogue(variant: ProductVariant): string {
  if (variant.vectorStores) {
    return /* wgsl */ `
fn store(row: u32, column: u32, product: vec4f) {
  if (row >= u.M || column >= u.N) { return; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}`;
  }
  return /* wgsl */ `
fn storeOne(row: u32, column: u32, product: f32) {
  if (row >= u.M || column >= u.N) { return; }
  let i = row * u.outWidth + u.outFrom + column;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += bias[column]; }
  if (u.hasResidual != 0u) { value += residual[row * u.N + column]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}
fn store(row: u32, column: u32, product: vec4f) {
  storeOne(row, column, product.x);
  storeOne(row, column + 1u, product.y);
  storeOne(row, column + 2u, product.z);
  storeOne(row, column + 3u, product.w);
}`;
}

/**
 * `readA(line, at)` and `readB(line, at)`: four contiguous elements of an operand from column `at` of its stored row
 * `line`. Vector loads clamp (what lies outside meets only results that are never stored); scalar loads give zeros.
 */
function operandLoads(variant: ProductVariant): string {
  const lines = { a: variant.layout === "TN" ? "u.K" : "u.M", b: variant.layout === "NT" ? "u.N" : "u.K" };
  const widths = { a: variant.layout === "TN" ? "u.M" : "u.K", b: variant.layout === "NT" ? "u.K" : "u.N" };
  const starts = { a: (line: string) => `${line} * u.aWidth + u.aFrom`, b: (line: string) => `${line} * ${widths.b}` };
  const formats = { a: "f32", b: variant.format } as const;
  const loads = (["a", "b"] as const)
    .map((name) => {
      const load = `read${name.toUpperCase()}`;
      if (variant.vectorLoads) {
        const start = starts[name](`min(line, ${lines[name]} - 1u)`);
        return /* wgsl */ `
fn ${load}(line: u32, at: u32) -> vec4f {
  let four = (${start} + min(at, ${widths[name]} - 4u)) / 4u;
  return ${storedVector(formats[name], name, "four")};
}`;
      }
      return /* wgsl */ `
fn ${load}One(line: u32, at: u32) -> f32 {
  let inside = (line < ${lines[name]}) & (at < ${widths[name]}); // not &&, which branches
  let i = select(0u, ${starts[name]("line")} + at, inside);
  return select(0.0, ${storedElement(formats[name], name, "i")}, inside);
}
fn ${load}(line: u32, at: u32) -> vec4f {
  return vec4f(${load}One(line, at), ${load}One(line, at + 1u), ${load}One(line, at + 2u), ${load}One(line, at + 3u));
}`;
    })
    .join("\n");
  return storedFunctions(variant.format) + loads;
}

/**
 * A tile of a product in registers: WGSL that other kernels build their own epilogue on. The entry point has the
 * parameters `group` and `lane` and declares `firstRow` and `firstColumn`; after `setup` and `product`, each of `sums`
 * is a vec4f: the columns `column` to `column + 3` of its row. M, N, K, aWidth and aFrom are members of the
 * uniforms.
 */
export interface ProductTile {
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
  readonly product: string;
  readonly sums: readonly { readonly name: string; readonly row: string }[];
  /** A loop over the sums for an epilogue in terms of `row` and `value`: unrolled, its branches take long to compile. */
  readonly eachRow: (body: string) => string;
  /** `columnsMax(value, lane)` and `columnsSum(value, lane)`: over all invocations that share the caller's rows. */
  readonly acrossColumns: string;
  /** Is this invocation the one that writes for its rows? */
  readonly leads: string;
}

/** The tile for a variant: by subgroups of a known size where there are, else in workgroup memory. */
export function productTile(variant: ProductVariant): ProductTile {
  return variant.subgroupSize >= 4 ? subgroupTile(variant) : workgroupTile(variant);
}

/**
 * Rows of the result per subgroup: enough to use each vec4 of B often, few enough accumulators not to spill. In TN, where
 * a lane's vec4 of A holds four rows, 32 gave 45 instead of 36 GFLOP/s at 512^3 on lavapipe, but took 10 s instead of 3
 * to compile.
 */
const SUBGROUP_ROWS = 16;

const range = (count: number) => Array.from({ length: count }, (_, index) => index);
const COMPONENTS = ["x", "y", "z", "w"];

function subgroupTile(variant: ProductVariant): ProductTile {
  const lanes = variant.subgroupSize;
  const transposedA = variant.layout === "TN";
  const rows = transposedA ? Math.min(SUBGROUP_ROWS, 4 * lanes) : SUBGROUP_ROWS;
  const registers = transposedA ? 4 : Math.max(1, rows / lanes);
  const loadA = transposedA
    ? [
        ...range(4).map((i) => `let s${i} = readA(k + ${i}u, ownRow);`),
        ...COMPONENTS.map((c, i) => `let a${i} = vec4f(s0.${c}, s1.${c}, s2.${c}, s3.${c});`),
      ]
    : range(registers).map((i) => `let a${i} = readA(ownRow + ${i * lanes}u, k);`);
  const loadB =
    variant.layout === "NT"
      ? [
          ...range(4).map((i) => `let t${i} = readB(column + ${i}u, k);`),
          ...COMPONENTS.map((c, i) => `let b${i} = vec4f(t0.${c}, t1.${c}, t2.${c}, t3.${c});`),
        ]
      : range(4).map((i) => `let b${i} = readB(k + ${i}u, column);`);
  const broadcast = (row: number) =>
    transposedA
      ? `subgroupBroadcast(a${row % 4}, ${Math.floor(row / 4)}u)`
      : `subgroupBroadcast(a${Math.floor(row / lanes) % registers}, ${row % lanes}u)`;
  const ownRow = transposedA ? `(lane % ${rows / 4}u) * 4u` : `lane % ${Math.min(lanes, rows)}u`;
  return {
    enable: ["subgroups"],
    groupSize: lanes,
    rows,
    columns: 4 * lanes,
    declarations: operandLoads(variant),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32",
    setup: `let ownRow = firstRow + ${ownRow};`,
    product: /* wgsl */ `let column = firstColumn + lane * 4u;
${range(rows)
  .map((row) => `  var sum${row} = vec4f();`)
  .join("\n")}
  for (var k = 0u; k < u.K; k += 4u) {
    ${loadA.join("\n    ")}
    ${loadB.join("\n    ")}
${range(rows)
  .map(
    (row) => `    { let a = ${broadcast(row)};
      sum${row} = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, sum${row})))); }`,
  )
  .join("\n")}
  }`,
    sums: range(rows).map((row) => ({ name: `sum${row}`, row: `firstRow + ${row}u` })),
    eachRow: (body) => rowLoop(rows, "firstRow", body),
    acrossColumns: /* wgsl */ `
fn columnsMax(value: f32, lane: u32) -> f32 { return subgroupMax(value); }
fn columnsSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }
`,
    leads: "lane == 0u",
  };
}

/** The sums leave their registers once, after the product, so that their rows can be a loop. */
function rowLoop(rows: number, first: string, body: string): string {
  return /* wgsl */ `var sums = array<vec4f, ${rows}>(${range(rows)
    .map((row) => `sum${row}`)
    .join(", ")});
  for (var r = 0u; r < ${rows}u; r++) {
    let row = ${first} + r;
    let value = sums[r];
    ${body}
  }`;
}

const TILE = 32;
const TILE_K = 16;
/** Invocations of a workgroup: 8 rows of 8, each with 4 rows by 4 columns of the result. */
const TILE_GROUP = 64;

function workgroupTile(variant: ProductVariant): ProductTile {
  // Tiles lie k-major, [TILE_K][TILE]. An operand whose stored rows run along k is scattered on the way in.
  const loadTile = (name: "A" | "B", alongK: boolean, first: string) => {
    const perInvocation = (TILE * TILE_K) / 4 / TILE_GROUP;
    const quadsPerLine = (alongK ? TILE_K : TILE) / 4;
    const places = alongK
      ? range(4).map((i) => `(at + ${i}u) * ${TILE}u + line`)
      : range(4).map((i) => `line * ${TILE}u + at + ${i}u`);
    return /* wgsl */ `
    for (var i = 0u; i < ${perInvocation}u; i++) {
      let quad = i * ${TILE_GROUP}u + lane;
      let line = quad / ${quadsPerLine}u;
      let at = (quad % ${quadsPerLine}u) * 4u;
      let value = ${alongK ? `read${name}(${first} + line, k + at)` : `read${name}(k + line, ${first} + at)`};
      ${places.map((place, i) => `tile${name}[${place}] = value.${COMPONENTS[i]};`).join("\n      ")}
    }`;
  };
  return {
    enable: [],
    groupSize: TILE_GROUP,
    rows: TILE,
    columns: TILE,
    declarations: /* wgsl */ `${operandLoads(variant)}
var<workgroup> tileA: array<f32, ${TILE * TILE_K}>;
var<workgroup> tileB: array<f32, ${TILE * TILE_K}>;`,
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32",
    setup: "let ownRow = (lane / 8u) * 4u;",
    product: /* wgsl */ `let ownColumn = (lane % 8u) * 4u;
  let column = firstColumn + ownColumn;
${range(4)
  .map((row) => `  var sum${row} = vec4f();`)
  .join("\n")}
  for (var k = 0u; k < u.K; k += ${TILE_K}u) {
    workgroupBarrier();
    ${loadTile("A", variant.layout !== "TN", "firstRow")}
    ${loadTile("B", variant.layout === "NT", "firstColumn")}
    workgroupBarrier();
    // Vector loads past K read clamped values: only the k that exist take part.
    let last = min(${TILE_K}u, u.K - k);
    for (var i = 0u; i < last; i++) {
      let at = i * ${TILE}u;
      let b = vec4f(${range(4)
        .map((c) => `tileB[at + ownColumn + ${c}u]`)
        .join(", ")});
${range(4)
  .map((row) => `      sum${row} = fma(vec4f(tileA[at + ownRow + ${row}u]), b, sum${row});`)
  .join("\n")}
    }
  }`,
    sums: range(4).map((row) => ({ name: `sum${row}`, row: `firstRow + ownRow + ${row}u` })),
    eachRow: (body) => rowLoop(4, "firstRow + ownRow", body),
    acrossColumns: /* wgsl */ `
var<workgroup> acrossColumns: array<f32, ${TILE_GROUP}>;
fn columnsMax(value: f32, lane: u32) -> f32 {
  workgroupBarrier();
  acrossColumns[lane] = value;
  workgroupBarrier();
  var result = value;
  for (var i = 0u; i < 8u; i++) { result = max(result, acrossColumns[lane / 8u * 8u + i]); }
  return result;
}
fn columnsSum(value: f32, lane: u32) -> f32 {
  workgroupBarrier();
  acrossColumns[lane] = value;
  workgroupBarrier();
  var result = 0.0;
  for (var i = 0u; i < 8u; i++) { result += acrossColumns[lane / 8u * 8u + i]; }
  return result;
}
`,
    leads: "lane % 8u == 0u",
  };
}
