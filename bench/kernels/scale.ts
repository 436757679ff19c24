/** Factors by position and the soft cap of logits, in place: a replay changes what the last one left, at the same cost. */
import * as twin from "../../src/kernels/float64/scale.ts";
import { scaleByPosition, softCap } from "../../src/kernels/scale.ts";
import type { BenchmarkCase } from "../measure/case.ts";

const ROWS = 1024;
const WIDTH = 768;
const CAP = 30;

export const scaleCases: readonly BenchmarkCase[] = [
  {
    name: "factors of queries by position",
    shape: `${ROWS} x ${WIDTH / 2} of ${WIDTH}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      const positions = Uint32Array.from({ length: ROWS }, (_, row) => row);
      const factors = Float32Array.from(positions, (position) => twin.positionFactor(position, 0.1, 256));
      const columns = WIDTH / 2;
      const given = { positions: bench.of([ROWS], positions), factors: bench.of([ROWS], factors) };
      program.dispatch(scaleByPosition, { ...given, x: x.tensor, columns });
      const wanted = x.values.map((value, i) =>
        i % WIDTH < columns ? value * (factors[Math.floor(i / WIDTH)] ?? 0) : value,
      );
      return () => bench.expect("x", x.tensor, wanted);
    },
  },
  {
    name: "soft cap of logits",
    shape: `${ROWS} x ${WIDTH}`,
    quick: false,
    record: (bench, program) => {
      const x = bench.normal([ROWS, WIDTH]);
      program.dispatch(softCap(CAP), { x: x.tensor });
      const wanted = x.values.map((value) => twin.softCapped(value, CAP));
      return () => bench.expect("x", x.tensor, wanted);
    },
  },
];
