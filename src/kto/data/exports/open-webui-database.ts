/**
 * Open WebUI's database, webui.db: the ratings of the table "feedback" with the chats that they were given in, then the
 * thumbs of chats that this table does not know. Rows are fetched one at a time.
 */
import { platform, type ReadableDatabase } from "../../../engine/platform/index.ts";
import { DatasetError } from "../../../errors.ts";
import { chatThumbs, feedbackRating } from "./open-webui.ts";
import type { Json, Rating, Shape } from "./types.ts";
import { isObject, member, textOr } from "./values.ts";

/** The endings of names that databases have. */
export const databaseEndings: readonly string[] = ["db", "sqlite", "sqlite3"];

/** The database's line of the table of shapes; it is recognised by its tables. */
export const databaseShape: Pick<Shape, "name" | "lookedFor"> = {
  name: "Open WebUI database",
  lookedFor: 'SQLite with the tables "feedback" and "chat"',
};

/** A rating, or an answer without one, with its place: the number of its row in the table. */
export interface DatabaseFinding {
  readonly finding: Rating | "unrated";
  readonly row: number;
}

/**
 * @throws DatasetError if the file is no database or not Open WebUI's; FileError if it is damaged
 */
export async function* databaseFindings(path: string): AsyncGenerator<DatabaseFinding> {
  await checkHeader(path);
  const database = await platform.openDatabase(path);
  try {
    const tables = [...database.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")].map(
      ({ name }) => String(name),
    );
    if (!tables.includes("feedback") && !tables.includes("chat")) {
      throw new DatasetError(
        `${path} is a database of another program: neither "feedback" nor "chat" is among its ${tables.length === 0 ? "tables, of which there are none" : `tables ${tables.slice(0, 10).join(", ")}`}; Open WebUI's webui.db has both.`,
      );
    }
    yield* readTables(database, tables);
  } finally {
    await database.close();
  }
}

async function checkHeader(path: string): Promise<void> {
  const file = await platform.openFile(path);
  try {
    const header = "SQLite format 3\0";
    const bytes = file.size < header.length ? new Uint8Array() : await file.read(0, header.length);
    if (new TextDecoder("latin1").decode(bytes) === header) return;
    throw new DatasetError(
      `${path} is no SQLite database, although its name ends like one; give Open WebUI's webui.db.`,
    );
  } finally {
    await file.close();
  }
}

/** The row numbers are fetched first, since sorting whole rows would hold all of them. */
function rowNumbers(database: ReadableDatabase, table: string, order: string): number[] {
  return [...database.rows(`SELECT rowid AS row FROM "${table}" ORDER BY ${order}`)].map(({ row }) => Number(row));
}

function* readTables(database: ReadableDatabase, tables: readonly string[]): Generator<DatabaseFinding> {
  const chatColumns = "id, user_id, chat, created_at";
  const hasChats = tables.includes("chat");
  /** The message that each record of feedback is about. */
  const messageOf = new Map<string, string>();
  const rated = new Set<string>();
  const nameOf = (chat: unknown, message: unknown) => JSON.stringify([chat, message]);
  if (tables.includes("feedback")) {
    for (const row of rowNumbers(database, "feedback", "created_at, id")) {
      for (const fields of database.rows("SELECT * FROM feedback WHERE rowid = ?", row)) {
        const record = decoded(fields, ["data", "meta", "snapshot"]);
        const { meta } = record;
        const chatId = member(meta, "chat_id");
        const currentChat = () => {
          if (!hasChats || typeof chatId !== "string") return undefined;
          const [found] = [...database.rows("SELECT chat FROM chat WHERE id = ?", chatId)];
          return found === undefined ? undefined : decoded(found, ["chat"]).chat;
        };
        messageOf.set(textOr(record.id, ""), textOr(member(meta, "message_id"), ""));
        rated.add(nameOf(chatId, member(meta, "message_id")));
        yield { finding: feedbackRating(record, row, currentChat), row };
      }
    }
  }
  if (!hasChats) return;
  for (const row of rowNumbers(database, "chat", "created_at, id")) {
    for (const fields of database.rows(`SELECT ${chatColumns} FROM chat WHERE rowid = ?`, row)) {
      const record = decoded(fields, ["chat"]);
      const thumbs = [...chatThumbs(record)];
      for (const thumb of thumbs) if (thumb === "unrated") yield { finding: thumb, row };
      const given = thumbs.filter((thumb) => thumb !== "unrated").sort((a, b) => a.timestamp - b.timestamp);
      for (const { messageId, feedbackId, rating } of given) {
        if (rated.has(nameOf(record.id, messageId))) continue;
        const about = feedbackId === undefined ? undefined : messageOf.get(feedbackId);
        const isDeleted = feedbackId !== undefined && about === undefined;
        const isCopy = about !== undefined && about !== messageId;
        const faults = [
          ...(rating.faults ?? []),
          ...(isDeleted ? (["deleted"] as const) : []),
          ...(isCopy ? (["edited"] as const) : []),
        ];
        yield { finding: { ...rating, faults }, row };
      }
    }
  }
}

/** A row whose JSON columns are values. A column that is no JSON is left out, as one that is null. */
function decoded(fields: Json, columns: readonly string[]): Json {
  const record: Record<string, unknown> = { ...fields };
  for (const column of columns) {
    try {
      record[column] = JSON.parse(String(fields[column]));
    } catch {
      record[column] = undefined;
    }
    if (!isObject(record[column])) delete record[column];
  }
  return record;
}
