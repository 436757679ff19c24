/**
 * The browser platform: adapters from navigator.gpu; reading over HTTP, where a path is a URL and ranges are Range
 * requests; writing into the origin's private file system (OPFS), where a path starts with "opfs:". A server lists no
 * folders, so `list` works on "opfs:" only. Runs in pages and in workers.
 */
import { AdapterError, errorMessage, FileError, ResourceError } from "../../errors.ts";
import { chooseAdapter, foundAdapter, noAdapterMessage, rankAdapters } from "./adapters.ts";
import { browserThread } from "./browser-thread.ts";
import type { FoundAdapter, HeldFile, Platform, ReadableFile } from "./platform.ts";
import { sha256 } from "./sha256.ts";

const scheme = "opfs:";

export const platform: Platform = {
  async requestAdapter(selector = "auto") {
    const found = await listAdapters();
    if (found.length === 0) throw new AdapterError(noAdapterMessage("browser"));
    return chooseAdapter(found, selector);
  },
  listAdapters,

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
      throw new FileError(`Cannot list ${folder}: a web server has no folders; name the files, or use ${scheme}.`);
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

  async openDatabase(path) {
    throw new ResourceError(`Cannot read the database ${path}: a browser has no SQLite; export the feedback as JSON.`);
  },

  async loadHubClient() {
    throw new ResourceError("A web page cannot upload to the hub from here: give the files to the user.");
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

  /** The browser's own locks, which end with the page: no file is made. */
  async holdFile(path) {
    refuseUrl("write", path);
    return await new Promise<HeldFile>((resolve, reject) => {
      const hold = async (lock: Lock | null) => {
        if (lock === null) resolve({ holder: { process: undefined, host: undefined, since: undefined } });
        else await new Promise<void>((release) => resolve({ release }));
      };
      navigator.locks.request(path, { ifAvailable: true }, hold).catch(reject);
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

  sha256,
  startThread: async (code, heapBytes) => browserThread(code.open(), heapBytes),
  withoutSpinning: (promise) => promise,
  withinTime: (_, work) => work(),
  environment: () => undefined,
  homeFolder: () => scheme,
  hostName: () => "browser",
  processors: () => navigator.hardwareConcurrency,
  temporaryFolder: () => `${scheme}tmp`,
  hostMemoryBytes: () => undefined,
  cacheFolder: () => `${scheme}kto-webgpu`,
  joinPath(...parts) {
    return parts
      .filter((part) => part !== "")
      .map((part, index) => (index === 0 ? part.replace(/\/+$/, "") : part.replace(/^\/+|\/+$/g, "")))
      .join("/");
  },
  baseName,
  absolutePath: (path) => path, // there is no working folder

  // The private file system has neither links nor streamed digests, and a page cannot read the hub's redirects.
  cacheFiles: undefined,
};

/** The adapters that the browser gives: its first choice, and its software adapter if that is another one. */
async function listAdapters(): Promise<FoundAdapter[]> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
  if (gpu === undefined) return [];
  const found: FoundAdapter[] = [];
  for (const options of [{ powerPreference: "high-performance" as const }, { forceFallbackAdapter: true }]) {
    const one = foundAdapter(await gpu.requestAdapter(options));
    if (one && !found.some((other) => other.description === one.description && other.kind === one.kind))
      found.push(one);
  }
  return rankAdapters(found);
}

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
function blobFile(path: string, blob: Blob): ReadableFile {
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
  return path.startsWith(scheme);
}

function partsOf(path: string): string[] {
  return path
    .slice(scheme.length)
    .split("/")
    .filter((part) => part !== "" && part !== ".");
}

function folderOf(path: string): string {
  return scheme + partsOf(path).slice(0, -1).join("/");
}

function baseName(path: string): string {
  const parts = isPrivate(path) ? partsOf(path) : path.replace(/[?#].*$/, "").split("/");
  return parts.filter((part) => part !== "").at(-1) ?? "";
}

function refuseUrl(action: string, path: string): void {
  if (isPrivate(path)) return;
  throw new FileError(`Cannot ${action} ${path}: a web page writes to its private file system only, "${scheme}...".`);
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
