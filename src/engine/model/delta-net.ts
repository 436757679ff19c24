/**
 * Qwen3.5's gated DeltaNet as the mixer of a layer: a short convolution with silu over queries, keys and values, the
 * recurrence over them, and a norm of each head's result, gated. What is projected of a row is [q k v | z | b | a].
 */
import {
  deltaBackwardKey,
  deltaBackwardQueryKey,
  deltaBackwardValue,
  deltaForward,
} from "../../kernels/gated-delta.ts";
import { deltaBackwardGates, deltaBackwardHeads, deltaFactors } from "../../kernels/gated-delta-heads.ts";
import { gatedNormBackward, gatedNormForward, gatedNormWeightPartials } from "../../kernels/gated-norm.ts";
import { rowBlocks } from "../../kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../kernels/reduce.ts";
import { reshape, type Tensor } from "../gpu/tensor.ts";
import type { DeltaNetConfig } from "./config/mixer-keys.ts";
import { recordConvolution, recordConvolutionBackward, stateOf } from "./convolution.ts";
import type { LayerCache, Mixer, MixerBackwardPass, MixerPass, RecurrenceRows } from "./mixer.ts";
import { deltaWidths, layerName } from "./weights/parameters.ts";

/** Segments of a backward pass that continue one: none, since its rows are whole sequences. */
const BRANCHES = 1;

/** The numbers of a layer's DeltaNet, where its parts lie in the projected rows, and its gates' parameters. */
function partsOf({ model, layer }: Pick<MixerPass, "model" | "layer">) {
  const { config } = model;
  const { deltaNet } = config;
  if (deltaNet === undefined) throw new Error("the model has no DeltaNet");
  const { qkv: zFrom, values } = deltaWidths(config);
  const bFrom = zFrom + values;
  const parameter = (part: string) => model.parameter(layerName(layer, part));
  return {
    deltaNet,
    zFrom,
    gates: {
      ...{ aLog: parameter("delta.aLog"), dtBias: parameter("delta.dtBias") },
      ...{ bFrom, aFrom: bFrom + deltaNet.valueHeads },
    },
    normWeight: parameter("deltaNorm.weight"),
  };
}

/** Numbers of a slot's state. */
export const deltaStateSize = ({ valueHeads, keySize, valueSize }: DeltaNetConfig): number =>
  valueHeads * keySize * valueSize;

/** What is walked in a forward pass, and where the states are. */
function recurrenceOf(rows: RecurrenceRows | undefined, cache: LayerCache | undefined, layer: number) {
  if (cache !== undefined) {
    const { delta: states } = stateOf(cache, layer);
    const [count = 0] = cache.segments.shape;
    if (states) return { segments: cache.segments, dispatches: [{ first: 0, count }], states };
  } else if (rows !== undefined) return rows;
  throw new Error("a recurrence needs segments of rows, and a place for states");
}

export const deltaNetMixer: Mixer = {
  reads: () => "deltaInput",
  gives: () => "deltaNormed",

  recordForward(pass, rows, cache) {
    const { program, model, layer, here } = pass;
    const { facts } = program.device;
    const { deltaNet, gates, zFrom, normWeight } = partsOf(pass);
    const { keyHeads, keySize, valueHeads } = deltaNet;
    const { deltaQkv: qkv, deltaFactors: factors, deltas, deltaOut: out } = here;
    recordConvolution(pass, rows, { x: here.deltaInput, out: qkv }, cache);
    program.dispatch(deltaFactors(facts), { qkv, gates: here.deltaInput, ...gates, factors, keyHeads, keySize });
    const { segments, dispatches, states } = recurrenceOf(rows.recurrence, cache, layer);
    for (const { first, count } of dispatches) {
      const walked = { segments, first, count, states, positions: rows.positions };
      program.dispatch(deltaForward(deltaNet, facts), { qkv, factors, ...walked, out, deltas, keyHeads });
    }
    program.dispatch(gatedNormForward(facts), {
      ...{ weight: normWeight, x: out, gates: here.deltaInput, y: here.deltaNormed, inverse: here.deltaInverse },
      ...{ heads: valueHeads, zFrom, epsilon: model.config.normEpsilon },
    });
  },

  recordBackward(pass, rows) {
    const { here, dProjected, scratch } = pass;
    if (rows.recurrence === undefined) throw new Error("a recurrence needs segments of rows");
    recordNormBackward(pass);
    recordRecurrenceBackward(pass, rows.recurrence);
    const args = { x: here.deltaInput, dOut: scratch.dDeltaQkv, dx: dProjected };
    recordConvolutionBackward(pass, rows, args);
  },
};

