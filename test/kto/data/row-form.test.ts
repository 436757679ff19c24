/** Markup around rows of text, and rows of text as chats, as other trainers make them. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ReadOptions, readFeedback } from "../../../src/kto/data/read.ts";
import { rowFormer } from "../../../src/kto/data/row-form.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "kto-forms-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function read(rows: readonly object[], options: ReadOptions) {
  const path = join(folder, "rows.jsonl");
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const warnings: string[] = [];
  const found = await readFeedback(path, { ...options, onWarning: (sentence) => warnings.push(sentence) });
  return { rows: found.map(({ source: _, ...row }) => row), warnings };
}

const llama3 = {
  systemFormat: "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
  promptFormat: "{system}<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|>",
  completionFormat: "{completion}<|eot_id|>",
};

describe("markup", () => {
  test("goes around prompts, completions and the system prompt of rows that have one, without a warning", async () => {
    const given = [
      { prompt: "Hi", completion: "Yes", label: true, system: "Be brief" },
      { prompt: "{x}", completion: "", label: false, system: "" },
    ];
    const { rows, warnings } = await read(given, llama3);
    expect(rows).toEqual([
      {
        prompt:
          "<|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        completion: "Yes<|eot_id|>",
        label: true,
      },
      {
        prompt: "<|start_header_id|>user<|end_header_id|>\n\n{x}<|eot_id|>",
        completion: "<|eot_id|>",
        label: false,
      },
    ]);
    expect(warnings).toEqual([]);
  });

  test("leaves messages alone, and doubled braces are braces, as in Python", async () => {
    const messages = [{ role: "user", content: "Hi" }];
    const answer = [{ role: "assistant", content: "Yes" }];
    const chat = { prompt: messages, completion: answer, label: true };
    expect((await read([chat], llama3)).rows).toEqual([
      { promptMessages: messages, completionMessages: answer, label: true },
    ]);
    const braces = { promptFormat: "{{{prompt}}}" };
    expect((await read([{ prompt: "a", chosen: "b", rejected: "c" }], braces)).rows).toMatchObject([
      { prompt: "{a}", completion: "b" },
      { prompt: "{a}", completion: "c" },
    ]);
  });

  test.each([
    [{ promptFormat: "Q: {question}" }, 'option "prompt_format" has "{question}"'],
    [{ promptFormat: "Q: " }, 'option "prompt_format" lacks {prompt}'],
    [{ completionFormat: "{completion} }" }, 'option "completion_format" has "}"'],
    [{ completionFormat: "{prompt}{completion}" }, 'option "completion_format" has "{prompt}"'],
    [{ textAsChat: true, promptFormat: "{prompt}" }, 'options "text_as_chat" and "prompt_format" both say'],
  ])("%j is refused", (form, message) => {
    expect(() => rowFormer(form)).toThrow(message);
  });
});

describe("text as chats", () => {
  test("prompt, query below it and system prompt become messages; pairs as well", async () => {
    const columnMapping = { prompt: "instruction", query: "input", completion: "output", label: "kto_tag" };
    const given = [
      { instruction: "Sum up", input: "a text", output: "Done", kto_tag: true, system: "Be brief" },
      { instruction: "Sum up", input: "", output: "No", kto_tag: false, system: "" },
    ];
    const { rows, warnings } = await read(given, { textAsChat: true, columnMapping });
    const user = { role: "user", content: "Sum up\na text" };
    expect(rows).toEqual([
      {
        promptMessages: [{ role: "system", content: "Be brief" }, user],
        completionMessages: [{ role: "assistant", content: "Done" }],
        label: true,
      },
      {
        promptMessages: [{ role: "user", content: "Sum up" }],
        completionMessages: [{ role: "assistant", content: "No" }],
        label: false,
      },
    ]);
    expect(warnings).toEqual([]);
    const pair = await read([{ prompt: "a", chosen: "b", rejected: "c" }], { textAsChat: true });
    expect(pair.rows[1]).toMatchObject({ completionMessages: [{ role: "assistant", content: "c" }], label: false });
  });

  test("at most so many records are read, of a slice too", async () => {
    const given = ["a", "b", "c", "d"].map((prompt) => ({ prompt, completion: "x", label: true }));
    const slice = { from: { value: 1, percent: false } };
    expect((await read(given, { slice, maxRecords: 2 })).rows).toMatchObject([{ prompt: "b" }, { prompt: "c" }]);
  });
});
