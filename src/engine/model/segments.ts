/**
 * Packed rows as segments for a recurrence (`gated-delta-segments.ts`), in arrays of fixed capacity: a program that was
 * recorded for a shape runs over segments that are not used, too, and these have no rows.
 */
import { deltaSegments, SEGMENT_WORDS } from "../../kernels/gated-delta-segments.ts";

/** A range of segments that are run side by side. */
export interface SegmentRange {
  readonly first: number;
  readonly count: number;
}

/** What segments know of a `RowShape`. */
export interface SegmentShape {
  readonly gradientRows: number;
  readonly branchRows: number;
  readonly sequences: number;
}

/** Ranges of padding: behind the rows of each region. */
const PADDINGS = 2;

/** Where the segments of a shape lie: those of the forward pass's dispatches, then those of the backward pass. */
export function segmentRanges({ sequences, branchRows }: Pick<SegmentShape, "sequences" | "branchRows">): {
  readonly dispatches: readonly SegmentRange[];
  readonly backward: SegmentRange;
  readonly total: number;
  /** States between the dispatches: of prompts that two completions continue. */
  readonly slots: number;
} {
  const shared = branchRows === 0 ? 0 : Math.floor(sequences / 2);
  const first = { first: 0, count: sequences + PADDINGS };
  const second = { first: first.count, count: 2 * shared };
  const backward = { first: second.first + second.count, count: sequences + PADDINGS };
  const dispatches = second.count === 0 ? [first] : [first, second];
  return { dispatches, backward, total: backward.first + backward.count, slots: Math.max(1, shared) };
}

/**
 * u32[total, 4] of `segmentRanges`.
 *
 * @param used rows of region A that hold tokens, and of both regions; @param rowRanges u32[T, 4], keys that rows see
 * @throws Error where rows lie in no segment, as a second branch of a prompt would
 */
export function packSegments(
  shape: SegmentShape,
  { usedGradientRows, usedRows }: { readonly usedGradientRows: number; readonly usedRows: number },
  rowRanges: Uint32Array,
): Uint32Array {
  const { gradientRows, branchRows } = shape;
  const ranges = segmentRanges(shape);
  const ofA = [usedGradientRows, gradientRows] as const;
  const ofB = [gradientRows + usedRows - usedGradientRows, gradientRows + branchRows] as const;
  const whole = deltaSegments(rowRanges, [ofA, ofB]);
  const own = deltaSegments(rowRanges.subarray(0, 4 * gradientRows), [ofA]);
  const all = new Uint32Array(SEGMENT_WORDS * ranges.total);
  const put = (segments: Uint32Array, range: SegmentRange | undefined) => {
    if (segments.length > SEGMENT_WORDS * (range?.count ?? 0)) throw new Error("more segments than the shape has");
    if (range) all.set(segments, SEGMENT_WORDS * range.first);
  };
  put(whole.first, ranges.dispatches[0]);
  put(whole.second, ranges.dispatches[1]);
  put(own.first, ranges.backward);
  /** A segment begins with its first row and the one behind its last. */
  const rowsOf = (segments: Uint32Array) =>
    segments.reduce((sum, word, at) => sum + (at % SEGMENT_WORDS > 1 ? 0 : at % SEGMENT_WORDS === 1 ? word : -word), 0);
  if (rowsOf(whole.first) + rowsOf(whole.second) !== gradientRows + branchRows) {
    throw new Error("rows lie in no segment: a prompt has more than two completions");
  }
  return all;
}
