/** The rows of supervised fine-tuning: every layout with and without labels, and what is left out of feedback. */
import { describe, expect, test } from "vitest";
import { DatasetError } from "../../../src/errors.ts";
import { DesirableRows } from "../../../src/kto/data/desirable.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { fileIn, jsonl, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
let files = 0;
const fileOf = (rows: readonly unknown[]) => fileIn(folder, `rows-${files++}.jsonl`, jsonl(rows));

const chat = [
  { role: "user", content: "Hello" },
  { role: "assistant", content: "Hi" },
];

describe("rows that need no label", () => {
  test.each([
    ["prompt/completion", { prompt: "a", completion: "b" }],
    ["conversational prompt/completion", { prompt: chat.slice(0, 1), completion: chat.slice(1) }],
    ["messages", { messages: chat }],
    ["conversations", { conversations: [{ from: "human", value: "a" }, ...chat.slice(1)] }],
    ["prompt_ids/completion_ids", { prompt_ids: [1], completion_ids: [2] }],
  ])("%s: desirable without one, and with one as it says", async (name, row) => {
    const layouts: string[] = [];
    const onLayout = (layout: string) => void layouts.push(layout);
    const plain = await readFeedback(fileOf([row, { ...row, label: null }]), { labels: "optional", onLayout });
    expect(plain.map(({ label }) => label)).toEqual([true, true]);
    const labelled = await readFeedback(fileOf([{ ...row, label: false }]), { labels: "optional", onLayout });
    expect(labelled.map(({ label }) => label)).toEqual([false]);
    expect(layouts).toEqual([name, `${name}/label`]);
  });

  test("some rows of a file may have one and others not, in csv as empty cells", async () => {
    const rows = await readFeedback("test/fixtures/cases/13-some-labels-missing/rows.jsonl", { labels: "optional" });
    expect(rows.map(({ label }) => label)).toEqual([true, true, true]);
    const csv = fileIn(folder, "rows.csv", "prompt,completion,label\na,b,false\nc,d,\ne,f, \n");
    const cells = await readFeedback(csv, { labels: "optional" });
    expect(cells.map(({ label }) => label)).toEqual([false, true, true]);
    const chats = fileOf([{ messages: chat }, { messages: chat, label: false }]);
    expect((await readFeedback(chats, { labels: "optional" })).map(({ label }) => label)).toEqual([true, false]);
    await expect(readFeedback(chats)).rejects.toThrow(`${chats}:1: the field "label" is missing`);
  });

  test("a row of no layout is told what it needs; feedback needs its label as ever", async () => {
    await expect(readFeedback(fileOf([{ text: "all of it" }]), { labels: "optional" })).rejects.toThrow(
      'a row needs "prompt" and "completion", or "messages", or "prompt_ids" and "completion_ids", all with a "label" or without',
    );
    await expect(readFeedback(fileOf([{ prompt: "a", completion: "b" }]))).rejects.toThrow(
      'the field "label" is missing',
    );
  });
});

describe("the desirable rows of feedback", () => {
  const read = async (rows: readonly unknown[]) => {
    const desirable = new DesirableRows(await readFeedback(fileOf(rows), { labels: "optional" }));
    const completions: unknown[] = [];
    for await (const row of desirable) completions.push("completion" in row ? row.completion : undefined);
    return { completions, desirable };
  };

  test("thumbs up of labelled rows, chosen of pairs; the others are counted, again at each pass", async () => {
    const { completions, desirable } = await read(
      [true, false, false].map((label, i) => ({ prompt: "a", completion: `${i}`, label })),
    );
    expect(completions).toEqual(["0"]);
    expect(desirable.leftOut).toBe(2);
    for await (const _ of desirable);
    expect(desirable.leftOut).toBe(2);
    const pairs = await read([{ prompt: "a", chosen: "good", rejected: "bad" }]);
    expect(pairs.completions).toEqual(["good"]);
    expect(pairs.desirable.leftOut).toBe(1);
  });

  test("nothing but thumbs down is refused", async () => {
    const rows = [{ prompt: "a", completion: "b", label: false }];
    await expect(read(rows)).rejects.toThrow(DatasetError);
    await expect(read(rows)).rejects.toThrow(
      "the only row is undesirable, and supervised fine-tuning imitates its rows",
    );
  });
});
