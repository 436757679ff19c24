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
  targetHits,
  tokensPerSplit,
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
import type { LoraAdapter } from "./lora.ts";
import { HeadAdapter } from "./lora-head.ts";
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
  const perSplit = tokensPerSplit(config.vocabSize, bindableRows);
  const window = Math.max(1, Math.floor(bindableRows / perSplit)) * perSplit;
  return { window, perSplit, splits: Math.ceil(config.vocabSize / perSplit) };
}

/** Device memory of the head for a set of shapes. */
export class HeadBuffers {
  readonly device: Device;
  readonly config: ModelConfig;
  /** Where the head has an adapter. */
  readonly adapter: HeadAdapter | undefined;
  readonly #buffers: Readonly<Record<HeadBuffer, Tensor>>;

  /**
   * @param options.adapter of the model, or of the one model that has one
   * @param options.generates only logits are wanted
   */
  constructor(
    device: Device,
    config: ModelConfig,
    shapes: readonly RowShape[],
    withGradients: boolean,
    { adapter, generates = false }: { readonly adapter?: LoraAdapter | undefined; readonly generates?: boolean } = {},
  ) {
    this.device = device;
    this.config = config;
    const rows = {
      rows: Math.max(...shapes.map((shape) => shape.gradientHeadRows + shape.branchHeadRows)),
      gradientRows: withGradients ? Math.max(...shapes.map((shape) => shape.gradientHeadRows)) : 0,
    };
    this.adapter = HeadAdapter.of(device, config, adapter, rows, !generates);
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
    this.adapter?.free();
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

/** The adapter of a pass's head and its memory. */
function adapted({ model, buffers }: Pick<HeadPass, "model" | "buffers">) {
  const layer = model.adapter?.special("head");
  return layer && buffers.adapter ? { layer, memory: buffers.adapter } : undefined;
}

/** The head's table in windows of at most `most` rows, joined with that of its adapter as they are taken. */
function* tableWindows(pass: Pick<HeadPass, "program" | "model" | "buffers">, most: number) {
  const { program, model } = pass;
  const table = model.parameter(model.headName);
  const own = adapted(pass);
  const [total = 0] = table.shape;
  for (let start = 0; start < total; start += most) {
    const columns = Math.min(most, total - start);
    const b = own
      ? own.memory.recordTable(program, model, own.layer, start, columns)
      : sliceRows(table, start, columns);
    yield { start, columns, b, format: b.dtype as WeightFormat };
  }
}

/** Rows of a window of the forward passes. */
function rowsOf(pass: HeadPass): { window: number; perSplit: number; splits: number } {
  const found = forwardWindow(pass.program.device, pass.model.config);
  const most = adapted(pass)?.memory.rowsAtMost(found.perSplit) ?? found.window;
  return { ...found, window: Math.min(found.window, most) };
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

/** Records what the adapter of the head makes of normed rows, for `recordLogits`; undefined without one. */
export function recordLogitsInner(
  pass: Pick<HeadPass, "program" | "model" | "buffers">,
  normed: Tensor,
): Tensor | undefined {
  const own = adapted(pass);
  return own?.memory.recordInner(pass.program, pass.model, own.layer, normed, undefined).inner;
}

/**
 * Records the logits [N, columns] of normed head rows for the window of the head's table from row `start` on.
 *
 * @param inner of `recordLogitsInner`
 */
export function recordLogits(
  pass: Pick<HeadPass, "program" | "model" | "buffers">,
  args: { readonly normed: Tensor; readonly inner: Tensor | undefined; readonly logits: Tensor },
  { start, window }: { readonly start: number; readonly window: Tensor },
): void {
  const { program, model } = pass;
  const { normed, inner, logits } = args;
  const own = adapted(pass);
  recordMatmul(program, "NT", normed, window, logits);
  if (own && inner) own.memory.recordLogits(program, model, own.layer, { inner, logits, start });
  const { logitSoftCap } = model.config;
  if (logitSoftCap !== undefined) program.dispatch(softCap(logitSoftCap), { x: logits });
}

/** Records pass 1: log-probabilities of the targets of all head rows, and their sums per sequence [S]. */
export function recordHeadForward(pass: HeadPass, output: Tensor, sums: Tensor): void {
  const { program, model, buffers, shape, rows } = pass;
  const { device } = program;
  const { vocabSize, logitSoftCap } = model.config;
  const N = shape.gradientHeadRows + shape.branchHeadRows;
  const normed = recordHeadRows(pass, output, rows.headRows);
  const own = adapted(pass);
  const a = own ? own.memory.recordInput(program, model, own.layer, normed, rows.headDrawKeys) : normed;
  const [, C = 0] = a.shape;
  const { window, perSplit, splits } = rowsOf(pass);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  const targetLogits = buffers.tensor("targetLogits", [N]);
  const together = {};
  for (const { start, columns, b, format } of tableWindows(pass, window)) {
    const kernel = logSoftmaxGatherForward(N, columns, C, device.facts, format, vocabSize, logitSoftCap);
    const operands = { a, aFrom: 0, b, targets: rows.targets, partials, targetLogits };
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
export function recordTokenSums(pass: HeadPass, sums: TokenSums): void {
  const { program, model, buffers, shape, rows } = pass;
  const { device } = program;
  const { vocabSize } = model.config;
  const N = shape.gradientHeadRows;
  const { window, perSplit, splits } = rowsOf(pass);
  const partials = buffers.tensor("partials", [splits, N, 2]);
  const logSumExp = buffers.tensor("logSumExp", [N]);
  const a = headInput(pass, N);
  const [, C = 0] = a.shape;
  for (const { start, columns, b, format } of tableWindows(pass, window)) {
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
  const own = adapted(pass);
  const a = headInput(pass, N);
  const [, K = 0] = a.shape;
  const dNormed = buffers.tensor("dNormed", [N, C]);
  const logSumExp = buffers.tensor("logSumExp", [N]);
  const dTable = gradients.has(model.headName) ? gradients.window(model.headName) : undefined;
  const given = { targets: sliceRows(rows.targets, 0, N), sequences: rows.headSequences, logSumExp, coefficients };
  const most = headWindow(device, model.config, N);
  for (const { start, columns, b, format } of tableWindows(pass, Math.min(most, own?.memory.rowsAtMost() ?? most))) {
    const dLogits = buffers.tensor("dLogits", [N, columns]);
    const gradient = logSoftmaxGatherGradient(N, columns, K, device.facts, format, logitSoftCap);
    program.dispatch(gradient, { a, aFrom: 0, b, ...given, dLogits, windowStart: start });
    if (own) {
      const args = { dLogits, table: b, x: normed, start };
      own.memory.recordWindowBackward(program, model, own.layer, gradients, args);
      continue;
    }
    recordMatmul(program, "NN", dLogits, b, dNormed, { accumulate: start > 0, scale: 1 / logitsScaling });
    if (dTable) recordMatmul(program, "TN", dLogits, normed, sliceRows(dTable, start, columns), { accumulate: true });
  }
  if (own) {
    own.memory.recordInputBackward(program, model, own.layer, gradients, {
      x: normed,
      dx: dNormed,
      keys: sliceRows(rows.headDrawKeys, 0, N),
    });
    if (logitsScaling !== 1) program.dispatch(scaleRows, { x: dNormed, factor: 1 / logitsScaling });
  }
  recordHeadRowsBackward(pass, gradients, scratch);
}

/** What pass 1 multiplied with the table, of the first N rows. */
function headInput(pass: HeadPass, N: number): Tensor {
  const { model, buffers } = pass;
  const own = adapted(pass);
  return own ? own.memory.input(model, own.layer, N) : buffers.tensor("normed", [N, model.config.hiddenSize]);
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
