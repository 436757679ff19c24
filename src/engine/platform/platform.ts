/**
 * What differs between hosts: where the GPU object comes from, how files are read by ranges and written whole.
 * `node.ts` and `browser.ts` implement it; `index.ts` exports the Node one and bundlers swap in the other through the
 * "browser" field of package.json. Nothing else in kernels, engine or kto may import from `node:`.
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

/** Where an adapter comes from, in the order of preference of `auto`. */
export type AdapterKind = "hardware" | "lavapipe" | "swiftshader" | "software";

/** One adapter as found. A GPUAdapter gives one device only: ask again for another. */
export interface FoundAdapter {
  readonly adapter: GPUAdapter;
  readonly kind: AdapterKind;
  /** For people: vendor, device, driver as the adapter tells them. */
  readonly description: string;
}

/** A file that grows at its end. */
export interface GrowingFile {
  readonly path: string;
  /** Bytes in the file, those of earlier runs included. */
  readonly size: number;
  append(chunk: Uint8Array): Promise<void>;
  /** Takes away everything that was written. */
  empty(): Promise<void>;
  /** Syncs to the disk and closes. */
  close(): Promise<void>;
}

/**
 * What a cache of downloads on a real file system needs besides reading and writing whole files. All of it throws
 * FileError.
 */
export interface CacheFiles {
  /** Milliseconds since 1970, or undefined if the file is not there. */
  modifiedMs(path: string): Promise<number | undefined>;
  /** Creates the file if it is absent, keeps what it holds if not. */
  openGrowing(path: string): Promise<GrowingFile>;
  /** A relative symbolic link at `path` to the file `target`; a copy where the file system has no links. */
  linkOrCopy(target: string, path: string): Promise<void>;
  /** Replaces what is at `to`. False if there is nothing at `from` (any more). */
  rename(from: string, to: string): Promise<boolean>;
  /** Lower-case hexadecimal digest of `prefix` and the file's bytes. */
  digest(path: string, algorithm: "sha256" | "sha1", prefix?: string): Promise<string>;
  /** Names this process among those that share the file system; letters, digits and "." only. */
  readonly processName: string;
  /** Whether the process of that name is known to have ended. One on another machine never is. */
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
  /** In hexadecimal; ends the hash. */
  digest(): string;
}

export interface Platform {
  /**
   * The best adapter: hardware, else lavapipe, else SwiftShader. `selector` is "auto" (default), a kind, an index
   * into `listAdapters()`, or a part of the description. Throws AdapterError with the remedy when there is none.
   */
  requestAdapter(selector?: string): Promise<FoundAdapter>;
  /** Every adapter that can be opened here, best first, without opening a device. */
  listAdapters(): Promise<FoundAdapter[]>;
  /** The outcome of a promise of the GPU, waited for without taking a core. */
  withoutSpinning<T>(promise: Promise<T>): Promise<T>;

  exists(path: string): Promise<"file" | "folder" | undefined>;
  /** Names in a folder, sorted. */
  list(folder: string): Promise<string[]>;
  openFile(path: string): Promise<ReadableFile>;
  readText(path: string): Promise<string>;
  makeFolder(path: string): Promise<void>;
  /** Writes to a temporary name in the same folder, syncs, renames: a reader sees the old file or the new one. */
  writeFileAtomic(path: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array> | string): Promise<void>;
  /** Adds text at the end of a file, creating it. */
  appendText(path: string, text: string): Promise<void>;
  /** Removes a file; content if there is none. */
  removeFile(path: string): Promise<void>;
  /** Removes a folder with all that it holds; content if there is none. */
  removeFolder(path: string): Promise<void>;
  /**
   * Gives a folder another name beside its present one, which nothing may have yet. At once where the host can do that,
   * as Node's can; a browser copies the files in the order of `list`, then removes the old ones.
   */
  renameFolder(from: string, to: string): Promise<void>;
  /**
   * Makes a file that says that this process has what it stands for, until it is released or the process ends. One whose
   * process is known to have ended is taken over.
   */
  holdFile(path: string): Promise<HeldFile>;
  /** Throws FileError now, with the reason, if files cannot be created in this folder (creating it if absent). */
  checkWritable(folder: string): Promise<void>;
  sha256(): Sha256;
  /**
   * What gzip or Brotli packed. More than `length` bytes are refused, on Node before memory is taken for them; what is
   * thrown is the host's error.
   */
  decompress(format: "gzip" | "brotli", bytes: Uint8Array, length: number): Uint8Array;
  /**
   * Runs `work`, which may not wait for anything, and breaks it off when it takes longer, also inside a regular expression.
   * A call costs about 0.1 ms. A browser cannot break anything off: there, `work` runs until it ends, and a page that
   * wants a limit runs this program in a worker and terminates that.
   *
   * @throws OutOfTimeError when the time is up; what `work` throws
   */
  withinTime<T>(milliseconds: number, work: () => T): T;
  /** A variable of the environment; undefined if it is not set or empty, or where there is no environment. */
  environment(name: string): string | undefined;
  homeFolder(): string;
  /** Where files may lie for a while. */
  temporaryFolder(): string;
  /** Bytes of this machine's memory; undefined where the host does not tell. */
  hostMemoryBytes(): number | undefined;
  /** Where files may lie that can be made again; it need not exist yet. */
  cacheFolder(): string;
  joinPath(...parts: string[]): string;
  baseName(path: string): string;
  /** The same place named so that it does not hang on a working folder. */
  absolutePath(path: string): string;

  /** Undefined where there is no file system to keep downloads in. */
  readonly cacheFiles: CacheFiles | undefined;
}
