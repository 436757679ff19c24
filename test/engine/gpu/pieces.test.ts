/**
 * Dispatches in pieces: every workgroup of a grid runs once, no piece exceeds the limit, and neither kernels nor a
 * whole update change a bit whatever the limit is.
 */
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { planningDevice } from "../../../src/engine/gpu/memory-plan.ts";
import { piecesOf } from "../../../src/engine/gpu/pieces.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../../src/kernels/attention.ts";
import { type Grid, type Kernel, type KernelArguments, kernel } from "../../../src/kernels/kernel.ts";
import {
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  tokensPerSplit,
} from "../../../src/kernels/log-softmax-gather.ts";
import { logitStatistics } from "../../../src/kernels/logit-statistics.ts";
import { matmul } from "../../../src/kernels/matmul.ts";
import { packBatch } from "../../../src/kto/method/batch.ts";
import { Update } from "../../../src/kto/method/update.ts";
import { bits, normals, seeded } from "../../helpers/compare.ts";
import { ALL_SHAPES, kernelVariants, sharedDevice, withLimits } from "../../helpers/device.ts";
import { loadModel, readExamples } from "../../helpers/fixtures.ts";
import { f32, type HostArray, runKernel, u32, unset } from "../../helpers/gpu.ts";

const device = await sharedDevice();
// Pieces are the device's: the machine runs a grid as a whole.
const variants = (await kernelVariants()).filter(({ emulated }) => !emulated);

function limitWork(most: number): void {
  vi.spyOn(device, "workLimit", "get").mockReturnValue(most);
}

afterEach(() => {
  vi.restoreAllMocks();
});

const gridded = (grid: Grid, divisible: boolean) =>
  kernel({
    name: "gridded",
    read: {},
    write: { x: "f32[N]" },
    uniforms: {},
    divisible,
    wgsl: "",
    grid: () => grid,
    cost: () => ({ flops: 0, bytes: 0 }),
  });

describe("the pieces of a grid", () => {
  const grids = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }));

  it("cover every workgroup once, and none but a single workgroup exceeds the limit", () => {
    fc.assert(
      fc.property(grids, fc.double({ min: 0.2, max: 2000, noNaN: true }), ([x, y], most) => {
        const pieces = piecesOf(gridded([x, y], true), {}, x * y, most);
        const runs = new Array<number>(x * y).fill(0);
        for (const { first, grid, work } of pieces) {
          const [columns, rows] = grid;
          expect(work).toBeCloseTo(columns * rows);
          if (columns * rows > 1) expect(work).toBeLessThanOrEqual(most * (1 + 1e-12));
          for (let at = 0; at < columns * rows; at++) {
            const place = first[0] + (at % columns) + x * (first[1] + Math.floor(at / columns));
            runs[place] = (runs[place] ?? 0) + 1;
          }
        }
        expect(runs.every((count) => count === 1)).toBe(true);
      }),
    );
  });

  it("are one where the work is within the limit or the kernel cannot be divided, and none of nothing", () => {
    expect(piecesOf(gridded([7, 5], true), {}, 100, 100)).toEqual([{ first: [0, 0], grid: [7, 5, 1], work: 100 }]);
    expect(piecesOf(gridded([7, 5, 2], false), {}, 100, 1)).toEqual([{ first: [0, 0], grid: [7, 5, 2], work: 100 }]);
    expect(piecesOf(gridded([0, 5], true), {}, 100, 1)).toEqual([]);
  });
});

