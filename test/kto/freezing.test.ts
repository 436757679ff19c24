/** Parameters frozen by pattern: their bits stay, the others' first update is that of a whole run, memory is saved. */
import { afterAll, describe, expect, it } from "vitest";
import { AdamW } from "../../src/engine/gpu/optimizer.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { trainedLayout } from "../../src/engine/model/freezing.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import type { Model } from "../../src/engine/model/model.ts";
import { ConfigError } from "../../src/errors.ts";
import { normSums } from "../../src/kernels/reduce.ts";
import { KtoTrainer, type TrainerInputs } from "../../src/kto/trainer.ts";
import { arenaSize, fillArena } from "../helpers/arenas.ts";
import { bits, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice, withLimits } from "../helpers/device.ts";
import { type FixtureName, loadModel, readExamples } from "../helpers/fixtures.ts";

const device = await sharedDevice();
const models = { llama: await loadModel(device, "llama", "policy") };
afterAll(() => models.llama.free());

/** Without a clip, so that the norm of what is frozen has no part in the update. */
const options = { max_steps: 1, learning_rate: 1e-2, weight_decay: 0.1, max_grad_norm: 0 } as const;

async function train(name: FixtureName, changes: TrainerInputs["options"]) {
  const policy = await loadModel(device, name, "policy");
  const before = tensorsOf(await policy.readTensors(policy.weights));
  const trainer = await KtoTrainer.create({
    policy,
    examples: readExamples(name),
    options: { ...options, per_device_train_batch_size: 8, ...changes },
  });
  try {
    for await (const _ of trainer);
    const { gradients: gradientBytes = 0, optimizer: optimizerBytes = 0 } = device.memory();
    return {
      before,
      after: tensorsOf(await policy.readTensors(policy.weights)),
      gradients: tensorsOf(await policy.readTensors(trainer.update.optimizer.gradients)),
      gradientBytes,
      optimizerBytes,
    };
  } finally {
    trainer.free();
    policy.free();
  }
}

function tensorsOf(tensors: Awaited<ReturnType<Model["readTensors"]>>): Map<string, number[]> {
  return new Map(tensors.map(({ name, data }) => [name, [...bits(data)]]));
}

describe.each([
  ["llama", "the lowest layer and the embedding", ["embed_tokens", "layers\\.0\\."], /embed_tokens|layers\.0\./],
  [
    "llama",
    "all but one layer's attention",
    ["^(?!model\\.layers\\.1\\.self_attn)"],
    /^(?!model\.layers\.1\.self_attn)/,
  ],
  ["llama", "the norms", ["norm"], /norm/],
  ["gpt2", "embeddings and every bias", ["wte", "wpe", "bias$"], /wte|wpe|bias$/],
] as const)("%s: %s", (name, _what, freeze_parameters, frozen) => {
  it("frozen bits stay, the others are those of a run that trains everything", async () => {
    const whole = await train(name, {});
    const part = await train(name, { freeze_parameters: [...freeze_parameters] });
    const names = [...whole.before.keys()];
    const trained = names.filter((tensor) => !frozen.test(tensor));
    expect(trained.length).toBeGreaterThan(0);
    expect(trained.length).toBeLessThan(names.length);
    for (const tensor of names) {
      const wanted = frozen.test(tensor) ? part.before.get(tensor) : whole.after.get(tensor);
      expect(part.after.get(tensor), tensor).toEqual(wanted);
      if (trained.includes(tensor)) expect(part.gradients.get(tensor), tensor).toEqual(whole.gradients.get(tensor));
    }
    expect([...part.gradients.keys()].sort()).toEqual(trained.sort());
    expect(part.after).not.toEqual(part.before);
    // Gradients once, moments twice; the optimizer's few other numbers are the same.
    const saved = whole.gradientBytes - part.gradientBytes;
    expect(saved).toBeGreaterThan(0);
    expect(whole.optimizerBytes - part.optimizerBytes).toBe(2 * saved);
  });
});

it("windows that the adapter can bind make the same update, bit by bit", async () => {
  const update = async () => {
    const policy = await loadModel(device, "gpt2", "policy");
    const layout = trainedLayout(policy, ["h\\.0\\.mlp", "ln_"]);
    const adamw = { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.3, maxGradientNorm: 0 };
    const optimizer = new AdamW(policy.weights, adamw, layout);
    const program = new Program(device, "update");
    optimizer.recordStep(program);
    const dispatches = program.dispatches;
    await program.prepare();
    optimizer.setStep(1e-2, 1);
    fillArena(optimizer.gradients, normals(seeded(3), arenaSize(optimizer.gradients.layout), 0.1));
    program.run();
    const after = tensorsOf(await policy.readTensors(policy.weights));
    program.dispose();
    optimizer.free();
    policy.free();
    return { after, dispatches };
  };
  const whole = await update();
  const windowed = await withLimits({ maxStorageBufferBindingSize: 4 * normSums(device.facts) }, update);
  expect(windowed.after).toEqual(whole.after);
  expect(windowed.dispatches).toBeGreaterThan(whole.dispatches);
});

describe("what cannot be frozen", () => {
  it.each([
    [["("], /^option "freeze_parameters" is \["\("\]; it must be regular expressions such as embed_tokens/],
    [["wte"], /^freeze_parameters "wte" matches no parameter; this model's are model\./],
    [["."], /^freeze_parameters freezes every parameter; leave some to train\.$/],
    [["0.self_attn.q_proj"], /q_proj.weight, but not .*k_proj.weight, .*v_proj.weight, with which it is stored as one/],
  ])("%j", async (freeze_parameters, message) => {
    const made = KtoTrainer.create({
      policy: models.llama,
      examples: readExamples("llama"),
      options: { ...options, freeze_parameters },
    });
    await expect(made).rejects.toThrow(message);
    await expect(made).rejects.toThrow(ConfigError);
  });

  it("an adapter's base, which is frozen anyway", async () => {
    const lora = { rank: 2, alpha: 4, dropout: 0, rslora: false };
    const adapter = LoraAdapter.create(device, models.llama.config, lora);
    const policy = models.llama.withAdapter(adapter);
    const made = KtoTrainer.create({
      policy,
      examples: readExamples("llama"),
      options: { ...options, freeze_parameters: ["norm"] },
    });
    await expect(made).rejects.toThrow(/^freeze_parameters is for training whole models, .* lora_target_modules/);
    adapter.free();
  });
});
