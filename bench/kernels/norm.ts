/** RMSNorm and LayerNorm, forward and backward with the weight's gradient: bound by memory. */
import type { Program } from "../../src/engine/gpu/program.ts";
import * as twin from "../../src/kernels/float64/norm.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rmsNormResidual,
  rowBlocks,
} from "../../src/kernels/norm.ts";
import { addColumnSums } from "../../src/kernels/reduce.ts";
import type { BenchmarkCase, BenchmarkMemory } from "../measure/case.ts";

const EPSILON = 1e-5;
const ROWS = 1024;

/** RMSNorm of what a layer's part gives, added to the stream. */
const residualNorm: BenchmarkCase = {
  name: "RMSNorm on a residual",
  shape: `${ROWS} x 1024`,
  quick: false,
  record: (bench, program) => {
    const [x, residual, weight] = [bench.normal([ROWS, 1024]), bench.normal([ROWS, 1024]), bench.normal([1024])];
    const y = bench.zeros(ROWS, 1024);
    program.dispatch(rmsNormResidual(bench.device.facts), {
      ...{ x: x.tensor, residual: residual.tensor, weight: weight.tensor, y, stats: bench.zeros(ROWS, 2) },
      epsilon: EPSILON,
    });
    const exact = twin.rmsNormForward(x.values, weight.values, EPSILON).y;
    return () =>
      bench.expect(
        "y",
        y,
        exact.map((value, i) => value + (residual.values[i] ?? Number.NaN)),
      );
  },
};

const streamNorms: readonly BenchmarkCase[] = (["RMSNorm", "LayerNorm"] as const).flatMap((name) =>
  [256, 1024].flatMap((columns) => {
    const shape = `${ROWS} x ${columns}`;
    const quick = name === "RMSNorm" && columns === 256;
    return [
      {
        name: `${name} forward`,
        shape,
        quick,
        record: (bench, program) => {
          const made = recordForward(bench, program, name, columns);
          return () => bench.expect("y", made.y, exactOf(name, made).y);
        },
      },
      {
        name: `${name} forward + backward`,
        shape,
        quick,
        record: (bench, program) => {
          const { facts } = bench.device;
          const made = recordForward(bench, program, name, columns);
          const dy = bench.normal([ROWS, columns]);
          const dx = bench.zeros(ROWS, columns);
          const partials = bench.zeros(rowBlocks(ROWS), columns);
          const dWeight = bench.zeros(columns);
          const backward = name === "RMSNorm" ? rmsNormBackward(facts) : layerNormBackward(facts);
          const { stats } = made;
          const x = made.x.tensor;
          program.clear(dx); // the kernels add to what is there
          program.clear(dWeight);
          program.dispatch(backward, { dy: dy.tensor, x, weight: made.weight.tensor, stats, dx });
          program.dispatch(normWeightPartials, { dy: dy.tensor, x, stats, partials });
          program.dispatch(addColumnSums, { partials, out: dWeight });
          return async () => {
            const exact = exactOf(name, made).backward(dy.values);
            await bench.expect("dx", dx, exact.dx);
            await bench.expect("dWeight", dWeight, exact.dWeight);
          };
        },
      },
    ] satisfies BenchmarkCase[];
  }),
);

export const normCases: readonly BenchmarkCase[] = [...streamNorms, residualNorm];

function recordForward(bench: BenchmarkMemory, program: Program, name: "RMSNorm" | "LayerNorm", columns: number) {
  const { facts } = bench.device;
  const x = bench.normal([ROWS, columns]);
  const weight = bench.normal([columns]);
  const bias = bench.normal([columns]);
  const y = bench.zeros(ROWS, columns);
  const stats = bench.zeros(ROWS, 2);
  const args = { x: x.tensor, weight: weight.tensor, y, stats, epsilon: EPSILON };
  if (name === "RMSNorm") program.dispatch(rmsNormForward(facts), args);
  else program.dispatch(layerNormForward(facts), { ...args, bias: bias.tensor });
  return { x, weight, bias, y, stats };
}

function exactOf(name: "RMSNorm" | "LayerNorm", made: ReturnType<typeof recordForward>) {
  const [x, weight, bias] = [made.x.values, made.weight.values, made.bias.values];
  if (name === "RMSNorm") {
    const { y, inverseRms } = twin.rmsNormForward(x, weight, EPSILON);
    return { y, backward: (dy: Float64Array) => twin.rmsNormBackward(dy, x, weight, inverseRms) };
  }
  const { y, mean, inverseStd } = twin.layerNormForward(x, weight, bias, EPSILON);
  return { y, backward: (dy: Float64Array) => twin.layerNormBackward(dy, x, weight, mean, inverseStd) };
}