describe.each(variants)("in pieces and whole the bits are the same, $variant:", ({ facts }) => {
  const random = seeded(11);
  const of = (...shape: number[]): HostArray =>
    f32(
      shape,
      normals(
        random,
        shape.reduce((a, b) => a * b, 1),
      ),
    );
  const numbers = (count: number, below: number) => Array.from({ length: count }, () => random.below(below));

  /** Compares a run as it is with runs in pieces: along one axis of the grid, and down to single workgroups. */
  async function expectSameBits<B extends string, U extends string>(
    one: Kernel<B, U>,
    args: KernelArguments<HostArray, B, U>,
  ): Promise<void> {
    const run = async () => {
      const result = await runKernel(device, one, args);
      const written = one.bindings.filter(({ access }) => access === "readWrite");
      return written.map(({ name }) => bits(result(name as B)));
    };
    const whole = await run();
    for (const most of [1e6, 1]) {
      limitWork(most);
      const dispatched = vi.spyOn(Program.prototype, "run");
      expect(await run()).toEqual(whole);
      const [program] = dispatched.mock.contexts as Program[];
      expect(program?.dispatches, `within ${most}`).toBeGreaterThan(1);
      vi.restoreAllMocks();
    }
  }

  it.each(["NN", "NT", "TN"] as const)("matmul %s", async (layout) => {
    for (const [M, N, K] of [
      [100, 260, 64],
      [260, 100, 64],
      [101, 67, 83],
    ] as const) {
      const a = layout === "TN" ? of(K, M) : of(M, K);
      const b = layout === "NT" ? of(N, K) : of(K, N);
      const out = of(M, N);
      await expectSameBits(matmul(layout, { M, N, K }, facts), {
        ...{ a, b, out, bias: of(N), residual: of(M, N), M, N, K, aFrom: 0, outFrom: 0, scale: 0.5 },
        ...{ hasBias: 0, hasResidual: 0, accumulate: 1 },
      });
    }
  });

  it("the head's passes and the logit statistics", async () => {
    const [M, N, K] = [70, 1000, 24];
    const perSplit = tokensPerSplit(N);
    const splits = Math.ceil(N / perSplit);
    const shared = { a: of(M, K), b: of(N, K), aFrom: 0 };
    const targets = u32([M], numbers(M, N));
    const walk = { partials: unset(splits, M, 2), firstSplit: 0, splitColumns: perSplit };
    await expectSameBits(logSoftmaxGatherForward(M, N, K, facts), {
      ...{ ...shared, ...walk, targets, targetLogits: unset(M), windowStart: 0 },
    });
    const logSumExp = f32([M], new Array(M).fill(9));
    await expectSameBits(logitStatistics(M, N, K, facts), { ...shared, ...walk, logSumExp });
    const sequences = u32([M], numbers(M, 3));
    await expectSameBits(logSoftmaxGatherGradient(M, N, K, facts), {
      ...{ ...shared, targets, sequences, logSumExp, coefficients: of(3), dLogits: unset(M, N), windowStart: 0 },
    });
  });

  // Heads of 64 without subgroups take longest to compile; what is divided is the same grid.
  it.each(
    [
      [8, 320],
      [64, 96],
    ].filter(([headSize]) => ALL_SHAPES || headSize === 8 || facts.subgroupSize > 0),
  )("attention forward and backward, heads of %i, %i rows", async (headSize, T) => {
    const [heads, keyValueHeads] = [4, 2];
    const width = (heads + 2 * keyValueHeads) * headSize;
    const fused = of(T, width);
    const from = { qFrom: 0, kFrom: heads * headSize, vFrom: (heads + keyValueHeads) * headSize };
    const given = { ...from, groupSize: heads / keyValueHeads, keysPerRow: 1000 };
    const ranges = u32([T, 4], Array.from({ length: T }, (_, row) => [0, 0, 0, row + 1]).flat());
    const [out, logSumExp] = [unset(T, heads * headSize), unset(T, heads)];
    await expectSameBits(attentionForward(headSize, facts), {
      ...{ ...given, q: fused, k: fused, v: fused, ranges, out, logSumExp },
    });
    const backward = { ...given, fused, dOut: of(T, heads * headSize), dFused: of(T, width) };
    const saved = { logSumExp: f32([T, heads], new Array(T * heads).fill(3)) };
    await expectSameBits(attentionBackwardQuery(headSize, facts), {
      ...{ ...backward, ...saved, out: of(T, heads * headSize), ranges, delta: unset(T, heads) },
    });
    await expectSameBits(attentionBackwardKeyValue(headSize, facts), {
      ...{ ...backward, ...saved, delta: of(T, heads), queryEnd: u32([T], new Array(T).fill(T)) },
    });
  });
});

