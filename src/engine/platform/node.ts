/**
 * The Node platform: adapters through Dawn, files through node:fs. Every failure of a file operation is a FileError
 * that names the path and the reason in words.
 */
import { createHash, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { appendFile, type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { availableParallelism, homedir, hostname, tmpdir, totalmem } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { createContext, Script } from "node:vm";
import { FileError } from "../../errors.ts";
import { listAdapters, requestAdapter } from "./node-adapters.ts";
import { cacheFiles } from "./node-cache-files.ts";
import { attempt, errorCode, fileError, largestRead, writeAll } from "./node-errors.ts";
import { holdFile } from "./node-held-files.ts";
import { loadHubClient } from "./node-hub.ts";
import { openDatabase } from "./node-sqlite.ts";
import { startThread } from "./node-thread.ts";
import { withoutSpinning } from "./node-waiting.ts";
import { OutOfTimeError, type Platform } from "./platform.ts";

/** Only scripts can be given a time limit: this one runs what stands in its context as `work`. */
const timed = createContext({ work: undefined as unknown });
const runWork = new Script("work()");

export const platform: Platform = {
  requestAdapter,
  listAdapters,
  withoutSpinning,

  async exists(path) {
    try {
      const found = await stat(path);
      return found.isDirectory() ? "folder" : "file";
    } catch (error) {
      const code = errorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw fileError("look at", path, error);
    }
  },

  async list(folder) {
    return (await attempt("list", folder, () => readdir(folder))).sort();
  },

  async openFile(path) {
    const { handle, size } = await openRegular(path, "open");
    const read = (offset: number, length: number) => readRange(path, handle, offset, length);
    return { path, size, read, close: () => handle.close() };
  },

  async readText(path) {
    const { handle } = await openRegular(path, "read");
    try {
      return await attempt("read", path, () => handle.readFile("utf8"));
    } finally {
      await handle.close();
    }
  },

  openDatabase,
  loadHubClient,

  async makeFolder(path) {
    await attempt("create the folder", path, () => makeFolders(path));
  },

  async writeFileAtomic(path, chunks) {
    const inPlace = await isDevice(path);
    const written = inPlace ? path : join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
    try {
      const handle = await open(written, inPlace ? "w" : "wx", 0o666);
      try {
        for await (const chunk of typeof chunks === "string" ? [chunks] : chunks) await writeAll(handle, chunk);
        if (!inPlace) await handle.sync();
      } finally {
        await handle.close();
      }
      if (inPlace) return;
      await rename(written, path);
    } catch (error) {
      if (!inPlace) await rm(written, { force: true }).catch(() => undefined);
      // An error without a code was thrown by the caller's chunks and is no fault of the file.
      throw errorCode(error) === undefined ? error : fileError("write", path, error);
    }
    await syncFolder(dirname(path));
  },

  async append(path, content) {
    await attempt("write", path, () => appendFile(path, content, "utf8"));
  },

  async removeFile(path) {
    await attempt("remove", path, () => rm(path, { force: true }));
  },

  async removeFolder(path) {
    await attempt("remove the folder", path, () => rm(path, { recursive: true, force: true }));
  },

  async renameFolder(from, to) {
    await attempt("rename the folder", from, () => rename(from, to));
    await syncFolder(dirname(to));
  },

  holdFile: (path) => holdFile(path),

  async checkWritable(folder) {
    const probe = join(folder, `.kto-write-check.${randomBytes(6).toString("hex")}.tmp`);
    await attempt("write to the folder", folder, async () => {
      await makeFolders(folder);
      await (await open(probe, "wx")).close();
      await rm(probe);
    });
  },

  startThread,

  withinTime<T>(milliseconds: number, work: () => T): T {
    timed.work = work;
    try {
      return runWork.runInContext(timed, { timeout: Math.ceil(milliseconds) }) as T;
    } catch (error) {
      // An error of the script's own realm, which is no instance of this one's Error.
      if ((error as { code?: unknown } | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
      throw new OutOfTimeError(`no end within ${milliseconds / 1000} s`, { cause: error });
    } finally {
      timed.work = undefined;
    }
  },

  sha256() {
    const hash = createHash("sha256");
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
  },

  environment,
  homeFolder: homedir,
  hostName: hostname,
  processors: availableParallelism,
  temporaryFolder: tmpdir,
  hostMemoryBytes: totalmem,
  cacheFolder() {
    return environment("KTO_CACHE") ?? join(environment("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "kto-webgpu");
  },
  joinPath: join,
  baseName: basename,
  absolutePath: (path) => resolve(path),
  cacheFiles,
};

/** Opens a file to be read, unless it is something that may make the reader wait without end. */
async function openRegular(path: string, action: string): Promise<{ handle: FileHandle; size: number }> {
  // Without O_NONBLOCK, opening a pipe waits for somebody who writes. Windows has no such flag.
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
  const handle = await attempt(action, path, () => open(path, flags));
  try {
    const found = await attempt(action, path, () => handle.stat());
    if (found.isDirectory()) throw new FileError(`Cannot ${action} ${path}: it is a folder, not a file.`);
    if (found.isFile()) return { handle, size: found.size };
    throw new FileError(
      `Cannot ${action} ${path}: it is a pipe or a device, not a regular file; write what comes from it to a file first.`,
    );
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function environment(name: string): string | undefined {
  return process.env[name] || undefined;
}

async function readRange(path: string, handle: FileHandle, offset: number, length: number) {
  // With an ArrayBuffer of its own, not a view of Node's pool, since callers make Float32Arrays over `.buffer`.
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const wanted = Math.min(length - filled, largestRead);
    const { bytesRead } = await attempt("read", path, () => handle.read(bytes, filled, wanted, offset + filled));
    if (bytesRead === 0) {
      throw new FileError(
        `Cannot read ${path}: bytes ${offset} to ${offset + length} were asked for, the file ends at ${offset + filled}.`,
      );
    }
    filled += bytesRead;
  }
  return bytes;
}

/**
 * Makes a folder and those above it. Not with mkdir's `recursive`, which in Node 20 never returns if a folder exists in
 * which nothing can be made, as under /proc.
 */
async function makeFolders(path: string): Promise<void> {
  try {
    await makeFolder(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || dirname(path) === path) throw error;
    await makeFolders(dirname(path));
    await makeFolder(path);
  }
}

/** Makes one folder; does nothing if it exists. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const present = await stat(path).catch(() => undefined);
    if (present?.isDirectory() !== true) throw error;
  }
}

/**
 * Whether a path leads to a device, a pipe or a socket: a file put in its place, such as of /dev/null, would destroy
 * it.
 */
async function isDevice(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && !found.isFile() && !found.isDirectory();
}

/** A rename survives a power cut only once its folder is synced to the disk; not every file system can do that. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch {
    // Windows and some network file systems refuse to sync a folder. The content of the file is safe already.
  }
}
