/**
 * Stores the token ids of many rows in a few large blocks. The rows' examples are views into the blocks, and a cache
 * file has the blocks as they are, so that each id is in memory only once.
 */
import type { EncodedRow } from "./encode.ts";

const magic = 0x4b544f49;
/** Words of a block (1 MiB). A longer list of ids gets its own block. */
const blockWords = 1 << 18;
const rowWords = 3;

export class TokenIdStore {
  /** Three words for each row: flags, number of prompt tokens, number of completion tokens. */
  readonly #rows = new Words();
  readonly #ids = new Words();

  /** Copies a row's ids into the store. The views returned stay valid. */
  add({ promptIds, completionIds, aligned, promptIsPrefix }: EncodedRow): EncodedRow {
    const flags = (aligned ? 1 : 0) | (promptIsPrefix ? 2 : 0);
    this.#rows.add([flags, promptIds.length, completionIds.length]);
    return {
      promptIds: this.#ids.add(promptIds),
      completionIds: this.#ids.add(completionIds),
      aligned,
      promptIsPrefix,
    };
  }

  /** The contents of a cache file, in parts, as 32-bit words: magic, number of rows, three words a row, all ids. */
  body(): Uint8Array[] {
    const header = Uint32Array.of(magic, this.#rows.length / rowWords);
    return [header, ...this.#rows.parts(), ...this.#ids.parts()].map(
      ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength),
    );
  }
}

/** Reads the rows of a cache file as views into it. Returns undefined if it does not hold `count` rows. */
export function storedRows(words: Uint32Array<ArrayBuffer>, count: number): Generator<EncodedRow> | undefined {
  return words[0] === magic && words[1] === count ? rowsIn(words, count) : undefined;
}

function* rowsIn(words: Uint32Array<ArrayBuffer>, count: number): Generator<EncodedRow> {
  let at = 2 + rowWords * count;
  const take = (length: number) => {
    at += length;
    return words.subarray(at - length, at);
  };
  for (let i = 0; i < count; i++) {
    const [flags = 0, promptLength = 0, completionLength = 0] = words.subarray(2 + rowWords * i);
    yield {
      promptIds: take(promptLength),
      completionIds: take(completionLength),
      aligned: (flags & 1) !== 0,
      promptIsPrefix: (flags & 2) !== 0,
    };
  }
}

/** A growing list of 32-bit words, in blocks that are never moved. */
class Words {
  readonly #full: Uint32Array<ArrayBuffer>[] = [];
  #block = new Uint32Array(0);
  #used = 0;
  length = 0;

  add(values: ArrayLike<number>): Uint32Array<ArrayBuffer> {
    if (this.#used + values.length > this.#block.length) {
      if (this.#used > 0) this.#full.push(this.#block.subarray(0, this.#used));
      this.#block = new Uint32Array(Math.max(blockWords, values.length));
      this.#used = 0;
    }
    const view = this.#block.subarray(this.#used, this.#used + values.length);
    view.set(values);
    this.#used += values.length;
    this.length += values.length;
    return view;
  }

  parts(): Uint32Array<ArrayBuffer>[] {
    return [...this.#full, this.#block.subarray(0, this.#used)];
  }
}
