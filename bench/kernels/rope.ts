/** Rotary positions in place on fused rows. A replay rotates forward and back, so that the rows keep their values. */
import { partialRope, rope } from "../../src/kernels/rope.ts";
import { ropeTable } from "../../src/kernels/rope-table.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const HEADS = 12;
const HEAD_SIZE = 32;

export const ropeCases: readonly BenchmarkCase[] = [HEAD_SIZE, (3 / 4) * HEAD_SIZE].map((rotated) => {
  const whole = rotated === HEAD_SIZE;
  return {
    name: whole ? "rope there and back" : "partial rope there and back",
    shape: `${ROWS} x ${HEADS} heads of ${HEAD_SIZE}${whole ? "" : `, ${rotated} channels of each`}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, HEADS * HEAD_SIZE]);
      const args = {
        positions: bench.of(
          [ROWS],
          Uint32Array.from({ length: ROWS }, (_, row) => row),
        ),
        table: bench.of([ROWS, 2, rotated / 2], ropeTable(ROWS, { rotated, theta: 10000, scaling: { type: "none" } })),
        x: x.tensor,
        heads: HEADS,
      };
      for (const direction of [1, -1]) {
        if (whole) program.dispatch(rope, { ...args, direction });
        else program.dispatch(partialRope, { ...args, headSize: HEAD_SIZE, regimes: 1, direction });
      }
      return () => bench.expect("x", x.tensor, x.values);
    },
  } satisfies BenchmarkCase;
});
