/**
 * The rows of one pass through a decoder, packed without padding between sequences (docs/design/method.md, "Packed
 * batches"). Region A carries gradients, region B continues prompts of A and carries none; only head rows go through
 * the head. Arrays have the capacity of a RowShape, so that a program recorded for that shape serves every batch that
 * fits it.
 */
import { bucketRows, NO_ROW } from "../../kernels/embedding.ts";
import { SEGMENT_WORDS } from "../../kernels/gated-delta-segments.ts";
import { NO_SEQUENCE } from "../../kernels/log-softmax-gather.ts";
import { LONG_SEQUENCE } from "../../kernels/rope-table.ts";
import type { Device } from "../gpu/device.ts";
import { alignWindow, type Tensor } from "../gpu/tensor.ts";
import { packSegments, segmentRanges } from "./segments.ts";

/** Capacities that a program is recorded for. */
export interface RowShape {
  /** Token rows of region A. A multiple of 64. */
  readonly gradientRows: number;
  /** Token rows of region B. */
  readonly branchRows: number;
  /** Head rows of sequences of region A. A multiple of 64. */
  readonly gradientHeadRows: number;
  /** Head rows of region B. */
  readonly branchHeadRows: number;
  /** Sequences whose log-probabilities are summed: A's first, then B's. */
  readonly sequences: number;
  /** Rows of the longest sequence, or prompt and branch, at most: keys that a row sees. A power of two. */
  readonly longest: number;
}

/** One sequence to pack. */
export interface RowSequence {
  readonly promptIds: ArrayLike<number>;
  readonly completionIds: ArrayLike<number>;
}

/** A completion that continues the prompt of sequence `prompt` in region B. */
export interface RowBranch {
  readonly prompt: number;
  readonly completionIds: ArrayLike<number>;
}

const ROW_STEP = 64;

/** Tokens of a sequence, or of a branch with its prompt. */
function lengthOf(promptIds: ArrayLike<number>, completionIds: ArrayLike<number>): number {
  return promptIds.length + completionIds.length;
}

/**
 * The prompt of a branch, and whether the branch needs rows of its own for it: LongRoPE turns a prompt by the length of
 * the whole sequence, so that it is not the same prompt for two completions of which one makes it long.
 */
function promptOf(
  sequences: readonly RowSequence[],
  { prompt, completionIds }: RowBranch,
  longBeyond = Number.POSITIVE_INFINITY,
): { readonly promptIds: ArrayLike<number>; readonly isLong: boolean; readonly apart: boolean } {
  const sequence = sequences[prompt] ?? { promptIds: [], completionIds: [] };
  const isLong = lengthOf(sequence.promptIds, completionIds) > longBeyond;
  const apart = isLong !== lengthOf(sequence.promptIds, sequence.completionIds) > longBeyond;
  return { promptIds: sequence.promptIds, isLong, apart };
}

/** Rows before rounding. The last token of a completion predicts nothing, so it has no row. */
function countRows(
  sequences: readonly RowSequence[],
  branches: readonly RowBranch[],
  longBeyond?: number,
): Omit<RowShape, "sequences"> {
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const own = (s: RowSequence) => s.promptIds.length + Math.max(0, s.completionIds.length - 1);
  const branch = (b: RowBranch) =>
    (sequences[b.prompt]?.promptIds.length ?? 0) + Math.max(0, b.completionIds.length - 1);
  const ownPrompt = (b: RowBranch) => {
    const { promptIds, apart } = promptOf(sequences, b, longBeyond);
    return apart ? promptIds.length : 0;
  };
  return {
    longest: Math.max(0, ...sequences.map(own), ...branches.map(branch)),
    gradientRows: sum(sequences.map(own)),
    branchRows: sum(branches.map((b) => ownPrompt(b) + Math.max(0, b.completionIds.length - 1))),
    gradientHeadRows: sum(sequences.map((s) => s.completionIds.length)),
    branchHeadRows: sum(branches.map((b) => b.completionIds.length)),
  };
}

/** Rounds up in steps of a sixteenth of the power of two below, so padding stays small and shapes stay few. */
function roundRows(rows: number): number {
  if (rows === 0) return 0;
  const step = Math.max(ROW_STEP, 2 ** Math.floor(Math.log2(rows)) / 16);
  return Math.ceil(rows / step) * step;
}

