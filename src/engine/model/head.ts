/**
 * The head over head rows: final norm, then log-probabilities of targets by `log-softmax-gather`, walking the
 * vocabulary in windows; and its backward pass from one coefficient per sequence.
 */
import { gatherRows, scatterRows } from "../../kernels/embedding.ts";
import type { WeightFormat } from "../../kernels/kernel.ts";
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
import { scaleRows, softCap } from "../../kernels/scale.ts";
import type { Arena } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { reshape, sliceRows, type Tensor } from "../gpu/tensor.ts";
import type { BackwardScratch } from "./block.ts";
import type { ModelConfig } from "./config/config.ts";
import { recordMatmul } from "./matmul.ts";
import type { Model } from "./model.ts";
import { recordNorm, recordNormBackward } from "./norms.ts";
import type { RowArray, RowShape } from "./rows.ts";

/** What the head of a pass works on; recording adds to `program`. */
export interface HeadPass {
  readonly program: Program;
  readonly model: Model;
  readonly buffers: HeadBuffers;
  readonly shape: RowShape;
  readonly rows: Readonly<Record<RowArray, Tensor>>;
}

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
    const sizes = bufferSizes(device, config, shapes, withGradients);
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

type HeadBuffer = keyof ReturnType<typeof bufferSizes>;

