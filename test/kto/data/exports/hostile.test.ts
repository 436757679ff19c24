/**
 * Exports that are broken or made to break their reader: every one ends in a sentence or in a reason, none in a crash.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { checkColumnMapping, labelScale } from "../../../../src/kto/data/columns.ts";
import { exportRecords, findExports } from "../../../../src/kto/data/exported.ts";
import type { ExportReport } from "../../../../src/kto/data/exports/report.ts";
import { readFeedback } from "../../../../src/kto/data/read.ts";
import { fileIn, freshPath, temporaryFolder } from "../../../helpers/folders.ts";
import { kto } from "../../../helpers/streams.ts";

const folder = temporaryFolder();
const exports = "test/fixtures/exports";
const fixture = (name: string) => readFileSync(join(exports, name), "utf8");

/** Rows and dropped reasons of an export that is written here. */
async function read(name: string, content: string | Uint8Array) {
  let report: ExportReport | undefined;
  const rows = await readFeedback(fileIn(folder, name, content), {
    onExport: (found) => {
      report = found;
    },
  }).catch((error: unknown) => {
    if (report === undefined) throw error;
    return [];
  });
  return { rows, reasons: report?.dropped.map(({ reason }) => reason), report };
}

interface Message {
  readonly id: string;
  readonly parentId: string | null;
  readonly role: string;
  readonly content: unknown;
  readonly [more: string]: unknown;
}

const question: Message = { id: "q", parentId: null, role: "user", content: "Why?" };
const answer: Message = { id: "a", parentId: "q", role: "assistant", content: "So.", done: true };

/** Open WebUI's feedback on the message "a" of a chat of these messages. */
function feedback(messages: readonly Message[], more: Readonly<Record<string, unknown>> = {}): string {
  const history = { messages: Object.fromEntries(messages.map((message) => [message.id, message])) };
  const snapshot = { chat: { id: "c", chat: { history } } };
  return JSON.stringify([
    {
      id: "f",
      user_id: "u",
      type: "rating",
      data: { rating: 1 },
      meta: { message_id: "a", chat_id: "c" },
      snapshot,
      ...more,
    },
  ]);
}

describe("broken trees", () => {
  const cases: [name: string, messages: Message[], reason: string][] = [
    ["a message that is its own parent", [{ ...answer, parentId: "a" }], "broken-path"],
    ["two messages that are each other's parents", [{ ...question, parentId: "a" }, answer], "broken-path"],
    ["a parent that is gone", [answer], "broken-path"],
    ["a rating of a message that is gone", [question], "answer-missing"],
    ["a rating of a question", [{ ...question, id: "a" }], "not-an-answer"],
    ["an answer to nothing", [{ ...answer, parentId: null }], "broken-path"],
    ["an answer to an answer", [{ ...answer, id: "q", parentId: null }, answer], "broken-path"],
    ["a parent that is no text", [{ ...answer, parentId: 7 as unknown as string }], "broken-path"],
    ["a content that is a number", [question, { ...answer, content: 7 }], "unreadable"],
    ["a role that nobody has", [{ ...question, role: "wizard" }, answer], "broken-path"],
    [
      "messages named as members of objects are",
      [
        { ...question, id: "__proto__" },
        { ...answer, parentId: "constructor" },
      ],
      "broken-path",
    ],
  ];
  it.each(cases)("%s", async (_, messages, reason) => {
    expect((await read("feedback.json", feedback(messages))).reasons).toEqual([reason]);
  });

  it.each([
    ["no snapshot", { snapshot: null }],
    ["a snapshot that is a text", { snapshot: "chat" }],
    ["a snapshot of lists", { snapshot: { chat: [[]] } }],
    ["no message id", { meta: {} }],
    ["meta that is null", { meta: null }],
  ])("%s", async (_, more) => {
    expect((await read("feedback.json", feedback([question, answer], more))).reasons).toEqual(["answer-missing"]);
  });

  it.each([[0], ["0"], [2], [true], [{}], ["up"], [null]])("a rating of %j is no thumb", async (rating) => {
    expect((await read("feedback.json", feedback([question, answer], { data: { rating } }))).reasons).toEqual([
      "no-rating",
    ]);
  });
});

