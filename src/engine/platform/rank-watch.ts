/**
 * Which ranks are alive: each rank beats to the two behind it and watches the two before it, so that what is sent does
 * not grow with the number of ranks. Times are given, in milliseconds; this knows neither MPI nor clocks.
 */

/** A rank as the others know it. */
export interface RankMember {
  readonly rank: number;
  readonly host: string;
  /** The number of its process. */
  readonly pid: number;
  /** The start of the process (`startOf`), where the system tells it. */
  readonly started?: string | undefined;
  /** Equal for ranks that see each other's processes. */
  readonly machine: string;
  /** The version of this package, with the commit in a checkout. */
  readonly version: string;
}

/** What ended a run on all ranks. */
export interface RankFault {
  /** The ranks that it came from. */
  readonly ranks: readonly number[];
  /** Whether they can still say something themselves. */
  readonly gone: boolean;
  /** One sentence for people; without the ranks' names where the rank itself says it. */
  readonly sentence: string;
  /** The exit code of all. */
  readonly exitCode: number;
  /** The rank that told the others. */
  readonly from: number;
}

/** Places in the memory that the program and the thread of MPI share. */
export const PULSE = {
  /** The program adds 1 all the time; where it does not, it hangs. */
  program: 0,
  /** Changed and notified with every request, so that the thread of MPI wakes. */
  wake: 1,
} as const;

/** How many ranks each rank watches, and is watched by. */
const NEIGHBOURS = 2;
/** A pause of the watcher itself, such as a stopped job, after which it waits again. */
const OWN_PAUSE_MS = 2000;

/**
 * The look after a signal that a launcher may have sent since a rank died. On this machine the system tells which ranks
 * have ended, and does so before the launcher's signal comes; of other machines only silence tells, for as long as eight
 * beats, so that a late beat or a busy program ends no run that was to be saved.
 */
const LOOK = {
  /** A beat under way has this long to come. */
  leastMs: 250,
  silentMs: 2000,
  /** How long to look where all watched ranks are of this machine. */
  hereMs: 800,
} as const;

export interface Overdue {
  readonly rank: number;
  readonly forMs: number;
  /** "silent": nothing is heard of it; "stuck": its thread of MPI beats, but its program does not move. */
  readonly kind: "silent" | "stuck";
}

export class RankWatch {
  /** The ranks that this one hears. */
  readonly watched: readonly number[];
  /** The ranks that hear this one. */
  readonly watchers: readonly number[];
  readonly #heardAt = new Map<number, number>();
  readonly #stuckForMs = new Map<number, number>();
  #lastMs: number;

  constructor(rank: number, size: number, nowMs: number) {
    const offsets = Array.from({ length: Math.min(NEIGHBOURS, size - 1) }, (_, i) => i + 1);
    this.watched = offsets.map((offset) => (rank - offset + size) % size);
    this.watchers = offsets.map((offset) => (rank + offset) % size);
    this.#lastMs = nowMs;
    for (const one of this.watched) this.#heardAt.set(one, nowMs);
  }

  /** @param stuckForMs how long the program of that rank has not moved */
  heard(rank: number, stuckForMs: number, nowMs: number): void {
    this.#heardAt.set(rank, nowMs);
    this.#stuckForMs.set(rank, stuckForMs);
  }

  /** Must be called all the time. */
  tick(nowMs: number): void {
    if (nowMs - this.#lastMs > OWN_PAUSE_MS) for (const one of this.watched) this.#heardAt.set(one, nowMs);
    this.#lastMs = nowMs;
  }

  /** The watched ranks that have been silent or stuck for longer than this. */
  overdue(longestMs: number, nowMs: number): Overdue[] {
    return this.watched.flatMap((rank): Overdue[] => {
      const silentMs = nowMs - (this.#heardAt.get(rank) ?? nowMs);
      const stuckMs = this.#stuckForMs.get(rank) ?? 0;
      if (silentMs > longestMs) return [{ rank, forMs: silentMs, kind: "silent" }];
      return stuckMs > longestMs ? [{ rank, forMs: stuckMs, kind: "stuck" }] : [];
    });
  }

  /**
   * What a look after a signal finds, beside the processes of this machine that have ended: silent ranks of others.
   *
   * @param forMs how long it has gone on
   * @param isHere whether the system tells of this rank's end
   * @returns undefined as long as it has to go on
   */
  lookAfterSignal(forMs: number, nowMs: number, isHere: (rank: number) => boolean): Overdue[] | undefined {
    const elsewhere = this.watched.filter((rank) => !isHere(rank));
    const silent = this.overdue(LOOK.silentMs, nowMs).filter(
      ({ rank, kind }) => kind === "silent" && elsewhere.includes(rank),
    );
    if (silent.length > 0 && forMs > LOOK.leastMs) return silent;
    return forMs > (elsewhere.length > 0 ? LOOK.silentMs + LOOK.leastMs : LOOK.hereMs) ? [] : undefined;
  }
}

/** Who tells the user: the lowest rank that can. */
export function speakerOf({ ranks, gone }: Pick<RankFault, "ranks" | "gone">): number {
  let speaker = 0;
  while (gone && ranks.includes(speaker)) speaker++;
  return speaker;
}

/** "rank 1 (host b, process 4242)". */
export function nameOf({ rank, host, pid }: Pick<RankMember, "rank" | "host" | "pid">): string {
  return `rank ${rank} (${host}, process ${pid})`;
}

/** Names of several ranks as the subject of a sentence. */
function namesOf(members: readonly RankMember[]): string {
  const names = members.map(nameOf);
  return [names.slice(0, -1).join(", "), ...names.slice(-1)].filter((part) => part !== "").join(" and ");
}

/** Ranks whose processes are gone. */
export function deadSentence(members: readonly RankMember[]): string {
  return `${namesOf(members)} ended without a word: killed, or crashed.`;
}

/** Ranks of which nothing more is heard. */
export function silentSentence(members: readonly RankMember[], forMs: number): string {
  return `nothing was heard of ${namesOf(members)} for ${seconds(forMs)}: the process hangs, or its machine or the link to it is down.`;
}

/** A rank that is alive and does not move. */
export function stuckSentence(members: readonly RankMember[], forMs: number): string {
  return `${namesOf(members)} did not move for ${seconds(forMs)}: its program hangs.`;
}

function seconds(ms: number): string {
  return `${Number((ms / 1000).toPrecision(2))} s`;
}
