/** Conversations as trees: the path to a message by the pointers of messages to their parents. */
import type { Json, Reason, Turn } from "./types.ts";
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

/**
 * Trees whose messages have a record each. A first pass over the records places them all, a second one keeps the turns
 * of the paths to rated messages, so that of other messages no text is held.
 */
export class MessageTable {
  readonly #parents = new Map<string, string | undefined>();
  readonly #rated: string[] = [];
  readonly #turns = new Map<string, Turn | undefined>();

  /** Of two messages with one id the first counts. */
  place(id: string, parent: string | undefined, isRated: boolean): void {
    if (!this.#parents.has(id)) this.#parents.set(id, parent);
    if (isRated) this.#rated.push(id);
  }

  keep(id: string, turn: () => Turn): void {
    for (let rated = this.#rated.pop(); rated !== undefined; rated = this.#rated.pop()) {
      let at: string | undefined = rated;
      while (at !== undefined && this.#parents.has(at) && !this.#turns.has(at)) {
        this.#turns.set(at, undefined);
        at = this.#parents.get(at);
      }
    }
    if (this.#turns.has(id) && this.#turns.get(id) === undefined) this.#turns.set(id, turn());
  }

  /** A message of a path to a rated one, for `pathTo`. */
  readonly nodeOf = (id: string): TreeNode | undefined => {
    const turn = this.#turns.get(id);
    return turn === undefined ? undefined : { parent: this.#parents.get(id), turn: () => turn };
  };
}
