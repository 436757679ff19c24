/**
 * The fused head: both passes over windows and splits of the vocabulary, with the two products that follow pass 2,
 * against a float64 head that forms every logit.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/log-softmax-gather.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  NO_SEQUENCE,
  sequenceSums,
  targetHits,
  tokensPerSplit,
  windowColumns,
} from "../../src/kernels/log-softmax-gather.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import { type TileName, tileNames } from "../../src/kernels/matmul-variant.ts";
import { type AdapterFacts, BASE_FACTS } from "../../src/kernels/wgsl.ts";
import {
  bits,
  EPSILON,
  expError,
  expectWithin,
  float64,
  normals,
  SMALLEST_NORMAL,
  seeded,
} from "../helpers/compare.ts";
import { emulatedLanes, kernelVariants, runsFor, sharedDevice } from "../helpers/device.ts";
import { candidate, f32, runKernel, stored, u32, unset } from "../helpers/gpu.ts";
import { errorsOf, type Head, headOf, shapes, steepHead, tableRows, windowsOf } from "../helpers/heads.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

/** Pass 1 on the device, window by window. */
async function runForward(head: Head, facts: AdapterFacts, tile?: TileName) {
  const { rows, width, hidden, targets, split } = head;
  const windows = windowsOf(head);
  const splits = windows.reduce((sum, { splits }) => sum + splits, 0);
  let partials = unset(splits, rows, 2);
  let targetLogits = unset(rows);
  let firstSplit = 0;
  for (const { start, count, splits: own } of windows) {
    const result = await runKernel(
      device,
      candidate(logSoftmaxGatherForward(rows, count, width, facts, head.format, count, head.cap), tile),
      {
        a: f32([rows, width], hidden),
        b: tableRows(head, start, count),
        targets: u32([rows], targets),
        partials,
        targetLogits,
        firstSplit,
        splitColumns: split,
        aFrom: 0,
        windowStart: start,
      },
      facts,
    );
    partials = f32([splits, rows, 2], result("partials"));
    targetLogits = f32([rows], result("targetLogits"));
    firstSplit += own;
  }
  const combined = await runKernel(device, logSoftmaxGatherCombine, {
    partials,
    targetLogits,
    logProbs: unset(rows),
    logSumExp: unset(rows),
  });
  const hits = await runKernel(device, targetHits, { partials, targetLogits, hits: unset(rows) });
  return { logProbs: combined("logProbs"), logSumExp: combined("logSumExp"), hits: hits("hits") };
}

async function checkForward(head: Head, facts: AdapterFacts, tile?: TileName): Promise<void> {
  const { hidden, table, targets, vocabulary } = head;
  const actual = await runForward(head, facts, tile);
  const wanted = twin.logSoftmaxGatherForward(float64(hidden), float64(table), targets, { cap: head.cap });
  const { logitErrors, logSumExpErrors } = errorsOf(head, wanted.logSumExp);
  expectWithin("logSumExp", actual.logSumExp, wanted.logSumExp, logSumExpErrors);
  expectWithin("logProbs", actual.logProbs, wanted.logProbs, (row) => {
    const targetError = at(logitErrors, row * vocabulary + at(targets, row));
    return at(logSumExpErrors, row) + targetError + 2 * EPSILON * Math.abs(at(wanted.logProbs, row));
  });
}

