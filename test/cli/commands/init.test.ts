/**
 * kto init: the file that it writes explains itself and fits the memory that it may take, here on a made adapter, since
 * it asks for an adapter's facts and limits alone. test/package.test.ts trains by such a file.
 */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { Ajv } from "ajv";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { configSchemaOf } from "../../../src/cli/descriptions/all.ts";
import { Device } from "../../../src/engine/gpu/device.ts";
import { mebibytes } from "../../../src/errors.ts";
import { ktoOptions } from "../../../src/kto/options/kto.ts";
import { optionInfos } from "../../../src/kto/options/option.ts";
import { fileIn, freshPath, jsonl, llama, stories, temporaryFolder } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

/** WebGPU's default limits, which every adapter has. */
const LIMITS = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  minStorageBufferOffsetAlignment: 256,
  maxComputeWorkgroupStorageSize: 2 ** 14,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupsPerDimension: 2 ** 16 - 1,
};

function adapter(kind: "hardware" | "lavapipe"): Device {
  const nothing = () => undefined;
  const gpu = {
    limits: LIMITS,
    features: new Set<string>(),
    lost: new Promise<never>(nothing),
    addEventListener: nothing,
    createBuffer: () => ({ destroy: nothing }),
    destroy: nothing,
  };
  const facts = { subgroupSize: 32, software: kind !== "hardware" };
  const like = { kind, description: `a made ${kind}`, facts } as unknown as Device;
  return Device.counting(like, gpu as unknown as GPUDevice);
}

const opened = vi.spyOn(Device, "open");
beforeEach(() => void opened.mockImplementation(async () => adapter("hardware")));
afterEach(() => void opened.mockReset());
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
  test("explains every option that it sets, and is right by its schema", async () => {
    const out = freshPath(folder, "aligned");
    const { text, values } = await init(...few, "--output_dir", out, "--append_eos", "false");
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
    const [, ...comments] = text.split("\n").filter((line) => line.startsWith("#"));
    expect(Math.max(...comments.map((line) => line.length))).toBeLessThanOrEqual(120);
    expect(text).toContain("for a made hardware.");
    expect(text).toMatch(/about \d+\.\d MiB of 7629\.4 MiB of device memory/);
  });

  test("grants a software adapter half of the machine's memory", async () => {
    opened.mockImplementation(async () => adapter("lavapipe"));
    const { text } = await init(...few);
    expect(text).toContain(`of ${mebibytes(totalmem() / 2)} of device memory`);
  });

  test("holds rows out, and weighs the smaller class, where there are many", async () => {
    const words = ["--model_name_or_path", stories, "--dataset_name", feedback, "--append_eos", "false"];
    const { values, text } = await init(...words, "--max_length", "100");
    expect(values).toMatchObject({ validation_split: 0.1, desirable_weight: "auto", max_length: 100 });
    expect(text).toContain("354 thumbs up, 1817 down");
    expect(values).toMatchObject({ per_device_train_batch_size: 8, gradient_accumulation_steps: 4 });
  });

  test("holds none out where all rows have one prompt", async () => {
    const rows = Array.from({ length: 120 }, (_, i) => ({ prompt: "Hi", completion: ` ${i}.`, label: i % 2 === 0 }));
    const same = fileIn(folder, "same.jsonl", jsonl(rows));
    const { values } = await init("--model_name_or_path", stories, "--dataset_name", same);
    expect(values).not.toHaveProperty("validation_split");
    expect(values).not.toHaveProperty("desirable_weight");
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