/** Records `dDeltaOut` and the gates' z columns of dProjected. */
function recordNormBackward(pass: MixerBackwardPass): void {
  const { program, here, dMixed: dy, dProjected: dGates, scratch } = pass;
  const { deltaNet, zFrom, normWeight } = partsOf(pass);
  const given = { dy, x: here.deltaOut, gates: here.deltaInput, inverse: here.deltaInverse };
  const sizes = { heads: deltaNet.valueHeads, zFrom };
  const args = { ...given, ...sizes, weight: normWeight, dx: scratch.dDeltaOut, dGates };
  program.dispatch(gatedNormBackward(program.device.facts), args);
  recordSums(pass, "deltaNorm.weight", (partials) => {
    program.dispatch(gatedNormWeightPartials, { ...given, ...sizes, partials });
  });
}

/** Records `dDeltaQkv`, the columns of b and a of dProjected, and the gradients of the gates' parameters. */
function recordRecurrenceBackward(pass: MixerBackwardPass, { segments, backward, states }: RecurrenceRows): void {
  const { program, here, dProjected: dGates, scratch } = pass;
  const { facts } = program.device;
  const { deltaNet, gates } = partsOf(pass);
  const { keyHeads, valueHeads } = deltaNet;
  const { deltaQkv: qkv, deltaFactors: factors, deltas, deltaInput } = here;
  const { dDeltaQkv: dQkv, dDeltaHeads: dHeads, deltaTerms: terms, aLogTerms } = scratch;
  const walked = { qkv, factors, segments, ...backward, dOut: scratch.dDeltaOut, dQkv, keyHeads };
  // No segment continues another one: states and their gradients are neither read nor kept.
  const branches = BRANCHES;
  program.dispatch(deltaBackwardValue(deltaNet, facts), { ...walked, dStates: states, branches });
  program.dispatch(deltaBackwardQueryKey(deltaNet, facts), { ...walked, deltas, states, dHeads });
  program.dispatch(deltaBackwardKey(deltaNet, facts), { ...walked, deltas, dStates: states, dHeads, branches });
  program.dispatch(deltaBackwardHeads(facts), { qkv, factors, keyHeads, dHeads, deltas, dQkv, terms });
  program.dispatch(deltaBackwardGates, {
    ...{ gates: deltaInput, ...gates, terms, segments, ...backward, branches },
    ...{ dGates, aLogTerms, carries: reshape(states, [1, valueHeads]) },
  });
  recordSums(pass, "delta.aLog", (partials) => {
    program.dispatch(columnPartials, { dy: aLogTerms, partials, firstColumn: 0 });
  });
  recordSums(pass, "delta.dtBias", (partials) => {
    program.dispatch(columnPartials, { dy: dGates, partials, firstColumn: gates.aFrom });
  });
}

/** Records the gradient of a vector, where it is trained, from sums over blocks of rows. */
function recordSums(pass: MixerBackwardPass, part: string, recordPartials: (partials: Tensor) => void): void {
  const { program, gradients, layer, dMixed, scratch } = pass;
  const name = layerName(layer, part);
  if (!gradients.has(name)) return;
  const out = gradients.window(name);
  const partials = reshape(scratch.partials, [rowBlocks(dMixed.shape[0] ?? 0), out.shape[0] ?? 0]);
  recordPartials(partials);
  program.dispatch(addColumnSums, { partials, out });
}
