/** Where a chat's prompt ends and its completion begins, in text and in tokens, with real templates and tokenizers. */
import { describe, expect, it } from "vitest";
import { type ChatTemplate, createChatTemplate, loadChatTemplate } from "../../../src/engine/text/chat-template.ts";
import { loadTokenizer, type Tokenizer } from "../../../src/engine/text/tokenizer.ts";
import { ConfigError, DatasetError, ModelFormatError } from "../../../src/errors.ts";
import { type TokenizeOptions, tokenizeRows } from "../../../src/kto/data/tokenize.ts";
import type { ChatMessage, ChatRow } from "../../../src/kto/data/types.ts";
import { llama2Template, tokenizerFolders } from "../../helpers/tokenizers.ts";

const limits = { vocabSize: 200_000, contextLength: 4096 };
const user: ChatMessage = { role: "user", content: "What is 2 + 2?" };
const say = (content: unknown, more: object = {}): ChatMessage => ({ role: "assistant", content, ...more });

function chat(promptMessages: ChatMessage[], completionMessages: ChatMessage[], more: Partial<ChatRow> = {}): ChatRow {
  return { promptMessages, completionMessages, label: true, source: { file: "chats.jsonl", line: 7 }, ...more };
}

type Family = keyof typeof tokenizerFolders;
const loaded = new Map<Family, Promise<Tokenizer>>();
function tokenizerOf(family: Family): Promise<Tokenizer> {
  const tokenizer = loaded.get(family) ?? loadTokenizer(tokenizerFolders[family]);
  loaded.set(family, tokenizer);
  return tokenizer;
}

async function templateOf(family: Family): Promise<ChatTemplate> {
  const tokens = { bos_token: "<s>", eos_token: "</s>" };
  if (family === "llama2") return createChatTemplate(llama2Template, tokens, "llama2.jinja");
  const template = await loadChatTemplate(tokenizerFolders[family]);
  if (template === undefined) throw new Error(`${family} has no template`);
  return template;
}

/** Tokenizes chats as a family does; the texts are decoded with special tokens. */
async function run(family: Family, rows: ChatRow[], options: Partial<TokenizeOptions> = {}) {
  const tokenizer = await tokenizerOf(family);
  const chatTemplate = await templateOf(family);
  const { examples, report } = tokenizeRows(rows, { ...limits, tokenizer, chatTemplate, ...options });
  const texts = examples.map(({ promptIds, completionIds }) => ({
    prompt: tokenizer.decode(promptIds),
    completion: tokenizer.decode(completionIds),
  }));
  return { tokenizer, examples, report, texts, warnings: report.warnings };
}

