/**
 * The projection to queries, keys and values of a few rows that generate, in one pass with what `ropeIntoCache` does
 * behind it: [q | k | v] = A B^T, heads of q and k are turned by their position (`rope.ts`), q goes to its columns of
 * the result, k and v to their row of the cache. The tiles are those of the matmul whose lanes have two sets of columns:
 * here the halves of a head.
 *
 * A row's keys in the cache are [first, end), of which its own is the last: so its position is end - 1 - first. Rows with
 * an end of 0 are padding and have no row there.
 */
import { type Kernel, kernel } from "./kernel.ts";
import { operandBindings } from "./matmul-loads.ts";
import { normBindings } from "./matmul-norm.ts";
import { eachRow, matmulTile, tileGrid, tileOrigin } from "./matmul-tile.ts";
import {
  MATMUL_UNIFORMS,
  type MatmulOperands,
  type MatmulShape,
  type MatmulVariant,
  tiledKernel,
} from "./matmul-variant.ts";
import { storedBytes } from "./stored.ts";
import type { AdapterFacts } from "./wgsl.ts";

type Bindings = "a" | "b" | "table" | "ranges" | "out" | "keys" | "values";
type Uniforms = "M" | "N" | "K" | "aWidth" | "aFrom" | "heads" | "KV" | "V" | "P";

export type ProjectIntoCacheKernel = Kernel<Bindings, Uniforms>;
/** What `projectIntoCache` returns with a norm before it. */
export type NormedProjectionKernel = Kernel<Bindings | "squares", Uniforms | "tiles" | "epsilon">;

const cache = new Map<string, ProjectIntoCacheKernel>();

/**
 * a [M, K], b [N, K], table [P, 2, D/2], ranges [M, 4] -> out [M, N], of which `heads` D columns are written, keys
 * [V, KV], values [V, KV], where `takesTurns` says so.
 */
export function projectIntoCache(
  shape: MatmulShape,
  headSize: number,
  facts: AdapterFacts,
  operands: Pick<MatmulOperands, "format" | "norm"> = {},
): ProjectIntoCacheKernel {
  return tiledKernel("NT", shape, facts, { ...operands, turns: headSize, aWidth: shape.K }, cache, build);
}

function build(variant: MatmulVariant): ProjectIntoCacheKernel {
  const tile = matmulTile(variant);
  const norm = normBindings(variant);
  const { turns: D = 0 } = variant;
  const own = (sums: readonly string[]) => `storeHalves(row, column, ${sums.join(", ")});`;
  return kernel({
    name: "projectIntoCache",
    read: {
      ...operandBindings(variant),
      table: `f32[P, 2, ${D / 2}] as vec4f`,
      ranges: "u32[M, 4] as vec4u",
      ...norm.read,
    },
    write: { out: "f32[M, N] as vec4f", keys: "f32[V, KV] as vec4f", values: "f32[V, KV] as vec4f" },
    uniforms: { ...MATMUL_UNIFORMS, heads: "u32", KV: "u32", V: "u32", P: "u32", ...norm.uniforms },
    enable: tile.enable,
    divisible: true,
    wgsl: /* wgsl */ `${tile.declarations}
const HEAD: u32 = ${D}u;
const HALF: u32 = ${D / 2}u;
fn storeHalves(row: u32, column: u32, x1: vec4f, x2: vec4f) {
  if (column >= u.N) { return; }
  let head = column / HEAD;
  let keyHeads = u.KV / HEAD;
  let seen = ranges[row];
  let cacheRow = seen.w - 1u;
  let isCached = cacheRow < u.V;
  if (head >= u.heads + keyHeads) {
    let place = (cacheRow * u.KV + column - (u.heads + keyHeads) * HEAD) / 4u;
    if (isCached) {
      values[place] = x1;
      values[place + HALF / 4u] = x2;
    }
    return;
  }
  let entry = (min(cacheRow - seen.z, u.P - 1u) * HEAD + column % HEAD) / 4u;
  let cosine = table[entry];
  let sine = table[entry + HALF / 4u];
  let y1 = x1 * cosine - x2 * sine;
  let y2 = x2 * cosine + x1 * sine;
  if (head < u.heads) {
    let place = (row * u.N + column) / 4u;
    out[place] = y1;
    out[place + HALF / 4u] = y2;
  } else if (isCached) {
    let place = (cacheRow * u.KV + column - u.heads * HEAD) / 4u;
    keys[place] = y1;
    keys[place + HALF / 4u] = y2;
  }
}

@compute @workgroup_size(${tile.groupSize})
fn main(${tile.parameters}) {${tileOrigin(variant, tile)}
  ${tile.setup}
  ${tile.matmul}
  ${eachRow(tile, own)}
}`,
    grid: ({ M = 0, N = 0 }) => tileGrid(variant, tile, M, N),
    cost: ({ M = 0, N = 0, K = 0 }) => ({
      flops: 2 * M * N * K,
      bytes: 4 * M * (K + N) + storedBytes(variant.format) * K * N,
    }),
  }) as ProjectIntoCacheKernel;
}
