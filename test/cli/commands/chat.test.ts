/** `kto chat` over a pipe with a tiny model: what is printed where, what the commands do, what is refused. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fileIn, stories, temporaryFolder } from "../../helpers/folders.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";
import { kto, ktoReading } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
const model = await randomModel(folder, llamaConfig({ vocab_size: 512, max_position_embeddings: 128 }), 3);
for (const name of ["tokenizer.json", "tokenizer_config.json"]) copyFileSync(join(stories, name), join(model, name));
const template = fileIn(
  folder,
  "chat.jinja",
  "{{ bos_token }}{% for message in messages %}{{ message.role[0] }}:{{ message.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
);
const words = ["--model", model, "--chat_template_path", template, "--greedy", "max_new_tokens=6"];

interface Turn {
  turn: number;
  prompt: string;
  completion: string;
  tokens: number;
  finish: string;
}

async function turns(lines: string[], ...more: string[]): Promise<Turn[]> {
  const { code, stdout, stderr } = await ktoReading(lines, "chat", ...words, ...more, "--json");
  expect(code, stderr).toBe(0);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Turn);
}

test("answers what generate answers, the conversation so far before it, until the input ends", async () => {
  const [first, second] = await turns(["Tom ran", "Lily sat"]);
  expect(first).toMatchObject({ turn: 0, prompt: "Tom ran", finish: "length", tokens: 6 });
  const messages = [
    { role: "user", content: "Tom ran" },
    { role: "assistant", content: first?.completion },
    { role: "user", content: "Lily sat" },
  ];
  const rows = fileIn(folder, "chats.jsonl", `${JSON.stringify({ messages })}\n`);
  const whole = await kto("generate", ...words, "--prompts_file", rows, "--json");
  expect(whole.code, whole.stderr).toBe(0);
  expect((JSON.parse(whole.stdout) as Turn).completion).toBe(second?.completion);
});

test("/reset, /system and /exit", async () => {
  const [first, again, changed, ...none] = await turns([
    "Tom ran",
    "/reset",
    "Tom ran",
    "/system Be sad",
    "Tom ran",
    "/exit",
    "No",
  ]);
  expect(again?.completion).toBe(first?.completion);
  expect(none).toEqual([]);
  const [told] = await turns(["Tom ran"], "--system", "Be sad");
  expect(changed?.completion).toBe(told?.completion);
});

test("without --json stdout holds the answers alone", async () => {
  const [first] = await turns(["Tom ran"]);
  const { stdout, stderr } = await ktoReading(["Tom ran", "/dance"], "chat", ...words);
  expect(stdout).toBe(`${first?.completion}\n`);
  expect(stderr).toContain("there is no /dance; there are /reset, /system and /exit.");
});

test("a full conversation and a model without a template are said in a sentence", async () => {
  const full = await ktoReading(["Tom ran ".repeat(30)], "chat", ...words, "max_length=32");
  expect([full.code, full.stderr]).toEqual([
    2,
    expect.stringMatching(/error: The conversation takes \d+ tokens, which leaves no room for an answer within 32; /),
  ]);
  const bare = await ktoReading(["Tom"], "chat", "--model", model);
  expect([bare.code, bare.stderr]).toEqual([
    2,
    expect.stringContaining(
      "has no chat template; give one as chat_template_path, or let kto generate continue plain text.",
    ),
  ]);
});
