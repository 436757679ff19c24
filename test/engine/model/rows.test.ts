/**
 * Packed rows: which keys each row sees, at which position, what it predicts; and the shape classes that hold them.
 * Checked by reading the arrays as the kernels do, not by repeating how they are filled.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Tensor } from "../../../src/engine/gpu/tensor.ts";
import {
  cutToWindow,
  keysPerRow,
  type PackedRows,
  packRows,
  type RowBranch,
  RowBuffer,
  type RowSequence,
  type RowShape,
  rowShape,
} from "../../../src/engine/model/rows.ts";
import { NO_ROW } from "../../../src/kernels/embedding.ts";
import { NO_SEQUENCE } from "../../../src/kernels/log-softmax-gather.ts";
import { LONG_SEQUENCE } from "../../../src/kernels/rope-table.ts";
import { sharedDevice } from "../../helpers/device.ts";

const ids = (min: number, max: number) => fc.array(fc.integer({ min: 1, max: 50 }), { minLength: min, maxLength: max });

/** Sequences, and branches that continue prompts of theirs. */
const batches = fc
  .array(fc.record({ promptIds: ids(1, 9), completionIds: ids(1, 12) }), { minLength: 1, maxLength: 7 })
  .chain((sequences) =>
    fc.tuple(
      fc.constant(sequences),
      fc.array(fc.record({ prompt: fc.nat(sequences.length - 1), completionIds: ids(1, 12) }), { maxLength: 7 }),
    ),
  );

const at = (values: ArrayLike<number>, i: number) => values[i] ?? Number.NaN;

/** The rows that a row's attention reads, in order. */
function keysOf({ arrays }: PackedRows, row: number): number[] {
  const [prefixStart, prefixEnd, branchStart, branchEnd] = [0, 1, 2, 3].map((i) => at(arrays.ranges, 4 * row + i)) as [
    number,
    number,
    number,
    number,
  ];
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  return [...range(prefixStart, prefixEnd), ...range(branchStart, branchEnd)];
}

/** What a sequence's head rows predict: for each, the tokens that it is conditioned on, and its target. */
function predictions(packed: PackedRows, sequence: number): { seen: number[]; positions: number[]; target: number }[] {
  const { arrays } = packed;
  const [from, to] = [at(arrays.sequenceRanges, 2 * sequence), at(arrays.sequenceRanges, 2 * sequence + 1)];
  return Array.from({ length: to - from }, (_, i) => {
    const keys = keysOf(packed, at(arrays.headRows, from + i));
    return {
      seen: keys.map((key) => at(arrays.tokens, key)),
      positions: keys.map((key) => at(arrays.positions, key)),
      target: at(arrays.targets, from + i),
    };
  });
}

function wantedPredictions(promptIds: ArrayLike<number>, completionIds: ArrayLike<number>) {
  const [prompt, completion] = [Array.from(promptIds), Array.from(completionIds)];
  return completion.map((target, i) => {
    const seen = [...prompt, ...completion.slice(0, i)];
    return { seen, positions: seen.map((_, position) => position), target };
  });
}

const runs = { seed: 31, numRuns: 60 };