/** The shape class that holds these sequences. @param longBeyond as `packRows` takes it */
export function rowShape(
  sequences: readonly RowSequence[],
  branches: readonly RowBranch[] = [],
  longBeyond?: number,
): RowShape {
  const rows = countRows(sequences, branches, longBeyond);
  return {
    gradientRows: roundRows(rows.gradientRows),
    branchRows: roundRows(rows.branchRows),
    gradientHeadRows: roundRows(rows.gradientHeadRows),
    branchHeadRows: roundRows(rows.branchHeadRows),
    sequences: sequences.length + branches.length,
    longest: Math.max(ROW_STEP, 2 ** Math.ceil(Math.log2(Math.max(1, rows.longest)))),
  };
}

/**
 * Keys that a row of the shape sees, on the average and at most: half of its sequence in region A, all of it in region
 * B.
 *
 * @param window the sliding window, if there is one
 */
export function keysPerRow({ gradientRows, branchRows, longest }: RowShape, window = Number.POSITIVE_INFINITY): number {
  const most = Math.min(longest, window);
  return (
    (Math.min((longest + 1) / 2, most) * gradientRows + most * branchRows) / Math.max(1, gradientRows + branchRows)
  );
}

/** The host's arrays of a packed batch. */
export interface PackedRows {
  readonly shape: RowShape;
  /** Rows that hold tokens (the rest is padding): of region A, of both regions. */
  readonly usedGradientRows: number;
  readonly usedRows: number;
  /** Tokens beyond which LongRoPE's long factors hold; undefined for models without them. */
  readonly longBeyond: number | undefined;
  readonly arrays: Readonly<Record<RowArray, Uint32Array>>;
}

/** The arrays of a batch and their shapes; every entry is u32. */
function arrayShapes(shape: RowShape) {
  const rows = shape.gradientRows + shape.branchRows;
  const headRows = shape.gradientHeadRows + shape.branchHeadRows;
  return {
    tokens: [rows],
    /** With the bit LONG_SEQUENCE in sequences for which LongRoPE's long factors hold. */
    positions: [rows],
    /** Keys that each row sees: prefixStart, prefixEnd, branchStart, branchEnd. */
    ranges: [rows, 4],
    /** What a row's random numbers follow from (dropout, noise): a hash of its token and those before it. */
    drawKeys: [rows],
    /** Query rows of region A that see each key row: from itself to here. */
    queryEnd: [shape.gradientRows],
    headRows: [headRows],
    /** The draw keys of the head rows. */
    headDrawKeys: [headRows],
    targets: [headRows],
    headSequences: [shape.gradientHeadRows],
    sequenceRanges: [shape.sequences, 2],
    tokenOrder: [shape.gradientRows],
    tokenBuckets: [shape.gradientRows],
    tokenStarts: [shape.gradientRows + 1],
    positionOrder: [shape.gradientRows],
    positionBuckets: [shape.gradientRows],
    positionStarts: [shape.gradientRows + 1],
  } as const;
}

export type RowArray = keyof ReturnType<typeof arrayShapes>;

/**
 * Packs sequences (region A) and branches (region B) into the arrays of `shape`. Head rows of a sequence are its last
 * prompt row and its completion rows but the last; a branch shares its prompt's last row.
 *
 * @param longBeyond tokens beyond which a sequence is long to the model's LongRoPE, if it has one
 */
