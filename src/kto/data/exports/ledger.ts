/**
 * What the ratings of an export say about each other: which was replaced by a later one, where raters contradict each
 * other, and which answer follows another one whose text the file lacks. A first pass over all files fills it; of each
 * rating it keeps a few numbers and the name of the answer.
 */
import type { Rating, Reason } from "./types.ts";

interface Vote {
  /** Position among all ratings of all files. */
  readonly index: number;
  readonly rater: string;
  readonly time: number;
  /** Larger for the one that counts of two with the same time. */
  readonly order: number;
  /** Undefined if the rating was taken back or is neither. */
  readonly up: boolean | undefined;
}

interface Place {
  readonly index: number;
  readonly id: string;
  readonly message: string;
  readonly time: number;
}

export class Ledger {
  #count = 0;
  /** A list only where there are several, which is rare. */
  readonly #votes = new Map<string, Vote | Vote[]>();
  readonly #raters = new Map<string, string>();
  readonly #threads: Place[] = [];

  /** Takes the next rating; all of them come in the order of the files. */
  add({ answer, rater = "", time = 0, thumb, thread }: Rating, newestFirst: boolean): void {
    const index = this.#count++;
    if (thread !== undefined) this.#threads.push({ index, ...thread });
    if (answer === undefined) return;
    const up = typeof thumb === "boolean" ? thumb : undefined;
    const vote = { index, rater: this.#known(rater), time, order: newestFirst ? -index : index, up };
    const earlier = this.#votes.get(answer);
    if (earlier === undefined) this.#votes.set(answer, vote);
    else if (Array.isArray(earlier)) earlier.push(vote);
    else this.#votes.set(answer, [earlier, vote]);
  }

  /** The reasons against ratings, by their positions; a rating that is not listed stands alone. */
  close(): ReadonlyMap<number, readonly Reason[]> {
    const found = new Map<number, Reason[]>();
    const add = (index: number, reason: Reason) => found.set(index, [...(found.get(index) ?? []), reason]);
    for (const votes of this.#votes.values()) if (Array.isArray(votes)) compare(votes, add);
    this.#votes.clear();
    const first = new Map<string, Place>();
    for (const place of this.#threads) {
      const earlier = first.get(place.id);
      if (earlier === undefined || place.time < earlier.time) first.set(place.id, place);
    }
    for (const { index, id, message, time } of this.#threads) {
      const begin = first.get(id);
      if (begin !== undefined && begin.message !== message && begin.time < time) add(index, "context-missing");
    }
    return found;
  }

  /** One string for each rater, since each record brings a copy of its own. */
  #known(rater: string): string {
    const known = this.#raters.get(rater);
    if (known === undefined) this.#raters.set(rater, rater);
    return known ?? rater;
  }
}

/** Compares all votes on one answer. */
function compare(votes: readonly Vote[], add: (index: number, reason: Reason) => void): void {
  const latest = new Map<string, Vote>();
  for (const vote of votes) {
    const other = latest.get(vote.rater);
    if (other === undefined || isLater(vote, other)) latest.set(vote.rater, vote);
  }
  const counting = new Set(latest.values());
  for (const vote of votes) if (!counting.has(vote)) add(vote.index, "superseded");
  const judging = [...counting].filter(({ up }) => up !== undefined).sort((a, b) => a.index - b.index);
  const ups = judging.filter(({ up }) => up).length;
  const [majority, none] = [ups > judging.length - ups, 2 * ups === judging.length];
  const kept = judging.find(({ up }) => up === majority);
  for (const vote of judging) {
    if (none || vote.up !== majority) add(vote.index, "disagree");
    else if (vote !== kept) add(vote.index, "superseded");
  }
}

function isLater(a: Vote, b: Vote): boolean {
  return a.time === b.time ? a.order > b.order : a.time > b.time;
}