describe("packRows", () => {
  it("each target is predicted from its own prompt and the completion before it, at positions from 0", () => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const packed = packRows(sequences, branches);
        sequences.forEach(({ promptIds, completionIds }, s) => {
          expect(predictions(packed, s)).toEqual(wantedPredictions(promptIds, completionIds));
        });
        branches.forEach(({ prompt, completionIds }, b) => {
          const promptIds = sequences[prompt]?.promptIds ?? [];
          expect(predictions(packed, sequences.length + b)).toEqual(wantedPredictions(promptIds, completionIds));
        });
      }),
      runs,
    );
  });

  it("a row sees itself last, rows of region A see region A alone, and queryEnd says who sees a key", () => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const packed = packRows(sequences, branches);
        const { gradientRows, branchRows } = packed.shape;
        const seenBy = Array.from({ length: gradientRows }, (): number[] => []);
        for (let row = 0; row < gradientRows + branchRows; row++) {
          const keys = keysOf(packed, row);
          expect(keys.at(-1)).toBe(row);
          if (row >= gradientRows) continue;
          for (const key of keys) seenBy[key]?.push(row);
        }
        // The backward pass reads queries [key, queryEnd) of every key row.
        seenBy.forEach((queries, key) => {
          const end = at(packed.arrays.queryEnd, key);
          expect(queries).toEqual(Array.from({ length: end - key }, (_, i) => key + i));
        });
      }),
      runs,
    );
  });

  it("the last token of a completion has no row, shared prompts are packed once, and no row serves two examples", () => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const packed = packRows(sequences, branches);
        const inA = sequences.reduce((sum, s) => sum + s.promptIds.length + s.completionIds.length - 1, 0);
        const inB = branches.reduce((sum, b) => sum + b.completionIds.length - 1, 0);
        expect(packed.usedGradientRows).toBe(inA);
        expect(packed.usedRows).toBe(inA + inB);
        const own = sequences.map((_, s) => {
          const [from, to] = [at(packed.arrays.sequenceRanges, 2 * s), at(packed.arrays.sequenceRanges, 2 * s + 1)];
          return new Set(Array.from(packed.arrays.headRows.subarray(from, to)).flatMap((row) => keysOf(packed, row)));
        });
        const all = own.flatMap((rows) => [...rows]);
        expect(new Set(all).size).toBe(all.length);
        expect(all.length).toBe(inA);
      }),
      runs,
    );
  });

  it("only head rows of examples take coefficients, each of its own sequence; the rest is marked as padding", () => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const { arrays, shape } = packRows(sequences, branches);
        const owners = sequences.flatMap(({ completionIds }, s) => completionIds.map(() => s));
        const padding = new Array(shape.gradientHeadRows - owners.length).fill(NO_SEQUENCE);
        expect([...arrays.headSequences]).toEqual([...owners, ...padding]);
        const inB = branches.reduce((sum, { completionIds }) => sum + completionIds.length, 0);
        expect(
          [...arrays.headRows.subarray(owners.length, shape.gradientHeadRows)].every((row) => row === NO_ROW),
        ).toBe(true);
        expect([...arrays.headRows.subarray(shape.gradientHeadRows + inB)].every((row) => row === NO_ROW)).toBe(true);
      }),
      runs,
    );
  });

  it("buckets gather the used rows of region A by token and by position, each once", () => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const { arrays, usedGradientRows } = packRows(sequences, branches);
        for (const [values, order, buckets, starts] of [
          [arrays.tokens, arrays.tokenOrder, arrays.tokenBuckets, arrays.tokenStarts],
          [arrays.positions, arrays.positionOrder, arrays.positionBuckets, arrays.positionStarts],
        ] as const) {
          const gathered = [...buckets].flatMap((id, bucket) =>
            id === NO_ROW
              ? []
              : [...order.subarray(at(starts, bucket), at(starts, bucket + 1))].map((row) => [id, row]),
          );
          expect(gathered.every(([id, row]) => id === at(values, row ?? -1))).toBe(true);
          expect(gathered.map(([, row]) => row).sort((a = 0, b = 0) => a - b)).toEqual(
            Array.from({ length: usedGradientRows }, (_, row) => row),
          );
          const used = [...buckets].filter((id) => id !== NO_ROW);
          expect(new Set(used).size).toBe(used.length);
        }
      }),
      runs,
    );
  });

  it("fits any larger shape, with the same predictions, and no smaller one", () => {
    const sequences: RowSequence[] = [
      { promptIds: [1, 2, 3], completionIds: new Array(70).fill(4) },
      { promptIds: [5], completionIds: [6, 7] },
    ];
    const branches: RowBranch[] = [{ prompt: 1, completionIds: [8, 9, 10] }];
    const shape = rowShape(sequences, branches);
    const larger = { ...shape, gradientRows: 256, gradientHeadRows: 192, branchRows: 128, branchHeadRows: 128 };
    const packed = packRows(sequences, branches, larger);
    const plain = packRows(sequences, branches);
    for (const s of [0, 1, 2]) expect(predictions(packed, s)).toEqual(predictions(plain, s));
    for (const key of ["gradientRows", "branchRows", "gradientHeadRows", "branchHeadRows", "longest"] as const) {
      expect(() => packRows(sequences, branches, { ...shape, [key]: 1 })).toThrow(new RegExp(`\\d+ ${key} do not fit`));
    }
  });
});

