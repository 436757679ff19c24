/**
 * Limits of an adapter that a model exceeds: memory over several buffers gives the bits of memory in one, in as many
 * bytes as the plan says, and matrices larger than one binding give the same bits; so do MLPs of more rows than one
 * holds.
 */
import { describe, expect, it, vi } from "vitest";
import { planningDevice } from "../../src/engine/gpu/memory-plan.ts";
import { Activations, type LayerKind, layerKinds } from "../../src/engine/model/activations.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import type { LoraOptions } from "../../src/engine/model/lora-modules.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import { packBatch } from "../../src/kto/method/batch.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "../helpers/arenas.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice, withLimits } from "../helpers/device.ts";
import { float64Of, relativeDistance } from "../helpers/fixtures.ts";
import { temporaryFolder } from "../helpers/folders.ts";
import { gpt2Config, llamaConfig, randomModel } from "../helpers/models.ts";
import { exactStep, gradientsOf, microbatchGradients, updateFor } from "../helpers/step.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const random = new Random(21);
const ids = (length: number) => Array.from({ length }, () => 3 + random.below(90));

/** Two microbatches of different shapes, with mismatched pairs. */
const examples = [
  [3, 9],
  [1, 12],
  [11, 4],
  [6, 1],
  [20, 19],
  [17, 22],
  [9, 30],
  [2, 28],
].map(([prompt = 0, completion = 0], i) => ({
  promptIds: ids(prompt),
  completionIds: ids(completion),
  label: i % 2 === 0,
}));

describe("a run in several buffers", () => {
  const cases = [
    { what: "of the whole model", adapter: false, gradient_checkpointing: false },
    { what: "with gradient checkpointing", adapter: false, gradient_checkpointing: true },
    { what: "with an adapter", adapter: true, gradient_checkpointing: false },
  ];

  it.each(cases)("$what: the bits of one in whole buffers", async ({ adapter: hasAdapter, gradient_checkpointing }) => {
    const path = await randomModel(folder, llamaConfig({ num_hidden_layers: 10 }), 6);
    const run = async () => {
      const allocated = vi.spyOn(device, "allocate");
      const model = await Model.load(device, path);
      const adapter = hasAdapter
        ? LoraAdapter.create(device, model.config, { rank: 3, alpha: 6, dropout: 0.2, rslora: false })
        : undefined;
      adapter?.initialize(4);
      const policy = adapter ? model.withAdapter(adapter) : model;
      const trainer = await KtoTrainer.create({
        policy,
        examples,
        // Clipped: the norm of the gradients is a sum over all buffers.
        options: {
          ...{ gradient_checkpointing, max_steps: 4, per_device_train_batch_size: 4, learning_rate: 1e-2 },
          max_grad_norm: 1e-3,
        },
      });
      const labels = allocated.mock.calls.map(([, label]) => label);
      allocated.mockRestore();
      for await (const _ of trainer);
      const tensors = await policy.readTensors(policy.trained);
      trainer.free();
      adapter?.free();
      model.free();
      return {
        tensors: tensors.map(({ name, data }) => [name, bits(data)]),
        buffers: (label: string) => labels.filter((one) => one === label).length,
      };
    };
    const whole = await run();
    // The rows of one layer in the widest kind, of several in the others.
    const split = await withLimits({ maxBufferSize: 62_000 }, run);
    for (const kind of ["up", "qkv", "input"]) expect(whole.buffers(kind), kind).toBe(1);
    expect(split.buffers("input")).toBeGreaterThan(1);
    const inputsOnly = gradient_checkpointing ? 1 : split.buffers("input");
    expect(split.buffers("qkv")).toBeGreaterThanOrEqual(inputsOnly);
    expect(split.buffers("up")).toBe(gradient_checkpointing ? 1 : 10);
    if (!hasAdapter) expect(split.buffers("weights")).toBeGreaterThan(whole.buffers("weights"));
    expect(split.tensors).toEqual(whole.tensors);
  });

  it("holds no buffer above the limit, and no more bytes than the rows of its layers and one region B a buffer", async () => {
    const model = await Model.load(device, await randomModel(folder, llamaConfig({ num_hidden_layers: 40 }), 7));
    const { config } = model;
    model.free();
    const shape = {
      ...{ gradientRows: 512, branchRows: 128, gradientHeadRows: 256, branchHeadRows: 128 },
      ...{ sequences: 16, longest: 64 },
    };
    for (const limit of [2 ** 31, 2 ** 20, 2 ** 18]) {
      await withLimits({ maxBufferSize: limit }, async (limited) => {
        const plan = planningDevice(limited);
        const allocated = vi.spyOn(plan, "allocate");
        const activations = new Activations(plan, config, [shape], "all");
        const buffers = allocated.mock.results.map(({ value }) => value.shape as [number, number]);
        const kinds = allocated.mock.calls.map(([, kind]) => kind as LayerKind);
        for (const [kind, width] of Object.entries(layerKinds(config))) {
          const own = buffers.filter((_, index) => kinds[index] === kind);
          if (width > 0) for (const [rows] of own) expect(4 * rows * width).toBeLessThanOrEqual(limit);
          const places = config.layers + (kind === "input" ? 1 : 0);
          if (width > 0) expect(own.reduce((sum, [rows]) => sum + rows, 0)).toBe(512 * places + 128 * own.length);
          // No layer's rows, the spilled ones included, touch a place that is still needed or lie outside their buffer.
          for (let layer = 0; width > 0 && layer < places; layer++) {
            const here = activations.layer(shape, layer)[kind as LayerKind];
            const next = activations.layer(shape, layer + 1)[kind as LayerKind];
            expect(here.shape).toEqual([640, width]);
            expect(here.offset % 256).toBe(0);
            const buffer = allocated.mock.results.find(({ value }) => value.buffer === here.buffer)?.value;
            expect(here.offset / (4 * width) + 640).toBeLessThanOrEqual(buffer?.shape[0] ?? 0);
            if (layer + 1 < places && next.buffer === here.buffer) {
              expect(next.offset - here.offset).toBe(4 * width * 512);
            }
          }
        }
        if (limit === 2 ** 18) expect(kinds.filter((kind) => kind === "up").length).toBeGreaterThan(10);
      });
    }
  });
});

