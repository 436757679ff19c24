/** The mixture that moves a reference towards the policy: bound by memory. */
import { mix as mixture } from "../../src/kernels/float64/mix.ts";
import { mix } from "../../src/kernels/mix.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const SHARE = 0.6;

export const mixCases: readonly BenchmarkCase[] = [{ n: 2 ** 20, quick: true }].map(({ n, quick }) => ({
  name: "mix",
  shape: `${n}`,
  quick,
  record: (bench, program) => {
    const [from, to] = [bench.normal([n]), bench.normal([n])];
    program.dispatch(mix, { policy: from.tensor, reference: to.tensor, share: SHARE, rest: 1 - SHARE });
    return async () => {
      await bench.expect("mixture", to.tensor, mixture(from.values, to.values, SHARE), 1e-6);
    };
  },
}));
