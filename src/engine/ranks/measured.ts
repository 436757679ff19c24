/** A communicator that knows how long its calls took, so that a run can say which rank the others wait for. */
import type { Communicator } from "./communicator.ts";

export class MeasuredRanks implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly #ranks: Communicator;
  #ms = 0;
  #underWay = 0;
  #since = 0;

  constructor(ranks: Communicator) {
    this.#ranks = ranks;
    this.rank = ranks.rank;
    this.size = ranks.size;
  }

  /** Milliseconds in which calls were under way, waiting for slower ranks included, since this was last asked. */
  takeMs(): number {
    const ms = this.#ms;
    this.#ms = 0;
    return ms;
  }

  async #measure(call: Promise<void>): Promise<void> {
    if (this.#underWay++ === 0) this.#since = performance.now();
    try {
      await call;
    } finally {
      if (--this.#underWay === 0) this.#ms += performance.now() - this.#since;
    }
  }

  allGather(own: Uint8Array, all: Uint8Array): Promise<void> {
    return this.#measure(this.#ranks.allGather(own, all));
  }

  allToAll(own: Uint8Array, received: Uint8Array): Promise<void> {
    return this.#measure(this.#ranks.allToAll(own, received));
  }

  broadcast(bytes: Uint8Array, root: number): Promise<void> {
    return this.#measure(this.#ranks.broadcast(bytes, root));
  }

  barrier(): Promise<void> {
    return this.#measure(this.#ranks.barrier());
  }
}
