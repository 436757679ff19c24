/**
 * `kto merge`: its options, what it prints and writes, and what it refuses. What a merged model computes: peft.test.ts.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { saveAdapter } from "../../../src/engine/model/peft.ts";
import { openWeights } from "../../../src/engine/model/weights/weight-files.ts";
import { quantized } from "../../../src/engine/quantized-formats.ts";
import { dequantized } from "../../../src/kernels/float64/stored.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { expectWithin, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { copyOfModel, freshPath, gpt2, llama, stories, temporaryFolder, withConfig } from "../../helpers/folders.ts";
import { kto } from "../../helpers/streams.ts";

const folder = temporaryFolder();
/** Adapters of random numbers over the llama fixture and over the bundled model, which has a tokenizer. */
let adapter: string;
let storyAdapter: string;
let inBf16: string;

async function adapterOf(model: Model): Promise<string> {
  const lora = LoraAdapter.create(model.device, model.config, { rank: 2, alpha: 4, dropout: 0, rslora: false });
  const whole = wholeArena(lora.weights);
  model.device.upload(whole, normals(seeded(3), whole.shape[0] ?? 0, 0.1));
  const into = freshPath(folder, "adapter");
  await saveAdapter(model.withAdapter(lora), into);
  lora.free();
  return into;
}

beforeAll(async () => {
  const device = await sharedDevice();
  const [model, story] = [await Model.load(device, llama), await Model.load(device, stories)];
  [adapter, storyAdapter] = [await adapterOf(model), await adapterOf(story)];
  inBf16 = freshPath(folder, "bf16");
  await model.save(inBf16, { dtype: "bf16" });
  model.free();
  story.free();
});

/** Merges; the folder written and what was printed. */
async function merged(...words: string[]): Promise<{ into: string; stdout: string }> {
  const into = freshPath(folder, "merged");
  const { code, stdout, stderr } = await kto("merge", ...words, "--output_dir", into);
  expect(code, stderr).toBe(0);
  expect(stderr).toBe("");
  return { into, stdout };
}

/** Values and dtypes of every tensor of a folder. */
async function tensorsOf(model: string): Promise<Map<string, { dtype: string; values: Float32Array }>> {
  const files = await openWeights(model);
  const tensors = new Map<string, { dtype: string; values: Float32Array }>();
  for (const [name, { dtype, file }] of files.tensors) tensors.set(name, { dtype, values: await file.readF32(name) });
  await files.close();
  return tensors;
}

const dtypesOf = async (model: string) => [
  ...new Set([...(await tensorsOf(model)).values()].map(({ dtype }) => dtype)),
];
const torchDtype = (model: string) => JSON.parse(readFileSync(join(model, "config.json"), "utf8")).torch_dtype;

