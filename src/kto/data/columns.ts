/** The names of columns: those that mean something here, and a user's mapping from them to a file's own. */
import { ConfigError, DatasetError } from "../../errors.ts";
import { type Fields, placeOf, type RowSource } from "./types.ts";

/** Every column that a layout reads. */
export const knownColumns = [
  "prompt",
  "completion",
  "label",
  "chosen",
  "rejected",
  "messages",
  "conversations",
  "system",
  "tools",
  "chat_template_kwargs",
  "prompt_ids",
  "completion_ids",
] as const;

/** Names that layouts know to the names that the file has, e.g. { prompt: "question", label: "thumb" }. */
export type ColumnMapping = Readonly<Partial<Record<(typeof knownColumns)[number], string>>>;

/** @throws ConfigError for a name that no layout knows, or a column that is not named by a text */
export function checkColumnMapping(mapping: Readonly<Record<string, unknown>>): ColumnMapping {
  for (const [ours, theirs] of Object.entries(mapping)) {
    if (!knownColumns.some((name) => name === ours)) {
      throw new ConfigError(
        `option "column_mapping" maps "${ours}", which no layout of feedback has; it goes from ${knownColumns.join(", ")} to the file's own names.`,
      );
    }
    if (typeof theirs !== "string" || theirs === "") {
      throw new ConfigError(`option "column_mapping" must give "${ours}" the name of a column in the file.`);
    }
  }
  return mapping as ColumnMapping;
}

/** The columns of a file that are worth reading under a mapping. */
export function neededColumns(mapping: ColumnMapping): string[] {
  return [...new Set([...knownColumns, ...Object.values(mapping)])];
}

/**
 * The fields under the names that layouts know. A column that is mapped is not seen under its own name any more.
 *
 * @throws DatasetError for a mapped column that the row lacks, naming those that it has
 */
export function mapColumns(fields: Fields, mapping: ColumnMapping, source: RowSource): Fields {
  const pairs = Object.entries(mapping);
  if (pairs.length === 0) return fields;
  const mapped = new Set(Object.values(mapping));
  const result: Record<string, unknown> = Object.fromEntries(
    Object.entries(fields).filter(([name]) => !mapped.has(name)),
  );
  for (const [ours, theirs] of pairs) {
    if (!Object.hasOwn(fields, theirs)) {
      const found = Object.keys(fields)
        .slice(0, 20)
        .map((name) => `"${name}"`)
        .join(", ");
      throw new DatasetError(
        `${placeOf(source)}: column_mapping reads "${ours}" from the column "${theirs}", which is not there; the columns are ${found || "none"}.`,
      );
    }
    result[ours] = fields[theirs];
  }
  return result;
}
