/** The gated delta rule against its float64 twin, kernel by kernel, within what f32 allows. */

import { sigmoid } from "../../src/kernels/float64/activation.ts";
import * as twin from "../../src/kernels/float64/gated-delta.ts";
import { deltaForward } from "../../src/kernels/gated-delta.ts";
import { deltaFactors } from "../../src/kernels/gated-delta-heads.ts";
import { deltaSegments, previousRows, type RowRange, SEGMENT_WORDS } from "../../src/kernels/gated-delta-segments.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { columns, packedRanges, type Sequences } from "./attention.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded } from "./compare.ts";
import { sharedDevice } from "./device.ts";
import { f32, type HostArray, runKernel, stored, u32, unset } from "./gpu.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

export interface DeltaBuild {
  readonly facts: AdapterFacts;
  readonly format: ActivationFormat;
}

/** A batch of packed sequences with drawn numbers. */
export interface DeltaBatch {
  readonly inputs: twin.DeltaInputs;
  readonly ranges: readonly number[];
  readonly rows: number;
  /** Columns of qkv, of the rows that hold a and b, and where these are. */
  readonly width: number;
  readonly gatesWidth: number;
  readonly aFrom: number;
  readonly bFrom: number;
  readonly qkv: HostArray;
  readonly gates: HostArray;
  readonly aLog: HostArray;
  readonly dtBias: HostArray;
  readonly positions: HostArray;
  /** Rows at the end that hold no tokens. */
  readonly padding: readonly RowRange[];
}

export interface DeltaShape extends twin.DeltaShape {
  readonly padding?: number;
  /** Of the numbers of q, k and v. */
  readonly spread?: number;
  /** Added to a: how much is forgotten. */
  readonly forget?: number;
}

export function deltaBatch(build: DeltaBuild, shape: DeltaShape, examples: Sequences, seed: number): DeltaBatch {
  const { keyHeads, valueHeads, keySize, valueSize, padding = 0, spread = 1, forget = 0 } = shape;
  const random = seeded(seed);
  const ranges = packedRanges(examples);
  const used = ranges.length / 4;
  for (let row = used; row < used + padding; row++) ranges.push(0, 0, row, row + 1);
  const rows = used + padding;
  const width = 2 * keyHeads * keySize + valueHeads * valueSize;
  const [aFrom, bFrom, gatesWidth] = [valueHeads + 1, 1, 2 * valueHeads + 1];
  const qkv = stored(build.format, [rows, width], normals(random, rows * width, spread));
  const drawn = normals(random, rows * gatesWidth).map((value, i) =>
    i % gatesWidth >= aFrom ? value + forget : value,
  );
  const gates = stored(build.format, [rows, gatesWidth], drawn);
  const ofGates = (from: number) => columns(gates.values, gatesWidth, from, valueHeads);
  const [aLog, dtBias] = [normals(random, valueHeads), normals(random, valueHeads)];
  // Where each row lies in its sequence, as RoPE wants it.
  const previous = previousRows(ranges);
  // What padding computes is of no matter; the kernels take it for one sequence.
  for (let row = used + 1; row < rows; row++) previous[row] = row - 1;
  const positions = new Uint32Array(rows);
  for (const [row, before] of previous.entries()) positions[row] = before < 0 ? 0 : at(positions, before) + 1;
  return {
    inputs: {
      ...{ keyHeads, valueHeads, keySize, valueSize, previous },
      ...{ qkv: qkv.values, a: ofGates(aFrom), b: ofGates(bFrom), aLog: float64(aLog), dtBias: float64(dtBias) },
    },
    ...{ ranges, rows, width, gatesWidth, aFrom, bFrom },
    ...{ qkv: qkv.array, gates: gates.array, aLog: f32([valueHeads], aLog), dtBias: f32([valueHeads], dtBias) },
    positions: u32([rows], positions),
    padding: [[used, rows]],
  };
}