// All of a layer's matrices but one have more bytes than the limit, and the 64 rows of the batch have not.
const windowed = [
  {
    family: "llama, [out, in]",
    config: llamaConfig({
      ...{ hidden_size: 192, intermediate_size: 192, num_hidden_layers: 2, attention_bias: true, mlp_bias: true },
    }),
    limit: 4 * 64 * 384,
    // In 3, 2, 3 and 2 windows.
    more: 2 + 1 + 2 + 1,
  },
  { family: "gpt2, [in, out]", config: gpt2Config({ n_embd: 192 }), limit: 4 * 64 * 768, more: 2 + 0 + 2 + 2 },
];

it.each(windowed)("matrices that exceed one binding are walked in windows, to the same bits: $family", async (one) => {
  const { config, limit, more } = one;
  const policies = [await randomModel(folder, config, 8), await randomModel(folder, config, 9)] as const;
  const batch = packBatch(examples.slice(0, 4), { mismatched: false, maxLength: 1000 });
  expect(batch.packed.shape).toMatchObject({ gradientRows: 64, branchRows: 0 });
  const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "apo_zero_unpaired" } as const;
  const choose = vi.spyOn(device.tuner, "choose");
  const run = async () => {
    const [policy, reference] = [await Model.load(device, policies[0]), await Model.load(device, policies[1])];
    choose.mockClear();
    const step = updateFor(policy, reference, objective, [batch]);
    try {
      const result = await gradientsOf(step, [batch]);
      const matmuls = step.programs.flatMap(({ kernels }) => kernels.filter((name) => name.startsWith("matmul")));
      const exact = exactStep(await float64Of(policy), await float64Of(reference), objective, [examples.slice(0, 4)]);
      const asked = choose.mock.calls.map(([one]) => [one.kernel, one.tuningClass, one.flops].join(" "));
      return { ...result, matmuls: matmuls.length, exact: exact.gradients, asked };
    } finally {
      step.free();
      policy.free();
      reference.free();
    }
  };
  const whole = await run();
  const inWindows = await withLimits({ maxStorageBufferBindingSize: limit }, run);
  // Which tile to take is asked once for a matrix, and about the whole of it.
  expect(inWindows.asked.filter((one) => one.startsWith("matmul"))).toEqual(
    whole.asked.filter((one) => one.startsWith("matmul")),
  );
  // In a pass of each of two layers of both models, and twice in the backward pass.
  expect(inWindows.matmuls).toBeGreaterThanOrEqual(whole.matmuls + 2 * 4 * more);
  expect(bits(inWindows.policy)).toEqual(bits(whole.policy));
  expect(bits(inWindows.reference)).toEqual(bits(whole.reference));
  const numbers = ({ tensors }: typeof whole) =>
    [...tensors].map(([name, data]) => [name, bits(Float32Array.from(data))]);
  expect(numbers(inWindows)).toEqual(numbers(whole));
  for (const [name, data] of whole.tensors) {
    expect(relativeDistance(data, whole.exact.get(name) ?? []), name).toBeLessThanOrEqual(1e-3);
  }
});

