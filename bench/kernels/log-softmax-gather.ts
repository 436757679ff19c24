/** The fused head: pass 1 (log-probabilities), and pass 2 with its two matmuls (gradients), window by window. */
import type { Program } from "../../src/engine/gpu/program.ts";
import { reshape, sliceRows } from "../../src/engine/gpu/tensor.ts";
import { recordMatmul } from "../../src/engine/model/matmul.ts";
import { Random } from "../../src/engine/random.ts";
import { softCapped } from "../../src/kernels/float64/scale.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  tokensPerSplit,
  windowColumns,
} from "../../src/kernels/log-softmax-gather.ts";
import { type BenchmarkCase, type BenchmarkMemory, expectClose, normals } from "../measure/case.ts";
import type { HeadShape } from "../measure/peer-work.ts";

/** Rows of one sequence, which share a coefficient. */
const SEQUENCE_ROWS = 32;

export const logSoftmaxGatherCases: readonly BenchmarkCase[] = [64, 256].flatMap((width) => {
  const head = { rows: 256, vocabulary: 50257, width };
  const shape = `${head.rows} rows, ${head.vocabulary} x ${width}`;
  return [
    {
      name: "log-softmax-gather forward",
      shape,
      quick: width === 64,
      peerWork: { kind: "head", backward: false, ...head },
      record: (bench, program) => {
        const inputs = headInputs(head);
        const { logProbs } = recordForward(bench, program, inputs);
        return async () => inputs.checkForward(await bench.device.download(logProbs));
      },
    },
    ...(width === 64 ? [cappedForward(head, shape)] : []),
    {
      name: "log-softmax-gather forward + backward",
      shape,
      quick: false,
      peerWork: { kind: "head", backward: true, ...head },
      record: (bench, program) => {
        const inputs = headInputs(head);
        const forward = recordForward(bench, program, inputs);
        const { dHidden, dTable } = recordBackward(bench, program, inputs, forward);
        const { device } = bench;
        return async () => {
          inputs.checkForward(await device.download(forward.logProbs));
          inputs.checkBackward(await device.download(dHidden), await device.download(dTable));
        };
      },
    },
  ] satisfies BenchmarkCase[];
});

/** Gemma's soft cap of logits; here small enough that it bends them. */
const CAP = 2;

function cappedForward(head: HeadShape, shape: string): BenchmarkCase {
  return {
    name: "log-softmax-gather forward, soft cap",
    shape,
    quick: false,
    record: (bench, program) => {
      const inputs = headInputs(head, CAP);
      const { logProbs } = recordForward(bench, program, inputs, CAP);
      return async () => inputs.checkForward(await bench.device.download(logProbs));
    },
  };
}

type HeadInputs = ReturnType<typeof headInputs>;

/**
 * Operands of the head: hidden [rows, width], table [vocabulary, width], targets and coefficients [rows] (equal within
 * a sequence); and checks of some rows, first and last among them, in float64:
 * logProb[n] = logits[n, target[n]] - logSumExp(logits[n]), and the gradients of sum_n coefficient[n] logProb[n].
 *
 * @param cap soft cap of the logits of the forward pass
 */
