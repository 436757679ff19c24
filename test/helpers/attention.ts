/** Attention against its float64 twin, forward and backward, within what f32 sums and rounded operands allow. */
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import type { ScoreShape } from "../../src/kernels/attention-tile.ts";
import * as twin from "../../src/kernels/float64/attention.ts";
import type { ActivationFormat, Kernel } from "../../src/kernels/kernel.ts";
import type { ProductFormat } from "../../src/kernels/matmul-variant.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded, storedBound, tanhError } from "./compare.ts";
import { sharedDevice } from "./device.ts";
import { f32, type HostArray, runKernel, stored, u32, unset, unsetAs } from "./gpu.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

export interface Heads {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Of the scores; default 1 / sqrt(D) and no cap. */
  readonly scale?: number | undefined;
  readonly softCap?: number | undefined;
}

/** Prompt, completion, and a branch that continues the same prompt (0: none), as the batch packs them. */
export type Sequences = readonly { readonly prompt: number; readonly completion: number; readonly branch: number }[];

/** How the kernels are built: for an adapter, activations in a format, and by one tile alone if one is named. */
export interface AttentionBuild {
  readonly facts: AdapterFacts;
  readonly format: ActivationFormat;
  readonly tile?: string;
  /** What the operands may be rounded to; default f32. */
  readonly products?: ProductFormat;
}

/** Half a unit in the last place of f16, relative: what rounding an operand to it costs. */
const roundingOf = ({ products = "f32" }: AttentionBuild) => (products === "f16" ? 2 ** -11 : 0);

type Build<B extends string, U extends string> = (
  headSize: number,
  facts: AdapterFacts,
  products?: ProductFormat,
  scores?: ScoreShape,
) => Kernel<B, U>;

/** A kernel for the activations' format, by the tile that is named. */
function built<B extends string, U extends string>(
  build: Build<B, U>,
  { headSize, scale, softCap }: Pick<Heads, "headSize" | "scale" | "softCap">,
  { facts, format, tile, products }: AttentionBuild,
): Kernel<B, U> {
  const kernel = build(headSize, facts, products, { scale, softCap });
  if (tile === undefined) return kernel;
  const own = format === "f32" ? kernel : kernel.formats?.[0];
  const many = own?.candidates?.({ T: 2 ** 20, groupSize: 1, H: 1, keysPerRow: 2 ** 20 }) ?? [];
  const found = many.find(({ variant }) => variant === tile);
  if (found === undefined) throw new Error(`${kernel.name} has no tile ${tile}`);
  const { candidates: _, formats: __, ...alone } = found;
  return alone;
}

/**
 * [T, 4]: region A causal inside its example, region B after its prompt in A (DESIGN: packed batches); of these keys
 * the last `window`.
 */
export function packedRanges(examples: Sequences, window = Number.POSITIVE_INFINITY): number[] {
  const ranges: number[] = [];
  const starts: number[] = [];
  let row = 0;
  for (const { prompt, completion } of examples) {
    const start = row;
    starts.push(start);
    for (; row < start + prompt + completion; row++) ranges.push(0, 0, start, row + 1);
  }
  examples.forEach(({ prompt, branch }, i) => {
    const first = row;
    const promptStart = at(starts, i);
    for (; row < first + branch; row++) ranges.push(promptStart, promptStart + prompt, first, row + 1);
  });
  for (let at = 0; at < ranges.length; at += 4) {
    const [prefixStart = 0, prefixEnd = 0, branchStart = 0, branchEnd = 0] = ranges.slice(at, at + 4);
    ranges[at + 2] = Math.max(branchStart, branchEnd - window);
    ranges[at] = Math.max(prefixStart, Math.min(prefixEnd, prefixEnd - window + branchEnd - branchStart));
  }
  return ranges;
}

/** Columns [from, from + width) of rows of `total` columns. */
export function columns(x: ArrayLike<number>, total: number, from: number, width: number): Float64Array {
  const rows = x.length / total;
  return Float64Array.from({ length: rows * width }, (_, i) =>
    at(x, Math.floor(i / width) * total + from + (i % width)),
  );
}

function keysOf(ranges: readonly number[], row: number): number[] {
  const keys: number[] = [];
  for (let j = at(ranges, 4 * row); j < at(ranges, 4 * row + 1); j++) keys.push(j);
  for (let j = at(ranges, 4 * row + 2); j < at(ranges, 4 * row + 3); j++) keys.push(j);
  return keys;
}

