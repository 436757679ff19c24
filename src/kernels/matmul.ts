/**
 * Matrix product  out = op(A) op(B) [+ bias] [+ residual] [+ out],  op = identity or transpose.
 *
 *   NN  A [M, K]  B [K, N]     a linear layer on [in, out] weights; the input gradient of one on [out, in] weights
 *   NT  A [M, K]  B [N, K]     a linear layer on [out, in] weights; the input gradient of one on [in, out] weights
 *   TN  A [K, M]  B [K, N]     weight gradients (K counts rows of the batch)
 *
 * One template: a layout only changes how operands are loaded. Two bodies: with subgroups of a known size, each lane
 * loads vec4s of A for its own rows once, `subgroupBroadcast` hands them round, and every lane multiplies them with
 * its own four columns of B, so nothing passes through workgroup memory and there is no barrier. Elsewhere, square
 * tiles in workgroup memory. Sums are f32, in an order fixed by the shapes.
 */
import { type Kernel, kernel } from "./kernel.ts";
import type { AdapterFacts } from "./wgsl.ts";

export type MatmulLayout = "NN" | "NT" | "TN";

export interface MatmulShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export type MatmulKernel = Kernel<
  "a" | "b" | "bias" | "residual" | "out",
  "M" | "N" | "K" | "hasBias" | "hasResidual" | "accumulate"
>;

const cache = new Map<string, MatmulKernel>();

/**
 * The kernel for a product of this layout and shape. `hasBias` adds `bias[N]` to each row, `hasResidual` adds
 * `residual[M, N]`, `accumulate` adds what `out` held; pass any other small tensor for an operand that is not used.
 */
export function matmul(layout: MatmulLayout, shape: MatmulShape, facts: AdapterFacts): MatmulKernel {
  const { M, N, K } = shape;
  const contiguousA = layout === "TN" ? M : K;
  const contiguousB = layout === "NT" ? K : N;
  const variant = {
    layout,
    vectorLoads: contiguousA % 4 === 0 && contiguousB % 4 === 0 && K % 4 === 0,
    vectorStores: N % 4 === 0,
    subgroupSize: facts.subgroupSize,
  };
  const key = JSON.stringify(variant);
  let found = cache.get(key);
  if (found === undefined) {
    found = variant.subgroupSize >= 4 ? subgroupMatmul(variant) : tiledMatmul(variant);
    cache.set(key, found);
  }
  return found;
}

interface Variant {
  readonly layout: MatmulLayout;
  /** Operands are read as vec4f: their contiguous axis and K are multiples of 4. */
  readonly vectorLoads: boolean;
  /** `out` and `residual` are seen as vec4f: N is a multiple of 4. */
  readonly vectorStores: boolean;
  readonly subgroupSize: number;
}

function declaration(variant: Variant, rows: number, columns: number, enable: readonly string[], wgsl: string) {
  const operand = variant.vectorLoads ? " as vec4f" : "";
  const result = variant.vectorStores ? " as vec4f" : "";
  return kernel({
    name: `matmul${variant.layout}`,
    read: {
      a: `f32[${variant.layout === "TN" ? "K, M" : "M, K"}]${operand}`,
      b: `f32[${variant.layout === "NT" ? "N, K" : "K, N"}]${operand}`,
      bias: "f32[biasSize]",
      residual: `f32[residualRows, residualColumns]${result}`,
    },
    write: { out: `f32[M, N]${result}` },
    uniforms: { M: "u32", N: "u32", K: "u32", hasBias: "u32", hasResidual: "u32", accumulate: "u32" },
    enable,
    wgsl,
    grid: ({ M = 0, N = 0 }) => [Math.ceil(N / columns), Math.ceil(M / rows)],
    cost: ({ M = 0, N = 0, K = 0 }) => ({ flops: 2 * M * N * K, bytes: 4 * (M * K + K * N + M * N) }),
  });
}

