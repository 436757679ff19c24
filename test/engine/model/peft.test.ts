/** Adapters as PEFT keeps them: names, shapes and keys to the letter, round trips, merging, and what cannot be used. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../src/engine/files/safetensors.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import type { LoraOptions } from "../../../src/engine/model/lora-modules.ts";
import { mergeAdapter } from "../../../src/engine/model/merge.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadAdapter, saveAdapter } from "../../../src/engine/model/peft.ts";
import { readAdapterConfig } from "../../../src/engine/model/peft-config.ts";
import { ConfigError, FileError, ModelFormatError } from "../../../src/errors.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExamples } from "../../helpers/fixtures.ts";
import { freshPath, gpt2, llama, stories, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const device = await sharedDevice();
const folders = { llama, gpt2 };
const models = { llama: await Model.load(device, llama), gpt2: await Model.load(device, gpt2) };
afterAll(() => {
  models.llama.free();
  models.gpt2.free();
});

const options: LoraOptions = { rank: 4, alpha: 6, dropout: 0.05, rslora: false };

/** Saves a random adapter of a fixture's model; its folder and its numbers. */
async function savedAdapter(name: keyof typeof models, changes: Partial<LoraOptions> = {}) {
  const adapter = LoraAdapter.create(device, models[name].config, { ...options, ...changes });
  const whole = wholeArena(adapter.weights);
  device.upload(whole, normals(seeded(8), whole.shape[0] ?? 0, 0.2));
  const into = freshPath(folder, "adapter");
  await saveAdapter(models[name].withAdapter(adapter), into);
  const numbers = await Promise.all(
    [...adapter.weights.layout.parts()].map((part) => device.download(adapter.weights.at(part, part.shape))),
  );
  adapter.free();
  return { into, numbers };
}

/** The tensors of an adapter folder, name to shape. */
async function shapesOf(into: string): Promise<Record<string, readonly number[]>> {
  const file = await openSafetensors(join(into, "adapter_model.safetensors"));
  await file.close();
  expect(file.metadata).toEqual({ format: "pt" });
  expect([...file.tensors.values()].every(({ dtype }) => dtype === "F32")).toBe(true);
  return Object.fromEntries([...file.tensors].map(([name, { shape }]) => [name, shape]));
}

const configOf = (into: string) => JSON.parse(readFileSync(join(into, "adapter_config.json"), "utf8"));

/**
 * What PEFT 0.18.1 writes for get_peft_model(model, LoraConfig(r=4, lora_alpha=6, lora_dropout=0.05,
 * task_type="CAUSAL_LM")).
 */
const PEFT_CONFIG = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: resolve(llama),
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 6,
  lora_bias: false,
  lora_dropout: 0.05,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  peft_type: "LORA",
  peft_version: "0.18.1",
  qalora_group_size: 16,
  r: 4,
  rank_pattern: {},
  revision: null,
  target_modules: ["q_proj", "v_proj"],
  target_parameters: null,
  task_type: "CAUSAL_LM",
  trainable_token_indices: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
};

