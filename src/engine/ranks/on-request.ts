/**
 * What rank 0 asks of all ranks while it writes a file that it alone can write: each rank has the same list of sources,
 * and gives the bytes of the one that is asked for. The others serve until rank 0 has done its work, or failed.
 */
import type { Communicator } from "./communicator.ts";
import { gatherBytes } from "./sums.ts";

/** Bytes of this rank, of any length; read only when they are asked for. */
export type Source = () => Promise<Uint8Array>;

const END = -1;

export class OnRequest {
  readonly #ranks: Communicator;
  readonly #sources: Source[] = [];

  constructor(ranks: Communicator) {
    this.#ranks = ranks;
  }

  /** Adds a source, in the same order on every rank. @returns its number */
  add(source: Source): number {
    return this.#sources.push(source) - 1;
  }

  /** The bytes of every rank in their order. Rank 0 asks, within its work. */
  async ask(source: number): Promise<Uint8Array[]> {
    await this.#tell(source);
    return await this.#give(source);
  }

  /** Every rank calls this; rank 0 does its work meanwhile, in which it may `ask`. */
  async during(work: () => Promise<void>): Promise<void> {
    if (this.#ranks.rank === 0) {
      try {
        await work();
      } finally {
        await this.#tell(END);
      }
      return;
    }
    for (;;) {
      const source = await this.#tell(END);
      if (source === END) return;
      await this.#give(source);
    }
  }

  async #tell(source: number): Promise<number> {
    const number = Int32Array.of(source);
    await this.#ranks.broadcast(new Uint8Array(number.buffer), 0);
    return number[0] ?? END;
  }

  async #give(source: number): Promise<Uint8Array[]> {
    const own = this.#sources[source];
    if (own === undefined) throw new Error(`there is no source ${source}`);
    return await gatherBytes(this.#ranks, await own());
  }
}
