/** The gated delta rule, forward, backward and token by token, over packed rows with shared prompts. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/gated-delta.ts";
import { deltaForward } from "../../src/kernels/gated-delta.ts";
import { deltaSegments, previousRows, SEGMENT } from "../../src/kernels/gated-delta-segments.ts";
import { expectWithin } from "../helpers/compare.ts";
import {
  ACTIVATION_FORMATS,
  emulatedLanes,
  kernelVariants,
  onlyOnMachine,
  runsFor,
  sharedDevice,
} from "../helpers/device.ts";
import { checkFactors, checkForward, deltaBatch, exactFactors, forwardBounds } from "../helpers/gated-delta.ts";
import { checkBackward, checkHeadsBackward } from "../helpers/gated-delta-backward.ts";
import { f32, runKernel, u32, unset } from "../helpers/gpu.ts";
import { expectLanes } from "../helpers/lane-widths.ts";

const device = await sharedDevice();
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;
const machine = await Promise.all(ACTIVATION_FORMATS.map(onlyOnMachine));
const variants = (await kernelVariants()).flatMap((one) =>
  ACTIVATION_FORMATS.map((format, i) => ({ ...one, format, emulated: one.emulated || machine[i] === true })),
);
/** The recurrence uses subgroups on software adapters alone, which have another text without; GPUs all have one. */
const textOf = ({ facts: { software, subgroupSize } }: (typeof variants)[number]) =>
  software ? `software, ${subgroupSize >= 4}` : "GPU";
const recurrences = variants.filter(
  (one, i) => variants.findIndex((other) => textOf(other) === textOf(one) && other.format === one.format) === i,
);

/** Sizes are texts of their own, and larger ones take long to compile. */
const sizesOf = ({ facts, format }: (typeof variants)[number]) => {
  // More columns, or rows, than a workgroup has.
  const many = facts.software ? 68 : 36;
  const large = [
    { keySize: 4, valueSize: many },
    { keySize: many, valueSize: 4 },
  ];
  return [{ keySize: 8, valueSize: 12 }, { keySize: 5, valueSize: 3 }, ...(format === "f32" ? large : [])];
};
const shapesOf = (variant: (typeof variants)[number]) =>
  fc
    .record({
      keyHeads: fc.constantFrom(1, 2, 3),
      repeats: fc.constantFrom(1, 2, 3),
      size: fc.constantFrom(...sizesOf(variant)),
      padding: fc.constantFrom(0, 3),
      spread: fc.constantFrom(0.1, 1, 5),
      forget: fc.constantFrom(-6, 0, 3),
    })
    .map(({ size, repeats, ...shape }) => ({ ...shape, ...size, valueHeads: shape.keyHeads * repeats }));
const sequences = fc.array(
  fc.record({ prompt: fc.integer({ min: 1, max: 9 }), completion: fc.nat(7), branch: fc.constantFrom(0, 0, 1, 3, 6) }),
  { minLength: 1, maxLength: 4 },
);
const drawn = (variant: (typeof variants)[number]) => [shapesOf(variant), sequences, fc.nat(1e9)] as const;

describe.each(variants)("the gates and lengths of $format, $variant", (variant) => {
  const { facts, emulated, format } = variant;
  it("equal float64", async () => {
    await fc.assert(
      fc.asyncProperty(...drawn(variant), async (shape, examples, seed) => {
        await checkFactors({ facts, format }, deltaBatch({ facts, format }, shape, examples, seed));
      }),
      { seed: 61, numRuns: runsFor({ emulated }, 20) },
    );
  });

  it("and their way back", async () => {
    await fc.assert(
      fc.asyncProperty(...drawn(variant), async (shape, examples, seed) => {
        await checkHeadsBackward({ facts, format }, deltaBatch({ facts, format }, shape, examples, seed), seed + 1);
      }),
      { seed: 64, numRuns: runsFor({ emulated }, 20) },
    );
  });
});

