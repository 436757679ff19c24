/** Conversations as trees: the path to a message by the pointers of messages to their parents. */
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

/** A message of a table. */
interface Placed {
  /** Its parent, or the parent's id if that has not been seen yet. */
  readonly parent: Placed | string | undefined;
  readonly id: string;
  /** Position among the records of messages. */
  readonly at: number;
  /** Where the first rated message stands to whose path it belongs. */
  firstUse?: number;
  /** Messages that no rated one needs after this one. */
  owned?: Placed[];
  /** How many records rate it, and how many of them are still to come. */
  ratings: number;
  left: number;
  turn?: Turn;
}

/**
 * Trees whose messages have a record each. A first pass over the records places them all; after it the turn of a message
 * is held from its own record to that of the last rated message that follows from it, so that a file of any length whose
 * conversations stand together takes little memory. A message whose record stands behind a rated one that follows from
 * it, which no program writes, is held from a pass of its own on.
 */
export class MessageTable {
  readonly #placed = new Map<string, Placed>();
  readonly #rated: { readonly message: Placed; readonly at: number }[] = [];
  #records = 0;
  /** The record that comes next, once all are placed. */
  #next = 0;

  /** Of two messages with one id the first counts. */
  place(id: string, parent: string | undefined, isRated: boolean): void {
    const at = this.#records++;
    let message = this.#placed.get(id);
    if (message === undefined) {
      message = {
        id,
        at,
        parent: parent === undefined ? undefined : (this.#placed.get(parent) ?? parent),
        ratings: 0,
        left: 0,
      };
      this.#placed.set(id, message);
    }
    if (!isRated) return;
    this.#rated.push({ message, at });
    message.ratings++;
    message.left++;
  }

  /** To be called once all records were placed. Returns whether `keep` must be given all of them. */
  close(): boolean {
    let needsKeeping = false;
    for (const { message, at } of this.#rated) {
      for (let on: Placed | undefined = message; on !== undefined && on.firstUse === undefined; on = this.#before(on)) {
        on.firstUse = at;
        needsKeeping ||= isLate(on);
      }
    }
    const owned = new Set<Placed>();
    for (const { message } of this.#rated.toReversed()) {
      for (let on: Placed | undefined = message; on !== undefined && !owned.has(on); on = this.#before(on)) {
        owned.add(on);
        if (message.owned === undefined) message.owned = [on];
        else message.owned.push(on);
      }
    }
    this.#rated.length = 0;
    return needsKeeping;
  }

  keep(id: string, turn: () => Turn): void {
    const message = this.#placed.get(id);
    if (message !== undefined && message.turn === undefined && isLate(message)) message.turn = turn();
  }

  /** What is found in the next record, which is this message's; `nodeOf` knows all that is before it. */
  *found(id: string, turn: () => Turn, findings: Iterable<Finding>): Generator<Finding> {
    const message = this.#placed.get(id);
    if (message?.at === this.#next && message.firstUse !== undefined) message.turn ??= turn();
    this.#next = (this.#next + 1) % this.#records;
    let isRated = false;
    for (const finding of findings) {
      yield finding;
      isRated ||= finding !== "unrated";
    }
    if (message === undefined || !isRated || --message.left > 0) return;
    // For the next time that all records are gone through.
    message.left = message.ratings;
    for (const one of message.owned ?? []) if (!isLate(one)) delete one.turn;
  }

  /** A message of a path to a rated one, for `pathTo`. */
  readonly nodeOf = (id: string): TreeNode | undefined => {
    const message = this.#placed.get(id);
    if (message?.turn === undefined) return undefined;
    const { parent, turn } = message;
    return { parent: typeof parent === "object" ? parent.id : parent, turn: () => turn };
  };

  #before({ parent }: Placed): Placed | undefined {
    return typeof parent === "string" ? this.#placed.get(parent) : parent;
  }
}

/** Whether a message stands behind a rated one that needs it. */
function isLate({ at, firstUse }: Placed): boolean {
  return firstUse !== undefined && at > firstUse;
}