it("whole updates have the same bits, and no submit holds more than the limit but for a single dispatch", async () => {
  const reference = await loadModel(device, "qwen3", "reference");
  const batch = packBatch(readExamples("qwen3"), { mismatched: true, maxLength: 1000 });
  const run = async () => {
    const policy = await loadModel(device, "qwen3", "policy");
    const update = new Update({
      policy,
      reference,
      shapes: [batch.packed.shape],
      maxSize: batch.size,
      objective: { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" },
      optimizer: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1, maxGradientNorm: 1 },
      referencePointScope: "microbatch",
    });
    const submit = vi.spyOn(device, "submit");
    for (const step of [0, 1]) await update.run([batch], 1e-3, step, { tokens: true });
    const submits = submit.mock.calls.length;
    const metrics = bits(await device.download(update.objective.metrics));
    const weights = (await policy.readTensors(policy.weights)).map(({ name, data }) => [name, bits(data)]);
    const dispatches = update.programs.reduce((sum, program) => sum + program.dispatches, 0);
    update.free();
    policy.free();
    return { numbers: { metrics, weights }, dispatches, submits };
  };
  const whole = await run();
  for (const most of [1e6, 1e4]) {
    limitWork(most);
    const cut = await run();
    vi.restoreAllMocks();
    expect(cut.numbers).toEqual(whole.numbers);
    expect(cut.dispatches).toBeGreaterThan(whole.dispatches);
    expect(cut.submits).toBeGreaterThan(whole.submits);
  }
  reference.free();
});

describe("what a model of 0.6B parameters asks for", () => {
  /** The pieces that dispatching one kernel is recorded as, under this limit, on a device that only counts. */
  function recorded(limit: number, record: (program: Program, of: (...shape: number[]) => never) => void) {
    const large = 8 * 2 ** 30;
    return withLimits({ maxBufferSize: large, maxStorageBufferBindingSize: large }, async (limited) => {
      const plan = planningDevice(limited);
      vi.spyOn(plan, "workLimit", "get").mockReturnValue(limit);
      const program = new Program(plan, "large");
      record(program, (...shape) => plan.allocate("scratch", "operand", shape) as never);
      return program.pieces;
    });
  }

  it.each([2e9, 1e11])("is recorded in pieces of at most %d: the head, attention of a long row", async (limit) => {
    const [M, N, K] = [4096, 151_936, 1024];
    for (const { facts } of variants) {
      const perSplit = tokensPerSplit(N);
      const splits = Math.ceil(N / perSplit);
      const head = await recorded(limit, (program, of) => {
        const u32s = (...shape: number[]) => ({ ...(of(...shape) as object), dtype: "u32" }) as never;
        program.dispatch(logSoftmaxGatherForward(M, N, K, facts), {
          ...{ a: of(M, K), aFrom: 0, b: of(N, K), targets: u32s(M), partials: of(splits, M, 2), targetLogits: of(M) },
          ...{ firstSplit: 0, splitColumns: perSplit, windowStart: 0 },
        });
      });
      const work = head.reduce((sum, piece) => sum + piece.work, 0);
      expect(work).toBeCloseTo(2 * M * N * K + 6 * M * N, -6);
      expect(head.length).toBeGreaterThanOrEqual(work / limit);
      expect(Math.max(...head.map((piece) => piece.work))).toBeLessThanOrEqual(limit);

      const [T, heads, headSize] = [32_768, 16, 128];
      const attention = await recorded(limit, (program, of) => {
        const rows = of(T, heads * headSize);
        const ranges = { ...(of(T, 4) as object), dtype: "u32" } as never;
        program.dispatch(attentionForward(headSize, facts), {
          ...{ q: rows, k: rows, v: rows, ranges, out: of(T, heads * headSize), logSumExp: of(T, heads) },
          ...{ groupSize: 1, keysPerRow: T / 2, qFrom: 0, kFrom: 0, vFrom: 0 },
        });
      });
      expect(attention.length).toBeGreaterThanOrEqual((4 * T * heads * headSize * (T / 2)) / limit);
      expect(Math.max(...attention.map((piece) => piece.work))).toBeLessThanOrEqual(limit);
    }
  });
});
