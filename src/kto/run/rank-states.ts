/**
 * What each rank of a run has by itself, in one file of a checkpoint (ranks.safetensors) that rank 0 writes and reads:
 * raw words under the rank's number and a name. Such a run goes on with as many ranks alone.
 */
import type { TensorToWrite } from "../../engine/files/safetensors.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { OnRequest } from "../../engine/ranks/on-request.ts";
import { bytesFromFirst } from "../../engine/ranks/sums.ts";

export const RANKS_FILE = "ranks.safetensors";

/** Words of 4 bytes that every rank has of its own. */
export interface RankState {
  readonly name: string;
  /** Whether rank 0's are in the file too, or elsewhere in the checkpoint. */
  readonly isOfAll: boolean;
  /** Whether it differs between ranks now; default always. */
  readonly isNeeded?: () => boolean;
  readonly words: (rank: number) => number;
  readonly read: () => Promise<Uint8Array>;
  readonly write: (bytes: Uint8Array) => void;
}

export class RankStates {
  readonly requests: OnRequest;
  readonly #ranks: Communicator;
  readonly #states: readonly { readonly state: RankState; readonly source: number }[];

  /** @param states the same on every rank but for their numbers */
  constructor(ranks: Communicator, states: readonly RankState[]) {
    this.#ranks = ranks;
    const requests = new OnRequest(ranks);
    this.requests = requests;
    this.#states = states.map((state) => ({ state, source: requests.add(state.read) }));
  }

  /** The states that are in a file now, with the ranks whose words are. */
  *#kept(): Generator<{ readonly state: RankState; readonly source: number; readonly ranks: readonly number[] }> {
    for (const { state, source } of this.#states) {
      if (state.isNeeded?.() === false) continue;
      const ranks = Array.from({ length: this.#ranks.size }, (_, rank) => rank).slice(state.isOfAll ? 0 : 1);
      if (ranks.length > 0) yield { state, source, ranks };
    }
  }

  /** What the file holds. Rank 0 writes it within the work of `requests.during`. */
  tensors(): TensorToWrite[] {
    return [...this.#kept()].flatMap(({ state, source, ranks }) => {
      let held: Promise<Uint8Array[]> | undefined;
      return ranks.map((rank, index): TensorToWrite => {
        const data = async () => {
          held ??= this.requests.ask(source);
          const bytes = (await held)[rank] ?? new Uint8Array();
          if (index === ranks.length - 1) held = undefined;
          return new Float32Array(bytes.slice().buffer);
        };
        return { name: nameOf(rank, state.name), shape: [state.words(rank)], format: "u32", data };
      });
    });
  }

  /** Bytes of the file while ranks differ in everything, without its header. */
  get bytes(): number {
    const { size } = this.#ranks;
    return this.#states.reduce((sum, { state }) => {
      const ranks = Array.from({ length: size }, (_, rank) => rank).slice(state.isOfAll ? 0 : 1);
      return sum + ranks.reduce((words, rank) => words + 4 * state.words(rank), 0);
    }, 0);
  }

  /**
   * Gives every rank its own of a file. Every rank calls it.
   *
   * @param read the words under a name, on rank 0 alone
   */
  async restore(read: ((name: string, words: number) => Promise<Uint8Array>) | undefined): Promise<void> {
    for (const { state, ranks } of this.#kept()) {
      for (const rank of ranks) {
        const bytes = await bytesFromFirst(this.#ranks, await read?.(nameOf(rank, state.name), state.words(rank)));
        if (rank === this.#ranks.rank && bytes.byteLength > 0) state.write(bytes);
      }
    }
  }
}

const nameOf = (rank: number, name: string) => `rank_${rank}.${name}`;
