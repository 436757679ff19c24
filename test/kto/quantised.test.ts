/**
 * Models whose matrices are quantised, on the adapter against float64 on the numbers that their bytes stand for: the
 * bounds are those of f32. What the bytes are: `test/engine/quantized-formats.test.ts`.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openSafetensors } from "../../src/engine/files/safetensors.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { byteLength, rowWindows, sliceRows, type Tensor } from "../../src/engine/gpu/tensor.ts";
import { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import { float64Weights } from "../../src/engine/model/float64/lora.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { recordMatmul } from "../../src/engine/model/matmul.ts";
import { type LoadOptions, Model } from "../../src/engine/model/model.ts";
import type { Quantization } from "../../src/engine/model/weights/quantization.ts";
import { fromF32 } from "../../src/engine/number-formats.ts";
import { nested, quantized } from "../../src/engine/quantized-formats.ts";
import { ConfigError } from "../../src/errors.ts";
import { QUANTIZED } from "../../src/kernels/kernel.ts";
import { NF4_TABLE } from "../../src/kernels/stored-nf4.ts";
import { checkGradients } from "../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../src/kto/method/log-probs.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits, expectWithin, normals, seeded } from "../helpers/compare.ts";
import { ALL_SHAPES, deviceVariants, sharedDevice } from "../helpers/device.ts";
import { quantisedErrors } from "../helpers/families.ts";
import { exactGreedy, type FixtureName, fixtureFolder, float64Of, readExamples } from "../helpers/fixtures.ts";
import { copyOfModel, freshPath, llama, stories, temporaryFolder } from "../helpers/folders.ts";
import { llamaConfig, randomModel } from "../helpers/models.ts";
import { type RawTensor, writeRawTensors } from "../helpers/raw-tensors.ts";
import { GRADIENT, LOG_PROB } from "../helpers/tolerances.ts";

const shared = await sharedDevice();
const folder = temporaryFolder();
const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" } as const;

/** A model with an adapter of random numbers beside every layer. */
function adapted(base: Model): Model {
  const options = { rank: 3, alpha: 4, dropout: 0, rslora: false, targetModules: "all-linear" } as const;
  const adapter = LoraAdapter.create(base.device, base.config, options);
  const whole = wholeArena(adapter.weights);
  base.device.upload(whole, normals(seeded(5), whole.shape[0] ?? 0, 0.1));
  return base.withAdapter(adapter);
}

// GPT-2 stores its matrices [in, out], the others [out, in]: their products are each other's backward passes.
const cases: readonly (readonly [string, FixtureName, Quantization])[] = [
  ["llama in 4 bits", "llama", { format: "nf4" }],
  ["gpt2 in 8 bits", "gpt2", { format: "int8" }],
];

// The texts without subgroups run in the tests of the kernels; compiling a whole model's takes 13 seconds.
const tried = (await deviceVariants())
  .filter(({ kind }) => kind === "native" || (ALL_SHAPES && kind === "core"))
  .map((variant, index) => ({ ...variant, models: index === 0 ? cases : cases.slice(0, 1) }));

describe.each(tried)("$variant", ({ open, models }) => {
  it.each(models)(
    "%s: log-probabilities and every gradient as in float64, the reference without the adapter",
    async (_, name, quantization) => {
      const { device, close } = await open();
      const base = await Model.load(device, fixtureFolder(name, "policy"), { quantization });
      const policy = adapted(base);
      try {
        expect(base.quantizedFormats).toEqual([quantization.format]);
        const examples = readExamples(name);
        const exact = new Float64Model(base.config, await float64Weights(policy));
        const wanted = examples.map(({ promptIds, completionIds }) => exact.logProb(promptIds, completionIds));
        expectWithin("policy", await completionLogProbs(policy, examples, 3), wanted, () => LOG_PROB);
        const check = await checkGradients({ policy, reference: policy.base, examples, objective });
        expect(check.comparison).toMatchObject({ passed: true });
        expect(check.comparison?.maxRelativeError).toBeLessThanOrEqual(GRADIENT / 10);
      } finally {
        policy.adapter?.free();
        base.free();
        close();
      }
    },
  );
});

// scripts/family-matrix.ts has both formats of every family.
it.each([
  ["lfm2", "nf4"],
  ["gemma2", "int8"],
] as const)("%s in %s: log-probabilities and the gradients of an adapter as in float64", async (name, format) => {
  const { logProbs, gradient, worst } = await quantisedErrors(name, shared, format);
  expect(logProbs).toBeLessThanOrEqual(LOG_PROB);
  expect(gradient, worst).toBeLessThanOrEqual(GRADIENT);
});

