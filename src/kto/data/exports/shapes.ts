/**
 * The table of the exports that are read. A line says how a record is recognised and where its conversations, answers
 * and ratings lie; all else is the same for all of them (`rules.ts`). What is no line here is not read.
 */
import { conversationShapes } from "./conversations.ts";
import { langfuseShapes } from "./langfuse.ts";
import { libreChatShapes } from "./libre-chat.ts";
import { namedRatingShapes } from "./named-ratings.ts";
import { oasstShapes } from "./oasst.ts";
import { openWebUiShapes } from "./open-webui.ts";
import { databaseShape } from "./open-webui-database.ts";
import { pairShapes } from "./pairs.ts";
import { singleAnswerShapes } from "./single-answers.ts";
import type { Json, Shape } from "./types.ts";

/** In the order in which a record is compared with them. */
export const shapes: readonly Shape[] = [
  ...openWebUiShapes,
  ...libreChatShapes,
  ...conversationShapes,
  ...singleAnswerShapes,
  ...langfuseShapes,
  ...namedRatingShapes,
  ...oasstShapes,
  ...pairShapes,
];

/** Columns of a parquet file that a shape may need. */
export const shapeColumns: readonly string[] = [...new Set(shapes.flatMap(({ columns = [] }) => columns))];

/** What was looked for, for messages about a file that is not recognised. */
export const exportsLookedFor = [...shapes, databaseShape]
  .map(({ name, lookedFor }) => `${name} (${lookedFor})`)
  .join("; ");

/** Whether a record has the columns of a row of feedback, so that it is no export. */
export function isRow(record: Json): boolean {
  const isThere = (...names: readonly string[]) =>
    names.every((name) => record[name] !== undefined && record[name] !== null);
  const judged = ["completion", "messages", "conversations", "completion_ids"];
  return judged.some((name) => isThere(name, "label")) || isThere("chosen", "rejected");
}

/**
 * The shape of a record; undefined if it has none, or if it is a row of feedback already.
 *
 * @param given the names that the user maps; a record whose program has no use for one of them is read as a plain row
 */
export function shapeOf(record: Json, given: readonly string[]): Shape | undefined {
  if (isRow(record)) return undefined;
  return shapes.find((shape) => shape.matches(record) && takes(shape, given));
}

/** Whether the program's users choose all these names. */
function takes({ named = [] }: Shape, given: readonly string[]): boolean {
  return given.every((name) => named.some((own) => own === name));
}

/**
 * Whether a parquet file may be an export, as far as the names of its columns say it.
 *
 * @param names a record with the names of all columns; its values are not looked at
 */
export function mayBeTable(names: Json, given: readonly string[]): boolean {
  if (isRow(names)) return false;
  // Where the user names the rating, the table is recognised by the names of its columns.
  return shapes.some(
    (shape) =>
      shape.columns !== undefined && takes(shape, given) && (shape.named === undefined || shape.matches(names)),
  );
}
