/**
 * The thread that alone calls MPI: collective calls, the heartbeat, and the end of all ranks. It goes on while the
 * program computes, compiles or hangs, so a rank that is busy is not taken for a dead one. It turns as a loop of its
 * own, since MPI's waiting calls would take a whole core: it asks, sleeps for a share of the time waited so far, and
 * asks again.
 */
import { errorMessage, shortened } from "../../errors.ts";
import type { Launch } from "./node-launch.ts";
import { type CollectiveCall, Collectives } from "./node-mpi-collectives.ts";
import { LIBC, loadKoffi, loadMpi, type MpiLibrary } from "./node-mpi-library.ts";
import { LENGTHS, Mailbox } from "./node-mpi-mail.ts";
import { hasEnded } from "./node-processes.ts";
import {
  deadSentence,
  type Overdue,
  PULSE,
  type RankFault,
  type RankMember,
  RankWatch,
  silentSentence,
  speakerOf,
  stuckSentence,
} from "./rank-watch.ts";

/** What the program asks of this thread. */
export type RankRequest =
  | {
      readonly kind: "start";
      readonly launch: Launch;
      readonly self: Omit<RankMember, "rank">;
      readonly timeoutMs: number;
      /** Words of 32 bits, see `PULSE` of rank-watch.ts. */
      readonly pulse: SharedArrayBuffer;
    }
  | { readonly kind: "timeout"; readonly timeoutMs: number }
  | { readonly kind: "call"; readonly id: number; readonly call: CollectiveCall }
  /** This rank failed. */
  | { readonly kind: "fail"; readonly sentence: string; readonly exitCode: number }
  /** This rank has told the user of the fault. */
  | { readonly kind: "spoken" }
  /** A signal came that a launcher sends when a rank has died: look closely. */
  | { readonly kind: "examine" }
  /** This rank is done; answered once all are. */
  | { readonly kind: "leave" }
  | { readonly kind: "abort"; readonly exitCode: number };

/** What this thread tells the program. */
export type RankNews =
  | { readonly kind: "started"; readonly members: readonly RankMember[]; readonly library: string }
  | { readonly kind: "refused"; readonly sentence: string }
  | { readonly kind: "done"; readonly ids: readonly number[] }
  | { readonly kind: "fault"; readonly fault: RankFault }
  /** This rank has to tell the user, since nobody else did. */
  | { readonly kind: "speak"; readonly fault: RankFault }
  | { readonly kind: "spoken" }
  | { readonly kind: "examined" }
  | { readonly kind: "left" };

/** Milliseconds between two beats, at most, and for an eighth of the timeout. */
const BEAT_MS = 250;
/** How long the thread sleeps where no collective call is in progress. */
const IDLE_MS = 25;
/** A sleep within a call, as a share of the time waited, and at most. */
const SHARE = 1 / 32;
const LONGEST_SLEEP_MS = 1;
/** How long the speaker has to tell the user, before the rank that found the fault does it itself. */
const SPEECH_MS = 1500;
/** How long the program has to come to an end after a fault. */
const GRACE_MS = 3000;
/** Seconds after which the system ends this process where MPI's own end hangs, since another rank is gone. */
const ABORT_SECONDS = 3;
const FINISH_SECONDS = 30;
/** Bytes for what a rank says of itself at the start. */
const MEMBER_BYTES = 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

class RankThread {
  readonly #mpi: MpiLibrary;
  readonly #alarm: (seconds: number) => void;
  readonly #launch: Launch;
  readonly #collectives: Collectives;
  readonly #mail: Mailbox;
  readonly #watch: RankWatch;
  readonly #pulse: Int32Array;
  #timeoutMs: number;
  #members: readonly RankMember[] = [];
  /** Answers to this thread's own collective calls, which have negative numbers. */
  readonly #own = new Map<number, () => void>();
  #ownCalls = 0;
  /** When the oldest pending call was first waited for. */
  #waitingSinceMs: number | undefined;
  #beatAtMs = 0;
  #programTicks = -1;
  #programMovedAtMs = performance.now();
  #fault: RankFault | undefined;
  #faultAtMs = 0;
  #isSpoken = false;
  #wasAskedToSpeak = false;
  #examinedSinceMs: number | undefined;
  #hasLeft = false;
  #isFinished = false;
  #abortWith: number | undefined;
  /** The next turn while nothing is waited for. */
  #later: NodeJS.Timeout | undefined;
  /** Whether the next turn comes at once. */
  #isNext = false;

