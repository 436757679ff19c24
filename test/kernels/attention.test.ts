/** Attention over two key ranges, forward and backward, with grouped heads, on packed rows and on a cache. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attentionBackwardKeyValue, attentionBackwardQuery, attentionForward } from "../../src/kernels/attention.ts";
import * as twin from "../../src/kernels/float64/attention.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { checkBackward, checkForward, checkPackedForward, columns, type Heads } from "../helpers/attention.ts";
import { normals, seeded } from "../helpers/compare.ts";
import {
  ACTIVATION_FORMATS,
  ALL_SHAPES,
  emulatedLanes,
  type KernelVariant,
  kernelVariants,
  onlyOnMachine,
  runsFor,
  sharedDevice,
  someOf,
} from "../helpers/device.ts";
import { f32, runKernel, stored, u32, unset, unsetAs } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
/** Every variant of the kernels, for activations in every format. */
const machine = await Promise.all(ACTIVATION_FORMATS.map(onlyOnMachine));
const variants = (await kernelVariants()).flatMap((one) =>
  ACTIVATION_FORMATS.map((format, i) => ({ ...one, format, emulated: one.emulated || machine[i] === true })),
);

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
  if (!ALL_SHAPES) return format === "f16" ? [6, 20] : [1, 6, 8, 20, 36];
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
          await checkPackedForward({ facts, format }, shape, examples, { window, scale, seed });
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
            { facts, format },
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

  it("a scale and a soft cap of the scores, from where it is straight to where it is flat", async () => {
    // An emulated lane meets large heads alone, and each size is a text to compile.
    const large = emulated || isPlayedGpu(facts);
    for (const headSize of large ? [20] : [6, 20]) {
      const shape = { heads: 4, keyValueHeads: 2, headSize, scale: 0.4, softCap: 3 };
      const examples = [
        { prompt: 4, completion: 5, branch: 3 },
        { prompt: 0, completion: 7, branch: 0 },
      ];
      await checkPackedForward({ facts, format }, shape, examples, { window: 3, scale: 2, seed: headSize });
      await checkBackward({ facts, format }, shape, [9, 5, 1], 2, headSize, 3);
    }
  });

  it("scores of hundreds neither overflow nor lose the largest", async () => {
    const shape = { heads: 2, keyValueHeads: 1, headSize: 4 };
    const examples = [{ prompt: 4, completion: 5, branch: 0 }];
    await checkPackedForward({ facts, format }, shape, examples, { scale: 15, seed: 9 });
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
        (...drawn) => checkBackward({ facts, format }, ...drawn),
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
      await checkBackward({ facts, format }, shape, [9, 4], 1, headSize);
      await checkPackedForward({ facts, format }, shape, [{ prompt: 4, completion: 6, branch: 3 }], { seed: headSize });
    },
  );

  it("heads of more channels than a subgroup's lanes own at once", async () => {
    const isSmall = format === "f16" && (!ALL_SHAPES || emulated || isPlayedGpu(facts));
    const headSize = isSmall ? 20 : 4 * Math.max(8, facts.subgroupSize) + 4;
    await checkBackward({ facts, format }, { heads: 6, keyValueHeads: 2, headSize }, [21, 9], 1, 7);
  });

  it("more heads in a group than a tile has columns", async () => {
    await checkBackward({ facts, format }, { heads: 131, keyValueHeads: 1, headSize: 20 }, [3], 1, 8);
  });

  it("a sequence of one token: its probability is 1, so only its value has a gradient", async () => {
    await checkBackward({ facts, format }, { heads: 4, keyValueHeads: 2, headSize: 8 }, [1, 5, 1], 1, 4);
  });

  it("more rows than one workgroup holds", async () => {
    await checkBackward({ facts, format }, { heads: 2, keyValueHeads: 1, headSize: 4 }, [33, 32, 5], 1, 6);
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
