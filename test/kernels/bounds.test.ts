/**
 * Kernels stay within their windows: without bounds checks, and with NaN around every window, they give the bits that they
 * give with bounds checks, and write nothing outside. Odd sizes, since those are where tiles reach past an end.
 */
import { afterAll, describe, expect, it } from "vitest";
import { swigluBackward, swigluForward } from "../../src/kernels/activation.ts";
import { adamw, STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import { gatherRows } from "../../src/kernels/embedding.ts";
import type { Kernel, KernelArguments } from "../../src/kernels/kernel.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  splitColumns,
} from "../../src/kernels/log-softmax-gather.ts";
import { logitStatistics } from "../../src/kernels/logit-statistics.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import { rmsNormBackward, rmsNormForward } from "../../src/kernels/norm.ts";
import { addColumnSums, columnPartials, OPTIMIZER_STATE, squarePartials } from "../../src/kernels/reduce.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { kernelVariants, sharedDevice } from "../helpers/device.ts";
import { f32, type HostArray, runKernel, stored, u32, zeros } from "../helpers/gpu.ts";
import { openWithoutRobustness, runPoisoned } from "../helpers/robustness.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const unchecked = await openWithoutRobustness();
afterAll(() => unchecked.close());

const random = seeded(31);
const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const of = (...shape: number[]): HostArray => f32(shape, normals(random, count(shape)));
const indices = (size: number, below: number) =>
  u32(
    [size],
    Array.from({ length: size }, () => random.below(below)),
  );

/** Compares every candidate of a kernel on the two devices. */
async function expectSameBits<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
  values: Readonly<Record<string, number>> = {},
): Promise<void> {
  for (const { candidates: _, ...one } of kernel.candidates?.(values) ?? [kernel]) {
    const checked = await runKernel(device, one, args);
    const written = one.bindings.filter(({ access }) => access === "readWrite");
    const wanted = written.map(({ name }) => bits(checked(name as B)));
    const found = await runPoisoned(unchecked, one, args);
    const differing = wanted.map((words, i) => words.filter((word, at) => word !== found[i]?.[at]).length);
    expect(differing, `words of ${one.name} ${one.variant ?? ""}`).toEqual(wanted.map(() => 0));
  }
}

