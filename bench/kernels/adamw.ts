/** The fused AdamW update over an arena: bound by memory. */
import { adamw, STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import { adamwStep } from "../../src/kernels/float64/adamw.ts";
import { OPTIMIZER_STATE } from "../../src/kernels/reduce.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const LEARNING_RATE = 1e-3;

export const adamwCases: readonly BenchmarkCase[] = [
  { n: 2 ** 20, quick: true },
  { n: 2 ** 23, quick: false },
].map(({ n, quick }) => ({
  name: "adamw",
  shape: `${n}`,
  quick,
  record: (bench, program) => {
    const parameter = bench.normal([n]);
    const gradient = bench.normal([n]);
    const [firstMoment, secondMoment] = [bench.zeros(n), bench.zeros(n)];
    // The numbers of the first step.
    const numbers = new Float32Array(OPTIMIZER_STATE.size);
    numbers[OPTIMIZER_STATE.clipScale] = 1;
    numbers[OPTIMIZER_STATE.correction1] = 0.1;
    numbers[OPTIMIZER_STATE.correction2] = 0.001;
    const step = new Float32Array(STEP_NUMBERS.size);
    step[STEP_NUMBERS.learningRate] = LEARNING_RATE;
    const options = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };
    program.dispatch(adamw, {
      gradient: gradient.tensor,
      state: bench.of([OPTIMIZER_STATE.size], numbers),
      step: bench.of([STEP_NUMBERS.size], step),
      parameter: parameter.tensor,
      first: firstMoment,
      second: secondMoment,
      ...{ complement1: 0.1, complement2: 0.001, ...options },
    });
    return async () => {
      const exact = adamwStep(
        {
          parameter: parameter.values,
          firstMoment: new Float64Array(n),
          secondMoment: new Float64Array(n),
        },
        gradient.values,
        { ...options, learningRate: LEARNING_RATE, step: 1, scale: 1 },
      );
      await bench.expect("parameter", parameter.tensor, exact.parameter, 1e-6);
      await bench.expect("second moment", secondMoment, exact.secondMoment);
    };
  },
}));