/** The factors of each row and value head in float64, [T, heads, 4], and g. */
export function exactFactors({ inputs, rows }: DeltaBatch): { factors: Float64Array; g: Float64Array } {
  const { keyHeads, valueHeads, keySize, qkv, a, b, aLog, dtBias } = inputs;
  const width = qkv.length / rows;
  const factors = new Float64Array(4 * rows * valueHeads);
  const g = new Float64Array(rows * valueHeads);
  for (let i = 0; i < g.length; i++) {
    const [row, head] = [Math.floor(i / valueHeads), i % valueHeads];
    const from = row * width + Math.floor((head * keyHeads) / valueHeads) * keySize;
    const inverse = (start: number) => at(twin.l2NormForward(qkv.slice(start, start + keySize), keySize).inverse, 0);
    g[i] = -Math.exp(at(aLog, head)) * twin.softplus(at(a, i) + at(dtBias, head));
    factors.set(
      [Math.exp(at(g, i)), sigmoid(at(b, i)), inverse(from + keyHeads * keySize), inverse(from) / Math.sqrt(keySize)],
      4 * i,
    );
  }
  return { factors, g };
}

const shapeArguments = ({ inputs: { keyHeads } }: DeltaBatch) => ({ keyHeads });

/** Gates and lengths. */
export async function checkFactors({ facts }: DeltaBuild, batch: DeltaBatch): Promise<void> {
  const { inputs, rows, aFrom, bFrom, qkv, gates, aLog, dtBias } = batch;
  const { valueHeads, keySize } = inputs;
  const found = await runKernel(
    device,
    deltaFactors(facts),
    {
      ...{ qkv, gates, aLog, dtBias, aFrom, bFrom, keySize, ...shapeArguments(batch) },
      factors: unset(rows, 4 * valueHeads),
    },
    facts,
  );
  const { factors, g } = exactFactors(batch);
  expectWithin("factors", found("factors"), factors, (i) => {
    const [own, what] = [Math.floor(i / 4), i % 4];
    const head = own % valueHeads;
    const x = at(inputs.a, own) + at(inputs.dtBias, head);
    // exp(aLog) and exp(-|x|) are off by their own errors, x by its rounding, which softplus carries on.
    const softplusError =
      expError(Math.abs(x)) + EPSILON * (Math.abs(at(inputs.a, own)) + Math.abs(at(inputs.dtBias, head)));
    const gError =
      Math.abs(at(g, own)) * (expError(at(inputs.aLog, head)) + 8 * EPSILON) +
      Math.exp(at(inputs.aLog, head)) * softplusError;
    const relative = [
      gError + expError(at(g, own)),
      expError(at(inputs.b, own)) + 8 * EPSILON,
      (2 * Math.sqrt(keySize) + 12) * EPSILON,
      (2 * Math.sqrt(keySize) + 16) * EPSILON,
    ];
    return at(factors, i) * at(relative, what) + 2 ** -126;
  });
}

/** What a value head of a row reads: its factors, qhat and khat, and the lengths of these. */
export function headOf({ inputs, rows }: DeltaBatch, factors: Float64Array, row: number, head: number) {
  const { keyHeads, valueHeads, keySize, qkv } = inputs;
  const [decay = 0, beta = 0, keyFactor = 0, queryFactor = 0] = factors.subarray(4 * (row * valueHeads + head));
  const from = (qkv.length / rows) * row + Math.floor((head * keyHeads) / valueHeads) * keySize;
  const scaled = (start: number, factor: number) => qkv.slice(start, start + keySize).map((x) => factor * x);
  const [query, key] = [scaled(from, queryFactor), scaled(from + keyHeads * keySize, keyFactor)];
  const [queryLength, keyLength] = [Math.hypot(...query), Math.hypot(...key)];
  return { decay, beta, keyFactor, queryFactor, query, key, queryLength, keyLength };
}

/**
 * What f32 may be off by in the forward pass. A column of the state has a length of at most n and an error of length e:
 * forgetting shrinks both, reading along khat does not make an error longer (I - beta khat khat^T), and each row adds
 * the roundings of its sums, of K terms, and of its updates.
 */
