/** Random models of the report, each written once for the parts and cases that need it. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeLargeRandomModel } from "../random-model.ts";

/** The folder of a model's random weights, which is written at the first call. */
export async function randomModelFolder(
  scratch: string,
  { name, shape }: { readonly name: string; readonly shape: Readonly<Record<string, unknown>> },
): Promise<string> {
  const folder = join(scratch, name.replace(/\W+/g, "-"));
  // Comes last: a process that was ended while it wrote leaves a folder without it.
  const complete = join(folder, "complete");
  if (!existsSync(complete)) {
    await writeLargeRandomModel(folder, shape, 1);
    writeFileSync(complete, "");
  }
  return folder;
}
