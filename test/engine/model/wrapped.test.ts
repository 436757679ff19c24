/**
 * Checkpoints of text and images: the text model is read out of them under both of their namings, written as a model of
 * its own, and its adapters are named as PEFT names those of the whole.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../src/engine/files/safetensors.ts";
import { parseModelConfig } from "../../../src/engine/model/config/config.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { mergeAdapter } from "../../../src/engine/model/merge.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadAdapter, saveAdapter } from "../../../src/engine/model/peft.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { type FixtureName, fixtureFolder } from "../../helpers/fixtures.ts";
import { copyOfModel, freshPath, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const device = await sharedDevice();

/** What stands before the names of the text model's tensors, and its head's. */
const NAMINGS = {
  today: { prefix: "model.language_model.", head: "lm_head.weight", others: ["model.vision_tower.patch"] },
  "most files": {
    ...{ prefix: "language_model.model.", head: "language_model.lm_head.weight" },
    others: ["vision_tower.patch"],
  },
  // Beside the images, layers that foretell several tokens.
  "Qwen3.5": {
    ...{ prefix: "model.language_model.", head: "lm_head.weight" },
    others: ["model.visual.patch_embed.proj", "mtp.layers.0.self_attn.q_proj", "mtp.norm"],
  },
} as const;

/** A fixture's model as the text part of a wrapped one, with tensors of other parts beside it. */
async function wrapped(
  name: FixtureName,
  type: string,
  { prefix, head, others }: (typeof NAMINGS)[keyof typeof NAMINGS],
): Promise<string> {
  const copy = copyOfModel(folder, fixtureFolder(name, "policy"));
  const { eos_token_id, ...text } = JSON.parse(readFileSync(join(copy, "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  const outer = { model_type: type, eos_token_id, vision_config: { hidden_size: 8 }, text_config: text };
  // As Python writes it: a whole number of type float, which JSON.stringify would shorten.
  const written = JSON.stringify(outer, null, 2).replace('"rope_theta": 10000,', '"rope_theta": 10000.0,');
  writeFileSync(join(copy, "config.json"), written);
  const path = join(copy, "model.safetensors");
  const file = await openSafetensors(path);
  const tensors = await Promise.all(
    [...file.tensors].map(async ([tensor, { shape }]) => {
      const values = await file.readF32(tensor);
      const renamed = tensor === "lm_head.weight" ? head : tensor.replace(/^model\./, prefix);
      return {
        name: renamed,
        shape,
        data: async function* () {
          yield values;
        },
      };
    }),
  );
  await file.close();
  const beside = others.map((part) => ({
    name: `${part}.weight`,
    shape: [2],
    data: async function* () {
      yield Float32Array.of(1, 2);
    },
  }));
  await writeSafetensors(path, [...tensors, ...beside], { format: "pt" });
  return copy;
}

async function tensorsOf(model: string): Promise<Map<string, unknown>> {
  const file = await openSafetensors(join(model, "model.safetensors"));
  const entries = [...file.tensors.keys()].map(async (name) => [name, bits(await file.readF32(name))] as const);
  const tensors = new Map(await Promise.all(entries));
  await file.close();
  return tensors;
}

const CASES = [
  ["gemma3", "gemma3", "today"],
  ["gemma3", "gemma3", "most files"],
  ["ministral3", "mistral3", "most files"],
  ["qwen3_5", "qwen3_5", "Qwen3.5"],
] as const;

describe.each(CASES)("%s in %s, named as in %s", (name, type, naming) => {
  let model: Model;
  let source: string;
  afterAll(() => model.free());

  it("is loaded without the images and written as the text model alone", async () => {
    source = await wrapped(name, type, NAMINGS[naming]);
    model = await Model.load(device, source);
    const plain = fixtureFolder(name, "policy");
    const read = (path: string) => parseModelConfig(readFileSync(join(path, "config.json"), "utf8"), path);
    expect(model.config).toEqual({ ...read(plain), wrapper: type });
    const into = freshPath(folder, "text");
    await model.save(into);
    expect(await tensorsOf(into)).toEqual(await tensorsOf(plain));
    expect(read(into)).toEqual(read(plain));
    const written = JSON.parse(readFileSync(join(into, "config.json"), "utf8")) as Record<string, unknown>;
    expect(written).toEqual(JSON.parse(readFileSync(join(plain, "config.json"), "utf8")));
  });

  it("has adapters under PEFT's names for the whole, read under both namings, merged into the text model", async () => {
    // The last layer has attention in every fixture; Qwen3.5's others mix by a DeltaNet.
    const last = model.config.layers - 1;
    const targetModules = ["q_proj", "mlp.up_proj", ...(model.config.deltaNet ? ["in_proj_qkv"] : [])];
    const options = { rank: 2, alpha: 4, dropout: 0, rslora: false, targetModules };
    const adapter = LoraAdapter.create(device, model.config, options);
    adapter.initialize(1);
    const into = freshPath(folder, "adapter");
    await saveAdapter(model.withAdapter(adapter), into);
    const path = join(into, "adapter_model.safetensors");
    const file = await openSafetensors(path);
    const names = [...file.tensors.keys()];
    const layers = "base_model.model.model.language_model.layers";
    expect(names).toContain(`${layers}.${last}.self_attn.q_proj.lora_A.weight`);
    if (model.config.deltaNet) expect(names).toContain(`${layers}.0.linear_attn.in_proj_qkv.lora_B.weight`);
    expect(names.every((one) => one.startsWith("base_model.model.model.language_model.layers."))).toBe(true);
    // PEFT compares a pattern with whole names; the image tower has layers of the same last name.
    const config = JSON.parse(readFileSync(join(into, "adapter_config.json"), "utf8")) as { target_modules: string };
    const selects = (text: string) => new RegExp(`^(?:${config.target_modules})$`).test(text);
    expect(selects(`model.language_model.layers.${last}.self_attn.q_proj`)).toBe(true);
    expect(selects("model.language_model.layers.1.mlp.up_proj")).toBe(true);
    expect(selects("model.vision_tower.encoder.layers.0.self_attn.q_proj")).toBe(false);
    expect(selects("mtp.layers.0.self_attn.q_proj")).toBe(false);
    expect(selects(`model.language_model.layers.${last}.self_attn.k_proj`)).toBe(false);
    const again = await loadAdapter(model, into);
    const numbers = async (of: LoraAdapter) =>
      bits(await device.download(of.weights.window(`${of.modules[0]?.name}.lora_A`)));
    expect(await numbers(again)).toEqual(await numbers(adapter));
    again.free();

    const old = await Promise.all(
      names.map(async (one) => {
        const values = await file.readF32(one);
        const { shape = [] } = file.tensors.get(one) ?? {};
        const renamed = one.replace("model.model.language_model.", "model.language_model.model.");
        return {
          name: renamed,
          shape,
          data: async function* () {
            yield values;
          },
        };
      }),
    );
    await file.close();
    await writeSafetensors(path, old, { format: "pt" });
    const older = await loadAdapter(model, into);
    expect(await numbers(older)).toEqual(await numbers(adapter));
    older.free();
    adapter.free();
    // B is zero: the merged model is the text model.
    const merged = freshPath(folder, "merged");
    await mergeAdapter(source, into, merged);
    expect(await tensorsOf(merged)).toEqual(await tensorsOf(fixtureFolder(name, "policy")));
  });
});
