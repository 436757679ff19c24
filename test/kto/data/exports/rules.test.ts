/**
 * The rules that hold for all programs, on Open WebUI's feedback: reasoning, raters, several files; and labels with
 * values of their own.
 */
import { readFileSync } from "node:fs";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import type { ColumnMapping } from "../../../../src/kto/data/columns.ts";
import { feedbackRows, readFeedback } from "../../../../src/kto/data/read.ts";
import { shortRows } from "../../../helpers/exports.ts";
import { fileIn, jsonl, temporaryFolder } from "../../../helpers/folders.ts";
import { kto } from "../../../helpers/streams.ts";

const folder = temporaryFolder();
const read = (name: string, content: unknown) => shortRows(folder, name, content);

describe("Open WebUI", () => {
  const rated = (content: string, earlier = "Sure.") => {
    const messages = {
      q: { id: "q", parentId: null, role: "user", content: "<think>mine</think> Hi " },
      e: { id: "e", parentId: "q", role: "assistant", content: earlier, done: true },
      r: { id: "r", parentId: "e", role: "user", content: "Go on" },
      a: { id: "a", parentId: "r", role: "assistant", content, done: true },
    };
    const snapshot = { chat: { chat: { history: { messages } } } };
    return [{ id: "f", user_id: "u", type: "rating", data: { rating: "-1" }, meta: { message_id: "a" }, snapshot }];
  };
  const before = "user: <think>mine</think> Hi  | assistant: Sure. | user: Go on";
  const reasoning =
    '<details type="reasoning" done="true" duration="3">\n<summary>Thought > 3 s</summary>\n> hm\n</details>\n';
  const tools =
    '<details type="tool_calls" done="true" result="&quot;a > b&quot;">\n<summary>Tool</summary>\n</details>\n';

  it.each<[name: string, content: string, earlier: string, expected: string]>([
    ["reasoning is taken out", `${reasoning}Yes.`, "Sure.", "Yes."],
    ["two blocks of it", `${reasoning}Yes.${reasoning}No.`, `${reasoning}Sure.`, "Yes.\nNo."],
    ["records of tools are taken out of earlier answers", "Yes.", `${tools}Sure.`, "Yes."],
    [
      "other details belong to the answer",
      "<details><summary>A</summary>b</details>",
      "Sure.",
      "<details><summary>A</summary>b</details>",
    ],
    ["a think tag inside the answer stays", "Write <think>.", "Sure.", "Write <think>."],
  ])("%s", async (_, content, earlier, expected) => {
    expect((await read("feedback.json", rated(content, earlier))).rows).toEqual([[before, expected, false]]);
  });

  it.each([
    ["an answer with records of tools", `${tools}Yes.`, /1 tool-call/],
    ["an answer that ends while thinking", '<details type="reasoning">\nhm', /1 unfinished/],
    ["reasoning alone", reasoning, /1 empty/],
  ])("%s", async (_, content, sentence) => {
    await expect(read("feedback.json", rated(content))).rejects.toThrow(sentence);
  });

  it("the majority of raters, and the export of feedback beside that of chats", async () => {
    const [first] = rated("Yes.");
    const vote = (id: string, user_id: string, rating: number | null, updated_at: number) => ({
      ...first,
      id,
      user_id,
      data: { rating },
      updated_at,
    });
    const votes = [
      vote("1", "u", 1, 9),
      vote("2", "v", 1, 8),
      vote("3", "w", -1, 7),
      vote("4", "u", -1, 6),
      vote("5", "x", null, 5),
    ];
    expect(await read("feedback.json", votes)).toMatchObject({
      rows: [[before, "Yes.", true]],
      dropped: ["2 superseded", "3 disagree", "4 superseded", "5 no-rating"],
    });
  });
});

it("files with commas between them are read together, and a rating that is in two of them counts once", async () => {
  const path = "test/fixtures/exports/openwebui-feedback.json";
  const copy = fileIn(folder, "again.json", readFileSync(path));
  const arena = "test/fixtures/exports/arena.jsonl";
  const { code, stdout, stderr } = await kto("data", "--dataset_name", `${path}, ${copy},${arena}`, "--json");
  expect(code, stderr).toBe(0);
  const found = JSON.parse(stdout);
  expect(found.rows).toBe(6 + 7);
  expect(found.export.shapes).toEqual(["Open WebUI feedback", "Chatbot Arena battles"]);
});

it("labels of ordinary rows may have values of their own, or be on a scale", async () => {
  const rows = (labels: readonly unknown[]) => jsonl(labels.map((mark) => ({ prompt: "a", completion: "b", mark })));
  const labels = async (values: readonly unknown[], mapping: ColumnMapping, labelThreshold?: number) => {
    const found: boolean[] = [];
    const options = { columnMapping: mapping, ...(labelThreshold === undefined ? {} : { labelThreshold }) };
    for await (const { label } of feedbackRows(fileIn(folder, "rows.jsonl", rows(values)), options)) found.push(label);
    return found;
  };
  expect(await labels(["fine", "Poor"], { label: { column: "mark", up: "fine", down: "poor" } })).toEqual([
    true,
    false,
  ]);
  expect(await labels([5, 0, 4, -1], { label: "mark" }, 4)).toEqual([true, false, true, false]);
  await expect(labels([5, "x"], { label: "mark" }, 4)).rejects.toThrow(
    /rows\.jsonl:2: "label" is "x"; it must be a number to be compared with label_threshold 4/,
  );
  await expect(labels(["odd"], { label: { column: "mark", up: 1, down: 0 } })).rejects.toThrow(
    /it must be one of the values that column_mapping names: 1, 0/,
  );
  await expect(labels([1], { label: { column: "mark", up: 1 } })).rejects.toThrow(/write it as \{"label": /);
});

it("a program that reads rows is told which ratings give none, a command once", async () => {
  const path = "test/fixtures/exports/dify.json";
  const warnings: string[] = [];
  await readFeedback(path, { onWarning: (sentence) => warnings.push(sentence) });
  expect(warnings).toEqual([
    expect.stringMatching(/^6 ratings give no row: 2 disagree, 1 truncated, /),
    expect.stringMatching(/^Dify exports the last question alone: /),
  ]);
  const { stderr } = await kto("data", "--dataset_name", path);
  expect(stderr.match(/ratings give no row/g)).toHaveLength(1);
  expect(stderr).toContain("data: Dify feedback: 11 ratings, 5 rows\n");
});

it("pairs of an arena are read from parquet, and slices count rows", async () => {
  const records = readFileSync("test/fixtures/exports/arena.jsonl", "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const names = ["question_id", "model_a", "model_b", "winner"] as const;
  const columnData = [
    ...names.map((name) => ({ name, data: records.map((record) => record[name]), type: "STRING" as const })),
    ...["conversation_a", "conversation_b"].map((name) => ({
      name,
      data: records.map((record) => record[name]),
      type: "JSON" as const,
    })),
  ];
  const path = fileIn(folder, "arena.parquet", new Uint8Array(parquetWriteBuffer({ columnData })));
  const found = await readFeedback(path, { onWarning: () => {} });
  const expected = await readFeedback("test/fixtures/exports/arena.jsonl", { onWarning: () => {} });
  const plain = (rows: typeof found) => rows.map(({ source: _, ...row }) => row);
  expect(plain(found)).toEqual(plain(expected));
  const { code, stdout } = await kto("data", "--dataset_name", path, "--dataset_train_split", "train[1:3]", "--json");
  expect([code, JSON.parse(stdout).rows]).toEqual([0, 2]);
});
