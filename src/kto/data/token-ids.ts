/**
 * The token ids of many rows, each held once: in few large blocks that are written to a cache file as they are, with
 * views into them for the rows' examples. The texts that they came from can be forgotten.
 */
import type { EncodedRow } from "./encode.ts";

const magic = 0x4b544f49;
/** 1 MiB; a longer text has a block of its own. */
const blockWords = 1 << 18;
const rowWords = 3;

/** A row whose ids lie in a block. */
export interface StoredRow extends EncodedRow {
  readonly promptIds: Uint32Array<ArrayBuffer>;
  readonly completionIds: Uint32Array<ArrayBuffer>;
}

export class TokenIdStore {
  /** [flags, prompt tokens, completion tokens] of each row. */
  readonly #rows = new Words();
  readonly #ids = new Words();

  /** Copies a row's ids; what is given back stays. */
  add({ promptIds, completionIds, aligned, promptIsPrefix }: EncodedRow): StoredRow {
    const flags = (aligned ? 1 : 0) | (promptIsPrefix ? 2 : 0);
    this.#rows.add([flags, promptIds.length, completionIds.length]);
    return {
      promptIds: this.#ids.add(promptIds),
      completionIds: this.#ids.add(completionIds),
      aligned,
      promptIsPrefix,
    };
  }

  /** [magic, number of rows], all entries of rows, all ids, as 32-bit words in parts that follow each other. */
  body(): Uint8Array[] {
    const header = Uint32Array.of(magic, this.#rows.length / rowWords);
    return [header, ...this.#rows.parts(), ...this.#ids.parts()].map(
      ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength),
    );
  }
}

/** The rows of a body, one after another, as views into it; undefined if it is not one of so many rows. */
export function storedRows(words: Uint32Array<ArrayBuffer>, count: number): Generator<StoredRow> | undefined {
  return words[0] === magic && words[1] === count ? rowsIn(words, count) : undefined;
}

function* rowsIn(words: Uint32Array<ArrayBuffer>, count: number): Generator<StoredRow> {
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

/** A list of 32-bit words that grows by blocks and never moves. */
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
