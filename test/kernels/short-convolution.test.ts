/**
 * Short convolutions, alone, with silu and between gates, against float64: forward with completions that continue a
 * prompt elsewhere, backward, and in pieces with the state that generation keeps.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/short-convolution.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import { rowBlocks } from "../../src/kernels/norm.ts";
import { addColumnSums, columnPartials } from "../../src/kernels/reduce.ts";
import {
  type ShortConvolution,
  shortConvolutionBackwardInput,
  shortConvolutionBackwardOutput,
  shortConvolutionForward,
  shortConvolutionFromState,
  shortConvolutionState,
  shortConvolutionWeightPartials,
} from "../../src/kernels/short-convolution.ts";
import { EPSILON, expError, expectWithin, normals, seeded, storedBound } from "../helpers/compare.ts";
import { ACTIVATION_FORMATS, sharedDevice } from "../helpers/device.ts";
import { f32, type HostArray, runKernel, stored, u32, unset, unsetAs, zeros } from "../helpers/gpu.ts";

const device = await sharedDevice();

/** Each with taps of its own, so that few texts are compiled. */
const CONVOLUTIONS = [
  { around: "nothing", taps: 2 },
  { around: "silu", taps: 4 },
  { around: "gates", taps: 3 },
] as const satisfies readonly ShortConvolution[];
const shapes = fc.record({
  /** Tokens of prompts, shorter than the taps too, and of their own completions. */
  sequences: fc.array(fc.tuple(fc.constantFrom(1, 2, 3, 6), fc.constantFrom(0, 1, 2, 9)), {
    minLength: 1,
    maxLength: 4,
  }),
  /** Tokens of the completions that continue a prompt elsewhere. */
  branches: fc.array(fc.constantFrom(1, 2, 5), { maxLength: 4 }),
  C: fc.constantFrom(1, 4, 8, 9, 68),
  /** Columns behind those that are convolved; none with gates. */
  rest: fc.constantFrom(0, 3, 4),
  bias: fc.boolean(),
  seed: fc.nat(1e9),
});
type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never;

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

/** The arrays of rows, as batches are packed. */
function rowsOf(sequences: readonly (readonly [number, number])[], branches: readonly number[]) {
  const [ranges, positions, queryEnd]: [number[], number[], number[]] = [[], [], []];
  const prompts: { start: number; length: number }[] = [];
  let row = 0;
  for (const [prompt, completion] of sequences) {
    const start = row;
    prompts.push({ start, length: prompt });
    for (let i = 0; i < prompt + completion; i++, row++) {
      ranges.push(0, 0, start, row + 1);
      positions.push(i);
      queryEnd.push(start + prompt + completion);
    }
  }
  const gradientRows = row;
  for (const [index, length] of branches.entries()) {
    const { start, length: before } = prompts[index % prompts.length] ?? { start: 0, length: 0 };
    const own = row;
    for (let i = 0; i < length; i++, row++) {
      ranges.push(start, start + before, own, row + 1);
      positions.push(before + i);
    }
  }
  return { T: row, gradientRows, ranges, positions, queryEnd };
}

/** Numbers of a shape, and the same of a twin in which all terms of sums are positive. */
function drawn(format: ActivationFormat, { around, taps }: ShortConvolution, shape: Shape) {
  const { sequences, branches, C, rest, bias, seed } = shape;
  const random = seeded(seed);
  const rows = rowsOf(sequences, branches);
  const W = around === "gates" ? 3 * C : C + rest;
  const { array: x, values } = stored(format, [rows.T, W], normals(random, rows.T * W));
  const weight = Float64Array.from(normals(random, C * taps));
  const biases = Float64Array.from(normals(random, C));
  const inputs = { x: values, weight, bias: bias ? biases : undefined, taps, around, ranges: rows.ranges };
  const sizes = {
    ...{ x: values.map(Math.abs), weight: weight.map(Math.abs), bias: biases.map(Math.abs) },
    ...({ taps, around: around === "silu" ? "nothing" : around, ranges: rows.ranges } as const),
  };
  const operands = {
    ...{ x, weight: f32([C * taps], weight), bias: f32([C], biases), hasBias: bias ? 1 : 0 },
    ...{ ranges: u32([rows.T, 4], rows.ranges), positions: u32([rows.T], rows.positions) },
  };
  return { rows, W, x, values, weight, inputs, sizes, operands, random };
}

