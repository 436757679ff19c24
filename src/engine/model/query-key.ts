/**
 * What happens to queries and keys between their projection and attention, in place on the fused rows [q | k | v]: their
 * norms, their rotation by positions, the factor of queries, and the way of keys and values into a cache.
 */
import { scatterRows } from "../../kernels/embedding.ts";
import {
  headNormBackward,
  headNormForward,
  headNormWeightPartials,
  widthNormBackward,
  widthNormForward,
  widthNormWeightPartials,
} from "../../kernels/head-norm.ts";
import { isQuantized, type StoredFormat } from "../../kernels/kernel.ts";
import { takesTurns } from "../../kernels/matmul-variant.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { projectIntoCache } from "../../kernels/project-into-cache.ts";
import { addColumnSums } from "../../kernels/reduce.ts";
import { partialRope, rope, ropeIntoCache } from "../../kernels/rope.ts";
import { type LayerRope, ropeRegimes } from "../../kernels/rope-table.ts";
import { scaleByPosition } from "../../kernels/scale.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { type LayerActivations, qkHeads } from "./activations.ts";
import type { ModelConfig } from "./config/config.ts";
import type { LayerCache, ProjectionInput, RowPositions } from "./mixer.ts";
import type { Model } from "./model.ts";
import { storedWindows } from "./weight-product.ts";
import { layerName } from "./weights/parameters.ts";

/** Columns of the fused rows where queries, keys and values start. */
export function fusedColumns(config: ModelConfig) {
  const kFrom = config.heads * config.headSize;
  return { qFrom: 0, kFrom, vFrom: kFrom + config.keyValueHeads * config.headSize };
}

/** Whether a layer turns whole heads by one table, as the kernels for all but Phi take it. */
const turnsWhole = (config: ModelConfig, layerRope: LayerRope) =>
  layerRope.rotated === config.headSize && ropeRegimes(layerRope) === 1;

/** Records the norms of query and key heads in the fused rows, in place, where the model has them. */
export function recordQueryKeyNorm(program: Program, model: Model, name: string, here: LayerActivations): void {
  const { qkNorm, heads, normEpsilon, normUnitOffset } = model.config;
  if (qkNorm === "none") return;
  const forward = qkNorm === "head" ? headNormForward : widthNormForward;
  program.dispatch(forward(program.device.facts, normUnitOffset), {
    weight: model.parameter(`${name}.weight`),
    x: here.qkv,
    normed: here.qkNormed,
    inverse: here.qkInverse,
    heads: qkHeads(model.config),
    queryHeads: heads,
    epsilon: normEpsilon,
  });
}

/** Records dQkv back through these norms, in place, and their gradients where they are trained. */
export function recordQueryKeyNormBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  name: string,
  { qkNormed: normed, qkInverse: inverse }: LayerActivations,
  { dQkv, partials }: { readonly dQkv: Tensor; readonly partials: Tensor },
): void {
  const { qkNorm, heads: queryHeads, headSize, normUnitOffset } = model.config;
  if (qkNorm === "none") return;
  const weight = `${name}.weight`;
  const heads = qkHeads(model.config);
  const wide = qkNorm === "width";
  if (gradients.has(weight)) {
    // The norms' gradients need dQkv, which the next dispatch overwrites.
    const sums = reshape(partials, [rowBlocks(dQkv.shape[0] ?? 0), (wide ? heads : 2) * headSize]);
    const sum = wide ? widthNormWeightPartials : headNormWeightPartials;
    program.dispatch(sum, { dy: dQkv, normed, partials: sums, heads, queryHeads });
    program.dispatch(addColumnSums, { partials: sums, out: gradients.window(weight) });
  }
  const backward = (wide ? widthNormBackward : headNormBackward)(program.device.facts, normUnitOffset);
  program.dispatch(backward, { weight: model.parameter(weight), normed, inverse, dx: dQkv, heads, queryHeads });
}

/**
 * Records the rotation of queries and keys in the fused rows x by their positions, or back, in layers that have one, and
 * the factor of queries.
 */
