/** kto init: the file that it writes explains itself, fits the memory that it may take, and runs. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv } from "ajv";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { configSchemaOf } from "../../../src/cli/descriptions/all.ts";
import { ktoOptions } from "../../../src/kto/options/kto.ts";
import { optionInfos } from "../../../src/kto/options/option.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { fileIn, freshPath, jsonl, llama, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();
const five = fileIn(
  folder,
  "five.jsonl",
  jsonl([1, 2, 3, 4, 5].map((i) => ({ prompt: `Day ${i}.`, completion: " It was warm.", label: i === 1 }))),
);

async function init(...words: string[]) {
  const file = freshPath(folder, "run.yaml");
  const told = await kto("init", "--output", file, ...words);
  expect(told.code, told.stderr).toBe(0);
  const text = readFileSync(file, "utf8");
  return { file, text, values: parse(text) as Record<string, unknown>, ...told };
}

const few = ["--model_name_or_path", stories, "--dataset_name", five];
const feedback = "examples/quickstart/feedback.jsonl";

describe("the file", () => {
  test("explains every option that it sets, is right by its schema, and trains", async () => {
    const out = freshPath(folder, "aligned");
    const { file, text, values } = await init(...few, "--output_dir", out, "--append_eos", "false");
    expect(values).toMatchObject({
      model_name_or_path: stories,
      dataset_name: five,
      output_dir: out,
      append_eos: false,
      max_length: 32,
      desirable_weight: "auto",
      per_device_train_batch_size: 4,
      learning_rate: 5e-4,
    });
    const validate = new Ajv({ strict: false }).compile(configSchemaOf("train"));
    expect(validate(values), JSON.stringify(validate.errors)).toBe(true);
    const words = text.replace(/\n# /g, " ").toLowerCase();
    for (const { name, about } of optionInfos(ktoOptions)) {
      if (name in values) expect(words).toContain(about.description.toLowerCase());
    }
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(140);
    const trained = await kto("train", "--config", file, "max_steps=1");
    expect([trained.code, trained.stderr]).toEqual([0, expect.not.stringContaining("learning_rate")]);
    expect(readFileSync(join(out, "metrics.jsonl"), "utf8")).toContain('"loss"');
  });

  test("holds rows out, and weighs the smaller class, where there are many", async () => {
    const words = ["--model_name_or_path", stories, "--dataset_name", feedback, "--append_eos", "false"];
    const { values, text } = await init(...words, "--max_length", "100");
    expect(values).toMatchObject({ validation_split: 0.1, desirable_weight: "auto", max_length: 100 });
    expect(text).toContain("354 thumbs up, 1817 down");
    expect(values).toMatchObject({ per_device_train_batch_size: 8, gradient_accumulation_steps: 4 });
  });

  test("takes less memory where it may take less, and says where that is not enough", async () => {
    const bytes = async (...words: string[]) => {
      const { stdout, ...made } = await init(...few, "--json", ...words);
      return { ...made, ...(JSON.parse(stdout) as { device_bytes: number; fits: boolean }) };
    };
    const whole = await bytes();
    expect(whole.values).not.toHaveProperty("use_peft");
    expect(whole.fits).toBe(true);
    const adapter = await bytes("--device_memory", String(whole.device_bytes / 2));
    expect(adapter.values).toMatchObject({ use_peft: true, learning_rate: 5e-3 });
    expect(adapter.device_bytes).toBeLessThanOrEqual(whole.device_bytes / 2);
    const tight = await bytes("--device_memory", "1MB");
    expect(tight).toMatchObject({ fits: false, values: { gradient_checkpointing: true } });
    expect(tight.stderr).toMatch(/warning: the smallest run takes .* of 1\.0 MiB of device memory/);
  });

  test("goes to stdout, with nothing else", async () => {
    const { code, stdout } = await kto("init", ...few, "--output", "-");
    expect(code).toBe(0);
    expect(stdout.split("\n")[0]).toMatch(
      /^# yaml-language-server: \$schema=https:\/\/unpkg\.com\/kto-webgpu@\d+\.\d+\.\d+\/dist\/schema\/train\.json$/,
    );
    expect(parse(stdout)).toMatchObject({ dataset_name: five });
  });
});

test("a file that is there stays, unless it is to be replaced", async () => {
  const file = fileIn(folder, "mine.yaml", "beta: 0.5\n");
  expect(await kto("init", ...few, "--output", file)).toMatchObject({
    code: 2,
    stderr: `error: output "${file}" exists: choose another name or give --overwrite.\n`,
  });
  expect(readFileSync(file, "utf8")).toBe("beta: 0.5\n");
  expect(await kto("init", ...few, "--output", file, "--overwrite")).toMatchObject({ code: 0 });
});

test("a model without a tokenizer for rows of text", async () => {
  const { code, stderr } = await kto("init", "--model_name_or_path", llama, "--dataset_name", five, "--output", "-");
  expect([code, stderr]).toEqual([4, expect.stringContaining("tokenizer.json")]);
});
