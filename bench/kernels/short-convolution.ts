/** LFM2's operator between its projections, forward and backward, over sequences of 256 tokens. */
import * as twin from "../../src/kernels/float64/short-convolution.ts";
import {
  shortConvolutionBackwardInput,
  shortConvolutionBackwardOutput,
  shortConvolutionForward,
} from "../../src/kernels/short-convolution.ts";
import type { BenchmarkCase, BenchmarkMemory } from "../measure/case.ts";

const ROWS = 1024;
const CHANNELS = 768;
const LENGTH = 256;
const CONVOLUTION = { taps: 3, around: "gates" } as const;

function made(bench: BenchmarkMemory) {
  const x = bench.normal([ROWS, 3 * CHANNELS]);
  const weight = bench.normal([CHANNELS * CONVOLUTION.taps]);
  const firstOf = (row: number) => row - (row % LENGTH);
  const rows = Array.from({ length: ROWS }, (_, row) => row);
  const ranges = Uint32Array.from(rows.flatMap((row) => [0, 0, firstOf(row), row + 1]));
  const operands = {
    ...{ x: x.tensor, weight: weight.tensor, bias: bench.zeros(CHANNELS), hasBias: 0 },
    ranges: bench.of([ROWS, 4], ranges),
    positions: bench.of(
      [ROWS],
      Uint32Array.from(rows, (row) => row - firstOf(row)),
    ),
  };
  const queryEnd = bench.of(
    [ROWS],
    Uint32Array.from(rows, (row) => firstOf(row) + LENGTH),
  );
  return { operands, queryEnd, inputs: { x: x.values, weight: weight.values, ...CONVOLUTION, ranges } };
}

const SHAPE = `${ROWS} x ${CHANNELS}, ${CONVOLUTION.taps} taps between gates`;

export const shortConvolutionCases: readonly BenchmarkCase[] = [
  {
    name: "short convolution forward",
    shape: SHAPE,
    quick: false,
    record: (bench, program) => {
      const { operands, inputs } = made(bench);
      const out = bench.zeros(ROWS, CHANNELS);
      program.dispatch(shortConvolutionForward(CONVOLUTION), { ...operands, out });
      return () => bench.expect("out", out, twin.shortConvolutionForward(inputs).out);
    },
  },
  {
    // Later replays go back from what the first has made of the gradient, at the same cost.
    name: "short convolution backward",
    shape: SHAPE,
    quick: false,
    record: (bench, program) => {
      const { operands, queryEnd, inputs } = made(bench);
      const dOut = bench.normal([ROWS, CHANNELS]);
      const dx = bench.zeros(ROWS, 3 * CHANNELS);
      program.dispatch(shortConvolutionBackwardOutput(CONVOLUTION), { ...operands, dOut: dOut.tensor, dx });
      const { x, weight } = operands;
      program.dispatch(shortConvolutionBackwardInput(CONVOLUTION), { dz: dOut.tensor, x, weight, queryEnd, dx });
      return async () => {
        const { z } = twin.shortConvolutionForward(inputs);
        const wanted = twin.shortConvolutionBackward({ ...inputs, z, dOut: dOut.values });
        await bench.expect("dx", dx, wanted.dx);
      };
    },
  },
];
