/** The column names that layouts know, and a user's mapping from these names to the ones in a file. */
import { picked } from "../../engine/files/exact-json.ts";
import { ConfigError, DatasetError, shown } from "../../errors.ts";
import { thumbReader } from "./exports/thumbs.ts";
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
  "query",
  "tools",
  "chat_template_kwargs",
  "prompt_ids",
  "completion_ids",
] as const;

type KnownColumn = (typeof knownColumns)[number];

/** The column of the label, and which of its values are thumbs where they are not true and false. */
export interface LabelMapping {
  /** Default "label". */
  readonly column?: string;
  /** The values for desirable, then for undesirable rows. A row with another value is refused. */
  readonly up?: unknown;
  readonly down?: unknown;
}

/** Maps names that layouts know to the file's own names, for example { prompt: "question", label: "thumb" }. */
export type ColumnMapping = Readonly<Partial<Record<Exclude<KnownColumn, "label" | "completion">, string>>> & {
  /** Two for an export of pairs with one rating, the left answer first. */
  readonly completion?: string | readonly [left: string, right: string];
  readonly label?: string | LabelMapping;
};

/**
 * Checks a mapping that a user wrote.
 *
 * @throws ConfigError if it maps a name that no layout knows, or maps a name to something that cannot be a column
 */
export function checkColumnMapping(mapping: Readonly<Record<string, unknown>>): ColumnMapping {
  for (const [ours, theirs] of Object.entries(mapping)) {
    if (!knownColumns.some((name) => name === ours)) {
      throw new ConfigError(
        `option "column_mapping" maps "${ours}", which no layout of feedback has; it goes from ${knownColumns.join(", ")} to the file's own names.`,
      );
    }
    const isName = (value: unknown) => typeof value === "string" && value !== "";
    if (ours === "label" && typeof theirs === "object" && theirs !== null) checkLabelMapping({ ...theirs });
    else if (ours === "completion" && Array.isArray(theirs) && theirs.length === 2 && theirs.every(isName)) continue;
    else if (!isName(theirs)) {
      throw new ConfigError(`option "column_mapping" must give "${ours}" the name of a column in the file.`);
    }
  }
  return mapping as ColumnMapping;
}

function checkLabelMapping(given: Readonly<Record<string, unknown>>): void {
  const isValue = (value: unknown) => ["string", "number", "boolean"].includes(typeof value);
  const isValues = (value: unknown) => isValue(value) || (Array.isArray(value) && value.every(isValue));
  const { column, up, down, ...rest } = given;
  const named = column === undefined || (typeof column === "string" && column !== "");
  if (named && isValues(up) && isValues(down) && Object.keys(rest).length === 0) return;
  throw new ConfigError(
    'option "column_mapping" gives "label" neither the name of a column nor its values; write it as {"label": {"column": "thumb", "up": ["helpful"], "down": ["harmful"]}}.',
  );
}

/** The file's name for a column; undefined if it is not mapped. */
export function columnOf(mapping: ColumnMapping, name: KnownColumn): string | undefined {
  if (name === "label" && typeof mapping.label === "object") return mapping.label.column ?? "label";
  const theirs = mapping[name];
  return typeof theirs === "string" ? theirs : undefined;
}

/** The names of two answers that one rating compares; undefined if they are not mapped. */
export function pairOf({ completion }: ColumnMapping): readonly [left: string, right: string] | undefined {
  return typeof completion === "object" ? completion : undefined;
}

/** The names that are mapped. */
export function mappedNames(mapping: ColumnMapping): KnownColumn[] {
  return knownColumns.filter((name) => mapping[name] !== undefined);
}

/** Which values of the label are thumbs, where the user says it. */
export interface LabelScale {
  readonly up?: readonly unknown[];
  readonly down?: readonly unknown[];
  /** Numbers from here on are desirable, smaller ones undesirable. */
  readonly threshold?: number;
}

/** @throws ConfigError if both values and a threshold are given */
export function labelScale({ label }: ColumnMapping, threshold: number | undefined): LabelScale {
  if (typeof label !== "object") return threshold === undefined ? {} : { threshold };
  if (threshold !== undefined) {
    throw new ConfigError(
      'options "label_threshold" and "column_mapping" both say which labels are desirable: keep one.',
    );
  }
  return { up: [label.up].flat(), down: [label.down].flat() };
}

/**
 * A row whose label is a thumb, where the user says which values are thumbs.
 *
 * @throws DatasetError if the label is neither of them
 */
export function withThumb(fields: Fields, scale: LabelScale, source: RowSource): Fields {
  const { label } = fields;
  if (Object.keys(scale).length === 0 || label === undefined || label === null) return fields;
  const thumb = thumbReader(scale)(label);
  if (thumb !== undefined) return { ...fields, label: thumb };
  const wanted =
    scale.threshold === undefined
      ? `one of the values that column_mapping names: ${[...(scale.up ?? []), ...(scale.down ?? [])].map((value) => shown(value)).join(", ")}`
      : `a number to be compared with label_threshold ${scale.threshold}`;
  throw new DatasetError(`${placeOf(source)}: "label" is ${shown(label, 40)}; it must be ${wanted}.`);
}

/** The names of all columns that a file may need to be read for, given a mapping. */
export function neededColumns(mapping: ColumnMapping): string[] {
  const mapped = mappedNames(mapping).flatMap((name) => columnOf(mapping, name) ?? []);
  return [...new Set([...knownColumns, ...mapped])];
}

/**
 * Renames a row's fields to the names that layouts know. A mapped column is no longer found under its own name.
 *
 * @throws DatasetError if the row lacks a mapped column; the message lists the columns that it has
 */
export function mapColumns(fields: Fields, mapping: ColumnMapping, source: RowSource): Fields {
  const pairs = mappedNames(mapping).map((name) => [name, columnOf(mapping, name) ?? name] as const);
  if (pairs.length === 0) return fields;
  const mapped = new Set(pairs.map(([, theirs]) => theirs));
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
