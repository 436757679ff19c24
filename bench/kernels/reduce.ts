/** The global norm of a gradient arena and the decision of a step: what clipping costs. Bound by memory. */
import { clipScale, globalNorm } from "../../src/kernels/float64/reduce.ts";
import { clipAndAdvance, NORM_PARTIALS, normSums, OPTIMIZER_STATE, squarePartials } from "../../src/kernels/reduce.ts";
import { type BenchmarkCase, expectClose } from "../measure/case.ts";

export const reduceCases: readonly BenchmarkCase[] = [
  { n: 2 ** 20, quick: true },
  { n: 2 ** 23, quick: false },
].map(({ n, quick }) => ({
  name: "clip (norm and factor)",
  shape: `${n}`,
  quick,
  record: (bench, program) => {
    const gradient = bench.normal([n]);
    const sums = bench.zeros(normSums(bench.device.facts));
    const partials = bench.zeros(NORM_PARTIALS);
    const state = bench.zeros(OPTIMIZER_STATE.size);
    program.dispatch(squarePartials(bench.device.facts), { x: gradient.tensor, sums, partials, first: 1, skipped: 0 });
    const betas = { beta1: 0.9, beta2: 0.999, complement1: 0.1, complement2: 0.001 };
    program.dispatch(clipAndAdvance, { partials, state, maxNorm: 1, ...betas });
    return async () => {
      const found = await bench.device.download(state);
      const norm = globalNorm([gradient.values]);
      expectClose("norm", found[OPTIMIZER_STATE.gradientNorm], norm, 1e-5 * norm);
      const factor = clipScale(norm, 1);
      expectClose("clip factor", found[OPTIMIZER_STATE.clipScale], factor, 1e-5 * factor);
    };
  },
}));
