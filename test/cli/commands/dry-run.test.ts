/**
 * `kto train --dry_run`: the memory that it tells is what the run itself would hold, by category, and nothing is
 * written. The run is stopped where its trainer has allocated everything.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { type PossibleRuns, possibleRuns } from "../../../src/cli/session/possible-runs.ts";
import { Output } from "../../../src/cli/terminal/output.ts";
import { Device } from "../../../src/engine/gpu/device.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { saveAdapter } from "../../../src/engine/model/peft.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { AdapterError, mebibytes } from "../../../src/errors.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { shareDeviceWithCommands } from "../../helpers/commands.ts";
import { activationFormats, sharedDevice, withLimits } from "../../helpers/device.ts";
import { fileIn, fixtures, freshPath, jsonl, llama, stories, temporaryFolder } from "../../helpers/folders.ts";
import { CapturedStream, kto } from "../../helpers/streams.ts";

shareDeviceWithCommands();
const folder = temporaryFolder();

interface Plan {
  dry_run: boolean;
  steps: number;
  steps_per_epoch: number;
  device_bytes: number;
  device_bytes_by_category: Record<string, number>;
  largest_buffer: { label: string; bytes: number };
  max_buffer_size: number;
  fits: boolean;
  reason: string | null;
  savings: { change: string; bytes: number; fits: boolean }[];
  fits_together: { changes: string[]; device_bytes: number } | null;
  host_bytes: number;
  checkpoint_bytes: number;
  most_checkpoints: number;
  steps_left: number;
  seconds_per_update: number;
  evaluations: number;
  seconds_per_evaluation: number;
  seconds_of_reference: number;
  estimated_seconds: number;
}

const data = ["--dataset_name", `${fixtures}/llama/data.jsonl`, "--max_steps", "3"];
const lora = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "all-linear"];

/** Where the adapter has it. */
const fp16 = (await activationFormats()).includes("f16") ? ["--fp16"] : [];

let inBf16: string;
/** The folder of an adapter. */
let trained: string;
beforeAll(async () => {
  inBf16 = freshPath(folder, "bf16");
  const model = await Model.load(await sharedDevice(), llama);
  await model.save(inBf16, { dtype: "bf16" });
  trained = freshPath(folder, "trained");
  const options = { rank: 3, alpha: 6, dropout: 0, rslora: false };
  const adapter = LoraAdapter.create(model.device, model.config, options);
  await saveAdapter(model.withAdapter(adapter), trained);
  adapter.free();
  model.free();
});

async function planOf(...words: string[]): Promise<Plan> {
  const output = freshPath(folder, "planned");
  const { code, stdout, stderr } = await kto("train", ...data, ...words, "--output_dir", output, "--dry_run", "--json");
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(/^\{.*\}\n$/);
  expect(existsSync(output)).toBe(false);
  return JSON.parse(stdout) as Plan;
}

/** The words of a run with other options, as a plan writes them. */
function changed(words: readonly string[], changes: readonly string[]): string[] {
  const options = changes.flatMap((change) => change.split(", ")).map((one) => one.split(" ") as [string, string]);
  return [
    ...words.filter((word, i, all) => !options.some(([name]) => [word, all[i - 1]].includes(`--${name}`))),
    ...options.flatMap(([name, value]) => [`--${name}`, value]),
  ];
}

/** Bytes by category that a run holds once its trainer is made, beside what the shared device held before. */
async function heldBy(...words: string[]): Promise<Record<string, number>> {
  const device = await sharedDevice();
  const before = device.memory();
  let held: Record<string, number> = {};
  const create = KtoTrainer.create.bind(KtoTrainer);
  const spy = vi.spyOn(KtoTrainer, "create").mockImplementation(async (inputs) => {
    await create(inputs);
    held = Object.fromEntries(
      Object.entries(device.memory())
        .map(([category, bytes]) => [category, bytes - (before[category] ?? 0)] as const)
        .filter(([, bytes]) => bytes > 0),
    );
    throw new Error("enough was seen");
  });
  const { stderr } = await kto("train", ...data, ...words, "--output_dir", freshPath(folder, "run"));
  spy.mockRestore();
  expect(stderr).toContain("enough was seen");
  expect(device.memory()).toEqual(before);
  return held;
}

