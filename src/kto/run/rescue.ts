/**
 * The last save of a run, at its end or when it is stopped, whose folder cannot be written, such as on a full disk:
 * what was trained goes to another place rather than being lost, unless a checkpoint holds it.
 */
import type { CheckpointFolder } from "../../engine/files/checkpoint-folders.ts";
import { platform } from "../../engine/platform/index.ts";
import { counted, FileError } from "../../errors.ts";

/**
 * Saves a run's result into a folder. Where that fails and no checkpoint holds the last update, it is saved beside the
 * folder, as `<folder>-rescued`, or else in the system's folder for temporary files.
 *
 * @param write saves into the folder that it is given
 * @throws FileError that says what could not be written, and where the result or the last checkpoint is; what `write`
 * throws else
 */
export async function saveOrRescue(
  run: { readonly stepsDone: number; readonly lastCheckpoint: CheckpointFolder | undefined },
  folder: string,
  write: (folder: string) => Promise<void>,
): Promise<void> {
  try {
    await write(folder);
  } catch (error) {
    if (!(error instanceof FileError) || run.lastCheckpoint?.step === run.stepsDone) throw error;
    throw await rescue(error, run.stepsDone, { folder, write, remedy: "move it from there" });
  }
}

/**
 * Saves what could not be saved into a run's folder beside it, as `<folder>-rescued`, or else in the system's folder
 * for temporary files.
 *
 * @param error why the folder could not be written
 * @param stepsDone the updates of the run
 * @returns the error that says where it is now, and what to do (`remedy`), or that no place was found
 */
export async function rescue(
  error: FileError,
  stepsDone: number,
  save: {
    readonly folder: string;
    readonly write: (folder: string) => Promise<void>;
    readonly remedy: string;
  },
): Promise<FileError> {
  const place = await rescued(save.folder, save.write);
  const outcome =
    place === undefined
      ? "Nor could it be saved beside that folder or in the folder for temporary files."
      : `What was trained, ${counted(stepsDone, "update")}, is saved in ${place}: ${save.remedy}.`;
  return new FileError(`${error.message} ${outcome}`, { cause: error });
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
