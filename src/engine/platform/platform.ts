/**
 * What differs between hosts: where adapters come from, how files are read by ranges and written whole. `node.ts` and
 * `browser.ts` implement it. `index.ts` exports the Node one, which bundlers replace through the "browser" field of
 * package.json. Nothing else in kernels, engine or kto may import from `node:`.
 */

/** Work was broken off because it took longer than it was given. */
export class OutOfTimeError extends Error {}

/** A file opened for reading by ranges. */
export interface ReadableFile {
  readonly path: string;
  /** Size in bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `offset`; throws FileError if the file is shorter. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Where files are read from: this machine, or a place that looks like a folder of it. */
export interface FileSource {
  exists(path: string): Promise<"file" | "folder" | undefined>;
  /** The names in a folder. */
  list(folder: string): Promise<string[]>;
  openFile(path: string): Promise<ReadableFile>;
}

/** A row of a query, by the names of its columns. */
export type DatabaseRow = Readonly<Record<string, unknown>>;

/** A copy of an SQLite database, opened for reading. */
export interface ReadableDatabase {
  /** The rows of a query, one after another; throws FileError if the database is damaged. */
  rows(sql: string, ...values: (string | number)[]): Iterable<DatabaseRow>;
  /** Removes the copy. */
  close(): Promise<void>;
}

/** What runs an adapter's work, in the order of preference of `auto`. */
export type AdapterKind = "hardware" | "lavapipe" | "swiftshader" | "software";

/** An adapter that was found. A GPUAdapter gives only one device; another device needs another request. */
export interface FoundAdapter {
  readonly adapter: GPUAdapter;
  readonly kind: AdapterKind;
  /** For messages: vendor, device and driver, as the adapter describes itself. */
  readonly description: string;
}

/** A file that grows at its end. */
export interface GrowingFile {
  readonly path: string;
  /** Bytes in the file, those of earlier runs included. */
  readonly size: number;
  append(chunk: Uint8Array): Promise<void>;
  /** Removes everything that was written. */
  empty(): Promise<void>;
  /** Syncs to the disk and closes. */
  close(): Promise<void>;
}

/**
 * What a cache of downloads needs of a file system besides reading and writing whole files. Everything here can throw
 * FileError.
 */
export interface CacheFiles {
  /** When the file was last changed, in milliseconds since 1970; undefined if it does not exist. */
  modifiedMs(path: string): Promise<number | undefined>;
  /** Opens a file to append to it; creates it if it does not exist. */
  openGrowing(path: string): Promise<GrowingFile>;
  /** Makes a relative symbolic link at `path` to the file `target`, or a copy if the file system has no links. */
  linkOrCopy(target: string, path: string): Promise<void>;
  /** Renames, replacing what is at `to`. Returns false if there is nothing at `from`. */
  rename(from: string, to: string): Promise<boolean>;
  /** The digest of `prefix` and the file's bytes, in lower-case hexadecimal. */
  digest(path: string, algorithm: "sha256" | "sha1", prefix?: string): Promise<string>;
  /** Names this process among all that share the file system; letters, digits and "." only. */
  readonly processName: string;
  /** Whether the process of that name is known to have ended; of one on another machine that is never known. */
  hasEnded(processName: string): boolean;
}

/** The process that has a file; undefined where the file does not say. */
export interface FileHolder {
  readonly process: number | undefined;
  readonly host: string | undefined;
  /** ISO 8601. */
  readonly since: string | undefined;
}

/** What `holdFile` found: the file is this process's until `release`, or another holder has it. */
export type HeldFile = { readonly release: () => void } | { readonly holder: FileHolder };

/** A SHA-256 hash that is fed piece by piece. */
export interface Sha256 {
  update(bytes: Uint8Array): void;
  /** Ends the hash; returns it in hexadecimal. */
  digest(): string;
}

/**
 * The module of a thread: it sets `onmessage` and answers each message by one `postMessage`, as a Web Worker's does.
 */
export interface ThreadCode {
  /** The built module; where only sources are, Node takes the .ts beside it. */
  readonly address: URL;
  /** Opens it in a browser. Bundlers look for `new Worker(new URL("...", import.meta.url))` as it stands. */
  readonly open: () => Worker;
}

/** A thread that answers one message after another, and can be ended while it does. */
export interface Thread {
  /**
   * The answer to a message; one is asked for at a time.
   *
   * @param workMs milliseconds that the answer may take. In Node the time limit is reached when both the clock and the
   *   process's CPU time say so
   * @param transfer buffers of the message that are handed over rather than copied
   * @throws ThreadLimit if the thread had to be ended; the thread's own error if it failed
   */
  ask(message: unknown, workMs: number, transfer?: readonly ArrayBuffer[]): Promise<unknown>;
  end(): Promise<void>;
  /** The heap that it may have. */
  readonly heapBytes: number;
}

/** A thread was ended because it took more time or memory than it was given. */
export class ThreadLimit extends Error {
  readonly limit: "time" | "memory";

