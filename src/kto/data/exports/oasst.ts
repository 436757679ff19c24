/**
 * OASST: trees of messages that people ranked and labelled, as Open-Assistant exports them (a tree a line) and as tables
 * of its data sets have them (a message a row). Whether a rank or a label is a thumb is the user's to say. Sources:
 * oasst-data/oasst_data/schemas.py and reader.py, oasst-data/README.md.
 */
import { contentOf, roleOf } from "./forms.ts";
import { flattened, MessageTable, pathTo, type TreeNode } from "./tree.ts";
import type { Finding, JoinedReader, Json, ReadingContext, Shape, Thumb, Turn } from "./types.ts";
import { dayOf, fromCell, idOr, isObject, listOf, member, textOr } from "./values.ts";

/** The name under which `column_mapping` asks for ranks, beside the names of labels. */
const rankName = "rank";

function turnOf(message: Json): Turn {
  const isOut = message.deleted === true || message.review_result === false;
  return { role: roleOf(message.role), text: contentOf(message.text).text, faults: isOut ? ["deleted"] : [] };
}

const idOf = (message: Json): string => textOr(message.message_id, "");
const parentOf = (message: Json): string | undefined => textOr(message.parent_id, undefined);

/** The rank among the answers to one message, 0 for the best; undefined if the message is no answer or has none. */
function rankOf(message: Json): number | undefined {
  if (message.role !== "assistant" || message.rank === "" || message.rank === null) return undefined;
  const rank = Number(message.rank);
  return Number.isNaN(rank) ? undefined : rank;
}

/** The mean of a label's ratings, from 0 to 1. Tables have the names and the values of all labels as two lists. */
function labelOf(message: Json, name: string): unknown {
  const labels = fromCell(message.labels);
  const own = member(labels, name, "value");
  if (own !== undefined) return own;
  const at = listOf(member(labels, "name")).indexOf(name);
  return at < 0 ? undefined : listOf(member(labels, "value"))[at];
}

function labelNames(message: Json): readonly string[] {
  const labels = fromCell(message.labels);
  const listed = member(labels, "name");
  return Array.isArray(listed) ? listed.map(String) : Object.keys(typeof labels === "object" ? (labels ?? {}) : {});
}

/** The ranks of all answers to a message. */
class Ranks {
  readonly #byParent = new Map<string, { best: number; worst: number }>();

  add(message: Json, parent: string | undefined): void {
    const rank = rankOf(message);
    if (rank === undefined || parent === undefined) return;
    const found = this.#byParent.get(parent);
    if (found === undefined) this.#byParent.set(parent, { best: rank, worst: rank });
    else {
      found.best = Math.min(found.best, rank);
      found.worst = Math.max(found.worst, rank);
    }
  }

  /** The best of several answers is up, the worst down. */
  thumbOf(message: Json, parent: string | undefined): Thumb {
    const { best, worst } = this.#byParent.get(parent ?? "") ?? { best: 0, worst: 0 };
    const rank = rankOf(message);
    if (best === worst) return "no-rating";
    return rank === best ? true : rank === worst ? false : "no-rating";
  }
}

type Named = Omit<ReadingContext, "position">;

/** The rank or the label that the user asked for, of an answer; null or undefined if it has none. */
function givenOf(message: Json, { names: { label = "" } }: Named): unknown {
  if (message.role !== "assistant") return undefined;
  return label === rankName ? rankOf(message) : labelOf(message, label);
}

function* findingOf(
  message: Json,
  reading: Named,
  ranks: Ranks,
  nodeOf: (id: string) => TreeNode | undefined,
  position: string | number,
): Generator<Finding> {
  const given = givenOf(message, reading);
  if (given === undefined || given === null) {
    if (message.role === "assistant") yield "unrated";
    return;
  }
  const { names, thumbOf, isScaled } = reading;
  const id = idOf(message);
  yield {
    id: idOr(message.message_id, position),
    thumb:
      names.label === rankName && !isScaled
        ? ranks.thumbOf(message, nodeOf(id)?.parent)
        : (thumbOf(given) ?? "no-rating"),
    turns: () => pathTo(id, nodeOf),
    answer: `oasst ${id}`,
    model: textOr(message.model_name, undefined),
    day: dayOf(message.created_date),
  };
}

function* treeFindings(record: Json, reading: ReadingContext): Generator<Finding> {
  const messages = new Map<string, Json>();
  const parents = new Map<string, string>();
  const ranks = new Ranks();
  for (const message of flattened([record.prompt], "replies")) {
    const id = idOf(message);
    if (messages.has(id)) continue;
    messages.set(id, message);
    ranks.add(message, parents.get(id));
    // In a tree an answer hangs below its parent, and need not name it.
    for (const reply of listOf(message.replies)) parents.set(textOr(member(reply, "message_id"), ""), id);
  }
  const nodeOf = (id: string): TreeNode | undefined => {
    const message = messages.get(id);
    return message === undefined ? undefined : { parent: parents.get(id), turn: () => turnOf(message) };
  };
  for (const message of messages.values()) yield* findingOf(message, reading, ranks, nodeOf, reading.position);
}

function tableReader(reading: Named): JoinedReader {
  const table = new MessageTable();
  const ranks = new Ranks();
  const placed = (message: Json) => {
    ranks.add(message, parentOf(message));
    table.place(idOf(message), parentOf(message), (givenOf(message, reading) ?? null) !== null);
  };
  function* passes() {
    yield placed;
    if (table.close()) yield (message: Json) => table.keep(idOf(message), () => turnOf(message));
  }
  return {
    passes: passes(),
    findings: (message, position) => {
      const findings = findingOf(message, reading, ranks, table.nodeOf, position);
      return table.found(idOf(message), () => turnOf(message), findings);
    },
  };
}

const has = (record: Json, ...names: readonly string[]) => names.every((name) => name in record);
const ratingNames = (message: Json) => [...(rankOf(message) === undefined ? [] : [rankName]), ...labelNames(message)];

export const oasstShapes: readonly Shape[] = [
  {
    name: "OASST trees",
    lookedFor: "message_tree_id and prompt with replies",
    matches: (record) => has(record, "message_tree_id") && isObject(record.prompt),
    findings: treeFindings,
    named: ["label"],
    ratingNames: ({ prompt }) => [...flattened([prompt], "replies")].flatMap(ratingNames),
  },
  {
    name: "OASST messages",
    lookedFor: "message_id, parent_id, role and text",
    matches: (record) => has(record, "message_id", "parent_id", "role", "text"),
    joined: tableReader,
    named: ["label"],
    ratingNames,
    columns: [
      ...["message_id", "parent_id", "text", "role", "rank", "deleted", "review_result", "model_name"],
      ...["created_date", "labels"],
    ],
  },
];
