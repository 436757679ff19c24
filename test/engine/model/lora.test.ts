/**
 * LoRA: which layers, the two small products with dropout against float64, gradients of whole models against merged
 * weights in float64, training that leaves the base as it is.
 */
import { afterAll, describe, expect, it } from "vitest";
import { Arena, ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { Device } from "../../../src/engine/gpu/device.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { Float64Model } from "../../../src/engine/model/float64/decoder.ts";
import { adapterGradients, float64Weights } from "../../../src/engine/model/float64/lora.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { type LoraOptions, linearModules, selectModules } from "../../../src/engine/model/lora-modules.ts";
import { recordLoraBackward, recordLoraForward } from "../../../src/engine/model/lora-passes.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { ConfigError } from "../../../src/errors.ts";
import { type AdamwState, adamwStep } from "../../../src/kernels/float64/adamw.ts";
import { dropout } from "../../../src/kernels/float64/dropout.ts";
import { matmul } from "../../../src/kernels/float64/matmul.ts";
import { globalNorm } from "../../../src/kernels/float64/reduce.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { ktoFloat64Gradient } from "../../../src/kto/method/float64/gradient.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { mismatchedPairs } from "../../../src/kto/method/sampler.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, float64, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { loadModel, readExamples, relativeDistance } from "../../helpers/fixtures.ts";

const device = await sharedDevice();
const models = { llama: await loadModel(device, "llama", "policy"), gpt2: await loadModel(device, "gpt2", "policy") };
afterAll(() => {
  models.llama.free();
  models.gpt2.free();
});

const objective = { beta: 0.1, desirableWeight: 1.3, undesirableWeight: 0.8, lossType: "kto" } as const;

function options(changes: Partial<LoraOptions> = {}): LoraOptions {
  return { rank: 4, alpha: 6, dropout: 0, rslora: false, ...changes };
}

/** An adapter of random numbers in A and in B. */
function randomAdapter(model: Model, own: LoraOptions, seed: number): LoraAdapter {
  const adapter = LoraAdapter.create(device, model.config, own);
  const whole = wholeArena(adapter.weights);
  device.upload(whole, normals(seeded(seed), whole.shape[0] ?? 0, 0.2));
  return adapter;
}

async function withAdapter<T>(model: Model, own: LoraOptions, work: (model: Model) => Promise<T>): Promise<T> {
  const adapter = randomAdapter(model, own, 3);
  try {
    return await work(model.withAdapter(adapter));
  } finally {
    adapter.free();
  }
}

describe("target modules", () => {
  const names = (model: Model, targets: LoraOptions["targetModules"]) =>
    selectModules(model.config, options({ targetModules: targets })).map(({ name }) => name);

  it("are PEFT's defaults where none are named", () => {
    expect(names(models.llama, undefined)).toEqual(
      [0, 1].flatMap((layer) => [`layers.${layer}.self_attn.q_proj`, `layers.${layer}.self_attn.v_proj`]),
    );
    expect(names(models.gpt2, undefined)).toEqual(["h.0.attn.c_attn", "h.1.attn.c_attn"]);
  });

  it("are every linear layer of the blocks with all-linear", () => {
    expect(names(models.gpt2, "all-linear")).toEqual(
      [0, 1].flatMap((layer) =>
        ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"].map((part) => `h.${layer}.${part}`),
      ),
    );
    expect(names(models.llama, "all-linear")).toHaveLength(14);
  });

  it("select by the end of a name, by a whole name, and by a regular expression for whole names", () => {
    expect(names(models.gpt2, ["c_proj"])).toEqual([
      "h.0.attn.c_proj",
      "h.0.mlp.c_proj",
      "h.1.attn.c_proj",
      "h.1.mlp.c_proj",
    ]);
    expect(names(models.gpt2, ["mlp.c_proj"])).toEqual(["h.0.mlp.c_proj", "h.1.mlp.c_proj"]);
    expect(names(models.llama, ["model.layers.1.mlp.up_proj"])).toEqual(["layers.1.mlp.up_proj"]);
    expect(names(models.llama, String.raw`model\.layers\.0\..*(q|o)_proj`)).toEqual([
      "layers.0.self_attn.q_proj",
      "layers.0.self_attn.o_proj",
    ]);
  });

  it.each<[string, LoraOptions["targetModules"], RegExp]>([
    [
      "a name that is not there",
      ["q_proj", "query"],
      /names "query", which is no layer.*this model has down_proj, embed_tokens, gate_proj/,
    ],
    ["an empty list", [], /is empty; this model has/],
    ["a pattern that matches nothing", "layers.*w1", /matches no layer/],
    ["a pattern that is none", "(q_proj", /is no regular expression/],
  ])("refuse %s", (_, targets, message) => {
    const refused = () => LoraAdapter.create(device, models.llama.config, options({ targetModules: targets }));
    expect(refused).toThrow(ConfigError);
    expect(refused).toThrow(message);
  });

  it("lie one after another in the columns of the fused rows", () => {
    const fused = linearModules(models.llama.config).filter(({ parameter }) => parameter === "layers.1.qkv.weight");
    expect(fused.map(({ outFrom, outputs }) => [outFrom, outputs])).toEqual([
      [0, 32],
      [32, 16],
      [48, 16],
    ]);
  });

  it.each<[string, Partial<LoraOptions>, RegExp]>([
    ["a rank of 0", { rank: 0 }, /lora_r is 0/],
    ["an alpha of 0", { alpha: 0 }, /lora_alpha is 0/],
    ["a dropout of 1", { dropout: 1 }, /lora_dropout is 1/],
  ])("refuse %s", (_, changes, message) => {
    expect(() => LoraAdapter.create(device, models.llama.config, options(changes))).toThrow(message);
  });
});

describe("the two products of a layer", () => {
  it.each([
    ["q of the fused rows, with dropout", "q_proj", "layers.0.qkv.weight", 0, 0.3, false],
    ["v of the fused rows", "v_proj", "layers.0.qkv.weight", 48, 0, false],
    ["the MLP's output, with dropout and rslora", "down_proj", "layers.0.down.weight", 0, 0.6, true],
  ] as const)("equal float64: %s", async (_, target, parameter, outFrom, share, rslora) => {
    const own = options({
      targetModules: [`layers.0.${target === "down_proj" ? "mlp" : "self_attn"}.${target}`],
      dropout: share,
      rslora,
      rank: 3,
    });
    const [rows, rank] = [21, own.rank];
    const adapter = randomAdapter(models.llama, own, 9);
    const [module] = adapter.modules;
    const { inputs, outputs, name } = module ?? { inputs: 0, outputs: 0, name: "" };
    const width = parameter.includes("qkv") ? 64 : outputs;
    const random = seeded(5);
    const make = (label: string, shape: number[], values?: Float32Array<ArrayBuffer>) => {
      const tensor = device.allocate("scratch", label, shape);
      if (values) device.upload(tensor, values);
      return tensor;
    };
    const x = normals(random, rows * inputs);
    const y = normals(random, rows * width);
    const dy = normals(random, rows * width);
    const dx = normals(random, rows * inputs);
    const state = device.allocate("scratch", "state", [2], "u32");
    device.upload(state, Uint32Array.of(11, 2));
    const keys = Uint32Array.from({ length: rows }, (_, row) => 2654435761 * (row + 1));
    const drawKeys = device.allocate("scratch", "draw keys", [rows], "u32");
    device.upload(drawKeys, keys);
    const tensors = {
      x: make("x", [rows, inputs], x),
      y: make("y", [rows, width], y),
      dy: make("dy", [rows, width], dy),
      dx: make("dx", [rows, inputs], dx),
    };
    const scratch = {
      inner: make("inner", [rows, rank]),
      dInner: make("dInner", [rows, rank]),
      dropped: share > 0 ? make("dropped", [rows, inputs]) : undefined,
    };
    const passes = { ...scratch, drawKeys };
    const gradients = new Arena(device, new ParameterLayout(adapter.weights.layout.specs), "gradients", "gradients");
    const program = new Program(device, "one layer");
    const training = adapter.training(state);
    recordLoraForward(program, training, models.llama, parameter, tensors.x, tensors.y, passes);
    recordLoraForward(program, training, models.llama, "layers.1.qkv.weight", tensors.x, tensors.y, passes); // not a target
    recordLoraBackward(program, training, models.llama, parameter, gradients, tensors, passes);
    await program.prepare();
    program.run();

    const a = float64(await device.download(adapter.weights.window(`${name}.lora_A`)));
    const b = float64(await device.download(adapter.weights.window(`${name}.lora_B`)));
    const scale = 6 / (rslora ? Math.sqrt(rank) : rank);
    const input = share > 0 ? dropout(float64(x), keys, share, 0, [11, 2]) : float64(x);
    const inner = matmul({ a: input, b: a, m: rows, n: rank, k: inputs, transposeB: true }).map((v) => v * scale);
    const added = matmul({ a: inner, b, m: rows, n: outputs, k: rank, transposeB: true });
    const wantedY = float64(y);
    const own_dy = new Float64Array(rows * outputs);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < outputs; column++) {
        const at = row * width + outFrom + column;
        wantedY[at] = (wantedY[at] ?? 0) + (added[row * outputs + column] ?? 0);
        own_dy[row * outputs + column] = dy[at] ?? 0;
      }
    }
    const dInner = matmul({ a: own_dy, b, m: rows, n: rank, k: outputs }).map((v) => v * scale);
    const dInput = matmul({ a: dInner, b: a, m: rows, n: inputs, k: rank });
    const dX = share > 0 ? dropout(dInput, keys, share, 0, [11, 2]) : dInput;
    const wantedDx = float64(dx).map((value, i) => value + (dX[i] ?? 0));
    const near = async (tensor: Parameters<typeof device.download>[0], wanted: Float64Array) => {
      expect(relativeDistance(await device.download(tensor), wanted)).toBeLessThan(1e-6);
    };
    await near(tensors.y, wantedY);
    await near(tensors.dx, wantedDx);
    await near(
      gradients.window(`${name}.lora_B`),
      matmul({ a: own_dy, b: inner, m: outputs, n: rank, k: rows, transposeA: true }),
    );
    await near(
      gradients.window(`${name}.lora_A`),
      matmul({ a: dInner, b: input, m: rank, n: inputs, k: rows, transposeA: true }),
    );
    program.dispose();
    gradients.free();
    adapter.free();
    for (const tensor of [...Object.values(tensors), ...Object.values(scratch), state]) if (tensor) device.free(tensor);
  });
});