describe("kto merge", () => {
  test("finds the base by the adapter, says what it did, and opens no GPU", async () => {
    const open = vi.spyOn(Device, "open");
    const { into, stdout } = await merged("--adapter_name_or_path", adapter);
    expect(open).not.toHaveBeenCalled();
    open.mockRestore();
    expect(stdout).toBe(`merged ${adapter} into ${resolve(llama)}; the model is in ${into}\n`);
    expect(readdirSync(into).sort()).toEqual(["README.md", "config.json", "model.safetensors"]);
    expect(readFileSync(join(into, "config.json"))).toEqual(readFileSync(join(llama, "config.json")));
  });

  test("what shows how the adapter was trained goes along", async () => {
    const trained = copyOfModel(folder, adapter);
    writeFileSync(join(trained, "trainer_state.json"), '{"log_history": [], "global_step": 3}');
    const { into } = await merged("--adapter_name_or_path", trained);
    expect(readFileSync(join(into, "trainer_state.json"), "utf8")).toBe('{"log_history": [], "global_step": 3}');
  });

  test("takes another base and writes its dtype or the one asked for; --json is one object", async () => {
    const words = ["--adapter_name_or_path", adapter, "--model", inBf16, "--json"];
    const { into, stdout } = await merged(...words);
    expect(stdout).toBe(`${JSON.stringify({ output_dir: into, base_model: inBf16, adapter })}\n`);
    expect([await dtypesOf(into), torchDtype(into)]).toEqual([["BF16"], "bfloat16"]);
    const f32 = await merged(...words, "--save_dtype", "float32");
    expect([await dtypesOf(f32.into), torchDtype(f32.into)]).toEqual([["F32"], "float32"]);
    const f16 = await merged(...words, "--save_dtype", "float16");
    expect([await dtypesOf(f16.into), torchDtype(f16.into)]).toEqual([["F16"], "float16"]);
  });

  test("over a base in 4 bits writes the numbers that its codes stand for, in bf16, and says so", async () => {
    const words = ["--adapter_name_or_path", adapter, "--model", llama, "--load_in_4bit"];
    const into = freshPath(folder, "merged");
    const { code, stderr } = await kto("merge", ...words, "--output_dir", into);
    expect(code, stderr).toBe(0);
    expect(stderr).toBe(
      `warning: The base ${llama} is quantised: the merged model is written as bfloat16, from the numbers that its codes stand for.\n`,
    );
    expect([await dtypesOf(into), torchDtype(into)]).toEqual([["BF16"], "bfloat16"]);
    const exact = freshPath(folder, "merged");
    expect((await kto("merge", ...words, "--save_dtype", "float32", "--output_dir", exact)).code).toBe(0);
    const [found, plain, base] = await Promise.all(
      [exact, (await merged("--adapter_name_or_path", adapter)).into, llama].map(tensorsOf),
    );
    for (const [name, { values }] of found ?? []) {
      const own = base?.get(name)?.values ?? new Float32Array(0);
      const { codes, scales } = quantized("nf4", own);
      const stands = /_proj\.weight$/.test(name) ? dequantized("nf4", codes, scales, own.length) : own;
      const delta = plain?.get(name)?.values.map((value, i) => value - (own[i] ?? Number.NaN));
      const wanted = stands.map((value, i) => value + (delta?.[i] ?? Number.NaN));
      expectWithin(name, values, wanted, () => 1e-6);
    }
  });

  test("splits into shards of the size asked for, of a base that may be in shards itself", async () => {
    const one = await merged("--adapter_name_or_path", adapter);
    const shards = await merged("--adapter_name_or_path", adapter, "--max_shard_size", "20KB");
    expect(existsSync(join(shards.into, "model.safetensors.index.json"))).toBe(true);
    expect(readdirSync(shards.into)).toContain("model-00002-of-00006.safetensors");
    expect(new Map([...(await tensorsOf(shards.into))].sort())).toEqual(
      new Map([...(await tensorsOf(one.into))].sort()),
    );
    const device = await sharedDevice();
    const base = freshPath(folder, "sharded");
    const model = await Model.load(device, llama);
    await model.save(base, { maxShardBytes: 20_000 });
    model.free();
    const again = await merged("--adapter_name_or_path", adapter, "--model", base);
    expect(await tensorsOf(again.into)).toEqual(await tensorsOf(one.into));
  });

  test("the tokenizer goes along, and a chat template that the adapter has goes before its base's", async () => {
    const base = copyOfModel(folder, stories);
    writeFileSync(join(base, "chat_template.jinja"), "the base's");
    const plain = await merged("--adapter_name_or_path", storyAdapter, "--model", base);
    expect(readFileSync(join(plain.into, "tokenizer.json"))).toEqual(readFileSync(join(stories, "tokenizer.json")));
    expect(readFileSync(join(plain.into, "chat_template.jinja"), "utf8")).toBe("the base's");
    const own = freshPath(folder, "adapter");
    cpSync(storyAdapter, own, { recursive: true });
    writeFileSync(join(own, "chat_template.jinja"), "the adapter's");
    const trained = await merged("--adapter_name_or_path", own, "--model", base);
    expect(readFileSync(join(trained.into, "chat_template.jinja"), "utf8")).toBe("the adapter's");
  });

  test("warns of a head that it ignores, since config.json ties it to the embedding", async () => {
    const base = withConfig(folder, llama, { tie_word_embeddings: true });
    const words = ["--adapter_name_or_path", adapter, "--model", base, "--output_dir", freshPath(folder, "merged")];
    const { code, stderr } = await kto("merge", ...words);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/^warning: .*"lm_head\.weight" differs.*is ignored/)]);
  });

  test("overwrites a folder only when told to", async () => {
    const { into } = await merged("--adapter_name_or_path", adapter, "--max_shard_size", "20KB");
    const words = ["merge", "--adapter_name_or_path", adapter, "--output_dir", into];
    const refused = await kto(...words);
    expect([refused.code, refused.stdout]).toEqual([2, ""]);
    expect(refused.stderr).toMatch(/^error: output_dir ".*" is not empty \(it holds README\.md, …\)/);
    expect((await kto(...words, "--overwrite_output_dir")).code).toBe(0);
    expect(readdirSync(into).sort()).toEqual(["README.md", "config.json", "model.safetensors"]);
  });
});

