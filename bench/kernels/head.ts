/** The fused head: pass 1 (log-probabilities), and pass 2 with its two products (gradients), window by window. */

import type { Program } from "../../src/engine/program.ts";
import { reshape, sliceRows, type Tensor } from "../../src/engine/tensor.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  splitColumns,
  windowColumns,
} from "../../src/kernels/log-softmax-gather.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import { type BenchmarkCase, type BenchmarkMemory, expectClose } from "../case.ts";

const ROWS = 256;
const VOCABULARY = 50257;

export const headCases: readonly BenchmarkCase[] = [64, 256].flatMap((width) => [
  {
    name: "log-softmax-gather forward",
    shape: `${ROWS} rows, ${VOCABULARY} x ${width}`,
    quick: width === 64,
    record: (bench: BenchmarkMemory, program: Program) => recordForward(bench, program, width).check,
  },
  {
    name: "log-softmax-gather forward + backward",
    shape: `${ROWS} rows, ${VOCABULARY} x ${width}`,
    quick: false,
    record: (bench: BenchmarkMemory, program: Program) => {
      const forward = recordForward(bench, program, width);
      recordBackward(bench, program, width, forward);
      return forward.check;
    },
  },
]);

interface Forward {
  readonly hidden: Tensor;
  readonly table: Tensor;
  readonly targets: Tensor;
  readonly logSumExp: Tensor;
  readonly check: () => Promise<void>;
}

function recordForward(bench: BenchmarkMemory, program: Program, width: number): Forward {
  const { device } = bench;
  const hidden = bench.normal([ROWS, width]);
  const table = bench.normal([VOCABULARY, width], 1 / Math.sqrt(width));
  const ids = Uint32Array.from({ length: ROWS }, () => bench.below(VOCABULARY));
  const targets = bench.integers([ROWS], ids);
  const perSplit = splitColumns(VOCABULARY);
  const partials = bench.zeros(Math.ceil(VOCABULARY / perSplit), ROWS, 2);
  const targetLogits = bench.zeros(ROWS);
  program.dispatch(logSoftmaxGatherForward(ROWS, VOCABULARY, width, device.facts), {
    a: hidden.tensor,
    b: table.tensor,
    targets,
    partials,
    targetLogits,
    firstSplit: 0,
    splitColumns: perSplit,
    windowStart: 0,
  });
  const logProbs = bench.zeros(ROWS);
  const logSumExp = bench.zeros(ROWS);
  program.dispatch(logSoftmaxGatherCombine, { partials, targetLogits, logProbs, logSumExp });
  const check = async () => {
    const found = await device.download(logProbs);
    for (const row of [0, 100, ROWS - 1]) {
      const logits = Float64Array.from({ length: VOCABULARY }, (_, id) => {
        let sum = 0;
        for (let c = 0; c < width; c++)
          sum += (hidden.values[row * width + c] ?? 0) * (table.values[id * width + c] ?? 0);
        return sum;
      });
      const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
      expectClose(`log-prob ${row}`, found[row] ?? Number.NaN, (logits[ids[row] ?? 0] ?? 0) - total, 1e-4);
    }
  };
  return { hidden: hidden.tensor, table: table.tensor, targets, logSumExp, check };
}

function recordBackward(bench: BenchmarkMemory, program: Program, width: number, forward: Forward): void {
  const { device } = bench;
  const { facts, limits } = device;
  const { hidden, table, targets, logSumExp } = forward;
  const sequences = bench.integers(
    [ROWS],
    Uint32Array.from({ length: ROWS }, (_, row) => Math.floor(row / 32)),
  );
  const coefficients = bench.normal([ROWS / 32]).tensor;
  const window = windowColumns(ROWS, VOCABULARY, width, limits.maxStorageBufferBindingSize);
  const dLogits = bench.zeros(ROWS, window);
  const [dHidden, dTable] = [bench.zeros(ROWS, width), bench.zeros(VOCABULARY, width)];
  const none = { bias: bench.zeros(1), residual: bench.zeros(1, 4), hasBias: 0, hasResidual: 0 };
  for (let start = 0; start < VOCABULARY; start += window) {
    const columns = Math.min(window, VOCABULARY - start);
    const tableWindow = sliceRows(table, start, columns);
    const here = reshape(dLogits, [ROWS, columns]);
    program.dispatch(logSoftmaxGatherGradient(ROWS, columns, width, facts), {
      a: hidden,
      b: tableWindow,
      targets,
      sequences,
      logSumExp,
      coefficients,
      dLogits: here,
      windowStart: start,
    });
    program.dispatch(matmul("NN", { M: ROWS, N: width, K: columns }, facts), {
      a: here,
      b: tableWindow,
      out: dHidden,
      ...none,
      accumulate: start > 0 ? 1 : 0,
    });
    program.dispatch(matmul("TN", { M: columns, N: width, K: ROWS }, facts), {
      a: here,
      b: hidden,
      out: sliceRows(dTable, start, columns),
      ...none,
      accumulate: 0,
    });
  }
}