describe("kto train --dry_run", () => {
  test.each<[string, () => string[]]>([
    ["all weights of a model in f32", () => ["--model", llama]],
    ["all weights of a model in bf16, whose reference stays so", () => ["--model", inBf16]],
    ["an adapter of a model in f32", () => ["--model", llama, ...lora]],
    ["an adapter of a model in bf16", () => ["--model", inBf16, ...lora]],
    [
      "DoRA of linear layers and the embedding, and a head that is trained whole",
      () => [
        ...["--model", inBf16, "--use_peft", "--use_dora", "--lora_r", "4", "--lora_target_modules", "q_proj"],
        ...["down_proj", "embed_tokens", "--lora_modules_to_save", "lm_head"],
      ],
    ],
    ["an adapter of a model in 4 bits", () => ["--model", inBf16, ...lora, "--load_in_4bit"]],
    [
      "an adapter that is gone on with, and the copy of it",
      () => ["--model", llama, "--adapter_name_or_path", trained],
    ],
    ["another reference", () => ["--model", llama, "--ref_model", `${fixtures}/llama/reference`, "--dtype", "float16"]],
    ["no mismatched pairs", () => ["--model", llama, "--loss_type", "apo_zero_unpaired"]],
    ["activations in f16", () => ["--model", llama, ...fp16]],
  ])("%s: the bytes that the run will hold", async (_, words) => {
    const { device_bytes: total, device_bytes_by_category: planned } = await planOf(...words());
    const held = await heldBy(...words());
    // The device itself, which the shared one had before the run, has 256 bytes under "uniforms".
    expect({ ...planned, uniforms: (planned.uniforms ?? 0) - 256 }).toEqual({ uniforms: 0, ...held });
    expect(total).toBe(Object.values(planned).reduce((sum, bytes) => sum + bytes, 0));
  });

  test.each<[string, () => string[], string[]]>([
    [
      "all weights",
      () => ["--model", llama],
      ["gradient_checkpointing", "per_device_train_batch_size", "reference", "max_length"],
    ],
    [
      "an adapter",
      () => ["--model", inBf16, ...lora],
      ["gradient_checkpointing", "load_in_4bit", "per_device_train_batch_size", "max_length"],
    ],
    [
      "an adapter over 8 bits",
      () => ["--model", inBf16, ...lora, "--load_in_8bit", "true"],
      ["gradient_checkpointing", "load_in_8bit", "per_device_train_batch_size", "max_length"],
    ],
    [
      "an adapter over embeddings in 8 bits, which stay so",
      () => ["--model", stories, ...lora, "--quantize_embeddings", "true"],
      ["gradient_checkpointing", "load_in_4bit", "per_device_train_batch_size", "max_length"],
    ],
  ])("%s: what it says that options save, their own plan takes less", async (_, words, expected) => {
    const { device_bytes: now, savings } = await planOf(...words());
    expect(savings.map(({ change }) => change.split(" ")[0])).toEqual(expected);
    for (const { change, bytes, fits } of savings) {
      const { device_bytes: then } = await planOf(...changed(words(), [change]));
      expect([now - then, fits], change).toEqual([bytes, true]);
    }
  });

  describe("of a run that does not fit", () => {
    const ids = (count: number) => Array.from({ length: count }, (_, i) => 3 + ((7 * i) % 100));
    const rows = Array.from({ length: 8 }, (_, i) => {
      return { prompt_ids: ids(20), completion_ids: ids(80), label: i % 2 === 0 };
    });
    const file = () => fileIn(folder, "long.jsonl", jsonl(rows));
    const words = () => ["--model", inBf16, ...lora, "--dataset_name", file(), "--per_device_train_batch_size", "8"];

    /** The plan and the text of it, whose times are not of interest. */
    async function refusedPlan(...more: string[]): Promise<Plan & { code: number; stderr: string; text: string }> {
      const timed = vi.spyOn(KtoTrainer, "time").mockRejectedValue(new AdapterError("not timed"));
      const run = ["--max_steps", "3", ...more, "--output_dir", freshPath(folder, "planned"), "--dry_run"];
      const [{ stdout: text }, { code, stdout, stderr }] = [
        await kto("train", ...run),
        await kto("train", ...run, "--json"),
      ];
      timed.mockRestore();
      return { ...(JSON.parse(stdout) as Plan), code, stderr, text };
    }

    test("a buffer's limit: which changes alone make it fit, and those do", async () => {
      await withLimits({ maxBufferSize: 120_000 }, async () => {
        const { fits, reason, savings, code, stderr, text } = await refusedPlan(...words());
        expect([code, fits]).toEqual([5, false]);
        expect(reason).toMatch(/^".+" needs \d+ bytes in one buffer/);
        expect(stderr).toContain(reason);
        expect(text).toContain(`it does not fit: ${reason}\n`);
        expect(new Set(savings.map((one) => one.fits))).toEqual(new Set([true, false]));
        for (const { change, fits: enough } of savings) {
          expect((await refusedPlan(...changed(words(), [change]))).fits, change).toBe(enough);
          expect(text.split("\n").find((line) => line.startsWith(`  ${change} `))).toMatch(
            enough ? / MiB less, and then it fits$/ : / MiB less$/,
          );
        }
      });
    });

    test("the memory of the machine: which changes make it fit together, and that nothing does", async () => {
      const software = vi.spyOn(Device.prototype, "isSoftware", "get").mockReturnValue(true);
      const host = vi.spyOn(platform, "hostMemoryBytes");
      host.mockReturnValue(1000);
      const { device_bytes: now, savings, fits_together, reason, text } = await refusedPlan(...words());
      expect(reason).toMatch(/^The run needs [\d.]+ MiB of device memory, which on the software adapter/);
      expect(fits_together).toBeNull();
      expect(text).toContain("\nno option that saves memory makes it fit: ");
      host.mockReturnValue(now - Math.max(...savings.map(({ bytes }) => bytes)) - 1);
      const refused = await refusedPlan(...words());
      expect(refused.savings.map((one) => one.fits)).not.toContain(true);
      const { changes = [], device_bytes } = refused.fits_together ?? {};
      expect(changes.length).toBeGreaterThan(1);
      const together = await refusedPlan(...changed(words(), changes));
      expect([together.fits, together.device_bytes]).toEqual([true, device_bytes]);
      expect(refused.text).toContain(`, in ${mebibytes(together.device_bytes)}: ${changes.join(", ")}\n`);
      host.mockRestore();
      software.mockRestore();
    });
  });

  test("an adapter is trained in less memory than the model, and a model in bf16 takes half", async () => {
    const [full, adapter, half] = [
      await planOf("--model", llama),
      await planOf("--model", llama, ...lora),
      await planOf("--model", inBf16, ...lora),
    ].map(({ device_bytes_by_category }) => device_bytes_by_category);
    expect(adapter?.["reference weights"]).toBeUndefined();
    expect(adapter?.optimizer).toBeLessThan((full?.optimizer ?? 0) / 2);
    expect(half?.weights).toBeLessThan(0.55 * (adapter?.weights ?? 0));
  });

  test("tells updates and what the largest buffer is, to programs and to people", async () => {
    const plan = await planOf("--model", llama, "--per_device_train_batch_size", "2");
    const device = await sharedDevice();
    expect(plan).toMatchObject({
      dry_run: true,
      steps: 3,
      max_buffer_size: device.limits.maxBufferSize,
      largest_buffer: { label: expect.any(String), bytes: expect.any(Number) },
    });
    expect(plan.host_bytes).toBeGreaterThan(2 ** 26);
    const words = ["--model", llama, "--output_dir", freshPath(folder, "planned"), "--dry_run"];
    const { code, stdout } = await kto("train", ...data, ...words);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^3 updates of \d+ rows, \d+ in an epoch\n/);
    expect(stdout).toMatch(/^ {2}optimizer {2,}\d+\.\d MiB$/m);
    expect(stdout).toMatch(/^ {2}device, in all {2,}\d+\.\d MiB$/m);
    expect(stdout).toMatch(
      /\nevery buffer fits: the largest has \d+\.\d MiB \([\w ]+\), and the adapter allows \d+\.\d MiB\n/,
    );
    expect(stdout).toMatch(
      /\na checkpoint takes about \d+\.\d MiB on the disk; there is one\nan update takes about [\d.e-]+ s \(one of mean size was timed\)\nthe run takes about \d+:\d\d: 3 updates \d+:\d\d; loading, compiling, samples, judges and saving come on top\nless device memory, each alone:\n( {2}[\w ,]+ +\d+\.\d MiB less\n)+$/,
    );
  });

  test("tells how long updates, evaluations and a reference computed before them take, of which it runs a little", async () => {
    const evaluated = ["--validation_split", "0.4", "--eval_steps", "2", "--eval_on_start"];
    const plan = await planOf("--model", llama, ...evaluated, "--precompute_ref_log_probs");
    expect(plan.evaluations).toBe(3); // steps 0, 2, 3
    expect(plan.seconds_per_update).toBeGreaterThan(0);
    expect(plan.seconds_per_evaluation).toBeGreaterThan(0);
    // A pass of one microbatch an update, and one evaluation.
    expect(plan.seconds_of_reference).toBeGreaterThan(plan.seconds_per_evaluation);
    expect(plan.estimated_seconds).toBeCloseTo(
      3 * plan.seconds_per_update + 3 * plan.seconds_per_evaluation + plan.seconds_of_reference,
      9,
    );
    const plain = await planOf("--model", llama);
    expect([plain.evaluations, plain.seconds_of_reference]).toEqual([0, 0]);
    expect(plain.estimated_seconds).toBeCloseTo(3 * plain.seconds_per_update, 9);
    const words = ["--model", llama, ...evaluated, "--precompute_ref_log_probs", "--dry_run"];
    const { stdout } = await kto("train", ...data, ...words, "--output_dir", freshPath(folder, "planned"));
    expect(stdout).toMatch(/: 3 updates 0:\d\d, 3 evaluations 0:\d\d, the reference's log-probs before them 0:\d\d; /);
  });

  test.each<[string, string[], string[]]>([
    ["all weights", [], ["model.safetensors", "optimizer.safetensors"]],
    ["an adapter", lora, ["adapter_model.safetensors", "optimizer.safetensors"]],
    ["some of the weights", ["--freeze_parameters", "embed_tokens"], ["model.safetensors", "optimizer.safetensors"]],
    ["the model alone", ["--save_only_model"], ["model.safetensors"]],
  ])("tells the disk space that checkpoints take: %s", async (_, options, files) => {
    const words = ["--model", llama, "--save_steps", "1", ...options];
    const plan = await planOf(...words);
    const output = freshPath(folder, "run");
    const { code, stderr } = await kto("train", ...data, ...words, "--output_dir", output);
    expect(code, stderr).toBe(0);
    const sizes = files.map((name) => {
      const bytes = readFileSync(join(output, "checkpoint-3", name));
      return bytes.length - 8 - Number(bytes.readBigUInt64LE());
    });
    const more = sizes.reduce((sum, size) => sum + size) - plan.checkpoint_bytes;
    expect(more).toBeGreaterThanOrEqual(0);
    expect(more).toBeLessThan(200); // the optimizer's small state and sums of metrics
    expect(plan.most_checkpoints).toBe(3);
    expect((await planOf(...words, "--save_total_limit", "1")).most_checkpoints).toBe(2);
    expect((await planOf(...words, "--save_strategy", "no")).most_checkpoints).toBe(0);
    const text = await kto("train", ...data, ...words, "--output_dir", freshPath(folder, "planned"), "--dry_run");
    expect(text.stdout).toMatch(/\na checkpoint takes about \d+\.\d MiB on the disk; at most 3 at once, \d+\.\d MiB\n/);
  });

  test("of a run that is resumed what is left counts", async () => {
    const output = freshPath(folder, "run");
    const words = ["--model", llama, "--validation_split", "0.4", "--eval_steps", "1", "--save_steps", "1"];
    expect((await kto("train", ...data, ...words, "--output_dir", output)).code).toBe(0);
    const resumed = [
      ...data,
      ...words,
      "--output_dir",
      output,
      "--resume_from_checkpoint",
      join(output, "checkpoint-2"),
    ];
    const { code, stdout, stderr } = await kto("train", ...resumed, "--dry_run", "--json");
    expect(code, stderr).toBe(0);
    const plan = JSON.parse(stdout) as Plan;
    expect(plan).toMatchObject({ steps: 3, steps_left: 1, evaluations: 1 });
    expect(plan.estimated_seconds).toBeCloseTo(plan.seconds_per_update + plan.seconds_per_evaluation, 9);
    expect((await kto("train", ...resumed, "--dry_run")).stdout).toMatch(
      /: 1 update left 0:\d\d, 1 evaluation 0:\d\d; /,
    );
  });

  test("of a run that its evaluations stopped nothing is left, unless it has more patience now", async () => {
    const output = freshPath(folder, "run");
    const words = ["--model", llama, "--validation_split", "0.4", "--eval_steps", "1", "--output_dir", output];
    const resumed = [...words, "--early_stopping_threshold", "9"];
    const [hasty, patient] = ["1", "2"].map((times) => [...data, ...resumed, "--early_stopping_patience", times]);
    expect((await kto("train", ...(hasty ?? []))).stderr).toContain("stopped at step 2");
    for (const [run, left] of [
      [hasty, 0],
      [patient, 1],
    ] as const) {
      const { stdout, stderr } = await kto("train", ...(run ?? []), "--resume_from_checkpoint", "--dry_run", "--json");
      expect(JSON.parse(stdout), stderr).toMatchObject({ steps_left: left, evaluations: left });
    }
  });

  test("a run that turns out not to fit is refused after its plan was told", async () => {
    const device = await sharedDevice();
    const refused = vi.spyOn(KtoTrainer, "time").mockImplementation(async () => {
      throw new AdapterError("The adapter ran out of memory.");
    });
    const words = ["--model", llama, "--output_dir", freshPath(folder, "planned"), "--dry_run"];
    const [text, json] = [await kto("train", ...data, ...words), await kto("train", ...data, ...words, "--json")];
    refused.mockRestore();
    for (const { code, stderr } of [text, json]) {
      expect(code).toBe(5);
      expect(stderr).toContain("error: The adapter ran out of memory.");
    }
    expect(text.stdout).toContain("device, in all");
    expect(JSON.parse(json.stdout)).toMatchObject({ dry_run: true, max_buffer_size: device.limits.maxBufferSize });
    expect(JSON.parse(json.stdout)).not.toHaveProperty("estimated_seconds");
  });

  test("nothing is written, and what could not be is told all the same", async () => {
    const place = freshPath(folder, "place");
    mkdirSync(place);
    writeFileSync(join(place, "file"), "");
    const words = ["--model", stories, "--dry_run", "--output_dir"];
    const judge = ["validation_split=0.4", "eval_samples=1", "judge_model=m", "judge_base_url=http://localhost:1/v1"];
    const transcripts = `judge_transcripts=${join(place, "logs", "judge.jsonl")}`;
    const { code, stderr } = await kto("train", ...data, ...words, join(place, "runs", "one"), ...judge, transcripts);
    expect(code, stderr).toBe(0);
    expect(readdirSync(place)).toEqual(["file"]);
    const refused = await kto("train", ...data, ...words, join(place, "file", "one"));
    expect(refused.code).toBe(7);
    expect(refused.stderr).toContain(`Cannot write to the folder ${join(place, "file")}`);
  });

  test("what an earlier run left in the folder stays as it is", async () => {
    const output = freshPath(folder, "earlier");
    mkdirSync(output);
    writeFileSync(join(output, "metrics.jsonl"), "kept");
    const words = ["--model", llama, "--output_dir", output, "--dry_run"];
    expect((await kto("train", ...data, ...words)).code).toBe(0);
    writeFileSync(join(output, "model.safetensors"), "kept");
    const refused = await kto("train", ...data, ...words);
    expect([refused.code, refused.stdout]).toEqual([2, ""]);
    expect(refused.stderr).toMatch(/output_dir ".*" is not empty \(it holds model\.safetensors\)/);
    expect((await kto("train", ...data, ...words, "--overwrite_output_dir")).code).toBe(0);
    expect(readdirSync(output).sort()).toEqual(["metrics.jsonl", "model.safetensors"]);
  });

  test("a parameter that no buffer of the adapter can hold is named before anything is loaded", async () => {
    await withLimits({ maxBufferSize: 8192 }, async () => {
      for (const more of [["--dry_run"], []]) {
        const output = freshPath(folder, "planned");
        const { code, stdout, stderr } = await kto("train", ...data, "--model", llama, "--output_dir", output, ...more);
        expect(code).toBe(5);
        if (more.length === 0) expect(stdout).toBe("");
        else expect(stdout).toMatch(/\nit does not fit: "weights" needs 15360 bytes in one buffer .*\n/);
        expect(stderr).toMatch(
          /error: "weights" needs 15360 bytes in one buffer and the adapter ".+" allows 8192; use a smaller batch or a smaller model\.\n$/,
        );
        expect(existsSync(output)).toBe(false);
      }
    });
  });
});

