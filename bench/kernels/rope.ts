/** Rotary positions in place on fused rows. A replay rotates forward and back, so that the rows keep their values. */
import { rope, ropeFrequencies, ropeTable } from "../../src/kernels/rope.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const HEADS = 12;
const HEAD_SIZE = 32;

export const ropeCases: readonly BenchmarkCase[] = [
  {
    name: "rope there and back",
    shape: `${ROWS} x ${HEADS} heads of ${HEAD_SIZE}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, HEADS * HEAD_SIZE]);
      const frequencies = ropeFrequencies(HEAD_SIZE, 10000, { type: "none" });
      const args = {
        positions: bench.of(
          [ROWS],
          Uint32Array.from({ length: ROWS }, (_, row) => row),
        ),
        table: bench.of([ROWS, 2, HEAD_SIZE / 2], ropeTable(ROWS, frequencies)),
        x: x.tensor,
        heads: HEADS,
      };
      program.dispatch(rope, { ...args, direction: 1 });
      program.dispatch(rope, { ...args, direction: -1 });
      return () => bench.expect("x", x.tensor, x.values);
    },
  },
];
