/** The reference point and the objective: loss, coefficients and metrics against float64, to saturation and beyond. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { sigmoid } from "../../src/kernels/float64/activation.ts";
import * as twin from "../../src/kernels/float64/kto-objective.ts";
import { ktoObjective, METRIC_SUMS, mismatchedPairSum } from "../../src/kernels/kto-objective.ts";
import { EPSILON, expError, expectWithin, normals, SMALLEST_NORMAL, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32, unset, zeros } from "../helpers/gpu.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

interface Batch {
  /** [2 m], or [m] for z0 = 0 by choice. */
  readonly policy: Float32Array;
  readonly reference: Float32Array;
  readonly labels: readonly boolean[];
  readonly valid: readonly boolean[];
  readonly beta: number;
  readonly desirableWeight: number;
  readonly undesirableWeight: number;
  readonly microbatchWeight?: number;
  /** Rows of the update that these are a part of; default: they are a mean of their own. */
  readonly updateRows?: number;
  readonly referenceKind?: "model" | "uniform";
}

/** Both kernels in turn, as the trainer dispatches them. */
async function run(batch: Batch) {
  const m = batch.labels.length;
  const S = batch.policy.length;
  const policy = f32([S], batch.policy);
  const referenceLogProbs = f32([S], batch.reference);
  let pairSum = zeros(2);
  let metrics = zeros(METRIC_SUMS.size);
  if (S > m) {
    const sums = await runKernel(device, mismatchedPairSum, {
      policy,
      reference: referenceLogProbs,
      pairValid: u32([m], batch.valid.map(Number)),
      pairSum,
      metrics,
    });
    pairSum = f32([2], sums("pairSum"));
    metrics = f32([METRIC_SUMS.size], sums("metrics"));
  }
  const result = await runKernel(device, ktoObjective, {
    policy,
    reference: referenceLogProbs,
    desirable: u32([m], batch.labels.map(Number)),
    pairSum,
    step: f32([4], [0, batch.microbatchWeight ?? 1, batch.updateRows ?? 0, 0]),
    coefficients: unset(m),
    metrics,
    beta: batch.beta,
    desirableWeight: batch.desirableWeight,
    undesirableWeight: batch.undesirableWeight,
    clamped: batch.referenceKind === "uniform" ? 0 : 1,
    wholeUpdate: batch.updateRows === undefined ? 0 : 1,
  });
  return { coefficients: result("coefficients"), metrics: result("metrics"), pairSum: pairSum.data };
}

