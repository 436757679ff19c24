/** Column sums (bias gradients), the global norm and the decision whether a step is taken. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { columnSums } from "../../src/kernels/float64/columns.ts";
import { clipScale, globalNorm } from "../../src/kernels/float64/reduce.ts";
import { rowBlocks } from "../../src/kernels/norm.ts";
import {
  addColumnSums,
  clipAndAdvance,
  columnPartials,
  NORM_PARTIALS,
  normSums,
  OPTIMIZER_STATE,
  squarePartials,
} from "../../src/kernels/reduce.ts";
import { bits, EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { emulatedLanes, kernelVariants, sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, unset } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const variants = await kernelVariants();
const BETAS = { beta1: 0.9, beta2: 0.999, complement1: 0.1, complement2: 0.001 };

describe("column sums", () => {
  it("are added to what the gradient held, over any number of rows", async () => {
    const shapes = fc.record({
      T: fc.constantFrom(1, 2, 31, 32, 33, 65, 131),
      C: fc.constantFrom(1, 3, 64, 65),
      /** Columns on both sides of those that are summed. */
      side: fc.constantFrom(0, 0, 3, 4),
      seed: fc.nat(1e9),
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ T, C, side, seed }) => {
        const random = seeded(seed);
        const W = C + 2 * side;
        const wide = normals(random, T * W);
        const dy = wide.filter((_, i) => i % W >= side && i % W < side + C);
        const before = normals(random, C);
        const G = rowBlocks(T);
        const partials = await runKernel(device, columnPartials, {
          ...{ dy: f32([T, W], wide), partials: unset(G, C), firstColumn: side },
        });
        const result = await runKernel(device, addColumnSums, {
          partials: f32([G, C], partials("partials")),
          out: f32([C], before),
        });
        const terms = columnSums(float64(dy).map(Math.abs), T, C);
        expectWithin(
          "column sums",
          result("out"),
          columnSums(float64(dy), T, C).map((sum, c) => sum + (before[c] ?? Number.NaN)),
          (c) => 2 * Math.sqrt(T + 1) * EPSILON * ((terms[c] ?? 0) + Math.abs(before[c] ?? 0)),
        );
      }),
      { seed: 71, numRuns: 25 },
    );
  });
});

describe.each(variants)("global norm, $variant", ({ facts }) => {
  /** The sums over x in parts that begin at these places. */
  async function summed(x: Float32Array, starts: readonly number[]) {
    const elements = starts.every((start) => start % 4 === 0) && x.length % 4 === 0 ? 4 : 1;
    let [sums, partials] = [unset(normSums(facts)), unset(NORM_PARTIALS)];
    for (const [part, start] of starts.entries()) {
      const own = x.subarray(start, starts[part + 1] ?? x.length);
      const result = await runKernel(
        device,
        squarePartials(facts),
        { x: f32([own.length], own), sums, partials, first: part === 0 ? 1 : 0, skipped: start / elements },
        facts,
      );
      [sums, partials] = [f32(sums.shape, result("sums")), f32([NORM_PARTIALS], result("partials"))];
    }
    return Float32Array.from(partials.data);
  }

  it.each([1, 63, 64, 65, 255, 2049, 40000])("the partial sums of %i numbers add up to their squares", async (n) => {
    const x = normals(seeded(n), n);
    const partials = await summed(x, [0]);
    // All terms are positive, so their sum is the sum of absolute terms; each partial adds n / 256 of them.
    const squares = globalNorm([float64(x)]) ** 2;
    expectWithin(
      "sum of squares",
      [partials.reduce((sum, one) => sum + one, 0)],
      [squares],
      () => (2 * Math.sqrt(n / NORM_PARTIALS) + 2) * EPSILON * squares,
    );
    expect(bits(await summed(x, [0]))).toEqual(bits(partials));
  });

  // Several rounds of all invocations, 2,048 to 65,536 numbers each: parts within one, over several, and many.
  it.each([[[0, 64]], [[0, 128, 70_016, 70_080]], [[0, 4096, 8192, 65_536, 131_072, 139_968]]])(
    "parts from %j give the bits of the whole",
    async (starts) => {
      const x = normals(seeded(5), 140_032);
      expect(bits(await summed(x, starts))).toEqual(bits(await summed(x, [0])));
    },
  );

  it("parts that are no fours give the bits of the whole", async () => {
    const x = normals(seeded(6), 40_001);
    expect(bits(await summed(x, [0, 333, 20_002]))).toEqual(bits(await summed(x, [0])));
  });
});

