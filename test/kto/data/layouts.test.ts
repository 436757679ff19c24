/** Every layout of a row, what it becomes, and the sentences for rows that fit none. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseExactJson } from "../../../src/engine/files/exact-json.ts";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { checkColumnMapping, mapColumns } from "../../../src/kto/data/columns.ts";
import { rowsOfRecord } from "../../../src/kto/data/layouts.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import type { FeedbackRow } from "../../../src/kto/data/types.ts";

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

describe("columns of several layouts: the layout follows from all of them", () => {
  const chosen = [user, assistant];
  const rejected = [user, { role: "assistant", content: "Go away" }];
  const texts = { prompt: "Hi", completion: " there" };
  const layoutOf = (fields: Record<string, unknown>, labels: "required" | "optional" = "required") =>
    rowsOfRecord({ fields, source }, labels).layout;

  it("the case: pairs that also have messages", async () => {
    const rows = await readFeedback("test/fixtures/cases/05-pairs-with-messages-column/pair.jsonl");
    const question = { role: "user", content: "What is tea?" };
    expect(rows.map(({ source: _, ...row }) => row)).toEqual([
      {
        promptMessages: [question],
        completionMessages: [{ role: "assistant", content: "A drink." }],
        label: true,
        pair: 0,
      },
      {
        promptMessages: [question],
        completionMessages: [{ role: "assistant", content: "No idea." }],
        label: false,
        pair: 0,
      },
    ]);
  });

  it.each<[string, Record<string, unknown>]>([
    ["conversational chosen/rejected", { chosen, rejected, messages: chosen }],
    ["conversational prompt/chosen/rejected", { prompt: "Hi", chosen, rejected, messages: chosen, label: true }],
    ["conversational prompt/chosen/rejected", { prompt: [user], chosen, rejected, conversations: chosen }],
    ["prompt/chosen/rejected", { prompt: "Hi", chosen: " a", rejected: " b", messages: chosen, completion: " a" }],
    ["prompt/completion/label", { ...texts, label: true, messages: chosen, conversations: chosen }],
    ["prompt/completion/label", { ...texts, label: true, chosen: " there" }],
    ["prompt/completion/label", { ...texts, label: true, chosen: " there", rejected: null }],
    ["messages/label", { prompt: "Hi", messages: chosen, label: true }],
    ["messages/label", { messages: chosen, label: true, chosen, prompt_ids: [1] }],
    ["conversations/label", { prompt: "Hi", messages: null, conversations: chosen, label: true }],
    ["prompt_ids/completion_ids/label", { ...texts, messages: chosen, prompt_ids: [1], completion_ids: [2], label: 1 }],
  ])("%s", (layout, fields) => {
    expect(layoutOf(fields)).toBe(layout);
  });

  it("where no label is needed, it counts for no layout", () => {
    expect(layoutOf({ prompt: "Hi", messages: chosen }, "optional")).toBe("messages");
    expect(layoutOf({ ...texts, messages: chosen }, "optional")).toBe("prompt/completion");
    expect(layoutOf({ prompt: "Hi", chosen: " a", rejected: " b", messages: chosen }, "optional")).toBe(
      "prompt/chosen/rejected",
    );
  });

  it("empty cells of csv are no columns, but an empty text is a text where there is no other", () => {
    const cells = { prompt: "Hi", completion: "", chosen: "", rejected: "", messages: "", label: "1" };
    expect(plain({ ...cells, completion: "a" }, true)).toEqual([{ prompt: "Hi", completion: "a", label: true }]);
    expect(plain({ prompt: "Hi", completion: "", label: "1", messages: "" }, true)).toEqual([
      { prompt: "Hi", completion: "", label: true },
    ]);
    expect(plain({ ...cells, chosen: "a", rejected: "b" }, true)).toHaveLength(2);
    expect(plain({ prompt: "Hi", chosen: "a", rejected: "", completion: null }, true)).toHaveLength(2);
  });

  it("of rows that are whole in none, what is missing of the nearest is told", () => {
    const missing = (fields: Record<string, unknown>) => () => rowsOf(fields);
    expect(missing({ prompt: "Hi" })).toThrow('"completion" is missing');
    expect(missing({ ...texts, messages: chosen })).toThrow('"label" is missing');
    expect(missing({ messages: chosen })).toThrow('"label" is missing');
    expect(missing({ ...texts, liked: true })).toThrow('column_mapping \'{"label":"liked"}\'');
    expect(missing({ chosen: "a" })).toThrow('"rejected" is missing');
    expect(missing({ prompt: "Hi", rejected: "a" })).toThrow('"chosen" is missing');
    expect(missing({ prompt_ids: [1], label: true })).toThrow('"completion_ids" is missing');
    expect(missing({ label: true })).toThrow('no layout of feedback fits the fields "label"');
  });
});

describe("LLaMA-Factory's shapes", () => {
  const folder = "test/fixtures/cases/14-llamafactory-files";
  const strip = (rows: readonly FeedbackRow[]) => rows.map(({ source: _, ...row }) => row);
  const human = { from: "human", value: "Hi" };
  const gpt = (value: string) => ({ from: "gpt", value });

  it("the case: pairs whose chat is a column and whose answers are objects", async () => {
    const pair = { promptMessages: [user], pair: 0 };
    expect(strip(await readFeedback(`${folder}/pairs.json`))).toEqual([
      { ...pair, completionMessages: [assistant], label: true },
      { ...pair, completionMessages: [{ role: "assistant", content: "Go" }], label: false },
    ]);
  });

  it("the case: calls of tools, and what they gave", async () => {
    const question = { role: "user", content: "Weather?" };
    const call = { type: "function", function: { name: "w", arguments: {} } };
    expect(strip(await readFeedback(`${folder}/tools.json`))).toEqual([
      {
        promptMessages: [question],
        completionMessages: [
          { role: "assistant", content: "", tool_calls: [call] },
          { role: "tool", content: "7" },
          { role: "assistant", content: "7 degrees" },
        ],
        label: true,
      },
      { promptMessages: [question], completionMessages: [{ role: "assistant", content: "No" }], label: false },
    ]);
  });

  it("several calls at once, a system prompt and tools as text", () => {
    const calls = [
      { name: "f", arguments: { x: 1 } },
      { name: "g", arguments: "{}" },
    ];
    const conversations = [
      human,
      { from: "function_call", value: JSON.stringify(calls) },
      { from: "observation", value: "4" },
      gpt("Hello"),
    ];
    const [row] = plain({ conversations, system: "Be kind", tools: '[{"name":"f"}]', label: true });
    expect(row).toMatchObject({
      promptMessages: [system, user],
      completionMessages: [
        { tool_calls: calls.map((call) => ({ type: "function", function: call })) },
        { role: "tool" },
        assistant,
      ],
      tools: [{ name: "f" }],
    });
    const withSystem = [{ from: "system", value: "Be kind" }, human, gpt("Hello")];
    expect(plain({ conversations: withSystem, system: "another", label: true })).toEqual([
      { ...expected, promptMessages: [system, user] },
    ]);
  });

  it("a chat that holds the chosen answer too is the prompt without it; with another answer it is refused", () => {
    const pair = { chosen: gpt("Hello"), rejected: gpt("Go") };
    const rows = plain({ ...pair, conversations: [human, gpt("Hello")] });
    expect(rows).toEqual(plain({ ...pair, conversations: [human] }));
    expect(rows).toEqual(plain({ ...pair, messages: [user] }));
    expect(() => rowsOf({ ...pair, conversations: [human, gpt("Else")] })).toThrow(
      /^f\.jsonl:3: "conversations" ends with an answer that is not the one in "chosen"/,
    );
    expect(() => rowsOf({ conversations: [human], chosen: "Hello", rejected: "Hell" })).toThrow(
      /"chosen" is a text, but/,
    );
  });

  it("speakers in any column of messages", () => {
    expect(plain({ prompt: [human], completion: gpt("Hello"), label: true })).toEqual([expected]);
    expect(plain({ messages: [human, gpt("Hello")], label: true })).toEqual([expected]);
  });

  it.each(["w()", "7", "[]x", '{"name":"w"}', '{"arguments":{}}'])("a call that is %s is refused", (value) => {
    expect(() => rowsOf({ conversations: [human, { from: "function_call", value }, gpt("a")], label: true })).toThrow(
      /^f\.jsonl:3: "conversations" at position 1 is from "function_call", but its value is .*; it must be JSON with "name"/,
    );
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
    [
      "a part of text that is none",
      { messages: [user, { role: "assistant", content: [{ type: "text", text: { a: 1 } }] }], label: true },
      /"messages" at position 1 has \{"type":"text","text":\{"a":1\}\} in its "content"/,
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

  it("show numbers that no float holds as they stand in the file, also in columns of other names", () => {
    const fieldsOf = (text: string) => parseExactJson(text) as Record<string, unknown>;
    const fields = fieldsOf('{"prompt": "p", "completion": "c", "label": 1e400, "thumb": -1e999}');
    expect(() => rowsOf(fields)).toThrow(/"label" is 1e400; it must be/);
    expect(() => rowsOf({ ...mapColumns(fields, { label: "thumb" }, source) })).toThrow(/"label" is -1e999; it must/);
    expect(() => rowsOf(fieldsOf('{"prompt_ids": [1, 2e400], "completion_ids": [1], "label": 1}'))).toThrow(
      /"prompt_ids" has 2e400 at position 1;/,
    );
    expect(() => rowsOf(fieldsOf('{"messages": [{"role": [1e400]}], "label": 1}'))).toThrow(
      /has \[1e400\] as its "role"/,
    );
    expect(() => rowsOf({ prompt: "p", completion: "c", label: Number.POSITIVE_INFINITY })).toThrow(
      /"label" is Infinity; it must/,
    );
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
