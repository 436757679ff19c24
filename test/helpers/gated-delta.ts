/** The gated delta rule against its float64 twin, kernel by kernel, within what f32 allows. */

import { expect } from "vitest";
import { sigmoid } from "../../src/kernels/float64/activation.ts";
import { joinColumns } from "../../src/kernels/float64/columns.ts";
import * as twin from "../../src/kernels/float64/gated-delta.ts";
import {
  deltaBackwardKey,
  deltaBackwardQueryKey,
  deltaBackwardValue,
  deltaForward,
  SEGMENT_WORDS,
} from "../../src/kernels/gated-delta.ts";
import { deltaBackwardGates, deltaBackwardHeads, deltaFactors } from "../../src/kernels/gated-delta-heads.ts";
import { deltaSegments, previousRows, type RowRange } from "../../src/kernels/gated-delta-segments.ts";
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
function headOf({ inputs, rows }: DeltaBatch, factors: Float64Array, row: number, head: number) {
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

/** The length of a value head's vector in x [T, heads, V]. */
const lengthAt = (x: Float64Array, start: number, size: number) => Math.hypot(...x.subarray(start, start + size));

/**
 * What f32 may be off by in the three passes back, of inputs that are exact: as in the forward pass, a column of D and,
 * after it, a row of S or of D has a length of at most n and an error of length e.
 */
function backwardBounds(batch: DeltaBatch, exact: { deltas: Float64Array; dOut: Float64Array; dv: Float64Array }) {
  const { inputs, rows } = batch;
  const { valueHeads, keySize, valueSize, previous } = inputs;
  const { factors } = exactFactors(batch);
  const { deltas, dOut, dv } = exact;
  const summing = (size: number) => (2 * Math.sqrt(size) + 12) * EPSILON;
  const array = (size: number) => new Float64Array(rows * valueHeads * size);
  const bounds = { dv: array(valueSize), dQueries: array(keySize), dKeys: array(keySize) };
  const [n, e] = [array(valueSize), array(valueSize)];
  const [nS, eS, nD, eD] = [array(keySize), array(keySize), array(keySize), array(keySize)];
  const add = (x: Float64Array, i: number, amount: number) => {
    x[i] = at(x, i) + amount;
  };
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < valueHeads; head++) {
      const { decay, beta, key } = headOf(batch, factors, row, head);
      const own = row * valueHeads + head;
      const before = at(previous as ArrayLike<number>, row);
      const [given, delta, value] = [dOut, deltas, dv].map((x) => lengthAt(x, own * valueSize, valueSize)) as [
        number,
        number,
        number,
      ];
      for (let i = 0; i < keySize; i++) {
        const [place, last] = [own * keySize + i, (before * valueHeads + head) * keySize + i];
        const size = before < 0 ? 0 : decay * at(nS, last);
        const error = (before < 0 ? 0 : decay * at(eS, last)) + 3 * EPSILON * size;
        add(bounds.dKeys, place, value * (error + summing(valueSize) * size));
        nS[place] = size + Math.abs(at(key, i)) * beta * delta;
        eS[place] = error + 6 * EPSILON * at(nS, place);
        bounds.dQueries[place] = given * (at(eS, place) + summing(valueSize) * at(nS, place));
      }
    }
  }
  for (let row = rows - 1; row >= 0; row--) {
    for (let head = 0; head < valueHeads; head++) {
      const { decay, beta, key, query, queryLength, keyLength } = headOf(batch, factors, row, head);
      const own = row * valueHeads + head;
      const before = at(previous as ArrayLike<number>, row);
      const [given, delta, value] = [dOut, deltas, dv].map((x) => lengthAt(x, own * valueSize, valueSize)) as [
        number,
        number,
        number,
      ];
      for (let j = 0; j < valueSize; j++) {
        const [place, last] = [own * valueSize + j, (before * valueHeads + head) * valueSize + j];
        add(n, place, queryLength * Math.abs(at(dOut, place)));
        add(e, place, 4 * EPSILON * at(n, place));
        const read = beta * keyLength * summing(keySize) * at(n, place);
        bounds.dv[place] = beta * keyLength * at(e, place) + read;
        if (before < 0) continue;
        add(n, last, decay * at(n, place));
        add(e, last, decay * (at(e, place) + keyLength * read + 4 * EPSILON * at(n, place)));
      }
      for (let i = 0; i < keySize; i++) {
        const [place, last] = [own * keySize + i, (before * valueHeads + head) * keySize + i];
        add(nD, place, Math.abs(at(query, i)) * given);
        add(eD, place, 4 * EPSILON * at(nD, place));
        add(bounds.dKeys, place, beta * delta * (at(eD, place) + summing(valueSize) * at(nD, place)));
        if (before < 0) continue;
        const size = at(nD, place) + Math.abs(at(key, i)) * value;
        add(nD, last, decay * size);
        add(eD, last, decay * (at(eD, place) + 6 * EPSILON * size));
      }
    }
  }
  return bounds;
}

