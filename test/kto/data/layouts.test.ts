/** Every layout of a row, what it becomes, and the sentences for rows that fit none. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { checkColumnMapping, mapColumns } from "../../../src/kto/data/columns.ts";
import { rowsOfRecord } from "../../../src/kto/data/layouts.ts";

const source = { file: "f.jsonl", line: 3 };
const rowsOf = (fields: Record<string, unknown>, textOnly = false) => rowsOfRecord({ fields, source, textOnly });
const plain = (fields: Record<string, unknown>, textOnly = false) =>
  rowsOf(fields, textOnly).rows.map(({ source: _, ...row }) => row);
const user = { role: "user", content: "Hi" };
const assistant = { role: "assistant", content: "Hello" };
const system = { role: "system", content: "Be kind" };
const expected = { promptMessages: [user], completionMessages: [assistant], label: true };

describe("chats", () => {
  it.each<[string, Record<string, unknown>]>([
    ["lists", { prompt: [user], completion: [assistant], label: true }],
    ["one message each", { prompt: user, completion: assistant, label: 1 }],
    ["messages", { messages: [user, assistant], label: true }],
    ["messages as JSON text", { messages: JSON.stringify([user, assistant]), label: true }],
    ["null fields in messages", { messages: [{ ...user, name: null }, assistant], label: true }],
    [
      "ShareGPT",
      {
        conversations: [
          { from: "human", value: "Hi" },
          { from: "gpt", value: "Hello" },
        ],
        label: true,
      },
    ],
  ])("as %s", (_, fields) => {
    expect(plain(fields)).toEqual([expected]);
  });

  it("in cells of csv", () => {
    const fields = { messages: JSON.stringify([user, assistant]), tools: "", label: "True" };
    expect(plain(fields, true)).toEqual([expected]);
    const text = { prompt: '[{"role":"user","content":"Hi"}]', completion: "c", label: "0.0", messages: "" };
    expect(plain(text, true)).toEqual([{ prompt: text.prompt, completion: "c", label: false }]);
  });

  it("an answer begins after the user's last turn, calls of tools included", () => {
    const call = { role: "assistant", content: null, tool_calls: [{ function: { name: "f", arguments: {} } }] };
    const result = { role: "tool", content: "4" };
    const [row] = plain({ messages: [system, user, assistant, user, call, result, assistant], label: false });
    expect(row).toEqual({
      promptMessages: [system, user, assistant, user],
      completionMessages: [call, result, assistant],
      label: false,
    });
  });

  it("carry tools and variables of the template, as lists and objects or as JSON text", () => {
    const tools = [{ type: "function", function: { name: "f" } }];
    const templateOptions = { enable_thinking: false };
    const base = { messages: [user, assistant], label: true };
    for (const write of [(value: unknown) => value, JSON.stringify]) {
      expect(plain({ ...base, tools: write(tools), chat_template_kwargs: write(templateOptions) })).toEqual([
        { ...expected, tools, templateOptions },
      ]);
    }
    expect(plain({ ...base, tools: null, chat_template_kwargs: null })).toEqual([expected]);
    expect(plain({ ...base, tools: [] })).toEqual([expected]);
  });
});

describe("pairs with an implicit prompt", () => {
  // The examples of TRL's own documentation of the rule: the space goes to the answers.
  it("texts part where they begin to differ, before a space", () => {
    expect(plain({ chosen: "The sky is blue.", rejected: "The sky is green." })).toEqual([
      { prompt: "The sky is", completion: " blue.", label: true },
      { prompt: "The sky is", completion: " green.", label: false },
    ]);
  });

  it("texts never part within a character, nor leave an answer empty", () => {
    expect(plain({ chosen: "a😀", rejected: "a😁" })[0]).toMatchObject({ prompt: "a", completion: "😀" });
    expect(plain({ chosen: "ab", rejected: "abc" })[0]).toMatchObject({ prompt: "a", completion: "b" });
    fc.assert(
      fc.property(fc.string({ minLength: 2 }), fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), (p, a, b) => {
        fc.pre(p.trim() === p);
        const [chosen, rejected] = plain({ chosen: `${p}${a}`, rejected: `${p}${b}` });
        if (chosen === undefined || rejected === undefined || !("prompt" in chosen) || !("prompt" in rejected))
          return false;
        return (
          chosen.prompt + chosen.completion === `${p}${a}` &&
          rejected.prompt + rejected.completion === `${p}${b}` &&
          chosen.completion !== "" &&
          rejected.completion !== ""
        );
      }),
    );
  });

  it("messages part at the first that differs, also beside a prompt of text", () => {
    const other = { role: "assistant", content: "Go away" };
    const chosen = [system, user, assistant];
    const rejected = [system, { content: "Hi", role: "user" }, other];
    for (const extra of [{}, { prompt: "Hi" }]) {
      expect(plain({ ...extra, chosen, rejected })).toEqual([
        { promptMessages: [system, user], completionMessages: [assistant], label: true },
        { promptMessages: [system, user], completionMessages: [other], label: false },
      ]);
    }
  });
});

describe("refusals name file, line and field", () => {
  const chat = { messages: [user, assistant], label: true };
  it.each<[string, Record<string, unknown>, RegExp]>([
    ["a chat without an answer", { messages: [user], label: true }, /"messages" ends with .* role "user"/],
    ["an answer to nothing", { messages: [assistant], label: true }, /no message before the assistant's answer/],
    ["an empty chat", { messages: [], label: true }, /"messages" is an empty list/],
    ["an empty completion", { prompt: [user], completion: [], label: true }, /"completion" is an empty list/],
    [
      "a completion of the user",
      { prompt: [user], completion: [user], label: true },
      /"completion" ends with .*"user"/,
    ],
    [
      "a message without a role",
      { messages: [{ content: "x" }, assistant], label: true },
      /at position 0 has no "role"/,
    ],
    ["a role that is a number", { messages: [{ role: 1, content: "x" }], label: true }, /has 1 as its "role"/],
    [
      "a message without content",
      { messages: [user, { role: "assistant" }], label: true },
      /position 1 has no "content"/,
    ],
    [
      "content that is a number",
      { messages: [user, { role: "assistant", content: 7 }], label: true },
      /7 as its "content"/,
    ],
    ["a message of text", { messages: [user, "Hello"], label: true }, /at position 1 is "Hello", not a message/],
    ["messages of text", { messages: "Hello", label: true }, /"messages" is the text "Hello", which is not valid JSON/],
    [
      "text beside messages",
      { prompt: "Hi", completion: [assistant], label: true },
      /"prompt" is a text, but other fields/,
    ],
    ["answers alone", { chosen: [assistant], rejected: [assistant] }, /do not begin alike/],
    ["texts without a beginning", { chosen: "yes", rejected: "no" }, /do not begin alike/],
    [
      "an unknown speaker",
      { conversations: [{ from: "alien", value: "x" }], label: 1 },
      /is from "alien"; speakers are/,
    ],
    ["tools that are no list", { ...chat, tools: { a: 1 } }, /"tools" is \{"a":1\}, not a list/],
    ["tools that are no JSON", { ...chat, tools: "calculator" }, /"tools" is the text "calculator"/],
    ["variables that are a list", { ...chat, chat_template_kwargs: [1] }, /"chat_template_kwargs" is \[1\]/],
    ["a label of 0.5", { ...chat, label: 0.5 }, /"label" is 0\.5; it must be/],
    ["a label as text", { ...chat, label: "true" }, /"label" is "true"; it must be/],
  ])("%s", (_, fields, message) => {
    expect(() => rowsOf(fields)).toThrow(DatasetError);
    expect(() => rowsOf(fields)).toThrow(message);
    expect(() => rowsOf(fields)).toThrow(/^f\.jsonl:3: /);
  });

  it("messages nested without end", () => {
    let content: unknown = "x";
    for (let i = 0; i < 50_000; i++) content = [content];
    expect(() => rowsOf({ messages: [user, { role: "assistant", content }], label: true })).toThrow(
      /nested more than 64/,
    );
  });
});

describe("column_mapping", () => {
  it("reads columns of other names", () => {
    const mapping = checkColumnMapping({ prompt: "question", completion: "answer", label: "thumb" });
    const fields = { question: "q", answer: "a", thumb: 1, completion: "not this" };
    expect(rowsOf({ ...mapColumns(fields, mapping, source) }).rows).toEqual([
      { prompt: "q", completion: "a", label: true, source },
    ]);
  });

  it("swaps two columns", () => {
    const mapping = { chosen: "rejected", rejected: "chosen" };
    expect(mapColumns({ chosen: 1, rejected: 2 }, mapping, source)).toEqual({ chosen: 2, rejected: 1 });
  });

  it("names a column that is not there, and those that are", () => {
    expect(() => mapColumns({ q: 1, a: 2 }, { prompt: "question" }, source)).toThrow(
      /f\.jsonl:3: column_mapping reads "prompt" from the column "question", which is not there; the columns are "q", "a"/,
    );
  });

  it("refuses names that no layout has", () => {
    expect(() => checkColumnMapping({ question: "prompt" })).toThrow(ConfigError);
    expect(() => checkColumnMapping({ question: "prompt" })).toThrow(/maps "question", which no layout/);
    expect(() => checkColumnMapping({ prompt: "" })).toThrow(/must give "prompt" the name of a column/);
  });
});
