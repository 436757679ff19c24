/**
 * The tiny models and the microbatch of test/fixtures, on the shared device and in float64, and what PyTorch computed
 * for them. Each call loads a model of its own, since training changes it; free it.
 */
import { readFileSync } from "node:fs";
import type { Device } from "../../src/engine/gpu/device.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import { Model } from "../../src/engine/model/model.ts";
import type { BatchExample } from "../../src/kto/method/batch.ts";
import { readFloat64Safetensors } from "./float64-safetensors.ts";

export const FIXTURES = ["gpt2", "llama", "qwen2", "qwen3"] as const;

/** Fixtures of families whose parts differ from those: every switch of the decoder. */
export const FAMILY_FIXTURES = [
  ...["granite", "olmo2", "olmo3", "olmo3-yarn", "gemma2", "gemma3", "gemma3-linear"],
  ...["phi3", "phi3-longrope", "qwen3-yarn", "ministral3", "lfm2", "qwen3_5"],
] as const;

/** Fixtures with heads as large as those of real models, which other attention kernels serve. */
export const HEAD_FIXTURES = ["head64", "head128", "head256", "long64"] as const;

export type FixtureName = (typeof FIXTURES | typeof HEAD_FIXTURES | typeof FAMILY_FIXTURES)[number];

/** expected.json of a fixture. */
export interface Expected {
  hyperparameters: { beta: number; desirable_weight: number; undesirable_weight: number };
  loss: number;
  kl: number;
  kl_unclamped: number;
  policy_logps: number[];
  reference_logps: number[];
  kl_policy_logps: number[];
  kl_reference_logps: number[];
  log_ratio: number[];
  kl_log_ratio: number[];
  value: number[];
  gradient_norm: number;
  adamw: {
    learning_rate: number;
    adam_beta1: number;
    adam_beta2: number;
    adam_epsilon: number;
    weight_decay: number;
    max_grad_norm: number;
    steps: { loss: number; kl: number; grad_norm: number; log_ratio: number[] }[];
  };
}

const root = "test/fixtures";

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}

export function readExpected(name: FixtureName): Expected {
  return readJson(`${root}/${name}/expected.json`);
}

export function readExpectedGradients(name: FixtureName): ReturnType<typeof readFloat64Safetensors> {
  return readFloat64Safetensors(`${root}/${name}/expected-grads.safetensors`);
}

/** The fixture's microbatch, in file order. */
export function readExamples(name: FixtureName): BatchExample[] {
  return readFileSync(`${root}/${name}/data.jsonl`, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { prompt_ids: number[]; completion_ids: number[]; label: boolean })
    .map((row) => ({ promptIds: row.prompt_ids, completionIds: row.completion_ids, label: row.label }));
}

export type Role = "policy" | "reference";

/** The folder of a fixture's model. */
export function fixtureFolder(name: FixtureName, role: Role): string {
  return `${root}/${name}/${role}`;
}

/** A fixture's model on the device. */
export function loadModel(device: Device, name: FixtureName, role: Role): Promise<Model> {
  return Model.load(device, fixtureFolder(name, role));
}

/** A fixture's weights in float64. */
export function float64Weights(name: FixtureName, role: Role) {
  const folder = fixtureFolder(name, role);
  const config = parseModelConfig(readFileSync(`${folder}/config.json`, "utf8"), folder);
  return { config, weights: readFloat64Safetensors(`${folder}/model.safetensors`) };
}

/** A fixture's model in float64. */
export function float64Fixture(name: FixtureName, role: Role): Float64Model {
  const { config, weights } = float64Weights(name, role);
  return new Float64Model(config, weights);
}

/** A model's present weights in float64. */
export async function float64Of(model: Model): Promise<Float64Model> {
  const tensors = await model.readTensors(model.weights);
  return new Float64Model(
    model.config,
    new Map(tensors.map(({ name, shape, data }) => [name, { shape, data: Float64Array.from(data) }])),
  );
}

/** The likeliest continuation in float64; the whole sequence is computed for every token. */
export function exactGreedy(model: Float64Model, prompt: number[], count: number, vocabSize: number): number[] {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const last = model.logits(ids).subarray(-vocabSize);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

/** |actual - expected| / |expected|, both as vectors. */
export function relativeDistance(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += ((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN)) ** 2;
    size += (expected[i] ?? Number.NaN) ** 2;
  }
  return Math.sqrt(difference / size);
}
