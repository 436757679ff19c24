/** Which words of two texts differ: those outside their longest common sequence of words. */

export interface Word {
  readonly text: string;
  /** Whether the other text lacks it at this place. */
  readonly isOwn: boolean;
}

/** Words that are compared at most; what follows is taken as different. */
const MOST_WORDS = 500;

/** The words of both texts, each with the space behind it. */
export function wordDifferences(first: string, last: string): { readonly first: Word[]; readonly last: Word[] } {
  const [a, b] = [wordsOf(first), wordsOf(last)];
  const [rows, columns] = [Math.min(a.length, MOST_WORDS), Math.min(b.length, MOST_WORDS)];
  const same = (i: number, j: number) => a[i]?.trim() === b[j]?.trim();
  /** lengths[i][j]: of the common sequence of what begins at i and at j. */
  const lengths = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
  const at = (i: number, j: number) => lengths[i]?.[j] ?? 0;
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      const row = lengths[i];
      if (row) row[j] = same(i, j) ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const [common, other] = [new Set<number>(), new Set<number>()];
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (same(i, j)) {
      common.add(i++);
      other.add(j++);
    } else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  const marked = (words: readonly string[], shared: ReadonlySet<number>) =>
    words.map((text, place) => ({ text, isOwn: !shared.has(place) }));
  return { first: marked(a, common), last: marked(b, other) };
}

/** Each with the space behind it; space at the beginning is a word of its own. */
function wordsOf(text: string): readonly string[] {
  return text.match(/\S+\s*|^\s+/g) ?? [];
}
