/** Files of one JSON object a line, each of a step of a run: what of an earlier run's file a run that is resumed keeps. */
import { platform } from "../../engine/platform/index.ts";

/** The lines of a file up to a step, each with its end; none at step 0, and none where the file is not there. */
export async function linesUpTo(path: string, step: number): Promise<string[]> {
  if (step === 0 || (await platform.exists(path)) !== "file") return [];
  const lines = (await platform.readText(path)).split("\n");
  return lines.filter((line) => stepOf(line) <= step).map((line) => `${line}\n`);
}

/** The step of a line; Infinity for a line that was cut off. */
function stepOf(line: string): number {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return typeof step === "number" ? step : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
