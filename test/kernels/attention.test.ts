/** Attention over two key ranges, forward and backward, with grouped heads, on packed rows and on a cache. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import * as twin from "../../src/kernels/float64/attention.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { EPSILON, expError, expectWithin, float64, normals, seeded, storedBound } from "../helpers/compare.ts";
import {
  activationFormats,
  emulatedLanes,
  type KernelVariant,
  kernelVariants,
  runsFor,
  sharedDevice,
  someOf,
} from "../helpers/device.ts";
import { f32, type HostArray, runKernel, stored, u32, unset, unsetAs } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const formats = await activationFormats();
/** Every variant of the kernels, for activations in every format. */
const variants = (await kernelVariants()).flatMap((one) => formats.map((format) => ({ ...one, format })));
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

interface Heads {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
}

/** Whether this software adapter runs what a GPU with its subgroups would get. */
const isPlayedGpu = (facts: AdapterFacts) => device.facts.software && facts.subgroupSize > 0 && !facts.software;

/**
 * Each size is a text of its own, and some take seconds to compile. In f16, and where a GPU is played on this adapter,
 * fewer: small ones in vectors and not, and a large one. Emulated lanes only meet large ones: a small head's lane is
 * alone, whatever the subgroup.
 */
const headSizes = (format: ActivationFormat, { facts, emulated }: Pick<KernelVariant, "facts" | "emulated">) => {
  if (emulated) return format === "f32" ? someOf({ emulated }, [20, 36, 18]) : [20];
  const isPlayed = isPlayedGpu(facts);
  if (format === "f16") return isPlayed ? [8, 20] : [6, 8, 20];
  return isPlayed ? [6, 8, 20] : [1, 4, 6, 8, 18, 20, 36];
};
const headShapes = (format: ActivationFormat, variant: Pick<KernelVariant, "facts" | "emulated">) =>
  fc
    .record({
      keyValueHeads: fc.constantFrom(1, 2, 3),
      groupSize: fc.constantFrom(1, 2, 4),
      headSize: fc.constantFrom(...headSizes(format, variant)),
    })
    .map(
      ({ keyValueHeads, groupSize, headSize }): Heads => ({
        heads: keyValueHeads * groupSize,
        keyValueHeads,
        headSize,
      }),
    );

/** Prompt, completion, and a branch that continues the same prompt (0: none), as the batch packs them. */
const sequences = fc.array(
  fc.record({ prompt: fc.nat(9), completion: fc.integer({ min: 1, max: 7 }), branch: fc.constantFrom(0, 0, 1, 3, 6) }),
  { minLength: 1, maxLength: 4 },
);
/** Sliding windows; without one, all keys. */
const windows = fc.constantFrom(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 1, 2, 5);
type Sequences = typeof sequences extends fc.Arbitrary<infer S> ? S : never;

/**
 * [T, 4]: region A causal inside its example, region B after its prompt in A (DESIGN: packed batches); of these keys
 * the last `window`.
 */