export function recordRope(
  program: Program,
  model: Model,
  layer: number,
  { positions, positionLimit }: RowPositions,
  x: Tensor,
  direction: 1 | -1,
): void {
  const { config } = model;
  const layerRope = config.layerRope[layer];
  if (layerRope === undefined) return;
  const table = model.ropeTable(layerRope, positionLimit);
  const args = { positions, table, x, heads: qkHeads(config), direction };
  if (turnsWhole(config, layerRope)) program.dispatch(rope, args);
  else program.dispatch(partialRope, { ...args, headSize: config.headSize, regimes: ropeRegimes(layerRope) });
  recordQueryFactors(program, model, { positions, positionLimit }, x);
}

/** Records the factors of queries in the fused rows x, or of their gradients. */
function recordQueryFactors(
  program: Program,
  model: Model,
  { positions, positionLimit }: RowPositions,
  x: Tensor,
): void {
  const factors = model.queryFactors(positionLimit);
  if (factors === undefined) return;
  const { kFrom: columns } = fusedColumns(model.config);
  program.dispatch(scaleByPosition, { positions, factors, x, columns });
}

/** The keys and values of a layer in the cache. */
export function cachedKeys(
  layer: number,
  { keys, values }: Pick<LayerCache, "keys" | "values">,
): { k: Tensor; v: Tensor } {
  const [k, v] = [keys[layer], values[layer]];
  if (k === undefined || v === undefined) throw new Error(`the cache has no layer ${layer}`);
  return { k, v };
}

/**
 * Records the fused rows y = x W, their rotation, and their keys and values into the cache in one dispatch, where a tile
 * can and nothing lies between: no bias, norm of heads, gate or adapter. Returns whether it did.
 */
export function recordProjectionIntoCache(
  program: Program,
  model: Model,
  layer: number,
  { x, takes, y }: ProjectionInput & { readonly y: Tensor },
  rows: RowPositions & { readonly ranges: Tensor },
  cache: LayerCache,
): boolean {
  const { config } = model;
  const layerRope = config.layerRope[layer];
  const name = layerName(layer, "qkv");
  const isPlain = config.qkNorm === "none" && !config.attentionGate && !config.inOutWeights && !model.adapter;
  if (!isPlain || model.weights.has(`${name}.bias`) || !layerRope || !turnsWhole(config, layerRope)) return false;
  const b = model.parameter(`${name}.weight`);
  const [[M = 0], [N = 0, K = 0]] = [x.shape, b.shape];
  const { facts } = program.device;
  const isWhole = !isQuantized(b.dtype) && storedWindows(program, b).length === 1;
  const isF32 = x.dtype === "f32" && y.dtype === "f32";
  if (!isWhole || !isF32 || !takesTurns({ M, N, K }, config.headSize, facts)) return false;
  const { k: keys, v: values } = cachedKeys(layer, cache);
  const operands = { format: b.dtype as StoredFormat, norm: takes && ("takes" as const) };
  const table = model.ropeTable(layerRope, rows.positionLimit);
  program.dispatch(projectIntoCache({ M, N, K }, config.headSize, facts, operands), {
    ...{ a: x, b, table, ranges: rows.ranges, out: y, keys, values },
    ...{ M, aFrom: 0, heads: config.heads, ...takes },
  });
  recordQueryFactors(program, model, rows, y);
  return true;
}

/** Records the rotation of the fused rows x, where the layer has one, and their keys and values into the cache. */
export function recordIntoCache(
  program: Program,
  model: Model,
  layer: number,
  rows: RowPositions,
  x: Tensor,
  cache: Pick<LayerCache, "keys" | "values" | "rows">,
): { k: Tensor; v: Tensor } {
  const { config } = model;
  const { k, v } = cachedKeys(layer, cache);
  const layerRope = config.layerRope[layer];
  if (layerRope && turnsWhole(config, layerRope)) {
    const { positions } = rows;
    const table = model.ropeTable(layerRope, rows.positionLimit);
    const into = { cacheRows: cache.rows, keys: k, values: v };
    program.dispatch(ropeIntoCache, { positions, table, x, ...into, heads: config.heads });
    recordQueryFactors(program, model, rows, x);
  } else {
    recordRope(program, model, layer, rows, x, 1);
    const { kFrom, vFrom } = fusedColumns(config);
    program.dispatch(scatterRows, { x, rows: cache.rows, y: k, xColumn: kFrom });
    program.dispatch(scatterRows, { x, rows: cache.rows, y: v, xColumn: vFrom });
  }
  return { k, v };
}
