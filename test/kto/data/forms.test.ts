/** Every form of file: the same rows from each, piece by piece, and nothing but sentences from damaged ones. */
import { createWriteStream, readFileSync, writeFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import { DatasetError, FileError } from "../../../src/errors.ts";
import { feedbackRows, readFeedback } from "../../../src/kto/data/read.ts";
import { parseSplit } from "../../../src/kto/data/slice.ts";
import type { FeedbackRow } from "../../../src/kto/data/types.ts";
import { fileIn, freshPath, jsonl, temporaryFolder } from "../../helpers/folders.ts";

const real = "test/fixtures/feedback";
const folder = temporaryFolder();

interface Message {
  readonly role: string;
  readonly content: string;
}
interface Chat {
  readonly prompt: readonly Message[];
  readonly completion: readonly Message[];
  readonly label: boolean;
}
const chats = readFileSync(`${real}/kto_en_demo.conversational.jsonl`, "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Chat);

const withoutSource = (rows: readonly FeedbackRow[]) => rows.map(({ source: _, ...row }) => row);
const textParquet = (rows: readonly { prompt: string; completion: string; label: boolean }[], rowGroupSize = 1000) =>
  new Uint8Array(
    parquetWriteBuffer({
      columnData: [
        { name: "prompt", data: rows.map(({ prompt }) => prompt), type: "STRING" },
        { name: "completion", data: rows.map(({ completion }) => completion), type: "STRING" },
        { name: "label", data: rows.map(({ label }) => label), type: "BOOLEAN" },
      ],
      rowGroupSize,
    }),
  );

describe("the same real chats", () => {
  it.each(["kto_en_demo.conversational.jsonl", "kto_en_demo.messages.jsonl", "kto_en_demo_messages.parquet"])(
    "%s gives their messages",
    async (file) => {
      const expected = chats.map(({ prompt, completion, label }) => ({
        promptMessages: prompt,
        completionMessages: completion,
        label,
      }));
      expect(expected.some(({ promptMessages }) => promptMessages.length > 1)).toBe(true);
      expect(withoutSource(await readFeedback(`${real}/${file}`))).toEqual(expected);
    },
  );

  it("kto_en_demo.csv and kto_en_demo.parquet give the texts that they hold", async () => {
    const texts = (line: (message: Message) => string) =>
      chats.map(({ prompt, completion, label }) => ({
        prompt: prompt.map(line).join("\n"),
        completion: completion.map(({ content }) => content).join("\n"),
        label,
      }));
    // The two files were written with prompts that differ: csv's are the contents, parquet's name the roles.
    const csv = texts(({ content }) => content);
    expect(withoutSource(await readFeedback(`${real}/kto_en_demo.csv`))).toEqual(csv);
    const flat = texts(({ role, content }) => `${role}: ${content}`);
    expect(withoutSource(await readFeedback(`${real}/kto_en_demo.parquet`))).toEqual(flat);
    // One text in another form of file stays that text.
    const parquet = fileIn(folder, "same.parquet", textParquet(csv, 7));
    expect(withoutSource(await readFeedback(parquet))).toEqual(csv);
    expect(withoutSource(await readFeedback(fileIn(folder, "same.json", JSON.stringify(csv))))).toEqual(csv);
  });

  it("pairs become a chosen and a rejected row each, also where their prompt is implicit", async () => {
    const path = `${real}/dpo_en_demo.paired.jsonl`;
    const rows = await readFeedback(path);
    const pairs = readFileSync(path, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows).toHaveLength(2 * pairs.length);
    expect(rows[3]).toMatchObject({ promptMessages: pairs[1].prompt, completionMessages: pairs[1].rejected, pair: 1 });
    const implicit = pairs.map(({ prompt, chosen, rejected }) => ({
      chosen: [...prompt, ...chosen],
      rejected: [...prompt, ...rejected],
    }));
    expect(withoutSource(await readFeedback(fileIn(folder, "implicit.jsonl", jsonl(implicit))))).toEqual(
      withoutSource(rows),
    );
  });
});

describe("slices", () => {
  const path = fileIn(
    folder,
    "ten.jsonl",
    jsonl(Array.from({ length: 10 }, (_, i) => ({ prompt: `${i}`, completion: "c", label: true }))),
  );
  it.each([
    ["train", "0123456789"],
    ["train[:3]", "012"],
    ["train[8:]", "89"],
    ["train[-2:]", "89"],
    ["train[50%:70%]", "56"],
    ["train[:-8]", "01"],
  ])("%s", async (written, expected) => {
    const { slice } = parseSplit(written);
    const rows = await readFeedback(path, slice ? { slice } : {});
    expect(rows.map((row) => ("prompt" in row ? row.prompt : "")).join("")).toBe(expected);
  });

  it("that leave nothing, or are none, are refused", async () => {
    await expect(readFeedback(path, { slice: { from: { value: 10, percent: false } } })).rejects.toThrow(
      /the slice selects none of its 10 rows; choose another slice/,
    );
    expect(() => parseSplit("train[1]")).toThrow(/"dataset_train_split" is "train\[1\]"/);
  });
});

describe("files larger than what is held", () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  const text = "Judge the answer, please. ".repeat(160);
  /** A half of what a file holds. */
  const mostBytes = 8e6;
  const row = (i: number) => ({ prompt: `${i} ${text}`, completion: `answer ${i}`, label: i % 2 === 0 });
  const forms: [string, number, (i: number, last: boolean) => string][] = [
    ["jsonl", 4000, (i) => `${JSON.stringify(row(i))}\n`],
    ["json", 4000, (i, last) => `${i === 0 ? "[" : ""}${JSON.stringify(row(i))}${last ? "]" : ",\n"}`],
    ["csv", 4000, (i) => `${i === 0 ? "prompt,completion,label\n" : ""}"${row(i).prompt}",${i},${row(i).label}\n`],
  ];

  async function growthWhileReading(path: string, count: number): Promise<number> {
    const held = () => {
      collectGarbage();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    const before = held();
    let most = 0;
    let read = 0;
    for await (const _ of feedbackRows(path)) if (++read % 1000 === 0) most = Math.max(most, held() - before);
    expect(read).toBe(count);
    return most;
  }

  it.each(forms)("%s", async (ending, count, write) => {
    const path = freshPath(folder, `large.${ending}`);
    const stream = createWriteStream(path);
    for (let i = 0; i < count; i++) stream.write(write(i, i === count - 1));
    await new Promise<void>((resolve) => stream.end(resolve));
    expect(await growthWhileReading(path, count)).toBeLessThan(mostBytes);
  });

  it("parquet, a row group at a time", async () => {
    const count = 4000;
    // Texts that differ, so that neither dictionary nor compression makes the file small.
    const rows = Array.from({ length: count }, (_, i) => ({ ...row(i), prompt: `${i} ${text.slice(i % 97)}` }));
    const path = freshPath(folder, "large.parquet");
    writeFileSync(path, textParquet(rows, 250));
    rows.length = 0;
    expect(await growthWhileReading(path, count)).toBeLessThan(mostBytes);
  });
});

describe("damaged files", () => {
  const chat = {
    messages: [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ],
    label: true,
  };
  const rows = Array.from({ length: 6 }, (_, i) => ({ prompt: `p "${i}"`, completion: `c,${i}`, label: i % 2 === 0 }));
  const whole: [string, Uint8Array][] = [
    ["jsonl", Buffer.from(jsonl([chat, chat, chat]))],
    ["json", Buffer.from(JSON.stringify([chat, chat], null, 1))],
    ["csv", Buffer.from('prompt,completion,label\n"a\nb",c,true\nd,"e ""f""",0\n')],
    ["parquet", textParquet(rows, 3)],
    ["parquet", readFileSync(`${real}/kto_en_demo_messages.parquet`)],
  ];
  const sentence = async (path: string) => {
    try {
      await readFeedback(path);
    } catch (error) {
      if (!(error instanceof DatasetError || error instanceof FileError)) throw error;
      return error.message;
    }
    return "";
  };

  it.each(whole)("%s with changed, missing or added bytes gives rows or a sentence", async (ending, bytes) => {
    const path = freshPath(folder, `damaged.${ending}`);
    const change = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), byte: fc.nat(255), kind: fc.nat(3) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        let content = Buffer.from(bytes);
        for (const { at, byte, kind } of changes) {
          // Half of the changes of a parquet file go into its last part, where the metadata lies.
          const from = ending === "parquet" && byte % 2 === 0 ? Math.max(0, content.length - 600) : 0;
          const position = from + Math.floor(at * (content.length - from));
          if (kind === 0) content = Buffer.concat([content.subarray(0, position), content.subarray(position + 1)]);
          else if (kind === 1) content = content.subarray(0, Math.max(1, position));
          else if (position < content.length) content[position] = byte;
        }
        writeFileSync(path, content);
        await sentence(path);
      }),
      { numRuns: 300 },
    );
  });

  it("parquet compressed with a codec that is not supported names column and codec", async () => {
    const bytes = Buffer.from(textParquet(rows));
    // In the metadata's ColumnMetaData: path_in_schema, a list of one string, then the codec, an i32 in zigzag form.
    const name = Buffer.from("\x18\x06prompt\x15", "latin1");
    const at = bytes.lastIndexOf(name);
    expect(at).toBeGreaterThan(0);
    expect(bytes[at + name.length]).toBe(2);
    bytes[at + name.length] = 6;
    expect(await sentence(fileIn(folder, "lzo.parquet", bytes))).toMatch(
      /lzo\.parquet: the column "prompt" is compressed with LZO, which is not supported; write the file again with one of UNCOMPRESSED, SNAPPY, .*ZSTD/,
    );
    bytes[at + name.length] = 60;
    expect(await sentence(fileIn(folder, "new.parquet", bytes))).toMatch(/with a codec that is not known/);
  });

  it("parquet cut short, and parquet of other columns", async () => {
    const bytes = textParquet(rows);
    expect(await sentence(fileIn(folder, "cut.parquet", bytes.subarray(0, 100)))).toMatch(/cut\.parquet is damaged/);
    const columnData = [{ name: "question", data: ["q"], type: "STRING" as const }];
    const other = new Uint8Array(parquetWriteBuffer({ columnData }));
    expect(await sentence(fileIn(folder, "other.parquet", other))).toMatch(
      /:1: no layout .* fits the fields "question"/,
    );
  });

  it.each<[string, string, string | Uint8Array, RegExp]>([
    ["a csv header with a column twice", "x.csv", "prompt,label,prompt\na,1,b\n", /:1 names the column "prompt" twice/],
    ["a csv quote inside a text", "x.csv", 'prompt,completion,label\na,b,1\na"b"c,d,1\n', /x\.csv:3 is not valid CSV/],
    [
      "a list that does not end",
      "x.json",
      '[{"prompt":"a","completion":"b","label":1},\n',
      /:1 is not valid JSON: the list of rows does not end/,
    ],
    ["text after a list", "x.json", '[]\n"x"', /:2 is not valid JSON: there is text after/],
    ["a comma too many", "x.json", '[{"prompt":"a","completion":"b","label":1},]', /:1 is not valid JSON: an element/],
    [
      "nested without end",
      "x.jsonl",
      `{"prompt":${"[".repeat(1e5)}${"]".repeat(1e5)},"label":1}`,
      /"prompt" is|"prompt" at|field/,
    ],
    ["a file that is no text", "x.csv", Uint8Array.of(0xff, 0xfe, 0x61, 0), /x\.csv is UTF-16 text; save/],
    ["bytes that are no text", "x.csv", Uint8Array.of(0x61, 0xc3, 0x28, 0x0a), /:1 is not UTF-8/],
  ])("%s", async (_, name, content, expected) => {
    expect(await sentence(fileIn(folder, name, content))).toMatch(expected);
  });

  it("a line of 30 MB is read, or refused, without a crash", async () => {
    const path = freshPath(folder, "line.jsonl");
    writeFileSync(path, Buffer.alloc(30e6, 0x61));
    expect(await sentence(path)).toMatch(/:1 is not valid JSON: .{0,100}$/);
  });
});
