/**
 * What the ratings of an export say about each other: which was replaced by a later one, where raters contradict each
 * other, and which answer follows another one whose text the file lacks. A first pass over all files fills it; of each
 * rating it keeps a few numbers and the name of the answer: exports have millions.
 */
import { float64s, int32s, Names } from "./names.ts";
import type { Rating, Reason } from "./types.ts";

interface Vote {
  /** Position among all ratings of all files. */
  readonly index: number;
  readonly rater: number;
  readonly time: number;
  /** Larger for the one that counts of two with the same time. */
  readonly order: number;
  /** Undefined if the rating was taken back or is neither. */
  readonly up: boolean | undefined;
}

/** What the votes say, by their numbers, in the order in which they came. */
class Votes {
  readonly #answers = new Names();
  readonly #raters = new Names();
  readonly #index = int32s();
  readonly #rater = int32s();
  readonly #time = float64s();
  /** Twice the thumb (0, 1, or 2 for none), and 1 more where the export's newest ratings come first. */
  readonly #kind = int32s();
  /**
   * For an answer its first and its last vote, for a vote the next one on the same answer: 1 more than the vote's
   * number, or 0 for none.
   */
  readonly #first = int32s();
  readonly #last = int32s();
  readonly #next = int32s();
  #count = 0;

  add(answer: string, rater: string, { index, time, up }: Omit<Vote, "order" | "rater">, newestFirst: boolean): void {
    const vote = this.#count++;
    this.#index.set(vote, index);
    this.#rater.set(vote, this.#raters.add(rater));
    this.#time.set(vote, time);
    this.#kind.set(vote, 2 * (up === undefined ? 2 : Number(up)) + Number(newestFirst));
    const place = this.#answers.add(answer);
    const last = this.#last.at(place);
    if (last === 0) this.#first.set(place, vote + 1);
    else this.#next.set(last - 1, vote + 1);
    this.#last.set(place, vote + 1);
  }

  /** The votes on each answer that has several. */
  *several(): Generator<readonly Vote[]> {
    for (let answer = 0; answer < this.#answers.size; answer++) {
      if (this.#first.at(answer) === this.#last.at(answer)) continue;
      const votes: Vote[] = [];
      for (let on = this.#first.at(answer); on !== 0; on = this.#next.at(on - 1)) votes.push(this.#vote(on - 1));
      yield votes;
    }
  }

  #vote(vote: number): Vote {
    const [index, kind] = [this.#index.at(vote), this.#kind.at(vote)];
    return {
      index,
      rater: this.#rater.at(vote),
      time: this.#time.at(vote),
      order: kind % 2 === 1 ? -index : index,
      up: kind >= 4 ? undefined : kind >= 2,
    };
  }
}

/** The rated answers of threads whose earlier answers the file may lack, by their numbers, in the order in which they came. */
class Threads {
  readonly #threads = new Names();
  readonly #messages = new Names();
  readonly #index = int32s();
  readonly #thread = int32s();
  readonly #message = int32s();
  readonly #time = float64s();
  /** For a thread its earliest answer: 1 more than the answer's number, or 0 for none. */
  readonly #first = int32s();
  #count = 0;

  add(index: number, { id, message, time }: NonNullable<Rating["thread"]>): void {
    const answer = this.#count++;
    const thread = this.#threads.add(id);
    this.#index.set(answer, index);
    this.#thread.set(answer, thread);
    this.#message.set(answer, this.#messages.add(message));
    this.#time.set(answer, time);
    const first = this.#first.at(thread);
    if (first === 0 || time < this.#time.at(first - 1)) this.#first.set(thread, answer + 1);
  }

  /** Positions of the answers that follow another one of their thread. */
  *following(): Generator<number> {
    for (let answer = 0; answer < this.#count; answer++) {
      const first = this.#first.at(this.#thread.at(answer)) - 1;
      const isOther = this.#message.at(first) !== this.#message.at(answer);
      if (isOther && this.#time.at(first) < this.#time.at(answer)) yield this.#index.at(answer);
    }
  }
}

export class Ledger {
  #count = 0;
  #votes = new Votes();
  #threads = new Threads();

  /** Takes the next rating; all of them come in the order of the files. */
  add({ answer, rater = "", time = 0, thumb, thread }: Rating, newestFirst: boolean): void {
    const index = this.#count++;
    if (thread !== undefined) this.#threads.add(index, thread);
    if (answer === undefined) return;
    const up = typeof thumb === "boolean" ? thumb : undefined;
    this.#votes.add(answer, rater, { index, time, up }, newestFirst);
  }

  /** The reasons against ratings, by their positions; a rating that is not listed stands alone. */
  close(): ReadonlyMap<number, readonly Reason[]> {
    const found = new Map<number, Reason[]>();
    const add = (index: number, reason: Reason) => found.set(index, [...(found.get(index) ?? []), reason]);
    for (const votes of this.#votes.several()) compare(votes, add);
    this.#votes = new Votes();
    for (const index of this.#threads.following()) add(index, "context-missing");
    this.#threads = new Threads();
    return found;
  }
}

/** Compares all votes on one answer. */
function compare(votes: readonly Vote[], add: (index: number, reason: Reason) => void): void {
  const latest = new Map<number, Vote>();
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