/** Bounds of results: the errors of their sums' terms, which `terms` adds up without signs. */
const resultBound = (taps: number, around: ShortConvolution["around"], z: number, value: number, terms: number) =>
  (taps + 4) * EPSILON * terms + (around === "silu" ? (expError(z) + 4 * EPSILON) * Math.abs(value) : 0);

async function checkForward(format: ActivationFormat, convolution: ShortConvolution, shape: Shape) {
  const { C } = shape;
  const { taps, around } = convolution;
  const { rows, inputs, sizes, operands } = drawn(format, convolution, shape);
  const result = await runKernel(device, shortConvolutionForward(convolution), {
    ...operands,
    out: unsetAs(format, rows.T, C),
  });
  const wanted = twin.shortConvolutionForward(inputs);
  const terms = twin.shortConvolutionForward(sizes).out;
  expectWithin("out", result("out"), wanted.out, (i) => {
    const bound = resultBound(taps, around, at(wanted.z, i), at(wanted.out, i), at(terms, i));
    return storedBound(format, at(wanted.out, i), bound);
  });
}

async function checkBackward(format: ActivationFormat, convolution: ShortConvolution, given: Shape) {
  const shape = { ...given, branches: [] };
  const { C } = shape;
  const { taps, around } = convolution;
  const { rows, W, inputs, sizes, operands, random, x } = drawn(format, convolution, shape);
  const { T, ranges, positions, queryEnd } = rows;
  const dOut = Float64Array.from(normals(random, T * C));
  const { z } = twin.shortConvolutionForward(inputs);
  const wanted = twin.shortConvolutionBackward({ ...inputs, z, dOut });
  // dz in terms without signs: silu's slope is below 1.1, and off by a few units as z is.
  const sizeOfZ = twin.shortConvolutionForward({ ...sizes, around: "nothing" }).out;
  const terms = twin.shortConvolutionBackward({ ...sizes, z: sizeOfZ, dOut: dOut.map((d) => 1.1 * Math.abs(d)) });
  const zError = Math.max(...sizeOfZ, 1);
  const factor = (2 * taps + 8 + (around === "silu" ? (taps + 8) * zError : 0)) * EPSILON;

  const outer =
    around === "nothing"
      ? undefined
      : await runKernel(device, shortConvolutionBackwardOutput(convolution), {
          ...operands,
          dOut: f32([T, C], dOut),
          dx: zeros(T, W),
        });
  const dz = f32([T, C], outer ? outer("dOut") : dOut);
  const before = f32([T, W], outer ? outer("dx") : new Float64Array(T * W));
  const inner = await runKernel(device, shortConvolutionBackwardInput(convolution), {
    ...{ dz, x, weight: operands.weight, queryEnd: u32([T], queryEnd), dx: before },
  });
  expectWithin("dx", inner("dx"), wanted.dx, (i) => factor * at(terms.dx, i) + Number.MIN_VALUE);

  const G = rowBlocks(T);
  const summed = async (columns: number, partials: HostArray) => {
    const sums = await runKernel(device, addColumnSums, { partials, out: f32([columns], new Float64Array(columns)) });
    return sums("out");
  };
  const ofWeight = await runKernel(device, shortConvolutionWeightPartials(convolution), {
    ...{ dz, x, ranges: u32([T, 4], ranges), positions: u32([T], positions), partials: unset(G, C * taps) },
  });
  const dWeight = await summed(C * taps, f32([G, C * taps], ofWeight("partials")));
  const sumError = factor + T * EPSILON;
  expectWithin("dWeight", dWeight, wanted.dWeight, (i) => sumError * at(terms.dWeight, i) + Number.MIN_VALUE);
  const ofBias = await runKernel(device, columnPartials, { dy: dz, partials: unset(G, C), firstColumn: 0 });
  const dBias = await summed(C, f32([G, C], ofBias("partials")));
  expectWithin("dBias", dBias, wanted.dBias, (i) => sumError * at(terms.dBias, i));
}

