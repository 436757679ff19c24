/** A file that grows, shrinks and is replaced while its lines are read. */
import { appendFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { GrowingLines } from "../../src/dashboard/growing-lines.ts";
import { temporaryFolder } from "../helpers/folders.ts";

const folder = temporaryFolder();
let files = 0;

function reader() {
  const path = join(folder, `${files++}.jsonl`);
  const lines = new GrowingLines(path);
  const read = async () => {
    const found: string[] = [];
    await lines.read(
      ({ text }) => found.push(text),
      () => found.push("<restart>"),
    );
    return found;
  };
  return { path, lines, read };
}

test("half a line at the end waits for its other half, also in the middle of a character", async () => {
  const { path, read } = reader();
  expect(await read()).toEqual([]);
  const bytes = Buffer.from("one\ntwö\nthree\n");
  writeFileSync(path, bytes.subarray(0, 7));
  expect(await read()).toEqual(["one"]);
  expect(await read()).toEqual([]);
  appendFileSync(path, bytes.subarray(7, 11));
  expect(await read()).toEqual(["twö"]);
  appendFileSync(path, bytes.subarray(11));
  expect(await read()).toEqual(["three"]);
});

test("a file that was cut back, or another one in its place, is read again from its beginning", async () => {
  const { path, read } = reader();
  writeFileSync(path, "one\ntwo\n");
  expect(await read()).toEqual(["one", "two"]);
  writeFileSync(path, "one\n");
  expect(await read()).toEqual(["<restart>", "one"]);
  writeFileSync(`${path}.new`, "uno\ndue\ntre\n");
  renameSync(`${path}.new`, path);
  expect(await read()).toEqual(["<restart>", "uno", "due", "tre"]);
  rmSync(path);
  expect(await read()).toEqual(["<restart>"]);
  expect(await read()).toEqual([]);
});

test("a line can be read again at its place", async () => {
  const { path, lines } = reader();
  writeFileSync(path, "first\nsécond\nthird\n");
  const places: { offset: number; length: number }[] = [];
  await lines.read(
    (line) => places.push(line),
    () => undefined,
  );
  expect(await Promise.all(places.map((place) => lines.textAt(place)))).toEqual(["first", "sécond", "third"]);
});

test("lines come one by one from a file that is larger than what is read at once", async () => {
  const { path, read } = reader();
  const line = "x".repeat(1000);
  writeFileSync(path, `${line}\n`.repeat(9000));
  const found = await read();
  expect(found).toHaveLength(9000);
  expect(new Set(found)).toEqual(new Set([line]));
});

test("a line that is longer than what is read at once is passed over whole, its end included", async () => {
  const { path, read } = reader();
  const long = `${"x".repeat(2 ** 22)}{"step":7,"loss":1}`;
  writeFileSync(path, `first\n${long}`);
  expect(await read()).toEqual(["first"]);
  appendFileSync(path, "\nlast\n");
  expect(await read()).toEqual(["last"]);
});