async function check(batch: Batch): Promise<{ coefficients: Float32Array; metrics: Float32Array }> {
  const { labels, valid, desirableWeight, undesirableWeight, microbatchWeight = 1, referenceKind = "model" } = batch;
  const m = labels.length;
  const beta = Math.fround(batch.beta);
  const point = twin.referencePoint({
    policyLogProbs: batch.policy.subarray(m),
    referenceLogProbs: batch.reference.subarray(m),
    valid,
    lossType: batch.policy.length > m ? "kto" : "apo_zero_unpaired",
    referenceKind,
  });
  const measured = referenceKind === "model" || point.pairs > 0;
  const weights = {
    desirableWeight: Math.fround(desirableWeight),
    undesirableWeight: Math.fround(undesirableWeight),
  };
  const wanted = twin.ktoObjective({
    policyLogProbs: batch.policy,
    referenceLogProbs: batch.reference,
    labels,
    z0: point.z0,
    measured,
    beta,
    ...(batch.updateRows === undefined ? {} : { rows: batch.updateRows }),
    ...weights,
  });
  const rows = batch.updateRows ?? m;
  const part = m / rows;
  const { coefficients, metrics, pairSum } = await run(batch);

  // Each k_i is rounded once, then summed: a random walk over the pairs.
  let pairTerms = 0;
  for (let i = 0; i < m; i++) {
    if (batch.policy.length > m && valid[i])
      pairTerms += Math.abs(at(batch.policy, m + i) - at(batch.reference, m + i));
  }
  const pairSumError = (2 * Math.sqrt(m) + 1) * EPSILON * pairTerms;
  const pointError = point.pairs === 0 ? 0 : pairSumError / point.pairs + 5 * EPSILON * Math.abs(point.unclamped);
  if (batch.policy.length > m) {
    expectWithin("sum of pairs", [at(pairSum, 0)], [point.unclamped * point.pairs], () => {
      return pairSumError + EPSILON * pairTerms + Number.MIN_VALUE;
    });
    expect(pairSum[1]).toBe(point.pairs);
  }

  // u = beta (r - z0): its absolute error is the relative error of what the sigmoid's tail is made of.
  const utility = (i: number) => (labels[i] ? 1 : -1) * beta * (measured ? at(wanted.logRatios, i) - point.z0 : 0);
  const tailError = (i: number) => {
    const ratio = Math.abs(at(wanted.logRatios, i));
    const difference =
      beta * (2 * EPSILON * (ratio + Math.abs(point.z0)) + pointError) + 2 * EPSILON * Math.abs(utility(i));
    return difference + expError(utility(i)) + 8 * EPSILON;
  };
  const weightOf = (i: number) => (labels[i] ? weights.desirableWeight : weights.undesirableWeight);
  expectWithin(
    "coefficients",
    coefficients,
    [...wanted.coefficients].map((value) => value * microbatchWeight),
    (i) => {
      const size = Math.abs(at(wanted.coefficients, i)) * microbatchWeight;
      return size * (2 * tailError(i) + 8 * EPSILON) + SMALLEST_NORMAL * (1 + weightOf(i)) + Number.MIN_VALUE;
    },
  );
  let lossError = 0;
  for (let i = 0; i < m; i++) {
    const own = at(wanted.losses, i) / rows;
    lossError += own * (tailError(i) + (Math.sqrt(m) + 6) * EPSILON) + (SMALLEST_NORMAL * (1 + weightOf(i))) / rows;
  }
  expectWithin("loss", [at(metrics, METRIC_SUMS.loss)], [wanted.loss], () => lossError + Number.MIN_VALUE);
  expectWithin("z0", [at(metrics, METRIC_SUMS.referencePoint)], [part * point.z0], () => {
    return part * (pointError + 2 * EPSILON * Math.abs(point.z0)) + Number.MIN_VALUE;
  });
  expectWithin("unclamped z0", [at(metrics, METRIC_SUMS.unclampedReferencePoint)], [part * point.unclamped], () => {
    return part * (pointError + 2 * EPSILON * Math.abs(point.unclamped)) + Number.MIN_VALUE;
  });
  expect(metrics[METRIC_SUMS.microbatches]).toBe(Math.fround(part));
  const computed = batch.policy.length - m;
  expect(metrics[METRIC_SUMS.pairs]).toBe(computed);
  expect(metrics[METRIC_SUMS.selfPairs]).toBe(computed - point.pairs);

  for (const [count, rewards, logProbs, wantedLabel] of [
    [METRIC_SUMS.desirable, METRIC_SUMS.desirableReward, METRIC_SUMS.desirableLogProb, true],
    [METRIC_SUMS.undesirable, METRIC_SUMS.undesirableReward, METRIC_SUMS.undesirableLogProb, false],
  ] as const) {
    const rows = labels.flatMap((label, i) => (label === wantedLabel ? [i] : []));
    const sum = (term: (i: number) => number) => rows.reduce((total, i) => total + term(i), 0);
    const error = (2 * Math.sqrt(m) + 2) * EPSILON;
    expect(metrics[count]).toBe(rows.length);
    expectWithin("reward", [at(metrics, rewards)], [sum((i) => beta * at(wanted.logRatios, i))], () => {
      return error * sum((i) => Math.abs(beta * at(wanted.logRatios, i))) + Number.MIN_VALUE;
    });
    expectWithin("log-prob", [at(metrics, logProbs)], [sum((i) => at(batch.policy, i))], () => {
      return error * sum((i) => Math.abs(at(batch.policy, i))) + Number.MIN_VALUE;
    });
  }
  return { coefficients, metrics };
}

const batches = fc.record({
  m: fc.integer({ min: 2, max: 9 }),
  /** How valid pairs and labels are spread: mixed, all, none. */
  pairs: fc.constantFrom("mixed", "all", "none"),
  classes: fc.constantFrom("mixed", "mixed", "desirable", "undesirable"),
  /** Pulls the pairs' mean to one side, so that the clamp is met from both. */
  drift: fc.constantFrom(-3, 0, 3),
  beta: fc.constantFrom(0.01, 0.1, 1),
  desirableWeight: fc.constantFrom(1, 4 / 3, 13.33, 0),
  undesirableWeight: fc.constantFrom(1, 0.5, 0),
  microbatchWeight: fc.constantFrom(1, 0.25),
  /** Other rows of the update, which weigh the same. */
  others: fc.constantFrom(undefined, undefined, 0, 1, 23),
  referenceKind: fc.constantFrom("model", "model", "uniform"),
  seed: fc.nat(1e9),
});