  constructor(limit: "time" | "memory") {
    super(`The thread took more ${limit} than it was given.`);
    this.limit = limit;
  }
}

/** How the hub is reached. */
export interface HubAccess {
  readonly accessToken: string;
  /** Does not end in a slash. */
  readonly hubUrl: string;
}

/** What is used of @huggingface/hub. Errors of the hub's answers have its status as `statusCode`. */
export interface HubClient {
  /** The name of the token's user. */
  whoAmI(access: HubAccess): Promise<{ readonly name: string }>;
  /** Makes a repository of models; status 409 where it is there. */
  createRepo(access: HubAccess, id: string, visibility: "public" | "private" | undefined): Promise<void>;
  /** One commit of local files on the main branch. */
  uploadFiles(
    access: HubAccess,
    id: string,
    files: readonly { readonly path: string; readonly name: string }[],
    title: string,
  ): Promise<void>;
}

export interface Platform {
  /**
   * The best adapter: hardware, else lavapipe, else SwiftShader. `selector` is "auto" (default), a kind, an index
   * into `listAdapters()`, or a part of the description. Throws AdapterError with the remedy when there is none.
   */
  requestAdapter(selector?: string): Promise<FoundAdapter>;
  /** Every adapter that can be opened here, best first, without opening a device. */
  listAdapters(): Promise<FoundAdapter[]>;
  /** The value of a promise of the GPU; waiting for it does not take a core. */
  withoutSpinning<T>(promise: Promise<T>): Promise<T>;

  exists(path: string): Promise<"file" | "folder" | undefined>;
  /** Names in a folder, sorted. */
  list(folder: string): Promise<string[]>;
  openFile(path: string): Promise<ReadableFile>;
  readText(path: string): Promise<string>;
  /**
   * Copies an SQLite database with its journals to a temporary folder and opens the copy, so that nothing is written to
   * the file or beside it. Throws FileError if it cannot be copied or is damaged, ResourceError if the host lacks
   * SQLite.
   */
  openDatabase(path: string): Promise<ReadableDatabase>;
  makeFolder(path: string): Promise<void>;
  /**
   * Writes to a temporary name in the same folder, syncs and renames, so that a reader sees the old file or the new
   * one. What is a device or a pipe is written into, and stays one.
   */
  writeFileAtomic(path: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array> | string): Promise<void>;
  /** Adds text or bytes at the end of a file, creating it. */
  append(path: string, content: string | Uint8Array): Promise<void>;
  /** Removes a file, if it exists. */
  removeFile(path: string): Promise<void>;
  /** Removes a folder with everything in it, if it exists. */
  removeFolder(path: string): Promise<void>;
  /**
   * Renames a folder within its parent; nothing may have the new name yet. This is atomic on Node. A browser copies the
   * files in the order of `list`, then removes the old ones.
   */
  renameFolder(from: string, to: string): Promise<void>;
  /**
   * Makes a file that says that this process has what it stands for, until it is released or the process ends. One
   * whose process has ended is taken over, and so is one of another machine whose holder has been silent for minutes.
   */
  holdFile(path: string): Promise<HeldFile>;
  /** Makes the folder if it does not exist. Throws FileError with the reason if files cannot be created in it. */
  checkWritable(folder: string): Promise<void>;
  sha256(): Sha256;
  /**
   * Starts a thread with a module.
   *
   * @param heapBytes the largest heap, without ArrayBuffers. Node gives at most as much as the calling thread may have;
   * a
   *   browser limits the heap itself
   */
  startThread(code: ThreadCode, heapBytes: number): Promise<Thread>;
  /**
   * Runs `work`, which may not wait for anything, and breaks it off when it takes longer, also inside a regular
   * expression. A call costs about 0.1 ms. A browser cannot break anything off: there, `work` runs until it ends, and a
   * page that wants a limit runs this program in a worker and terminates that.
   *
   * @throws OutOfTimeError when the time is up; what `work` throws
   */
  withinTime<T>(milliseconds: number, work: () => T): T;
  /** A variable of the environment; undefined if it is not set or empty, or if the host has no environment. */
  environment(name: string): string | undefined;
  homeFolder(): string;
  /** The name of this machine; "browser" where the host does not tell. */
  hostName(): string;
  /** How many threads can work at the same time. */
  processors(): number;
  /** The folder for files that are needed for a while only. */
  temporaryFolder(): string;
  /** Bytes of this machine's memory; undefined if the host does not tell. */
  hostMemoryBytes(): number | undefined;
  /** The folder for files that can be made again; it need not exist yet. */
  cacheFolder(): string;
  joinPath(...parts: string[]): string;
  baseName(path: string): string;
  /** The path from the root on, independent of the working folder. */
  absolutePath(path: string): string;

  /** Throws ResourceError where the package @huggingface/hub, which is optional, is not installed. */
  loadHubClient(): Promise<HubClient>;
  /** Undefined if the host has no file system to keep downloads in. */
  readonly cacheFiles: CacheFiles | undefined;
}
