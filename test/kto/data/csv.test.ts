/** The cells of csv records, judged by csv-parse: the same cells, or both refuse the record. */
import { parse } from "csv-parse/sync";
import fc from "fast-check";
import { expect, it } from "vitest";
import { DatasetError } from "../../../src/errors.ts";
import { cellsOf } from "../../../src/kto/data/records.ts";

const source = { file: "x.csv", line: 3 };

function ours(text: string): string[] | "refused" {
  try {
    return cellsOf(text, source);
  } catch (error) {
    if (!(error instanceof DatasetError)) throw error;
    return "refused";
  }
}

function theirs(text: string): string[] | "refused" {
  try {
    const [record = [], ...others]: string[][] = parse(text, { relax_column_count: true, record_delimiter: "\n" });
    expect(others).toEqual([]);
    return record;
  } catch {
    return "refused";
  }
}

/** A text as a record has it: line breaks stand behind an odd number of quotes. */
function asRecord(text: string): string {
  let open = false;
  return [...text]
    .map((char) => {
      if (char === '"') open = !open;
      return char === "\n" && !open ? "n" : char;
    })
    .join("");
}

it("any record gives the cells that csv-parse finds, or is refused by both", () => {
  const found = { cells: 0, refused: 0 };
  const character = fc.constantFrom('"', '"', ",", ",", "a", " ", "\n", "é", "😀");
  const text = fc.string({ unit: character, minLength: 1, maxLength: 12 }).map(asRecord);
  fc.assert(
    fc.property(text, (record) => {
      const cells = ours(record);
      expect(cells).toEqual(theirs(record));
      found[cells === "refused" ? "refused" : "cells"]++;
    }),
    { seed: 5, numRuns: 2000 },
  );
  expect(found.cells).toBeGreaterThan(300);
  expect(found.refused).toBeGreaterThan(300);
});

it("cells that are written with quotes around them come back", () => {
  const cell = fc.string({ unit: fc.constantFrom('"', ",", "a", "\n", "\r", " ", "é"), maxLength: 8 });
  fc.assert(
    fc.property(fc.array(cell, { minLength: 1, maxLength: 5 }), (cells) => {
      const text = cells.map((one) => `"${one.replaceAll('"', '""')}"`).join(",");
      expect(cellsOf(text, source)).toEqual(cells);
    }),
  );
});

it.each([
  ['a"b,c', /^x\.csv:3 is not valid CSV: there is a quote inside column 1; put texts with quotes into double quotes/],
  ['a,"b"c', /there is text behind the quotes of column 2/],
  ['a,b,"c', /the quotes of column 3 are not closed/],
])("%s is refused with its place", (text, sentence) => {
  expect(() => cellsOf(text, source)).toThrow(sentence);
});