export function forwardBounds(batch: DeltaBatch, factors: Float64Array) {
  const { inputs, rows } = batch;
  const { keyHeads, valueHeads, keySize, valueSize, qkv, previous } = inputs;
  const width = qkv.length / rows;
  const valueWidth = valueHeads * valueSize;
  const [out, deltas, n, e] = [0, 1, 2, 3].map(() => new Float64Array(rows * valueWidth)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const summing = (2 * Math.sqrt(keySize) + 12) * EPSILON;
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < valueWidth; c++) {
      const {
        decay,
        beta,
        queryLength: query,
        keyLength: key,
      } = headOf(batch, factors, row, Math.floor(c / valueSize));
      const value = Math.abs(at(qkv, row * width + 2 * keyHeads * keySize + c));
      const before = at(previous as ArrayLike<number>, row);
      const size = decay * (before < 0 ? 0 : at(n, before * valueWidth + c));
      const error = decay * (before < 0 ? 0 : at(e, before * valueWidth + c)) + 3 * EPSILON * size;
      const read = summing * (value + key * size);
      const place = row * valueWidth + c;
      deltas[place] = key * error + read;
      n[place] = size + beta * key * value;
      e[place] = error + beta * key * read + 3 * EPSILON * at(n, place);
      out[place] = query * (at(e, place) + summing * at(n, place));
    }
  }
  return { out, deltas, states: e };
}

/** What a dispatch of the recurrence is told beside its tensors. */
const dispatchOf = (segments: HostArray, first: number, count: number) => ({ segments, first, count });

/** The segments of a batch as one array, and the two dispatches over it; the second may have none. */
export function segmentsOf(batch: DeltaBatch) {
  const { first, second, slots } = deltaSegments(batch.ranges, batch.padding);
  const all = Uint32Array.of(...first, ...second);
  const segments = u32([all.length / SEGMENT_WORDS, SEGMENT_WORDS], all);
  const counts = [first, second].map((words) => words.length / SEGMENT_WORDS) as [number, number];
  const dispatches = [dispatchOf(segments, 0, counts[0]), dispatchOf(segments, counts[0], counts[1])];
  return { dispatches: dispatches.filter(({ count }) => count > 0), slots: Math.max(1, slots) };
}

/** Runs the forward pass, dispatch by dispatch, each with what the one before left. */
export async function runForward({ facts }: DeltaBuild, batch: DeltaBatch) {
  const { inputs, rows, qkv, positions } = batch;
  const { valueHeads, keySize, valueSize } = inputs;
  const { dispatches, slots } = segmentsOf(batch);
  const factors = f32([rows, 4 * valueHeads], exactFactors(batch).factors);
  let left = {
    states: unset(slots, valueHeads * keySize * valueSize),
    out: unset(rows, valueHeads * valueSize),
    deltas: unset(rows, valueHeads * valueSize),
  };
  for (const dispatch of dispatches) {
    const found = await runKernel(
      device,
      deltaForward({ keySize, valueSize }, facts),
      { qkv, factors, positions, ...dispatch, ...shapeArguments(batch), ...left },
      facts,
    );
    left = {
      states: f32(left.states.shape, found("states")),
      out: f32(left.out.shape, found("out")),
      deltas: f32(left.deltas.shape, found("deltas")),
    };
  }
  return left;
}

/** The forward pass of a batch, prompts shared as its ranges say. */
export async function checkForward(build: DeltaBuild, batch: DeltaBatch): Promise<void> {
  const found = await runForward(build, batch);
  const wanted = twin.gatedDeltaForward(batch.inputs);
  const bounds = forwardBounds(batch, exactFactors(batch).factors);
  expectWithin("out", found.out.data, wanted.out, bounds.out);
  expectWithin("deltas", found.deltas.data, wanted.deltas, bounds.deltas);
}
