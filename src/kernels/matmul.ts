/**
 * Matmul, the matrix product  out = scale op(A) op(B) [+ bias] [+ residual] [+ out],  op = identity or transpose.
 *
 *   NN  A [M, K]  B [K, N]     a linear layer on [in, out] weights; the input gradient of one on [out, in] weights
 *   NT  A [M, K]  B [N, K]     a linear layer on [out, in] weights; the input gradient of one on [in, out] weights
 *   TN  A [K, M]  B [K, N]     weight gradients (K counts rows of the batch)
 *
 * B may be stored as f32, f16 or bf16, A and the result as f32 or f16; products and sums are f32. A and the result may
 * be column ranges of wider matrices, as the parts of fused rows are.
 *
 * One template: a layout only changes how operands are loaded, and a tile (`matmul-tile.ts`) how a workgroup shares the
 * work. Sums are f32, in an order fixed by the shapes.
 */
import { type Kernel, kernel } from "./kernel.ts";
import { operandBindings } from "./matmul-loads.ts";
import { aroundFours, GIVE_SCALED, normBindings } from "./matmul-norm.ts";
import { eachRow, matmulTile, tileGrid, tileOrigin } from "./matmul-tile.ts";
import {
  MATMUL_UNIFORMS,
  type MatmulLayout,
  type MatmulOperands,
  type MatmulShape,
  type MatmulVariant,
  tiledKernel,
} from "./matmul-variant.ts";
import { activationBinding, loadedActivation, storedActivation, storedBytes } from "./stored.ts";
import type { AdapterFacts } from "./wgsl.ts";

export type { MatmulLayout, MatmulShape } from "./matmul-variant.ts";

type Bindings = "a" | "b" | "bias" | "residual" | "out";
type Sizes = "M" | "N" | "K" | "aWidth" | "aFrom" | "outWidth" | "outFrom";
type Uniforms = Sizes | "scale" | "hasBias" | "hasResidual" | "accumulate";

export type MatmulKernel = Kernel<Bindings, Uniforms>;
/** What `matmul` returns for one that gives a norm, and for one that takes it. */
export type NormGivingKernel = Kernel<Bindings | "gain" | "scaled" | "squares", Uniforms | "tiles" | "gainOffset">;
export type NormTakingKernel = Kernel<Bindings | "squares", Uniforms | "tiles" | "epsilon">;

const cache = new Map<string, MatmulKernel>();

/**
 * The kernel for a matmul of this layout and shape. `scale` multiplies the product; `hasBias` adds `bias[N]` to each
 * row, `hasResidual` adds `residual[M, N]`, `accumulate` adds what `out` held; pass any other small tensor for an
 * operand that is not used. A is the columns from `aFrom` on of a, the result those from `outFrom` on of out. Gated, the
 * product is that of SwiGLU and b is [2 N, K]. One that gives a norm also has `gain` [N], `scaled` [M, N] and `squares`
 * [M, tiles], one that takes it `squares`; there are as many tiles as workgroups in the grid of the one that gives.
 */
export function matmul(
  layout: MatmulLayout,
  shape: MatmulShape,
  facts: AdapterFacts,
  operands: MatmulOperands = {},
): MatmulKernel {
  return tiledKernel(layout, shape, facts, operands, cache, buildMatmul);
}

