/**
 * Files of a page elsewhere than in memory: over HTTP, where a path is a URL and ranges are Range requests, and in the
 * origin's private file system (OPFS), where a path starts with "opfs:". A server lists no folders and takes no files,
 * so what lists or writes is for "opfs:" only.
 */
import { errorMessage, FileError } from "../../errors.ts";
import { baseName, OPFS, partsOf } from "./browser-paths.ts";
import type { Platform, ReadableFile } from "./platform.ts";

/** What a platform does with files. */
export type PlatformFiles = Pick<
  Platform,
  | "exists"
  | "list"
  | "openFile"
  | "readText"
  | "makeFolder"
  | "writeFileAtomic"
  | "append"
  | "removeFile"
  | "removeFolder"
  | "renameFolder"
  | "checkWritable"
>;

export const webFiles: PlatformFiles = {
  async exists(path) {
    if (!isPrivate(path)) {
      const response = await attempt("look at", path, () => fetch(path, { method: "HEAD" }));
      return response.ok ? "file" : undefined;
    }
    const name = baseName(path);
    const parent = await openFolder(folderOf(path), false).catch(() => undefined);
    if (name === "" || parent === undefined) return parent === undefined ? undefined : "folder";
    for await (const [entry, handle] of parent.entries()) {
      if (entry === name) return handle.kind === "directory" ? "folder" : "file";
    }
    return undefined;
  },

  async list(folder) {
    if (!isPrivate(folder)) {
      throw new FileError(`Cannot list ${folder}: a web server has no folders; name the files, or use ${OPFS}.`);
    }
    const names: string[] = [];
    const opened = await attempt("list", folder, () => openFolder(folder, false));
    for await (const name of opened.keys()) names.push(name);
    return names.sort();
  },

  async openFile(path): Promise<ReadableFile> {
    if (isPrivate(path)) {
      const file = await attempt("open", path, async () => (await openPrivateFile(path, false)).getFile());
      return blobFile(path, file);
    }
    return await openUrl(path);
  },

  async readText(path) {
    if (isPrivate(path)) {
      return await attempt("read", path, async () => (await (await openPrivateFile(path, false)).getFile()).text());
    }
    const response = await attempt("read", path, () => fetch(path));
    if (!response.ok) throw new FileError(`Cannot read ${path}: the server answered ${response.status}.`);
    return await attempt("read", path, () => response.text());
  },

  async makeFolder(path) {
    refuseUrl("create the folder", path);
    await attempt("create the folder", path, () => openFolder(path, true));
  },

  async writeFileAtomic(path, chunks) {
    refuseUrl("write", path);
    // The write is atomic since the stream writes into a swap file, which replaces the old file when it is closed.
    const handle = await attempt("write", path, () => openPrivateFile(path, true));
    const stream = await attempt("write", path, () => handle.createWritable());
    try {
      for await (const chunk of typeof chunks === "string" ? [chunks] : chunks) {
        // Streams refuse views of shared memory, so the chunk is copied.
        const content = typeof chunk === "string" ? chunk : new Uint8Array(chunk);
        await attempt("write", path, () => stream.write(content));
      }
    } catch (error) {
      await stream.abort().catch(() => undefined);
      throw error;
    }
    await attempt("write", path, () => stream.close());
  },

  async append(path, content) {
    refuseUrl("write", path);
    await attempt("write", path, async () => {
      const handle = await openPrivateFile(path, true);
      const stream = await handle.createWritable({ keepExistingData: true });
      await stream.seek((await handle.getFile()).size);
      await stream.write(typeof content === "string" ? content : new Uint8Array(content));
      await stream.close();
    });
  },

  removeFile: (path) => remove("remove", path, {}),
  removeFolder: (path) => remove("remove the folder", path, { recursive: true }),

  async renameFolder(from, to) {
    refuseUrl("rename the folder", from);
    await attempt("rename the folder", from, async () => {
      await copyFolder(await openFolder(from, false), await openFolder(to, true));
      await (await openFolder(folderOf(from), false)).removeEntry(baseName(from), { recursive: true });
    });
  },

  async checkWritable(folder) {
    refuseUrl("write to the folder", folder);
    await attempt("write to the folder", folder, async () => {
      const opened = await openFolder(folder, true);
      const probe = ".kto-write-check.tmp";
      await opened.getFileHandle(probe, { create: true });
      await opened.removeEntry(probe);
    });
  },
};