/** Elements of each buffer of the head. */
function bufferSizes(device: Device, config: ModelConfig, shapes: readonly RowShape[], withGradients: boolean) {
  const largest = (size: (shape: RowShape) => number) => Math.max(1, ...shapes.map(size));
  const rows = largest((shape) => shape.gradientHeadRows + shape.branchHeadRows);
  const gradientRows = withGradients ? largest((shape) => shape.gradientHeadRows) : 0;
  const window = withGradients
    ? largest((shape) => shape.gradientHeadRows * headWindow(device, config, shape.gradientHeadRows))
    : 0;
  const { hiddenSize: C } = config;
  return {
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
}

/** Tokens per window of the backward pass. */
function headWindow(device: Device, config: ModelConfig, rows: number): number {
  return windowColumns(rows, config.vocabSize, config.hiddenSize, device.limits.maxStorageBufferBindingSize);
}

/** The head's table in windows of at most `most` rows. */
function tableWindows(model: Model, most: number) {
  const table = model.parameter(model.headName);
  const [total = 0] = table.shape;
  return Array.from({ length: Math.ceil(total / most) }, (_, index) => {
    const start = index * most;
    const columns = Math.min(most, total - start);
    return { start, columns, b: sliceRows(table, start, columns), format: table.dtype as WeightFormat };
  });
}

/**
 * Records the final norm of the head rows of `output` [T, C], over what the model divides logits by, into `normed`
 * [N, C]: its products with the head's table are logits before their soft cap.
 */
export function recordHeadRows(
  { program, model, buffers }: Pick<HeadPass, "program" | "model" | "buffers">,
  output: Tensor,
  headRows: Tensor,
): Tensor {
  const [rows = 0] = headRows.shape;
  const { hiddenSize: C } = model.config;
  const hidden = buffers.tensor("hidden", [rows, C]);
  const normed = buffers.tensor("normed", [rows, C]);
  program.dispatch(gatherRows(), { table: output, rows: headRows, y: hidden, firstRow: 0, accumulate: 0 });
  recordNorm(program, model, "finalNorm", hidden, normed, buffers.tensor("stats", [rows, 2]));
  const { logitsScaling } = model.config;
  if (logitsScaling !== 1) program.dispatch(scaleRows, { x: normed, factor: 1 / logitsScaling });
  return normed;
}

/** Records the logits [N, columns] of normed head rows for a window of the head's table. */
export function recordLogits(program: Program, model: Model, normed: Tensor, window: Tensor, logits: Tensor): void {
  recordMatmul(program, "NT", normed, window, logits);
  const { logitSoftCap } = model.config;
  if (logitSoftCap !== undefined) program.dispatch(softCap(logitSoftCap), { x: logits });
}

/** Records pass 1: log-probabilities of the targets of all head rows, and their sums per sequence [S]. */
export function recordHeadForward(pass: HeadPass, output: Tensor, sums: Tensor): void {
  const { program, model, buffers, shape, rows } = pass;
  const { device } = program;
  const { hiddenSize: C, vocabSize, logitSoftCap } = model.config;
  const N = shape.gradientHeadRows + shape.branchHeadRows;
  const normed = recordHeadRows(pass, output, rows.headRows);
  const { window, perSplit, splits } = forwardWindow(device, model.config);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  const targetLogits = buffers.tensor("targetLogits", [N]);
  const together = {};
  for (const { start, columns, b, format } of tableWindows(model, window)) {
    const kernel = logSoftmaxGatherForward(N, columns, C, device.facts, format, vocabSize, logitSoftCap);
    const operands = { a: normed, aFrom: 0, b, targets: rows.targets, partials, targetLogits };
    const place = { firstSplit: start / perSplit, splitColumns: perSplit, windowStart: start };
    program.dispatch(kernel, { ...operands, ...place }, together);
  }
  const logProbs = buffers.tensor("logProbs", [N]);
  const logSumExp = buffers.tensor("logSumExp", [N]);
  program.dispatch(logSoftmaxGatherCombine, { partials, targetLogits, logProbs, logSumExp });
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
export function recordTokenSums({ program, model, buffers, shape, rows }: HeadPass, sums: TokenSums): void {
  const { device } = program;
  const { vocabSize, hiddenSize: C } = model.config;
  const N = shape.gradientHeadRows;
  const { window, perSplit, splits } = forwardWindow(device, model.config);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  const logSumExp = buffers.tensor("logSumExp", [N]);
  const a = buffers.tensor("normed", [N, C]);
  for (const { start, columns, b, format } of tableWindows(model, window)) {
    const place = { firstSplit: start / perSplit, splitColumns: perSplit };
    const statistics = logitStatistics(N, columns, C, device.facts, format, model.config.logitSoftCap);
    program.dispatch(statistics, { a, aFrom: 0, b, logSumExp, partials, ...place });
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
export function recordTargetHits({ program, model, buffers, shape, rows }: HeadPass, counts: Tensor): void {
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
  pass: HeadPass,
  gradients: Arena,
  coefficients: Tensor,
  scratch: BackwardScratch,
): void {
  const { program, model, buffers, shape, rows } = pass;
  const { device } = program;
  const { hiddenSize: C, logitSoftCap, logitsScaling } = model.config;
  const N = shape.gradientHeadRows;
  const normed = buffers.tensor("normed", [N, C]);
  const dNormed = buffers.tensor("dNormed", [N, C]);
  const logSumExp = buffers.tensor("logSumExp", [N]);
  const dTable = gradients.has(model.headName) ? gradients.window(model.headName) : undefined;
  const given = { targets: sliceRows(rows.targets, 0, N), sequences: rows.headSequences, logSumExp, coefficients };
  for (const { start, columns, b, format } of tableWindows(model, headWindow(device, model.config, N))) {
    const dLogits = buffers.tensor("dLogits", [N, columns]);
    const gradient = logSoftmaxGatherGradient(N, columns, C, device.facts, format, logitSoftCap);
    program.dispatch(gradient, { a: normed, aFrom: 0, b, ...given, dLogits, windowStart: start });
    recordMatmul(program, "NN", dLogits, b, dNormed, { accumulate: start > 0, scale: 1 / logitsScaling });
    if (dTable) recordMatmul(program, "TN", dLogits, normed, sliceRows(dTable, start, columns), { accumulate: true });
  }
  recordHeadRowsBackward(pass, gradients, scratch);
}

/**
 * Records the final norm's backward pass, from the gradients of the head rows' normed values in the head's buffers to
 * the gradient of the residual stream `scratch.dx`, adding the norm's parameter gradients where these are trained.
 */
export function recordHeadRowsBackward(
  { program, model, buffers, shape, rows }: HeadPass,
  gradients: Arena,
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
