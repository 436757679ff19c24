/**
 * An adapter that Python's safetensors wrote under PEFT's names, with all that one can hold beside A and B, against the
 * weights that numpy made of it in float64 (scripts/peft-adapter.py).
 */
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../src/engine/files/safetensors.ts";
import { Float64Model } from "../../../src/engine/model/float64/decoder.ts";
import { mergeAdapter } from "../../../src/engine/model/merge.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadAdapter } from "../../../src/engine/model/peft.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, expectWithin } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { float64Weights, readExamples } from "../../helpers/fixtures.ts";
import { fixtures, freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const device = await sharedDevice();
const model = await Model.load(device, llama);
afterAll(() => model.free());
const examples = readExamples("llama");
const written = join(fixtures, "peft", "dora");

async function tensorsOf(path: string) {
  const file = await openSafetensors(path);
  const read = async ([name, { shape }]: readonly [string, { readonly shape: readonly number[] }]) => {
    return { name, shape, data: await file.readF32(name) };
  };
  const tensors = await Promise.all([...file.tensors].map(read));
  await file.close();
  return tensors;
}

const merged = await tensorsOf(join(written, "merged.safetensors"));

it("has the log-probabilities of the weights that its formulas give, alone and merged", async () => {
  const { config, weights } = float64Weights("llama", "policy");
  for (const { name, data } of merged) weights.get(name)?.data.set(data);
  const exact = new Float64Model(config, weights);
  const wanted = examples.map((row) => exact.logProb(row.promptIds, row.completionIds));
  const adapter = await loadAdapter(model, written);
  expectWithin("adapter", await completionLogProbs(model.withAdapter(adapter), examples), wanted, () => 1e-4);
  adapter.free();
  const base = await completionLogProbs(model, examples);
  expect(Math.max(...wanted.map((value, i) => Math.abs(value - (base[i] ?? 0))))).toBeGreaterThan(0.1);

  const whole = freshPath(folder, "merged");
  await mergeAdapter(llama, written, whole);
  const ours = new Map((await tensorsOf(join(whole, "model.safetensors"))).map(({ name, data }) => [name, data]));
  for (const { name, data } of merged) expectWithin(name, [...(ours.get(name) ?? [])], [...data], () => 1e-6);
});

it("is the same under the names that PyTorch's state dict and other versions of PEFT have", async () => {
  const numbers = async (path: string) => {
    const adapter = await loadAdapter(model, path);
    const whole = await device.download(wholeArena(adapter.weights));
    adapter.free();
    return bits(whole);
  };
  const wanted = await numbers(written);
  const tensors = await tensorsOf(join(written, "adapter_model.safetensors"));
  const spellings: readonly ((name: string) => string)[] = [
    (name) => name.replace(/lora_magnitude_vector$/, "lora_magnitude_vector.weight"),
    (name) =>
      name
        .replace(/lora_magnitude_vector$/, "lora_magnitude_vector.default.weight")
        .replace(/(lora_[AB])\.weight$/, "$1.default.weight")
        .replace(/(lora_embedding_[AB])$/, "$1.default")
        .replace(/lm_head\.weight$/, "lm_head.modules_to_save.default.weight"),
  ];
  for (const spelling of spellings) {
    const path = freshPath(folder, "adapter");
    mkdirSync(path);
    cpSync(join(written, "adapter_config.json"), join(path, "adapter_config.json"));
    const renamed = tensors.map((tensor) => ({ ...tensor, name: spelling(tensor.name) }));
    expect(renamed.some(({ name }, i) => name !== tensors[i]?.name)).toBe(true);
    await writeSafetensors(join(path, "adapter_model.safetensors"), renamed, { format: "pt" });
    expect(await numbers(path)).toEqual(wanted);
  }
});