describe("kto doctor --model", () => {
  const silent = { json: false, log_level: "error" } as const;
  const words = (training: string) =>
    training === "full" ? [] : training === "LoRA" ? ["--use_peft"] : ["--use_peft", "--load_in_4bit"];

  test("plans the runs that kto train plans, to the byte", async () => {
    // Four rows of each kind, of 512 tokens of which half are the answer.
    const ids = Array.from({ length: 256 }, (_, i) => 1 + (i % 400));
    const rows = Array.from({ length: 8 }, (_, i) => ({ prompt_ids: ids, completion_ids: ids, label: i % 2 === 0 }));
    const file = fileIn(folder, "rows.jsonl", jsonl(rows));
    const { code, stdout, stderr } = await kto("doctor", "--model", stories, "--json");
    expect(code, stderr).toBe(0);
    const { model } = JSON.parse(stdout) as { model: PossibleRuns };
    expect(model).toMatchObject({ model_name_or_path: stories, parameters: 260032, context_length: 512 });
    expect(model.runs.map(({ training, row_tokens, fits }) => [training, row_tokens, fits])).toEqual(
      ["full", "full", "LoRA", "LoRA", "QLoRA", "QLoRA"].map((training) => [training, 512, true]),
    );
    // What takes time is not compared.
    const timed = vi.spyOn(KtoTrainer, "time").mockRejectedValue(new AdapterError("not timed"));
    for (const run of model.runs) {
      const plan = await kto(
        ...["train", "--model_name_or_path", stories, "--dataset_name", file, "--output_dir", join(folder, "no")],
        ...["--per_device_train_batch_size", `${run.per_device_train_batch_size}`, "--max_length", "512"],
        ...["--gradient_accumulation_steps", `${run.gradient_accumulation_steps}`, "--num_train_epochs", "3"],
        ...["--dry_run", "--json", ...words(run.training)],
      );
      expect(run.device_bytes).toBe((JSON.parse(plan.stdout) as Plan).device_bytes);
    }
    timed.mockRestore();
    const text = (await kto("doctor", "--model", stories)).stdout;
    expect(text).toMatch(/^ {2}QLoRA {2,}512 tokens {2}[\d.]+ MiB, fits {2,}[\d.]+ MiB, fits$/m);
    expect(text).toContain("Longer rows than 512 tokens the model cannot read.");
  });

  test("plans rows of its whole context for a model that can read no longer ones", async () => {
    const short = `${fixtures}/lfm2/policy`;
    const { code, stdout, stderr } = await kto("doctor", "--model", short, "--json");
    expect(code, stderr).toBe(0);
    const { model } = JSON.parse(stdout) as { model: PossibleRuns };
    expect(model.context_length).toBe(256);
    expect(model.runs.map(({ row_tokens, fits }) => [row_tokens, fits])).toEqual(Array(6).fill([256, true]));
    expect((await kto("doctor", "--model", short)).stdout).toMatch(/^ {2}full {2,}256 tokens {2}[\d.]+ MiB, fits/m);
  });

  test("says what does not fit and why", async () => {
    const output = new Output({ stdout: new CapturedStream(), stderr: new CapturedStream() }, silent);
    await withLimits({ maxBufferSize: 2 ** 20 }, async (device) => {
      const headers = { folder: stories, files: platform };
      const { runs } = await possibleRuns(device, stories, headers, output);
      expect(runs[1]).toMatchObject({ training: "full", device_bytes: null, fits: false });
      expect(runs[1]?.reason).toMatch(/needs \d+ bytes in one buffer/);
    });
  });
});
