/** Numbers of updates that may also be given as a share of the run, as in transformers. */
import * as z from "zod";

/** What such an option must be, in words to follow "it must be". */
export const STEPS_OR_SHARE = "a whole number of at least 1, or a share of the run between 0 and 1";

export const stepsOrShare = z.union([z.number().int().min(1), z.number().gt(0).lt(1)]);

/** The updates between two events: a share is rounded up. */
export function stepsBetween(given: number, totalSteps: number): number {
  return given < 1 ? Math.ceil(given * totalSteps) : given;
}
