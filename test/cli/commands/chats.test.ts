/**
 * Rows of chat messages through kto logps, gradcheck and train: a random model with Qwen3's template, and its tokenizer
 * cut down to a few hundred tokens. What is measured is what the same token ids give, which the Rust library made.
 */
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as RustTokenizer } from "tokenizers";
import { beforeAll, describe, expect, test } from "vitest";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fileIn, freshPath, jsonl, temporaryFolder } from "../../helpers/folders.ts";
import { TINY_VOCABULARY, writeTinyTokenizer } from "../../helpers/gguf.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";
import { kto } from "../../helpers/streams.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();

const chats = [
  { question: "What is 2 + 2?", answer: "Four.", label: true },
  { question: "What is 2 + 2?", answer: "Five, I think.", label: false },
  { question: "你好", answer: "你好！🙂", label: true },
  { question: "Bye", answer: "No.", label: false },
];
const conversational = chats.map(({ question, answer, label }) => ({
  prompt: [{ role: "user", content: question }],
  completion: [{ role: "assistant", content: answer }],
  label,
}));

let model = "";
let data = "";
beforeAll(async () => {
  model = await randomModel(folder, llamaConfig({ vocab_size: TINY_VOCABULARY, max_position_embeddings: 256 }), 3);
  writeTinyTokenizer(model, "qwen3");
  data = fileIn(folder, "chats.jsonl", jsonl(conversational));
});

/** The same rows as ids, tokenized by the Rust library from texts written by hand. */
async function asIds(open: string, thought: string, count = chats.length): Promise<string> {
  const rust = RustTokenizer.fromFile(join(model, "tokenizer.json"));
  const ids = async (text: string) => (await rust.encode(text, null, { addSpecialTokens: false })).getIds();
  const rows = await Promise.all(
    chats.slice(0, count).map(async ({ question, answer, label }) => ({
      prompt_ids: await ids(`<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n${open}`),
      completion_ids: await ids(`${thought}${answer}<|im_end|>\n`),
      label,
    })),
  );
  return fileIn(folder, "ids.jsonl", jsonl(rows));
}

async function run(...words: string[]) {
  const { code, stdout, stderr } = await kto(...words, "--json");
  expect(code, stderr).toBe(0);
  return { stderr, lines: stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)])) };
}

const noThought = "<think>\n\n</think>\n\n";

describe("rows of chat messages", () => {
  test("kto logps gives what their ids give, the second time from the cache", async () => {
    const words = ["logps", "--log_level", "debug", "--model", model, "--dataset"];
    const first = await run(...words, data);
    expect(first.stderr).toMatch(/data: 4 rows tokenized; the ids are kept in /);
    const second = await run(...words, data);
    expect(second.stderr).toMatch(/data: token ids of 4 rows read from /);
    const again = await run(...words, data, "--overwrite_cache");
    expect(again.stderr).toMatch(/data: 4 rows tokenized/);
    const wanted = await run(...words, await asIds("", noThought));
    for (const { lines } of [first, second, again]) expect(lines).toEqual(wanted.lines);
  });

  test("chat_template_kwargs reach the template", async () => {
    const words = ["logps", "--model", model, "--dataset"];
    const silent = await run(...words, data, "--chat_template_kwargs", '{"enable_thinking": false}');
    expect(silent.lines).toEqual((await run(...words, await asIds(noThought, ""))).lines);
  });

  test("kto gradcheck gives what their ids give", async () => {
    const words = ["gradcheck", "--model", model, "--dataset"];
    const two = fileIn(folder, "two.jsonl", jsonl(conversational.slice(0, 2)));
    const { lines } = await run(...words, two);
    expect(lines[0]).toMatchObject({ passed: true });
    expect(lines).toEqual((await run(...words, await asIds("", noThought, 2))).lines);
  });

  test("kto train saves the template that it was given beside the model", async () => {
    const template = fileIn(folder, "mine.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    const output = freshPath(folder, "out");
    const { lines } = await run(
      ...["train", "--model", model, "--dataset", data, "--output_dir", output, "--chat_template_path", template],
      ...["--max_steps", "1", "--per_device_train_batch_size", "4"],
    );
    expect(lines[0]).toMatchObject({ steps: 1 });
    expect(readFileSync(join(output, "chat_template.jinja"), "utf8")).toBe(readFileSync(template, "utf8"));
    expect(existsSync(join(output, "tokenizer.json"))).toBe(true);
  });

  test("an adapter brings the template that it was trained with, to logps, to going on, and to the merged model", async () => {
    const template = fileIn(folder, "own.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    const adapter = freshPath(folder, "adapter");
    await run(
      ...["train", "--model", model, "--dataset", data, "--output_dir", adapter, "--chat_template_path", template],
      ...["--max_steps", "1", "--per_device_train_batch_size", "4", "--use_peft", "--lora_r", "2"],
    );
    const own = await run("logps", "--model", adapter, "--dataset", data);
    const named = await run("logps", "--model", adapter, "--dataset", data, "--chat_template_path", template);
    expect(own.lines).toEqual(named.lines);
    const base = await run("logps", "--model", model, "--dataset", data);
    expect(own.lines.map(({ tokens }) => tokens)).not.toEqual(base.lines.map(({ tokens }) => tokens));
    const merged = freshPath(folder, "merged");
    await run("merge", "--adapter_name_or_path", adapter, "--output_dir", merged);
    expect(readFileSync(join(merged, "chat_template.jinja"), "utf8")).toBe(readFileSync(template, "utf8"));
  });

  test("a model without a template is told what to do", async () => {
    const bare = freshPath(folder, "bare");
    cpSync(model, bare, { recursive: true });
    cpSync(join(tokenizerFolders.gpt2, "tokenizer_config.json"), join(bare, "tokenizer_config.json"));
    const { code, stderr } = await kto("logps", "--model", bare, "--dataset", data);
    expect(code).toBe(3);
    expect(stderr).toMatch(/chats\.jsonl:1 is a chat, but the model's folder has no chat template; give one as chat_/);
  });
});