/** A file whose `bytesOf` is asked only for ranges that are in it. */
function rangedFile(
  path: string,
  size: number,
  bytesOf: (offset: number, length: number) => Promise<ArrayBuffer>,
): ReadableFile {
  const read: ReadableFile["read"] = async (offset, length) => {
    if (offset + length <= size) return new Uint8Array(await attempt("read", path, () => bytesOf(offset, length)));
    throw new FileError(
      `Cannot read ${path}: bytes ${offset} to ${offset + length} were asked for, the file ends at ${size}.`,
    );
  };
  return { path, size, read, close: async () => {} };
}

/** A file on a server that answers Range requests. */
function urlFile(path: string, size: number): ReadableFile {
  return rangedFile(path, size, async (offset, length) => {
    if (length === 0) return new ArrayBuffer(0);
    const response = await fetch(path, { headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
    if (response.status !== 206) throw new Error(`the server answered ${response.status} to a Range request`);
    const bytes = await response.arrayBuffer();
    if (bytes.byteLength === length) return bytes;
    throw new Error(`${length} bytes were asked for, ${bytes.byteLength} came`);
  });
}

/** A file in the private file system, or a URL that had to be fetched whole. */
export function blobFile(path: string, blob: Blob): ReadableFile {
  return rangedFile(path, blob.size, (offset, length) => blob.slice(offset, offset + length).arrayBuffer());
}

async function openUrl(path: string): Promise<ReadableFile> {
  // A request for one byte tells the size and whether ranges work. With compression, HEAD tells neither.
  const response = await attempt("open", path, () => fetch(path, { headers: { Range: "bytes=0-0" } }));
  const total = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "")?.[1];
  if (response.status === 206 && total !== undefined) {
    await response.body?.cancel();
    return urlFile(path, Number(total));
  }
  // The answer for an empty file, which has no first byte: "416, Content-Range: bytes */0".
  if (response.status === 416 && total === "0") return urlFile(path, 0);
  if (!response.ok) throw new FileError(`Cannot open ${path}: the server answered ${response.status}.`);
  return blobFile(path, await attempt("open", path, () => response.blob()));
}

async function openFolder(path: string, create: boolean): Promise<FileSystemDirectoryHandle> {
  let folder = await navigator.storage.getDirectory();
  for (const name of partsOf(path)) folder = await folder.getDirectoryHandle(name, { create });
  return folder;
}

/** Copies, since the private file system moves only files, and not in every browser. */
async function copyFolder(from: FileSystemDirectoryHandle, to: FileSystemDirectoryHandle): Promise<void> {
  for (const name of (await Array.fromAsync(from.keys())).sort()) {
    const entry = await from.getFileHandle(name).catch(() => undefined);
    if (entry === undefined) {
      await copyFolder(await from.getDirectoryHandle(name), await to.getDirectoryHandle(name, { create: true }));
      continue;
    }
    const stream = await (await to.getFileHandle(name, { create: true })).createWritable();
    await (await entry.getFile()).stream().pipeTo(stream);
  }
}

/** Removes an entry, which need not be there; its folder must. */
async function remove(action: string, path: string, options: FileSystemRemoveOptions): Promise<void> {
  refuseUrl(action, path);
  await attempt(action, path, async () => {
    const folder = await openFolder(folderOf(path), false);
    try {
      await folder.removeEntry(baseName(path), options);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "NotFoundError")) throw error;
    }
  });
}

async function openPrivateFile(path: string, create: boolean): Promise<FileSystemFileHandle> {
  const folder = await openFolder(folderOf(path), false);
  return await folder.getFileHandle(baseName(path), { create });
}

function isPrivate(path: string): boolean {
  return path.startsWith(OPFS);
}

function folderOf(path: string): string {
  return OPFS + partsOf(path).slice(0, -1).join("/");
}

export function refuseUrl(action: string, path: string): void {
  if (isPrivate(path)) return;
  throw new FileError(`Cannot ${action} ${path}: a web page writes to its private file system only, "${OPFS}...".`);
}

const reasons: Readonly<Record<string, string>> = {
  NotFoundError: "it does not exist",
  TypeMismatchError: "it is a folder where a file is wanted, or the other way round",
  QuotaExceededError: "the browser gives this site no more space",
};

async function attempt<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const reason = (error instanceof DOMException ? reasons[error.name] : undefined) ?? errorMessage(error);
    throw new FileError(`Cannot ${action} ${path}: ${reason}.`, { cause: error });
  }
}