it("thirty thousand messages in one chat are read without recursion", async () => {
  const count = 30_000;
  const messages = Array.from({ length: count }, (_, i) => {
    const [id, parent] = [i === count - 1 ? "a" : `m${i}`, i === 0 ? "null" : `"m${i - 1}"`];
    return `"${id}":{"id":"${id}","parentId":${parent},"role":"${i % 2 === 0 ? "user" : "assistant"}","content":"x"}`;
  });
  const [record = ""] = [feedback([]).slice(0, -1)];
  const { rows, reasons } = await read(
    "feedback.json",
    `${record.replace('"messages":{}', `"messages":{${messages.join()}}`)}]`,
  );
  expect(reasons).toEqual([]);
  expect(rows).toMatchObject([{ label: true }]);
  const [row] = rows;
  expect(row !== undefined && "promptMessages" in row && row.promptMessages.length).toBe(count - 1);
});

it("a chain of answers that are all rated does not take the square of its length", async () => {
  const messages = Array.from({ length: 800 }, (_, i) => [
    `m${i}`,
    {
      parentId: i === 0 ? null : `m${i - 1}`,
      role: i % 2 === 0 ? "user" : "assistant",
      content: "x",
      ...(i % 2 === 0 ? {} : { annotation: { rating: 1 } }),
    },
  ]);
  const chats = [{ id: "c", chat: { history: { messages: Object.fromEntries(messages) } } }];
  const path = fileIn(folder, "chats.json", JSON.stringify(chats));
  const mapping = checkColumnMapping({});
  const exported = (await findExports([path], [], mapping)) ?? [];
  const reading = { mapping, scale: labelScale(mapping, undefined), columns: [], onReport: () => undefined };
  let rows = 0;
  const all = async (mostMessages?: number) => {
    rows = 0;
    for await (const _ of exportRecords(exported, { ...reading, ...(mostMessages && { mostMessages }) })) rows++;
  };
  await all();
  expect(rows).toBe(400);
  await expect(all(40_000)).rejects.toThrow(/more than 40000 messages before them together/);
  // The prompts of n rated answers have 1 + 3 + 5 + ... = n^2 messages.
  expect(rows).toBe(200);
});

it("thirty thousand levels of nested messages are read without recursion", async () => {
  const levels = 30_000;
  // JSON.stringify would recurse.
  const open = Array.from(
    { length: levels },
    (_, i) => `{"messageId":"m${i}","parentMessageId":"m${i - 1}","text":"x","children":[`,
  );
  const text = `{"conversationId":"c","messages":[${open.join("")}${"]}".repeat(levels)}]}`;
  await expect(readFeedback(fileIn(folder, "nested.json", text))).rejects.toThrow(/has 30000 answers and no rating/);
});

it("a text of opened tags takes linear time", async () => {
  const tags = '<details><details type="reasoning"'.repeat(100_000);
  const { reasons } = await read("feedback.json", feedback([question, { ...answer, content: tags }]));
  expect(reasons).toEqual(["unfinished"]);
});