describe.each(recurrences)("the gated delta rule forward of $format, $variant", (variant) => {
  const { facts, emulated, format } = variant;
  const build = { facts, format };

  it("equals float64 on packed batches: shared prompts, repeated key heads, padding", async () => {
    await fc.assert(
      fc.asyncProperty(...drawn(variant), async (shape, examples, seed) => {
        await checkForward(build, deltaBatch(build, shape, examples, seed));
      }),
      { seed: 62, numRuns: runsFor({ emulated }, 20) },
    );
  });

  it("goes on from pass to pass as in one: a prompt, then tokens one by one, in slots that others have used", async () => {
    const shape = { keyHeads: 1, valueHeads: 2, keySize: 8, valueSize: 12 };
    const { keySize, valueSize, keyHeads } = shape;
    const batch = deltaBatch(build, shape, [{ prompt: 7, completion: 0, branch: 0 }], 9);
    const factors = f32([batch.rows, 8], exactFactors(batch).factors);
    const wanted = twin.gatedDeltaForward(batch.inputs);
    const bounds = forwardBounds(batch, exactFactors(batch).factors);
    let states = unset(3, 2 * keySize * valueSize);
    const passes = [
      [0, 4],
      [4, 5],
      [5, 7],
    ] as const;
    for (const [start, end] of passes) {
      const found = await runKernel(
        device,
        deltaForward({ keySize, valueSize }, facts),
        {
          ...{ qkv: batch.qkv, factors, positions: batch.positions, keyHeads, first: 0, count: 2 },
          // The second one is padding, which has no slot.
          segments: u32([2, 4], [start, end, 2, SEGMENT.KEEPS | SEGMENT.CONTINUES, 0, 0, 0, 0]),
          ...{ states, out: unset(7, 2 * valueSize), deltas: unset(7, 2 * valueSize) },
        },
        facts,
      );
      states = f32(states.shape, found("states"));
      const rows = (x: ArrayLike<number>) =>
        Array.from({ length: (end - start) * 2 * valueSize }, (_, i) => at(x, start * 2 * valueSize + i));
      expectWithin("out", rows(found("out")), rows(wanted.out), rows(bounds.out));
    }
    expect([...states.data.subarray(0, 2 * 2 * keySize * valueSize)].every(Number.isNaN)).toBe(true);
  });
});

describe.each(recurrences)("the gated delta rule backward of $format, $variant", (variant) => {
  const { facts, emulated, format } = variant;
  it("equals float64 on packed batches, where the gradients of two completions add up at their prompt", async () => {
    await fc.assert(
      fc.asyncProperty(...drawn(variant), async (shape, examples, seed) => {
        await checkBackward({ facts, format }, deltaBatch({ facts, format }, shape, examples, seed), seed + 1);
      }),
      { seed: 63, numRuns: runsFor({ emulated }, 15) },
    );
  });
});

describe("segments", () => {
  it("cut a prompt where two completions follow it, and nothing else", () => {
    // A prompt of 2 and its completion of 2; one of 1 whose completion has no row; a whole sequence; a row of padding;
    // then the branches of both prompts, and padding.
    const ranges = [
      ...[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4],
      ...[0, 0, 4, 5],
      ...[0, 0, 5, 6, 0, 0, 5, 7],
      ...[0, 0, 7, 8],
      ...[0, 2, 8, 9, 0, 2, 8, 10],
      ...[4, 5, 10, 11],
      ...[0, 0, 11, 12, 0, 0, 12, 13],
    ];
    expect([...previousRows(ranges)]).toEqual([-1, 0, 1, 2, -1, -1, 5, -1, 1, 8, 4, -1, -1]);
    const padding = [
      [7, 8],
      [11, 13],
    ] as const;
    const { first, second, slots } = deltaSegments(ranges, padding);
    const { KEEPS, CONTINUES, BRANCH } = SEGMENT;
    expect(slots).toBe(2);
    expect([...first]).toEqual([
      ...[0, 2, 0, KEEPS],
      ...[4, 5, 1, KEEPS],
      ...[5, 7, 2, 0],
      ...[7, 8, 0, 0],
      ...[11, 13, 0, 0],
    ]);
    expect([...second]).toEqual([
      ...[2, 4, 0, CONTINUES],
      ...[8, 10, 0, CONTINUES + BRANCH],
      ...[5, 5, 1, CONTINUES],
      ...[10, 11, 1, CONTINUES + BRANCH],
    ]);
  });
});

expectLanes(["deltaFactors", "deltaBackwardHeads"], await emulatedLanes());
