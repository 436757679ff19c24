/** The gate of attention's output (Qwen3.5): rows without gates, and what goes through them. */
import * as twin from "../../src/kernels/float64/output-gate.ts";
import { outputGateForward, splitGates } from "../../src/kernels/output-gate.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const [HEADS, D] = [8, 64];
const REST = 256;

export const outputGateCases: readonly BenchmarkCase[] = [
  {
    name: "output gate forward",
    shape: `${ROWS} x ${HEADS} heads of ${D}`,
    quick: false,
    record: (bench, program) => {
      const fused = bench.normal([ROWS, 2 * HEADS * D + REST]);
      const x = bench.normal([ROWS, HEADS * D]);
      const qkv = bench.zeros(ROWS, HEADS * D + REST);
      const out = bench.zeros(ROWS, HEADS * D);
      program.dispatch(splitGates, { fused: fused.tensor, qkv, D, heads: HEADS });
      program.dispatch(outputGateForward, { fused: fused.tensor, x: x.tensor, out, D, heads: HEADS });
      return async () => {
        const wanted = twin.splitGates(fused.values, HEADS, D, ROWS);
        await bench.expect("qkv", qkv, wanted.qkv);
        await bench.expect("out", out, twin.outputGateForward(x.values, wanted.gate));
      };
    },
  },
];
