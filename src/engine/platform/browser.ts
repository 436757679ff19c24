/**
 * The browser platform: adapters from navigator.gpu, files over HTTP, in the origin's private file system and in
 * memory (browser-web-files.ts, browser-memory.ts), told apart by how a path begins. Runs in pages and in workers.
 */
import { AdapterError, FileError, ResourceError } from "../../errors.ts";
import { chooseAdapter, foundAdapter, noAdapterMessage, rankAdapters } from "./adapters.ts";
import { memoryFiles } from "./browser-memory.ts";
import { baseName, isInMemory, OPFS } from "./browser-paths.ts";
import { browserThread } from "./browser-thread.ts";
import { type PlatformFiles, refuseUrl, webFiles } from "./browser-web-files.ts";
import type { FoundAdapter, HeldFile, Platform } from "./platform.ts";
import { sha256 } from "./sha256.ts";

/** Who keeps the file of a path. */
function filesOf(path: string): PlatformFiles {
  return isInMemory(path) ? memoryFiles : webFiles;
}

export const platform: Platform = {
  async requestAdapter(selector = "auto") {
    const found = await listAdapters();
    if (found.length === 0) throw new AdapterError(noAdapterMessage("browser"));
    return chooseAdapter(found, selector);
  },
  listAdapters,

  exists: (path) => filesOf(path).exists(path),
  list: (folder) => filesOf(folder).list(folder),
  openFile: (path) => filesOf(path).openFile(path),
  readText: (path) => filesOf(path).readText(path),
  makeFolder: (path) => filesOf(path).makeFolder(path),
  writeFileAtomic: (path, chunks) => filesOf(path).writeFileAtomic(path, chunks),
  append: (path, content) => filesOf(path).append(path, content),
  removeFile: (path) => filesOf(path).removeFile(path),
  removeFolder: (path) => filesOf(path).removeFolder(path),
  checkWritable: (folder) => filesOf(folder).checkWritable(folder),
  async renameFolder(from, to) {
    const files = filesOf(from);
    if (files !== filesOf(to))
      throw new FileError(`Cannot rename the folder ${from} to ${to}: it stays where it is kept.`);
    await files.renameFolder(from, to);
  },

  async openDatabase(path) {
    throw new ResourceError(`Cannot read the database ${path}: a browser has no SQLite; export the feedback as JSON.`);
  },

  async loadHubClient() {
    throw new ResourceError("A web page cannot upload to the hub from here: give the files to the user.");
  },

  /** The browser's own locks, which end with the page: no file is made. */
  async holdFile(path) {
    if (!isInMemory(path)) refuseUrl("write", path);
    return await new Promise<HeldFile>((resolve, reject) => {
      const hold = async (lock: Lock | null) => {
        if (lock === null) resolve({ holder: { process: undefined, host: undefined, since: undefined } });
        else await new Promise<void>((release) => resolve({ release }));
      };
      navigator.locks.request(path, { ifAvailable: true }, hold).catch(reject);
    });
  },

  sha256,
  startThread: async (code, heapBytes) => browserThread(code.open(), heapBytes),
  withoutSpinning: (promise) => promise,
  withinTime: (_, work) => work(),
  environment: () => undefined,
  homeFolder: () => OPFS,
  hostName: () => "browser",
  processors: () => navigator.hardwareConcurrency,
  temporaryFolder: () => `${OPFS}tmp`,
  hostMemoryBytes: () => undefined,
  cacheFolder: () => `${OPFS}kto-webgpu`,
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
