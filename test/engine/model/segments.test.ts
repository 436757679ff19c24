/** Segments of packed rows, in the arrays of a shape. */
import { expect, it } from "vitest";
import { packRows } from "../../../src/engine/model/rows.ts";
import { packSegments, segmentRanges } from "../../../src/engine/model/segments.ts";
import { SEGMENT } from "../../../src/kernels/gated-delta-segments.ts";

const { KEEPS, CONTINUES, BRANCH } = SEGMENT;

/** Segments that have rows, in groups of four words. */
function used(words: Uint32Array, { first, count }: { readonly first: number; readonly count: number }) {
  const all = Array.from({ length: count }, (_, i) => [...words.subarray(4 * (first + i), 4 * (first + i) + 4)]);
  return all.filter(([start = 0, end = 0]) => end > start);
}

it("cuts prompts that are shared for the forward pass, and no sequence for the backward pass", () => {
  const sequences = [
    { promptIds: [1, 2], completionIds: [3, 4, 5] },
    { promptIds: [6], completionIds: [7, 8] },
  ];
  const branches = [{ prompt: 1, completionIds: [3, 4, 5] }];
  const packed = packRows(sequences, branches);
  const { shape } = packed;
  expect(shape).toMatchObject({ gradientRows: 64, branchRows: 64, sequences: 3 });
  const { dispatches, backward, total, slots } = segmentRanges(shape);
  const words = packSegments(shape, packed, packed.arrays.ranges);
  expect(words.length).toBe(4 * total);
  expect(slots).toBe(1);
  const [first, second] = dispatches.map((range) => used(words, range));
  expect(first).toEqual(
    [
      [0, 4, 0, 0],
      [4, 5, 0, KEEPS],
      [6, 64, 1, 0],
      [66, 128, 1, 0],
    ].map(([start, end, , flags]) => [start, end, expect.any(Number), flags]),
  );
  expect(second).toEqual([
    [5, 6, 0, CONTINUES],
    [64, 66, 0, CONTINUES + BRANCH],
  ]);
  expect(used(words, backward).map(([start, end, , flags]) => [start, end, flags])).toEqual([
    [0, 4, 0],
    [4, 6, 0],
    [6, 64, 0],
  ]);
});

it("has no second dispatch where no rows branch off", () => {
  const packed = packRows([{ promptIds: [1], completionIds: [2] }]);
  const { dispatches } = segmentRanges(packed.shape);
  expect(dispatches.length).toBe(1);
  const words = packSegments(packed.shape, packed, packed.arrays.ranges);
  expect(used(words, dispatches[0] ?? { first: 0, count: 0 })).toEqual([
    [0, 1, 0, 0],
    [1, 64, 0, 0],
  ]);
});

it("refuses a second branch of a prompt, whose rows no segment would hold", () => {
  const branches = [5, 6].map((id) => ({ prompt: 0, completionIds: [id, id, id] }));
  const packed = packRows(
    [
      { promptIds: [1], completionIds: [2, 3] },
      { promptIds: [1], completionIds: [2] },
    ],
    branches,
  );
  expect(() => packSegments(packed.shape, packed, packed.arrays.ranges)).toThrow("more than two completions");
});
