/**
 * A rank among others, over the machine's own MPI: the collective calls that move bytes, and the faults of other ranks.
 * All of MPI runs in a thread (`node-mpi-worker.ts`), which gets the addresses of the bytes: nothing is copied, and the
 * event loop stays free.
 */

import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import type { Worker } from "node:worker_threads";
import { errorMessage, RankError, ResourceError } from "../../errors.ts";
import { commit } from "./node-commit.ts";
import type { Launch } from "./node-launch.ts";
import type { CollectiveCall } from "./node-mpi-collectives.ts";
import { LIBC, loadKoffi } from "./node-mpi-library.ts";
import type { RankNews, RankRequest } from "./node-mpi-worker.ts";
import { duplicateBy } from "./node-native-stderr.ts";
import { startOf } from "./node-processes.ts";
import { abandonWorker, openWorker } from "./node-thread.ts";
import { ownManifest } from "./node-versions.ts";
import { nameOf, PULSE, type RankFault, type RankMember, speakerOf } from "./rank-watch.ts";

/** How often the program shows that it moves. */
const PULSE_MS = 100;
/** How long MPI has for the end of all ranks. */
const LONGEST_ABORT_MS = 10_000;
/** How long ranks may take to start and meet. */
const MEETING_MS = 300_000;
/** What MPI counts with is an int. */
const MOST_BYTES = 2 ** 31 - 1;

export interface RankListeners {
  /**
   * The run has ended on all ranks: pending calls and later ones reject.
   *
   * @param speaks whether this rank is the one that tells the user
   */
  readonly onFault: (fault: RankFault, speaks: boolean) => void;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  /** Holds the bytes until MPI is done with them. */
  readonly bytes: readonly Uint8Array[];
}

/** This process among the ranks of its run. Its collective calls are those of `Communicator`. */
export class RankLink {
  readonly rank: number;
  readonly size: number;
  /** All ranks, this one included, by their numbers. */
  readonly members: readonly RankMember[];
  /** The library of MPI, such as "Open MPI v4.1.4". */
  readonly library: string;
  readonly #worker: Worker;
  readonly #addressOf: (bytes: Uint8Array) => bigint;
  readonly #pulse: Int32Array;
  readonly #beating: NodeJS.Timeout;
  readonly #listeners: RankListeners;
  readonly #waiting = new Map<number, Waiting>();
  #calls = 0;
  #fault: RankFault | undefined;
  #onSpoken: (() => void)[] = [];
  #isSpoken = false;
  #onExamined: (() => void)[] = [];
  #onLeft: (() => void) | undefined;

  private constructor(
    launch: Launch,
    started: RankNews & { kind: "started" },
    parts: {
      readonly worker: Worker;
      readonly pulse: Int32Array;
      readonly beating: NodeJS.Timeout;
      readonly addressOf: (bytes: Uint8Array) => bigint;
    },
    listeners: RankListeners,
  ) {
    this.rank = launch.rank;
    this.size = launch.size;
    this.members = started.members;
    this.library = started.library;
    this.#worker = parts.worker;
    this.#pulse = parts.pulse;
    this.#beating = parts.beating;
    this.#addressOf = parts.addressOf;
    this.#listeners = listeners;
  }

  /**
   * Loads MPI and meets the other ranks, which must do the same.
   *
   * @param timeoutMs how long a rank may be silent, or not move, before the run ends
   * @throws ResourceError where koffi or MPI are missing or do not fit the launcher
   * @throws RankError where not all ranks come within five minutes; MPI may then hold its thread for ever
   */
  static async join(launch: Launch, timeoutMs: number, listeners: RankListeners): Promise<RankLink> {
    const koffi = await loadKoffi();
    const libc = koffi.load(LIBC);
    duplicateBy({ dup: libc.func("dup", "int", ["int"]), dup2: libc.func("dup2", "int", ["int", "int"]) });
    const shared = new SharedArrayBuffer(4 * Object.keys(PULSE).length);
    const pulse = new Int32Array(shared);
    const beating = setInterval(() => Atomics.add(pulse, PULSE.program, 1), PULSE_MS);
    beating.unref();
    const worker = openWorker(new URL("./node-mpi-worker.js", import.meta.url));
    let link: RankLink | undefined;
    try {
      const started = await new Promise<RankNews & { kind: "started" }>((resolve, reject) => {
        const late = () => reject(new RankError(`the ranks did not meet within ${MEETING_MS / 1000} s.`));
        setTimeout(late, MEETING_MS).unref();
        worker.on("message", (news: RankNews | "ready") => {
          if (news === "ready") {
            const request: RankRequest = { kind: "start", launch, self: self(), timeoutMs, pulse: shared };
            worker.postMessage(request);
          } else if (news.kind === "started") resolve(news);
          else if (news.kind === "refused") reject(new ResourceError(news.sentence));
          else if (link !== undefined) link.#hear(news);
        });
        worker.on("error", (error) => {
          reject(error);
          if (link !== undefined) link.#lose(error);
        });
      });
      const parts = { worker, pulse, beating, addressOf: (bytes: Uint8Array) => koffi.address(bytes) };
      link = new RankLink(launch, started, parts, listeners);
      return link;
    } catch (error) {
      clearInterval(beating);
      const exit = libc.func("_exit", "void", ["int"]);
      abandonWorker(worker, (code) => void exit(code));
      throw error;
    }
  }

  /** See Communicator.allGather. */
  async allGather(own: Uint8Array, all: Uint8Array): Promise<void> {
    if (all.byteLength !== this.size * own.byteLength) throw new Error("all-gather of lengths that do not fit");
    await this.#call({ kind: "allGather", from: this.#place(own), to: this.#place(all) }, own, all);
  }

