/** The names of options: their spellings, and the option that a mistyped name was probably meant to be. */
import type { OptionInfo } from "./option.ts";

/** `--Learning-Rate` and `learning_rate` are one name. */
export function normalName(name: string): string {
  return name.trim().toLowerCase().replaceAll("-", "_");
}

/** The option that a name or alias stands for. */
export function findOption(infos: readonly OptionInfo[], name: string): OptionInfo | undefined {
  const wanted = normalName(name);
  return infos.find((info) => info.name === wanted || info.about.aliases?.includes(wanted));
}

/** Letters that a word must have to be taken for the beginning of another. */
const LEAST_BEGINNING = 3;

/**
 * The candidate that was probably meant: the one at the smallest edit distance, if it is near enough to be a slip of
 * the hand, else the shortest that begins with what is wanted, else the longest that what is wanted begins with.
 */
export function nearest(wanted: string, candidates: readonly string[]): string | undefined {
  const beginning = (a: string, b: string) => a.length >= LEAST_BEGINNING && b.startsWith(a);
  const byLength = candidates.toSorted((a, b) => a.length - b.length);
  return (
    nearestByEdits(wanted, candidates) ??
    byLength.find((candidate) => beginning(wanted, candidate)) ??
    byLength.findLast((candidate) => beginning(candidate, wanted))
  );
}

function nearestByEdits(wanted: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment) from a to b. */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (last[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let cost = Math.min(substitution, (last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? 0;
}