export function packRows(
  sequences: readonly RowSequence[],
  branches: readonly RowBranch[] = [],
  shape: RowShape = rowShape(sequences, branches),
  longBeyond?: number,
): PackedRows {
  const counts = countRows(sequences, branches, longBeyond);
  for (const key of ["gradientRows", "branchRows", "gradientHeadRows", "branchHeadRows", "longest"] as const) {
    if (counts[key] > shape[key]) throw new Error(`${counts[key]} ${key} do not fit a shape of ${shape[key]}`);
  }
  const sizes = arrayShapes(shape);
  const arrays = Object.fromEntries(
    Object.entries(sizes).map(([name, size]) => [name, new Uint32Array(size.reduce((a, b) => a * b, 1))]),
  ) as Record<RowArray, Uint32Array>;
  const { tokens, positions, ranges, queryEnd, headRows, targets, headSequences, sequenceRanges, drawKeys } = arrays;
  headRows.fill(NO_ROW);
  headSequences.fill(NO_SEQUENCE);

  type Seen = readonly [number, number, number, number];
  /** @param before the draw key of the token before it */
  const setRow = (row: number, token: number, position: number, seen: Seen, isLong = false, before = 0) => {
    tokens[row] = token;
    drawKeys[row] = keyAfter(before, token);
    positions[row] = isLong ? position | LONG_SEQUENCE : position;
    ranges.set(seen, 4 * row);
  };
  const totalRows = shape.gradientRows + shape.branchRows;
  for (let row = 0; row < totalRows; row++) setRow(row, 0, 0, [0, 0, row, row + 1]); // padding sees only itself
  for (let row = 0; row < shape.gradientRows; row++) queryEnd[row] = row + 1;

  const starts: number[] = [];
  let row = 0;
  let head = 0;
  for (const [index, { promptIds, completionIds }] of sequences.entries()) {
    const start = row;
    starts.push(start);
    const length = promptIds.length + Math.max(0, completionIds.length - 1);
    const isLong = lengthOf(promptIds, completionIds) > (longBeyond ?? Number.POSITIVE_INFINITY);
    for (let at = 0; at < length; at++, row++) {
      const token = at < promptIds.length ? promptIds[at] : completionIds[at - promptIds.length];
      setRow(row, token ?? 0, at, [0, 0, start, row + 1], isLong, at > 0 ? drawKeys[row - 1] : 0);
      queryEnd[row] = start + length;
    }
    sequenceRanges.set([head, head + completionIds.length], 2 * index);
    for (let at = 0; at < completionIds.length; at++, head++) {
      headRows[head] = start + promptIds.length - 1 + at;
      targets[head] = completionIds[at] ?? 0;
      headSequences[head] = index;
    }
  }
  const usedGradientRows = row;

  row = shape.gradientRows;
  head = shape.gradientHeadRows;
  for (const [index, branch] of branches.entries()) {
    const { completionIds } = branch;
    const { promptIds, isLong, apart } = promptOf(sequences, branch, longBeyond);
    const promptLength = promptIds.length;
    const promptStart = apart ? row : (starts[branch.prompt] ?? 0);
    if (apart) {
      for (let at = 0; at < promptLength; at++, row++) {
        setRow(row, promptIds[at] ?? 0, at, [0, 0, promptStart, row + 1], isLong, at > 0 ? drawKeys[row - 1] : 0);
      }
    }
    const start = row;
    sequenceRanges.set([head, head + completionIds.length], 2 * (sequences.length + index));
    for (let at = 0; at < completionIds.length; at++, head++) {
      headRows[head] = at === 0 ? promptStart + promptLength - 1 : start + at - 1;
      targets[head] = completionIds[at] ?? 0;
    }
    for (let at = 0; at < completionIds.length - 1; at++, row++) {
      const seen = [promptStart, promptStart + promptLength, start, row + 1] as const;
      const before = at > 0 ? row - 1 : promptStart + promptLength - 1;
      setRow(
        row,
        completionIds[at] ?? 0,
        promptLength + at,
        seen,
        isLong,
        promptLength + at > 0 ? drawKeys[before] : 0,
      );
    }
  }
  for (const [at, row] of headRows.entries()) arrays.headDrawKeys[at] = drawKeys[row] ?? 0;

  const byToken = bucketRows(tokens.subarray(0, shape.gradientRows), usedGradientRows);
  arrays.tokenOrder.set(byToken.order);
  arrays.tokenBuckets.set(byToken.bucketIds);
  arrays.tokenStarts.set(byToken.bucketStarts);
  const byPosition = bucketRows(positions.subarray(0, shape.gradientRows), usedGradientRows);
  arrays.positionOrder.set(byPosition.order);
  arrays.positionBuckets.set(byPosition.bucketIds);
  arrays.positionStarts.set(byPosition.bucketStarts);
  const usedRows = usedGradientRows + row - shape.gradientRows;
  return { shape, usedGradientRows, usedRows, longBeyond, arrays };
}

/** The draw key of a token behind another's, or behind 0 at the start: a step of murmur3's mixing of 32 bits. */
function keyAfter(before: number, token: number): number {
  let key = Math.imul(before ^ token, 0xcc9e2d51);
  key = Math.imul((key << 15) | (key >>> 17), 0x1b873593) ^ before;
  key = Math.imul((key << 13) | (key >>> 19), 5) + 0xe6546b64;
  key ^= key >>> 16;
  return Math.imul(key, 0x85ebca6b) >>> 0;
}

/** The arrays for layers with a sliding window, and their shapes. */
function windowShapes(shape: RowShape) {
  const { ranges, queryEnd } = arrayShapes(shape);
  return { windowRanges: ranges, windowQueryEnd: queryEnd } as const;
}

export type WindowArray = keyof ReturnType<typeof windowShapes>;

