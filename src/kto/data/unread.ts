/**
 * Columns that layouts know and that a row has, but that the layout in which it is read does not use. Which layout that
 * is, `layouts.ts` decides. Columns that no layout knows are nobody's mistake and not looked at.
 */
import { counted } from "../../errors.ts";
import type { Fields, RowSource } from "./types.ts";

/** Columns that change what is trained wherever they are read. */
const meaningful = ["label", "system", "tools", "chat_template_kwargs"];
/** How many line numbers a warning names. */
const namedLines = 5;

/**
 * @param layout as it is displayed: "conversational prompt/chosen/rejected"
 * @param whole the columns of every layout that the row has whole
 * @param isChat whether the row goes through a chat template
 * @returns the columns that hold something and are not read, in a fixed order
 */
export function unreadColumns(fields: Fields, layout: string, whole: readonly string[], isChat: boolean): string[] {
  const read = new Set(layout.split(/[ /]/));
  if (read.has("conversations")) read.add("system");
  if (isChat) for (const name of ["tools", "chat_template_kwargs"]) read.add(name);
  const candidates = new Set([...whole, ...meaningful]);
  return [...candidates].filter((name) => !read.has(name) && holdsSomething(fields[name]));
}

function holdsSomething(value: unknown): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value === "object") return Object.keys(value).length > 0;
  return typeof value !== "string" || !/^\s*(\[\s*\]|\{\s*\}|null)?\s*$/.test(value);
}

/** Counts rows with columns that are not read, and tells of them at the end. */
export class UnreadColumns {
  readonly #found = new Map<
    string,
    { columns: string; layout: string; count: number; lines: number[]; file: string }
  >();

  add(columns: readonly string[], layout: string, { file, line }: RowSource): void {
    if (columns.length === 0) return;
    const names = columns.map((name) => `"${name}"`);
    const listed = [names.slice(0, -1).join(", "), ...names.slice(-1)].filter((part) => part !== "").join(" and ");
    const key = `${listed} ${layout}`;
    const entry = this.#found.get(key) ?? { columns: listed, layout, count: 0, lines: [], file };
    this.#found.set(key, entry);
    entry.count++;
    if (entry.lines.length < namedLines) entry.lines.push(line);
  }

  warnings(): string[] {
    return [...this.#found.values()].map(({ columns, layout, count, lines, file }) => {
      const where = `line ${lines.join(", ")}${count > lines.length ? ", …" : ""}`;
      return `${file}: ${columns} of ${counted(count, "row")} (${where}) ${columns.includes(" and ") ? "are" : "is"} not read, since the columns are taken for ${layout}; remove the columns that are not meant, or put what they say into those that are read.`;
    });
  }
}
