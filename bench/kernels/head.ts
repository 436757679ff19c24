/** The fused head: pass 1 (log-probabilities), the same with the statistics of logits, and pass 2 with its two products (gradients), window by window. */

import type { Program } from "../../src/engine/program.ts";
import { reshape, sliceRows, type Tensor } from "../../src/engine/tensor.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  splitColumns,
  windowColumns,
} from "../../src/kernels/log-softmax-gather.ts";
import { logitStatistics, logitStatisticsCombine } from "../../src/kernels/logit-statistics.ts";
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
    name: "log-softmax-gather forward + statistics",
    shape: `${ROWS} rows, ${VOCABULARY} x ${width}`,
    quick: width === 64,
    record: (bench: BenchmarkMemory, program: Program) => {
      const forward = recordForward(bench, program, width);
      const check = recordStatistics(bench, program, width, forward);
      return async () => {
        await forward.check();
        await check();
      };
    },
  },
  {
    name: "log-softmax-gather forward + backward",
    shape: `${ROWS} rows, ${VOCABULARY} x ${width}`,
    quick: false,
    record: (bench: BenchmarkMemory, program: Program) => {
      const forward = recordForward(bench, program, width);
      const check = recordBackward(bench, program, width, forward);
      return async () => {
        await forward.check();
        await check();
      };
    },
  },
]);

/** Some rows, first and last among them, that are compared with float64. */
const CHECKED_ROWS = [0, 100, ROWS - 1];

interface Forward {
  readonly hidden: Tensor;
  readonly table: Tensor;
  readonly targets: Tensor;
  readonly logSumExp: Tensor;
  readonly partials: Tensor;
  readonly splitColumns: number;
  /** In float64: the logits of a row and their log-sum-exp; the table's values; the target of a row. */
  readonly exact: (row: number) => { logits: Float64Array; logSumExp: number; target: number };
  readonly tableValues: Float32Array;
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
    aFrom: 0,
    windowStart: 0,
  });
  const logProbs = bench.zeros(ROWS);
  const logSumExp = bench.zeros(ROWS);
  program.dispatch(logSoftmaxGatherCombine, { partials, targetLogits, logProbs, logSumExp });
  const exact = (row: number) => {
    const logits = Float64Array.from({ length: VOCABULARY }, (_, id) => {
      let sum = 0;
      for (let c = 0; c < width; c++)
        sum += (hidden.values[row * width + c] ?? 0) * (table.values[id * width + c] ?? 0);
      return sum;
    });
    const logSumExp = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    return { logits, logSumExp, target: ids[row] ?? 0 };
  };
  const check = async () => {
    const found = await device.download(logProbs);
    for (const row of CHECKED_ROWS) {
      const { logits, logSumExp, target } = exact(row);
      expectClose(`log-prob ${row}`, found[row] ?? Number.NaN, (logits[target] ?? Number.NaN) - logSumExp, 1e-4);
    }
  };
  return {
    ...{ hidden: hidden.tensor, table: table.tensor, targets, logSumExp, partials, splitColumns: perSplit },
    ...{ exact, tableValues: table.values, check },
  };
}

/** Entropies and mean logits, as on logging steps, in the partials of pass 1. */
function recordStatistics(
  bench: BenchmarkMemory,
  program: Program,
  width: number,
  { hidden, table, logSumExp, partials, splitColumns: perSplit, exact }: Forward,
): () => Promise<void> {
  const { device } = bench;
  program.dispatch(logitStatistics(ROWS, VOCABULARY, width, device.facts), {
    a: hidden,
    b: table,
    logSumExp,
    partials,
    firstSplit: 0,
    splitColumns: perSplit,
    aFrom: 0,
  });
  const [entropies, meanLogits] = [bench.zeros(ROWS), bench.zeros(ROWS)];
  program.dispatch(logitStatisticsCombine, { partials, entropies, meanLogits, V: VOCABULARY });
  return async () => {
    const found = { entropies: await device.download(entropies), meanLogits: await device.download(meanLogits) };
    for (const row of CHECKED_ROWS) {
      const { logits, logSumExp: total } = exact(row);
      const entropy = logits.reduce((sum, logit) => sum + Math.exp(logit - total) * (total - logit), 0);
      expectClose(`entropy ${row}`, found.entropies[row] ?? Number.NaN, entropy, 1e-3);
      const mean = logits.reduce((sum, logit) => sum + logit, 0) / VOCABULARY;
      expectClose(`mean logit ${row}`, found.meanLogits[row] ?? Number.NaN, mean, 1e-5);
    }
  };
}

/** Returns the check of dHidden; dTable comes from the same dLogits by the product that `matmul TN` checks. */
function recordBackward(
  bench: BenchmarkMemory,
  program: Program,
  width: number,
  forward: Forward,
): () => Promise<void> {
  const { device } = bench;
  const { facts, limits } = device;
  const { hidden, table, targets, logSumExp } = forward;
  const sequences = bench.integers(
    [ROWS],
    Uint32Array.from({ length: ROWS }, (_, row) => Math.floor(row / 32)),
  );
  const coefficients = bench.normal([ROWS / 32]);
  const window = windowColumns(ROWS, VOCABULARY, width, limits.maxStorageBufferBindingSize);
  const dLogits = bench.zeros(ROWS, window);
  const [dHidden, dTable] = [bench.zeros(ROWS, width), bench.zeros(VOCABULARY, width)];
  const none = {
    ...{ bias: bench.zeros(1), residual: bench.zeros(1, 4), hasBias: 0, hasResidual: 0 },
    ...{ aFrom: 0, outFrom: 0, scale: 1 },
  };
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
      coefficients: coefficients.tensor,
      dLogits: here,
      aFrom: 0,
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
  return async () => {
    const found = await device.download(dHidden);
    for (const row of CHECKED_ROWS) {
      const { logits, logSumExp: total, target } = forward.exact(row);
      const coefficient = coefficients.values[Math.floor(row / 32)] ?? Number.NaN;
      for (const c of [0, width - 1]) {
        let wanted = forward.tableValues[target * width + c] ?? Number.NaN;
        logits.forEach((logit, id) => {
          wanted -= Math.exp(logit - total) * (forward.tableValues[id * width + c] ?? Number.NaN);
        });
        const size = Math.abs(coefficient);
        expectClose(`dHidden[${row}, ${c}]`, found[row * width + c] ?? Number.NaN, coefficient * wanted, 1e-5 * size);
      }
    }
  };
}
