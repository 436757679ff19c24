/** Every spelling of an option that the README allows, and which of two wins. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { doctorDescription } from "../../../src/cli/descriptions/doctor.ts";
import { generateDescription, parseGenerateOptions } from "../../../src/cli/descriptions/generate.ts";
import { trainDescription } from "../../../src/cli/descriptions/train.ts";
import { readOptions } from "../../../src/cli/options/command-line.ts";
import { promptEncoder, readPrompts } from "../../../src/cli/session/prompts.ts";
import { endTokens, resolveSampling } from "../../../src/cli/session/sampling.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { parseKtoConfig } from "../../../src/kto/options/kto.ts";
import { stories } from "../../helpers/folders.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "kto-options-"));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

const required = ["--model=m", "--dataset=d", "--output_dir=o"];

async function train(...words: string[]): Promise<ReturnType<typeof parseKtoConfig>> {
  const { values, where } = await readOptions([...required, ...words], trainDescription);
  return parseKtoConfig(values, where);
}

describe("spellings", () => {
  test.each([
    [["--learning_rate", "1e-4"]],
    [["--learning-rate", "1e-4"]],
    [["--learning_rate=1e-4"]],
    [["--learning-rate=0.0001"]],
    [["learning_rate=1e-4"]],
    [["learning-rate=1e-4"]],
  ])("%j", async (words) => {
    expect((await train(...words)).learning_rate).toBe(1e-4);
  });

  test.each([
    [["--logging_first_step"], true],
    [["--logging-first-step", "--json"], true],
    [["--logging_first_step", "yes"], true],
    [["--logging_first_step", "False"], false],
    [["--logging_first_step=0"], false],
    [["--logging_first_step", "beta=0.2"], true],
    [["--logging_first_step", "--no_logging_first_step"], false],
    [["--no-logging-first-step"], false],
  ])("flag %j", async (words, value) => {
    expect((await train(...words)).logging_first_step).toBe(value);
  });

  test("a negative number is a value, and a value may hold an equals sign", async () => {
    const config = await train("--max_steps", "-1", "--output_dir", "a=b", "dataset=x=y");
    expect(config).toMatchObject({ max_steps: -1, output_dir: "a=b", dataset_name: "x=y" });
  });

  test.each([
    [["--beta"], 'option "--beta" needs a value: a number above 0.'],
    [["--beta", "--json"], 'option "--beta" needs a value: a number above 0.'],
    [["--config"], 'option "--config" needs a value: a YAML or JSON file.'],
    [["model"], 'unexpected "model": options are written --name value or name=value.'],
    [["-b", "1"], 'unexpected "-b": options are written --name value or name=value.'],
    [["--lerning-rate", "1"], 'unknown option "lerning-rate": did you mean "learning_rate"?'],
    [["bata=1"], 'unknown option "bata": did you mean "beta"?'],
  ])("%j is refused in one sentence", async (words, message) => {
    await expect(train(...words)).rejects.toThrow(message);
  });

  test("TRL's options that are missing here are read as flags or with a value", async () => {
    await expect(train("--use_liger_kernel", "--beta", "0.2")).resolves.toMatchObject({ beta: 0.2 });
    expect((await train("--tf32", "False", "--report_to", "none", "--beta", "0.2")).beta).toBe(0.2);
    await expect(train("deepspeed=true")).rejects.toThrow('option "deepspeed" is "true"');
  });

  test("TRL's options mean nothing to commands that do not train", async () => {
    const input = await readOptions(["--bf16"], doctorDescription);
    expect(() => doctorDescription.parse(input)).toThrow('unknown option "bf16"');
  });

  test("a repeatable option collects its values", async () => {
    const { values } = await readOptions(["--prompt", "One", "--prompt=Two", "prompt=Three"], generateDescription);
    expect(values.prompt).toEqual(["One", "Two", "Three"]);
  });
});

describe("precedence", () => {
  test("the later of two wins, whatever their spelling", async () => {
    expect((await train("--beta", "0.2", "beta=0.3")).beta).toBe(0.3);
    expect((await train("beta=0.3", "--beta", "0.2")).beta).toBe(0.2);
    expect((await train("--model_name_or_path", "long", "--model", "short")).model_name_or_path).toBe("short");
  });

  test("a file gives way to the command line, wherever it is named", async () => {
    const path = await file("run.yaml", "beta: 0.5\nlearning-rate: 5e-7\nshuffle_dataset: off\nprompt_free: null\n");
    await expect(train("--config", path)).rejects.toThrow(`unknown option "prompt_free" in ${path}`);
    const good = await file(
      "good.yaml",
      "base_model: from-file\nbeta: 0.5\nlearning-rate: 5e-7\nshuffle_dataset: off\n",
    );
    const config = await train("--beta", "0.2", "--config", good);
    expect(config).toMatchObject({ model_name_or_path: "m", beta: 0.2, learning_rate: 5e-7, shuffle_dataset: false });
    expect((await train(good)).beta).toBe(0.5);
  });

  test("a JSON file does as well, and null in it means the default where there is none", async () => {
    const path = await file("run.json", '{"beta": 0.25, "ref_model_name_or_path": null}');
    expect(await train(path)).toMatchObject({ beta: 0.25, ref_model_name_or_path: "m" });
  });

  test("prompts of the command line take the place of the file's", async () => {
    const path = await file("prompts.yaml", "prompt: [One, Two]\n");
    expect((await readOptions([path], generateDescription)).values.prompt).toEqual(["One", "Two"]);
    expect((await readOptions([path, "--prompt", "Three"], generateDescription)).values.prompt).toEqual(["Three"]);
  });
});

describe("bad files", () => {
  test.each([
    ["value.yaml", "beta: -1\n", /^option "beta" in .*value\.yaml is -1; it must be a number above 0\.$/],
    ["nested.yaml", "beta:\n  high: 1\n", /^option "beta" in .*nested\.yaml is \{"high":1\}; it must be a number/],
    ["twice.yaml", "beta: 1\nbeta: 2\n", /^.*twice\.yaml:2 cannot be parsed: Map keys must be unique\.$/],
    [
      "alias.yaml",
      "model: a\nbase_model: b\n",
      /^option "model_name_or_path" stands twice in .*, once as "base_model"/,
    ],
    ["broken.json", '{"beta": ', /^.*broken\.json:\d+ cannot be parsed: [^\n]*\.$/],
    [
      "aliases.yaml",
      `a: &a [${"x,".repeat(9)}x]\nb: &b [${"*a,".repeat(9)}*a]\nc: &c [${"*b,".repeat(9)}*b]\nbeta: [${"*c,".repeat(9)}*c]\n`,
      /^.*aliases\.yaml cannot be read: Excessive alias count/,
    ],
    ["list.yaml", "- beta\n", /^.*list\.yaml does not hold options: expected lines of "name: value"\.$/],
    ["speed.yaml", "fsdp: true\n", /^option "fsdp" in .*speed\.yaml is true, which is not implemented yet/],
  ])("%s", async (name, text, message) => {
    const path = await file(name, text);
    await expect(train("--config", path)).rejects.toThrow(message);
  });

  test("the command line's value is not blamed on the file", async () => {
    const path = await file("beta.yaml", "beta: 0.5\n");
    await expect(train(path, "--beta=-1")).rejects.toThrow(/^option "beta" is -1;/);
  });

  test("a product's option on the command line that is no YAML is refused as the text that it is", async () => {
    const path = await file("axolotl.yaml", "base_model: m\nrl: kto\nmicro_batch_size: 2\n");
    for (const text of ["*x", "{a: b", "[1"]) {
      const told = `option "num_train_epochs" (num_epochs in ${path}) is ${JSON.stringify(text)}; it must be`;
      await expect(train(path, "--num_epochs", text)).rejects.toThrow(told);
    }
  });

  test("a missing file", async () => {
    await expect(train("nowhere.yaml")).rejects.toThrow(
      "cannot read the configuration file nowhere.yaml: there is no such file.",
    );
  });
});

describe("generate", () => {
  const parse = (values: Record<string, unknown>) =>
    parseGenerateOptions({ values: { model: "m", ...values }, where: () => "" });

  test.each([[{ greedy: true }], [{ do_sample: "false" }], [{ temperature: 0 }]])("%j is greedy", (values) => {
    expect(parse({ prompt: "x", ...values }).greedy).toBe(true);
  });

  const unwarned = { warning: (sentence: string) => expect.unreachable(sentence) };
  const plain = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

  test("sampling from all tokens is the default where the model's folder says nothing", async () => {
    const options = parse({ prompt: "x" });
    expect(options.greedy).toBe(false);
    expect(await resolveSampling(options, folder, unwarned)).toEqual(plain);
  });

  test("generation_config.json gives defaults, and options go before it", async () => {
    const text = '{"do_sample": false, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1}';
    const model = join(folder, "model");
    await mkdir(model);
    await writeFile(join(model, "generation_config.json"), text);
    const sampling = (values: Record<string, unknown>) =>
      resolveSampling(parse({ prompt: "x", ...values }), model, unwarned);
    const fromFile = { ...plain, temperature: 0.6, topK: 20, topP: 0.9, repetitionPenalty: 1.1 };
    expect(await sampling({})).toEqual({ ...fromFile, temperature: 0 });
    expect(await sampling({ do_sample: true, top_k: 3 })).toEqual({ ...fromFile, topK: 3 });
    expect(await sampling({ temperature: 0.7, min_p: 0.1 })).toEqual({ ...fromFile, temperature: 0.7, minP: 0.1 });
    expect(await sampling({ temperature: 0 })).toEqual({ ...fromFile, temperature: 0 });
    expect(await sampling({ do_sample: true, top_k: -1 })).toEqual({ ...fromFile, topK: 0 });
  });

  test("what generation_config.json sets and nothing here does is named once", async () => {
    const model = join(folder, "beams");
    await mkdir(model);
    await writeFile(join(model, "generation_config.json"), '{"num_beams": 4, "typical_p": 0.9, "bad_words_ids": []}');
    const warnings: string[] = [];
    await resolveSampling(parse({ prompt: "x" }), model, { warning: (sentence) => warnings.push(sentence) });
    expect(warnings).toEqual([
      "generation_config.json sets typical_p, num_beams, which are not supported and ignored.",
    ]);
  });

  test("a stop string that is one token, special or not, is an end token", async () => {
    const tokenizer = await loadTokenizer(tokenizerFolders.qwen3);
    const ids = endTokens({ stop_strings: ["<|im_end|>", "!", "the end of it"] }, tokenizer, [151_643]);
    // Numbers of the tokenizer's own file.
    expect(ids).toEqual([151_643, 151_645, 0]);
  });

  test("a row's tools and variables reach the template, the row's before the command's", async () => {
    const template = await file("tools.jinja", "{{ tools[0].name }} {{ mood }} {{ messages[0].content }}");
    const row = { tools: [{ name: "run" }], chat_template_kwargs: { mood: "sad" } };
    const messages = [{ role: "user", content: "Tom" }];
    const rows = await file("chats.jsonl", `${JSON.stringify({ messages, ...row })}\n`);
    const [prompt = ""] = await readPrompts({ prompt: [], prompts_file: rows });
    const tokenizer = await loadTokenizer(stories);
    const options = { chat_template_path: template, chat_template_kwargs: { mood: "glad" } };
    const encode = await promptEncoder([prompt], tokenizer, stories, options);
    expect(tokenizer.decode(encode(prompt))).toBe("run sad Tom");
    for (const [key, value] of [["tools", "run"] as const, ["chat_template_kwargs", []] as const]) {
      const bad = await file("bad.jsonl", `${JSON.stringify({ messages, [key]: value })}\n`);
      await expect(readPrompts({ prompt: [], prompts_file: bad })).rejects.toThrow(`${bad}:1: "${key}" is not a`);
    }
  });

  test("contents in parts are joined for a template of text, and refused where a part is not text, as in rows", async () => {
    const template = await file("text.jinja", "{{ messages[0].content }}");
    const content = [
      { type: "text", text: "Once upon" },
      { type: "text", text: " a time" },
    ];
    const row = (parts: readonly object[]) => `${JSON.stringify({ messages: [{ role: "user", content: parts }] })}\n`;
    const rows = await file("parts.jsonl", row(content) + row([...content, { type: "image" }]));
    const [prompt = "", image = ""] = await readPrompts({ prompt: [], prompts_file: rows });
    const tokenizer = await loadTokenizer(stories);
    const encode = await promptEncoder([prompt], tokenizer, stories, { chat_template_path: template });
    expect(tokenizer.decode(encode(prompt))).toBe("Once upon a time");
    expect(() => encode(image)).toThrow(`${rows}:2: message 1 (user) of the prompt has {"type":"image"}`);
  });

  test("numbers of chat_template_kwargs are ints and floats as written, on the command line and in files", async () => {
    const template = await file(
      "kwargs.jinja",
      "{{ one }} {{ list }} {{ inner }} {{ mine }} {{ messages[0].content }}",
    );
    const kwargs = '{"one": 1.0, "list": [2, 2.0], "inner": {"2": 1e3, "1": 9007199254740993}, "mine": 3.0}';
    const messages = [{ role: "user", content: "Tom" }];
    const rows = await file("kwargs.jsonl", `${JSON.stringify({ messages, chat_template_kwargs: { mine: 4 } })}\n`);
    const [prompt = ""] = await readPrompts({ prompt: [], prompts_file: rows });
    const tokenizer = await loadTokenizer(stories);
    const yaml = await file("kwargs.yaml", `prompt: x\nchat_template_kwargs: ${kwargs}\n`);
    for (const words of [[`chat_template_kwargs=${kwargs}`, "prompt=x"], [yaml]]) {
      const { values } = await readOptions([...words, "model_name_or_path=m"], generateDescription);
      const options = parseGenerateOptions({ values: { ...values, chat_template_path: template }, where: () => "" });
      const encode = await promptEncoder([prompt], tokenizer, stories, options);
      expect(tokenizer.decode(encode(prompt))).toBe("1.0 [2, 2.0] {'2': 1000.0, '1': 9007199254740993} 4 Tom");
    }
  });

  test("num_samples is another name of num_return_sequences", () => {
    expect(parse({ prompt: "x", num_samples: 3 })).toMatchObject({ num_return_sequences: 3 });
  });

  test.each([
    [{}, "there is nothing to continue"],
    [{ prompt: "x", greedy: true, do_sample: true }, "contradict"],
    [{ prompt: "x", greedy: true, num_return_sequences: 3 }, "greedy decoding gives one continuation only"],
    [{ prompt: "x", top_p: 0 }, 'option "top_p" is 0; it must be a number above 0 and at most 1.'],
  ])("%j is refused", (values, message) => {
    expect(() => parse(values)).toThrow(message);
  });

  test("prompts from lines and from rows, and the place of a bad row", async () => {
    const lines = await file("prompts.txt", "Once upon a time\r\n\nOne day\n");
    expect(await readPrompts({ prompt: ["First"], prompts_file: lines })).toEqual([
      "First",
      "Once upon a time",
      "One day",
    ]);
    const rows = await file("prompts.jsonl", '{"prompt": "Hello"}\n{"text": "x"}\n');
    await expect(readPrompts({ prompt: [], prompts_file: rows })).rejects.toThrow(`${rows}:2 has no "prompt"`);
  });
});