export function headInputs({ rows, vocabulary, width }: HeadShape, cap?: number) {
  const random = new Random(1);
  const hidden = normals(random, rows * width);
  const table = normals(random, vocabulary * width, 1 / Math.sqrt(width));
  const targets = Uint32Array.from({ length: rows }, () => random.below(vocabulary));
  const ofSequences = normals(random, rows / SEQUENCE_ROWS);
  const coefficients = Float32Array.from(
    { length: rows },
    (_, row) => ofSequences[Math.floor(row / SEQUENCE_ROWS)] ?? 0,
  );
  const exact = (row: number) => {
    const logits = Float64Array.from({ length: vocabulary }, (_, id) => {
      let sum = 0;
      for (let c = 0; c < width; c++) sum += (hidden[row * width + c] ?? 0) * (table[id * width + c] ?? 0);
      return softCapped(sum, cap);
    });
    return { logits, logSumExp: Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) };
  };
  const checkedRows = [0, 100, rows - 1];
  const checkForward = (logProbs: ArrayLike<number>): void => {
    for (const row of checkedRows) {
      const { logits, logSumExp } = exact(row);
      expectClose(`log-prob ${row}`, logProbs[row], (logits[targets[row] ?? 0] ?? Number.NaN) - logSumExp, 1e-4);
    }
  };
  const checkBackward = (dHidden: ArrayLike<number>, dTable: ArrayLike<number>): void => {
    for (const row of checkedRows) {
      const { logits, logSumExp } = exact(row);
      const coefficient = coefficients[row] ?? Number.NaN;
      for (const c of [0, width - 1]) {
        let wanted = table[(targets[row] ?? 0) * width + c] ?? Number.NaN;
        logits.forEach((logit, id) => {
          wanted -= Math.exp(logit - logSumExp) * (table[id * width + c] ?? Number.NaN);
        });
        expectClose(
          `dHidden[${row}, ${c}]`,
          dHidden[row * width + c],
          coefficient * wanted,
          1e-5 * Math.abs(coefficient),
        );
      }
    }
    // A row of dTable takes all rows of hidden, so one is enough: the last token, whose window is the last.
    const id = vocabulary - 1;
    const wanted = new Float64Array(width);
    for (let row = 0; row < rows; row++) {
      const { logits, logSumExp } = exact(row);
      const onTarget = targets[row] === id ? 1 : 0;
      const dLogit = (coefficients[row] ?? 0) * (onTarget - Math.exp((logits[id] ?? Number.NaN) - logSumExp));
      for (let c = 0; c < width; c++) wanted[c] = (wanted[c] ?? 0) + dLogit * (hidden[row * width + c] ?? 0);
    }
    wanted.forEach((value, c) => {
      expectClose(`dTable[${id}, ${c}]`, dTable[id * width + c], value, 1e-5);
    });
  };
  return { rows, vocabulary, width, hidden, table, targets, coefficients, ofSequences, checkForward, checkBackward };
}

function recordForward(bench: BenchmarkMemory, program: Program, inputs: HeadInputs, cap?: number) {
  const { facts } = bench.device;
  const { rows, vocabulary, width } = inputs;
  const hidden = bench.of([rows, width], inputs.hidden);
  const table = bench.of([vocabulary, width], inputs.table);
  const targets = bench.of([rows], inputs.targets);
  const perSplit = tokensPerSplit(vocabulary);
  const partials = bench.zeros(Math.ceil(vocabulary / perSplit), rows, 2);
  const targetLogits = bench.zeros(rows);
  program.dispatch(logSoftmaxGatherForward(rows, vocabulary, width, facts, "f32", vocabulary, cap), {
    a: hidden,
    b: table,
    targets,
    partials,
    targetLogits,
    firstSplit: 0,
    splitColumns: perSplit,
    aFrom: 0,
    windowStart: 0,
  });
  const logProbs = bench.zeros(rows);
  const logSumExp = bench.zeros(rows);
  program.dispatch(logSoftmaxGatherCombine, { partials, targetLogits, logProbs, logSumExp });
  return { hidden, table, targets, logProbs, logSumExp };
}

function recordBackward(
  bench: BenchmarkMemory,
  program: Program,
  { rows, vocabulary, width, ofSequences }: HeadInputs,
  { hidden, table, targets, logSumExp }: ReturnType<typeof recordForward>,
) {
  const { facts, limits } = bench.device;
  const sequences = bench.of(
    [rows],
    Uint32Array.from({ length: rows }, (_, row) => Math.floor(row / SEQUENCE_ROWS)),
  );
  const coefficients = bench.of([ofSequences.length], ofSequences);
  const window = windowColumns(rows, vocabulary, width, limits.maxStorageBufferBindingSize);
  const dLogits = bench.zeros(rows, window);
  const [dHidden, dTable] = [bench.zeros(rows, width), bench.zeros(vocabulary, width)];
  for (let start = 0; start < vocabulary; start += window) {
    const columns = Math.min(window, vocabulary - start);
    const tableWindow = sliceRows(table, start, columns);
    const here = reshape(dLogits, [rows, columns]);
    program.dispatch(logSoftmaxGatherGradient(rows, columns, width, facts), {
      a: hidden,
      b: tableWindow,
      targets,
      sequences,
      logSumExp,
      coefficients,
      dLogits: here,
      aFrom: 0,
      windowStart: start,
    });
    recordMatmul(program, "NN", here, tableWindow, dHidden, { accumulate: start > 0 });
    recordMatmul(program, "TN", here, hidden, sliceRows(dTable, start, columns));
  }
  return { dHidden, dTable };
}