/**
 * Per row and head: the keys with their probabilities, and the relative error that a probability computed in f32 may
 * have. A score is a sum of D products, off by 2 sqrt(D) EPSILON of its absolute terms; an exponential carries that
 * and its own error over the distance to the maximum (in steps, whose distances add up); normalising sums n of them.
 */
function probabilities(
  inputs: twin.AttentionInputs & { ranges: readonly number[] },
  logSumExp: Float64Array,
  rounding: number,
) {
  const { q, k, ranges, heads, keyValueHeads, headSize, softCap } = inputs;
  const { scale = 1 / Math.sqrt(headSize) } = inputs;
  const compute = (row: number, head: number) => {
    const group = Math.floor((head * keyValueHeads) / heads);
    const keys = keysOf(ranges, row);
    let terms = 0;
    let reach = 0;
    let capError = 0;
    const total = at(logSumExp, row * heads + head);
    const p = keys.map((key) => {
      let score = 0;
      let absolute = 0;
      for (let d = 0; d < headSize; d++) {
        const product =
          at(q, (row * heads + head) * headSize + d) * at(k, (key * keyValueHeads + group) * headSize + d);
        score += product * scale;
        absolute += Math.abs(product) * scale;
      }
      if (softCap !== undefined) {
        capError = Math.max(capError, softCap * (tanhError(score / softCap) + 4 * EPSILON));
        score = softCap * Math.tanh(score / softCap);
      }
      terms = Math.max(terms, absolute);
      reach = Math.max(reach, total - score);
      return Math.exp(score - total);
    });
    // The slope of a cap is at most 1.
    const scoreError = ((2 * Math.sqrt(headSize) + 2) * EPSILON + 2 * rounding) * terms + capError;
    // log: 3 units of its result, or 2^-21 near 1; then the sum with the maximum is rounded.
    const logSumExpError =
      scoreError + expError(0) + (Math.sqrt(keys.length) + 8) * EPSILON + 7 * EPSILON * Math.abs(total);
    // Twice: a probability and the sum that it is divided by, or the log-sum-exp that it is measured from.
    const error =
      2 * (scoreError + expError(reach) + (Math.sqrt(keys.length) + 4) * EPSILON + rounding) +
      EPSILON * Math.abs(total);
    return { keys, p, group, error, logSumExpError };
  };
  const known = new Map<number, ReturnType<typeof compute>>();
  return (row: number, head: number) => {
    const found = known.get(row * heads + head) ?? compute(row, head);
    known.set(row * heads + head, found);
    return found;
  };
}

type ForwardInputs = twin.AttentionInputs & { ranges: readonly number[] };

interface ForwardOperands {
  readonly q: HostArray;
  readonly k: HostArray;
  readonly v: HostArray;
  readonly qFrom: number;
  readonly kFrom: number;
  readonly vFrom: number;
}

function runForward(build: AttentionBuild, inputs: ForwardInputs, operands: ForwardOperands) {
  const { facts, format } = build;
  const { ranges, heads, keyValueHeads, headSize } = inputs;
  const T = ranges.length / 4;
  return runKernel(
    device,
    built(attentionForward, inputs, build),
    {
      ...operands,
      ranges: u32([T, 4], ranges),
      out: unsetAs(format, T, heads * headSize),
      logSumExp: unset(T, heads),
      groupSize: heads / keyValueHeads,
      keysPerRow: 64,
    },
    facts,
  );
}

export async function checkForward(
  build: AttentionBuild,
  inputs: ForwardInputs,
  operands: ForwardOperands,
): Promise<void> {
  const { format } = build;
  const { heads, headSize, v, keyValueHeads } = inputs;
  const result = await runForward(build, inputs, operands);
  const wanted = twin.attentionForward(inputs);
  const details = probabilities(inputs, wanted.logSumExp, roundingOf(build));
  expectWithin("out", result("out"), wanted.out, (i) => {
    const d = i % headSize;
    const head = Math.floor(i / headSize) % heads;
    const { keys, p, group, error } = details(Math.floor(i / (heads * headSize)), head);
    let terms = 0;
    keys.forEach((key, n) => {
      terms += at(p, n) * Math.abs(at(v, (key * keyValueHeads + group) * headSize + d));
    });
    return storedBound(format, at(wanted.out, i), terms * error);
  });
  expectWithin("logSumExp", result("logSumExp"), wanted.logSumExp, (i) => {
    return details(Math.floor(i / heads), i % heads).logSumExpError;
  });
}

