/**
 * The lock of an output folder, so that two runs never write into one: a file that names the process which has it. A
 * lock whose process has ended, or has been silent for minutes on another machine, is taken over.
 */
import { platform } from "../../engine/platform/index.ts";
import { FileError } from "../../errors.ts";

/** In the output folder, from a run's start to its end. */
export const LOCK_FILE = ".kto-lock.json";

/**
 * Takes a folder for a run, making it if need be.
 *
 * @returns what gives the folder back, as the end of the process does; undefined without a folder
 * @throws FileError where another run has it
 */
export async function lockFolder(folder: string | undefined): Promise<(() => void) | undefined> {
  if (folder === undefined) return undefined;
  await platform.makeFolder(folder);
  const path = platform.joinPath(folder, LOCK_FILE);
  const found = await platform.holdFile(path);
  if ("release" in found) return found.release;
  const { process, host, since } = found.holder;
  const who = process === undefined ? "" : ` (process ${process} on ${host}, since ${since})`;
  throw new FileError(
    `The output folder ${folder} is in use by another training${who}: choose another output_dir, or wait for its end; if there is no such training any more, remove ${path}.`,
  );
}

/** Removes the folder that was made for a run which was then refused, unless something lies in it. */
export async function removeEmptyFolder(folder: string): Promise<void> {
  if ((await platform.exists(folder)) !== "folder" || (await platform.list(folder)).length > 0) return;
  await platform.removeFolder(folder);
}
