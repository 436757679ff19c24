/** Checks of the files that the command line itself reads and writes. Models and feedback go through the platform. */
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { platform } from "../../engine/platform/index.ts";
import { errorMessage, FileError } from "../../errors.ts";
import { nearest } from "../../kto/options/names.ts";

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

/** Whether two paths lead to the same existing file. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([one, other].map((path) => realpath(path).catch(() => undefined)));
  return a !== undefined && a === b;
}

/**
 * Looks for a model or data of this name. Where it is found nowhere, and the folder around the path holds something of
 * nearly this name, that is told first: a mistyped path has the form of a repository's id, and the hub is asked for it.
 *
 * @throws what `look` throws
 */
export async function tellingNoFolder<T>(path: string, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof FileError) || (await hasEntry(path))) throw error;
    const near = nearest(basename(path), await readdir(dirname(path)).catch(() => []));
    if (near === undefined) throw error;
    const message = `There is no file or folder "${path}"; did you mean "${join(dirname(path), near)}"?`;
    const isRepository = !/ does not exist;/.test(error.message);
    throw new FileError(`${message}${isRepository ? ` As a repository: ${error.message}` : ""}`, { cause: error });
  }
}

/** The size in bytes of what is there, unless it is no regular file or nothing is there. */
export async function regularSize(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}

/** Whether there is anything of this name. */
export async function hasEntry(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/**
 * Checks, before any work, that its result does not replace a file that it is made from.
 *
 * @param folders of what is read; undefined ones are passed over
 * @throws FileError naming the file
 */
export async function checkReplacesNone(path: string, folders: readonly (string | undefined)[]): Promise<void> {
  for (const folder of folders) {
    for (const name of folder === undefined ? [] : await platform.list(folder)) {
      if (/\.gguf$/i.test(name) || !(await isSameFile(platform.joinPath(folder ?? "", name), path))) continue;
      throw new FileError(`Cannot write ${path}: it is a file of ${folder}, which is read; name another file.`);
    }
  }
}

/**
 * Checks, before any work, that its result can be written to this folder, and creates the folder. Work that is only
 * planned creates nothing: the nearest folder above that exists is checked instead.
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
 * Checks, before any work, that its result can be written to this file, and creates the folder around it, unless the
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