describe("rowShape", () => {
  const shapeOf = (rows: number) => rowShape([{ promptIds: new Array(rows).fill(1), completionIds: [1] }]).gradientRows;

  it("holds the rows in multiples of 64, with a sixteenth to spare at most beyond that", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20_000 }), (rows) => {
        const capacity = shapeOf(rows);
        expect(capacity % 64).toBe(0);
        expect(capacity).toBeGreaterThanOrEqual(rows);
        expect(capacity - rows).toBeLessThan(Math.max(64, rows / 16));
      }),
      runs,
    );
  });

  it("is one of few classes", () => {
    const classes = new Set(Array.from({ length: 8192 }, (_, rows) => shapeOf(rows + 1)));
    // Steps of 64 up to 1024, then 16 to an octave.
    expect(classes.size).toBe(16 + 3 * 16);
  });

  it("is empty where there is nothing, and counts every sequence whose log-probability is summed", () => {
    const sequences = [{ promptIds: [1], completionIds: [2] }];
    expect(rowShape(sequences)).toEqual({
      gradientRows: 64,
      branchRows: 0,
      gradientHeadRows: 64,
      branchHeadRows: 0,
      sequences: 1,
      longest: 64,
    });
    expect(rowShape(sequences, [{ prompt: 0, completionIds: [3] }])).toMatchObject({
      branchRows: 0,
      branchHeadRows: 64,
      sequences: 2,
    });
  });
});

describe("the keys that a row of a shape sees on the average", () => {
  it.each([Number.POSITIVE_INFINITY, 5])("are bounded from above, within a window of %d", (window) => {
    fc.assert(
      fc.property(batches, ([sequences, branches]) => {
        const packed = packRows(sequences, branches);
        const { windowRanges: ranges } = cutToWindow(packed.arrays, window);
        const rows = ranges.length / 4;
        let keys = 0;
        for (let at = 0; at < ranges.length; at += 2) keys += (ranges[at + 1] ?? 0) - (ranges[at] ?? 0);
        expect(keys / rows).toBeLessThanOrEqual(keysPerRow(packed.shape, window));
      }),
    );
  });

  it("are half of a long sequence", () => {
    const shape = rowShape([{ promptIds: new Array(4000).fill(1), completionIds: new Array(97).fill(1) }]);
    expect(shape).toMatchObject({ gradientRows: 4096, longest: 4096 });
    expect(keysPerRow(shape)).toBe(4097 / 2);
    expect(keysPerRow(shape, 1024)).toBe(1024);
  });
});

describe("a sliding window", () => {
  it("cuts every row's keys to the last positions up to its own, across prompt and branch, and inverts the same", () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: 1, max: 14 }), ([sequences, branches], window) => {
        const packed = packRows(sequences, branches);
        const { windowRanges, windowQueryEnd } = cutToWindow(packed.arrays, window);
        const cut = { ...packed, arrays: { ...packed.arrays, ranges: windowRanges } };
        const { gradientRows, branchRows } = packed.shape;
        const rows = Array.from({ length: gradientRows + branchRows }, (_, row) => row);
        const position = (row: number) => at(packed.arrays.positions, row);
        for (const row of rows) {
          const wanted = keysOf(packed, row).filter((key) => position(key) > position(row) - window);
          expect(keysOf(cut, row), `row ${row}`).toEqual(wanted);
        }
        for (let key = 0; key < gradientRows; key++) {
          const seenBy = rows.slice(0, gradientRows).filter((row) => keysOf(cut, row).includes(key));
          expect([seenBy[0], seenBy.length], `key ${key}`).toEqual([key, at(windowQueryEnd, key) - key]);
        }
      }),
      { seed: 31, numRuns: 40 },
    );
  });
});