describe("an adapter written by us", () => {
  it("has PEFT's tensor names, shapes and keys: llama, default targets", async () => {
    const { into } = await savedAdapter("llama");
    const base = "base_model.model.model.layers";
    expect(await shapesOf(into)).toEqual({
      [`${base}.0.self_attn.q_proj.lora_A.weight`]: [4, 32],
      [`${base}.0.self_attn.q_proj.lora_B.weight`]: [32, 4],
      [`${base}.0.self_attn.v_proj.lora_A.weight`]: [4, 32],
      [`${base}.0.self_attn.v_proj.lora_B.weight`]: [16, 4],
      [`${base}.1.self_attn.q_proj.lora_A.weight`]: [4, 32],
      [`${base}.1.self_attn.q_proj.lora_B.weight`]: [32, 4],
      [`${base}.1.self_attn.v_proj.lora_A.weight`]: [4, 32],
      [`${base}.1.self_attn.v_proj.lora_B.weight`]: [16, 4],
    });
    expect(configOf(into)).toEqual(PEFT_CONFIG);
    expect(Object.keys(configOf(into))).toEqual(Object.keys(PEFT_CONFIG).sort());
    expect(readdirSync(into).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
  });

  it("has PEFT's tensor names, shapes and keys: gpt2, all-linear, whose Conv1D is fan_in_fan_out", async () => {
    const { into } = await savedAdapter("gpt2", { targetModules: "all-linear", rslora: true });
    const base = "base_model.model.transformer.h";
    expect(await shapesOf(into)).toEqual(
      Object.fromEntries(
        [0, 1].flatMap((layer) =>
          (
            [
              ["attn.c_attn", 32, 96],
              ["attn.c_proj", 32, 32],
              ["mlp.c_fc", 32, 128],
              ["mlp.c_proj", 128, 32],
            ] as const
          ).flatMap(([part, inputs, outputs]) => [
            [`${base}.${layer}.${part}.lora_A.weight`, [4, inputs]],
            [`${base}.${layer}.${part}.lora_B.weight`, [outputs, 4]],
          ]),
        ),
      ),
    );
    expect(configOf(into)).toEqual({
      ...PEFT_CONFIG,
      base_model_name_or_path: resolve(gpt2),
      fan_in_fan_out: true,
      target_modules: ["c_attn", "c_fc", "c_proj"],
      use_rslora: true,
    });
  });

  it("carries the base's tokenizer files, and no config.json, which would make it a whole model", async () => {
    const model = await Model.load(device, stories);
    const adapter = LoraAdapter.create(device, model.config, options);
    const into = freshPath(folder, "adapter");
    await saveAdapter(model.withAdapter(adapter), into, "some/hub-id");
    expect(readdirSync(into).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      ...readdirSync(stories).filter((name) => /token/.test(name)),
    ]);
    expect((await readAdapterConfig(into)).baseModel).toBe("some/hub-id");
    adapter.free();
    model.free();
  });

  it("of a model without one is refused, before anything is written", async () => {
    const into = freshPath(folder, "adapter");
    const error = await saveAdapter(models.llama, into).catch((thrown: unknown) => thrown);
    expect(error).toEqual(
      new ConfigError(`The model ${llama} has no adapter to save; write the whole model with save.`),
    );
    expect(existsSync(into)).toBe(false);
  });

  it("names a base that it finds from the working folder, or else from its own, and any other as it is written", async () => {
    const into = freshPath(folder, "adapter");
    mkdirSync(join(into, "base"), { recursive: true });
    mkdirSync(join(into, llama), { recursive: true });
    for (const [written, found] of [
      [llama, llama],
      ["./base", join(into, "base")],
      ["../adapter/base", join(into, "base")],
      [resolve(llama), resolve(llama)],
      ["some/hub-id", "some/hub-id"],
      ["./gone", "./gone"],
    ]) {
      const config = { ...PEFT_CONFIG, base_model_name_or_path: written };
      writeFileSync(join(into, "adapter_config.json"), JSON.stringify(config));
      expect((await readAdapterConfig(into)).baseModel).toBe(found);
    }
  });

  it("comes back bit by bit", async () => {
    const { into, numbers } = await savedAdapter("llama", { targetModules: "all-linear" });
    const adapter = await loadAdapter(models.llama, into);
    expect(adapter.options).toEqual({ ...options, targetModules: configOf(into).target_modules });
    const found = await Promise.all(
      [...adapter.weights.layout.parts()].map((part) => device.download(adapter.weights.at(part, part.shape))),
    );
    expect(found.map(bits)).toEqual(numbers.map(bits));
    adapter.free();
  });
});