/** Factors on the numbers of queries, keys, values and, backward, of the results' gradients. */
export interface Sizes {
  readonly q?: number;
  readonly k?: number;
  readonly v?: number;
  readonly dOut?: number;
}

/** Fused rows [q | k | v] of drawn numbers, and where keys and values start. */
function fusedRows(
  { format }: AttentionBuild,
  { heads, keyValueHeads, headSize }: Heads,
  T: number,
  drawn: Float32Array,
  { q = 1, k = 1, v = 1 }: Sizes,
) {
  const width = (heads + 2 * keyValueHeads) * headSize;
  const [kFrom, vFrom] = [heads * headSize, (heads + keyValueHeads) * headSize];
  const factor = (column: number) => (column < kFrom ? q : column < vFrom ? k : v);
  const sized = drawn.map((value, i) => value * factor(i % width));
  const { array: fused, values: rows } = stored(format, [T, width], sized);
  const exact = {
    q: columns(rows, width, 0, kFrom),
    k: columns(rows, width, kFrom, keyValueHeads * headSize),
    v: columns(rows, width, vFrom, keyValueHeads * headSize),
  };
  return { width, kFrom, vFrom, fused, exact };
}

function packedForward(
  build: AttentionBuild,
  shape: Heads,
  examples: Sequences,
  { window = Number.POSITIVE_INFINITY, scale = 1, seed = 1, sizes = {} }: PackedOptions,
) {
  const ranges = packedRanges(examples, window);
  const T = ranges.length / 4;
  const width = (shape.heads + 2 * shape.keyValueHeads) * shape.headSize;
  const { fused, kFrom, vFrom, exact } = fusedRows(build, shape, T, normals(seeded(seed), T * width, scale), sizes);
  return {
    inputs: { ...shape, ranges, ...exact },
    operands: { q: fused, k: fused, v: fused, qFrom: 0, kFrom, vFrom },
  };
}

/** Forward on fused rows of packed sequences. */
export async function checkPackedForward(
  build: AttentionBuild,
  shape: Heads,
  examples: Sequences,
  options: PackedOptions = {},
): Promise<void> {
  const { inputs, operands } = packedForward(build, shape, examples, options);
  await checkForward(build, inputs, operands);
}

/** The result of the same. */
export async function runPackedForward(
  build: AttentionBuild,
  shape: Heads,
  examples: Sequences,
): Promise<Float32Array<ArrayBuffer>> {
  const { inputs, operands } = packedForward(build, shape, examples, {});
  return (await runForward(build, inputs, operands))("out");
}

interface PackedOptions {
  readonly window?: number;
  readonly scale?: number;
  readonly seed?: number;
  readonly sizes?: Sizes;
}