describe.each(variants)("within its windows, $variant:", ({ facts }) => {
  it.each([
    [33, 65, 17, "f32"],
    [65, 30, 36, "bf16"],
    [7, 68, 20, "bf16"],
    [36, 44, 100, "f32"],
    [1, 5, 3, "bf16"],
  ] as const)("matmul of %i x %i x %i, all layouts, B in %s", async (M, N, K, format) => {
    for (const layout of ["NN", "NT", "TN"] as const) {
      const shape = layout === "NT" ? [N, K] : [K, N];
      const b = stored(format, shape, normals(random, N * K)).array;
      const a = layout === "TN" ? of(K, M) : of(M, K);
      await expectSameBits(matmul(layout, { M, N, K }, facts, { format }), {
        ...{ a, b, bias: of(N), residual: of(M, N), out: of(M, N), M, N, K, aFrom: 0, outFrom: 0, scale: 1 },
        ...{ hasBias: 1, hasResidual: 1, accumulate: 1 },
      });
    }
  });

  it.each([
    [33, 700, 20],
    [5, 517, 7],
  ])("the head over %i rows, %i tokens and %i channels", async (M, N, K) => {
    const perSplit = splitColumns(N);
    const splits = Math.ceil(N / perSplit);
    const table = { a: of(M, K), b: of(N, K), aFrom: 0 };
    const walk = { partials: zeros(splits, M, 2), firstSplit: 0, splitColumns: perSplit };
    const targets = indices(M, N);
    await expectSameBits(logSoftmaxGatherForward(M, N, K, facts), {
      ...{ ...table, ...walk, targets, targetLogits: zeros(M), windowStart: 0 },
    });
    const logSumExp = f32([M], new Array(M).fill(8));
    await expectSameBits(logitStatistics(M, N, K, facts), { ...table, ...walk, logSumExp });
    await expectSameBits(logSoftmaxGatherGradient(M, N, K, facts), {
      ...{ ...table, targets, sequences: indices(M, 3), logSumExp, coefficients: of(3), dLogits: zeros(M, N) },
      windowStart: 0,
    });
  });

  it.each([6, 8, 64])("attention with heads of %i", async (headSize) => {
    const [T, heads, keyValueHeads] = [37, 4, 2];
    const width = (heads + 2 * keyValueHeads) * headSize;
    const from = { qFrom: 0, kFrom: heads * headSize, vFrom: (heads + keyValueHeads) * headSize };
    const given = { ...from, groupSize: heads / keyValueHeads, keysPerRow: T / 2 };
    const fused = of(T, width);
    const ranges = u32(
      [T, 4],
      Array.from({ length: T }, (_, row) => (row < 20 ? [0, 0, 0, row + 1] : [0, 3, 20, row + 1])).flat(),
    );
    const saved = { logSumExp: f32([T, heads], new Array(T * heads).fill(3)) };
    const values = { T, groupSize: given.groupSize };
    await expectSameBits(
      attentionForward(headSize, facts),
      {
        ...{ ...given, q: fused, k: fused, v: fused, ranges },
        ...{ out: zeros(T, heads * headSize), logSumExp: zeros(T, heads) },
      },
      values,
    );
    const backward = { ...given, ...saved, fused, dOut: of(T, heads * headSize), dFused: zeros(T, width) };
    await expectSameBits(
      attentionBackwardQuery(headSize, facts),
      { ...backward, out: of(T, heads * headSize), ranges, delta: zeros(T, heads) },
      values,
    );
    const queryEnd = u32([T], new Array(20).fill(20).concat(new Array(T - 20).fill(T)));
    await expectSameBits(
      attentionBackwardKeyValue(headSize, facts),
      { ...backward, delta: of(T, heads), queryEnd },
      values,
    );
  });

  it.each([20, 13])("norms and reductions over rows of %i", async (C) => {
    const T = 37;
    const rows = { x: of(T, C), weight: of(C) };
    await expectSameBits(rmsNormForward(facts), { ...rows, y: zeros(T, C), stats: zeros(T, 2), epsilon: 1e-5 }, { C });
    const stats = f32([T, 2], new Array(2 * T).fill(0.7));
    await expectSameBits(rmsNormBackward(facts), { ...rows, dy: of(T, C), stats, dx: of(T, C) }, { C });
    await expectSameBits(squarePartials(facts), { x: of(C * T), partials: zeros(256), first: 1 }, { n: C * T });
  });
});

it.each([20, 13])("elementwise kernels over %i columns", async (C) => {
  const T = 37;
  const gateUp = of(T, 2 * C);
  await expectSameBits(swigluForward, { gateUp, y: zeros(T, C) }, { I: C });
  await expectSameBits(swigluBackward, { gateUp, dy: of(T, C), dGateUp: zeros(T, 2 * C) }, { I: C });
  await expectSameBits(columnPartials, { dy: of(T, C), partials: zeros(5, C) }, { C });
  await expectSameBits(addColumnSums, { partials: of(5, C), out: of(C) });
  const lookup = { table: of(11, C), rows: indices(T, 11), y: zeros(T, C), firstRow: 0, accumulate: 0 };
  await expectSameBits(gatherRows(), lookup, { C });
  await expectSameBits(logSoftmaxGatherCombine, {
    ...{ partials: of(3, T, 2), targetLogits: of(T), logProbs: zeros(T), logSumExp: zeros(T) },
  });
  const n = C * T;
  await expectSameBits(
    adamw,
    {
      ...{ gradient: of(n), state: f32([OPTIMIZER_STATE.size], new Array(OPTIMIZER_STATE.size).fill(0.5)) },
      ...{ step: f32([STEP_NUMBERS.size], new Array(STEP_NUMBERS.size).fill(0.01)) },
      ...{ parameter: of(n), first: of(n), second: f32([n], new Array(n).fill(0.1)) },
      ...{ beta1: 0.9, beta2: 0.99, complement1: 0.1, complement2: 0.01, epsilon: 1e-8, weightDecay: 0.1 },
    },
    { n },
  );
});