describe("merging", () => {
  it.each<[keyof typeof models, LoraOptions["targetModules"], boolean]>([
    ["llama", "all-linear", false],
    ["llama", ["k_proj", "up_proj"], true],
    ["gpt2", "all-linear", false],
  ])("%s with %j gives base + adapter within 1e-5", async (name, targetModules, rslora) => {
    const { into } = await savedAdapter(name, { ...(targetModules ? { targetModules } : {}), rslora });
    const merged = freshPath(folder, "merged");
    await mergeAdapter(folders[name], into, merged);
    const adapter = await loadAdapter(models[name], into);
    const whole = await Model.load(device, merged);
    const examples = readExamples(name);
    const two = await completionLogProbs(models[name].withAdapter(adapter), examples);
    const one = await completionLogProbs(whole, examples);
    const base = await completionLogProbs(models[name], examples);
    one.forEach((value, i) => {
      expect(Math.abs(value - (two[i] ?? Number.NaN)) / Math.abs(value)).toBeLessThan(1e-5);
    });
    expect(Math.max(...one.map((value, i) => Math.abs(value - (base[i] ?? 0))))).toBeGreaterThan(0.1);
    // What is no target is as it was, byte for byte.
    const [before, after] = [
      await models[name].readTensors(models[name].weights),
      await whole.readTensors(whole.weights),
    ];
    const norms = (tensors: typeof before) =>
      tensors.filter((tensor) => tensor.shape.length === 1).map(({ name: own, data }) => [own, bits(data)]);
    expect(norms(after)).toEqual(norms(before));
    adapter.free();
    whole.free();
  });

  it("writes the base's own numbers, or those asked for", async () => {
    const base = freshPath(folder, "base");
    await models.llama.save(base, { dtype: "bf16" });
    const { into } = await savedAdapter("llama");
    for (const [dtype, wanted] of [
      [undefined, "BF16"],
      ["f32", "F32"],
      ["f16", "F16"],
    ] as const) {
      const merged = freshPath(folder, "merged");
      await mergeAdapter(base, into, merged, dtype ? { dtype } : {});
      const file = await openSafetensors(join(merged, "model.safetensors"));
      await file.close();
      expect(new Set([...file.tensors.values()].map((entry) => entry.dtype))).toEqual(new Set([wanted]));
    }
  });
});

