/** Text files that the command line itself reads (options, prompts); models and feedback go through the platform. */
import { readFile } from "node:fs/promises";
import { errorMessage, FileError } from "../errors.ts";

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
