/** The way back through the gated delta rule, its lengths and gates against float64, within what f32 allows. */

import { expect } from "vitest";
import { joinColumns } from "../../src/kernels/float64/columns.ts";
import * as twin from "../../src/kernels/float64/gated-delta.ts";
import { deltaBackwardKey, deltaBackwardQueryKey, deltaBackwardValue } from "../../src/kernels/gated-delta.ts";
import { deltaBackwardGates, deltaBackwardHeads } from "../../src/kernels/gated-delta-heads.ts";
import { columns } from "./attention.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded } from "./compare.ts";
import { sharedDevice } from "./device.ts";
import { type DeltaBatch, type DeltaBuild, exactFactors, headOf, segmentsOf } from "./gated-delta.ts";
import { f32, runKernel, unset } from "./gpu.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

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
