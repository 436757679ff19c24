/**
 * The lines of a file that is written while it is read. A line counts once its end is there; what was read before is
 * not read again, unless the file is another one by now (a run that was started again, or cut back when it was resumed).
 */
import { platform } from "../engine/platform/index.ts";
import type { FileSource } from "../engine/platform/platform.ts";

/** Bytes that are read at once. */
const PIECE_BYTES = 2 ** 22;
/** Bytes before the place where reading goes on by which a file is known again. */
const KNOWN_BYTES = 256;
const NEWLINE = 10;

/** A whole line, and where its bytes lie. */
export interface FoundLine {
  readonly text: string;
  readonly offset: number;
  readonly length: number;
}

export class GrowingLines {
  readonly path: string;
  readonly #files: FileSource;
  #offset = 0;
  /** Whether the bytes up to the next newline are the rest of a line that is too long. */
  #skips = false;
  #known: Uint8Array = new Uint8Array(0);

  constructor(path: string, files: FileSource = platform) {
    this.path = path;
    this.#files = files;
  }

  /**
   * Gives `take` the lines that have come since the last call.
   *
   * @param restart called before them where the file is another one, and all of its lines come
   * @returns whether there was news
   * @throws FileError for a file that is there and cannot be read
   */
  async read(take: (line: FoundLine) => void, restart: () => void): Promise<boolean> {
    if ((await this.#files.exists(this.path)) !== "file") return this.#forget(restart);
    const file = await this.#files.openFile(this.path);
    try {
      let news = false;
      if (!(await this.#knows(file))) news = this.#forget(restart);
      while (this.#offset < file.size) {
        const bytes = await file.read(this.#offset, Math.min(PIECE_BYTES, file.size - this.#offset));
        const end = bytes.lastIndexOf(NEWLINE) + 1;
        if (end === 0) {
          // A line longer than a piece is none of a run's: neither its beginning nor its end counts.
          if (bytes.length < PIECE_BYTES) break;
          this.#skips = true;
          this.#advance(bytes);
          continue;
        }
        const whole = bytes.subarray(0, end);
        this.#split(whole, take);
        this.#advance(whole);
        news = true;
      }
      return news;
    } finally {
      await file.close();
    }
  }

  /** The text at a place that `read` has told. */
  async textAt({ offset, length }: Pick<FoundLine, "offset" | "length">): Promise<string> {
    const file = await this.#files.openFile(this.path);
    try {
      return new TextDecoder().decode(await file.read(offset, length));
    } finally {
      await file.close();
    }
  }

  #split(bytes: Uint8Array, take: (line: FoundLine) => void): void {
    const decoder = new TextDecoder();
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(NEWLINE, start);
      const text = decoder.decode(bytes.subarray(start, end));
      if (!this.#skips) take({ text, offset: this.#offset + start, length: end - start });
      this.#skips = false;
      start = end + 1;
    }
  }

  #advance(bytes: Uint8Array): void {
    this.#offset += bytes.length;
    const joined = new Uint8Array(this.#known.length + Math.min(bytes.length, KNOWN_BYTES));
    joined.set(this.#known);
    joined.set(bytes.subarray(-KNOWN_BYTES), this.#known.length);
    this.#known = joined.slice(-KNOWN_BYTES);
  }

  async #knows(file: { readonly size: number; read(offset: number, length: number): Promise<Uint8Array> }) {
    if (file.size < this.#offset) return false;
    const { length } = this.#known;
    if (length === 0) return true;
    const now = await file.read(this.#offset - length, length);
    return this.#known.every((byte, at) => now[at] === byte);
  }

  #forget(restart: () => void): boolean {
    if (this.#offset === 0) return false;
    this.#offset = 0;
    this.#skips = false;
    this.#known = new Uint8Array(0);
    restart();
    return true;
  }
}
