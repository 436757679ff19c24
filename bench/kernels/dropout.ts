/** Dropout by a counter-based hash: integer arithmetic for each number, no mask in memory. */
import { dropout } from "../../src/kernels/dropout.ts";
import * as twin from "../../src/kernels/float64/dropout.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const [ROWS, WIDTH] = [1024, 256];
const PROBABILITY = 0.1;

export const dropoutCases: readonly BenchmarkCase[] = [
  {
    name: "dropout",
    shape: `${ROWS} x ${WIDTH}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      const y = bench.zeros(ROWS, WIDTH);
      const keys = Uint32Array.from({ length: ROWS }, (_, row) => 7919 * row);
      program.dispatch(dropout, {
        x: x.tensor,
        keys: bench.of([ROWS], keys),
        state: bench.of([2], Uint32Array.of(1, 2)),
        y,
        stream: 5,
        threshold: Math.round(PROBABILITY * 2 ** 32),
        keptScale: 1 / (1 - PROBABILITY),
      });
      return () => bench.expect("y", y, twin.dropout(x.values, keys, PROBABILITY, 5, [1, 2]));
    },
  },
];