describe("KTO objective", () => {
  it("equals float64 over classes, weights, clamps, and pairs that are not mismatched", async () => {
    await fc.assert(
      fc.asyncProperty(batches, async ({ m, pairs, classes, drift, seed, others, ...numbers }) => {
        const random = seeded(seed);
        const ratios = normals(random, 2 * m, 4);
        const referenceLogProbs = normals(random, 2 * m, 10).map((value) => value - 60);
        await check({
          ...numbers,
          ...(others === undefined ? {} : { updateRows: m + others }),
          policy: referenceLogProbs.map((value, i) => value + at(ratios, i) + (i < m ? 0 : drift)),
          reference: numbers.referenceKind === "uniform" ? new Float32Array(2 * m) : referenceLogProbs,
          labels: Array.from({ length: m }, () =>
            classes === "mixed" ? random.below(2) === 0 : classes === "desirable",
          ),
          valid: Array.from({ length: m }, () => (pairs === "mixed" ? random.below(2) === 0 : pairs === "all")),
        });
      }),
      { seed: 81, numRuns: 60 },
    );
  });

  const base = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, valid: [true, true] };

  it("a mean above 0 is the reference point, one below 0 is clamped to it", async () => {
    for (const [pair, z0] of [
      [2.5, 2.5],
      [-2.5, 0],
    ] as const) {
      const { metrics } = await check({
        ...base,
        policy: Float32Array.of(1, -1, pair - 40, pair - 50),
        reference: Float32Array.of(0, 0, -40, -50),
        labels: [true, false],
      });
      expect(metrics[METRIC_SUMS.referencePoint]).toBe(z0);
      expect(metrics[METRIC_SUMS.unclampedReferencePoint]).toBe(pair);
    }
  });

  it("a pair that is not a number makes every coefficient one that is none, so that the update is skipped", async () => {
    const policy = Float32Array.of(-3, -4, Number.NaN, -6);
    const reference = Float32Array.of(-3, -5, -4, -7);
    const classes = { labels: [true, false], valid: [true, true], beta: 0.1, desirableWeight: 1, undesirableWeight: 1 };
    const { coefficients } = await run({ policy, reference, ...classes });
    expect([...coefficients]).toEqual([Number.NaN, Number.NaN]);
  });

  it("against the uniform reference a mean below 0 is not clamped, and equals a constant reference that is low", async () => {
    const policy = Float32Array.of(-30, -38, -36, -42);
    const numbers = { ...base, policy, labels: [true, false] };
    const uniform = await check({ ...numbers, reference: new Float32Array(4), referenceKind: "uniform" });
    expect(uniform.metrics[METRIC_SUMS.referencePoint]).toBe(-39);
    expect(uniform.metrics[METRIC_SUMS.correct]).toBe(1);
    const constant = await check({ ...numbers, reference: new Float32Array(4).fill(-128) });
    expect(constant.metrics[METRIC_SUMS.referencePoint]).toBe(89);
    expect([...uniform.coefficients]).toEqual([...constant.coefficients]);
    expect(uniform.metrics[METRIC_SUMS.loss]).toBe(constant.metrics[METRIC_SUMS.loss]);
  });

  it("against the uniform reference nothing is learnt where no pair says what the reference point is", async () => {
    const { coefficients, metrics } = await check({
      ...base,
      policy: Float32Array.of(-30, -38, -36, -42),
      reference: new Float32Array(4),
      labels: [true, false],
      valid: [false, false],
      referenceKind: "uniform",
    });
    expect([...coefficients].map((value) => value + 0)).toEqual([0, 0]);
    expect(metrics[METRIC_SUMS.loss]).toBe(0.5);
  });

  it("without pairs, by choice, z0 is 0 and no pair is counted", async () => {
    const { metrics } = await check({
      ...base,
      policy: Float32Array.of(1, -1),
      reference: Float32Array.of(0, 0),
      labels: [true, false],
      valid: [],
    });
    expect(metrics[METRIC_SUMS.pairs]).toBe(0);
    expect(metrics[METRIC_SUMS.selfPairs]).toBe(0);
  });

  it.each([200, 1e4])("log ratios of +-%f: finite, saturated, and of the right sign", async (ratio) => {
    const { coefficients, metrics } = await check({
      ...base,
      beta: 1,
      policy: Float32Array.of(ratio, -ratio, ratio, -ratio, 0, 0, 0, 0),
      reference: new Float32Array(8),
      labels: [true, true, false, false],
      valid: [true, true, true, true],
    });
    for (const [i, value] of coefficients.entries()) {
      expect(Number.isFinite(value), `coefficient ${i}`).toBe(true);
      expect(Math.abs(value)).toBeLessThan(1e-80);
    }
    // Two examples lie on the wrong side: each costs its whole weight.
    expect(metrics[METRIC_SUMS.loss]).toBe(0.5);
    expect(metrics[METRIC_SUMS.saturated]).toBe(4);
    expect(metrics[METRIC_SUMS.correct]).toBe(2);
  });

  it("moderate ratios are counted as correct by their side of z0, and as saturated by the slope alone", async () => {
    const ratios = [3, -3, 3, -3, 0, 0.5];
    const { metrics, coefficients } = await check({
      beta: 1,
      desirableWeight: 1,
      undesirableWeight: 1,
      policy: Float32Array.of(...ratios, 1, 1, 1, 1, 1, 1),
      reference: new Float32Array(12),
      labels: [true, true, false, false, true, false],
      valid: new Array(6).fill(true),
    });
    // z0 = 1: the desirable one above it, and the undesirable ones below it.
    expect(metrics[METRIC_SUMS.correct]).toBe(3);
    const slopes = ratios.map((ratio) => sigmoid(ratio - 1) * sigmoid(1 - ratio));
    expect(metrics[METRIC_SUMS.saturated]).toBe(slopes.filter((slope) => slope < 0.01).length);
    expect([...coefficients].map(Math.sign)).toEqual([-1, -1, 1, 1, -1, 1]);
  });

  it("a class of weight 0 moves nothing and costs nothing", async () => {
    const { coefficients, metrics } = await check({
      ...base,
      desirableWeight: 0,
      policy: Float32Array.of(1, 1, 0, 0),
      reference: new Float32Array(4),
      labels: [true, true],
    });
    expect([...coefficients].map((value) => value + 0)).toEqual([0, 0]);
    expect(metrics[METRIC_SUMS.loss]).toBe(0);
  });

  it("pair sums of several microbatches add up, for a reference point over the whole step", async () => {
    const once = await runKernel(device, mismatchedPairSum, {
      policy: f32([4], [0, 0, 3, 5]),
      reference: f32([4], [0, 0, 1, 1]),
      pairValid: u32([2], [1, 0]),
      pairSum: f32([2], [10, 4]),
      metrics: f32([METRIC_SUMS.size], new Array(METRIC_SUMS.size).fill(8)),
    });
    expect([...once("pairSum")]).toEqual([12, 5]);
    // Counts are this microbatch's own, whatever the reference point spans.
    expect(once("metrics")[METRIC_SUMS.pairs]).toBe(10);
    expect(once("metrics")[METRIC_SUMS.selfPairs]).toBe(9);
  });

  it("metrics add to those of earlier microbatches", async () => {
    const result = await runKernel(device, ktoObjective, {
      policy: f32([2], [0, 0]),
      reference: f32([2], [0, 0]),
      desirable: u32([2], [1, 0]),
      pairSum: zeros(2),
      step: f32([4], [0, 1, 0, 0]),
      coefficients: unset(2),
      metrics: f32([METRIC_SUMS.size], new Array(METRIC_SUMS.size).fill(8)),
      beta: 0.1,
      desirableWeight: 1,
      undesirableWeight: 1,
      clamped: 1,
      wholeUpdate: 0,
    });
    expect(result("metrics")[METRIC_SUMS.loss]).toBe(8.5);
    expect(result("metrics")[METRIC_SUMS.microbatches]).toBe(9);
    expect(result("metrics")[METRIC_SUMS.desirable]).toBe(9);
  });
});