async function checkBackward(
  head: Head,
  sequences: readonly number[],
  coefficients: Float32Array,
  facts: AdapterFacts,
  tile?: TileName,
): Promise<void> {
  const { rows, vocabulary, width, hidden, table, targets } = head;
  const options = { cap: head.cap };
  const wantedForward = twin.logSoftmaxGatherForward(float64(hidden), float64(table), targets, options);
  const logSumExp = Float32Array.from(wantedForward.logSumExp);
  const random = seeded(1);
  const tableBefore = normals(random, vocabulary * width);
  let dHidden = unset(rows, width);
  const dTable = new Float32Array(vocabulary * width);
  const dLogits = new Float32Array(rows * vocabulary);
  for (const { start, count } of windowsOf(head)) {
    const window = tableRows(head, start, count);
    const pass2 = await runKernel(
      device,
      candidate(logSoftmaxGatherGradient(rows, count, width, facts, head.format, head.cap), tile),
      {
        a: f32([rows, width], hidden),
        b: window,
        targets: u32([rows], targets),
        sequences: u32([rows], sequences),
        logSumExp: f32([rows], logSumExp),
        coefficients: f32([coefficients.length], coefficients),
        dLogits: unset(rows, count),
        aFrom: 0,
        windowStart: start,
      },
      facts,
    );
    const gradient = f32([rows, count], pass2("dLogits"));
    gradient.data.forEach((value, i) => {
      dLogits[Math.floor(i / count) * vocabulary + start + (i % count)] = value;
    });
    const unused = {
      ...{ bias: unset(4), residual: unset(1, 4), hasBias: 0, hasResidual: 0 },
      ...{ aFrom: 0, outFrom: 0, scale: 1 },
    };
    const toHidden = { M: rows, N: width, K: count };
    const hiddenResult = await runKernel(
      device,
      matmul("NN", toHidden, facts, { format: head.format ?? "f32" }),
      {
        ...unused,
        a: gradient,
        b: window,
        out: dHidden,
        accumulate: Number(start > 0),
      },
      facts,
    );
    dHidden = f32([rows, width], hiddenResult("out"));
    const toTable = { M: count, N: width, K: rows };
    const tableResult = await runKernel(
      device,
      matmul("TN", toTable, facts),
      {
        ...unused,
        a: gradient,
        b: f32([rows, width], hidden),
        out: f32([count, width], tableBefore.subarray(start * width, (start + count) * width)),
        accumulate: 1,
      },
      facts,
    );
    dTable.set(tableResult("out"), start * width);
  }

  const rowCoefficients = Float64Array.from(sequences, (sequence) => coefficients[sequence] ?? 0);
  const wanted = twin.logSoftmaxGatherBackward(
    float64(hidden),
    float64(table),
    targets,
    rowCoefficients,
    wantedForward.logSumExp,
    options,
  );
  const { logits, logitErrors, slopes, slopeErrors } = errorsOf(head, wantedForward.logSumExp);
  const exact = new Float64Array(rows * vocabulary);
  const errors = new Float64Array(rows * vocabulary);
  for (let i = 0; i < exact.length; i++) {
    const row = Math.floor(i / vocabulary);
    const distance = at(logits, i) - at(wantedForward.logSumExp, row);
    const probability = Math.exp(distance);
    const coefficient = at(rowCoefficients, row);
    const uncapped = coefficient * ((i % vocabulary === at(targets, row) ? 1 : 0) - probability);
    exact[i] = uncapped * at(slopes, i);
    // The log-sum-exp was rounded to f32 on the way in, and the difference is rounded once more.
    const exponent = at(logitErrors, i) + EPSILON * (Math.abs(at(wantedForward.logSumExp, row)) + Math.abs(distance));
    errors[i] =
      Math.abs(coefficient) * (probability * (exponent + expError(distance)) + SMALLEST_NORMAL) +
      Math.abs(uncapped) * at(slopeErrors, i) +
      2 * EPSILON * Math.abs(at(exact, i)) +
      SMALLEST_NORMAL;
  }
  expectWithin("dLogits", dLogits, exact, (i) => Math.max(at(errors, i), Number.MIN_VALUE));
  // The products: what dLogits is off by, times the other factor, and their own roundings.
  const hiddenBound = new Float64Array(rows * width);
  const tableBound = Float64Array.from(tableBefore, (value) => 4 * Math.sqrt(rows) * EPSILON * Math.abs(value));
  const windows = windowsOf(head).length;
  for (let i = 0; i < exact.length; i++) {
    const [row, token] = [Math.floor(i / vocabulary), i % vocabulary];
    const size = Math.abs(at(exact, i));
    const forHidden = at(errors, i) + (4 * Math.sqrt(vocabulary) + windows) * EPSILON * size;
    const forTable = at(errors, i) + 4 * Math.sqrt(rows) * EPSILON * size;
    for (let c = 0; c < width; c++) {
      const [h, t] = [row * width + c, token * width + c];
      hiddenBound[h] = at(hiddenBound, h) + forHidden * Math.abs(at(table, t));
      tableBound[t] = at(tableBound, t) + forTable * Math.abs(at(hidden, h));
    }
  }
  expectWithin("dHidden", dHidden.data, wanted.dHidden, (i) => Math.max(at(hiddenBound, i), Number.MIN_VALUE));
  expectWithin(
    "dTable",
    dTable,
    wanted.dTable.map((value, i) => value + at(tableBefore, i)),
    tableBound,
  );
}

// What a tuner may choose instead of the default. In vectors, over several splits.
const alternatives = variants.flatMap(({ variant, facts, emulated }) =>
  tileNames("NT", { M: 64, N: 64, K: 128 }, facts)
    .slice(1)
    .filter((tile) => tile !== "matrix64x64" && tile !== "matrix128x64" && (!emulated || tile.startsWith("subgroup")))
    .map((tile) => ({ variant, facts, tile })),
);

describe.each(alternatives)("log-softmax-gather by $tile, $variant", ({ facts, tile }) => {
  it("both passes equal float64", async () => {
    const head = headOf({ rows: 33, vocabulary: 128, width: 132, cut: { window: 256, split: 32 }, seed: 4 });
    await checkForward(head, facts, tile);
    const sequences = head.targets.map((_, row) => row % 3);
    await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts, tile);
  });
});