/** Runs both halves of the backward pass on causal sequences of these lengths and compares all of dFused. */
export async function checkBackward(
  build: AttentionBuild,
  shape: Heads,
  lengths: readonly number[],
  spread: number,
  seed: number,
  window = Number.POSITIVE_INFINITY,
  sizes: Sizes = {},
): Promise<void> {
  const { facts, format } = build;
  const { heads, keyValueHeads, headSize, scale = 1 / Math.sqrt(headSize), softCap } = shape;
  const examples = lengths.map((length) => ({ prompt: 0, completion: length, branch: 0 as const }));
  const ranges = packedRanges(examples, window);
  const queryEnd = lengths.flatMap((length, i) => {
    const end = lengths.slice(0, i + 1).reduce((sum, one) => sum + one, 0);
    return Array.from({ length }, (_, row) => Math.min(end, end - length + row + window));
  });
  const T = ranges.length / 4;
  const random = seeded(seed);
  const wide = (heads + 2 * keyValueHeads) * headSize;
  const { width, kFrom, vFrom, fused, exact } = fusedRows(build, shape, T, normals(random, T * wide, spread), sizes);
  const dOut = normals(random, T * heads * headSize, sizes.dOut);
  const inputs = { ...shape, ranges, ...exact };
  const forward = twin.attentionForward(inputs);
  const out = stored(format, [T, heads * headSize], forward.out).array;
  const logSumExp = Float32Array.from(forward.logSumExp);
  const common = { fused, dOut: f32([T, heads * headSize], dOut) };
  const uniforms = { groupSize: heads / keyValueHeads, keysPerRow: 64, qFrom: 0, kFrom, vFrom };
  const query = await runKernel(
    device,
    built(attentionBackwardQuery, shape, build),
    {
      ...common,
      ...uniforms,
      out,
      logSumExp: f32([T, heads], logSumExp),
      ranges: u32([T, 4], ranges),
      dFused: unset(T, width),
      delta: unset(T, heads),
    },
    facts,
  );
  const both = await runKernel(
    device,
    built(attentionBackwardKeyValue, shape, build),
    {
      ...common,
      ...uniforms,
      logSumExp: f32([T, heads], logSumExp),
      delta: f32([T, heads], query("delta")),
      queryEnd: u32([T], queryEnd),
      // What the first half wrote: the second must leave the query columns as they are and fill all others.
      dFused: f32([T, width], query("dFused")),
    },
    facts,
  );
  const wanted = twin.attentionBackward({ ...inputs, dOut: float64(dOut), logSumExp: forward.logSumExp });

  // The same sums over absolute terms, each times the relative error of its probability.
  const bound = {
    dq: new Float64Array(wanted.dq.length),
    dk: new Float64Array(wanted.dk.length),
    dv: new Float64Array(wanted.dv.length),
  };
  const details = probabilities(inputs, forward.logSumExp, roundingOf(build));
  const queriesSeen = new Float64Array(T);
  for (let row = 0; row < T; row++) for (const key of keysOf(ranges, row)) queriesSeen[key] = at(queriesSeen, key) + 1;
  for (let row = 0; row < T; row++) {
    for (let head = 0; head < heads; head++) {
      const { keys, p, group, error } = details(row, head);
      const queryBase = (row * heads + head) * headSize;
      const along = keys.map((key) => {
        let sum = 0;
        for (let d = 0; d < headSize; d++) {
          sum += Math.abs(at(dOut, queryBase + d) * at(inputs.v, (key * keyValueHeads + group) * headSize + d));
        }
        return sum;
      });
      // delta = dOut . out <= sum p along; it carries the roundings of `out`, as it is kept, and of its own sum.
      const delta = along.reduce((sum, one, n) => sum + at(p, n) * one, 0);
      keys.forEach((key, n) => {
        const keyBase = (key * keyValueHeads + group) * headSize;
        // The sums over keys, and over the queries and heads that see a key, like random walks.
        const steps = Math.sqrt(Math.max(keys.length, (at(queriesSeen, key) * heads) / keyValueHeads));
        // A cap's slope is 1 - t^2 of a t within 1, off by what that t is off by, twice.
        const slopeError = softCap === undefined ? 0 : 2 * (tanhError(9.01) + error / softCap) + 8 * EPSILON;
        const summing = (2 * steps + 2 * Math.sqrt(headSize) + 8) * EPSILON;
        const relative = error + slopeError + summing + 4 * roundingOf(build);
        const kept = storedBound(format, delta, 0);
        const dScore = at(p, n) * ((at(along, n) + delta) * relative + kept) * scale;
        for (let d = 0; d < headSize; d++) {
          bound.dq[queryBase + d] = at(bound.dq, queryBase + d) + dScore * Math.abs(at(inputs.k, keyBase + d));
          bound.dk[keyBase + d] = at(bound.dk, keyBase + d) + dScore * Math.abs(at(inputs.q, queryBase + d));
          bound.dv[keyBase + d] = at(bound.dv, keyBase + d) + at(p, n) * relative * Math.abs(at(dOut, queryBase + d));
        }
      });
    }
  }
  const dFused = both("dFused");
  expectWithin("dq", columns(dFused, width, 0, kFrom), wanted.dq, bound.dq);
  expectWithin("dk", columns(dFused, width, kFrom, keyValueHeads * headSize), wanted.dk, bound.dk);
  expectWithin("dv", columns(dFused, width, vFrom, keyValueHeads * headSize), wanted.dv, bound.dv);
}