describe("kto merge refuses", () => {
  /** A copy of the adapter whose configuration has these keys changed. */
  function withKeys(changes: Readonly<Record<string, unknown>>): string {
    const copy = freshPath(folder, "adapter");
    cpSync(adapter, copy, { recursive: true });
    const path = join(copy, "adapter_config.json");
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
    return copy;
  }
  function withoutWeights(): string {
    const copy = withKeys({});
    rmSync(join(copy, "adapter_model.safetensors"));
    return copy;
  }
  function emptyFolder(): string {
    const path = freshPath(folder, "empty");
    mkdirSync(path);
    return path;
  }

  test.each<[string, () => string[], number, RegExp]>([
    ["no adapter", () => [], 2, /adapter_name_or_path/],
    [
      "an adapter that is not there",
      () => ["--adapter_name_or_path", "./no/where"],
      7,
      /"\.\/no\/where" does not exist/,
    ],
    [
      "a folder that is no adapter",
      () => ["--adapter_name_or_path", emptyFolder()],
      7,
      /has no adapter_config\.json; give a folder that PEFT or kto wrote/,
    ],
    [
      "an adapter that names no base",
      () => ["--adapter_name_or_path", withKeys({ base_model_name_or_path: null })],
      2,
      /does not say what its base model is; name it as model_name_or_path/,
    ],
    [
      "an adapter whose base has gone",
      () => ["--adapter_name_or_path", withKeys({ base_model_name_or_path: "./gone/away" })],
      7,
      /"\.\/gone\/away" does not exist/,
    ],
    [
      "an adapter without weights",
      () => ["--adapter_name_or_path", withoutWeights()],
      4,
      /has no adapter_model\.safetensors/,
    ],
    [
      "another base",
      () => ["--adapter_name_or_path", adapter, "--model", gpt2],
      4,
      /adapter_config\.json does not fit the base/,
    ],
    [
      "a base of other sizes",
      () => ["--adapter_name_or_path", adapter, "--model", stories],
      4,
      /the adapter was made for another base/,
    ],
    [
      "a dtype that is none",
      () => ["--adapter_name_or_path", adapter, "--save_dtype", "int8"],
      2,
      /"auto", "float32", "float16"/,
    ],
    [
      "a size that is none",
      () => ["--adapter_name_or_path", adapter, "--max_shard_size", "big"],
      2,
      /a size such as "5GB"/,
    ],
    ["an option of another command", () => ["--adapter_name_or_path", adapter, "--beta", "1"], 2, /beta/],
  ])("%s, in a sentence, and leaves nothing behind", async (_, words, code, sentence) => {
    const into = freshPath(folder, "merged");
    const result = await kto("merge", ...words(), "--output_dir", into);
    expect(result.stderr).toMatch(sentence);
    expect(result.stderr).toMatch(/^error: [^\n]+\.\n$/);
    expect(result.stderr).not.toMatch(/internal error|^ +at |node:|\.ts:/m);
    expect(result).toMatchObject({ code, stdout: "" });
    expect(existsSync(into) ? readdirSync(into) : []).toEqual([]);
  });

  test("no output folder", async () => {
    const { code, stderr } = await kto("merge", "--adapter_name_or_path", adapter);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/output_dir/)]);
  });
});

test("a disk that does not take its last line is a warning: the result is the folder", () => {
  const into = freshPath(folder, "merged");
  const command = `node bin/kto.js merge --adapter_name_or_path ${adapter} --output_dir ${into} --model ${llama} >/dev/full`;
  const { status, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
  expect([status, stderr]).toEqual([0, "warning: Cannot write to stdout: no space is left on the disk.\n"]);
  expect(existsSync(join(into, "model.safetensors"))).toBe(true);
});

test("model and adapter that are swapped are told of", async () => {
  const into = freshPath(folder, "swapped");
  const generated = await kto("generate", "--model", adapter, "--adapter_name_or_path", llama, "--prompt", "a");
  expect([generated.code, generated.stderr]).toEqual([2, expect.stringContaining("perhaps the two are swapped.")]);
  const { code, stderr } = await kto(
    "merge",
    "--model",
    adapter,
    "--adapter_name_or_path",
    llama,
    "--output_dir",
    into,
  );
  expect(code).toBeGreaterThan(0);
  expect(stderr).toContain(`"${llama}" is a whole model and no adapter: it has config.json and no adapter_config.json`);
  expect(existsSync(into)).toBe(false);
});