it("embedding and head in 8 bits: log-probabilities, gradients and what is generated as in float64", async () => {
  const base = await Model.load(shared, stories, { quantization: { format: "nf4", double: true, embeddings: true } });
  const policy = adapted(base);
  try {
    expect([...base.quantizedFormats].sort()).toEqual(["int8", "nf4"]);
    const examples = readExamples("llama");
    const check = await checkGradients({ policy, reference: policy.base, examples, objective });
    expect(check.comparison).toMatchObject({ passed: true });
    expect(check.comparison?.maxRelativeError).toBeLessThanOrEqual(GRADIENT / 10);
    const exact = await float64Of(base);
    const generator = new Generator(base, { maxBatch: 2, maxLength: 24 });
    const options = { maxNewTokens: 8, temperature: 0, topK: 0, topP: 1, seed: 0, eosTokenIds: [] };
    const prompts = [[1], [1, 30, 7]];
    const results = await generator.generate(prompts, options).finally(() => generator.free());
    expect(results.map(({ ids }) => ids)).toEqual(
      prompts.map((prompt) => exactGreedy(exact, prompt, 8, base.config.vocabSize)),
    );
  } finally {
    policy.adapter?.free();
    base.free();
  }
});

/** A copy of a model as bitsandbytes saves it in 4 bits: every linear layer but those that a pattern skips. */
async function saved4Bit(model: string, { double, skip }: { double: boolean; skip?: RegExp }): Promise<string> {
  const copy = copyOfModel(folder, model);
  const file = await openSafetensors(join(model, "model.safetensors"));
  const tensors: RawTensor[] = [];
  for (const [name, { shape, dtype }] of file.tensors) {
    if (!/_proj\.weight$/.test(name) || skip?.test(name)) {
      tensors.push({ name, dtype, shape, data: await file.read(name) });
      continue;
    }
    const { codes, scales } = quantized("nf4", await file.readF32(name));
    const second = nested(scales);
    const state = {
      quant_type: "nf4",
      blocksize: 64,
      dtype: "float32",
      shape,
      ...(double && nestedState(second.offset)),
    };
    const text = new TextEncoder().encode(JSON.stringify(state));
    tensors.push(
      { name, dtype: "U8", shape: [codes.length, 1], data: codes },
      { name: `${name}.quant_map`, dtype: "F32", shape: [16], data: NF4_TABLE },
      { name: `${name}.quant_state.bitsandbytes__nf4`, dtype: "U8", shape: [text.length], data: text },
    );
    if (double) {
      tensors.push(
        { name: `${name}.absmax`, dtype: "U8", shape: [second.codes.length], data: second.codes },
        { name: `${name}.nested_absmax`, dtype: "F32", shape: [second.scales.length], data: second.scales },
        { name: `${name}.nested_quant_map`, dtype: "F32", shape: [256], data: second.table },
      );
    } else tensors.push({ name: `${name}.absmax`, dtype: "F32", shape: [scales.length], data: scales });
  }
  await file.close();
  writeRawTensors(join(copy, "model.safetensors"), tensors);
  const config = JSON.parse(readFileSync(join(copy, "config.json"), "utf8")) as Record<string, unknown>;
  const quantization = { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" };
  writeFileSync(join(copy, "config.json"), JSON.stringify({ ...config, quantization_config: quantization }));
  return copy;
}

const nestedState = (offset: number) => ({ nested_blocksize: 256, nested_dtype: "float32", nested_offset: offset });

/** Every weight of a model as its bits, by name. */
async function weightBits(model: Model): Promise<Map<string, number[]>> {
  const tensors = await model.readTensors(model.weights);
  return new Map(tensors.map(({ name, data }) => [name, bits(data)]));
}

describe("a checkpoint of bitsandbytes", () => {
  const load = async (path: string, options: LoadOptions = {}) => {
    const model = await Model.load(shared, path, { onWarning: (sentence) => expect(sentence).toBe(""), ...options });
    const found = { formats: model.quantizedFormats, numbers: await weightBits(model), model };
    model.free();
    return found;
  };

  it.each([false, true])(
    "loads with the numbers that the unquantised model has in 4 bits, nested scales %s",
    async (double) => {
      const found = await load(await saved4Bit(llama, { double }));
      const wanted = await load(llama, { quantization: { format: "nf4", double } });
      expect(found.formats).toEqual(["nf4"]);
      expect(found.numbers).toEqual(wanted.numbers);
    },
  );

  it("a layer that it skips keeps its numbers, and so do those that are stored as one matrix with it", async () => {
    const path = await saved4Bit(llama, { double: false, skip: /layers\.0\.self_attn\.k_proj/ });
    const found = await load(path);
    const wanted = await load(llama, { quantization: { format: "nf4" } });
    const whole = await load(llama);
    for (const [name, numbers] of found.numbers) {
      const from = name.includes("layers.0.self_attn.k_proj") ? whole : wanted;
      expect(numbers, name).toEqual(from.numbers.get(name));
    }
  });

  it("cannot be trained whole, asked for in 8 bits, nor saved with a configuration that says it is quantised", async () => {
    const path = await saved4Bit(llama, { double: false });
    await expect(load(path, { quantization: { format: "int8" } })).rejects.toThrow(/is quantised in 4 bits already/);
    await expect(load(llama, { quantization: { embeddings: true } })).rejects.toThrow(/only those of a multiple of 64/);
    const model = await Model.load(shared, path, { storage: "f32" });
    try {
      const training = KtoTrainer.create({ policy: model, examples: readExamples("llama"), options: { max_steps: 1 } });
      await expect(training).rejects.toThrow(ConfigError);
      const into = freshPath(folder, "saved");
      await model.save(into);
      expect(JSON.parse(readFileSync(join(into, "config.json"), "utf8"))).toEqual(
        JSON.parse(readFileSync(join(llama, "config.json"), "utf8")),
      );
      const again = await load(into);
      expect(again.formats).toEqual([]);
      expect(again.numbers).toEqual(await weightBits(model));
    } finally {
      model.free();
    }
  });
});

it("matrices whose tensors share blocks are kept as the files store them, and named once", async () => {
  const warnings: string[] = [];
  const config = llamaConfig({ intermediate_size: 60, hidden_size: 36, num_attention_heads: 4, head_dim: 10 });
  const path = await randomModel(folder, config, 3);
  const model = await Model.load(shared, path, {
    quantization: { format: "nf4" },
    onWarning: (sentence) => void warnings.push(sentence),
  });
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("self_attn.q_proj.weight");
  expect(model.layout.formats.get("layers.0.down.weight")).toBe("nf4");
  expect(model.layout.formats.has("layers.0.up.weight")).toBe(false);
  model.free();
});

it.each(["nf4", "int8"] as const)("a matrix of %s is walked in windows to the bits of the whole", async (format) => {
  const [rows, columns, T] = [512, 48, 8];
  const random = seeded(31);
  const { codes, scales } = quantized(format, normals(random, rows * columns));
  const matrix = shared.allocate("scratch", "matrix", [rows, columns], format);
  const x = shared.allocate("scratch", "x", [T, columns]);
  const dy = shared.allocate("scratch", "dy", [T, rows]);
  const forward = shared.allocate("scratch", "products", [2, T, rows]);
  const backward = shared.allocate("scratch", "gradients", [2, T, columns]);
  const program = new Program(shared, "windows");
  shared.upload(matrix, codes);
  if (matrix.scales) shared.upload(matrix.scales, fromF32(scales, QUANTIZED[format].scales));
  shared.upload(x, normals(random, T * columns));
  shared.upload(dy, normals(random, T * rows));
  const part = (tensor: Tensor, at: number) => ({ ...sliceRows(tensor, at, 1), shape: tensor.shape.slice(1) });
  try {
    recordMatmul(program, "NT", x, matrix, part(forward, 0));
    recordMatmul(program, "NN", dy, matrix, part(backward, 0));
    const windows = rowWindows(matrix, byteLength(matrix) / 2);
    expect(windows.map(({ first }) => first)).toEqual([0, 256]);
    for (const { first, window } of windows) {
      recordMatmul(program, "NT", x, window, part(forward, 1), { outFrom: first });
      recordMatmul(program, "NN", dy, window, part(backward, 1), { aFrom: first, continues: first > 0 });
    }
    await program.prepare();
    program.run();
    for (const both of [forward, backward]) {
      const [whole, inParts] = [await shared.download(part(both, 0)), await shared.download(part(both, 1))];
      expect(bits(inParts)).toEqual(bits(whole));
    }
  } finally {
    program.dispose();
    for (const tensor of [matrix, x, dy, forward, backward]) shared.free(tensor);
  }
});
