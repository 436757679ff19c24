/**
 * docs/thumbs.md: its ten commands run one after another, from an export as Open WebUI writes it to a file for Ollama.
 * Only the model, the folders and the length of the training are changed.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { copyOfModel, stories, temporaryFolder } from "./helpers/folders.ts";
import { askLlamaCpp } from "./helpers/gguf.ts";
import { kto } from "./helpers/streams.ts";

const folder = temporaryFolder();
const page = readFileSync(join(import.meta.dirname, "..", "docs", "thumbs.md"), "utf8");
const commands = (/```sh\n([\s\S]*?)```/.exec(page)?.[1] ?? "").trim().split("\n");

beforeAll(() => vi.stubEnv("KTO_CACHE", join(folder, "cache")));
afterAll(() => {
  vi.unstubAllEnvs();
});

/** A chat of one question with a rated answer, as Open WebUI exports it. */
function record(i: number): unknown {
  const [question, answer] = [`q${i}`, `a${i}`];
  const messages = {
    [question]: { id: question, parentId: null, role: "user", content: `Tell story ${i}.` },
    [answer]: {
      id: answer,
      parentId: question,
      role: "assistant",
      content: i % 2 === 0 ? "Lily had a red ball." : "No no no no.",
      done: i !== 8,
    },
  };
  return {
    id: `f${i}`,
    user_id: "somebody",
    type: "rating",
    data: { rating: i % 2 === 0 ? 1 : -1, model_id: "tiny", comment: "a comment" },
    meta: { message_id: answer, chat_id: `c${i}` },
    snapshot: { chat: { id: `c${i}`, chat: { history: { messages, currentId: answer } } } },
    created_at: 1764000000,
    updated_at: 1764000000,
  };
}

/** The words of a command line as a shell reads them. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? "");
}

it("leads from clicks to a model that llama.cpp loads", async () => {
  expect(commands).toHaveLength(10);
  const model = copyOfModel(folder, stories);
  const template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
  writeFileSync(join(model, "chat_template.jinja"), template);
  mkdirSync(join(folder, "thumbs"));
  writeFileSync(
    join(folder, "thumbs", "feedback-history-export-1764000000000.json"),
    JSON.stringify(Array.from({ length: 9 }, (_, i) => record(i))),
  );
  const places = new Map([
    ["Qwen/Qwen2.5-0.5B-Instruct", model],
    ...["thumbs", "rows.jsonl", "adapter", "aligned.gguf"].map((name) => [name, join(folder, name)] as const),
  ]);
  const shorter: Readonly<Record<string, readonly string[]>> = {
    train: ["--max_steps", "2", "--per_device_train_batch_size", "4", "--lora_r", "2"],
    generate: ["--max_new_tokens", "4"],
  };
  const outputs: string[] = [];
  for (const line of commands) {
    const [npx, name, command = "", ...rest] = wordsOf(line);
    expect([npx, name]).toEqual(["npx", "kto-webgpu"]);
    const words = rest.map((word) => places.get(word) ?? word);
    const { code, stdout, stderr } = await kto(command, ...words, ...(shorter[command] ?? []));
    expect({ line, code, stderr: code === 0 ? "" : stderr }).toEqual({ line, code: 0, stderr: "" });
    outputs.push(stdout);
  }
  expect(JSON.parse(outputs[2] ?? "")).toMatchObject({
    layout: "Open WebUI feedback",
    rows: 8,
    desirable: 4,
    dropped: [{ id: "f8", reason: "unfinished" }],
    export: { by_model: { tiny: { up: 4, down: 4 } }, by_date: { "2025-11-24": { up: 4, down: 4 } } },
  });
  const rows = readFileSync(join(folder, "rows.jsonl"), "utf8");
  expect(rows.trim().split("\n")).toHaveLength(8);
  expect(rows).not.toMatch(/somebody|comment/);
  const [answer] = askLlamaCpp([{ model: join(folder, "aligned.gguf"), prompts: [[1]], steps: 4 }]);
  expect(answer?.answers[0]?.generated).toHaveLength(4);
  expect(readFileSync(join(folder, "aligned.Modelfile"), "utf8")).toContain("FROM ./aligned.gguf\nTEMPLATE ");
});