// What GPUs have, emulated (`emulated-matrices.ts`): rows shared by two subgroups, by 32 lanes and by 64.
const emulatedMatrices = [
  { subgroupSize: 32, tile: "matrix64x64" },
  { subgroupSize: 64, tile: "matrix32x32" },
] as const;
describe.each(emulatedMatrices)(
  "log-softmax-gather by $tile for subgroups of $subgroupSize, emulated matrices",
  ({ subgroupSize, tile }) => {
    it("both passes equal float64", async () => {
      const facts: AdapterFacts = {
        subgroupSize,
        software: false,
        matrices: { component: "f16", M: 16, N: 16, K: 16 },
      };
      const head = headOf({ rows: 33, vocabulary: 128, width: 36, cut: { window: 256, split: 64 }, seed: 6 });
      await checkForward(head, facts, tile);
      const sequences = head.targets.map((_, row) => row % 3);
      await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts, tile);
    });
  },
);

describe("log-softmax-gather without subgroups on a software adapter", () => {
  it.each([36, 3])("both passes equal float64, width %i", async (width) => {
    const facts = { ...BASE_FACTS, software: true };
    const head = headOf({ rows: 33, vocabulary: 128, width, cut: { window: 256, split: 32 }, seed: 5 });
    await checkForward(head, facts);
    const sequences = head.targets.map((_, row) => row % 3);
    await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts);
  });
});

describe.each(variants)("log-softmax-gather, $variant", ({ facts, emulated }) => {
  it("pass 1 gives the log-probabilities of float64 over odd vocabularies, windows and splits", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkForward(headOf(shape), facts)),
      { seed: 61, numRuns: runsFor({ emulated }, 30) },
    );
  });

  it("pass 2 and its two products give dHidden and add to dTable, window by window", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const random = seeded(shape.seed);
        const examples = 1 + random.below(4);
        const sequences = Array.from({ length: shape.rows }, () =>
          random.below(5) === 0 ? NO_SEQUENCE : random.below(examples),
        );
        await checkBackward(headOf(shape), sequences, normals(random, examples, 0.1), facts);
      }),
      { seed: 62, numRuns: runsFor({ emulated }, 14) },
    );
  });

  it.each([
    ["bf16", 8],
    ["f16", 3],
    ["int8", 8],
  ] as const)("a table stored as %s gives what its numbers give, width %i", async (format, width) => {
    const whole = headOf({ rows: 33, vocabulary: 257, width, cut: { window: 256, split: 256 }, seed: 3 });
    const { values } = stored(format, [257, width], whole.table);
    const head: Head = { ...whole, table: Float32Array.from(values), format };
    await checkForward(head, facts);
    const sequences = head.targets.map((_, row) => row % 3);
    await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts);
  });

  it.each([4, 3])("logits of +-80 stay finite and exact to rounding, width %i", async (width) => {
    const head = steepHead(width);
    await checkForward(head, facts);
    const sequences = head.targets.map((_, row) => row % 3);
    await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts);
  });

  it.each([4, 3])("a soft cap of logits, width %i", async (width) => {
    // Products up to about 10 times the cap: from where tanh is straight to where it is flat.
    const plain = headOf({ rows: 33, vocabulary: 128, width, cut: { window: 192, split: 64 }, seed: 9 }, 6);
    const head: Head = { ...plain, cap: 4 };
    await checkForward(head, facts);
    const sequences = head.targets.map((_, row) => row % 3);
    await checkBackward(head, sequences, Float32Array.of(-0.5, 0.25, 1), facts);
  });

  it("rows of no sequence give zero gradients whatever their target and log-sum-exp", async () => {
    const [rows, vocabulary, width] = [5, 6, 4];
    const random = seeded(2);
    const result = await runKernel(
      device,
      logSoftmaxGatherGradient(rows, vocabulary, width, facts),
      {
        a: f32([rows, width], normals(random, rows * width)),
        b: f32([vocabulary, width], normals(random, vocabulary * width)),
        targets: u32([rows], [0, 0, 0, 0, 0]),
        sequences: u32([rows], [NO_SEQUENCE, 0, NO_SEQUENCE, 1, NO_SEQUENCE]),
        logSumExp: f32([rows], [0, 2, 0, 2, 0]),
        coefficients: f32([2], [0, 0.5]),
        dLogits: unset(rows, vocabulary),
        aFrom: 0,
        windowStart: 0,
      },
      facts,
    );
    for (const row of [0, 1, 2, 4]) {
      for (const value of result("dLogits").subarray(row * vocabulary, (row + 1) * vocabulary)) {
        expect(value + 0).toBe(0);
      }
    }
    expect(result("dLogits")[3 * vocabulary]).toBeGreaterThan(0);
  });

  it("hits: targets that are the highest of all windows and splits, and the second; a tie is a hit", async () => {
    const head = headOf({ rows: 33, vocabulary: 513, width: 20, cut: { window: 192, split: 64 }, seed: 8 });
    const { logits, logitErrors } = errorsOf(head, new Float64Array(head.rows));
    const order = Array.from({ length: head.rows }, (_, row) => {
      const own = logits.subarray(row * head.vocabulary, (row + 1) * head.vocabulary);
      return [...own.keys()].sort((a, b) => at(own, b) - at(own, a));
    });
    const targets = order.map((tokens, row) => tokens[row % 2] ?? 0);
    // The best two of every row are further apart than f32 may err, so that float64's verdict is the one.
    for (const [row, [best = 0, second = 0]] of order.entries()) {
      const [a, b] = [row * head.vocabulary + best, row * head.vocabulary + second];
      expect(at(logits, a) - at(logits, b)).toBeGreaterThan(at(logitErrors, a) + at(logitErrors, b));
    }
    const { hits } = await runForward({ ...head, targets }, facts);
    const wanted = twin.targetHits(float64(head.hidden), float64(head.table), targets);
    expect([...hits]).toEqual([...wanted]);
    expect(wanted.reduce((sum, hit) => sum + hit, 0)).toBe(17);
    const equal = { ...head, table: new Float32Array(head.table.length).fill(0.5) };
    expect((await runForward(equal, facts)).hits.every((hit) => hit === 1)).toBe(true);
  });

  it("gives the same bits twice", async () => {
    const head = headOf({ rows: 33, vocabulary: 513, width: 20, cut: { window: 256, split: 32 }, seed: 3 });
    const [first, second] = [await runForward(head, facts), await runForward(head, facts)];
    expect(bits(second.logProbs)).toEqual(bits(first.logProbs));
    expect(bits(second.logSumExp)).toEqual(bits(first.logSumExp));
  });
});

