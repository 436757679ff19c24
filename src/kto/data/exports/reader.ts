/**
 * Reads the ratings of exports into rows, in two passes over the same findings: the first learns what ratings say about
 * each other, the second makes the rows. No conversation is held longer than its record.
 */
import { ConfigError } from "../../../errors.ts";
import { Ledger } from "./ledger.ts";
import { type ExportReport, ReportBuilder } from "./report.ts";
import { rowOfRating } from "./rules.ts";
import type { ExportRow, Finding, Json, Shape, UserNames } from "./types.ts";

/** What a pass yields; `Place` is how the caller names the place of a record. */
export interface Found<Place> {
  readonly shape: Pick<Shape, "name" | "newestFirst" | "note" | "named" | "ratingNames">;
  /** Undefined where a record has none, so that its names are seen all the same. */
  readonly finding: Finding | undefined;
  readonly place: Place;
  /** The record, for the names of its ratings; a database has none. */
  readonly record?: Json;
}

/** A row with its place and the name of its shape. */
export interface PlacedRow<Place> {
  readonly row: ExportRow;
  readonly place: Place;
  readonly shape: string;
}

/**
 * @param pass goes through all findings from the first; it is called twice
 * @param onReport called once when all rows were read, or when no more are wanted
 * @throws ConfigError if names must be given by the user and are not, or are not in the file
 */
export async function* rowsOfFindings<Place>(
  pass: () => AsyncIterable<Found<Place>>,
  names: UserNames,
  onReport: (report: ExportReport) => void,
): AsyncGenerator<PlacedRow<Place>> {
  const ledger = new Ledger();
  const check = new NameCheck(names);
  const builder = new ReportBuilder();
  for await (const { shape, finding, record } of pass()) {
    builder.addShape(shape.name, shape.note);
    if (record !== undefined) check.see(shape, record);
    if (finding !== undefined && finding !== "unrated") ledger.add(finding, shape.newestFirst === true);
  }
  check.close();
  const found = ledger.close();
  let index = 0;
  try {
    for await (const { shape, finding, place } of pass()) {
      if (finding === undefined) continue;
      if (finding === "unrated") {
        builder.addUnrated();
        continue;
      }
      const verdict = rowOfRating(finding, found.get(index++) ?? []);
      if (verdict.row === undefined) builder.addDropped(finding, verdict.reason);
      else {
        yield { row: verdict.row, place, shape: shape.name };
        // Behind the yield, so that a row that nobody takes is not counted.
        builder.addRow(verdict.row, finding, verdict.cites);
      }
    }
  } finally {
    // Also where no more rows are wanted, as for a slice.
    onReport(builder.report());
  }
}

/** Names that are collected for a message. */
const mostNames = 20;

/** Checks that the user named the rating, where a program leaves its name to its users. */
class NameCheck {
  readonly #names: UserNames;
  readonly #found = new Set<string>();
  #shape: Found<unknown>["shape"] | undefined;

  constructor(names: UserNames) {
    this.#names = names;
  }

  see(shape: Found<unknown>["shape"], record: Json): void {
    if (shape.named === undefined) return;
    this.#shape = shape;
    const names = shape.ratingNames?.(record) ?? [];
    // The user's own name must not be lost among many others.
    for (const name of names) if (this.#found.size < mostNames || name === this.#names.label) this.#found.add(name);
  }

  close(): void {
    const { name, named = [] } = this.#shape ?? {};
    if (name === undefined) return;
    const listed = [...this.#found].map((one) => `"${one}"`).join(", ");
    const there = this.#found.size === 0 ? "the file has none" : `the file has ${listed}`;
    const { label } = this.#names;
    const missing = named.filter((one) => this.#names[one] === undefined);
    if (missing.length > 0) {
      const example = JSON.stringify(
        Object.fromEntries(named.map((one) => [one, exampleOf(one, [...this.#found][0])])),
      );
      throw new ConfigError(
        `${name} leave the names of ${named.length > 1 ? "fields and ratings" : "ratings"} to their users: give ${missing.join(" and ")} in column_mapping, such as '${example}'; of ratings ${there}.`,
      );
    }
    if (label !== undefined && !this.#found.has(label)) {
      throw new ConfigError(
        `option "column_mapping" reads the rating from "${label}", which is not in the file; of ratings ${there}.`,
      );
    }
  }
}

function exampleOf(name: keyof UserNames, found: string | undefined): string {
  return name === "label" ? (found ?? "user-feedback") : name === "prompt" ? "question" : "answer";
}
