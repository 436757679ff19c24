/**
 * A folder of files that can be made again. Each is named by a hash of everything that its content depends on, and ends
 * in a digest of that content, so that an entry is found whole or not at all. The oldest are removed beyond a number
 * and a size. What the entries hold is up to the users.
 */
import { FileError } from "../../errors.ts";
import { platform } from "../platform/index.ts";

const digestLength = 64;
/** The newest files are kept, up to both limits. */
const keptFiles = 32;
const keptBytes = 2 ** 31;

export class EntryCache {
  readonly #name: string;
  readonly #ending: string;

  /**
   * @param name of the folder within the cache folder
   * @param ending of its files, dot included
   */
  constructor(name: string, ending: string) {
    this.#name = name;
    this.#ending = ending;
  }

  /** Determined at each use, since the environment can change. */
  get #folder(): string {
    return platform.joinPath(platform.cacheFolder(), this.#name);
  }

  /** The entry of this key; undefined if there is none that is whole and can be read. */
  async read(key: string): Promise<{ readonly path: string; readonly body: Uint8Array<ArrayBuffer> } | undefined> {
    return await this.#read(key).catch(unlessFileError);
  }

  async #read(key: string) {
    const name = (await this.#entries()).findLast((entry) => entry.endsWith(`-${key}${this.#ending}`));
    if (name === undefined) return undefined;
    const path = platform.joinPath(this.#folder, name);
    const file = await platform.openFile(path);
    try {
      const bodyLength = file.size - digestLength;
      if (bodyLength <= 0 || bodyLength % 4 !== 0) return undefined;
      const body = await file.read(0, bodyLength);
      const written = new TextDecoder().decode(await file.read(bodyLength, digestLength));
      return written === digestOf(key, body) ? { path, body } : undefined;
    } finally {
      await file.close();
    }
  }

  /**
   * Stores an entry and removes old ones.
   *
   * @param body the parts of the entry, in order; together their length is a multiple of 4
   * @returns the path of the entry
   * @throws FileError if it cannot be written
   */
  async write(key: string, ...body: readonly Uint8Array[]): Promise<string> {
    const length = body.reduce((sum, part) => sum + part.length, 0);
    if (length > keptBytes) throw new FileError(`they take more than ${keptBytes / 2 ** 30} GiB.`);
    await platform.makeFolder(this.#folder);
    // The time comes first, so that sorted names are sorted by age.
    const name = `${Date.now().toString(36).padStart(9, "0")}-${key}${this.#ending}`;
    const path = platform.joinPath(this.#folder, name);
    await platform.writeFileAtomic(path, [...body, new TextEncoder().encode(digestOf(key, ...body))]);
    // Another run may be removing the same files.
    await this.#removeOld(name, key).catch(unlessFileError);
    return path;
  }

  /** Removes the entries that the newest one replaces, and those beyond the limits. */
  async #removeOld(newest: string, key: string): Promise<void> {
    let files = 0;
    let bytes = 0;
    for (const name of (await this.#entries()).reverse()) {
      const path = platform.joinPath(this.#folder, name);
      const file = await platform.openFile(path);
      await file.close();
      files++;
      bytes += file.size;
      const replaced = name !== newest && name.endsWith(`-${key}${this.#ending}`);
      if (replaced || files > keptFiles || bytes > keptBytes) await platform.removeFile(path);
    }
  }

  /** The names of all entries, the oldest first. */
  async #entries(): Promise<string[]> {
    if ((await platform.exists(this.#folder)) !== "folder") return [];
    return (await platform.list(this.#folder)).filter((name) => name.endsWith(this.#ending));
  }
}

function digestOf(key: string, ...body: readonly Uint8Array[]): string {
  const hash = platform.sha256();
  hash.update(new TextEncoder().encode(key));
  for (const part of body) hash.update(part);
  return hash.digest();
}

/** For `catch`: a file that cannot be read or written counts as absent; every other error is thrown on. */
export function unlessFileError(error: unknown): undefined {
  if (!(error instanceof FileError)) throw error;
}
