/** Attention as the mixer of a layer: norms of heads, rotary positions, and the kernels of `attention.ts`. */
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../kernels/attention.ts";
import type { ModelConfig } from "./config/config.ts";
import type { Mixer } from "./mixer.ts";
import {
  fusedColumns,
  recordIntoCache,
  recordQueryKeyNorm,
  recordQueryKeyNormBackward,
  recordRope,
} from "./query-key.ts";
import { layerName } from "./weights/parameters.ts";

/** The key ranges, or their sizes, that a layer attends by: cut to the sliding window if the layer has one. */
function seenBy<T>(config: ModelConfig, layer: number, whole: T, windowed: T | undefined): T {
  if (!config.layerWindow[layer]) return whole;
  if (windowed === undefined)
    throw new Error(`layer ${layer} has a sliding window, but the rows have no ranges for it`);
  return windowed;
}

/** What the attention kernels' texts depend on beside the head size. */
const scoresOf = ({ attentionScale: scale, attentionSoftCap: softCap }: ModelConfig) => ({ scale, softCap });

export const attentionMixer: Mixer = {
  projection: "qkv",
  reads: "qkv",
  gives: "attention",

  recordForward({ program, model, layer, here }, rows, cache) {
    const { config } = model;
    recordQueryKeyNorm(program, model, layerName(layer, "qkNorm"), here);
    const from = fusedColumns(config);
    let keys = { k: here.qkv, v: here.qkv, kFrom: from.kFrom, vFrom: from.vFrom };
    if (cache) {
      keys = { ...recordIntoCache(program, model, layer, rows, here.qkv, cache), kFrom: 0, vFrom: 0 };
    } else recordRope(program, model, layer, rows, here.qkv, 1);
    program.dispatch(attentionForward(config.headSize, program.device.facts, program.products, scoresOf(config)), {
      q: here.qkv,
      ...keys,
      ranges: seenBy(config, layer, rows.ranges, rows.windowRanges),
      keysPerRow: seenBy(config, layer, rows.keysPerRow, rows.windowKeysPerRow),
      out: here.attention,
      logSumExp: here.logSumExp,
      qFrom: from.qFrom,
      groupSize: config.heads / config.keyValueHeads,
    });
  },

  recordBackward({ program, model, layer, here, gradients, dMixed, dProjected, delta, partials }, rows) {
    const { config } = model;
    const { facts } = program.device;
    const ofAttention = {
      fused: here.qkv,
      dOut: dMixed,
      logSumExp: here.logSumExp,
      dFused: dProjected,
      delta,
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
    recordRope(program, model, layer, rows, dProjected, -1);
    const gradientsOf = { dQkv: dProjected, partials };
    recordQueryKeyNormBackward(program, model, gradients, layerName(layer, "qkNorm"), here, gradientsOf);
  },
};
