/**
 * One decoder layer, forward and backward, written out as dispatches. Parts are switched by the configuration:
 *
 *   middle = input + Output(Attention(Rope(HeadNorm(Qkv(Norm(input))))))
 *   next   = middle + Down(Activation(Up(Norm(middle))))
 */
import { geluBackward, geluForward, swigluBackward } from "../../kernels/activation.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../kernels/attention.ts";
import { scatterRows } from "../../kernels/embedding.ts";
import { headNormBackward, headNormForward, headNormWeightPartials } from "../../kernels/head-norm.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rowBlocks,
} from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import { rope, ropeIntoCache } from "../../kernels/rope.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import { type LayerActivations, qkHeads, qkvWidth } from "./activations.ts";
import type { ModelConfig } from "./config/config.ts";
import { recordLinear, recordLinearBackward, recordSwigluLinear } from "./linear.ts";
import type { LoraScratch } from "./lora.ts";
import type { Model } from "./model.ts";
import { layerName } from "./weights/parameters.ts";

/** Keys and values of earlier passes, which generation keeps. */
export interface KeyValueCache {
  /** [cache rows, KV D] each, per layer. */
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];
  /** Cache row that each row of this pass is stored in, u32[T]. */
  readonly rows: Tensor;
}

/** Keys that a row sees, on the average and at most: what the work of attention is estimated by. */
export interface KeyCounts {
  readonly keysPerRow: number;
  /** Within the sliding window, where the configuration has one. */
  readonly windowKeysPerRow?: number | undefined;
}

/** What a pass needs beside activations. */
export interface PassRows extends KeyCounts {
  readonly positions: Tensor;
  /** All positions are below this one. */
  readonly positionLimit: number;
  readonly ranges: Tensor;
  /** The ranges cut to the sliding window, where the configuration has one. */
  readonly windowRanges?: Tensor | undefined;
  /** Where the model has an adapter. */
  readonly lora: LoraScratch | undefined;
}

/** What the backward pass needs to know about region A's rows. */
export interface BackwardRows extends PassRows {
  readonly queryEnd: Tensor;
  readonly windowQueryEnd?: Tensor | undefined;
}

/** The key ranges, or their sizes, that a layer attends by: cut to the sliding window if the layer has one. */
function seenBy<T>(config: ModelConfig, layer: number, whole: T, windowed: T | undefined): T {
  if (!config.layerWindow[layer]) return whole;
  if (windowed === undefined)
    throw new Error(`layer ${layer} has a sliding window, but the rows have no ranges for it`);
  return windowed;
}

/**
 * Records the rotation of queries and keys in the fused rows x by their positions, or back, in layers that have one.
 */
function recordRope(program: Program, model: Model, layer: number, rows: PassRows, x: Tensor, direction: 1 | -1): void {
  const { config } = model;
  if (!config.layerRope[layer]) return;
  const table = model.ropeTable(rows.positionLimit);
  program.dispatch(rope, { positions: rows.positions, table, x, heads: qkHeads(config), direction });
}

/** Records the rotation of the fused rows x, where the layer has one, and their keys and values into the cache. */
function recordIntoCache(
  program: Program,
  model: Model,
  layer: number,
  rows: PassRows,
  x: Tensor,
  cache: KeyValueCache,
): { k: Tensor; v: Tensor } {
  const { config } = model;
  const [k, v] = [cache.keys[layer], cache.values[layer]];
  if (k === undefined || v === undefined) throw new Error(`the cache has no layer ${layer}`);
  if (config.layerRope[layer]) {
    const table = model.ropeTable(rows.positionLimit);
    const { positions } = rows;
    const into = { cacheRows: cache.rows, keys: k, values: v };
    program.dispatch(ropeIntoCache, { positions, table, x, ...into, heads: config.heads });
  } else {
    const { kFrom, vFrom } = columns(config);
    program.dispatch(scatterRows, { x, rows: cache.rows, y: k, xColumn: kFrom });
    program.dispatch(scatterRows, { x, rows: cache.rows, y: v, xColumn: vFrom });
  }
  return { k, v };
}

/** Columns of the fused rows where queries, keys and values start. */
function columns(config: ModelConfig) {
  const kFrom = config.heads * config.headSize;
  return { qFrom: 0, kFrom, vFrom: kFrom + config.keyValueHeads * config.headSize };
}