/** Runs sequences in passes of some rows each, every sequence in a slot of its own, and compares with all at once. */
async function checkPieces(convolution: ShortConvolution, given: Shape) {
  const shape = { ...given, branches: [] };
  const { C, sequences } = shape;
  const { taps, around } = convolution;
  const { rows, W, values, inputs, sizes, operands, random } = drawn("f32", convolution, shape);
  const kept = taps - 1;
  const slots = sequences.length;
  // What a slot held before must not matter.
  let state = f32([slots * kept, C], normals(random, slots * kept * C));
  const wanted = twin.shortConvolutionForward(inputs);
  const terms = twin.shortConvolutionForward(sizes).out;
  const starts = sequences.map((_, i) => rows.positions.flatMap((p, row) => (p === 0 ? [row] : []))[i] ?? 0);
  const lengths = sequences.map(([prompt, completion]) => prompt + completion);
  const done = lengths.map(() => 0);
  while (done.some((count, slot) => count < (lengths[slot] ?? 0))) {
    const taken: number[] = [];
    const segments: number[] = [];
    const ranges: number[] = [];
    for (const [slot, length] of lengths.entries()) {
      const before = done[slot] ?? 0;
      const count = Math.min(random.below(4), length - before);
      const first = taken.length;
      for (let i = 0; i < count; i++) {
        taken.push((starts[slot] ?? 0) + before + i);
        ranges.push(0, (slot + 1) * kept, first, first + i + 1);
      }
      segments.push(first, taken.length, slot, 0);
      done[slot] = before + count;
    }
    if (taken.length === 0) continue;
    const T = taken.length;
    const x = f32(
      [T, W],
      taken.flatMap((row) => [...values.subarray(row * W, (row + 1) * W)]),
    );
    const result = await runKernel(device, shortConvolutionFromState(convolution), {
      ...{ ...operands, x, state, ranges: u32([T, 4], ranges), out: unset(T, C) },
      positions: u32(
        [T],
        taken.map((row) => at(rows.positions, row)),
      ),
    });
    const next = await runKernel(device, shortConvolutionState(convolution), {
      ...{ x, segments: u32([slots, 4], segments), state },
    });
    state = f32([slots * kept, C], next("state"));
    const places = taken.flatMap((row) => Array.from({ length: C }, (_, c) => row * C + c));
    expectWithin(
      "out",
      result("out"),
      places.map((i) => at(wanted.out, i)),
      (k) => {
        const i = places[k] ?? 0;
        return resultBound(taps, around, at(wanted.z, i), at(wanted.out, i), at(terms, i));
      },
    );
  }
}

describe.each(CONVOLUTIONS)("short convolution, $around around it", (convolution) => {
  it.each(ACTIVATION_FORMATS)("gives what float64 gives, in %s", async (format) => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkForward(format, convolution, shape)),
      { seed: 71, numRuns: 12 },
    );
  });

  it.each(ACTIVATION_FORMATS)("goes back as float64 does, from %s", async (format) => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkBackward(format, convolution, shape)),
      { seed: 72, numRuns: 8 },
    );
  });

  it("goes on in pieces from its state", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, (shape) => checkPieces(convolution, shape)),
      { seed: 73, numRuns: 5 },
    );
  });
});

it("a completion that continues a one-token prompt elsewhere reads that, zeros before it, and nothing between", async () => {
  const { ranges, positions } = rowsOf([[1, 3]], [2]);
  const result = await runKernel(device, shortConvolutionForward({ taps: 4, around: "nothing" }), {
    ...{ x: f32([6, 1], [1, 10, 100, 1000, 5, 7]), weight: f32([4], [4, 3, 2, 1]), bias: f32([1], [0]), hasBias: 0 },
    ...{ ranges: u32([6, 4], ranges), positions: u32([6], positions), out: unset(6, 1) },
  });
  expect([...result("out")]).toEqual([1, 12, 123, 1234, 5 + 2, 7 + 10 + 3]);
});