function buildMatmul(variant: MatmulVariant): MatmulKernel {
  const tile = matmulTile(variant);
  const result = variant.vectorStores ? " as vec4f" : "";
  const norm = normBindings(variant);
  const gives = variant.norm === "gives";
  const stores = gives ? "squared += store(row, column, value);" : "store(row, column, value);";
  return kernel({
    name: `matmul${variant.layout}`,
    read: {
      ...operandBindings(variant),
      bias: "f32[biasSize]",
      residual: `f32[residualRows, residualColumns]${result}`,
      ...norm.read,
    },
    write: { out: activationBinding(variant.outFormat, "M, outWidth", variant.vectorStores), ...norm.write },
    uniforms: {
      ...MATMUL_UNIFORMS,
      outWidth: "u32",
      outFrom: "u32",
      scale: "f32",
      hasBias: "u32",
      hasResidual: "u32",
      accumulate: "u32",
      ...norm.uniforms,
    },
    enable: tile.enable,
    divisible: true,
    wgsl: /* wgsl */ `${tile.declarations}${gives ? tile.acrossColumns : ""}
${epilogue(variant)}

@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {${tileOrigin(variant, tile)}
  ${tile.setup}
  ${tile.matmul}
  ${eachRow(tile, stores, gives ? aroundFours(tile) : undefined)}
}`,
    grid: ({ M = 0, N = 0 }) => tileGrid(variant, tile, M, N),
    cost: ({ M = 0, N = 0, K = 0 }) => {
      const rowsOfB = variant.gated ? 2 * N : N;
      return {
        flops: 2 * M * rowsOfB * K,
        bytes:
          storedBytes(variant.aFormat) * M * K +
          storedBytes(variant.format) * K * rowsOfB +
          storedBytes(variant.outFormat) * M * N,
      };
    },
  }) as MatmulKernel;
}

/** `store(row, column, value)`: four neighbouring columns through the epilogue, those outside left alone. */
function epilogue(variant: MatmulVariant): string {
  const { outFormat: format, vectorStores: vectors, continues } = variant;
  const gives = variant.norm === "gives";
  if (gives && (format !== "f32" || !vectors)) throw new Error("a stream is f32, and its norm takes fours");
  if (continues && format !== "f32") throw new Error("sums can be continued in f32 alone");
  const before = loadedActivation(format, "out[i]", vectors);
  const after = storedActivation(format, "value", vectors);
  if (vectors) {
    return /* wgsl */ `${continues ? BEFORE.vectors : ""}
fn store(row: u32, column: u32, product: vec4f)${gives ? " -> f32" : ""} {
  if (column >= u.N) { return${gives ? " 0.0" : ""}; }
  let i = (row * u.outWidth + u.outFrom + column) / 4u;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]); }
  if (u.hasResidual != 0u) { value += residual[(row * u.N + column) / 4u]; }
  if (u.accumulate != 0u) { value += ${before}; }
  out[i] = ${after};${gives ? GIVE_SCALED : ""}
}`;
  }
  return /* wgsl */ `${continues ? BEFORE.single : ""}
fn storeOne(row: u32, column: u32, product: f32) {
  if (column >= u.N) { return; }
  let i = row * u.outWidth + u.outFrom + column;
  var value = product * u.scale;
  if (u.hasBias != 0u) { value += bias[column]; }
  if (u.hasResidual != 0u) { value += residual[row * u.N + column]; }
  if (u.accumulate != 0u) { value += ${before}; }
  out[i] = ${after};
}
fn store(row: u32, column: u32, product: vec4f) {
  storeOne(row, column, product.x);
  storeOne(row, column + 1u, product.y);
  storeOne(row, column + 2u, product.z);
  storeOne(row, column + 3u, product.w);
}`;
}

/** `before(row, column)`: what four neighbouring columns of the result hold, zeros outside. Without branches. */
const BEFORE = {
  vectors: /* wgsl */ `
fn before(row: u32, column: u32) -> vec4f {
  let inside = (row < u.M) & (column < u.N);
  return select(vec4f(), out[select(0u, (row * u.outWidth + u.outFrom + column) / 4u, inside)], inside);
}`,
  single: /* wgsl */ `
fn beforeOne(row: u32, column: u32) -> f32 {
  let inside = (row < u.M) & (column < u.N);
  return select(0.0, out[select(0u, row * u.outWidth + u.outFrom + column, inside)], inside);
}
fn before(row: u32, column: u32) -> vec4f {
  return vec4f(beforeOne(row, column), beforeOne(row, column + 1u), beforeOne(row, column + 2u), beforeOne(row, column + 3u));
}`,
};
