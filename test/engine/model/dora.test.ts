/**
 * DoRA: gradients of A, B and magnitudes of whole models against merged weights in float64, a layer with dropout against
 * PEFT's formula, the start, and generation.
 */
import { afterAll, describe, expect, it } from "vitest";
import { Arena, ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import type { Tensor } from "../../../src/engine/gpu/tensor.ts";
import { recordLinear, recordLinearBackward } from "../../../src/engine/model/linear.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import type { LoraOptions } from "../../../src/engine/model/lora-modules.ts";
import { recordGains } from "../../../src/engine/model/lora-passes.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { doraDirection } from "../../../src/kernels/float64/dora.ts";
import { dropout } from "../../../src/kernels/float64/dropout.ts";
import { matmul } from "../../../src/kernels/float64/matmul.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { float64, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { mismatchOf } from "../../helpers/families.ts";
import { loadModel, readExamples, relativeDistance } from "../../helpers/fixtures.ts";

const device = await sharedDevice();
const models = {
  llama: await loadModel(device, "llama", "policy"),
  gpt2: await loadModel(device, "gpt2", "policy"),
  nf4: await Model.load(device, (await loadModel(device, "llama", "policy")).folder, {
    quantization: { format: "nf4" },
    onWarning: () => undefined,
  }),
};
afterAll(() => {
  for (const model of Object.values(models)) model.free();
});

const objective = { beta: 0.1, desirableWeight: 1.3, undesirableWeight: 0.8, lossType: "kto" } as const;
const options = (changes: Partial<LoraOptions> = {}): LoraOptions => {
  return { rank: 4, alpha: 6, dropout: 0, rslora: false, dora: true, targetModules: "all-linear", ...changes };
};

/** An adapter of random A and B, whose magnitudes are the lengths at the start times numbers around 1. */
async function randomAdapter(model: Model, own: LoraOptions, seed: number): Promise<LoraAdapter> {
  const adapter = LoraAdapter.create(device, model.config, own);
  await adapter.readBase(model);
  const random = seeded(seed);
  for (const { name, shape } of adapter.weights.layout.specs) {
    const window = adapter.weights.window(name);
    const before = await device.download(window);
    const drawn = normals(random, before.length, 0.2);
    device.upload(window, shape.length === 1 ? before.map((m, i) => m * (1 + (drawn[i] ?? 0))) : drawn);
  }
  return adapter;
}

describe("gradients of A, B and magnitudes", () => {
  it.each<[keyof typeof models, Partial<LoraOptions>]>([
    ["llama", {}],
    ["llama", { rslora: true, rank: 5, targetModules: ["v_proj", "gate_proj", "o_proj"] }],
    ["gpt2", {}],
    ["nf4", { targetModules: ["k_proj", "up_proj", "down_proj"] }],
  ])("of %s with %j are those of float64", async (name, changes) => {
    const adapter = await randomAdapter(models[name], options(changes), 3);
    const policy = models[name].withAdapter(adapter);
    const examples = readExamples(name === "gpt2" ? "gpt2" : "llama");
    const check = await checkGradients({ policy, reference: policy.base, examples, objective });
    expect(check.gradients).toHaveLength(3 * adapter.modules.length);
    expect(check.comparison?.worstParameter).not.toBe("");
    expect(check.comparison?.maxRelativeError).toBeLessThan(1e-4);
    expect(check.comparison?.passed).toBe(true);
    const magnitudes = check.gradients.filter((one) => one.name.endsWith("lora_magnitude_vector"));
    expect(magnitudes).toHaveLength(adapter.modules.length);
    expect(magnitudes.every(({ data }) => data.some((value) => value !== 0))).toBe(true);
    adapter.free();
  });
});

it("starts as the base model, with the lengths of the base's rows as magnitudes", async () => {
  const { gpt2 } = models;
  const adapter = LoraAdapter.create(device, gpt2.config, options());
  adapter.initialize(5);
  expect(() => gpt2.withAdapter(adapter)).toThrow(/call readBase/);
  await adapter.readBase(gpt2);
  const policy = gpt2.withAdapter(adapter);
  const examples = readExamples("gpt2");
  const [base, adapted] = [await completionLogProbs(gpt2, examples), await completionLogProbs(policy, examples)];
  expect(relativeDistance(adapted, float64(base))).toBeLessThan(1e-6);
  // The first layer's fused projection is stored [in, out].
  const [{ data = new Float32Array(), shape = [] } = {}] = (await gpt2.readTensors(gpt2.weights)).filter(({ name }) =>
    name.endsWith("h.0.attn.c_attn.weight"),
  );
  const [inputs = 0, outputs = 0] = shape;
  const found = await device.download(adapter.weights.window("h.0.attn.c_attn.lora_magnitude_vector"));
  const wanted = Float64Array.from({ length: outputs }, (_, o) =>
    Math.hypot(...Array.from({ length: inputs }, (_, i) => data[i * outputs + o] ?? 0)),
  );
  expect(relativeDistance(found, wanted)).toBeLessThan(1e-6);
  expect(await adapter.addsNothing()).toBe(true);
  adapter.free();
});

it("generates what the merged weights of float64 do, after the adapter was changed too", async () => {
  const adapter = await randomAdapter(models.llama, options(), 4);
  const prompts = readExamples("llama").map(({ promptIds }) => Array.from(promptIds));
  const policy = models.llama.withAdapter(adapter);
  expect(await mismatchOf(policy, prompts.slice(0, 2), 8)).toBeUndefined();
  adapter.free();
});

/** Base and adapter in float64 as PEFT's DoraLinearLayer computes them, forward and backward. */
describe.each(["llama", "nf4"] as const)("a layer of %s with dropout", (name) => {
  it.each(["q_proj", "v_proj"])("is PEFT's: %s of the fused rows", async (target) => {
    const share = 0.3;
    const own = options({ targetModules: [`layers.1.self_attn.${target}`], dropout: share, rank: 3 });
    const adapter = await randomAdapter(models[name], own, 9);
    const [module] = adapter.modules;
    if (!module) throw new Error("the adapter has no module");
    const { inputs, outputs, outFrom, width, rank, scale } = module;
    const rows = 21;
    const random = seeded(6);
    const [x, dy, dx] = [normals(random, rows * inputs), normals(random, rows * width), normals(random, rows * inputs)];
    const make = (label: string, shape: number[], values?: Float32Array<ArrayBuffer>): Tensor => {
      const tensor = device.allocate("scratch", label, shape);
      if (values) device.upload(tensor, values);
      return tensor;
    };
    const state = device.allocate("scratch", "state", [2], "u32");
    device.upload(state, Uint32Array.of(11, 2));
    const keys = Uint32Array.from({ length: rows }, (_, row) => 2654435761 * (row + 1));
    const drawKeys = device.allocate("scratch", "draw keys", [rows], "u32");
    device.upload(drawKeys, keys);
    const tensors = {
      x: make("x", [rows, inputs], x),
      y: make("y", [rows, width]),
      dy: make("dy", [rows, width], dy),
      dx: make("dx", [rows, inputs], dx),
      partials: make("partials", [64 * width]),
    };
    const dora = {
      projected: make("projected", [rank, width]),
      gram: make("gram", [rank, rank]),
      product: make("product", [rows, width]),
    };
    const lora = {
      inner: make("inner", [rows, rank]),
      dInner: make("dInner", [rows, rank]),
      dropped: make("dropped", [rows, inputs]),
    };
    const scratch = { ...lora, dora, drawKeys };
    const gradients = new Arena(device, new ParameterLayout(adapter.weights.layout.specs), "gradients", "gradients");
    const program = new Program(device, "one layer");
    const policy = models[name].withAdapter(adapter.training(state));
    recordGains(program, adapter, policy, scratch);
    recordLinear(program, policy, "layers.1.qkv", { x: tensors.x, y: tensors.y, lora: scratch });
    const backward = { ...tensors, accumulate: true, lora: scratch };
    recordLinearBackward(program, policy, gradients, "layers.1.qkv", backward);
    await program.prepare();
    program.run();

    const base = (await models[name].readTensors(models[name].weights)).filter((one) =>
      /layers\.1\.self_attn\.[qkv]_proj\.weight$/.test(one.name),
    );
    const whole = Float64Array.from(base.flatMap(({ data }) => Array.from(data)));
    const weight = whole.subarray(outFrom * inputs, (outFrom + outputs) * inputs);
    const read = async (part: string) =>
      float64(await device.download(adapter.weights.window(`${module.name}.${part}`)));
    const [a, b, magnitude] = [await read("lora_A"), await read("lora_B"), await read("lora_magnitude_vector")];
    const { norms } = doraDirection({ weight, a, b, inputs, outputs, rank, scale });
    const gains = magnitude.map((m, o) => m / (norms[o] ?? 0));
    const seen = dropout(float64(x), keys, share, 0, [11, 2]);
    const inner = matmul({ a: seen, b: a, m: rows, n: rank, k: inputs, transposeB: true }).map((v) => scale * v);
    const added = matmul({ a: inner, b, m: rows, n: outputs, k: rank, transposeB: true });
    const ofBase = matmul({ a: seen, b: weight, m: rows, n: outputs, k: inputs, transposeB: true });
    const wantedY = matmul({ a: float64(x), b: whole, m: rows, n: width, k: inputs, transposeB: true });
    const [dz, dBase] = [new Float64Array(rows * outputs), new Float64Array(rows * outputs)];
    const dMagnitude = new Float64Array(outputs);
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < outputs; o++) {
        const [at, own_at] = [row * width + outFrom + o, row * outputs + o];
        const [gain, slope] = [gains[o] ?? 0, dy[at] ?? 0];
        const [delta, u] = [added[own_at] ?? 0, ofBase[own_at] ?? 0];
        wantedY[at] = (wantedY[at] ?? 0) + (gain - 1) * u + gain * delta;
        dz[own_at] = gain * slope;
        dBase[own_at] = (gain - 1) * slope;
        dMagnitude[o] = (dMagnitude[o] ?? 0) + (slope * (u + delta)) / (norms[o] ?? 0);
      }
    }
    const dInner = matmul({ a: dz, b, m: rows, n: rank, k: outputs }).map((v) => scale * v);
    const ofAdapter = matmul({ a: dInner, b: a, m: rows, n: inputs, k: rank });
    const dSeen = matmul({ a: dBase, b: weight, m: rows, n: inputs, k: outputs, residual: ofAdapter });
    const masked = dropout(dSeen, keys, share, 0, [11, 2]);
    const wantedDx = matmul({ a: float64(dy), b: whole, m: rows, n: inputs, k: width }).map(
      (value, i) => value + (dx[i] ?? 0) + (masked[i] ?? 0),
    );
    const near = async (tensor: Tensor, wanted: Float64Array) => {
      expect(relativeDistance(await device.download(tensor), wanted)).toBeLessThan(2e-6);
    };
    await near(tensors.y, wantedY);
    await near(tensors.dx, wantedDx);
    const gradient = (part: string) => gradients.window(`${module.name}.${part}`);
    const dB = matmul({ a: dz, b: inner, m: outputs, n: rank, k: rows, transposeA: true });
    const dA = matmul({ a: dInner, b: seen, m: rank, n: inputs, k: rows, transposeA: true });
    await near(gradient("lora_B"), dB);
    await near(gradient("lora_A"), dA);
    await near(gradient("lora_magnitude_vector"), dMagnitude);
    program.dispose();
    gradients.free();
    adapter.free();
    for (const tensor of Object.values({ ...tensors, ...dora, ...lora, state })) device.free(tensor);
  });
});
