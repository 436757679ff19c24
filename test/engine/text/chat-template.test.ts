/**
 * What templates render, written out by hand from reading them; where it is taken from; and what is said when it
 * cannot be. The same chats through Python's jinja2, set up as transformers does, gave the same texts.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { writeTokenizerFiles } from "../../../src/engine/model/config/folder.ts";
import {
  type ChatTemplate,
  createChatTemplate,
  loadChatTemplate,
  saveChatTemplate,
} from "../../../src/engine/text/chat-template.ts";
import { strftime } from "../../../src/engine/text/jinja/strftime.ts";
import { ConfigError, ModelFormatError } from "../../../src/errors.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { llama2Template, tokenizerFolders } from "../../helpers/tokenizers.ts";

const folder = temporaryFolder();
const system = { role: "system", content: "Be kind." };
const user = { role: "user", content: "Hi!" };
const assistant = { role: "assistant", content: "Hello." };

/** A new folder with these files; what is not text is written as JSON. */
function folderOf(files: Readonly<Record<string, unknown>>): string {
  const made = mkdtempSync(join(folder, "f-"));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(made, name)), { recursive: true });
    writeFileSync(join(made, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return made;
}

async function load(path: string, templatePath?: string): Promise<ChatTemplate> {
  const template = await loadChatTemplate(path, templatePath === undefined ? {} : { templatePath });
  if (template === undefined) throw new Error(`${path} has no template`);
  return template;
}

const inline = (text: string, tokens: Record<string, unknown> = {}) => createChatTemplate(text, tokens, "t.jinja");

describe("Llama 3.1's template", () => {
  it("writes BOS once, trims contents and opens the answer on request", async () => {
    const template = await load(tokenizerFolders.llama3_1);
    expect(template.source).toBe(`${tokenizerFolders.llama3_1}/tokenizer_config.json`);
    const chat = [system, { role: "user", content: "  Hi! " }];
    const text =
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>";
    expect(template.render(chat)).toBe(text);
    expect(template.render(chat, { addGenerationPrompt: true })).toBe(
      `${text}<|start_header_id|>assistant<|end_header_id|>\n\n`,
    );
  });

  it("trims what is to be continued, as it trims every content", async () => {
    const template = await load(tokenizerFolders.llama3_1);
    const chat = [user, { role: "assistant", content: "Well, " }];
    expect(template.render(chat, { continueFinalMessage: true })).toMatch(/assistant<\|end_header_id\|>\n\nWell,$/);
  });
});

describe("a template of Llama 2's kind", () => {
  const template = inline(llama2Template, { bos_token: "<s>", eos_token: "</s>" });

  it("puts the system prompt into the first turn", () => {
    expect(template.render([system, user, assistant, user])).toBe(
      "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi! [/INST] Hello. </s><s>[INST] Hi! [/INST]",
    );
  });

  it("says which file refused a chat, and why in the template's own words", () => {
    const run = () => template.render([user, user]);
    expect(run).toThrow(ModelFormatError);
    expect(run).toThrow('t.jinja: the chat template stopped with "User and assistant must take turns".');
  });
});

describe("Qwen3's template", () => {
  const render = async (...args: Parameters<ChatTemplate["render"]>) =>
    (await load(tokenizerFolders.qwen3)).render(...args);

  it("opens an answer that thinks, or one that does not", async () => {
    const text = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n";
    const chat = [system, user];
    const open = { addGenerationPrompt: true };
    expect(await render(chat, open)).toBe(text);
    expect(await render(chat, { ...open, variables: { enable_thinking: true } })).toBe(text);
    expect(await render(chat, { ...open, variables: { enable_thinking: false } })).toBe(
      `${text}<think>\n\n</think>\n\n`,
    );
  });

  it("keeps the thoughts of the last answer only", async () => {
    const thought = { role: "assistant", content: "Hello.", reasoning_content: "Greet." };
    expect(await render([user, thought, user, thought])).toBe(
      "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n" +
        "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n<think>\nGreet.\n</think>\n\nHello.<|im_end|>\n",
    );
  });

  it("lists tools, calls and their answers", async () => {
    const tools = [{ type: "function", function: { name: "wetter", description: '<"ä">', parameters: {} } }];
    const call = { type: "function", function: { name: "wetter", arguments: { ort: "Köln" } } };
    const chat = [
      system,
      user,
      { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", content: "20 °C" },
    ];
    expect(await render(chat, { tools })).toBe(
      "<|im_start|>system\nBe kind.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" +
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n" +
        '{"type": "function", "function": {"name": "wetter", "description": "<\\"ä\\">", "parameters": {}}}\n</tools>\n\n' +
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n" +
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' +
        "<|im_start|>user\nHi!<|im_end|>\n" +
        '<|im_start|>assistant\n<tool_call>\n{"name": "wetter", "arguments": {"ort": "Köln"}}\n</tool_call><|im_end|>\n' +
        "<|im_start|>user\n<tool_response>\n20 °C\n</tool_response><|im_end|>\n",
    );
  });
});

describe("the language", () => {
  it("strips blocks and one last newline as transformers sets jinja up", () => {
    expect(inline("a\n  {% if true %}\nb\n  {% endif %}\nc\n\n").render([])).toBe("a\nb\nc\n");
  });

  it("gives None for absent tools and documents, and nothing for absent tokens", () => {
    const text = "{% if tools is none and documents is none %}none{% endif %}[{{ bos_token }}][{{ sep_token }}]";
    expect(inline(text, { sep_token: "|" }).render([])).toBe("none[][|]");
  });

  it("writes JSON as Python does: spaces after separators, letters and angle brackets as they are", () => {
    const variables = { value: { a: [1, 2.5, null], "<é>": {} } };
    expect(inline("{{ value | tojson }}").render([], { variables })).toBe('{"a": [1, 2.5, null], "<é>": {}}');
    expect(inline("{{ value | tojson(indent=2) }}").render([], { variables })).toBe(
      '{\n  "a": [\n    1,\n    2.5,\n    null\n  ],\n  "<é>": {}\n}',
    );
  });

  it("knows range, break, continue and generation blocks", () => {
    expect(
      inline("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}").render([]),
    ).toBe("02345678");
    expect(inline("{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}").render([])).toBe("53");
    expect(inline("{% generation %}x{% endgeneration %}").render([])).toBe("x");
  });

  it("lets variables go before special tokens, but not before the chat", () => {
    const template = inline("{{ eos_token }}{{ namespace(a=1).a }}", { eos_token: "E" });
    expect(template.render([], { variables: { eos_token: "F" } })).toBe("F1");
    const run = () => template.render([], { variables: { messages: [] } });
    expect(run).toThrow(ConfigError);
    expect(run).toThrow(/variable "messages" is taken from the chat itself/);
  });

  it("writes dates as Python does, in English whatever the host speaks", () => {
    const date = new Date(2026, 2, 7, 15, 4, 5);
    expect(strftime(date, "%d %b %Y|%A %-d %B %y|%H:%M:%S|%I %p|%a %m %j %Q %%")).toBe(
      "07 Mar 2026|Saturday 7 March 26|15:04:05|03 PM|Sat 03 066 %Q %",
    );
    expect(strftime(new Date(2026, 0, 1, 0), "%I %p")).toBe("12 AM");
    vi.useFakeTimers({ now: date, toFake: ["Date"] });
    try {
      const template = inline("{{ strftime_now('%d %b %Y') }}");
      expect(template.render([])).toBe("07 Mar 2026");
      expect(template.usesDate).toBe(true);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("continuing the last message", () => {
  const template = inline("{% for m in messages %}<{{ m.content }}>{% endfor %}");

  it("ends behind its content, spaces and all, even where it is empty or said before", () => {
    const run = (...contents: unknown[]) =>
      template.render(
        contents.map((content) => ({ role: "assistant", content })),
        { continueFinalMessage: true },
      );
    expect(run("a", "a ")).toBe("<a><a ");
    expect(run("a", "")).toBe("<a><");
    expect(run("a", null)).toBe("<a><");
  });

  it("continues the last text of a list of parts", () => {
    const parts = inline("{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}");
    const content = [
      { type: "text", text: "a" },
      { type: "text", text: "b" },
    ];
    expect(parts.render([{ role: "assistant", content }], { continueFinalMessage: true })).toBe("<a><b");
    expect(parts.render([{ role: "assistant", content: [] }], { continueFinalMessage: true })).toBe("<");
  });

  it("says when there is nothing to continue", () => {
    const silent = inline("{% for m in messages %}{{ m.role }}{% endfor %}");
    const options = { continueFinalMessage: true };
    expect(() => silent.render([assistant], options)).toThrow(/^t\.jinja: .* leaves out the content/);
    expect(() => template.render([], options)).toThrow(/no messages/);
    expect(() => template.render([assistant], { ...options, addGenerationPrompt: true })).toThrow(/cannot both/);
  });
});

describe("where a template is found", () => {
  const config = { chat_template: "config {{ bos_token }}", bos_token: { content: "B" }, eos_token: null };

  it("chat_template.jinja goes before tokenizer_config.json, and that before chat_template.json", async () => {
    const json = { "chat_template.json": { chat_template: "json" } };
    expect((await load(folderOf(json))).render([])).toBe("json");
    const both = { ...json, "tokenizer_config.json": config };
    expect((await load(folderOf(both))).render([])).toBe("config B");
    const all = folderOf({ ...both, "chat_template.jinja": "jinja {{ bos_token }}\n" });
    const template = await load(all);
    expect(template.render([])).toBe("jinja B");
    expect(template.source).toBe(join(all, "chat_template.jinja"));
  });

  it("takes special tokens from special_tokens_map.json too", async () => {
    const files = { "chat_template.jinja": "{{ eos_token }}", "special_tokens_map.json": { eos_token: "E" } };
    expect((await load(folderOf(files))).render([])).toBe("E");
  });

  it("has another template for tools, in a list or in a folder beside", async () => {
    const list = [
      { name: "default", template: "plain" },
      { name: "tool_use", template: "tools" },
    ];
    const beside = { "chat_template.jinja": "plain", "additional_chat_templates/tool_use.jinja": "tools" };
    for (const files of [{ "tokenizer_config.json": { chat_template: list } }, beside]) {
      const template = await load(folderOf(files));
      expect(template.render([])).toBe("plain");
      expect(template.render([], { tools: [] })).toBe("tools");
    }
  });

  it("a given file or folder goes before the model's own; the tokens stay the model's", async () => {
    const model = folderOf({ "tokenizer_config.json": config });
    const other = folderOf({ "mine.jinja": "mine {{ bos_token }}", "t.json": { chat_template: "json" } });
    expect((await load(model, join(other, "mine.jinja"))).render([])).toBe("mine B");
    expect((await load(model, join(other, "t.json"))).render([])).toBe("json");
    expect((await load(model, folderOf({ "chat_template.jinja": "{{ bos_token }}" }))).render([])).toBe("B");
  });

  it("is saved as a model's own, all of it", async () => {
    const list = [
      { name: "default", template: "other\n" },
      { name: "tool_use", template: "other tools" },
    ];
    const model = folderOf({ "tokenizer_config.json": config });
    await saveChatTemplate(folderOf({ "tokenizer_config.json": { chat_template: list } }), model);
    const template = await load(model);
    expect(template.render([])).toBe("other");
    expect(template.render([], { tools: [] })).toBe("other tools");
  });

  it("is carried along whole to a folder that is written; one that replaces it leaves nothing of it", async () => {
    const names = ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"];
    const model = folderOf({ [names[0] ?? ""]: "main", [names[1] ?? ""]: "tools" });
    const saved = join(folderOf({}), "saved");
    await writeTokenizerFiles(model, saved);
    expect((await load(saved)).render([], { tools: [] })).toBe("tools");
    await saveChatTemplate(folderOf({ "chat_template.jinja": "other" }), saved);
    expect((await load(saved)).render([], { tools: [] })).toBe("other");
  });

  it("there may be none", async () => {
    expect(await loadChatTemplate(folderOf({}))).toBeUndefined();
    expect(await loadChatTemplate(folderOf({ "tokenizer_config.json": { chat_template: null } }))).toBeUndefined();
  });

  it.each([
    [
      "cannot be parsed",
      { "chat_template.jinja": "{% if x %}" },
      /chat_template\.jinja: the chat template cannot be parsed/,
    ],
    [
      "is a number",
      { "tokenizer_config.json": { chat_template: 3 } },
      /tokenizer_config\.json: chat_template is neither/,
    ],
    [
      "is a list with a hole",
      { "tokenizer_config.json": { chat_template: [{ name: "default", template: "x" }, { name: "y" }] } },
      /tokenizer_config\.json: chat_template is neither/,
    ],
    ["lies in a broken file", { "tokenizer_config.json": "{" }, /tokenizer_config\.json is not valid JSON/],
    ["lies in a list", { "chat_template.json": "[]" }, /chat_template\.json does not hold a JSON object/],
  ])("names the file when a template %s", async (_, files, message) => {
    const error = await load(folderOf(files)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ModelFormatError);
    expect((error as Error).message).toMatch(message);
  });

  it("names what is missing: a default, a file, a template in it", async () => {
    const named = folderOf({ "tokenizer_config.json": { chat_template: [{ name: "rag", template: "x" }] } });
    const template = await load(named);
    expect(() => template.render([])).toThrow(/templates named rag but none named "default"/);
    await expect(loadChatTemplate(folder, { templatePath: join(folder, "no.jinja") })).rejects.toThrow(
      /no\.jinja does not exist; chat_template_path names/,
    );
    await expect(loadChatTemplate(folder, { templatePath: folderOf({}) })).rejects.toThrow(/holds no chat template/);
  });
});
