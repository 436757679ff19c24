/**
 * The exports of ten programs, in the shapes that their sources write: rows and dropped ratings as they were worked out
 * by hand from the rules, in their order (test/fixtures/exports/README.md).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { freshPath, temporaryFolder } from "../../../helpers/folders.ts";
import { kto } from "../../../helpers/streams.ts";

const folder = temporaryFolder();
const exports = "test/fixtures/exports";
const linesOf = (path: string) =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as unknown);

const score = ["--column_mapping", '{"label": "user-feedback"}'];
const question = ["--column_mapping", '{"prompt": "chat", "completion": "reply", "label": "thumb"}'];
const cases: [file: string, shape: string, ...words: string[]][] = [
  ["openwebui-feedback.json", "Open WebUI feedback"],
  ["openwebui-chats.json", "Open WebUI chats"],
  ["openwebui.db", "Open WebUI database"],
  ["librechat.json", "LibreChat conversation"],
  ["dify.json", "Dify feedback"],
  ["langfuse.json", "Langfuse traces", ...score],
  ["anythingllm.json", "AnythingLLM workspace chats"],
  ["gradio.csv", "Gradio flagging log"],
  ["arena.jsonl", "Chatbot Arena battles"],
  ["argilla.json", "Argilla records", ...question],
];

describe.each(cases)("%s", (file, shape, ...words) => {
  const name = file.endsWith(".db") ? file : file.replace(/\.\w+$/, "");

  it("gives the rows and names what is dropped, both in order", async () => {
    const output = freshPath(folder, "rows.jsonl");
    const paths = ["--dataset_name", join(exports, file), "--output", output];
    const { code, stdout, stderr } = await kto("data", ...paths, "--json", ...words);
    expect(code, stderr).toBe(0);
    const found = JSON.parse(stdout);
    expect(linesOf(output)).toEqual(linesOf(join(exports, `${name}.expected.jsonl`)));
    const dropped = linesOf(join(exports, `${name}.dropped.jsonl`));
    expect(found.dropped).toEqual(dropped);
    expect(found.layout).toBe(shape);
    expect(found.export).toMatchObject({ shapes: [shape], rows: found.rows, ratings: found.rows + dropped.length });
  });
});