/** Records y, stats = Norm(x) with the parameters `name`. */
export function recordNorm(program: Program, model: Model, name: string, x: Tensor, y: Tensor, stats: Tensor): void {
  const { facts } = program.device;
  const weight = model.parameter(`${name}.weight`);
  const epsilon = model.config.normEpsilon;
  if (model.config.norm === "rms") program.dispatch(rmsNormForward(facts), { x, weight, y, stats, epsilon });
  else {
    const bias = model.parameter(`${name}.bias`);
    program.dispatch(layerNormForward(facts), { x, weight, bias, y, stats, epsilon });
  }
}

/** Records dx += the gradient through Norm, and its parameters' gradients where these are trained. */
export function recordNormBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  name: string,
  args: { dy: Tensor; x: Tensor; stats: Tensor; dx: Tensor; partials: Tensor },
): void {
  const { dy, x, stats, dx } = args;
  const { facts } = program.device;
  const weight = model.parameter(`${name}.weight`);
  const backward = model.config.norm === "rms" ? rmsNormBackward(facts) : layerNormBackward(facts);
  program.dispatch(backward, { dy, x, weight, stats, dx });
  const [rows = 0, width = 0] = dy.shape;
  const partials = reshape(args.partials, [rowBlocks(rows), width]);
  if (gradients.has(`${name}.weight`)) {
    program.dispatch(normWeightPartials, { dy, x, stats, partials });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.weight`) });
  }
  if (gradients.has(`${name}.bias`)) {
    program.dispatch(columnPartials, { dy, partials });
    program.dispatch(addColumnSums, { partials, out: gradients.window(`${name}.bias`) });
  }
}

/** Records layer `layer` from `here.input` to `next` [T, C]; without `next`, only what the backward pass needs. */
export function recordBlockForward(
  program: Program,
  model: Model,
  layer: number,
  here: LayerActivations,
  next: Tensor | undefined,
  rows: PassRows,
  cache?: KeyValueCache,
): void {
  const { config } = model;
  const name = (part: string) => layerName(layer, part);
  const { lora } = rows;

  recordNorm(program, model, name("attentionNorm"), here.input, here.attentionNormed, here.attentionStats);
  recordLinear(program, model, name("qkv"), { x: here.attentionNormed, y: here.qkv, lora });
  if (config.qkNorm) {
    program.dispatch(headNormForward(program.device.facts), {
      weight: model.parameter(name("qkNorm.weight")),
      x: here.qkv,
      normed: here.qkNormed,
      inverse: here.qkInverse,
      queryHeads: config.heads,
      epsilon: config.normEpsilon,
    });
  }
  const from = columns(config);
  let keys = { k: here.qkv, v: here.qkv, kFrom: from.kFrom, vFrom: from.vFrom };
  if (cache) {
    keys = { ...recordIntoCache(program, model, layer, rows, here.qkv, cache), kFrom: 0, vFrom: 0 };
  } else recordRope(program, model, layer, rows, here.qkv, 1);
  program.dispatch(attentionForward(config.headSize, program.device.facts, program.products), {
    q: here.qkv,
    ...keys,
    ranges: seenBy(config, layer, rows.ranges, rows.windowRanges),
    keysPerRow: seenBy(config, layer, rows.keysPerRow, rows.windowKeysPerRow),
    out: here.attention,
    logSumExp: here.logSumExp,
    qFrom: from.qFrom,
    groupSize: config.heads / config.keyValueHeads,
  });
  recordLinear(program, model, name("output"), { x: here.attention, residual: here.input, y: here.middle, lora });
  recordNorm(program, model, name("mlpNorm"), here.middle, here.mlpNormed, here.mlpStats);
  const [x, y] = [here.mlpNormed, here.activated];
  if (config.mlp === "swiglu") {
    recordSwigluLinear(program, model, name("up"), { x, gateUp: here.up, y, alone: cache !== undefined, lora });
  } else {
    recordLinear(program, model, name("up"), { x, y: here.up, lora });
    program.dispatch(geluForward, { x: here.up, y });
  }
  if (next) recordLinear(program, model, name("down"), { x: here.activated, residual: here.middle, y: next, lora });
}

/** Scratch of the backward pass, shared by all layers; rows are those of region A. */
export type BackwardScratch = Readonly<Record<keyof ReturnType<typeof backwardWidths> | "partials", Tensor>>;

/** Columns of each scratch buffer; `partials` holds blocks of the widest bias. */
export function backwardWidths(config: ModelConfig) {
  const up = config.mlp === "swiglu" ? 2 * config.intermediateSize : config.intermediateSize;
  return {
    /** Gradient of the residual stream; carried from layer to layer. */
    dx: config.hiddenSize,
    dNormed: config.hiddenSize,
    dQkv: qkvWidth(config),
    dAttention: config.heads * config.headSize,
    delta: config.heads,
    dActivated: config.intermediateSize,
    dUp: up,
  };
}

/** Elements of `partials` for any number of rows. */
export function partialsSize(config: ModelConfig): number {
  const widths = backwardWidths(config);
  return 64 * Math.max(widths.dx, widths.dQkv, widths.dUp);
}

/** Records dQkv back through the norms of query and key heads, in place, and their gradients where they are trained. */
function recordHeadNormBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  weight: string,
  { qkNormed: normed, qkInverse: inverse }: LayerActivations,
  { dQkv, partials }: BackwardScratch,
): void {
  const { heads: queryHeads, headSize } = model.config;
  if (gradients.has(weight)) {
    // The norms' gradients need dQkv, which the next dispatch overwrites.
    const sums = reshape(partials, [rowBlocks(dQkv.shape[0] ?? 0), 2 * headSize]);
    const heads = qkHeads(model.config);
    program.dispatch(headNormWeightPartials, { dy: dQkv, normed, partials: sums, heads, queryHeads });
    program.dispatch(addColumnSums, { partials: sums, out: gradients.window(weight) });
  }
  const backward = headNormBackward(program.device.facts);
  program.dispatch(backward, { weight: model.parameter(weight), normed, inverse, dx: dQkv, queryHeads });
}

/**
 * Records the backward pass of layer `layer` over region A, whose activations are `here`. On entry dx holds the
 * gradient of the layer's output, at the end that of its input.
 */
export function recordBlockBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  layer: number,
  here: LayerActivations,
  scratch: BackwardScratch,
  rows: BackwardRows,
): void {
  const { config } = model;
  const name = (part: string) => layerName(layer, part);
  const { dx, partials } = scratch;
  const { lora } = rows;

  recordLinearBackward(program, model, gradients, name("down"), {
    dy: dx,
    x: here.activated,
    dx: scratch.dActivated,
    partials,
    lora,
  });
  if (config.mlp === "swiglu") {
    program.dispatch(swigluBackward, { dy: scratch.dActivated, gateUp: here.up, dGateUp: scratch.dUp });
  } else program.dispatch(geluBackward, { dy: scratch.dActivated, x: here.up, dx: scratch.dUp });
  recordLinearBackward(program, model, gradients, name("up"), {
    dy: scratch.dUp,
    x: here.mlpNormed,
    dx: scratch.dNormed,
    partials,
    lora,
  });
  recordNormBackward(program, model, gradients, name("mlpNorm"), {
    dy: scratch.dNormed,
    x: here.middle,
    stats: here.mlpStats,
    dx,
    partials,
  });

  recordLinearBackward(program, model, gradients, name("output"), {
    dy: dx,
    x: here.attention,
    dx: scratch.dAttention,
    partials,
    lora,
  });
  const shared = {
    fused: here.qkv,
    dOut: scratch.dAttention,
    logSumExp: here.logSumExp,
    dFused: scratch.dQkv,
    delta: scratch.delta,
    keysPerRow: seenBy(config, layer, rows.keysPerRow, rows.windowKeysPerRow),
    groupSize: config.heads / config.keyValueHeads,
    ...columns(config),
  };
  program.dispatch(attentionBackwardQuery(config.headSize, program.device.facts, program.products), {
    ...shared,
    out: here.attention,
    ranges: seenBy(config, layer, rows.ranges, rows.windowRanges),
  });
  program.dispatch(attentionBackwardKeyValue(config.headSize, program.device.facts, program.products), {
    ...shared,
    queryEnd: seenBy(config, layer, rows.queryEnd, rows.windowQueryEnd),
  });
  recordRope(program, model, layer, rows, scratch.dQkv, -1);
  if (config.qkNorm) recordHeadNormBackward(program, model, gradients, name("qkNorm.weight"), here, scratch);
  recordLinearBackward(program, model, gradients, name("qkv"), {
    dy: scratch.dQkv,
    x: here.attentionNormed,
    dx: scratch.dNormed,
    partials,
    lora,
  });
  recordNormBackward(program, model, gradients, name("attentionNorm"), {
    dy: scratch.dNormed,
    x: here.input,
    stats: here.attentionStats,
    dx,
    partials,
  });
}