describe("gradients of A and B", () => {
  it.each<[keyof typeof models, Partial<LoraOptions>]>([
    ["llama", { targetModules: "all-linear" }],
    ["llama", { rslora: true, rank: 5 }],
    ["llama", { targetModules: ["layers.1.mlp.down_proj"] }],
    ["gpt2", { targetModules: "all-linear" }],
  ])("of %s with %j are those of float64", async (name, changes) => {
    await withAdapter(models[name], options(changes), async (policy) => {
      const check = await checkGradients({ policy, reference: policy.base, examples: readExamples(name), objective });
      expect(check.gradients).toHaveLength(2 * (policy.adapter?.modules.length ?? 0));
      expect(check.comparison?.maxRelativeError).toBeLessThan(1e-4);
      expect(check.comparison?.passed).toBe(true);
      expect(check.gradientNorm).toBeGreaterThan(0.01);
    });
  });

  it("a gradient that is wrong by 0.2% does not pass", async () => {
    await withAdapter(models.llama, options(), async (policy) => {
      const examples = readExamples("llama");
      const exact = await exactGradients(policy, examples);
      const [name, gradient] = [...exact][2] ?? ["", new Float64Array()];
      const check = await checkGradients({ policy, reference: policy.base, examples, objective });
      const found = check.gradients.find((tensor) => tensor.name === name)?.data ?? new Float32Array();
      expect(relativeDistance(found, gradient)).toBeLessThan(1e-4);
      expect(
        relativeDistance(
          found.map((value) => 1.002 * value),
          gradient,
        ),
      ).toBeGreaterThan(1e-3);
    });
  });
});

