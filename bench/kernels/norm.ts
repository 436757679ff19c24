/** RMSNorm and LayerNorm, forward and backward with the weight's gradient: bound by memory. */
import type { Program } from "../../src/engine/gpu/program.ts";
import * as twin from "../../src/kernels/float64/norm.ts";
import {
  layerNormBackward,
  layerNormForward,
  normWeightPartials,
  rmsNormBackward,
  rmsNormForward,
  rowBlocks,
} from "../../src/kernels/norm.ts";
import { addColumnSums } from "../../src/kernels/reduce.ts";
import type { BenchmarkCase, BenchmarkMemory } from "../measure/case.ts";

const EPSILON = 1e-5;
const ROWS = 1024;

export const normCases: readonly BenchmarkCase[] = (["RMSNorm", "LayerNorm"] as const).flatMap((name) =>
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
