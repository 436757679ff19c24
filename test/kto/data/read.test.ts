import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DatasetError, FileError } from "../../../src/errors.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";

let folder: string;
let files = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "feedback-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function write(content: string | Uint8Array, ending = "jsonl"): Promise<string> {
  const path = join(folder, `${files++}.${ending}`);
  await writeFile(path, content);
  return path;
}

const read = async (content: string | Uint8Array, ending?: string) => readFeedback(await write(content, ending));
const line = (row: unknown) => `${JSON.stringify(row)}\n`;

describe("readFeedback", () => {
  it("reads the same rows from jsonl, json and csv", async () => {
    const rows = [
      { prompt: 'Say "hi",\nplease', completion: " hi — 🐈", label: true },
      { prompt: "", completion: "", label: false },
    ];
    const jsonl = await read(rows.map(line).join(""));
    expect(jsonl.map(({ source: _, ...row }) => row)).toEqual(rows);
    const json = await read(JSON.stringify(rows, null, 2), "json");
    expect(json.map(({ source: _, ...row }) => row)).toEqual(rows);
    const csv = await read('label,prompt,note,completion\nTrue,"Say ""hi"",\nplease",x, hi — 🐈\n0,,y,\n', "csv");
    expect(csv.map(({ source: _, ...row }) => row)).toEqual(rows);
  });

  it("reads lines of JSON that are named .json", async () => {
    const rows = [
      { prompt: "p", completion: "c", label: true },
      { prompt: "q", completion: "d", label: false },
    ];
    const found = await read(`\n${rows.map(line).join("\n")}`, "json");
    expect(found.map(({ source: _, ...row }) => row)).toEqual(rows);
    expect(found.map(({ source }) => source.line)).toEqual([2, 4]);
  });

  it("knows the line on which each row begins", async () => {
    const row = { prompt: "p", completion: "c", label: 1 };
    const lines = async (content: string, ending: string) =>
      (await read(content, ending)).map(({ source }) => source.line);
    expect(await lines(`\n${line(row)}\r\n${line(row)}`, "jsonl")).toEqual([2, 4]);
    const text = JSON.stringify(row);
    expect(await lines(`[\n ${text}, ${text},\n\n{"prompt":"]\\"{",\n"completion":"\\\\","label":0}]`, "json")).toEqual(
      [2, 2, 4],
    );
    expect(await lines('prompt,completion,label\n"a\nb",c,1\n\n\nd,e,0\r\nf,g,1', "csv")).toEqual([2, 6, 7]);
    expect(await lines('prompt,completion,label\r\n"a\r\né",c,1\r\n\r\nd,e,0\r\nf,g,1', "csv")).toEqual([2, 5, 6]);
  });

  it("splits a preference pair into a chosen and a rejected row", async () => {
    const path = await write(
      line({ prompt: "p", chosen: "good", rejected: "bad" }) + line({ prompt: "q", chosen: "a", rejected: "b" }),
    );
    expect(await readFeedback(path)).toEqual([
      { prompt: "p", completion: "good", label: true, pair: 0, source: { file: path, line: 1 } },
      { prompt: "p", completion: "bad", label: false, pair: 0, source: { file: path, line: 1 } },
      { prompt: "q", completion: "a", label: true, pair: 1, source: { file: path, line: 2 } },
      { prompt: "q", completion: "b", label: false, pair: 1, source: { file: path, line: 2 } },
    ]);
  });

  it("takes token ids as they are", async () => {
    const [row] = await read(line({ prompt_ids: [5, 0], completion_ids: [], label: false }));
    expect(row).toMatchObject({ promptIds: [5, 0], completionIds: [], label: false });
  });

  it("reads lines that cross the border of a piece, and a last line without an end", async () => {
    // Characters of three bytes over several mebibytes: some piece ends inside a character.
    const rows = Array.from({ length: 40 }, (_, i) => ({
      prompt: "€".repeat(20_000 + i * 1000),
      completion: String(i),
      label: i % 2 === 0,
    }));
    rows.push({ prompt: "€".repeat(800_000), completion: "long", label: true });
    const found = await read(rows.map((row) => JSON.stringify(row)).join("\n"));
    expect(found.map(({ source: _, ...row }) => row)).toEqual(rows);
  });

  it("ignores a byte order mark, fields it does not know and fields that are null", async () => {
    const row = { id: 7, prompt: "p", completion: "c", label: true, messages: null, chosen: null };
    expect(await read(`\ufeff${line(row)}`)).toHaveLength(1);
    expect(await read("\ufeffprompt,completion,label\r\na,b,true\r\n", "csv")).toHaveLength(1);
  });

  const good = line({ prompt: "p", completion: "c", label: true });
  it.each<[string, string | Uint8Array, string, RegExp]>([
    ["an empty file", "", "jsonl", /is empty/],
    ["a file of blank lines", "\n \n", "jsonl", /holds no rows/],
    ["an empty list", "[]", "json", /holds no rows/],
    ["a csv of its header alone", "prompt,completion,label\n", "csv", /holds no rows/],
    ["a line that is not JSON", `${good}{"prompt": \n`, "jsonl", /:2 is not valid JSON/],
    ["a row that is no object", `${good}[1]\n`, "jsonl", /:2: a row must be a JSON object, not \[1\]/],
    ["bytes that are not UTF-8", Uint8Array.of(0x7b, 0xff, 0x7d), "jsonl", /:1 is not UTF-8/],
    ["a missing completion", `${good}\n{"prompt":"p","label":true}`, "jsonl", /:3: the field "completion" is missing/],
    ["a missing label", '{"prompt":"p","completion":"c"}', "jsonl", /:1: the field "label" is missing/],
    ["a missing rejected", '{"prompt":"p","chosen":"c"}', "jsonl", /:1: the field "rejected" is missing/],
    ["a label of words", '{"prompt":"p","completion":"c","label":"good"}', "jsonl", /:1: "label" is "good"; it must/],
    ["a label of 2", '{"prompt":"p","completion":"c","label":2}', "jsonl", /:1: "label" is 2/],
    [
      "a prompt that is a number",
      '{"prompt":3,"completion":"c","label":true}',
      "jsonl",
      /:1: "prompt" is 3, not a text/,
    ],
    ["unknown fields", '{"text":"p","score":1}', "jsonl", /:1: no layout.*"text", "score".*a row needs/],
    ["mixed layouts", `${good}{"prompt":"p","chosen":"c","rejected":"d"}`, "jsonl", /:2 has the layout.*from line 1/],
    [
      "token ids below 0",
      '{"prompt_ids":[1,-1],"completion_ids":[1],"label":1}',
      "jsonl",
      /:1: "prompt_ids" has -1 at/,
    ],
    [
      "token ids with a fraction",
      '{"prompt_ids":[1],"completion_ids":[0.5],"label":1}',
      "jsonl",
      /"completion_ids" has 0\.5/,
    ],
    [
      "token ids as text",
      '{"prompt_ids":"1 2","completion_ids":[1],"label":1}',
      "jsonl",
      /"prompt_ids" is "1 2", not a list/,
    ],
    [
      "a chat that ends with the user",
      '{"messages":[{"role":"user","content":"x"}],"label":true}',
      "jsonl",
      /:1: "messages" ends with a message of the role "user"; the last one must be the assistant's/,
    ],
    [
      "a message without content",
      '{"prompt":[{"role":"user"}],"completion":[],"label":true}',
      "jsonl",
      /:1: "prompt" at position 0 has no "content"/,
    ],
    [
      "JSON with a fault",
      '[{"prompt":"p","completion":"c","label":1},\n{"prompt" "q"}]',
      "json",
      /:2 is not valid JSON/,
    ],
    ["one line of JSON under the name .json", good, "json", /not valid JSON.*name it \.jsonl/],
    ["a bad line among lines of JSON under that name", `${good}{"a"\n`, "json", /:2 is not valid JSON/],
    ["JSON that is no list", '{"data":[]}', "json", /no list of rows/],
    [
      "a json row among others on its line",
      '[{"prompt":"p","completion":"c","label":1},{"prompt":"p"}]',
      "json",
      /:1 \(element 2\): the field "completion"/,
    ],
    [
      "a csv row with too few columns",
      "prompt,completion,label\na,b,1\na,b\n",
      "csv",
      /:3 has 2 columns, but the header names 3/,
    ],
    ["a csv label of words", "prompt,completion,label\na,b,up\n", "csv", /:2: "label" is "up"/],
    ["a csv quote that is not closed", 'prompt,completion,label\n"a,b,1\n', "csv", /not valid CSV/],
    ["parquet that ends at once", "PAR1", "parquet", /is damaged or not a parquet file/],
    ["an unknown ending", "x", "txt", /has an ending that is not known/],
  ])("refuses %s with file and line", async (_, content, ending, message) => {
    const path = await write(content, ending);
    const error = await readFeedback(path).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DatasetError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain(path);
    expect((error as Error).message).not.toMatch(/\n/);
  });

  it("says that a file is missing", async () => {
    await expect(readFeedback(join(folder, "none.jsonl"))).rejects.toThrow(FileError);
  });
});