/** `store(row, column, value)`: four neighbouring columns through the epilogue, whatever lies outside left alone. */
function epilogue(variant: Variant): string {
  if (variant.vectorStores) {
    return /* wgsl */ `
fn store(row: u32, column: u32, product: vec4f) {
  if (row >= u.M || column >= u.N) { return; }
  let i = (row * u.N + column) / 4u;
  var value = product;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[i]; }
  if (u.accumulate != 0u) { value += out[i]; }
  out[i] = value;
}`;
  }
  return /* wgsl */ `
fn storeOne(row: u32, column: u32, product: f32) {
  if (row >= u.M || column >= u.N) { return; }
  let i = row * u.N + column;
  var value = product;
  if (u.hasBias != 0u) { value += bias[column]; }
  if (u.hasResidual != 0u) { value += residual[i]; }
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
function operandLoads(variant: Variant): string {
  const lines = { a: variant.layout === "TN" ? "u.K" : "u.M", b: variant.layout === "NT" ? "u.N" : "u.K" };
  const widths = { a: variant.layout === "TN" ? "u.M" : "u.K", b: variant.layout === "NT" ? "u.K" : "u.N" };
  return (["a", "b"] as const)
    .map((name) => {
      const load = `read${name.toUpperCase()}`;
      if (variant.vectorLoads) {
        return /* wgsl */ `
fn ${load}(line: u32, at: u32) -> vec4f {
  return ${name}[(min(line, ${lines[name]} - 1u) * ${widths[name]} + min(at, ${widths[name]} - 4u)) / 4u];
}`;
      }
      return /* wgsl */ `
fn ${load}One(line: u32, at: u32) -> f32 {
  if (line >= ${lines[name]} || at >= ${widths[name]}) { return 0.0; }
  return ${name}[line * ${widths[name]} + at];
}
fn ${load}(line: u32, at: u32) -> vec4f {
  return vec4f(${load}One(line, at), ${load}One(line, at + 1u), ${load}One(line, at + 2u), ${load}One(line, at + 3u));
}`;
    })
    .join("\n");
}

/** Rows of the result per subgroup: enough to use each vec4 of B often, few enough accumulators not to spill. */
const SUBGROUP_ROWS = 16;
/** In TN a lane's vec4 of A holds four rows, so a subgroup covers more of them for the same loads. */
const SUBGROUP_ROWS_TN = 32;

function subgroupMatmul(variant: Variant): MatmulKernel {
  const lanes = variant.subgroupSize;
  const transposedA = variant.layout === "TN";
  const rows = transposedA ? Math.min(SUBGROUP_ROWS_TN, 4 * lanes) : SUBGROUP_ROWS;
  const columns = 4 * lanes;
  const range = (count: number) => Array.from({ length: count }, (_, index) => index);
  const registers = transposedA ? 4 : Math.max(1, rows / lanes);
  const loadA = transposedA
    ? [
        ...range(4).map((i) => `let s${i} = readA(k + ${i}u, ownRow);`),
        ...["x", "y", "z", "w"].map((c, i) => `let a${i} = vec4f(s0.${c}, s1.${c}, s2.${c}, s3.${c});`),
      ]
    : range(registers).map((i) => `let a${i} = readA(ownRow + ${i * lanes}u, k);`);
  const loadB =
    variant.layout === "NT"
      ? [
          ...range(4).map((i) => `let t${i} = readB(column + ${i}u, k);`),
          ...["x", "y", "z", "w"].map((c, i) => `let b${i} = vec4f(t0.${c}, t1.${c}, t2.${c}, t3.${c});`),
        ]
      : range(4).map((i) => `let b${i} = readB(k + ${i}u, column);`);
  const broadcast = (row: number) =>
    transposedA
      ? `subgroupBroadcast(a${row % 4}, ${Math.floor(row / 4)}u)`
      : `subgroupBroadcast(a${Math.floor(row / lanes) % registers}, ${row % lanes}u)`;
  const ownRow = transposedA
    ? `firstRow + (lane % ${rows / 4}u) * 4u`
    : `firstRow + lane % ${Math.min(lanes, rows)}u`;
  const body = /* wgsl */ `
${operandLoads(variant)}
${epilogue(variant)}

@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let firstRow = group.y * ${rows}u;
  let column = group.x * ${columns}u + lane * 4u;
  let ownRow = ${ownRow};
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
  }
