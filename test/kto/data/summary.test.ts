/** Summaries and plain lines of rows whose numbers and keys JavaScript alone does not keep. */
import { expect, it } from "vitest";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { summarizeRows, toPlainLine } from "../../../src/kto/data/summary.ts";
import { fileIn, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const line = (kwargs: string) =>
  `{"prompt":[{"role":"user","content":"Hi"}],"completion":[{"role":"assistant","content":"Yo"}],"label":true,"chat_template_kwargs":${kwargs}}`;

it("rows that differ in 1.0, in a long integer or in the order of keys are written as they are and not repeated", async () => {
  const lines = ['{"n":1.0}', '{"n":1}', '{"n":12345678901234567890}', '{"n":12345678901234567891}', '{"2":0,"1":0}']
    .concat('{"1":0,"2":0}')
    .map(line);
  const rows = await readFeedback(fileIn(folder, "exact.jsonl", [...lines, lines[0]].join("\n")));
  expect(rows.map(toPlainLine)).toEqual([...lines, lines[0]]);
  expect(summarizeRows(rows)).toMatchObject({ rows: 7, repeatedRows: 1, distinctPrompts: 6 });
});

it("messages that differ in 1.0 are not the prompt that two answers share", async () => {
  const message = (role: string, n: string) => `{"role":"${role}","content":"${role}","n":${n}}`;
  const chats = (n: string) =>
    `[{"role":"system","content":"s"},${message("user", n)},{"content":"a","role":"assistant"}]`;
  const promptLengths = async (chosen: string, rejected: string) => {
    const text = `{"chosen":${chats(chosen)},"rejected":${chats(rejected)}}`;
    const rows = await readFeedback(fileIn(folder, "pairs.jsonl", text));
    return rows.map((row) => ("promptMessages" in row ? row.promptMessages.length : 0));
  };
  expect(await promptLengths("1.0", "1.0")).toEqual([2, 2]);
  expect(await promptLengths("1.0", "1")).toEqual([1, 1]);
});
