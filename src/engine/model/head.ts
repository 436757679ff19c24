/**
 * The head over head rows: final norm, then log-probabilities of targets by `log-softmax-gather`, walking the
 * vocabulary in windows; and its backward pass from one coefficient per sequence.
 */
import { gatherRows, scatterRows } from "../../kernels/embedding.ts";
import type { StoredFormat } from "../../kernels/kernel.ts";
import {
  logSoftmaxGatherCombine,
  logSoftmaxGatherForward,
  logSoftmaxGatherGradient,
  sequenceSums,
  splitColumns,
  targetHits,
  windowColumns,
} from "../../kernels/log-softmax-gather.ts";
import { logitStatistics, logitStatisticsCombine } from "../../kernels/logit-statistics.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, sliceRows, type Tensor } from "../gpu/tensor.ts";
import { type BackwardScratch, recordNorm, recordNormBackward } from "./block.ts";
import type { ModelConfig } from "./config/config.ts";
import { recordMatmul } from "./matmul.ts";
import type { Model } from "./model.ts";
import type { RowArray, RowShape } from "./rows.ts";

/** Table rows that one binding holds, in whole splits; splits of pass 1 never cross a window. */
function forwardWindow(device: Device, config: ModelConfig): { window: number; perSplit: number; splits: number } {
  const bindableRows = Math.floor(device.limits.maxStorageBufferBindingSize / (4 * config.hiddenSize));
  const perSplit = splitColumns(config.vocabSize, bindableRows);
  const window = Math.max(1, Math.floor(bindableRows / perSplit)) * perSplit;
  return { window, perSplit, splits: Math.ceil(config.vocabSize / perSplit) };
}

/** Device memory of the head for a set of shapes. */
export class HeadBuffers {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly #buffers: Readonly<Record<HeadBuffer, Tensor>>;

