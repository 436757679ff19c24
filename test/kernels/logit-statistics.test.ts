/** Entropy and mean of rows of logits, over windows and splits of the vocabulary, against float64; and their sums. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { logSoftmaxGatherForward } from "../../src/kernels/float64/log-softmax-gather.ts";
import * as twin from "../../src/kernels/float64/logit-statistics.ts";
import { METRIC_SUMS, tokenSums } from "../../src/kernels/kto-objective.ts";
import { logitStatistics, logitStatisticsCombine } from "../../src/kernels/logit-statistics.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { bits, EPSILON, expError, expectWithin, float64, SMALLEST_NORMAL } from "../helpers/compare.ts";
import { emulatedLanes, kernelVariants, runsFor, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32, unset } from "../helpers/gpu.ts";
import { errorsOf, type Head, headOf, shapes, steepHead, tableRows, windowsOf } from "../helpers/heads.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

function exactLogSumExp({ hidden, table, targets, cap }: Head): Float64Array {
  return logSoftmaxGatherForward(float64(hidden), float64(table), targets, { cap }).logSumExp;
}

/** Both kernels on the device, window by window, from the log-sum-exp rounded to f32. */
async function run(head: Head, facts: AdapterFacts) {
  const { rows, width, hidden, split, vocabulary } = head;
  const windows = windowsOf(head);
  const splits = windows.reduce((sum, { splits: own }) => sum + own, 0);
  let partials = unset(splits, rows, 2);
  let firstSplit = 0;
  for (const { start, count, splits: own } of windows) {
    const result = await runKernel(
      device,
      logitStatistics(rows, count, width, facts, head.format, head.cap),
      {
        a: f32([rows, width], hidden),
        b: tableRows(head, start, count),
        logSumExp: f32([rows], exactLogSumExp(head)),
        partials,
        firstSplit,
        splitColumns: split,
        aFrom: 0,
      },
      facts,
    );
    partials = f32([splits, rows, 2], result("partials"));
    firstSplit += own;
  }
  const combined = await runKernel(device, logitStatisticsCombine, {
    partials,
    entropies: unset(rows),
    meanLogits: unset(rows),
    V: vocabulary,
  });
  return { entropies: combined("entropies"), meanLogits: combined("meanLogits") };
}

async function check(head: Head, facts: AdapterFacts): Promise<void> {
  const { rows, vocabulary, hidden, table } = head;
  const actual = await run(head, facts);
  const wanted = twin.logitStatistics(float64(hidden), float64(table), rows, { cap: head.cap });
  const totals = exactLogSumExp(head);
  const { logits, logitErrors } = errorsOf(head, totals);
  const adding = (Math.sqrt(vocabulary) + 16) * EPSILON;
  const entropyBounds = new Float64Array(rows);
  const meanBounds = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const total = at(totals, row);
    let entropy = vocabulary * SMALLEST_NORMAL;
    let mean = 0;
    for (let token = 0; token < vocabulary; token++) {
      const i = row * vocabulary + token;
      const surprise = total - at(logits, i);
      const probability = Math.exp(-surprise);
      // What the surprise is off by moves p s by p |1 - s| times as much; then exp, two products, and the sum.
      const own = at(logitErrors, i) + EPSILON * (Math.abs(total) + surprise);
      entropy += probability * ((1 + surprise) * own + surprise * (expError(surprise) + 2 * EPSILON + adding));
      mean += (at(logitErrors, i) + adding * Math.abs(at(logits, i))) / vocabulary;
    }
    entropyBounds[row] = entropy;
    meanBounds[row] = mean + 6 * EPSILON * Math.abs(at(wanted.meanLogits, row)) + SMALLEST_NORMAL;
  }
  expectWithin("entropies", actual.entropies, wanted.entropies, entropyBounds);
  expectWithin("meanLogits", actual.meanLogits, wanted.meanLogits, meanBounds);
}

