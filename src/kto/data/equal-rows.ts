/** Which examples have equal prompts or equal completions, as numbers that are cheap to compare. Not the ring's order. */

/** What sampling needs to know of an example. */
export interface SampledRow {
  readonly promptIds: ArrayLike<number>;
  readonly completionIds: ArrayLike<number>;
  /** Thumbs up. */
  readonly label: boolean;
}

/** For each row a number that is equal exactly where prompts (completions) are equal. */
export interface RowKeys {
  readonly prompt: Int32Array;
  readonly completion: Int32Array;
}

const knownKeys = new WeakMap<readonly SampledRow[], RowKeys>();

/** The keys of a list of examples; computed once per list. */
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

/** Numbers equal lists alike: the position of the first of them. */
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

/** FNV-1a over whole ids instead of bytes. */
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
