/**
 * One decoder layer, forward and backward, written out as dispatches. Parts are switched by the configuration:
 *
 *   middle = input + BranchNorm(Output(Attention(Rope(HeadNorm(Qkv(Norm(input)))))))
 *   next   = middle + BranchNorm(Down(Activation(Up(Norm(middle)))))
 */
import { gegluBackward, gegluForward, geluBackward, geluForward, swigluBackward } from "../../kernels/activation.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../kernels/attention.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerActivations, normsAfter, normsBefore, qkvWidth, upWidth } from "./activations.ts";
import type { ModelConfig } from "./config/config.ts";
import { recordLinear, recordLinearBackward, recordSwigluLinear } from "./linear.ts";
import type { LoraScratch } from "./lora-passes.ts";
import type { Model } from "./model.ts";
import { recordBranchNorm, recordBranchNormBackward, recordNorm, recordNormBackward } from "./norms.ts";
import {
  fusedColumns,
  type KeyValueCache,
  type RowPositions,
  recordIntoCache,
  recordQueryKeyNorm,
  recordQueryKeyNormBackward,
  recordRope,
} from "./query-key.ts";
import { layerName } from "./weights/parameters.ts";

/** Keys that a row sees, on the average and at most: what the work of attention is estimated by. */
export interface KeyCounts {
  readonly keysPerRow: number;
  /** Within the sliding window, where the configuration has one. */
  readonly windowKeysPerRow?: number | undefined;
}

/** What a pass needs beside activations. */
export interface PassRows extends KeyCounts, RowPositions {
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

/** What the attention kernels' texts depend on beside the head size. */
const scoresOf = ({ attentionScale: scale, attentionSoftCap: softCap }: ModelConfig) => ({ scale, softCap });

/**
 * Records layer `layer` from `here.input` to `next` [T, C]; without `next`, only what the backward pass needs of a layer
 * whose results are not normed.
 */
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
  const { facts } = program.device;
  const [before, after] = [normsBefore(config), normsAfter(config)];

  if (before) {
    recordNorm(program, model, name("attentionNorm"), here.input, here.attentionNormed, here.attentionStats);
  }
  recordLinear(program, model, name("qkv"), { x: before ? here.attentionNormed : here.input, y: here.qkv, lora });
  recordQueryKeyNorm(program, model, name("qkNorm"), here);
  const from = fusedColumns(config);
  let keys = { k: here.qkv, v: here.qkv, kFrom: from.kFrom, vFrom: from.vFrom };
  if (cache) {
    keys = { ...recordIntoCache(program, model, layer, rows, here.qkv, cache), kFrom: 0, vFrom: 0 };
  } else recordRope(program, model, layer, rows, here.qkv, 1);
  program.dispatch(attentionForward(config.headSize, facts, program.products, scoresOf(config)), {
    q: here.qkv,
    ...keys,
    ranges: seenBy(config, layer, rows.ranges, rows.windowRanges),
    keysPerRow: seenBy(config, layer, rows.keysPerRow, rows.windowKeysPerRow),
    out: here.attention,
    logSumExp: here.logSumExp,
    qFrom: from.qFrom,
    groupSize: config.heads / config.keyValueHeads,
  });
  if (after) {
    const { attentionBranch: branch, attentionBranchStats: stats } = here;
    recordLinear(program, model, name("output"), { x: here.attention, y: branch, lora });
    const args = { branch, residual: here.input, y: here.middle, stats };
    recordBranchNorm(program, model, name("attentionBranchNorm"), args);
  } else {
    recordLinear(program, model, name("output"), { x: here.attention, residual: here.input, y: here.middle, lora });
  }

  if (before) recordNorm(program, model, name("mlpNorm"), here.middle, here.mlpNormed, here.mlpStats);
  const [x, y] = [before ? here.mlpNormed : here.middle, here.activated];
  if (config.mlp === "swiglu") {
    recordSwigluLinear(program, model, name("up"), { x, gateUp: here.up, y, alone: cache !== undefined, lora });
  } else {
    recordLinear(program, model, name("up"), { x, y: here.up, lora });
    if (config.mlp === "gelu") program.dispatch(geluForward, { x: here.up, y });
    else program.dispatch(gegluForward, { gateUp: here.up, y });
  }
  if (next === undefined) return;
  if (after) {
    const { mlpBranch: branch, mlpBranchStats: stats } = here;
    recordLinear(program, model, name("down"), { x: here.activated, y: branch, lora });
    recordBranchNorm(program, model, name("mlpBranchNorm"), { branch, residual: here.middle, y: next, stats });
  } else {
    recordLinear(program, model, name("down"), { x: here.activated, residual: here.middle, y: next, lora });
  }
}