  constructor(device: Device, config: ModelConfig, shapes: readonly RowShape[], withGradients: boolean) {
    this.device = device;
    this.config = config;
    const largest = (size: (shape: RowShape) => number) => Math.max(1, ...shapes.map(size));
    const rows = largest((shape) => shape.gradientHeadRows + shape.branchHeadRows);
    const gradientRows = withGradients ? largest((shape) => shape.gradientHeadRows) : 0;
    const window = withGradients
      ? largest((shape) => shape.gradientHeadRows * headWindow(device, config, shape.gradientHeadRows))
      : 0;
    const { hiddenSize: C } = config;
    const sizes: Record<HeadBuffer, number> = {
      hidden: rows * C,
      normed: rows * C,
      stats: rows * 2,
      partials: forwardWindow(device, config).splits * rows * 2,
      targetLogits: rows,
      logProbs: rows,
      logSumExp: rows,
      dLogits: window,
      dNormed: gradientRows * C,
      dHidden: gradientRows * C,
    };
    this.#buffers = Object.fromEntries(
      Object.entries(sizes)
        .filter(([, size]) => size > 0)
        .map(([name, size]) => [name, device.allocate("scratch", `head ${name}`, [size])]),
    ) as Record<HeadBuffer, Tensor>;
  }

  tensor(name: HeadBuffer, shape: readonly number[]): Tensor {
    return reshape(this.#buffers[name], shape);
  }

  free(): void {
    for (const buffer of Object.values(this.#buffers)) this.device.free(buffer);
  }
}

type HeadBuffer =
  | "hidden"
  | "normed"
  | "stats"
  | "partials"
  | "targetLogits"
  | "logProbs"
  | "logSumExp"
  | "dLogits"
  | "dNormed"
  | "dHidden";

/** Tokens per window of the backward pass. */
function headWindow(device: Device, config: ModelConfig, rows: number): number {
  return windowColumns(rows, config.vocabSize, config.hiddenSize, device.limits.maxStorageBufferBindingSize);
}

/** Records the final norm of the head rows of `output` [T, C] into `normed` [N, C]. */
export function recordHeadRows(
  program: Program,
  model: Model,
  buffers: HeadBuffers,
  output: Tensor,
  headRows: Tensor,
): Tensor {
  const [rows = 0] = headRows.shape;
  const { hiddenSize: C } = model.config;
  const hidden = buffers.tensor("hidden", [rows, C]);
  const normed = buffers.tensor("normed", [rows, C]);
  program.dispatch(gatherRows(), { table: output, rows: headRows, y: hidden, firstRow: 0, accumulate: 0 });
  recordNorm(program, model, "finalNorm", hidden, normed, buffers.tensor("stats", [rows, 2]));
  return normed;
}

/** Records pass 1: log-probabilities of the targets of all head rows, and their sums per sequence [S]. */
export function recordHeadForward(
  program: Program,
  model: Model,
  buffers: HeadBuffers,
  shape: RowShape,
  rows: Readonly<Record<RowArray, Tensor>>,
  output: Tensor,
  sums: Tensor,
): void {
  const { device } = program;
  const { vocabSize, hiddenSize: C } = model.config;
  const N = shape.gradientHeadRows + shape.branchHeadRows;
  const normed = recordHeadRows(program, model, buffers, output, rows.headRows);
  const table = model.parameter(model.headName);
  const { window, perSplit, splits } = forwardWindow(device, model.config);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  const targetLogits = buffers.tensor("targetLogits", [N]);
  for (let start = 0; start < vocabSize; start += window) {
    const columns = Math.min(window, vocabSize - start);
    program.dispatch(logSoftmaxGatherForward(N, columns, C, device.facts, table.dtype as StoredFormat), {
      a: normed,
      aFrom: 0,
      b: sliceRows(table, start, columns),
      targets: rows.targets,
      partials,
      targetLogits,
      firstSplit: start / perSplit,
      splitColumns: perSplit,
      windowStart: start,
    });
  }
  const logProbs = buffers.tensor("logProbs", [N]);
  program.dispatch(logSoftmaxGatherCombine, {
    partials,
    targetLogits,
    logProbs,
    logSumExp: buffers.tensor("logSumExp", [N]),
  });
  program.dispatch(sequenceSums, { logProbs, ranges: rows.sequenceRanges, sums });
}

/** Sums over the head rows of each of m sequences. */
export interface TokenSums {
  /** f32[m], in nats. */
  readonly entropies: Tensor;
  /** f32[m], of the mean logit of each row. */
  readonly logits: Tensor;
}

/**
 * Records the entropies and mean logits of region A's head rows, summed per sequence. Follows pass 1 over the same
 * buffers, before or after pass 2, and reuses buffers that pass 1 no longer needs, so it takes no memory of its own.
 */
export function recordTokenSums(
  program: Program,
  model: Model,
  buffers: HeadBuffers,
  shape: RowShape,
  rows: Readonly<Record<RowArray, Tensor>>,
  sums: TokenSums,
): void {
  const { device } = program;
  const { vocabSize, hiddenSize: C } = model.config;
  const N = shape.gradientHeadRows;
  const table = model.parameter(model.headName);
  const { window, perSplit, splits } = forwardWindow(device, model.config);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  for (let start = 0; start < vocabSize; start += window) {
    const columns = Math.min(window, vocabSize - start);
    program.dispatch(logitStatistics(N, columns, C, device.facts, table.dtype as StoredFormat), {
      a: buffers.tensor("normed", [N, C]),
      aFrom: 0,
      b: sliceRows(table, start, columns),
      logSumExp: buffers.tensor("logSumExp", [N]),
      partials,
      firstSplit: start / perSplit,
      splitColumns: perSplit,
    });
  }
  const entropies = buffers.tensor("logProbs", [N]);
  const meanLogits = buffers.tensor("targetLogits", [N]);
  program.dispatch(logitStatisticsCombine, { partials, entropies, meanLogits, V: vocabSize });
  const ranges = sliceRows(rows.sequenceRanges, 0, sums.entropies.shape[0] ?? 0);
  program.dispatch(sequenceSums, { logProbs: entropies, ranges, sums: sums.entropies });
  program.dispatch(sequenceSums, { logProbs: meanLogits, ranges, sums: sums.logits });
}

/**
 * Records, after pass 1 over the same rows, how many targets of each sequence have the highest logit of all tokens:
 * counts [S], whole numbers as f32.
 */
export function recordHeadHits(
  program: Program,
  model: Model,
  buffers: HeadBuffers,
  shape: RowShape,
  rows: Readonly<Record<RowArray, Tensor>>,
  counts: Tensor,
): void {
  const N = shape.gradientHeadRows + shape.branchHeadRows;
  const { splits } = forwardWindow(program.device, model.config);
  const hits = buffers.tensor("logProbs", [N]); // they are summed by now, and pass 2 does not read them
  const targetLogits = buffers.tensor("targetLogits", [N]);
  program.dispatch(targetHits, { partials: buffers.tensor("partials", [splits, N, 2]), targetLogits, hits });
  program.dispatch(sequenceSums, { logProbs: hits, ranges: rows.sequenceRanges, sums: counts });
}

/**
 * Records pass 2 and the final norm's backward pass: from coefficients [m] of the sequences of region A to the gradient
 * of the residual stream `scratch.dx`, adding the head's and the norm's parameter gradients where these are trained.
 */
export function recordHeadBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  buffers: HeadBuffers,
  shape: RowShape,
  rows: Readonly<Record<RowArray, Tensor>>,
  coefficients: Tensor,
  scratch: BackwardScratch,
): void {
  const { device } = program;
  const { vocabSize, hiddenSize: C } = model.config;
  const N = shape.gradientHeadRows;
  const first = (tensor: Tensor) => sliceRows(tensor, 0, N);
  const normed = buffers.tensor("normed", [N, C]);
  const dNormed = buffers.tensor("dNormed", [N, C]);
  const table = model.parameter(model.headName);
  const dTable = gradients.has(model.headName) ? gradients.window(model.headName) : undefined;
  const window = headWindow(device, model.config, N);
  for (let start = 0; start < vocabSize; start += window) {
    const columns = Math.min(window, vocabSize - start);
    const tableWindow = sliceRows(table, start, columns);
    const dLogits = buffers.tensor("dLogits", [N, columns]);
    program.dispatch(logSoftmaxGatherGradient(N, columns, C, device.facts, table.dtype as StoredFormat), {
      a: normed,
      aFrom: 0,
      b: tableWindow,
      targets: first(rows.targets),
      sequences: rows.headSequences,
      logSumExp: buffers.tensor("logSumExp", [N]),
      coefficients,
      dLogits,
      windowStart: start,
    });
    recordMatmul(program, "NN", dLogits, tableWindow, dNormed, { accumulate: start > 0 });
    if (dTable) recordMatmul(program, "TN", dLogits, normed, sliceRows(dTable, start, columns), { accumulate: true });
  }
  recordHeadRowsBackward(program, model, gradients, buffers, shape, rows, scratch);
}

/**
 * Records the final norm's backward pass, from the gradients of the head rows' normed values in the head's buffers to
 * the gradient of the residual stream `scratch.dx`, adding the norm's parameter gradients where these are trained.
 */
export function recordHeadRowsBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  buffers: HeadBuffers,
  shape: RowShape,
  rows: Readonly<Record<RowArray, Tensor>>,
  scratch: BackwardScratch,
): void {
  const { hiddenSize: C } = model.config;
  const N = shape.gradientHeadRows;
  const dHidden = buffers.tensor("dHidden", [N, C]);
  program.clear(dHidden);
  recordNormBackward(program, model, gradients, "finalNorm", {
    dy: buffers.tensor("dNormed", [N, C]),
    x: buffers.tensor("hidden", [N, C]),
    stats: buffers.tensor("stats", [N, 2]),
    dx: dHidden,
    partials: scratch.partials,
  });
  program.clear(scratch.dx);
  program.dispatch(scatterRows, { x: dHidden, rows: sliceRows(rows.headRows, 0, N), y: scratch.dx, xColumn: 0 });
}
