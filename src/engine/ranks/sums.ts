/**
 * What ranks compute from each other's numbers, over the calls of a `Communicator`. Every sum is taken in the order of
 * the ranks, on the host, whatever the transport does, so that two runs on as many ranks give the same bits; every rank
 * gets the same bits. With one rank nothing is moved and nothing rounded.
 */
import { errorMessage, KtoError, RankError } from "../../errors.ts";
import type { Communicator } from "./communicator.ts";

/** Bytes that one call moves from each rank at most: transports count them in 32 bits, and buffers stay small. */
const MOST_BYTES = 2 ** 26;

type Numbers = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

const bytesOf = ({ buffer, byteOffset, byteLength }: Numbers) => new Uint8Array(buffer, byteOffset, byteLength);

/** The numbers of every rank in their order; as many on every rank. */
export async function gatherNumbers(ranks: Communicator, own: Float64Array<ArrayBuffer>): Promise<Float64Array[]> {
  const all = new Float64Array(ranks.size * own.length);
  await ranks.allGather(bytesOf(own), bytesOf(all));
  return Array.from({ length: ranks.size }, (_, rank) => all.subarray(rank * own.length, (rank + 1) * own.length));
}

/** The sums over all ranks of a few numbers, in float64. */
export async function sumOverRanks(ranks: Communicator, own: Float64Array<ArrayBuffer>): Promise<Float64Array> {
  const sums = new Float64Array(own.length);
  for (const numbers of await gatherNumbers(ranks, own)) addTo(sums, numbers);
  return sums;
}

function addTo(sums: Float64Array, numbers: ArrayLike<number>): void {
  for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] ?? 0) + (numbers[i] ?? 0);
}

/**
 * Replaces many numbers by their sums over all ranks: each rank adds up one slice of them, in the order of ranks and in
 * float64, and gives the sums to all. A rank sends 2 (N - 1) / N of its bytes, the least that any algorithm needs.
 */
export async function sumInPlace(ranks: Communicator, numbers: Float32Array<ArrayBuffer>): Promise<void> {
  const { size } = ranks;
  if (size === 1) return;
  const most = Math.floor(MOST_BYTES / 4 / size) * size;
  for (let from = 0; from < numbers.length; from += most) {
    await sumPiece(ranks, numbers.subarray(from, from + most));
  }
}

async function sumPiece(ranks: Communicator, numbers: Float32Array<ArrayBuffer>): Promise<void> {
  const slice = Math.ceil(numbers.length / ranks.size);
  const cuts = Array.from({ length: ranks.size + 1 }, (_, rank) => Math.min(rank * slice, numbers.length));
  const scratch = new Scratch();
  const sums = scratch.f32("sums", sliceSize(cuts, ranks.rank));
  await gatherSlices(ranks, await sumSlice(ranks, numbers, cuts, sums, scratch), cuts, numbers, scratch);
}

/**
 * Memory on the host that one exchange after another uses: the first touch of fresh pages takes ten times as long as
 * what is computed in them. What it gives holds anything, and is another's at the next call of the same name.
 */
export class Scratch {
  readonly #buffers = new Map<string, ArrayBuffer>();

  #buffer(name: string, bytes: number): ArrayBuffer {
    let buffer = this.#buffers.get(name);
    if (buffer === undefined || buffer.byteLength < bytes) {
      buffer = new ArrayBuffer(bytes);
      this.#buffers.set(name, buffer);
    }
    return buffer;
  }

  f32(name: string, length: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#buffer(name, 4 * length), 0, length);
  }

  f64(name: string, length: number): Float64Array<ArrayBuffer> {
    return new Float64Array(this.#buffer(name, 8 * length), 0, length);
  }
}

/** Elements of a rank's slice of what these cuts divide. */
export function sliceSize(cuts: readonly number[], rank: number): number {
  return (cuts[rank + 1] ?? 0) - (cuts[rank] ?? 0);
}

const longest = (cuts: readonly number[]) =>
  cuts.slice(1).reduce((most, end, rank) => Math.max(most, end - (cuts[rank] ?? 0)), 0);

/**
 * This rank's slice of the sums over all ranks, in the order of ranks and in float64: the half of `sumInPlace` in which
 * sums are made (reduce-scatter).
 *
 * @param numbers as many on every rank
 * @param cuts rank r has the slice [cuts[r], cuts[r + 1]); size + 1 of them, the same on every rank
 * @param into takes the sums, as many as this rank's slice has; f32 rounds each of them once
 * @returns `into`
 */
