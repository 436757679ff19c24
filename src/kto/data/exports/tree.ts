/** Conversations as trees: the path to a message by the pointers of messages to their parents. */
import { int32s, Names } from "./names.ts";
import type { Finding, Json, Reason, Turn } from "./types.ts";
import { isObject, listOf } from "./values.ts";

/** A message of a tree. */
export interface TreeNode {
  /** The id of the message before it; undefined at a root. */
  readonly parent: string | undefined;
  readonly turn: () => Turn;
}

/**
 * The turns from a root to a message, by the messages' own pointers and not by the order of the file. It takes one step
 * for each message of the path.
 *
 * @param first a turn before the root, such as a system message, if there is one
 * @returns "answer-missing" if there is no such message; "broken-path" if a parent is missing or comes twice
 */
export function pathTo(
  id: string,
  nodeOf: (id: string) => TreeNode | undefined,
  first?: Turn,
): readonly Turn[] | Reason {
  const turns: Turn[] = [];
  const seen = new Set<string>();
  let at: string | undefined = id;
  while (at !== undefined) {
    const node: TreeNode | undefined = nodeOf(at);
    if (node === undefined) return turns.length === 0 ? "answer-missing" : "broken-path";
    if (seen.has(at)) return "broken-path";
    seen.add(at);
    turns.push(node.turn());
    at = node.parent;
  }
  turns.reverse();
  return first === undefined || turns[0]?.role === "system" ? turns : [first, ...turns];
}

/** The messages of trees whose children hang below them, parents first, each with the children's order kept. */
export function* flattened(roots: readonly unknown[], children: string): Generator<Json> {
  const waiting = roots.toReversed();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (!isObject(next)) continue;
    yield next;
    for (const child of listOf(next[children]).toReversed()) waiting.push(child);
  }
}

/** In place of a number of a message: none. */
const NONE = 0;

/**
 * Trees whose messages have a record each. A first pass over the records places them all; after it the turn of a message
 * is held from its own record to that of the last rated message that follows from it, so that a file of any length whose
 * conversations stand together takes little memory. A message whose record stands behind a rated one that follows from
 * it, which no program writes, is held from a pass of its own on.
 *
 * Messages have numbers, those of their ids. In columns 0 stands for none, so that numbers and positions stand there
 * as one more than they are.
 */
export class MessageTable {
  readonly #ids = new Names();
  /** The position of a message among the records. */
  readonly #at = int32s();
  readonly #parent = int32s();
  /** Where the first rated message stands to whose path it belongs. */
  readonly #firstUse = int32s();
  /** How many records rate it, and how many of them are still to come. */
  readonly #ratings = int32s();
  readonly #left = int32s();
  /** The messages that no rated one needs after this one: the first, and of each the next. */
  readonly #owned = int32s();
  readonly #nextOwned = int32s();
  /** Which message the records that have a rating rate, and their positions, until the table is closed. */
  #rated = { message: int32s(), at: int32s(), count: 0 };
  readonly #turns = new Map<number, Turn>();
  #records = 0;
  /** The record that comes next, once all are placed. */
  #next = 0;

  /** Places a message below its parent. If two messages have one id, the first counts. */
  place(id: string, parent: string | undefined, isRated: boolean): void {
    const at = this.#records++;
    const message = this.#ids.add(id);
    if (this.#at.at(message) === NONE) {
      this.#at.set(message, at + 1);
      if (parent !== undefined) this.#parent.set(message, this.#ids.add(parent) + 1);
    }
    if (!isRated) return;
    const { count } = this.#rated;
    this.#rated.message.set(count, message);
    this.#rated.at.set(count, at);
    this.#rated.count++;
    this.#ratings.set(message, this.#ratings.at(message) + 1);
    this.#left.set(message, this.#left.at(message) + 1);
  }

  /** To be called once all records were placed. Returns whether `keep` must be given all of them. */
  close(): boolean {
    const { message: rated, at, count } = this.#rated;
    let needsKeeping = false;
    for (let i = 0; i < count; i++) {
      for (let on: number | undefined = rated.at(i); on !== undefined; on = this.#before(on)) {
        if (this.#firstUse.at(on) !== NONE) break;
        this.#firstUse.set(on, at.at(i) + 1);
        needsKeeping ||= this.#isLate(on);
      }
    }
    // Each is owned by the last rated message that needs it.
    const isOwned = new Uint8Array(this.#ids.size);
    for (let i = count - 1; i >= 0; i--) {
      const message = rated.at(i);
      for (let on: number | undefined = message; on !== undefined && isOwned[on] === 0; on = this.#before(on)) {
        isOwned[on] = 1;
        this.#nextOwned.set(on, this.#owned.at(message));
        this.#owned.set(message, on + 1);
      }
    }
    this.#rated = { message: int32s(), at: int32s(), count: 0 };
    return needsKeeping;
  }

  keep(id: string, turn: () => Turn): void {
    const message = this.#ids.find(id);
    if (message !== undefined && !this.#turns.has(message) && this.#isLate(message)) this.#turns.set(message, turn());
  }

  /** What is found in the next record, which is this message's; `nodeOf` knows all that is before it. */
  *found(id: string, turn: () => Turn, findings: Iterable<Finding>): Generator<Finding> {
    const message = this.#ids.find(id);
    const isItsRecord = message !== undefined && this.#at.at(message) === this.#next + 1;
    if (isItsRecord && this.#firstUse.at(message) !== NONE && !this.#turns.has(message)) {
      this.#turns.set(message, turn());
    }
    this.#next = (this.#next + 1) % this.#records;
    let isRated = false;
    for (const finding of findings) {
      yield finding;
      isRated ||= finding !== "unrated";
    }
    if (message === undefined || !isRated) return;
    const left = this.#left.at(message) - 1;
    // For the next time that all records are gone through.
    this.#left.set(message, left > 0 ? left : this.#ratings.at(message));
    if (left > 0) return;
    for (let one = this.#owned.at(message); one !== NONE; one = this.#nextOwned.at(one - 1)) {
      if (!this.#isLate(one - 1)) this.#turns.delete(one - 1);
    }
  }

  /** A message of a path to a rated one, for `pathTo`. */
  readonly nodeOf = (id: string): TreeNode | undefined => {
    const message = this.#ids.find(id);
    const turn = message === undefined ? undefined : this.#turns.get(message);
    if (message === undefined || turn === undefined) return undefined;
    const parent = this.#parent.at(message);
    return { parent: parent === NONE ? undefined : this.#ids.textOf(parent - 1), turn: () => turn };
  };

  /** undefined at a root, and where the file has no record of the parent. */
  #before(message: number): number | undefined {
    const parent = this.#parent.at(message);
    return parent === NONE || this.#at.at(parent - 1) === NONE ? undefined : parent - 1;
  }

  /** Whether a message stands behind a rated one that needs it. */
  #isLate(message: number): boolean {
    const firstUse = this.#firstUse.at(message);
    return firstUse !== NONE && this.#at.at(message) > firstUse;
  }
}
