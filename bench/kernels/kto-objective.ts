/** The objective of a microbatch: one invocation with little work, so its cost is that of two dispatches. */
import { STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import * as twin from "../../src/kernels/float64/kto-objective.ts";
import { ktoObjective, METRIC_SUMS, mismatchedPairSum } from "../../src/kernels/kto-objective.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const SIZE = 64;

export const ktoObjectiveCases: readonly BenchmarkCase[] = [
  {
    name: "KTO objective",
    shape: `${SIZE} rows`,
    quick: false,
    record: (bench, program) => {
      const policy = bench.normal([2 * SIZE], 3);
      const other = bench.normal([2 * SIZE], 3);
      const labels = Array.from({ length: SIZE }, (_, row) => row % 2 === 0);
      const pairSum = bench.zeros(2);
      const metrics = bench.zeros(METRIC_SUMS.size);
      const coefficients = bench.zeros(SIZE);
      const step = new Float32Array(STEP_NUMBERS.size);
      step[STEP_NUMBERS.microbatchWeight] = 1;
      const logProbs = { policy: policy.tensor, reference: other.tensor };
      program.clear(pairSum);
      program.dispatch(mismatchedPairSum, {
        ...logProbs,
        pairValid: bench.of([SIZE], new Uint32Array(SIZE).fill(1)),
        pairSum,
        metrics,
      });
      const options = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2 };
      program.dispatch(ktoObjective, {
        ...logProbs,
        ...options,
        desirable: bench.of([SIZE], Uint32Array.from(labels, Number)),
        pairSum,
        step: bench.of([STEP_NUMBERS.size], step),
        coefficients,
        metrics,
        clamped: 1,
        wholeUpdate: 0,
      });
      return async () => {
        const { z0 } = twin.referencePoint({
          policyLogProbs: policy.values.subarray(SIZE),
          referenceLogProbs: other.values.subarray(SIZE),
          valid: labels.map(() => true),
          lossType: "kto",
        });
        const exact = twin.ktoObjective({
          policyLogProbs: policy.values.subarray(0, SIZE),
          referenceLogProbs: other.values.subarray(0, SIZE),
          labels,
          z0,
          ...options,
        });
        await bench.expect("coefficients", coefficients, exact.coefficients);
      };
    },
  },
];
