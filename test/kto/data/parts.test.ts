/**
 * Contents that are lists of parts: joined for templates of text, left to templates that take them, refused otherwise.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { DatasetError } from "../../../src/errors.ts";
import { chatRenderer } from "../../../src/kto/data/chat.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import type { ChatMessage, ChatRow } from "../../../src/kto/data/types.ts";

const folder = "test/fixtures/cases/03-parts-into-text-template";
const textTemplate = readFileSync(`${folder}/text.jinja`, "utf8");
const partsOf = (...texts: string[]) => texts.map((text) => ({ type: "text", text }));
const source = { file: "f.jsonl", line: 3 };

function rendered(template: string, prompt: ChatMessage[], answer: ChatMessage["content"]) {
  const row: ChatRow = {
    promptMessages: prompt,
    completionMessages: [{ role: "assistant", content: answer }],
    label: true,
    source,
  };
  return chatRenderer(createChatTemplate(template, {}, "t.jinja"))(row);
}
const user = (content: unknown): ChatMessage[] => [{ role: "user", content }];

/** Templates that go through parts, each in another way. */
const loop = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% else %}<image>{% endif %}{% endfor %}";
const turn = (content: string) => `{% for m in messages %}<{{ m.role }}>${content}{% endfor %}`;
const takingParts: [string, string][] = [
  ["parts alone", turn(loop)],
  ["text or parts", turn(`{% if m.content is string %}{{ m.content }}{% else %}${loop}{% endif %}`)],
  [
    "parts by a macro, trimmed",
    `{% macro write(content) %}{% for p in content %}{{ p.text | trim }}{% endfor %}{% endmacro %}${turn("{{ write(m.content) }}")}`,
  ],
  ["parts by a filter", turn("{{ m.content | map(attribute='text') | join }}")],
];
/** And templates of text, each of which would write the parts themselves, or refuse them. */
const takingText: [string, string][] = [
  ["text", turn("{{ m.content }}")],
  ["text put together", turn("{{ '' + m.content }}")],
  ["text as JSON", turn("{{ m.content | tojson }}")],
  ["lines of text", turn("{% for line in m.content.split('|') %}{{ line }}{% endfor %}")],
];

describe("the case", () => {
  it("parts that are all text are joined for a template of text", async () => {
    const render = chatRenderer(createChatTemplate(textTemplate, {}, "text.jinja"));
    const chats = (await readFeedback(`${folder}/rows.jsonl`)).map((row) => render(row as ChatRow));
    expect(chats.map(({ prompt, completion }) => [prompt, completion])).toEqual([
      ["<user> How far is the moon?\n<assistant> ", "Far.\n"],
      ["<user> Is it big?\n<assistant> ", "Yes.\n"],
    ]);
  });
});

describe("templates", () => {
  it.each(takingText)("of %s get the parts' text, as if it had been given so", (_, template) => {
    const whole = rendered(template, user("Is it big?"), "Yes.");
    expect(rendered(template, user(partsOf("Is it", " big?")), partsOf("Yes", "."))).toEqual(whole);
    expect(rendered(template, user(["Is it", { text: " big?" }]), "Yes.")).toEqual(whole);
    expect(rendered(template, user(partsOf()), "Yes.")).toEqual(rendered(template, user(""), "Yes."));
  });

  it.each(takingParts)("that take %s get them as they are", (_, template) => {
    const { prompt, completion } = rendered(template, user(partsOf("a", "b")), partsOf("c"));
    expect(prompt + completion).toBe("<user>ab<assistant>c");
  });

  it("that take parts from the user and text from the assistant get both", () => {
    const template = `{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' %}${loop}{% else %}{{ m.content }}{% endif %}{% endfor %}`;
    const image = [{ type: "image" }, ...partsOf("b")];
    const { prompt, completion } = rendered(template, user(image), partsOf("c", "d"));
    expect(prompt + completion).toBe("<user><image>b<assistant>cd");
  });

  it("of text that refuse a user alone, or a system's message, get text", () => {
    const picky = `{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}${turn("{{ m.content }}")}`;
    const prompt = [{ role: "system", content: partsOf("s") }, ...user(partsOf("u"))];
    expect(rendered(picky, prompt, partsOf("a"))).toMatchObject({
      prompt: "<system>s<user>u",
      completion: "<assistant>a",
    });
  });
});

describe("refusals", () => {
  it.each<[string, unknown, RegExp]>([
    [
      "an image",
      [{ type: "image" }, ...partsOf("b")],
      /message 1 \(user\) of the prompt has \{"type":"image"\} in its "content"/,
    ],
    ["a number", [7], /has 7 in its "content"/],
    ["nothing", [null], /has null in its "content"/],
    ["a list", [[]], /has \[\] in its "content"/],
  ])("name row, message and part: %s", (_, content, message) => {
    expect(() => rendered(textTemplate, user(content), "a")).toThrow(DatasetError);
    expect(() => rendered(textTemplate, user(content), "a")).toThrow(message);
    expect(() => rendered(textTemplate, user(content), "a")).toThrow(/^f\.jsonl:3: .*t\.jinja writes text only; give/);
  });
});
