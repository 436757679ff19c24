/**
 * The part of the Node platform for caches of downloads: growing files, links and digests.
 */
import { createHash, randomBytes } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { copyFile, open, readlink, rename, stat, symlink } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, relative } from "node:path";
import { pipeline } from "node:stream/promises";
import { attempt, errorCode, fileError, writeAll } from "./node-errors.ts";
import { hasEnded } from "./node-processes.ts";
import type { CacheFiles } from "./platform.ts";

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

  async openGrowing(path) {
    const handle = await attempt("write", path, () => open(path, "a", 0o666));
    let { size } = await attempt("write", path, () => handle.stat());
    return {
      path,
      get size() {
        return size;
      },
      async append(chunk) {
        await attempt("write", path, () => writeAll(handle, chunk));
        size += chunk.byteLength;
      },
      async empty() {
        await attempt("write", path, () => handle.truncate(0));
        size = 0;
      },
      async close() {
        try {
          await attempt("write", path, () => handle.sync());
        } finally {
          await handle.close();
        }
      },
    };
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
