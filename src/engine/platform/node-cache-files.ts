/**
 * The part of the Node platform for caches of downloads: growing files, links and digests.
 */

import { createHash, randomBytes } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { copyFile, type FileHandle, open, readlink, rename, stat, symlink } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, relative } from "node:path";
import { pipeline } from "node:stream/promises";
import { attempt, errorCode, fileError, writeAll } from "./node-errors.ts";
import { hasEnded } from "./node-processes.ts";
import type { CacheFiles, GrowingFile } from "./platform.ts";

/** Without dots, since a dot separates host and process. */
const host = hostname().replace(/[^A-Za-z0-9]/g, "");

export const cacheFiles: CacheFiles = {
  async modifiedMs(path) {
    try {
      return (await stat(path)).mtimeMs;
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw fileError("look at", path, error);
    }
  },

  async openGrowing(path): Promise<GrowingFile> {
    return await attempt("write", path, async () => {
      const handle = await open(path, "a", 0o666);
      return new AppendedFile(path, (await handle.stat()).size, handle);
    });
  },

  async linkOrCopy(target, path) {
    const wanted = relative(dirname(path), target);
    if ((await readlink(path).catch(() => undefined)) === wanted) return;
    const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
    await attempt("write", path, async () => {
      try {
        await symlink(wanted, temporary, "file");
      } catch (error) {
        // Windows without developer mode, exFAT and some network file systems have no links. A clone, if possible,
        // costs nothing.
        if (!["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(errorCode(error) ?? "")) throw error;
        await copyFile(target, temporary, constants.COPYFILE_FICLONE);
      }
      await rename(temporary, path);
    });
  },

  async rename(from, to) {
    try {
      await rename(from, to);
      return true;
    } catch (error) {
      if (errorCode(error) === "ENOENT") return false;
      throw fileError("write", to, error);
    }
  },

  async digest(path, algorithm, prefix = "") {
    const hash = createHash(algorithm).update(prefix);
    await attempt("read", path, () => pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash));
    return hash.digest("hex");
  },

  processName: `${host}.${process.pid}`,

  hasEnded(processName) {
    const [itsHost, id] = processName.split(".");
    return itsHost === host && /^\d+$/.test(id ?? "") && hasEnded(Number(id));
  },
};

class AppendedFile implements GrowingFile {
  readonly path: string;
  readonly #handle: FileHandle;
  #size: number;

  constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.#size = size;
    this.#handle = handle;
  }

  get size(): number {
    return this.#size;
  }

  async append(chunk: Uint8Array): Promise<void> {
    await attempt("write", this.path, () => writeAll(this.#handle, chunk));
    this.#size += chunk.byteLength;
  }

  async empty(): Promise<void> {
    await attempt("write", this.path, () => this.#handle.truncate(0));
    this.#size = 0;
  }

  async close(): Promise<void> {
    try {
      await attempt("write", this.path, () => this.#handle.sync());
    } finally {
      await this.#handle.close();
    }
  }
}
