/** Independent parts of some work, dealt to ranks like cards: rank r of N does parts r, r + N, r + 2 N and so on. */
import type { Communicator } from "./communicator.ts";
import { gatherJson } from "./sums.ts";

/**
 * Does each part on one rank; every rank gets the results of all parts, in their order.
 *
 * @param count parts; the same on every rank, also 0 or fewer than there are ranks
 * @param work does this rank's parts, given by their numbers in ascending order, which may be none; one result each, which
 * goes through JSON, where a number that is not finite becomes null
 */
export async function shareParts<T>(
  ranks: Communicator,
  count: number,
  work: (parts: readonly number[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const { rank, size } = ranks;
  const own: number[] = [];
  for (let part = rank; part < count; part += size) own.push(part);
  const all = await gatherJson(ranks, await work(own));
  return Array.from({ length: count }, (_, part) => all[part % size]?.[Math.floor(part / size)] as T);
}
