/**
 * What differs between hosts: where the GPU object comes from, how files are read by ranges and written whole.
 * `node.ts` and `browser.ts` implement it; `index.ts` exports the Node one and bundlers swap in the other through the
 * "browser" field of package.json. Nothing else in kernels, engine or kto may import from `node:`.
 */

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
  /** Throws FileError now, with the reason, if files cannot be created in this folder (creating it if absent). */
  checkWritable(folder: string): Promise<void>;
  sha256(): Sha256;
  /** A variable of the environment; undefined if it is not set or empty, or where there is no environment. */
  environment(name: string): string | undefined;
  homeFolder(): string;
  /** Where files may lie that can be made again; it need not exist yet. */
  cacheFolder(): string;
  joinPath(...parts: string[]): string;
  baseName(path: string): string;
}