async function decide(partials: Float32Array, state: Float32Array, maxNorm: number): Promise<Float32Array> {
  const result = await runKernel(device, clipAndAdvance, {
    partials: f32([NORM_PARTIALS], partials),
    state: f32([OPTIMIZER_STATE.size], state),
    maxNorm,
    ...BETAS,
  });
  return result("state");
}

describe("clip and advance", () => {
  const squares = Float32Array.from({ length: NORM_PARTIALS }, (_, i) => (i + 1) / 1000);
  const norm = Math.sqrt(squares.reduce((sum, one) => sum + one, 0));

  it.each([
    ["a norm above the limit is scaled down to it", 0.5],
    ["a norm below the limit is left alone", 100],
    ["a limit of 0 turns clipping off", 0],
  ])("%s", async (_, maxNorm) => {
    const state = await decide(squares, new Float32Array(OPTIMIZER_STATE.size), maxNorm);
    // 256 additions of positive terms, and a square root, which halves a relative error.
    const error = (Math.sqrt(NORM_PARTIALS) + 8) * EPSILON;
    const scale = maxNorm > 0 ? clipScale(norm, maxNorm) : 1;
    expectWithin("norm", [state[OPTIMIZER_STATE.gradientNorm] ?? 0], [norm], () => norm * error);
    expectWithin("scale", [state[OPTIMIZER_STATE.clipScale] ?? 0], [scale], () => scale * (error + 6 * EPSILON));
    if (scale === 1) expect(state[OPTIMIZER_STATE.clipScale]).toBe(1);
    expect(state[OPTIMIZER_STATE.skipped]).toBe(0);
    expect(state[OPTIMIZER_STATE.stepsTaken]).toBe(1);
  });

  it("no gradient at all is a step of norm 0, not a division by it", async () => {
    const state = await decide(new Float32Array(NORM_PARTIALS), new Float32Array(OPTIMIZER_STATE.size), 1);
    expect(state[OPTIMIZER_STATE.gradientNorm]).toBe(0);
    expect(state[OPTIMIZER_STATE.clipScale]).toBe(1);
  });

  it("the recurrence gives 1 - beta^t over many steps to a few roundings", async () => {
    let state: Float32Array = new Float32Array(OPTIMIZER_STATE.size);
    const steps = 60;
    for (let t = 1; t <= steps; t++) {
      state = await decide(squares, state, 1);
      if (t !== 1 && t !== 2 && t !== steps) continue;
      const corrections = [state[OPTIMIZER_STATE.correction1] ?? 0, state[OPTIMIZER_STATE.correction2] ?? 0];
      const wanted = [1 - 0.9 ** t, 1 - 0.999 ** t];
      // Two roundings a step, of which the earlier ones shrink; and the rounding of beta to f32, t times.
      expectWithin("corrections", corrections, wanted, (i) => (4 + 2 * t) * EPSILON * (wanted[i] ?? 0));
    }
    expect(state[OPTIMIZER_STATE.stepsTaken]).toBe(steps);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("a sum that is %f is counted and advances nothing", async (bad) => {
    const before = Float32Array.of(3, 0.5, 0, 0.19, 0.002, 2, 4, 1);
    const partials = squares.slice();
    partials[200] = bad;
    const state = await decide(partials, before, 1);
    expect(state[OPTIMIZER_STATE.skipped]).toBe(1);
    expect(state[OPTIMIZER_STATE.clipScale]).toBe(0);
    expect(state[OPTIMIZER_STATE.stepsSkipped]).toBe(5);
    expect(state[OPTIMIZER_STATE.skippedInRow]).toBe(2);
    for (const kept of ["correction1", "correction2", "stepsTaken"] as const) {
      expect(state[OPTIMIZER_STATE[kept]], kept).toBe(before[OPTIMIZER_STATE[kept]]);
    }
    const next = await decide(squares, state, 1);
    expect(next[OPTIMIZER_STATE.skipped]).toBe(0);
    expect(next[OPTIMIZER_STATE.stepsTaken]).toBe(3);
    expect([next[OPTIMIZER_STATE.stepsSkipped], next[OPTIMIZER_STATE.skippedInRow]]).toEqual([5, 0]);
  });
});

expectLanes(["squarePartials"], await emulatedLanes());
