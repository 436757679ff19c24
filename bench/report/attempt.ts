/** Runs a piece of a report whose failure is a finding and not the report's end. */
import { errorMessage, NumericError } from "../../src/errors.ts";
import type { Finding } from "./finding.ts";

export async function attempt(
  name: string,
  emit: (finding: Finding) => void,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    emit({ kind: "failed", name, message: errorMessage(error), wrongNumbers: error instanceof NumericError });
  }
}
