/**
 * Collective calls in the order in which they were asked for: at most two are in progress at once, so that the first is
 * done first. They only move bytes. MPI's calls that wait would take a whole core, so whoever has this asks `advance`
 * again and again.
 */
import type { AddressedBytes, MpiCommunicator, MpiLibrary, MpiRequest } from "./node-mpi-library.ts";

/** A call with the places of its bytes. */
export type CollectiveCall =
  | { readonly kind: "allGather" | "allToAll"; readonly from: AddressedBytes; readonly to: AddressedBytes }
  | { readonly kind: "broadcast"; readonly to: AddressedBytes; readonly root: number }
  | { readonly kind: "barrier" };

interface Asked {
  readonly id: number;
  readonly call: CollectiveCall;
}

/** More would share the link with the one that is waited for. */
const AT_ONCE = 2;

export class Collectives {
  readonly #mpi: MpiLibrary;
  readonly #communicator: MpiCommunicator;
  readonly #size: number;
  readonly #asked: Asked[] = [];
  #running: { readonly id: number; readonly request: MpiRequest }[] = [];

  constructor(mpi: MpiLibrary, size: number) {
    this.#mpi = mpi;
    this.#communicator = mpi.communicator();
    this.#size = size;
  }

  /** Calls that are not done. */
  get pending(): number {
    return this.#asked.length + this.#running.length;
  }

  add(id: number, call: CollectiveCall): void {
    this.#asked.push({ id, call });
  }

  /** Begins what may begin. @returns the calls that are done now */
  advance(): number[] {
    const done: number[] = [];
    this.#running = this.#running.filter(({ id, request }) => {
      const isDone = this.#mpi.isDone(request);
      if (isDone) done.push(id);
      return !isDone;
    });
    while (this.#running.length < AT_ONCE) {
      const next = this.#asked.shift();
      if (next === undefined) break;
      this.#running.push({ id: next.id, request: this.#begin(next.call) });
    }
    return done;
  }

  #begin(call: CollectiveCall): MpiRequest {
    const communicator = this.#communicator;
    switch (call.kind) {
      case "allGather":
        return communicator.allGather(call.from, call.to, call.from.bytes);
      case "allToAll":
        return communicator.allToAll(call.from, call.to, call.from.bytes / this.#size);
      case "broadcast":
        return communicator.broadcast(call.to, call.root);
      case "barrier":
        return communicator.barrier();
    }
  }
}