function packedRanges(examples: Sequences, window = Number.POSITIVE_INFINITY): number[] {
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
function columns(x: ArrayLike<number>, total: number, from: number, width: number): Float64Array {
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
function probabilities(inputs: twin.AttentionInputs & { ranges: readonly number[] }, logSumExp: Float64Array) {
  const { q, k, ranges, heads, keyValueHeads, headSize } = inputs;
  const compute = (row: number, head: number) => {
    const group = Math.floor((head * keyValueHeads) / heads);
    const keys = keysOf(ranges, row);
    let terms = 0;
    let reach = 0;
    const total = at(logSumExp, row * heads + head);
    const p = keys.map((key) => {
      let score = 0;
      let absolute = 0;
      for (let d = 0; d < headSize; d++) {
        const product =
          at(q, (row * heads + head) * headSize + d) * at(k, (key * keyValueHeads + group) * headSize + d);
        score += product / Math.sqrt(headSize);
        absolute += Math.abs(product) / Math.sqrt(headSize);
      }
      terms = Math.max(terms, absolute);
      reach = Math.max(reach, total - score);
      return Math.exp(score - total);
    });
    const scoreError = (2 * Math.sqrt(headSize) + 2) * EPSILON * terms;
    // log: 3 units of its result, or 2^-21 near 1; then the sum with the maximum is rounded.
    const logSumExpError =
      scoreError + expError(0) + (Math.sqrt(keys.length) + 8) * EPSILON + 7 * EPSILON * Math.abs(total);
    // Twice: a probability and the sum that it is divided by, or the log-sum-exp that it is measured from.
    const error =
      2 * (scoreError + expError(reach) + (Math.sqrt(keys.length) + 4) * EPSILON) + EPSILON * Math.abs(total);
    return { keys, p, group, error, logSumExpError };
  };
  const known = new Map<number, ReturnType<typeof compute>>();
  return (row: number, head: number) => {
    const found = known.get(row * heads + head) ?? compute(row, head);
    known.set(row * heads + head, found);
    return found;
  };
}

async function checkForward(
  facts: AdapterFacts,
  format: ActivationFormat,
  inputs: twin.AttentionInputs & { ranges: readonly number[] },
  operands: { q: HostArray; k: HostArray; v: HostArray; qFrom: number; kFrom: number; vFrom: number },
): Promise<void> {
  const { ranges, heads, keyValueHeads, headSize, v } = inputs;
  const T = ranges.length / 4;
  const result = await runKernel(
    device,
    attentionForward(headSize, facts),
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
  const wanted = twin.attentionForward(inputs);
  const details = probabilities(inputs, wanted.logSumExp);
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

describe.each(variants)("attention forward of $format, $variant", ({ facts, emulated, format }) => {
  it("equals float64 on packed batches: fused rows, shared prompts, grouped heads, sliding windows", async () => {
    await fc.assert(
      fc.asyncProperty(
        headShapes(format, { facts, emulated }),
        sequences,
        windows,
        fc.constantFrom(0.3, 1, 4),
        fc.nat(1e9),
        async (shape, examples, window, scale, seed) => {
          const { heads, keyValueHeads, headSize } = shape;
          const ranges = packedRanges(examples, window);
          const T = ranges.length / 4;
          const width = (heads + 2 * keyValueHeads) * headSize;
          const { array: fused, values: rows } = stored(format, [T, width], normals(seeded(seed), T * width, scale));
          const [kFrom, vFrom] = [heads * headSize, (heads + keyValueHeads) * headSize];
          await checkForward(
            facts,
            format,
            {
              ...shape,
              ranges,
              q: columns(rows, width, 0, kFrom),
              k: columns(rows, width, kFrom, keyValueHeads * headSize),
              v: columns(rows, width, vFrom, keyValueHeads * headSize),
            },
            { q: fused, k: fused, v: fused, qFrom: 0, kFrom, vFrom },
          );
        },
      ),
      { seed: 51, numRuns: runsFor({ emulated }, 40) },
    );
  });

  it("equals float64 on a cache: keys and values in buffers of their own, of other widths and more rows", async () => {
    await fc.assert(
      fc.asyncProperty(
        headShapes(format, { facts, emulated }),
        fc.integer({ min: 1, max: 40 }),
        fc.nat(1e9),
        async (shape, past, seed) => {
          const { heads, keyValueHeads, headSize } = shape;
          const random = seeded(seed);
          const T = 1 + random.below(3);
          const S = past + 5;
          // Extra columns before and after, in whole heads.
          const [qFrom, kFrom, vFrom] = [headSize, 2 * headSize, 0];
          const [qWidth, kWidth, vWidth] = [heads + 2, keyValueHeads + 3, keyValueHeads + 1].map((n) => n * headSize);
          const drawn = (rows: number, width = 0) => stored(format, [rows, width], normals(random, rows * width));
          const [q, k, v] = [drawn(T, qWidth), drawn(S, kWidth), drawn(S, vWidth)];
          const ranges = Array.from({ length: T }, (_, row) => [0, 0, 0, Math.min(S, past + row)]).flat();
          await checkForward(
            facts,
            format,
            {
              ...shape,
              ranges,
              q: columns(q.values, qWidth ?? 0, qFrom, heads * headSize),
              k: columns(k.values, kWidth ?? 0, kFrom, keyValueHeads * headSize),
              v: columns(v.values, vWidth ?? 0, vFrom, keyValueHeads * headSize),
            },
            {
              q: q.array,
              k: k.array,
              v: v.array,
              qFrom,
              kFrom,
              vFrom,
            },
          );
        },
      ),
      { seed: 52, numRuns: runsFor({ emulated }, 25) },
    );
  });

  it("scores of hundreds neither overflow nor lose the largest", async () => {
    const shape = { heads: 2, keyValueHeads: 1, headSize: 4 };
    const T = 9;
    const { array: fused, values: rows } = stored(format, [T, 16], normals(seeded(9), T * 16, 15));
    const ranges = packedRanges([{ prompt: 4, completion: 5, branch: 0 }]);
    await checkForward(
      facts,
      format,
      { ...shape, ranges, q: columns(rows, 16, 0, 8), k: columns(rows, 16, 8, 4), v: columns(rows, 16, 12, 4) },
      { q: fused, k: fused, v: fused, qFrom: 0, kFrom: 8, vFrom: 12 },
    );
  });

  it("a row without keys, as padding has, gives zeros and a finite log-sum-exp", async () => {
    const fused = stored(format, [2, 12], normals(seeded(3), 24)).array;
    const result = await runKernel(
      device,
      attentionForward(4, facts),
      {
        q: fused,
        k: fused,
        v: fused,
        ranges: u32([2, 4], [0, 0, 0, 0, 0, 0, 1, 2]),
        out: unsetAs(format, 2, 4),
        logSumExp: unset(2, 1),
        groupSize: 1,
        keysPerRow: 1,
        qFrom: 0,
        kFrom: 4,
        vFrom: 8,
      },
      facts,
    );
    expect([...result("out").subarray(0, 4)]).toEqual([0, 0, 0, 0]);
    expect(result("logSumExp")[0]).toBeLessThan(-1e38);
    expect(Number.isFinite(result("logSumExp")[0])).toBe(true);
  });
});

/** Runs both halves of the backward pass on causal sequences of these lengths and compares all of dFused. */
async function checkBackward(
  facts: AdapterFacts,
  format: ActivationFormat,
  shape: Heads,
  lengths: readonly number[],
  scale: number,
  seed: number,
  window = Number.POSITIVE_INFINITY,
): Promise<void> {
  const { heads, keyValueHeads, headSize } = shape;
  const examples = lengths.map((length) => ({ prompt: 0, completion: length, branch: 0 as const }));
  const ranges = packedRanges(examples, window);
  const queryEnd = lengths.flatMap((length, i) => {
    const end = lengths.slice(0, i + 1).reduce((sum, one) => sum + one, 0);
    return Array.from({ length }, (_, row) => Math.min(end, end - length + row + window));
  });
  const T = ranges.length / 4;
  const random = seeded(seed);
  const width = (heads + 2 * keyValueHeads) * headSize;
  const [kFrom, vFrom] = [heads * headSize, (heads + keyValueHeads) * headSize];
  const { array: fused, values: rows } = stored(format, [T, width], normals(random, T * width, scale));
  const dOut = normals(random, T * heads * headSize);
  const inputs = {
    ...shape,
    ranges,
    q: columns(rows, width, 0, kFrom),
    k: columns(rows, width, kFrom, keyValueHeads * headSize),
    v: columns(rows, width, vFrom, keyValueHeads * headSize),
  };
  const forward = twin.attentionForward(inputs);
  const out = stored(format, [T, heads * headSize], forward.out).array;
  const logSumExp = Float32Array.from(forward.logSumExp);
  const common = { fused, dOut: f32([T, heads * headSize], dOut) };
  const uniforms = { groupSize: heads / keyValueHeads, keysPerRow: 64, qFrom: 0, kFrom, vFrom };
  const query = await runKernel(
    device,
    attentionBackwardQuery(headSize, facts),
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
    attentionBackwardKeyValue(headSize, facts),
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
  const details = probabilities(inputs, forward.logSumExp);
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
        const relative = error + (2 * steps + 2 * Math.sqrt(headSize) + 8) * EPSILON;
        const kept = storedBound(format, delta, 0);
        const dScore = (at(p, n) * ((at(along, n) + delta) * relative + kept)) / Math.sqrt(headSize);
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

describe.each(variants)("attention backward of $format, $variant", ({ facts, emulated, format }) => {
  it("equals float64 on packed causal sequences, windowed ones too, grouped heads summing into one key head", async () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 13 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(
        headShapes(format, { facts, emulated }),
        lengths,
        fc.constantFrom(0.3, 1, 3),
        fc.nat(1e9),
        windows,
        (...drawn) => checkBackward(facts, format, ...drawn),
      ),
      {
        seed: 53,
        numRuns: runsFor({ emulated }, 40),
      },
    );
  });

  // A small group of heads over a few tokens: each size is a text of its own.
  it.each(emulated ? someOf({ emulated }, [64, 256, 32, 80, 96, 128]) : [])(
    "heads of %i channels, as models have, there and back",
    async (headSize) => {
      const shape = { heads: 2, keyValueHeads: 1, headSize };
      await checkBackward(facts, format, shape, [9, 4], 1, headSize);
      const width = 4 * headSize;
      const { array: fused, values: rows } = stored(format, [13, width], normals(seeded(headSize), 13 * width));
      const ranges = packedRanges([{ prompt: 4, completion: 6, branch: 3 }]);
      await checkForward(
        facts,
        format,
        {
          ...{ ...shape, ranges, q: columns(rows, width, 0, 2 * headSize) },
          ...{ k: columns(rows, width, 2 * headSize, headSize), v: columns(rows, width, 3 * headSize, headSize) },
        },
        { q: fused, k: fused, v: fused, qFrom: 0, kFrom: 2 * headSize, vFrom: 3 * headSize },
      );
    },
  );

  it("heads of more channels than a subgroup's lanes own at once", async () => {
    const isSmall = format === "f16" && (emulated || isPlayedGpu(facts));
    const headSize = isSmall ? 20 : 4 * Math.max(8, facts.subgroupSize) + 4;
    await checkBackward(facts, format, { heads: 6, keyValueHeads: 2, headSize }, [21, 9], 1, 7);
  });

  it("more heads in a group than a tile has columns", async () => {
    await checkBackward(facts, format, { heads: 131, keyValueHeads: 1, headSize: 20 }, [3], 1, 8);
  });

  it("a sequence of one token: its probability is 1, so only its value has a gradient", async () => {
    await checkBackward(facts, format, { heads: 4, keyValueHeads: 2, headSize: 8 }, [1, 5, 1], 1, 4);
  });

  it("more rows than one workgroup holds", async () => {
    await checkBackward(facts, format, { heads: 2, keyValueHeads: 1, headSize: 4 }, [33, 32, 5], 1, 6);
  });

  it("rows that no one sees and that see nothing get zeros", async () => {
    const [T, width] = [3, 12];
    const random = seeded(8);
    const { array: fused, values: rows } = stored(format, [T, width], normals(random, T * width));
    const dOut = normals(random, T * 4);
    const inputs = { ranges: [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0], heads: 1, keyValueHeads: 1, headSize: 4 };
    const forward = twin.attentionForward({
      ...inputs,
      q: columns(rows, width, 0, 4),
      k: columns(rows, width, 4, 4),
      v: columns(rows, width, 8, 4),
    });
    const logSumExp = f32([T, 1], [...forward.logSumExp.subarray(0, 2), -3e38]);
    const uniforms = { groupSize: 1, keysPerRow: 1, qFrom: 0, kFrom: 4, vFrom: 8 };
    const query = await runKernel(
      device,
      attentionBackwardQuery(4, facts),
      {
        fused,
        out: stored(format, [T, 4], forward.out).array,
        dOut: f32([T, 4], dOut),
        logSumExp,
        ranges: u32([T, 4], inputs.ranges),
        dFused: unset(T, width),
        delta: unset(T, 1),
        ...uniforms,
      },
      facts,
    );
    const both = await runKernel(
      device,
      attentionBackwardKeyValue(4, facts),
      {
        fused,
        dOut: f32([T, 4], dOut),
        logSumExp,
        delta: f32([T, 1], query("delta")),
        queryEnd: u32([T], [2, 2, 2]),
        dFused: f32([T, width], query("dFused")),
        ...uniforms,
      },
      facts,
    );
    expect([...both("dFused").subarray(2 * width)]).toEqual(new Array(width).fill(0));
  });
});

expectLanes(["attentionForward", "attentionBackwardQuery", "attentionBackwardKeyValue"], await emulatedLanes());