  /** See Communicator.allToAll. */
  async allToAll(own: Uint8Array, received: Uint8Array): Promise<void> {
    if (received.byteLength !== own.byteLength || own.byteLength % this.size !== 0)
      throw new Error("all-to-all of lengths that do not fit");
    await this.#call({ kind: "allToAll", from: this.#place(own), to: this.#place(received) }, own, received);
  }

  /** See Communicator.broadcast. */
  async broadcast(bytes: Uint8Array, root: number): Promise<void> {
    await this.#call({ kind: "broadcast", to: this.#place(bytes), root }, bytes);
  }

  /** See Communicator.barrier. */
  async barrier(): Promise<void> {
    await this.#call({ kind: "barrier" });
  }

  /** What ended the run, once something has. */
  get fault(): RankFault | undefined {
    return this.#fault;
  }

  /** "rank 1 (host b, process 4242)". */
  nameOf(rank: number): string {
    const member = this.members[rank];
    return member === undefined ? `rank ${rank}` : nameOf(member);
  }

  /** How long a rank may be silent from now on. */
  set timeoutMs(timeoutMs: number) {
    this.#ask({ kind: "timeout", timeoutMs });
  }

  /** This rank has failed: all ranks end with this exit code. Only the first fault of a run counts. */
  fail(sentence: string, exitCode: number): void {
    this.#ask({ kind: "fail", sentence, exitCode });
  }

  /** This rank has told the user of the fault. */
  spoke(): void {
    this.#ask({ kind: "spoken" });
  }

  /** Done when some rank has told the user of the fault. */
  async spoken(): Promise<void> {
    if (!this.#isSpoken) await new Promise<void>((resolve) => this.#onSpoken.push(resolve));
  }

  /**
   * Looks closely at the other ranks for a moment, after a signal that a launcher sends when a rank has died.
   *
   * @returns what happened to another rank, if something did
   */
  async examine(): Promise<RankFault | undefined> {
    if (this.#fault === undefined) {
      const examined = new Promise<void>((resolve) => this.#onExamined.push(resolve));
      this.#ask({ kind: "examine" });
      await examined;
    }
    return this.#fault;
  }

  /** Done when all ranks have come here; MPI is over then. Not after a fault. */
  async leave(): Promise<void> {
    const left = new Promise<void>((resolve) => {
      this.#onLeft = resolve;
    });
    this.#ask({ kind: "leave" });
    await left;
    clearInterval(this.#beating);
    await this.#worker.terminate();
    if (this.#fault !== undefined) throw errorOf(this.#fault);
  }

  /** Ends all ranks and this process, once the user was told of the fault. */
  abort(exitCode: number): Promise<never> {
    this.#ask({ kind: "abort", exitCode });
    // Where the thread of MPI has failed, the launcher sees the process end, and ends the others.
    setTimeout(() => process.exit(exitCode), LONGEST_ABORT_MS);
    return new Promise(() => undefined);
  }

  #place(bytes: Uint8Array) {
    if (bytes.byteLength > MOST_BYTES) throw new Error(`${bytes.byteLength} bytes are too many for one call`);
    // Small arrays move until their buffer is asked for.
    return { address: bytes.buffer.byteLength === 0 ? 0n : this.#addressOf(bytes), bytes: bytes.byteLength };
  }

  #call(call: CollectiveCall, ...bytes: readonly Uint8Array[]): Promise<void> {
    const id = this.#calls++;
    const done = new Promise<void>((resolve, reject) => {
      if (this.#fault === undefined) this.#waiting.set(id, { resolve, reject, bytes });
      else reject(errorOf(this.#fault));
    });
    done.catch(() => undefined); // whoever asked may look at it later
    this.#ask({ kind: "call", id, call });
    return done;
  }

  #ask(request: RankRequest): void {
    this.#worker.postMessage(request);
    Atomics.add(this.#pulse, PULSE.wake, 1);
    Atomics.notify(this.#pulse, PULSE.wake);
  }

  #hear(news: RankNews): void {
    switch (news.kind) {
      case "done":
        for (const id of news.ids) {
          this.#waiting.get(id)?.resolve();
          this.#waiting.delete(id);
        }
        break;
      case "fault":
        this.#end(news.fault, speakerOf(news.fault) === this.rank);
        break;
      case "speak":
        this.#listeners.onFault(news.fault, true);
        break;
      case "spoken":
        this.#isSpoken = true;
        for (const resolve of this.#onSpoken.splice(0)) resolve();
        break;
      case "examined":
        for (const resolve of this.#onExamined.splice(0)) resolve();
        break;
      case "left":
        this.#onLeft?.();
        break;
    }
  }

  #end(fault: RankFault, speaks: boolean): void {
    this.#fault = fault;
    const error = errorOf(fault);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    for (const resolve of this.#onExamined.splice(0)) resolve();
    this.#onLeft?.();
    this.#listeners.onFault(fault, speaks);
  }

  /** The thread of MPI has failed. */
  #lose(error: unknown): void {
    const sentence = `the thread of MPI failed: ${errorMessage(error)}`;
    if (this.#fault === undefined)
      this.#end({ ranks: [this.rank], gone: false, sentence, exitCode: 1, from: this.rank }, true);
  }
}

/** What the calls of the other ranks reject with. */
function errorOf({ sentence, exitCode }: RankFault): RankError {
  return new RankError(sentence, { exitCode });
}

function self(): Omit<RankMember, "rank"> {
  const { version } = ownManifest();
  const made = commit();
  return {
    host: hostname(),
    pid: process.pid,
    started: startOf(process.pid),
    machine: machineName(),
    version: made === null ? version : `${version} (${made})`,
  };
}

/** Equal for processes that see each other's numbers: the same boot of one machine, the same space of processes. */
function machineName(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}