/** Scratch of the backward pass, shared by all layers; rows are those of region A. */
export type BackwardScratch = Readonly<Record<keyof ReturnType<typeof backwardWidths> | "partials", Tensor>>;

/** Columns of each scratch buffer; `partials` holds blocks of the widest bias. */
export function backwardWidths(config: ModelConfig) {
  return {
    /** Gradient of the residual stream; carried from layer to layer. */
    dx: config.hiddenSize,
    dNormed: normsBefore(config) ? config.hiddenSize : 0,
    dBranch: normsAfter(config) ? config.hiddenSize : 0,
    dQkv: qkvWidth(config),
    dAttention: config.heads * config.headSize,
    delta: config.heads,
    dActivated: config.intermediateSize,
    dUp: upWidth(config),
  };
}

/** Elements of `partials` for any number of rows. */
export function partialsSize(config: ModelConfig): number {
  const widths = backwardWidths(config);
  return 64 * Math.max(widths.dx, widths.dQkv, widths.dUp);
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
  const { dx, dBranch, dNormed, partials } = scratch;
  const { lora } = rows;
  const { facts } = program.device;
  const shared = { partials, lora };
  const [before, after] = [normsBefore(config), normsAfter(config)];

  if (after) {
    const args = { dy: dx, branch: here.mlpBranch, stats: here.mlpBranchStats, dBranch, partials };
    recordBranchNormBackward(program, model, gradients, name("mlpBranchNorm"), args);
  }
  recordLinearBackward(program, model, gradients, name("down"), {
    dy: after ? dBranch : dx,
    x: here.activated,
    dx: scratch.dActivated,
    ...shared,
  });
  if (config.mlp === "gelu") {
    program.dispatch(geluBackward, { dy: scratch.dActivated, x: here.up, dx: scratch.dUp });
  } else {
    const backward = config.mlp === "swiglu" ? swigluBackward : gegluBackward;
    program.dispatch(backward, { dy: scratch.dActivated, gateUp: here.up, dGateUp: scratch.dUp });
  }
  if (before) {
    recordLinearBackward(program, model, gradients, name("up"), {
      dy: scratch.dUp,
      x: here.mlpNormed,
      dx: dNormed,
      ...shared,
    });
    recordNormBackward(program, model, gradients, name("mlpNorm"), {
      dy: dNormed,
      x: here.middle,
      stats: here.mlpStats,
      dx,
      partials,
    });
  } else {
    const args = { dy: scratch.dUp, x: here.middle, dx, accumulate: true, ...shared };
    recordLinearBackward(program, model, gradients, name("up"), args);
  }

  if (after) {
    const args = { dy: dx, branch: here.attentionBranch, stats: here.attentionBranchStats, dBranch, partials };
    recordBranchNormBackward(program, model, gradients, name("attentionBranchNorm"), args);
  }
  recordLinearBackward(program, model, gradients, name("output"), {
    dy: after ? dBranch : dx,
    x: here.attention,
    dx: scratch.dAttention,
    ...shared,
  });
  const ofAttention = {
    fused: here.qkv,
    dOut: scratch.dAttention,
    logSumExp: here.logSumExp,
    dFused: scratch.dQkv,
    delta: scratch.delta,
    keysPerRow: seenBy(config, layer, rows.keysPerRow, rows.windowKeysPerRow),
    groupSize: config.heads / config.keyValueHeads,
    ...fusedColumns(config),
  };
  program.dispatch(attentionBackwardQuery(config.headSize, facts, program.products, scoresOf(config)), {
    ...ofAttention,
    out: here.attention,
    ranges: seenBy(config, layer, rows.ranges, rows.windowRanges),
  });
  program.dispatch(attentionBackwardKeyValue(config.headSize, facts, program.products, scoresOf(config)), {
    ...ofAttention,
    queryEnd: seenBy(config, layer, rows.queryEnd, rows.windowQueryEnd),
  });
  recordRope(program, model, layer, rows, scratch.dQkv, -1);
  recordQueryKeyNormBackward(program, model, gradients, name("qkNorm"), here, scratch);
  if (before) {
    recordLinearBackward(program, model, gradients, name("qkv"), {
      dy: scratch.dQkv,
      x: here.attentionNormed,
      dx: dNormed,
      ...shared,
    });
    recordNormBackward(program, model, gradients, name("attentionNorm"), {
      dy: dNormed,
      x: here.input,
      stats: here.attentionStats,
      dx,
      partials,
    });
  } else {
    const args = { dy: scratch.dQkv, x: here.input, dx, accumulate: true, ...shared };
    recordLinearBackward(program, model, gradients, name("qkv"), args);
  }
}
