/** The column names that layouts know, and a user's mapping from these names to the ones in a file. */
import { picked } from "../../engine/files/exact-json.ts";
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

/** Maps names that layouts know to the file's own names, for example { prompt: "question", label: "thumb" }. */
export type ColumnMapping = Readonly<Partial<Record<(typeof knownColumns)[number], string>>>;

/**
 * Checks a mapping that a user wrote.
 *
 * @throws ConfigError if it maps a name that no layout knows, or maps a name to something other than a text
 */
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

/** The names of all columns that a file may need to be read for, given a mapping. */
export function neededColumns(mapping: ColumnMapping): string[] {
  return [...new Set([...knownColumns, ...Object.values(mapping)])];
}

/**
 * Renames a row's fields to the names that layouts know. A mapped column is no longer found under its own name.
 *
 * @throws DatasetError if the row lacks a mapped column; the message lists the columns that it has
 */
export function mapColumns(fields: Fields, mapping: ColumnMapping, source: RowSource): Fields {
  const pairs = Object.entries(mapping);
  if (pairs.length === 0) return fields;
  const mapped = new Set(Object.values(mapping));
  const own = Object.keys(fields).filter((name) => !mapped.has(name));
  const names = new Map(own.map((name) => [name, name]));
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
    names.set(ours, theirs);
  }
  return picked(fields, names);
}
