/** The first thing in which a rank differs from rank 0, of what all ranks say of themselves. */

export interface Difference {
  /** The lowest rank that differs from rank 0. */
  readonly rank: number;
  /** What differs. */
  readonly name: string;
  readonly theirs: unknown;
  readonly first: unknown;
}

/** Where a rank first says something else than rank 0, compared as JSON; undefined where all say the same. */
export function firstDifference(gathered: readonly Readonly<Record<string, unknown>>[]): Difference | undefined {
  const [first = {}] = gathered;
  for (const [rank, own] of gathered.entries()) {
    for (const name of new Set([...Object.keys(first), ...Object.keys(own)])) {
      if (JSON.stringify(own[name]) !== JSON.stringify(first[name]))
        return { rank, name, theirs: own[name], first: first[name] };
    }
  }
  return undefined;
}