  constructor(mpi: MpiLibrary, alarm: (seconds: number) => void, request: RankRequest & { kind: "start" }) {
    this.#mpi = mpi;
    this.#alarm = alarm;
    this.#launch = request.launch;
    this.#timeoutMs = request.timeoutMs;
    this.#pulse = new Int32Array(request.pulse);
    this.#collectives = new Collectives(mpi, request.launch.size);
    this.#mail = new Mailbox(mpi);
    this.#watch = new RankWatch(request.launch.rank, request.launch.size, performance.now());
  }

  /** Learns who the others are; all beat from here on. */
  async meet(self: Omit<RankMember, "rank">): Promise<void> {
    const { rank, size } = this.#launch;
    const own = new Uint8Array(MEMBER_BYTES);
    own.set(encoder.encode(JSON.stringify({ rank, ...self })).subarray(0, MEMBER_BYTES));
    const all = new Uint8Array(size * MEMBER_BYTES);
    const place = (bytes: Uint8Array) => ({ address: this.#mpi.addressOf(bytes), bytes: bytes.length });
    const met = this.#call({ kind: "allGather", from: place(own), to: place(all) });
    this.turn();
    await met;
    this.#members = Array.from({ length: size }, (_, i) => {
      const text = decoder.decode(all.subarray(i * MEMBER_BYTES, (i + 1) * MEMBER_BYTES));
      return JSON.parse(text.replaceAll("\0", "")) as RankMember;
    });
    tell({ kind: "started", members: this.#members, library: this.#mpi.version() });
  }

  receive(request: RankRequest): void {
    switch (request.kind) {
      case "start":
        throw new Error("this thread has started already");
      case "timeout":
        this.#timeoutMs = request.timeoutMs;
        break;
      case "call":
        if (this.#fault === undefined) this.#collectives.add(request.id, request.call);
        break;
      case "fail":
        this.#raise({ ranks: [this.#launch.rank], gone: false, ...request, from: this.#launch.rank });
        break;
      case "spoken":
        this.#hearSpoken();
        for (const rank of this.#others()) this.#mail.send(rank, "spoken", new Uint8Array());
        break;
      case "examine":
        this.#examinedSinceMs ??= performance.now();
        break;
      case "leave":
        void this.#call({ kind: "barrier" }).then(() => {
          this.#hasLeft = true;
        });
        break;
      case "abort":
        this.#abortWith = request.exitCode;
        break;
    }
    this.turn();
  }

  /** Does what can be done now, and comes again. */
  turn(): void {
    if (this.#isFinished) return;
    try {
      this.#turn(performance.now());
    } catch (error) {
      if (this.#fault !== undefined) throw error;
      // MPI itself fails, so the others may not hear of it; they see this process end.
      this.#raise({ ...OWN_FAULT, ranks: [this.#launch.rank], sentence: errorMessage(error), from: this.#launch.rank });
      this.#comeAgain(performance.now());
    }
  }

  #turn(nowMs: number): void {
    this.#moveCalls();
    this.#takeMail(nowMs);
    this.#beat(nowMs);
    if (this.#members.length > 0 && this.#fault === undefined && !this.#hasLeft) this.#look(nowMs);
    if (this.#fault !== undefined) this.#end(nowMs, this.#fault);
    if (this.#hasLeft && !this.#mail.isSending) {
      this.#isFinished = true;
      this.#alarm(FINISH_SECONDS);
      this.#mpi.finish();
      this.#alarm(0);
      tell({ kind: "left" });
      return;
    }
    this.#comeAgain(nowMs);
  }

  #moveCalls(): void {
    if (this.#fault !== undefined) return;
    const done = this.#collectives.advance();
    if (done.length > 0 || this.#collectives.pending === 0) this.#waitingSinceMs = undefined;
    for (const id of done) {
      this.#own.get(id)?.();
      this.#own.delete(id);
    }
    const asked = done.filter((id) => id >= 0);
    if (asked.length > 0) tell({ kind: "done", ids: asked });
  }

  #call(call: CollectiveCall): Promise<void> {
    const id = --this.#ownCalls;
    return new Promise((resolve) => {
      this.#own.set(id, resolve);
      this.#collectives.add(id, call);
    });
  }

  #takeMail(nowMs: number): void {
    for (const { from, kind, bytes } of this.#mail.take()) {
      if (kind === "beat") {
        const stuckForMs = new DataView(bytes.buffer).getFloat64(0);
        this.#watch.heard(from, stuckForMs, nowMs);
      } else if (kind === "spoken") {
        this.#hearSpoken();
      } else {
        const fault = JSON.parse(decoder.decode(bytes).replaceAll("\0", "")) as RankFault;
        if (this.#fault === undefined) this.#hearFault(fault);
      }
    }
  }

  #beat(nowMs: number): void {
    const ticks = Atomics.load(this.#pulse, PULSE.program);
    if (ticks !== this.#programTicks) {
      this.#programTicks = ticks;
      this.#programMovedAtMs = nowMs;
    }
    if (nowMs - this.#beatAtMs < Math.min(BEAT_MS, this.#timeoutMs / 8)) return;
    this.#beatAtMs = nowMs;
    const content = new Uint8Array(8);
    new DataView(content.buffer).setFloat64(0, nowMs - this.#programMovedAtMs);
    for (const rank of this.#watch.watchers) this.#mail.send(rank, "beat", content);
  }

  /** Looks for ranks that are dead, silent or stuck. */
  #look(nowMs: number): void {
    this.#watch.tick(nowMs);
    if (nowMs === this.#beatAtMs || this.#examinedSinceMs !== undefined) this.#lookForDead();
    if (this.#fault !== undefined) return;
    const overdue = this.#watch.overdue(this.#timeoutMs, nowMs);
    for (const kind of ["silent", "stuck"] as const) {
      const found = overdue.filter((one) => one.kind === kind);
      if (found.length > 0) {
        this.#raiseOverdue(found);
        return;
      }
    }
    if (this.#examinedSinceMs === undefined) return;
    const own = this.#members[this.#launch.rank];
    // Containers may see each other's processes and yet have a link between them that can break.
    const isHere = (rank: number) =>
      this.#members[rank]?.machine === own?.machine && this.#members[rank]?.host === own?.host;
    const silent = this.#watch.lookAfterSignal(nowMs - this.#examinedSinceMs, nowMs, isHere);
    if (silent === undefined) return;
    if (silent.length > 0) {
      this.#raiseOverdue(silent);
    } else {
      this.#examinedSinceMs = undefined;
      tell({ kind: "examined" });
    }
  }

  /** Processes of this machine tell their end at once. */
  #lookForDead(): void {
    const own = this.#members[this.#launch.rank];
    if (own === undefined) return;
    const dead = this.#members.filter(
      ({ rank, machine, pid, started }) => rank !== own.rank && machine === own.machine && hasEnded(pid, { started }),
    );
    if (dead.length > 0)
      this.#raiseGone(
        dead.map(({ rank }) => rank),
        deadSentence(dead),
      );
  }

  #raiseOverdue(found: readonly Overdue[]): void {
    const ranks = found.map(({ rank }) => rank);
    const forMs = Math.max(...found.map(({ forMs }) => forMs));
    const sentence = found[0]?.kind === "stuck" ? stuckSentence : silentSentence;
    this.#raiseGone(ranks, sentence(this.#membersOf(ranks), forMs));
  }

  #raiseGone(ranks: readonly number[], sentence: string): void {
    this.#raise({ ranks, gone: true, sentence, exitCode: LOST_RANK, from: this.#launch.rank });
  }

  /** Tells all other ranks. */
  #raise(fault: RankFault): void {
    if (this.#fault !== undefined) return;
    const { ranks, gone, exitCode, from } = fault;
    const sent = { ranks, gone, exitCode, from, sentence: shortened(fault.sentence, LENGTHS.fault / 4) };
    const bytes = encoder.encode(JSON.stringify(sent));
    // Those that seem to be gone too: one that was only slow then knows why the others end.
    for (const rank of this.#others()) this.#mail.send(rank, "fault", bytes);
    this.#hearFault({ ranks, gone, exitCode, from, sentence: fault.sentence });
  }

  #hearFault(fault: RankFault): void {
    this.#fault = fault;
    this.#faultAtMs = performance.now();
    tell({ kind: "fault", fault });
  }

  #hearSpoken(): void {
    if (this.#isSpoken) return;
    this.#isSpoken = true;
    tell({ kind: "spoken" });
  }

  /** After a fault: sees to it that somebody says so, and that this process ends. */
  #end(nowMs: number, fault: RankFault): void {
    const sinceMs = nowMs - this.#faultAtMs;
    const { rank } = this.#launch;
    const isLate = sinceMs > SPEECH_MS;
    if (!this.#isSpoken && isLate && fault.from === rank && speakerOf(fault) !== rank && !this.#wasAskedToSpeak) {
      this.#wasAskedToSpeak = true;
      tell({ kind: "speak", fault });
    }
    const isOver = sinceMs > GRACE_MS;
    if (!(isOver || (this.#abortWith !== undefined && (this.#isSpoken || isLate)))) return;
    // MPI's abort ends the other ranks too, hanging ones included. Where it hangs itself, the alarm ends this process.
    this.#alarm(ABORT_SECONDS);
    this.#mpi.abort(this.#abortWith ?? fault.exitCode);
  }

  #comeAgain(nowMs: number): void {
    const isWaiting = this.#collectives.pending > 0 && this.#fault === undefined;
    if (!isWaiting) {
      this.#later ??= setTimeout(() => this.#again(), this.#fault === undefined ? IDLE_MS : 1);
      return;
    }
    if (this.#isNext) return;
    this.#isNext = true;
    this.#waitingSinceMs ??= nowMs;
    const sleepMs = Math.min((nowMs - this.#waitingSinceMs) * SHARE, LONGEST_SLEEP_MS);
    const seen = Atomics.load(this.#pulse, PULSE.wake);
    if (sleepMs > 0) Atomics.wait(this.#pulse, PULSE.wake, seen, sleepMs);
    setImmediate(() => {
      this.#isNext = false;
      this.#again();
    });
  }

  #again(): void {
    clearTimeout(this.#later);
    this.#later = undefined;
    this.turn();
  }

  #others(): number[] {
    const { rank, size } = this.#launch;
    return Array.from({ length: size }, (_, i) => i).filter((one) => one !== rank);
  }

  #membersOf(ranks: readonly number[]): RankMember[] {
    return ranks.flatMap((rank) => this.#members[rank] ?? []);
  }
}

/** RankError's. */
const LOST_RANK = 11;
/** MPI fails here: ResourceError's code. */
const OWN_FAULT = { gone: false, exitCode: 10 } as const;

let thread: RankThread | undefined;

function tell(news: RankNews): void {
  postMessage(news);
}

async function start(request: RankRequest & { kind: "start" }): Promise<void> {
  const { launch } = request;
  const mpi = await loadMpi(launch.launcher);
  mpi.start();
  const found = mpi.communicator();
  if (found.size !== launch.size) {
    throw new Error(
      `the launcher (${launch.launcher}) started ${launch.size} processes, but ${mpi.version()} (${mpi.file}) knows of ${found.size}: it belongs to another MPI than the launcher; name the launcher's library in KTO_MPI_LIBRARY, or use the other mpirun.`,
    );
  }
  const koffi = await loadKoffi();
  const alarm = koffi.load(LIBC).func("alarm", "uint", ["uint"]);
  thread = new RankThread(mpi, (seconds) => void alarm(seconds), request);
  await thread.meet(request.self);
}

globalThis.onmessage = ({ data }: MessageEvent<RankRequest>) => {
  if (data.kind === "start") start(data).catch((error) => tell({ kind: "refused", sentence: errorMessage(error) }));
  else thread?.receive(data);
};