${range(rows)
  .map((row) => `  store(firstRow + ${row}u, column, sum${row});`)
  .join("\n")}
}`;
  return declaration(variant, rows, columns, ["subgroups"], body);
}

const TILE = 32;
const TILE_K = 16;
const TILE_GROUP = 64;

function tiledMatmul(variant: Variant): MatmulKernel {
  // Tiles are stored k-major, in vec4s of four rows of A or four columns of B: [TILE_K][TILE / 4].
  const tile = (name: "A" | "B", alongK: boolean, first: string) => {
    const quads = (TILE * TILE_K) / 4;
    const perInvocation = quads / TILE_GROUP;
    return alongK
      ? /* wgsl */ `
    for (var i = 0u; i < ${perInvocation}u; i++) { // stored rows run along k: read four k, scatter
      let quad = i * ${TILE_GROUP}u + lane;
      let line = quad / ${TILE_K / 4}u;
      let at = (quad % ${TILE_K / 4}u) * 4u;
      let value = read${name}(${first} + line, k + at);
      tile${name}[at * ${TILE}u + line] = value.x;
      tile${name}[(at + 1u) * ${TILE}u + line] = value.y;
      tile${name}[(at + 2u) * ${TILE}u + line] = value.z;
      tile${name}[(at + 3u) * ${TILE}u + line] = value.w;
    }`
      : /* wgsl */ `
    for (var i = 0u; i < ${perInvocation}u; i++) { // stored rows run along the result
      let quad = i * ${TILE_GROUP}u + lane;
      let line = quad / ${TILE / 4}u;
      let at = (quad % ${TILE / 4}u) * 4u;
      let value = read${name}(k + line, ${first} + at);
      let place = line * ${TILE}u + at;
      tile${name}[place] = value.x;
      tile${name}[place + 1u] = value.y;
      tile${name}[place + 2u] = value.z;
      tile${name}[place + 3u] = value.w;
    }`;
  };
  const body = /* wgsl */ `
${operandLoads(variant)}
${epilogue(variant)}
var<workgroup> tileA: array<f32, ${TILE * TILE_K}>;
var<workgroup> tileB: array<f32, ${TILE * TILE_K}>;

@compute @workgroup_size(${TILE_GROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let firstRow = group.y * ${TILE}u;
  let firstColumn = group.x * ${TILE}u;
  let row = (lane / 8u) * 4u;
  let column = (lane % 8u) * 4u;
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  for (var k = 0u; k < u.K; k += ${TILE_K}u) {
    workgroupBarrier();
    ${tile("A", variant.layout !== "TN", "firstRow")}
    ${tile("B", variant.layout === "NT", "firstColumn")}
    workgroupBarrier();
    // Vector loads past K read clamped values: only the k that exist take part.
    let last = min(${TILE_K}u, u.K - k);
    for (var i = 0u; i < last; i++) {
      let at = i * ${TILE}u;
      let b = vec4f(tileB[at + column], tileB[at + column + 1u], tileB[at + column + 2u], tileB[at + column + 3u]);
      sum0 = fma(vec4f(tileA[at + row]), b, sum0);
      sum1 = fma(vec4f(tileA[at + row + 1u]), b, sum1);
      sum2 = fma(vec4f(tileA[at + row + 2u]), b, sum2);
      sum3 = fma(vec4f(tileA[at + row + 3u]), b, sum3);
    }
  }
  store(firstRow + row, firstColumn + column, sum0);
  store(firstRow + row + 1u, firstColumn + column, sum1);
  store(firstRow + row + 2u, firstColumn + column, sum2);
  store(firstRow + row + 3u, firstColumn + column, sum3);
}`;
  return declaration(variant, TILE, TILE, [], body);
}