describe("float64", () => {
  it("a uniform row has the entropy log V, a certain one 0, whatever its logits are moved by", () => {
    const rows = twin.logitStatistics(Float64Array.of(1, 0), Float64Array.of(700, 700, 700, 700, 700), 2);
    expect(rows.entropies[0]).toBeCloseTo(Math.log(5), 12);
    expect([...rows.meanLogits]).toEqual([700, 0]);
    const certain = twin.logitStatistics(Float64Array.of(1), Float64Array.of(5000, -5000), 1);
    expect([certain.entropies[0], certain.meanLogits[0]]).toEqual([0, 0]);
  });

  it("two tokens: -p log p - (1 - p) log (1 - p)", () => {
    const p = 0.2;
    const { entropies } = twin.logitStatistics(Float64Array.of(1), Float64Array.of(Math.log(p / (1 - p)), 0), 1);
    expect(entropies[0]).toBeCloseTo(-p * Math.log(p) - (1 - p) * Math.log(1 - p), 12);
  });
});

describe.each(variants)("logit-statistics, $variant", ({ facts, emulated }) => {
  it("gives the entropies and means of float64 over odd vocabularies, windows and splits", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => check(headOf(shape), facts)),
      { seed: 71, numRuns: runsFor({ emulated }, 30) },
    );
  });

  it.each([
    ["bf16", 8],
    ["f16", 3],
  ] as const)("a table stored as %s gives what its numbers give, width %i", async (format, width) => {
    const whole = headOf({ rows: 33, vocabulary: 257, width, cut: { window: 256, split: 256 }, seed: 3 });
    const { values } = stored(format, [257, width], whole.table);
    await check({ ...whole, table: Float32Array.from(values), format }, facts);
  });

  it("a soft cap of logits", async () => {
    const plain = headOf({ rows: 33, vocabulary: 128, width: 4, cut: { window: 192, split: 64 }, seed: 9 }, 6);
    await check({ ...plain, cap: 4 }, facts);
  });

  it.each([4, 3])("logits of +-80 stay finite and exact to rounding, width %i", async (width) => {
    await check(steepHead(width), facts);
  });

  it("a log-sum-exp far below 0 lets nothing outside the vocabulary overflow", async () => {
    const head = headOf({ rows: 3, vocabulary: 33, width: 3, cut: { window: 1000, split: 256 }, seed: 5 });
    const low = { ...head, hidden: head.hidden.map((_, i) => (i % 3 === 0 ? 100 : 0)) };
    await check({ ...low, table: head.table.map((value, i) => (i % 3 === 0 ? -2 - Math.abs(value) : value)) }, facts);
  });

  it("gives the same bits twice", async () => {
    const head = headOf({ rows: 33, vocabulary: 513, width: 20, cut: { window: 256, split: 32 }, seed: 3 });
    const [first, second] = [await run(head, facts), await run(head, facts)];
    expect(bits(second.entropies)).toEqual(bits(first.entropies));
    expect(bits(second.meanLogits)).toEqual(bits(first.meanLogits));
  });
});

it("tokenSums adds tokens and logits by class, and entropies of both", async () => {
  const before = new Array(METRIC_SUMS.size).fill(8);
  const result = await runKernel(device, tokenSums, {
    ranges: u32([3, 2], [0, 5, 5, 6, 6, 16]),
    entropies: f32([3], [1, 2, 4]),
    logits: f32([3], [-16, 32, 64]),
    desirable: u32([3], [1, 0, 1]),
    metrics: f32([METRIC_SUMS.size], before),
  });
  const wanted = [...before];
  wanted[METRIC_SUMS.desirableTokens] += 15;
  wanted[METRIC_SUMS.undesirableTokens] += 1;
  wanted[METRIC_SUMS.desirableLogits] += 48;
  wanted[METRIC_SUMS.undesirableLogits] += 32;
  wanted[METRIC_SUMS.entropy] += 7;
  expect([...result("metrics")]).toEqual(wanted);
});

expectLanes(["logitStatistics"], await emulatedLanes());