describe("a completion is what the assistant said and what ends its turn", () => {
  it("Llama 2's kind", async () => {
    const { texts, examples, tokenizer, warnings } = await run("llama2", [
      chat([{ role: "system", content: "Be kind." }, user], [say("Four.")]),
    ]);
    expect(texts).toEqual([
      {
        // The space is the tokenizer's: Llama 2's puts one before every stretch of text, the Rust library too.
        prompt: "<s> [INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nWhat is 2 + 2? [/INST]",
        completion: "Four. </s>",
      },
    ]);
    // One BOS, the template's; one EOS, the template's.
    expect([...(examples[0]?.promptIds ?? [])].filter((id) => id === tokenizer.bosTokenId)).toHaveLength(1);
    expect([...(examples[0]?.completionIds ?? [])].filter((id) => id === tokenizer.eosTokenId)).toHaveLength(1);
    expect(warnings).toEqual([]);
  });

  it("Llama 3.1", async () => {
    const { texts, examples, warnings } = await run("llama3_1", [chat([user], [say("Four. ")])]);
    expect(texts).toEqual([
      {
        prompt:
          "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is 2 + 2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        completion: "Four.<|eot_id|>",
      },
    ]);
    // The Rust library's ids of that prompt; <|begin_of_text|> is 128000 and stands once.
    expect([...(examples[0]?.promptIds ?? [])]).toEqual([
      128000, 128006, 882, 128007, 271, 3923, 374, 220, 17, 489, 220, 17, 30, 128009, 128006, 78191, 128007, 271,
    ]);
    expect(examples[0]?.completionIds.at(-1)).toBe(128009);
    expect(warnings).toEqual([]);
  });

  it("Qwen3, whose answers think unless told otherwise, by option or by row", async () => {
    const open = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n";
    const noThought = "<think>\n\n</think>\n\n";
    const row = chat([user], [say("Four.")]);
    const thinking = await run("qwen3", [row, { ...row, templateOptions: { enable_thinking: false } }]);
    const thoughtInCompletion = { prompt: open, completion: `${noThought}Four.<|im_end|>\n` };
    const thoughtInPrompt = { prompt: open + noThought, completion: "Four.<|im_end|>\n" };
    expect(thinking.texts).toEqual([thoughtInCompletion, thoughtInPrompt]);
    const silent = await run("qwen3", [row, { ...row, templateOptions: { enable_thinking: true } }], {
      templateOptions: { enable_thinking: false },
    });
    expect(silent.texts).toEqual([thoughtInPrompt, thoughtInCompletion]);
    expect([...thinking.warnings, ...silent.warnings]).toEqual([]);
  });

  it("tools stand in the prompt, and a completion may call them and go on", async () => {
    const tools = [{ type: "function", function: { name: "add" } }];
    const call = { type: "function", function: { name: "add", arguments: { a: 2, b: 2 } } };
    const { texts } = await run("qwen3", [
      chat([user], [say("", { tool_calls: [call] }), { role: "tool", content: "4" }, say("Four.")], { tools }),
    ]);
    expect(texts[0]?.prompt).toContain('<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools>');
    expect(texts[0]?.completion).toBe(
      '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call><|im_end|>\n' +
        "<|im_start|>user\n<tool_response>\n4\n</tool_response><|im_end|>\n" +
        "<|im_start|>assistant\n<think>\n\n</think>\n\nFour.<|im_end|>\n",
    );
  });

  it("a conversation of several turns is the prompt, to its last user", async () => {
    const { texts } = await run("qwen3", [chat([user, say("4"), { role: "user", content: "Sure?" }], [say("Yes.")])]);
    expect(texts[0]).toEqual({
      prompt:
        "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
      completion: "<think>\n\n</think>\n\nYes.<|im_end|>\n",
    });
  });

  it("a prompt that ends with the assistant's words is left open there", async () => {
    const { texts } = await run("llama3_1", [chat([user, say("Well,")], [say("four.")])]);
    expect(texts[0]?.prompt.endsWith("assistant<|end_header_id|>\n\nWell,")).toBe(true);
    expect(texts[0]?.completion).toBe("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nfour.<|eot_id|>");
  });

  it("is the same for the rows of a pair, which share their prompt, in any order", async () => {
    const other: ChatMessage = { role: "user", content: "Hi" };
    const rows = [
      chat([user], [say("Four.")]),
      chat([user], [say("Five.")]),
      chat([other], [say("Hi")]),
      chat([user], [say("Four.")]),
    ];
    const together = await run("llama3_1", rows);
    const apart = await Promise.all(rows.map((row) => run("llama3_1", [row])));
    expect(together.texts).toEqual(apart.flatMap(({ texts }) => texts));
  });
});

