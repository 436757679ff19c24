/** Conversations as trees: the path to a message by the pointers of messages to their parents. */
import type { Reason, Turn } from "./types.ts";

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
