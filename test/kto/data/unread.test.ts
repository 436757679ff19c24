/** Columns that a row has and that its layout does not use: which are told, and once for how many rows. */
import { describe, expect, it } from "vitest";
import { rowsOfRecord } from "../../../src/kto/data/layouts.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { fileIn, jsonl, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const source = { file: "f.jsonl", line: 1 };
const user = { role: "user", content: "Hi" };
const assistant = { role: "assistant", content: "Hello" };
const other = { role: "assistant", content: "Go" };
const judged = { prompt: "Hi", completion: " a", label: true };
const pair = { prompt: "Hi", chosen: " a", rejected: " b" };
const chats = { chosen: [user, assistant], rejected: [user, other] };

const unread = (fields: Record<string, unknown>, textOnly = false) =>
  rowsOfRecord({ fields, source, textOnly }).unread.toSorted();

describe("columns that are not read", () => {
  it.each<[string, Record<string, unknown>, string[]]>([
    ["a pair that is labelled", { ...pair, ...judged }, ["completion", "label"]],
    ["a label beside a pair", { ...pair, label: false }, ["label"]],
    ["ids and their texts", { ...judged, prompt_ids: [1], completion_ids: [2] }, ["completion", "prompt"]],
    ["texts beside a labelled chat", { ...judged, messages: [user, assistant] }, ["messages"]],
    ["a system prompt beside texts", { ...judged, system: "Be kind" }, ["system"]],
    ["a system prompt beside messages", { messages: [user, assistant], label: true, system: "Be kind" }, ["system"]],
    [
      "tools of texts",
      { ...judged, tools: [{ name: "f" }], chat_template_kwargs: '{"a": 1}' },
      ["chat_template_kwargs", "tools"],
    ],
    ["a pair of chats with a label", { ...chats, label: 1 }, ["label"]],
  ])("%s", (_, fields, names) => {
    expect(unread(fields)).toEqual(names);
  });

  it.each<[string, Record<string, unknown>]>([
    ["labelled texts", judged],
    ["texts with the pair left empty", { ...judged, chosen: null, rejected: null, system: "", tools: [] }],
    ["empty lists as text", { ...judged, tools: "[]", chat_template_kwargs: " {} ", system: null }],
    ["pairs of chats with a chat that is not labelled", { ...chats, prompt: "Hi", messages: [user, assistant] }],
    ["chats with tools", { messages: [user, assistant], label: true, tools: [{ name: "f" }] }],
    ["LLaMA-Factory's system prompt", { conversations: [user, assistant], label: true, system: "Be kind" }],
    ["a chat before two answers", { conversations: [user], chosen: assistant, rejected: other, system: "Be kind" }],
    ["columns that no layout knows", { ...judged, score: 1, system_prompt: "x" }],
  ])("none: %s", (_, fields) => {
    expect(unread(fields)).toEqual([]);
  });

  it("an empty cell of csv is no column", () => {
    const cells = { prompt: "Hi", completion: "a", label: "1", chosen: "", rejected: "", system: " ", tools: "" };
    expect(unread(cells, true)).toEqual([]);
    expect(unread({ ...cells, system: "Be kind" }, true)).toEqual(["system"]);
  });
});

it("a warning counts the rows, once they are read, and names the first lines", async () => {
  const rows = [pair, ...Array.from({ length: 7 }, () => ({ ...pair, ...judged })), { ...pair, system: "x" }];
  const path = fileIn(folder, "pairs.jsonl", jsonl(rows));
  const warnings: string[] = [];
  const found = await readFeedback(path, { onWarning: (sentence) => warnings.push(sentence) });
  expect(found).toHaveLength(18);
  expect(warnings).toEqual([
    `${path}: "completion" and "label" of 7 rows (line 2, 3, 4, 5, 6, …) are not read, since the columns are taken for prompt/chosen/rejected; remove the columns that are not meant, or put what they say into those that are read.`,
    `${path}: "system" of 1 row (line 9) is not read, since the columns are taken for prompt/chosen/rejected; remove the columns that are not meant, or put what they say into those that are read.`,
  ]);
});
