/**
 * Finds examples with equal prompts or equal completions, and gives them equal numbers that are cheap to compare. Which
 * rows come into one batch is decided elsewhere.
 */

/** What sampling needs to know of an example. */
export interface SampledRow {
  readonly promptIds: ArrayLike<number>;
  readonly completionIds: ArrayLike<number>;
  /** Thumbs up. */
  readonly label: boolean;
}

/** One number for each row; two rows have the same number exactly if their prompts (completions) are equal. */
export interface RowKeys {
  readonly prompt: Int32Array;
  readonly completion: Int32Array;
}

const knownKeys = new WeakMap<readonly SampledRow[], RowKeys>();

/** Returns the keys of a list of examples, and computes them only once for each list object. */
export function keysOf(examples: readonly SampledRow[]): RowKeys {
  let keys = knownKeys.get(examples);
  if (!keys) {
    keys = {
      prompt: intern(examples.map(({ promptIds }) => promptIds)),
      completion: intern(examples.map(({ completionIds }) => completionIds)),
    };
    knownKeys.set(examples, keys);
  }
  return keys;
}

/** Gives each list the position of the first list that is equal to it. */
function intern(lists: readonly ArrayLike<number>[]): Int32Array {
  const byHash = new Map<number, number[]>();
  return Int32Array.from(lists, (list, index) => {
    const code = hash(list);
    const sameHash = byHash.get(code) ?? [];
    if (sameHash.length === 0) byHash.set(code, sameHash);
    const known = sameHash.find((earlier) => equalIds(lists[earlier] as ArrayLike<number>, list));
    if (known !== undefined) return known;
    sameHash.push(index);
    return index;
  });
}

/** FNV-1a, applied to ids rather than bytes. */
function hash(list: ArrayLike<number>): number {
  let code = 0x811c9dc5;
  for (let i = 0; i < list.length; i++) code = Math.imul(code ^ (list[i] as number), 0x01000193);
  return code;
}

export function equalIds(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
