/** Attention as the mixer of a layer: norms of heads, rotary positions, the kernels of `attention.ts`, and a gate. */
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../kernels/attention.ts";
import { joinGates, outputGateBackward, outputGateForward, splitGates } from "../../kernels/output-gate.ts";
import type { ModelConfig } from "./config/config.ts";
import type { Mixer } from "./mixer.ts";
import {
  cachedKeys,
  fusedColumns,
  recordIntoCache,
  recordProjectionIntoCache,
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
  reads: ({ attentionGate }) => (attentionGate ? "gatedQkv" : "qkv"),
  gives: ({ attentionGate }) => (attentionGate ? "gatedAttention" : "attention"),

  recordProjection({ program, model, layer, here }, input, rows, cache) {
    return recordProjectionIntoCache(program, model, layer, { ...input, y: here.qkv }, rows, cache);
  },

  recordForward({ program, model, layer, here, isPlaced = false }, rows, cache) {
    const { config } = model;
    const { headSize: D, heads } = config;
    const from = fusedColumns(config);
    let keys = { k: here.qkv, v: here.qkv, kFrom: from.kFrom, vFrom: from.vFrom };
    if (isPlaced && cache) keys = { ...cachedKeys(layer, cache), kFrom: 0, vFrom: 0 };
    else {
      if (config.attentionGate) program.dispatch(splitGates, { fused: here.gatedQkv, qkv: here.qkv, D, heads });
      recordQueryKeyNorm(program, model, layerName(layer, "qkNorm"), here);
      if (cache) keys = { ...recordIntoCache(program, model, layer, rows, here.qkv, cache), kFrom: 0, vFrom: 0 };
      else recordRope(program, model, layer, rows, here.qkv, 1);
    }
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
    if (config.attentionGate) {
      const { gatedQkv: fused, attention: x, gatedAttention: out } = here;
      program.dispatch(outputGateForward, { fused, x, out, D, heads });
    }
  },

  recordBackward({ program, model, layer, here, gradients, dMixed, dProjected, scratch }, rows) {
    const { config } = model;
    const { headSize: D, heads, attentionGate } = config;
    const { facts } = program.device;
    const dFused = attentionGate ? scratch.dQkv : dProjected;
    if (attentionGate) {
      const args = { fused: here.gatedQkv, x: here.attention, dOut: dMixed, dFused: dProjected, D, heads };
      program.dispatch(outputGateBackward, args);
    }
    const ofAttention = {
      fused: here.qkv,
      dOut: dMixed,
      logSumExp: here.logSumExp,
      dFused,
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
    recordRope(program, model, layer, rows, dFused, -1);
    const gradientsOf = { dQkv: dFused, partials: scratch.partials };
    recordQueryKeyNormBackward(program, model, gradients, layerName(layer, "qkNorm"), here, gradientsOf);
    if (attentionGate) program.dispatch(joinGates, { dQkv: dFused, dFused: dProjected, D, heads });
  },
};