describe("odd templates", () => {
  const letters: Tokenizer = {
    bosTokenId: 1,
    eosTokenId: 2,
    vocabSize: 256,
    addsBos: true,
    // One code unit a token, but "bc" is one; special tokens only where they are asked for.
    encode: (text, { addSpecialTokens = true } = {}) => [
      ...(addSpecialTokens ? [1] : []),
      ...[...text.matchAll(/bc|./gs)].map(([piece]) => (piece === "bc" ? 3 : piece.charCodeAt(0) % 256)),
    ],
    decode: (ids) => Array.from(ids, (id) => (id === 3 ? "bc" : String.fromCharCode(id))).join(""),
  };
  const encode = (text: string, rows: ChatRow[]) => {
    const chatTemplate = createChatTemplate(text, {}, "odd.jinja");
    const { examples, report } = tokenizeRows(rows, { ...limits, tokenizer: letters, chatTemplate });
    return {
      texts: examples.map(({ promptIds, completionIds }) => [letters.decode(promptIds), letters.decode(completionIds)]),
      report,
    };
  };
  const opening = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}";

  it("parts prompt and completion where they first differ, and counts it", () => {
    const thinks = `${opening}{% if add_generation_prompt %}a:<think>{% endif %}`;
    const { texts, report } = encode(thinks, [
      chat([{ role: "user", content: "x" }], [say("y")]),
      chat([{ role: "user", content: "x" }], [say("<think>y")], { label: false }),
    ]);
    expect(texts).toEqual([
      ["u:x;a:", "y;"],
      ["u:x;a:<think>", "y;"],
    ]);
    expect(report.warnings).toEqual([
      expect.stringMatching(
        /^In 1 of 2 chats the template renders the prompt alone otherwise .*chat_template_path\)\.$/,
      ),
    ]);
  });

  it("does not part a character of two code units", () => {
    const text = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}\u{1F600}{% endif %}";
    const { texts } = encode(text, [chat([{ role: "user", content: "x" }], [say("\u{1F601}")])]);
    expect(texts).toEqual([["x", letters.decode(letters.encode("\u{1F601}", { addSpecialTokens: false }))]]);
  });

  it("tokenizes apart, and counts it, where a token spans the boundary", () => {
    const { texts, report } = encode("{% for m in messages %}{{ m.content }}{% endfor %}", [
      chat([{ role: "user", content: "ab" }], [say("cd")]),
      chat([{ role: "user", content: "ab" }], [say("d")], { label: false }),
    ]);
    expect(texts).toEqual([
      ["ab", "cd"],
      ["ab", "d"],
    ]);
    expect(report.warnings).toEqual([expect.stringMatching(/^In 1 of 2 chats the tokens .* tokenized separately/)]);
  });

  it("adds neither BOS nor EOS to what the template writes", () => {
    expect(encode(opening, [chat([{ role: "user", content: "x" }], [say("y")])]).texts).toEqual([["u:x;", "a:y;"]]);
  });

  it("drops completions in which nothing was said", () => {
    const rows = [say(""), say(null), say([]), say("", { tool_calls: [] }), say("y"), say("", { tool_calls: ["f"] })];
    const { report, texts } = encode(
      opening,
      rows.map((message) => chat([{ role: "user", content: "x" }], [message])),
    );
    expect(report.dropped).toMatchObject([{ reason: "the completion is empty", count: 4 }]);
    expect(texts).toHaveLength(2);
  });
});

describe("chats that cannot be used", () => {
  it("names the row, the template's file and its own words", async () => {
    const refused = run("llama2", [chat([user, user], [say("x")])]);
    await expect(refused).rejects.toThrow(DatasetError);
    await expect(run("llama2", [chat([user, user], [say("x")])])).rejects.toThrow(
      'chats.jsonl:7: llama2.jinja: the chat template stopped with "User and assistant must take turns"; change the row, or give another template (chat_template_path).',
    );
  });

  it("says what is missing", async () => {
    const tokenizer = await tokenizerOf("llama2");
    const row = chat([user], [say("x")]);
    expect(() => tokenizeRows([row], { ...limits, tokenizer })).toThrow(
      /^chats\.jsonl:7 is a chat, but the model's folder has no chat template; give one as chat_template_path/,
    );
    expect(() => tokenizeRows([row], limits)).toThrow(/^chats\.jsonl:7 is a chat, but there is no tokenizer/);
    await expect(run("qwen3", [row], { templateOptions: { tools: [] } })).rejects.toThrow(ConfigError);
  });

  it("says when tokenizer and model do not belong together", async () => {
    const row = chat([user], [say("Four.")]);
    // <|im_end|>, Qwen3's eos_token, is 151645.
    const outside = run("qwen3", [row], { vocabSize: 151_645 });
    await expect(outside).rejects.toThrow(ModelFormatError);
    await expect(run("qwen3", [row], { vocabSize: 151_645 })).rejects.toThrow(
      /^The tokenizer has 151669 tokens, the model 151645, and its eos_token is number 151645: they do not belong together; put/,
    );
    const { warnings } = await run("qwen3", [chat([user], [say("Four.")], { templateOptions: {} })], {
      vocabSize: 151_646,
      templateOptions: { enable_thinking: true },
    }).catch((error: Error) => ({ warnings: [error.message] }));
    // <think> is 151667: an id outside the vocabulary is an error of the row that needs it.
    expect(warnings).toEqual([
      "chats.jsonl:7: token id 151667 is outside the model's vocabulary of 151646 tokens; the tokenizer does not belong to this model.",
    ]);
    const plain = await run("llama3_1", [row], { vocabSize: 128_010 });
    expect(plain.warnings).toEqual([
      "The tokenizer has 128256 tokens, the model 128010; a row that needs one of the others will be refused.",
    ]);
  });
});