/** What rows need beside the arrays of `packRows`, by the model. */
export interface RowNeeds {
  /** Ranges cut to this window. */
  readonly slidingWindow: number | undefined;
  /** Tokens of a sequence beyond which LongRoPE takes its long factors, as `packRows` takes it; default: never. */
  readonly longBeyond?: number | undefined;
  /** Segments for layers that are a recurrence. */
  readonly segments?: boolean;
}

/** The arrays that a model needs beside those of `packRows`. */
type FurtherArray = WindowArray | "segments";

/**
 * Cuts the keys that rows see to those of the last `window` positions. The keys of a row are its prefix and then its
 * branch, one position after another up to its own, so the window takes them from the end.
 *
 * @param ranges u32[rows, 4] @param queryEnd u32[A], of `packRows`
 */
export function cutToWindow(
  { ranges, queryEnd }: { readonly ranges: Uint32Array; readonly queryEnd: Uint32Array },
  window: number,
): Record<WindowArray, Uint32Array> {
  const windowRanges = ranges.slice();
  for (let at = 0; at < ranges.length; at += 4) {
    const [prefixStart = 0, prefixEnd = 0, branchStart = 0, branchEnd = 0] = ranges.subarray(at, at + 4);
    const ofBranch = Math.min(window, branchEnd - branchStart);
    const ofPrefix = Math.min(window - ofBranch, prefixEnd - prefixStart);
    windowRanges[at] = prefixEnd - ofPrefix;
    windowRanges[at + 2] = branchEnd - ofBranch;
  }
  // The key of row j is seen by the queries of its sequence at less than `window` positions behind it.
  const windowQueryEnd = queryEnd.map((end, row) => Math.min(end, row + window));
  return { windowRanges, windowQueryEnd };
}

/** Windows of a batch buffer for one shape, in bytes. */
function windows(
  shape: RowShape,
  { slidingWindow, segments }: RowNeeds,
): {
  entries: { name: RowArray | FurtherArray; shape: readonly number[]; offset: number }[];
  bytes: number;
} {
  let bytes = 0;
  const sizes = {
    ...arrayShapes(shape),
    ...(slidingWindow === undefined ? {} : windowShapes(shape)),
    ...(segments ? { segments: [segmentRanges(shape).total, SEGMENT_WORDS] } : {}),
  };
  const entries = Object.entries(sizes).map(([name, size]) => {
    const entry = { name: name as RowArray | FurtherArray, shape: size, offset: bytes };
    bytes += alignWindow(4 * size.reduce((a, b) => a * b, 1));
    return entry;
  });
  return { entries, bytes };
}

/** The device's copy of the arrays, in one buffer: one upload a batch. */
export class RowBuffer {
  readonly device: Device;
  readonly #needs: RowNeeds;
  readonly #buffer: Tensor;

  /**
   * @param shapes every shape that will be uploaded
   * @param needs of the model
   */
  constructor(device: Device, shapes: readonly RowShape[], needs: RowNeeds) {
    this.device = device;
    this.#needs = needs;
    const bytes = Math.max(...shapes.map((shape) => windows(shape, needs).bytes));
    this.#buffer = device.allocate("batch", "token rows", [bytes / 4], "u32");
  }

  tensors(shape: RowShape): Readonly<Record<RowArray, Tensor> & Partial<Record<FurtherArray, Tensor>>> {
    const { entries, bytes } = windows(shape, this.#needs);
    if (bytes > 4 * (this.#buffer.shape[0] ?? 0)) throw new Error("the shape does not fit this row buffer");
    return Object.fromEntries(
      entries.map(({ name, shape: size, offset }) => [name, { ...this.#buffer, offset, shape: size }]),
    ) as Record<RowArray, Tensor>;
  }

  upload(packed: PackedRows): void {
    const { slidingWindow: window, longBeyond, segments } = this.#needs;
    if (packed.longBeyond !== longBeyond) {
      throw new Error(`rows for LongRoPE beyond ${packed.longBeyond} were given to a model of ${longBeyond}`);
    }
    const { entries, bytes } = windows(packed.shape, this.#needs);
    const arrays: Readonly<Record<string, Uint32Array>> = {
      ...packed.arrays,
      ...(window === undefined ? {} : cutToWindow(packed.arrays, window)),
      ...(segments ? { segments: packSegments(packed.shape, packed, packed.arrays.ranges) } : {}),
    };
    const all = new Uint32Array(bytes / 4);
    for (const { name, offset } of entries) all.set(arrays[name] ?? [], offset / 4);
    this.device.upload(this.#buffer, all);
  }

  free(): void {
    this.device.free(this.#buffer);
  }
}
