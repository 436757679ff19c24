/**
 * The seam between what ranks compute together and what carries their bytes: a rank, and five collective calls that
 * move bytes and add nothing. Sums are `sums.ts`'s, in an order that no transport can change. This knows no transport:
 * Open MPI is one (`mpi.ts`), the tests have one of several ranks in one process.
 *
 * All ranks make the same calls in the same order with the same lengths. A call may be made before an earlier one is
 * done: the transport runs them in the order in which they were made. What a transport was given must not change until
 * its promise is done. A call rejects with the sentence of the fault where another rank is lost; the communicator is of
 * no use after that.
 */

/**
 * Bytes of gradients from which on finished parameters are sent, and those that are read back at once: latency is small
 * then.
 */
export const PIECE_BYTES = 2 ** 24;

export interface Communicator {
  /** This rank, from 0. */
  readonly rank: number;
  /** How many ranks there are, 1 or more. */
  readonly size: number;

  /**
   * Gives every rank the bytes of all (MPI_Allgather).
   *
   * @param own bytes of this rank, as many on every rank
   * @param all size * own.byteLength bytes, which are filled in the order of ranks; not overlapping `own`
   */
  allGather(own: Uint8Array, all: Uint8Array): Promise<void>;

  /**
   * Sends slice j of `own` to rank j and fills slice i of `received` with what rank i sent here (MPI_Alltoall).
   *
   * @param own `size` slices of equal lengths, the same on every rank
   * @param received as long as `own`, and not overlapping it
   */
  allToAll(own: Uint8Array, received: Uint8Array): Promise<void>;

  /** Fills `bytes` on every rank with those of the rank `root` (MPI_Bcast). */
  broadcast(bytes: Uint8Array, root: number): Promise<void>;

  /** Done once every rank has called it (MPI_Barrier). */
  barrier(): Promise<void>;
}

/** The only rank of a run without others; nothing is moved anywhere. */
export const ALONE: Communicator = {
  rank: 0,
  size: 1,
  async allGather(own, all) {
    all.set(own);
  },
  async allToAll(own, received) {
    received.set(own);
  },
  async broadcast() {},
  async barrier() {},
};
