/**
 * Cuts the rows of a batch into segments, within which the recurrence of `gated-delta.ts` goes from row to row. The
 * host does this, from the ranges of keys that rows see. A prompt that two completions continue is a segment of its
 * own: it keeps its last state, and both completions start from that. So a batch with such prompts takes two
 * dispatches, one after the other.
 */

/** Flags of a segment. */
export const SEGMENT = {
  /** Its last state goes to its slot. */
  KEEPS: 1,
  /**
   * It starts from its slot's state; in the forward pass only if its first row is not at position 0, so that a slot of
   * generation needs no clearing.
   */
  CONTINUES: 2,
  /**
   * Which branch of a slot the segment is, times this, if it continues a slot and carries gradients. Backward, a segment
   * that keeps takes the gradients of all `branches`, so there must be as many, of no rows if need be.
   */
  BRANCH: 4,
} as const;

/** Words of a segment. */
export const SEGMENT_WORDS = 4;

/** WGSL: conditions on a segment's flags. */
export const flagged = (flag: keyof typeof SEGMENT) => `(segment.w & ${SEGMENT[flag]}u) != 0u`;
export const BRANCH_OF = `segment.w / ${SEGMENT.BRANCH}u`;

/** Rows [start, end). */
export type RowRange = readonly [start: number, end: number];

/** Segments, `SEGMENT_WORDS` words each. */
export interface DeltaSegments {
  /** Segments of the first dispatch: whole sequences, prompts that are shared, and padding. */
  readonly first: Uint32Array<ArrayBuffer>;
  /** Segments of the second dispatch: two completions of each shared prompt, of which the first may have no rows. */
  readonly second: Uint32Array<ArrayBuffer>;
  /** Prompts that are shared: slots of states. */
  readonly slots: number;
}

/** The row that each row follows by its ranges, u32[T, 4]: its own branch's last one, or its prefix's; -1 for none. */
export function previousRows(ranges: ArrayLike<number>): Int32Array {
  return Int32Array.from({ length: ranges.length / 4 }, (_, row) => {
    const [prefixStart = 0, prefixEnd = 0, branchStart = 0] = [0, 1, 2].map((i) => ranges[4 * row + i]);
    if (branchStart < row) return row - 1;
    return prefixEnd > prefixStart ? prefixEnd - 1 : -1;
  });
}

/**
 * @param ranges u32[T, 4], keys that rows see, not cut to a window
 * @param padding rows without tokens, each range of which is one segment: what they compute is of no matter
 */
export function deltaSegments(ranges: ArrayLike<number>, padding: readonly RowRange[] = []): DeltaSegments {
  const previous = previousRows(ranges);
  const rows = previous.length;
  const ofPadding = new Map(padding.filter(([start, end]) => end > start));
  /** Last rows of prompts that a row elsewhere follows, with that row. */
  const shared = new Map<number, number>();
  for (const [row, before] of previous.entries()) if (before >= 0 && before !== row - 1) shared.set(before, row);
  const endOf = (start: number) => {
    let end = start + 1;
    while (end < rows && previous[end] === end - 1 && !shared.has(end - 1)) end++;
    return end;
  };
  const [first, second]: [number[], number[]] = [[], []];
  let slots = 0;
  for (let row = 0; row < rows; row++) {
    const paddingEnd = ofPadding.get(row);
    if (paddingEnd !== undefined) {
      first.push(row, paddingEnd, 0, 0);
      row = paddingEnd - 1;
      continue;
    }
    if (previous[row] !== -1) continue;
    const end = endOf(row);
    const branch = shared.get(end - 1);
    first.push(row, end, slots, branch === undefined ? 0 : SEGMENT.KEEPS);
    if (branch === undefined) continue;
    const isContinued = end < rows && previous[end] === end - 1;
    second.push(end, isContinued ? endOf(end) : end, slots, SEGMENT.CONTINUES);
    second.push(branch, endOf(branch), slots, SEGMENT.CONTINUES + SEGMENT.BRANCH);
    slots++;
  }
  return { first: Uint32Array.from(first), second: Uint32Array.from(second), slots };
}
