/**
 * What Node's file operations have in common: failures become FileErrors with the reason in words, writes are complete.
 */
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { errorMessage, FileError } from "../../errors.ts";

/** Node refuses single reads of 2 GiB or more, and weights can be larger. */
export const largestRead = 1 << 30;

/** Writes everything; a single write may write only a part. */
export async function writeAll(handle: FileHandle, chunk: Uint8Array | string): Promise<void> {
  const bytes = typeof chunk === "string" ? Buffer.from(chunk, "utf8") : chunk;
  let written = 0;
  while (written < bytes.byteLength) {
    const length = Math.min(bytes.byteLength - written, largestRead);
    const { bytesWritten } = await handle.write(bytes, written, length);
    written += bytesWritten;
  }
}

/** Runs a file operation. If it fails, throws a FileError: "Cannot <action> <path>: <reason in words>." */
export async function attempt<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileError(action, path, error);
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "it does not exist",
  EACCES: "permission is denied",
  EPERM: "permission is denied",
  EROFS: "the file system is read-only",
  ENOSPC: "no space is left on the disk",
  EDQUOT: "the disk quota is used up",
  EISDIR: "it is a folder, not a file",
  ENOTDIR: "a part of the path is a file, not a folder",
  EEXIST: "a file of that name is in the way",
  ENAMETOOLONG: "the name is too long",
  EMFILE: "too many files are open",
};

export function fileError(action: string, path: string, error: unknown): FileError {
  const code = errorCode(error);
  let reason = (code === undefined ? undefined : reasons[code]) ?? errorMessage(error);
  if (code === "ENOENT" && action.endsWith("the folder")) reason = "it cannot be created there";
  if (code === "ENOENT" && action === "write") reason = `the folder ${dirname(path)} does not exist`;
  return new FileError(`Cannot ${action} ${path}: ${reason}.`, { cause: error });
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