async function exactGradients(policy: Model, examples: ReturnType<typeof readExamples>) {
  const { pair, valid } = mismatchedPairs(examples);
  const exact = ktoFloat64Gradient({
    policy: new Float64Model(policy.config, await float64Weights(policy)),
    reference: new Float64Model(policy.config, await float64Weights(policy.base)),
    examples,
    pairs: pair,
    pairValid: valid,
    ...objective,
  });
  return await adapterGradients(policy, exact.gradients);
}

describe("training an adapter", () => {
  const examples = readExamples("llama");
  const trainerOptions = {
    learning_rate: 5e-3,
    lr_scheduler_type: "constant",
    max_steps: 3,
    per_device_train_batch_size: examples.length,
    shuffle_dataset: false,
    weight_decay: 0.1,
    desirable_weight: objective.desirableWeight,
    undesirable_weight: objective.undesirableWeight,
  } as const;

  /** Trains a new adapter, or the given one; its numbers afterwards. */
  async function train(own: LoraOptions, changes: Record<string, unknown> = {}, seed = 1) {
    const adapter = LoraAdapter.create(device, models.llama.config, own);
    adapter.initialize(seed);
    const policy = models.llama.withAdapter(adapter);
    const trainer = await KtoTrainer.create({ policy, examples, options: { ...trainerOptions, ...changes } });
    const memory = device.memory();
    for await (const _ of trainer);
    const weights = await device.download(wholeArena(adapter.weights));
    trainer.free();
    adapter.free();
    return { weights, memory };
  }

  it("starts from the base model, changes A and B only, and needs no memory for the reference", async () => {
    const before = await device.download(wholeArena(models.llama.weights));
    const adapter = LoraAdapter.create(device, models.llama.config, options({ targetModules: "all-linear" }));
    adapter.initialize(7);
    const policy = models.llama.withAdapter(adapter);
    const [base, adapted] = [
      await completionLogProbs(models.llama, examples),
      await completionLogProbs(policy, examples),
    ];
    expect([...adapted]).toEqual([...base]);
    const start = await device.download(wholeArena(adapter.weights));
    const trainer = await KtoTrainer.create({ policy, examples, options: trainerOptions });
    expect(device.memory()["reference weights"] ?? 0).toBe(0);
    for await (const _ of trainer);
    trainer.free();
    expect(bits(await device.download(wholeArena(models.llama.weights)))).toEqual(bits(before));
    const end = await device.download(wholeArena(adapter.weights));
    expect(bits(end)).not.toEqual(bits(start));
    expect([...(await completionLogProbs(policy.base, examples))]).toEqual([...base]);
    expect([...(await completionLogProbs(policy, examples))]).not.toEqual([...base]);
    adapter.free();
  });

  it("takes the AdamW steps of float64", async () => {
    const own = options({ targetModules: ["q_proj", "down_proj"] });
    const { weights } = await train(own);
    const adapter = LoraAdapter.create(device, models.llama.config, own);
    adapter.initialize(1);
    const policy = models.llama.withAdapter(adapter);
    const states = new Map<string, AdamwState>();
    for (let step = 1; step <= trainerOptions.max_steps; step++) {
      const gradients = await exactGradients(policy, examples);
      const clip = Math.min(1, 1 / (globalNorm(gradients.values()) + 1e-6));
      for (const { name, data } of await policy.readTensors(adapter.weights)) {
        const state = states.get(name) ?? {
          parameter: Float64Array.from(data),
          firstMoment: new Float64Array(data.length),
          secondMoment: new Float64Array(data.length),
        };
        const next = adamwStep(state, gradients.get(name) ?? new Float64Array(), {
          learningRate: 5e-3,
          beta1: 0.9,
          beta2: 0.999,
          epsilon: 1e-8,
          weightDecay: 0.1,
          step,
          scale: clip,
        });
        states.set(name, next);
        const part = [...adapter.weights.layout.parts()].find((one) => policy.storedName(one.name) === name);
        if (part) device.upload(adapter.weights.at(part, part.shape), Float32Array.from(next.parameter));
      }
    }
    const wanted = await device.download(wholeArena(adapter.weights));
    adapter.free();
    expect(relativeDistance(weights, wanted)).toBeLessThan(2e-4);
  });

  it("the same seed gives the same bits, with dropout too; dropout changes the result and is off unless asked for", async () => {
    const own = options({ dropout: 0.4 });
    const off = await train(own);
    expect(bits((await train(options())).weights)).toEqual(bits(off.weights));
    const on = await train(own, { disable_dropout: false });
    expect(bits((await train(own, { disable_dropout: false })).weights)).toEqual(bits(on.weights));
    expect(bits(on.weights)).not.toEqual(bits(off.weights));
    const other = await train(own, { disable_dropout: false, seed: 43 });
    expect(bits(other.weights)).not.toEqual(bits(on.weights));
  });

  it("an adapter of another model or another device is refused when it is put to a model", async () => {
    const { llama, gpt2 } = models;
    const own = LoraAdapter.create(device, llama.config, options({ targetModules: "all-linear" }));
    const config = { ...llama.config, intermediateSize: llama.config.intermediateSize + 8 };
    const wider = LoraAdapter.create(device, config, options({ targetModules: ["down_proj"] }));
    const other = await Device.open({ adapter: device.kind, tuning: "off" });
    const elsewhere = LoraAdapter.create(other, llama.config, options());
    expect(() => gpt2.withAdapter(own)).toThrow(
      /^The adapter is for another model than .*gpt2.*: it has a module for "layers\.0\.\S+" of \d+ x \d+, and the model has no such layer; make or load an adapter for this model\.$/,
    );
    expect(() => llama.withAdapter(wider)).toThrow(
      /"layers\.0\.mlp\.down_proj" of .* and the model has one of \d+ x \d+ there; /,
    );
    expect(() => llama.withAdapter(elsewhere)).toThrow(/^The adapter lies on another device than the model .*llama/);
    for (const wrong of [
      () => gpt2.withAdapter(own),
      () => llama.withAdapter(wider),
      () => llama.withAdapter(elsewhere),
    ]) {
      expect(wrong).toThrow(ConfigError);
    }
    expect(llama.withAdapter(own).adapter).toBe(own);
    own.free();
    wider.free();
    other.close();
  });

  it("a model whose weights are not f32 is trained by an adapter only", async () => {
    const frozen = await Model.load(device, models.llama.folder, { dtype: "bf16" });
    await expect(KtoTrainer.create({ policy: frozen, examples })).rejects.toThrow(
      /stored as bf16, and weights that are trained must be f32/,
    );
    await withAdapter(frozen, options({ targetModules: "all-linear" }), async (policy) => {
      const check = await checkGradients({ policy, reference: policy.base, examples, objective });
      expect(check.comparison?.maxRelativeError).toBeLessThan(1e-4);
      const trainer = await KtoTrainer.create({ policy, examples, options: trainerOptions });
      for await (const { metrics } of trainer) if (metrics) expect(metrics.loss).toBeLessThan(0.6);
      trainer.free();
    });
    frozen.free();
  });
});