describe("broken files", () => {
  const cases: [name: string, file: string, content: string | Uint8Array, sentence: RegExp][] = [
    [
      "a list that does not end",
      "f.json",
      fixture("openwebui-feedback.json").slice(0, -1),
      /f\.json:1 is not valid JSON: the list of rows does not end\.$/,
    ],
    [
      "a list that is cut inside a record",
      "f.json",
      fixture("openwebui-feedback.json").slice(0, 9000),
      /f\.json:1 is not valid JSON: the list of rows does not end\.$/,
    ],
    [
      "a conversation that is cut",
      "f.json",
      fixture("librechat.json").slice(0, 900),
      /f\.json:1 is not valid JSON: the object does not end\.$/,
    ],
    [
      "records inside an object that does not end",
      "f.json",
      fixture("dify.json").trimEnd().slice(0, -1),
      /f\.json:\d+ is not valid JSON: the object does not end\.$/,
    ],
    [
      "records inside an object with text behind it",
      "f.json",
      `${fixture("dify.json")}]`,
      /f\.json:\d+ is not valid JSON: what stands behind the list of records is none\.$/,
    ],
    [
      "records inside an object that begins wrongly",
      "f.json",
      fixture("dify.json").replace('"export_info":', '"export_info"'),
      /f\.json:1 is not valid JSON: what stands before the list of records is none\.$/,
    ],
    ["an object without records inside", "f.json", '{"export_info": {}, "feedback_data": []}', /holds no rows/],
    [
      "a compressed export",
      "f.json.gz",
      gzipSync(fixture("dify.json")),
      /f\.json\.gz is compressed; unpack it first\.$/,
    ],
    [
      "a compressed export under its own name",
      "f.json",
      gzipSync(fixture("dify.json")),
      /f\.json is compressed \(gzip\)/,
    ],
    ["an archive of exports", "f.csv", "PK\u0003\u0004 and so on", /f\.csv is a zip archive; unpack it first\.$/],
    [
      "UTF-16",
      "f.csv",
      Buffer.from(`\ufeff${fixture("gradio.csv")}`, "utf16le"),
      /f\.csv is UTF-16 text; save the file/,
    ],
    ["a byte that is no UTF-8", "f.json", Buffer.from([0xff, 0x5b]), /f\.json:1 is not UTF-8 text; save the file/],
    ["a record with a comma too many", "f.json", '[{"data": 1,}]', /f\.json:1 is not valid JSON: /],
    ["lists in place of records", "f.json", "[[1]]", /a row must be a JSON object/],
    [
      "an object of another program",
      "f.json",
      '{"mapping": {}}',
      /of exports of chat programs looked for were Open WebUI feedback \(data, meta and snapshot\); .*SQLite/,
    ],
    [
      "records of another program",
      "f.jsonl",
      '{"mapping": {}}\n',
      /no layout of feedback fits the fields "mapping"; .*looked for were Open WebUI feedback \(/,
    ],
    [
      "a record of another kind among others",
      "f.json",
      `${feedback([question, answer]).slice(0, -1)}, {"x": 1}]`,
      /f\.json:1 \(element 2\): the file begins as Open WebUI feedback .*, but this record has the fields "x"/,
    ],
    ["a database that is none", "f.db", "no database, but long enough for a header", /f\.db is no SQLite database/],
    ["an empty database", "f.db", "", /f\.db is no SQLite database/],
    [
      "a database that is cut",
      "f.db",
      readFileSync(join(exports, "openwebui.db")).subarray(0, 9000),
      /Cannot read the database .*f\.db: .*; give a copy made while no program has it open\.$/,
    ],
    [
      "scores of Langfuse without traces",
      "f.json",
      '[{"id": "1", "traceId": "t", "name": "user-feedback", "value": 1}]',
      /looked for were /,
    ],
    [
      "an export without a rating",
      "f.json",
      '[{"id": 1, "prompt": "a", "response": "b", "workspace": "w", "sent_at": "2025-01-01", "rating": "--"}]',
      /AnythingLLM workspace chats\) has 1 answer and no rating/,
    ],
    [
      "an export whose ratings give no row",
      "f.json",
      feedback([question]),
      /\(Open WebUI feedback\): its only rating gives no row: 1 answer-missing/,
    ],
  ];
  it.each(cases)("%s", async (_, file, content, sentence) => {
    const path = fileIn(folder, file, content);
    const { code, stderr } = await kto("data", "--dataset_name", path);
    expect(stderr.trim()).toMatch(sentence);
    expect([3, 7]).toContain(code);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  it("exports and other feedback in one folder are refused", async () => {
    const path = freshPath(folder, "mixed");
    mkdirSync(path);
    copyFileSync(join(exports, "openwebui-feedback.json"), join(path, "a.json"));
    writeFileSync(join(path, "b.json"), '[{"prompt": "a", "completion": "b", "label": true}]');
    const { code, stderr } = await kto("data", "--dataset_name", path);
    expect(code).toBe(3);
    expect(stderr).toMatch(/b\.json is no export of a chat program, but .*a\.json is one \(Open WebUI feedback\)/);
  });

  it("an option that has no use is refused", async () => {
    const path = join(exports, "openwebui-feedback.json");
    const { code, stderr } = await kto("data", "--dataset_name", path, "--label_threshold", "4");
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/"label_threshold" has no use for .*Open WebUI feedback/),
    ]);
  });
});