/** Gradients and what the forward pass left, in float64, rounded to f32 as the kernels get them from each other. */
function exactBackward(batch: DeltaBatch, seed: number) {
  const { inputs, rows } = batch;
  const dOut = float64(normals(seeded(seed), rows * inputs.valueHeads * inputs.valueSize));
  const { deltas } = twin.gatedDeltaForward(inputs);
  return { dOut, deltas, ...twin.deltaRuleBackward({ ...inputs, dOut }) };
}

/** [dQueries, dKeys] of each row: as dHeads has them. */
function headRows({ inputs, rows }: DeltaBatch, dQueries: Float64Array, dKeys: Float64Array): Float64Array {
  return joinColumns([dQueries, dKeys], rows).subarray(0, 2 * rows * inputs.valueHeads * inputs.keySize);
}

/** The three passes over the recurrence. Completions and branches carry gradients, which add up at their prompt. */
export async function checkBackward(build: DeltaBuild, batch: DeltaBatch, seed: number): Promise<void> {
  const { facts } = build;
  const { inputs, rows, width, qkv } = batch;
  const { keyHeads, valueHeads, keySize, valueSize } = inputs;
  const exact = exactBackward(batch, seed);
  const bounds = backwardBounds(batch, exact);
  const { dispatches, slots } = segmentsOf(batch);
  const stateSize = valueHeads * keySize * valueSize;
  const size = { keySize, valueSize };
  const common = {
    qkv,
    factors: f32([rows, 4 * valueHeads], exactFactors(batch).factors),
    dOut: f32([rows, valueHeads * valueSize], exact.dOut),
    keyHeads,
  };
  let [dQkv, dStates] = [unset(rows, width), unset(2 * slots, stateSize)];
  for (const dispatch of [...dispatches].reverse()) {
    const args = { ...common, ...dispatch, branches: 2, dQkv, dStates };
    const found = await runKernel(device, deltaBackwardValue(size, facts), args, facts);
    [dQkv, dStates] = [f32(dQkv.shape, found("dQkv")), f32(dStates.shape, found("dStates"))];
  }
  const valueFrom = 2 * keyHeads * keySize;
  expectWithin("dv", columns(dQkv.data, width, valueFrom, valueHeads * valueSize), exact.dv, bounds.dv);
  expect([...columns(dQkv.data, width, 0, valueFrom)].every(Number.isNaN)).toBe(true);

  // The values' gradients as they are in float64, so that errors do not add up over kernels.
  const untouched = new Float64Array(rows * valueFrom).fill(Number.NaN);
  const shared = {
    ...common,
    deltas: f32([rows, valueHeads * valueSize], exact.deltas),
    dQkv: f32([rows, width], joinColumns([untouched, exact.dv], rows)),
  };
  let [states, dHeads] = [unset(slots, stateSize), unset(rows, 2 * valueHeads * keySize)];
  for (const dispatch of dispatches) {
    const args = { ...shared, ...dispatch, states, dHeads };
    const found = await runKernel(device, deltaBackwardQueryKey(size, facts), args, facts);
    [states, dHeads] = [f32(states.shape, found("states")), f32(dHeads.shape, found("dHeads"))];
  }
  dStates = unset(2 * slots, stateSize);
  for (const dispatch of [...dispatches].reverse()) {
    const args = { ...shared, ...dispatch, branches: 2, dStates, dHeads };
    const found = await runKernel(device, deltaBackwardKey(size, facts), args, facts);
    [dStates, dHeads] = [f32(dStates.shape, found("dStates")), f32(dHeads.shape, found("dHeads"))];
  }
  const wanted = headRows(batch, exact.dQueries, exact.dKeys);
  expectWithin("dHeads", dHeads.data, wanted, headRows(batch, bounds.dQueries, bounds.dKeys));
}

