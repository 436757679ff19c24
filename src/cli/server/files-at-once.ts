/**
 * Files as the dashboard reads them: at once, in its own thread. Its looks read some dozens of small pieces, for each of
 * which a hand-over to Node's pool of threads costs five times as much processor time as the reading. After a large
 * piece, which a long file has many of, others have their turn.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { errorCode, fileError } from "../../engine/platform/node-errors.ts";
import type { FileSource } from "../../engine/platform/platform.ts";
import { FileError } from "../../errors.ts";

const LARGE_BYTES = 2 ** 20;

export const filesAtOnce: FileSource = {
  async exists(path) {
    try {
      return statSync(path).isDirectory() ? "folder" : "file";
    } catch (error) {
      const code = errorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw fileError("look at", path, error);
    }
  },

  async list(folder) {
    return attempt("list", folder, () => readdirSync(folder)).sort();
  },

  async openFile(path) {
    // Without O_NONBLOCK, opening a pipe waits for somebody who writes. Windows has no such flag.
    const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
    const handle = attempt("open", path, () => openSync(path, flags));
    const size = sizeOf(handle, path);
    return {
      ...{ path, size },
      read: async (offset, length) => {
        const bytes = new Uint8Array(length);
        for (let filled = 0; filled < length; ) {
          const count = attempt("read", path, () => readSync(handle, bytes, filled, length - filled, offset + filled));
          if (count === 0) throw new FileError(`Cannot read ${path}: it ends before byte ${offset + length}.`);
          filled += count;
        }
        if (length >= LARGE_BYTES) await setImmediate();
        return bytes;
      },
      close: async () => closeSync(handle),
    };
  },
};

function attempt<T>(action: string, path: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw fileError(action, path, error);
  }
}

/** The size of an open file, which is closed again where it is no regular one. */
function sizeOf(handle: number, path: string): number {
  try {
    const found = attempt("look at", path, () => fstatSync(handle));
    if (found.isFile()) return found.size;
    throw new FileError(`Cannot open ${path}: it is no regular file.`);
  } catch (error) {
    closeSync(handle);
    throw error;
  }
}