export async function sumSlice<T extends Numbers>(
  ranks: Communicator,
  numbers: Float32Array<ArrayBuffer>,
  cuts: readonly number[],
  into: T,
  scratch: Scratch,
): Promise<T> {
  const { size } = ranks;
  const length = longest(cuts);
  const given = scratch.f32("given", size * length);
  for (let rank = 0; rank < size; rank++) given.set(numbers.subarray(cuts[rank], cuts[rank + 1]), rank * length);
  const received = scratch.f32("received", size * length);
  await ranks.allToAll(bytesOf(given), bytesOf(received));
  return addUp(received, length, size, into);
}

/** Adds up slices that lie `length` apart, in their order and in float64; `into` takes as many numbers as it holds. */
function addUp<T extends Numbers>(slices: Float32Array, length: number, count: number, into: T): T {
  for (let i = 0; i < into.length; i++) {
    let sum = 0;
    for (let at = i, slice = 0; slice < count; slice++, at += length) sum += slices[at] ?? Number.NaN;
    into[i] = sum;
  }
  return into;
}

/** Fills `all` on every rank with the slices of all: the other half. @param cuts see `sumSlice` */
export async function gatherSlices(
  ranks: Communicator,
  own: Float32Array<ArrayBuffer>,
  cuts: readonly number[],
  all: Float32Array<ArrayBuffer>,
  scratch: Scratch,
): Promise<void> {
  const { size } = ranks;
  const length = longest(cuts);
  const given = scratch.f32("given", length);
  given.set(own);
  const received = scratch.f32("received", size * length);
  await ranks.allGather(bytesOf(given), bytesOf(received));
  for (let rank = 0; rank < size; rank++) {
    const [first = 0, end = 0] = [cuts[rank], cuts[rank + 1]];
    all.set(received.subarray(rank * length, rank * length + end - first), first);
  }
}

/** The bytes of every rank in their order, of any lengths. */
export async function gatherBytes(ranks: Communicator, own: Uint8Array): Promise<Uint8Array[]> {
  const lengths = (await gatherNumbers(ranks, Float64Array.of(own.byteLength))).map(([length = 0]) => length);
  const longest = Math.max(...lengths);
  const padded = new Uint8Array(longest);
  padded.set(own);
  const all = new Uint8Array(ranks.size * longest);
  if (longest > 0) await ranks.allGather(padded, all);
  return lengths.map((length, rank) => all.subarray(rank * longest, rank * longest + length));
}

/** The values of every rank in their order; through JSON, in which a number that is not finite becomes null. */
export async function gatherJson<T>(ranks: Communicator, own: T): Promise<T[]> {
  if (ranks.size === 1) return [own];
  const all = await gatherBytes(ranks, new TextEncoder().encode(JSON.stringify(own)));
  return all.map((bytes) => JSON.parse(new TextDecoder().decode(bytes)) as T);
}

/** Gives every rank the bytes of rank 0, of any length. @param bytes read on rank 0 only */
export async function bytesFromFirst(ranks: Communicator, bytes: Uint8Array | undefined): Promise<Uint8Array> {
  const length = Float64Array.of(bytes?.byteLength ?? 0);
  await ranks.broadcast(bytesOf(length), 0);
  const shared = ranks.rank === 0 && bytes ? bytes : new Uint8Array(length[0] ?? 0);
  for (let from = 0; from < shared.byteLength; from += MOST_BYTES) {
    await ranks.broadcast(shared.subarray(from, from + MOST_BYTES), 0);
  }
  return shared;
}

/**
 * Work that rank 0 does for all, such as reading a file that the others may not have: every rank gets its result, or
 * throws an error with the sentence and the exit code of what it threw.
 *
 * @param work its result goes through JSON, in which a number that is not finite becomes null
 */
export async function byFirst<T>(ranks: Communicator, work: () => Promise<T>): Promise<T> {
  if (ranks.size === 1) return await work();
  const told = (outcome: unknown) => bytesFromFirst(ranks, new TextEncoder().encode(JSON.stringify(outcome)));
  if (ranks.rank === 0) {
    let result: T;
    try {
      result = await work();
    } catch (error) {
      const exitCode = error instanceof KtoError ? error.exitCode : 1;
      await told({ error: errorMessage(error), exitCode });
      throw error;
    }
    await told({ result });
    return result;
  }
  const text = new TextDecoder().decode(await bytesFromFirst(ranks, undefined));
  const outcome = JSON.parse(text) as { result: T } | { error: string; exitCode: number };
  if ("error" in outcome) throw new RankError(`Rank 0: ${outcome.error}`, { exitCode: outcome.exitCode });
  return outcome.result;
}