/** The way back through lengths and gates, from what the recurrence gives. */
export async function checkHeadsBackward(build: DeltaBuild, batch: DeltaBatch, seed: number): Promise<void> {
  const { facts } = build;
  const { inputs, rows, width, qkv, gates, gatesWidth, aFrom, bFrom, aLog, dtBias } = batch;
  const { keyHeads, valueHeads, keySize, valueSize } = inputs;
  const exact = exactBackward(batch, seed);
  const { factors, g } = exactFactors(batch);
  const heads = headRows(batch, exact.dQueries, exact.dKeys);
  const valueFrom = 2 * keyHeads * keySize;
  const untouched = new Float64Array(rows * valueFrom).fill(Number.NaN);
  const found = await runKernel(
    device,
    deltaBackwardHeads(facts),
    {
      ...{ qkv, factors: f32([rows, 4 * valueHeads], factors), keyHeads },
      dHeads: f32([rows, 2 * valueHeads * keySize], heads),
      deltas: f32([rows, valueHeads * valueSize], exact.deltas),
      dQkv: f32([rows, width], joinColumns([untouched, exact.dv], rows)),
      terms: unset(rows, 2 * valueHeads),
    },
    facts,
  );
  const wanted = twin.gatedDeltaBackward({ ...inputs, dOut: exact.dOut });
  const [terms, termSizes] = [new Float64Array(2 * rows * valueHeads), new Float64Array(2 * rows * valueHeads)];
  const sizes = new Float64Array(rows * width);
  for (let own = 0; own < rows * valueHeads; own++) {
    const [row, head] = [Math.floor(own / valueHeads), own % valueHeads];
    const { query, key, queryFactor, keyFactor } = headOf(batch, factors, row, head);
    const keyHead = Math.floor((head * keyHeads) / valueHeads);
    const sums = { query: 0, key: 0 };
    const add = (what: 0 | 1, term: number) => {
      terms[2 * own + what] = at(terms, 2 * own + what) + term;
      termSizes[2 * own + what] = at(termSizes, 2 * own + what) + Math.abs(term);
    };
    for (let i = 0; i < keySize; i++) {
      add(0, at(query, i) * at(exact.dQueries, own * keySize + i));
      sums.query += Math.abs(at(query, i) * at(exact.dQueries, own * keySize + i));
      sums.key += Math.abs(at(key, i) * at(exact.dKeys, own * keySize + i));
    }
    for (let j = 0; j < valueSize; j++) {
      const dValue = at(exact.dv, own * valueSize + j);
      add(0, -dValue * at(inputs.qkv, row * width + valueFrom + head * valueSize + j));
      add(1, dValue * at(exact.deltas, own * valueSize + j));
    }
    for (let i = 0; i < keySize; i++) {
      const place = row * width + keyHead * keySize + i;
      const [ofQuery, ofKey] = [
        Math.abs(at(exact.dQueries, own * keySize + i)),
        Math.abs(at(exact.dKeys, own * keySize + i)),
      ];
      const [pullQuery, pullKey] = [Math.abs(at(query, i)) * keySize * sums.query, Math.abs(at(key, i)) * sums.key];
      sizes[place] = at(sizes, place) + queryFactor * (ofQuery + pullQuery);
      const keyPlace = place + keyHeads * keySize;
      sizes[keyPlace] = at(sizes, keyPlace) + keyFactor * (ofKey + pullKey);
    }
  }
  const summing = (count: number) => (2 * Math.sqrt(count) + 16) * EPSILON;
  const terms32 = summing(keySize + valueSize);
  expectWithin("terms", found("terms"), terms, (i) => terms32 * at(termSizes, i) + 2 ** -126);
  const lengthError = summing((keySize * valueHeads) / keyHeads);
  expectWithin("dQkv", found("dQkv"), wanted.dQkv, (i) =>
    i % width < valueFrom ? lengthError * at(sizes, i) : 2 * EPSILON * Math.abs(at(wanted.dQkv, i)),
  );

  const { dispatches, slots } = segmentsOf(batch);
  let left = {
    dGates: unset(rows, gatesWidth),
    aLogTerms: unset(rows, valueHeads),
    carries: unset(2 * slots, valueHeads),
  };
  for (const dispatch of [...dispatches].reverse()) {
    const args = { ...dispatch, gates, aLog, dtBias, aFrom, bFrom, branches: 2, ...left };
    const result = await runKernel(device, deltaBackwardGates, { ...args, terms: f32([rows, 2 * valueHeads], terms) });
    left = {
      dGates: f32(left.dGates.shape, result("dGates")),
      aLogTerms: f32(left.aLogTerms.shape, result("aLogTerms")),
      carries: f32(left.carries.shape, result("carries")),
    };
  }
  // dg is a sum over the rows that follow: its terms, rounded to f32 and added up. They were differences in float64.
  const dgErrors = new Float64Array(rows * valueHeads);
  for (let own = rows * valueHeads - 1; own >= 0; own--) {
    const before = at(inputs.previous as ArrayLike<number>, Math.floor(own / valueHeads));
    const rounded = (2 * Math.sqrt(rows) + 4) * EPSILON * Math.abs(at(terms, 2 * own));
    dgErrors[own] = at(dgErrors, own) + rounded + 2 ** -48 * at(termSizes, 2 * own);
    const last = before * valueHeads + (own % valueHeads);
    if (before >= 0) dgErrors[last] = at(dgErrors, last) + at(dgErrors, own);
  }
  const dgError = (own: number) => at(dgErrors, own);
  const gateError = (own: number) => {
    const x = at(inputs.a, own) + at(inputs.dtBias, own % valueHeads);
    return expError(x) + expError(at(inputs.aLog, own % valueHeads)) + 16 * EPSILON + EPSILON * Math.abs(x);
  };
  const rate = (own: number) => Math.exp(at(inputs.aLog, own % valueHeads));
  const ofColumns = (from: number) => columns(left.dGates.data, gatesWidth, from, valueHeads);
  expectWithin(
    "da",
    ofColumns(aFrom),
    wanted.da,
    (own) => gateError(own) * Math.abs(at(wanted.da, own)) + rate(own) * dgError(own) + 2 ** -126,
  );
  expectWithin(
    "db",
    ofColumns(bFrom),
    wanted.db,
    (own) => (expError(at(inputs.b, own)) + terms32) * at(termSizes, 2 * own + 1) + 2 ** -126,
  );
  const aLogTerms = g.map((value, own) => value * at(exact.dg, own));
  expectWithin("aLogTerms", left.aLogTerms.data, aLogTerms, (own) => {
    const softplusError =
      (expError(at(inputs.a, own) + at(inputs.dtBias, own % valueHeads)) + 16 * EPSILON) * rate(own);
    const gError = gateError(own) * Math.abs(at(g, own)) + softplusError;
    return gError * Math.abs(at(exact.dg, own)) + Math.abs(at(g, own)) * dgError(own) + 2 ** -126;
  });
}
