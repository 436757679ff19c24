/** Small inputs of public bug reports whose chats were rendered otherwise than Python renders them. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ChatTemplate, createChatTemplate, loadChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { DatasetError, ModelFormatError } from "../../../src/errors.ts";
import { chatRenderer } from "../../../src/kto/data/chat.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

const cases = "test/fixtures/cases";
const folder = temporaryFolder();

async function textsOf(path: string, template: ChatTemplate) {
  const render = chatRenderer(template);
  const texts: ReturnType<typeof render>[] = [];
  for await (const row of await readFeedback(path)) {
    if (!("promptMessages" in row)) throw new Error("no chat");
    texts.push(render(row));
  }
  return texts;
}

const inline = (text: string) => createChatTemplate(text, {}, "t.jinja");

/** The lines of a table: a template, and what Python writes for it. */
function table(path: string): (readonly [template: string, text: string])[] {
  const lines = readFileSync(join(cases, path), "utf8").trimEnd().split("\n");
  return lines.map((line) => {
    const [template = "", text = ""] = line.split("\t");
    return [template, text] as const;
  });
}

describe("case 01: strip with an argument takes those characters only", () => {
  it("in Qwen3's template, so that indented code keeps its indent", async () => {
    const template = await loadChatTemplate(tokenizerFolders.qwen3);
    if (template === undefined) throw new Error("no template");
    const completions = (await textsOf(join(cases, "01-strip-argument/rows.jsonl"), template)).map(
      (row) => row.completion,
    );
    expect(completions).toEqual([
      "<think>\n\n</think>\n\n    return x + 1\n<|im_end|>\n",
      "<think>\n\n</think>\n\n\treturn 2<|im_end|>\n",
    ]);
  });

  it("in a template of one line", async () => {
    const template = inline(readFileSync(join(cases, "01-strip-argument/strip.jinja"), "utf8"));
    const [first] = await textsOf(join(cases, "01-strip-argument/rows.jsonl"), template);
    expect(first?.prompt).toBe("[user]Write the body of f.|hi|[assistant]");
    expect(first?.completion).toBe("    return x + 1\n|hi|");
  });
});

it("case 03: a dict in a template of text is written as Python writes it, or refused, never as [object Map]", () => {
  const messages = [{ role: "user", content: { text: "Hi" } }];
  const write = inline("{% for m in messages %}{{ m.content }}|{{ '' ~ m.content }}{% endfor %}");
  expect(write.render(messages)).toBe("{'text': 'Hi'}|{'text': 'Hi'}");
  const add = inline("{% for m in messages %}{{ '<' + m.content }}{% endfor %}");
  expect(() => add.render(messages)).toThrow('can only concatenate str (not "dict") to str');
});

it('case 07: selectattr(name, "undefined") selects what lacks the attribute, so that a wrong order is refused', async () => {
  const template = inline(readFileSync(join(cases, "07-selectattr-undefined/order.jinja"), "utf8"));
  const error = await textsOf(join(cases, "07-selectattr-undefined/rows.jsonl"), template).catch(
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DatasetError);
  expect(error).toMatchObject({
    exitCode: 3,
    message: expect.stringMatching(/rows\.jsonl:1: .*"turns must alternate"/),
  });
});

describe("case 08: values as Python prints them", () => {
  it.each(table("08-python-values/values.tsv"))("%s gives %s", (template, text) => {
    if (text === "(an error)") expect(() => inline(template).render([])).toThrow(ModelFormatError);
    else expect(inline(template).render([])).toBe(text);
  });
});

describe("case 09: constructs of Jinja2", () => {
  it.each(table("09-jinja-not-there/constructs.tsv"))("%s gives %s", (template, text) => {
    expect(inline(template).render([{ role: "user", content: "Hi" }])).toBe(text);
  });
});

describe("numbers of rows", () => {
  const template = inline(
    "{% for m in messages %}{{ m.role }}{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %};{% endfor %}",
  );
  const file = (name: string, text: string) => {
    const path = join(mkdtempSync(join(folder, "rows-")), name);
    writeFileSync(path, text);
    return path;
  };
  const row = (call: string) =>
    `{"messages":[{"role":"user","content":"a","name":null},{"role":"assistant","content":"","tool_calls":[${call}]}],"label":true}`;
  const calls = ['{"b": 1.0, "10": 12345678901234567890, "2": 1}', '{"b": 1}'];

  it.each([
    ["rows.jsonl", calls.map(row).join("\n")],
    ["rows.json", `[${calls.map(row).join(",\n")}]`],
  ])("keep their form and place in %s", async (name, text) => {
    const texts = await textsOf(file(name, text), template);
    expect(texts.map(({ completion }) => completion)).toEqual(calls.map((call) => `assistant${call};`));
  });

  it("tell apart prompts that differ in nothing else", async () => {
    const prompt = (value: string) =>
      `{"prompt":[{"role":"user","content":"a","tool_calls":[${value}]}],"completion":[{"role":"assistant","content":"b"}],"label":true}`;
    const texts = await textsOf(file("rows.jsonl", `${prompt("1.0")}\n${prompt("1")}`), template);
    expect(texts.map(({ prompt: one }) => one)).toEqual(["user1.0;", "user1;"]);
  });
});

it("a limit that a template exceeds is the model's fault (exit 4), not the row's", async () => {
  const template = inline("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  const error = await textsOf(join(cases, "01-strip-argument/rows.jsonl"), template).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ exitCode: 4, message: expect.stringMatching(/^t\.jinja: .* limit/) });
});