describe("an adapter that cannot be used", () => {
  /** A saved adapter whose configuration was changed. */
  async function changed(changes: Record<string, unknown>): Promise<string> {
    const { into } = await savedAdapter("llama");
    writeFileSync(join(into, "adapter_config.json"), JSON.stringify({ ...configOf(into), ...changes }));
    return into;
  }

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["another kind of adapter", { peft_type: "IA3" }, /adapter_config\.json: "peft_type" is "IA3", not "LORA"/],
    ["DoRA without magnitudes", { use_dora: true }, /lora_magnitude_vector" is missing/],
    ["another kind of biases", { bias: "some" }, /"bias" is "some", not "none" or "all" or "lora_only"/],
    [
      "a module that is saved whole, and is not there",
      { modules_to_save: ["lm_head"] },
      /"modules_to_save" names "lm_head", but the file has no tensor/,
    ],
    ["a rank by pattern that is none", { rank_pattern: { q_proj: 0 } }, /"rank_pattern" is \{"q_proj":0\}, not ranks/],
    [
      "an alpha by pattern that is none",
      { alpha_pattern: { q_proj: "8" } },
      /"alpha_pattern" is .*, not numbers above 0/,
    ],
    [
      "a pattern that is none",
      { rank_pattern: { "(q_proj": 2 } },
      /"rank_pattern" "\(q_proj" is no regular expression/,
    ],
    ["a layer that is no number", { layers_to_transform: ["0"] }, /"layers_to_transform" is \["0"\], not the number/],
    [
      "layers of a single text",
      { target_modules: ".*q_proj", layers_to_transform: [0] },
      /"layers_to_transform" goes with "target_modules" as a list/,
    ],
    ["a pattern for layers that are not there", { layers_pattern: "layers" }, /"layers_pattern" says where .* missing/],
    ["targets that are all excluded", { exclude_modules: ["q_proj", "v_proj"] }, /matches no layer that "exclude/],
    ["ranks that are not those of the tensors", { rank_pattern: { q_proj: 8 } }, /has shape \[4, 32\].*as \[8, 32\]/],
    ["layers that are not those of the tensors", { layers_to_transform: [0] }, /layers\.1.*json does not select/],
    [
      "a start that changes the base",
      { init_lora_weights: "pissa" },
      /"init_lora_weights" is "pissa", which changed the base/,
    ],
    ["a rank that is none", { r: 0 }, /"r" is 0, not a whole number/],
    ["an alpha that is none", { lora_alpha: "32" }, /"lora_alpha" is "32", not a number/],
    ["a dropout of 1", { lora_dropout: 1 }, /"lora_dropout" is 1/],
    ["no targets", { target_modules: null }, /"target_modules" is null, not a list/],
    [
      "targets that the base lacks",
      { target_modules: ["c_attn"] },
      /does not fit the base model: "target_modules" \["c_attn"\] matches no layer/,
    ],
    [
      "another rank than its tensors",
      { r: 8 },
      /has shape \[4, 32\], but the base model wants it as \[8, 32\].*another base/,
    ],
    [
      "fewer targets than tensors",
      { target_modules: ["q_proj"] },
      /v_proj\.lora_A\.weight" belongs to a layer that adapter_config\.json does not select/,
    ],
    [
      "more targets than tensors",
      { target_modules: ["q_proj", "v_proj", "o_proj"] },
      /o_proj\.lora_A\.weight" is missing/,
    ],
  ])("%s is refused by name", async (_, changes, message) => {
    const loading = loadAdapter(models.llama, await changed(changes));
    await expect(loading).rejects.toThrow(ModelFormatError);
    await expect(loading).rejects.toThrow(message);
  });

  it("an adapter for another base is refused, and nothing is left on the device", async () => {
    const { into } = await savedAdapter("llama");
    const before = device.totalBytes;
    await expect(loadAdapter(models.gpt2, into)).rejects.toThrow(
      /does not fit the base model: "target_modules" \["q_proj","v_proj"\] matches no layer/,
    );
    const other = await Model.load(device, stories);
    await expect(loadAdapter(other, into)).rejects.toThrow(
      /wants it as \[4, 64\]; the adapter was made for another base/,
    );
    other.free();
    await expect(mergeAdapter(stories, into, freshPath(folder, "merged"))).rejects.toThrow(/another base/);
    expect(device.totalBytes).toBe(before);
  });

  it("a folder without its files, and a file without numbers", async () => {
    const empty = freshPath(folder, "empty");
    mkdirSync(empty);
    await expect(loadAdapter(models.llama, empty)).rejects.toThrow(FileError);
    const { into } = await savedAdapter("llama");
    writeFileSync(join(empty, "adapter_config.json"), readFileSync(join(into, "adapter_config.json")));
    await expect(loadAdapter(models.llama, empty)).rejects.toThrow(/has no adapter_model\.safetensors/);
    writeFileSync(join(into, "adapter_config.json"), "{");
    await expect(loadAdapter(models.llama, into)).rejects.toThrow(/adapter_config\.json is not valid JSON/);
    const damaged = (await savedAdapter("llama")).into;
    const path = join(damaged, "adapter_model.safetensors");
    const file = await openSafetensors(path);
    const tensors = await Promise.all(
      [...file.tensors].map(async ([name, { shape }], index) => {
        const data = await file.readF32(name);
        if (index === 1) data[3] = Number.NaN;
        return { name, shape, data };
      }),
    );
    await file.close();
    await writeSafetensors(path, tensors);
    await expect(loadAdapter(models.llama, damaged)).rejects.toThrow(/q_proj\.lora_B\.weight" holds NaN \(element 3\)/);
  });
});
