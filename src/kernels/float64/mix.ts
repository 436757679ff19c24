/** A mixture of two sets of numbers in float64: `share from + (1 - share) to` (TR-DPO's soft update). */
import { at } from "./elements.ts";

/**
 * @param from [N] @param to [N], left as it is
 * @returns [N]
 */
export function mix(from: Float64Array, to: Float64Array, share: number): Float64Array {
  return to.map((value, i) => share * at(from, i) + (1 - share) * value);
}