describe("sums over sequences", () => {
  it("adds the rows of each range; an empty one gives 0", async () => {
    const random = seeded(4);
    const logProbs = normals(random, 40, 5);
    const ranges = [0, 1, 1, 1, 1, 18, 18, 40, 3, 7];
    const result = await runKernel(device, sequenceSums, {
      logProbs: f32([40], logProbs),
      ranges: u32([5, 2], ranges),
      sums: unset(5),
    });
    const wanted = twin.segmentSum(float64(logProbs), ranges);
    const terms = twin.segmentSum(float64(logProbs).map(Math.abs), ranges);
    // Compensated: one rounding of the result, and what is lost in the second order.
    expectWithin("sums", result("sums"), wanted, (s) => EPSILON * (Math.abs(at(wanted, s)) + 1e-3 * at(terms, s)));
  });

  it("loses nothing over thousands of rows, where a plain f32 sum would lose the small ones", async () => {
    const n = 5000;
    const logProbs = Float32Array.from({ length: n }, (_, i) => (i === 0 ? -4096 : -1e-4));
    const result = await runKernel(device, sequenceSums, {
      logProbs: f32([n], logProbs),
      ranges: u32([1, 2], [0, n]),
      sums: unset(1),
    });
    const wanted = twin.segmentSum(float64(logProbs), [0, n]);
    expectWithin("sum", result("sums"), wanted, () => 2 * EPSILON * 4097);
  });
});

describe("splits and windows", () => {
  it.each([1, 97, 512, 4096, 4097, 32000, 151936])(
    "a vocabulary of %i is covered by at most 16 splits",
    (vocabulary) => {
      const split = tokensPerSplit(vocabulary);
      expect(split % 256).toBe(0);
      expect(Math.ceil(vocabulary / split)).toBeLessThanOrEqual(16);
    },
  );

  it("windows stay within the vocabulary and the binding limit, in multiples of 64", () => {
    expect(windowColumns(100, 97, 64, 2 ** 27)).toBe(97);
    expect(windowColumns(100, 512, 64, 2 ** 27)).toBe(128);
    // A 0.6B model's table: 151,936 rows of 1,024 would be 594 MiB in one binding.
    const columns = windowColumns(4096, 151936, 1024, 2 ** 27);
    expect(columns % 64).toBe(0);
    expect(columns * 4 * 4096).toBeLessThanOrEqual(2 ** 27);
    expect(columns).toBeGreaterThanOrEqual(64);
  });
});

expectLanes(["logSoftmaxGatherForward", "logSoftmaxGatherGradient"], await emulatedLanes());
