/** RMSNorm of query and key heads, in place: later replays norm normed rows, which takes the same time. */
import * as twin from "../../src/kernels/float64/head-norm.ts";
import { headNormForward, widthNormForward } from "../../src/kernels/head-norm.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const [QUERY_HEADS, KEY_HEADS, SIZE] = [8, 4, 32];
const WIDTH = (QUERY_HEADS + 2 * KEY_HEADS) * SIZE;
const EPSILON = 1e-6;

export const headNormCases: readonly BenchmarkCase[] = [false, true].map((wide) => {
  const heads = QUERY_HEADS + KEY_HEADS;
  const queries = wide ? QUERY_HEADS * SIZE : SIZE;
  return {
    name: wide ? "norm over all heads forward" : "head norm forward",
    shape: `${ROWS} x ${QUERY_HEADS}/${KEY_HEADS} heads of ${SIZE}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      const weight = bench.normal([wide ? heads * SIZE : 2 * SIZE]);
      program.dispatch((wide ? widthNormForward : headNormForward)(bench.device.facts), {
        weight: weight.tensor,
        x: x.tensor,
        normed: bench.zeros(ROWS, heads * SIZE),
        inverse: bench.zeros(ROWS, wide ? 2 : heads),
        heads,
        queryHeads: QUERY_HEADS,
        epsilon: EPSILON,
      });
      return async () => {
        const { y } = twin.headNormForward(x.values, EPSILON, {
          queryWeight: weight.values.subarray(0, queries),
          keyWeight: weight.values.subarray(queries),
          ...(wide ? { queryHeads: 1, keyHeads: 1 } : { queryHeads: QUERY_HEADS, keyHeads: KEY_HEADS }),
          rows: ROWS,
        });
        await bench.expect("y", x.tensor, y);
      };
    },
  } satisfies BenchmarkCase;
});
