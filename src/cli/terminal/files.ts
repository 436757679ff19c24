/** Files that the command line itself reads and writes; models and feedback are read through the platform. */
import { readFile, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";

/** @throws FileError naming the file, `what` it was to be, and the reason */
export async function readTextFile(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const reasons: Record<string, string> = {
      ENOENT: "there is no such file",
      EISDIR: "it is a folder",
      EACCES: "permission denied",
    };
    throw new FileError(`cannot read the ${what} ${path}: ${reasons[code] ?? errorMessage(error)}.`, { cause: error });
  }
}

/** Whether two paths lead to one file that is there. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([one, other].map((path) => realpath(path).catch(() => undefined)));
  return a !== undefined && a === b;
}

/**
 * Before work whose result goes into a folder: can it be written? Creates it; for work that is only planned, the nearest
 * folder above it that is there is looked at in its place.
 *
 * @throws FileError naming the folder, and the reason
 */
export async function checkWritable(folder: string, planned: boolean): Promise<void> {
  let present = folder;
  while (planned && (await platform.exists(present)) === undefined && dirname(present) !== present) {
    present = dirname(present);
  }
  await platform.checkWritable(present);
}

/**
 * Before work whose result goes into a file: can the file be written? Creates the folder that it is to lie in, unless the
 * work is only planned.
 *
 * @throws FileError naming the file or folder, and the reason
 */
export async function checkOutputFile(path: string, planned = false): Promise<void> {
  if ((await platform.exists(path)) === "folder") {
    throw new FileError(`Cannot write ${path}: it is a folder, not a file.`);
  }
  await checkWritable(dirname(path), planned);
}