describe("LongRoPE's original context", () => {
  it("marks the positions of longer sequences, and parts a branch from a prompt of the other kind", () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: 2, max: 20 }), ([sequences, branches], longBeyond) => {
        const packed = packRows(sequences, branches, rowShape(sequences, branches, longBeyond), longBeyond);
        const plain = packRows(sequences, branches);
        const all = [
          ...sequences,
          ...branches.map(({ prompt, completionIds }) => ({
            promptIds: sequences[prompt]?.promptIds ?? [],
            completionIds,
          })),
        ];
        for (const [index, { promptIds, completionIds }] of all.entries()) {
          const isLong = promptIds.length + completionIds.length > longBeyond;
          // The same predictions from the same tokens at the same positions, every one of them marked or none.
          const wanted = predictions(plain, index).map((one) => ({
            ...one,
            positions: one.positions.map((position) => (isLong ? position + LONG_SEQUENCE : position)),
          }));
          expect(predictions(packed, index), `sequence ${index} of ${all.length}`).toEqual(wanted);
        }
        const rows = packed.shape.gradientRows;
        expect(packed.arrays.queryEnd).toEqual(plain.arrays.queryEnd);
        expect(packed.arrays.tokens.subarray(0, rows)).toEqual(plain.arrays.tokens.subarray(0, rows));
      }),
      { seed: 32, numRuns: 60 },
    );
  });

  it("must be the model's own where rows are uploaded", async () => {
    const packed = packRows([{ promptIds: [3], completionIds: [4] }]);
    const buffer = new RowBuffer(await sharedDevice(), [packed.shape], { slidingWindow: undefined, longBeyond: 8 });
    expect(() => buffer.upload(packed)).toThrow("LongRoPE");
    buffer.free();
  });
});

describe("RowBuffer", () => {
  it("carries the windowed arrays of a model that has a window", async () => {
    const device = await sharedDevice();
    const sequences = [{ promptIds: [3, 4, 5], completionIds: [6, 7, 8] }];
    const packed = packRows(sequences, [{ prompt: 0, completionIds: [9, 8, 7] }]);
    const buffer = new RowBuffer(device, [packed.shape], { slidingWindow: 2 });
    try {
      buffer.upload(packed);
      const { windowRanges, windowQueryEnd, positions } = buffer.tensors(packed.shape);
      const wanted = cutToWindow(packed.arrays, 2);
      const read = async (tensor: Tensor | undefined) => tensor && new Uint32Array(await device.downloadBytes(tensor));
      expect(await read(windowRanges)).toEqual(wanted.windowRanges);
      expect(await read(windowQueryEnd)).toEqual(wanted.windowQueryEnd);
      expect(await read(positions)).toEqual(packed.arrays.positions);
    } finally {
      buffer.free();
    }
  });

  it("gives the device every array of the shape uploaded last, also of a smaller shape", async () => {
    const device = await sharedDevice();
    const batch = (length: number): [RowShape, PackedRows] => {
      const sequences = [1, 2, 3].map((token) => ({
        promptIds: [token, 4],
        completionIds: Array.from({ length }, (_, i) => 5 + i),
      }));
      const branches = [{ prompt: 2, completionIds: [9, 8] }];
      return [rowShape(sequences, branches), packRows(sequences, branches)];
    };
    const [[small, few], [large, many]] = [batch(2), batch(90)];
    const buffer = new RowBuffer(device, [small, large], { slidingWindow: undefined });
    try {
      for (const [shape, packed] of [
        [large, many],
        [small, few],
      ] as const) {
        buffer.upload(packed);
        for (const [name, tensor] of Object.entries(buffer.tensors(shape))) {
          const found = new Uint32Array(await device.downloadBytes(tensor));
          expect(found, name).toEqual(packed.arrays[name as keyof PackedRows["arrays"]]);
        }
      }
    } finally {
      buffer.free();
    }
  });
});
