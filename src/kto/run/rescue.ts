/**
 * The final save of a run whose folder cannot be written, such as on a full disk: what was trained goes to another place
 * rather than being lost, unless a checkpoint holds it.
 */
import { platform } from "../../engine/platform/index.ts";
import { counted, FileError } from "../../errors.ts";
import type { Run } from "./run.ts";

/**
 * Saves a run's result into a folder. Where that fails and no checkpoint holds the last update, it is saved beside the
 * folder, as `<folder>-rescued`, or else in the system's folder for temporary files.
 *
 * @param write saves into the folder that it is given
 * @throws FileError that says what could not be written, and where the result or the last checkpoint is; what `write`
 * throws else
 */
export async function saveOrRescue(
  run: Pick<Run, "stepsDone" | "lastCheckpoint">,
  folder: string,
  write: (folder: string) => Promise<void>,
): Promise<void> {
  try {
    await write(folder);
  } catch (error) {
    if (!(error instanceof FileError) || run.lastCheckpoint?.step === run.stepsDone) throw error;
    const place = await rescued(folder, write);
    const outcome =
      place === undefined
        ? "Nor could it be saved beside that folder or in the folder for temporary files."
        : `What was trained, ${counted(run.stepsDone, "update")}, is saved in ${place}: move it from there.`;
    throw new FileError(`${error.message} ${outcome}`, { cause: error });
  }
}

/** @returns where it was saved, if anywhere */
async function rescued(folder: string, write: (folder: string) => Promise<void>): Promise<string | undefined> {
  const whole = platform.absolutePath(folder);
  for (const base of [whole, platform.joinPath(platform.temporaryFolder(), platform.baseName(whole))]) {
    try {
      const place = await freeName(`${base}-rescued`);
      try {
        await platform.makeFolder(place);
        await write(place);
        return place;
      } catch (error) {
        await platform.removeFolder(place);
        throw error;
      }
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
    }
  }
  return undefined;
}

/** The name, with a number behind it where something has it. */
async function freeName(name: string): Promise<string> {
  let free = name;
  for (let number = 2; (await platform.exists(free)) !== undefined; number++) free = `${name}-${number}`;
  return free;
}
