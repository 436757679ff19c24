/**
 * Whether all ranks run the same thing: what each says of itself is gathered and compared, and the first difference is
 * one sentence, the same on all ranks.
 */
import type { Communicator } from "./communicator.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Gives every rank what all ranks say, as JSON.
 *
 * @returns the values in the order of ranks
 */
export async function gatherJson<T>(communicator: Communicator, own: T): Promise<T[]> {
  const { size } = communicator;
  const text = encoder.encode(JSON.stringify(own));
  const lengths = new Uint32Array(size);
  await communicator.allGather(bytesOf(Uint32Array.of(text.length)), bytesOf(lengths));
  const longest = Math.max(...lengths);
  const padded = new Uint8Array(longest);
  padded.set(text);
  const all = new Uint8Array(size * longest);
  await communicator.allGather(padded, all);
  return [...lengths].map(
    (length, rank) => JSON.parse(decoder.decode(all.subarray(rank * longest, rank * longest + length))) as T,
  );
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

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