describe("an MLP whose rows exceed one binding is walked in slices", () => {
  const wide = { num_hidden_layers: 3, intermediate_size: 256 };
  const lora: LoraOptions = { rank: 3, alpha: 6, dropout: 0.3, rslora: false, targetModules: "all-linear" };
  const cases = [
    { what: "SwiGLU, with an adapter that drops out", config: llamaConfig(wide), lora },
    { what: "SwiGLU, with DoRA", config: llamaConfig(wide), lora: { ...lora, dora: true } },
    {
      what: "GeGLU between norms",
      config: llamaConfig({ ...wide, model_type: "gemma2", head_dim: 8, query_pre_attn_scalar: 8 }),
    },
    { what: "GELU with biases", config: gpt2Config({ n_layer: 3, n_inner: 512 }) },
  ];

  it.each(cases)("$what: log-probs to the bit, gradients to the last digits", async ({ config, lora }) => {
    const paths = [await randomModel(folder, config, 11), await randomModel(folder, config, 12)] as const;
    const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1.2, lossType: "kto" } as const;
    const rows = examples.flatMap((example) => [example, { ...example, label: !example.label }]);
    const run = async (gradientCheckpointing: boolean) => {
      const [base, reference] = [await Model.load(device, paths[0]), await Model.load(device, paths[1])];
      const adapter = lora && LoraAdapter.create(device, base.config, lora);
      if (lora?.dora) await adapter?.readBase(base);
      if (adapter)
        device.upload(wholeArena(adapter.weights), normals(seeded(5), wholeArena(adapter.weights).shape[0] ?? 0, 0.1));
      const policy = adapter ? base.withAdapter(adapter) : base;
      let [kernels, activations] = [0, 0];
      try {
        const passes = { gradientCheckpointing, dropoutSeed: 7 };
        const found = await microbatchGradients(policy, reference, objective, rows, passes, (update) => {
          kernels = update.programs.flatMap((program) => program.kernels).length;
          activations = device.memory().activations ?? 0;
        });
        return { ...found, kernels, activations };
      } finally {
        adapter?.free();
        base.free();
        reference.free();
      }
    };
    const whole = await run(false);
    for (const gradientCheckpointing of [false, true]) {
      const sliced = await withLimits({ maxStorageBufferBindingSize: 4 * 128 * 512 }, () => run(gradientCheckpointing));
      expect(sliced.kernels).toBeGreaterThan(whole.kernels);
      expect(sliced.activations).toBeLessThan(0.7 * whole.activations);
      expect(bits(sliced.policy)).toEqual(bits(whole.policy));
      expect(bits(sliced.reference)).toEqual(bits(whole.reference));
      for (const [name, data] of whole.tensors) {
        expect(relativeDistance(sliced.tensors.get(name) ?? [], data), name).toBeLessThanOrEqual(1e-5);
      }
    }
  });

  it("has the memory of a slice, whatever is kept, and is refused where a kind that is not sliced exceeds the binding", async () => {
    const path = await randomModel(folder, llamaConfig(wide), 13);
    const { config } = await Model.load(planningDevice(device), path);
    const shape = {
      ...{ gradientRows: 512, branchRows: 128, gradientHeadRows: 256, branchHeadRows: 128 },
      ...{ sequences: 16, longest: 64 },
    };
    const ofLimit = (bytes: number) =>
      withLimits({ maxStorageBufferBindingSize: bytes }, async (limited) => {
        const plan = planningDevice(limited);
        const slice = new Activations(plan, config, [shape], "all").mlpSlice(shape);
        return { slice, bytes: plan.memory().activations ?? 0 };
      });
    expect((await ofLimit(4 * 640 * 512)).slice).toBeUndefined();
    const whole = await ofLimit(2 ** 27);
    const sliced = await ofLimit(4 * 639 * 512);
    expect(sliced.slice).toBe(384);
    // Of `up` and `activated`, 768 columns, the rows of one slice in place of three layers' and of region B.
    expect(whole.bytes - sliced.bytes).toBe(4 * 768 * (3 * 512 + 128 - 384));
    expect((await ofLimit(4 * 130 * 512)).slice).toBe(128);
    await expect(ofLimit(4 * 100 * 512)).rejects.toThrow(/^"up" of one layer needs 262144 bytes in one binding/);
  });
});
