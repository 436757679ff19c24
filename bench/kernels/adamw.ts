/** The fused AdamW update over an arena: bound by memory. */
import { adamw, STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import { OPTIMIZER_STATE } from "../../src/kernels/reduce.ts";
import { type BenchmarkCase, expectClose } from "../case.ts";

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
    const first = bench.zeros(n);
    const second = bench.zeros(n);
    const state = bench.zeros(OPTIMIZER_STATE.size);
    const step = bench.zeros(STEP_NUMBERS.size);
    const numbers = new Float32Array(OPTIMIZER_STATE.size);
    numbers[OPTIMIZER_STATE.clipScale] = 1;
    numbers[OPTIMIZER_STATE.correction1] = 0.1;
    numbers[OPTIMIZER_STATE.correction2] = 0.001;
    bench.device.upload(state, numbers);
    bench.device.upload(step, Float32Array.of(1e-3));
    const uniforms = { beta1: 0.9, beta2: 0.999, complement1: 0.1, complement2: 0.001, epsilon: 1e-8, weightDecay: 0 };
    program.dispatch(adamw, {
      gradient: gradient.tensor,
      state,
      step,
      parameter: parameter.tensor,
      first,
      second,
      ...uniforms,
    });
    return async () => {
      // The first step of Adam moves every parameter by the learning rate against its gradient's sign.
      const found = await bench.device.download(parameter.tensor);
      for (let i = 0; i < 64; i++) {
        const [p, g] = [parameter.values[i] ?? Number.NaN, gradient.values[i] ?? Number.NaN];
        expectClose(`parameter ${i}`, found[i] ?? Number.NaN, p - 1e-3 * Math.sign(g), 1e-6 * (1 + Math.abs(p)));
      }
    };
  },
}));
