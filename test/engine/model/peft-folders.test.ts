/**
 * Adapters whose folders are made by hand, as PEFT writes them: ranks and alphas by pattern, layers by number, excluded
 * modules, tensors with the adapter's name in theirs, whole tensors of the base beside the adapter.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { openSafetensors, writeSafetensors } from "../../../src/engine/files/safetensors.ts";
import { Float64Model } from "../../../src/engine/model/float64/decoder.ts";
import { mergeAdapter } from "../../../src/engine/model/merge.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadAdapter, saveAdapter } from "../../../src/engine/model/peft.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { ModelFormatError } from "../../../src/errors.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits, expectWithin, normals, seeded } from "../../helpers/compare.ts";
import { ALL_SHAPES, sharedDevice } from "../../helpers/device.ts";
import { float64Weights, readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";

const folder = temporaryFolder();
const device = await sharedDevice();
const model = await Model.load(device, llama);
afterAll(() => model.free());
const examples = readExamples("llama");

it("a pattern of its configuration that takes for ever is named, with exit code 4", async () => {
  // Each takes the 5 s of processor time that it may take.
  for (const option of ALL_SHAPES ? (["target_modules", "rank_pattern"] as const) : (["rank_pattern"] as const)) {
    const path = freshPath(folder, "endless");
    mkdirSync(path);
    const endless = "([a-z0-9_.]+)+#";
    const value = option === "target_modules" ? endless : { [endless]: 2 };
    const config = { peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: ["q_proj"], [option]: value };
    writeFileSync(join(path, "adapter_config.json"), JSON.stringify(config));
    await writeSafetensors(join(path, "adapter_model.safetensors"), [], {});
    const refused = await loadAdapter(model, path).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ModelFormatError);
    expect(refused).toMatchObject({ exitCode: 4 });
    expect((refused as Error).message).toMatch(
      new RegExp(
        `endless.*adapter_config\\.json does not fit the base model: "${option}" .*\\)\\+#" takes longer than 5 s`,
      ),
    );
  }
});

it("a bug of ours while its modules are chosen is not taken for a fault of the folder", async () => {
  const path = freshPath(folder, "bug");
  mkdirSync(path);
  const config = { peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: "q_.*" };
  writeFileSync(join(path, "adapter_config.json"), JSON.stringify(config));
  await writeSafetensors(join(path, "adapter_model.safetensors"), [], {});
  const bug = vi.spyOn(platform, "withinTime").mockImplementation(() => {
    throw new TypeError("a bug");
  });
  await expect(loadAdapter(model, path)).rejects.toThrow(new TypeError("a bug"));
  bug.mockRestore();
});

interface HandMade {
  readonly config: Readonly<Record<string, unknown>>;
  /** Rank and alpha by module, of the base's class. */
  readonly modules: Readonly<Record<string, readonly [rank: number, alpha: number]>>;
}

const attention = (layer: number, part: string) => `model.layers.${layer}.self_attn.${part}_proj`;

/** Inputs and outputs of the fixture's projections: 4 heads of 8 over 2 key-value heads. */
const SIZES: Readonly<Record<string, readonly [number, number]>> = {
  q_proj: [32, 32],
  k_proj: [32, 16],
  v_proj: [32, 16],
  o_proj: [32, 32],
};

const patterns: HandMade = {
  config: {
    r: 4,
    lora_alpha: 6,
    target_modules: ["q_proj", "v_proj", "k_proj", "gone_proj"],
    exclude_modules: ["layers.0.self_attn.k_proj"],
    rank_pattern: { "layers.1.self_attn.q_proj": 7, q_proj: 2 },
    alpha_pattern: { "^model\\.layers\\.0\\..*": 9 },
  },
  modules: {
    [attention(0, "q")]: [2, 9],
    [attention(0, "v")]: [4, 9],
    [attention(1, "q")]: [7, 6],
    [attention(1, "k")]: [4, 6],
    [attention(1, "v")]: [4, 6],
  },
};

const layers: HandMade = {
  config: {
    r: 3,
    lora_alpha: 5,
    use_rslora: true,
    target_modules: ["q_proj", "o_proj"],
    layers_to_transform: [1],
    layers_pattern: "layers",
    rank_pattern: { "o_.*": 5 },
  },
  modules: { [attention(1, "q")]: [3, 5], [attention(1, "o")]: [5, 5] },
};

const pattern: HandMade = {
  config: { r: 2, lora_alpha: 4, target_modules: ".*layers\\.0.*(q|o)_proj", exclude_modules: ".*\\.o_proj" },
  modules: { [attention(0, "q")]: [2, 4] },
};

interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

/** Random A and B of each module. */
function matrices({ modules }: HandMade): Tensor[] {
  const random = seeded(8);
  return Object.entries(modules).flatMap(([name, [rank]]) => {
    const [inputs = 0, outputs = 0] = SIZES[name.slice(name.lastIndexOf(".") + 1)] ?? [];
    return [
      { name: `${name}.lora_A.weight`, shape: [rank, inputs], data: normals(random, rank * inputs, 0.2) },
      { name: `${name}.lora_B.weight`, shape: [outputs, rank], data: normals(random, outputs * rank, 0.2) },
    ];
  });
}

/** A folder as PEFT writes it. */
async function written({ config }: HandMade, tensors: readonly Tensor[]): Promise<string> {
  const into = freshPath(folder, "adapter");
  mkdirSync(into);
  writeFileSync(join(into, "adapter_config.json"), JSON.stringify({ peft_type: "LORA", bias: "none", ...config }));
  const named = tensors.map((tensor) => ({ ...tensor, name: `base_model.model.${tensor.name}` }));
  await writeSafetensors(join(into, "adapter_model.safetensors"), named, { format: "pt" });
  return into;
}

/** The base in float64 with the matrices merged by hand. */
function merged({ config, modules }: HandMade, tensors: readonly Tensor[]): Float64Model {
  const { config: modelConfig, weights } = float64Weights("llama", "policy");
  const data = (name: string) => tensors.find((tensor) => tensor.name === name)?.data ?? new Float32Array(0);
  for (const [name, [rank, alpha]] of Object.entries(modules)) {
    const [a, b] = [data(`${name}.lora_A.weight`), data(`${name}.lora_B.weight`)];
    const weight = weights.get(`${name}.weight`)?.data ?? new Float64Array(0);
    const scale = alpha / (config.use_rslora ? Math.sqrt(rank) : rank);
    const inputs = a.length / rank;
    weight.forEach((_, place) => {
      const [row, column] = [Math.floor(place / inputs), place % inputs];
      for (let r = 0; r < rank; r++) {
        weight[place] = (weight[place] ?? 0) + scale * (b[row * rank + r] ?? 0) * (a[r * inputs + column] ?? 0);
      }
    });
  }
  return new Float64Model(modelConfig, weights);
}

describe.each(Object.entries({ patterns, layers, pattern }))("an adapter with %s", (_, handMade) => {
  const tensors = matrices(handMade);
  const exact = merged(handMade, tensors);
  const wanted = examples.map((row) => exact.logProb(row.promptIds, row.completionIds));

  it("computes what the merged weights do in float64, merged by kto merge too", async () => {
    const into = await written(handMade, tensors);
    const adapter = await loadAdapter(model, into);
    expectWithin("two", await completionLogProbs(model.withAdapter(adapter), examples), wanted, () => 1e-4);
    adapter.free();
    const whole = freshPath(folder, "merged");
    await mergeAdapter(llama, into, whole);
    const one = await Model.load(device, whole);
    expectWithin("merged", await completionLogProbs(one, examples), wanted, () => 1e-4);
    one.free();
    const base = await completionLogProbs(model, examples);
    expect(Math.max(...wanted.map((value, i) => Math.abs(value - (base[i] ?? 0))))).toBeGreaterThan(0.02);
  });

  it("is trained with its own ranks, and written back as it came", async () => {
    const into = await written(handMade, tensors);
    const adapter = await loadAdapter(model, into);
    const policy = model.withAdapter(adapter);
    const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
    const { comparison, gradients } = await checkGradients({ policy, reference: model, examples, objective });
    expect(comparison?.passed).toBe(true);
    expect(comparison?.maxRelativeError).toBeLessThan(1e-4);
    expect(gradients).toHaveLength(tensors.length);
    const trainer = await KtoTrainer.create({
      policy,
      examples,
      options: { max_steps: 1, per_device_train_batch_size: examples.length, learning_rate: 1e-2 },
    });
    for await (const __ of trainer);
    trainer.free();
    const back = freshPath(folder, "back");
    await saveAdapter(policy, back);
    const file = await openSafetensors(join(back, "adapter_model.safetensors"));
    const shapes = Object.fromEntries([...file.tensors].map(([name, { shape }]) => [name, shape]));
    const first = tensors[0] ?? { name: "", data: new Float32Array(0) };
    const changed = await file.readF32(`base_model.model.${first.name}`);
    await file.close();
    expect(shapes).toEqual(Object.fromEntries(tensors.map(({ name, shape }) => [`base_model.model.${name}`, shape])));
    expect(bits(changed)).not.toEqual(bits(first.data));
    expect(JSON.parse(readFileSync(join(back, "adapter_config.json"), "utf8"))).toMatchObject(handMade.config);
    const again = await loadAdapter(model, back);
    const whole = (one: typeof adapter) => device.download(wholeArena(one.weights));
    expect(bits(await whole(again))).toEqual(bits(await whole(adapter)));
    again.free();
    adapter.free();
  });
});

describe("names with the adapter's name", () => {
  const renamed = (tensors: readonly Tensor[]) =>
    tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace(/\.weight$/, ".default.weight") }));

  it("are read as PEFT's own", async () => {
    const tensors = matrices(patterns);
    const [plain, named] = [
      await loadAdapter(model, await written(patterns, tensors)),
      await loadAdapter(model, await written(patterns, renamed(tensors))),
    ];
    const numbers = await device.download(wholeArena(plain.weights));
    expect(bits(await device.download(wholeArena(named.weights)))).toEqual(bits(numbers));
    expect(numbers.some((value) => value !== 0)).toBe(true);
    plain.free();
    named.free();
  });

  it("are refused where a tensor is there twice", async () => {
    const tensors = matrices(pattern);
    const into = await written(pattern, [...tensors, ...renamed(tensors)]);
    await expect(loadAdapter(model, into)).rejects.toThrow(/tensors "[^"]*weight" and "[^"]*default.weight" are both/);
  });
});

describe("whole tensors of the base beside an adapter", () => {
  const zeros = (shape: readonly number[]) => new Float32Array(shape.reduce((size, axis) => size * axis, 1));

  async function tensorOf(path: string, name: string): Promise<Tensor> {
    const file = await openSafetensors(join(path, "model.safetensors"));
    const data = await file.readF32(name);
    const shape = file.tensors.get(name)?.shape ?? [];
    await file.close();
    return { name, shape, data };
  }

  it("are left out where they are the same and were not asked for", async () => {
    const both = [await tensorOf(llama, "model.embed_tokens.weight"), await tensorOf(llama, "lm_head.weight")];
    const into = await written(pattern, [...matrices(pattern), ...both]);
    const warnings: string[] = [];
    const onWarning = (sentence: string) => warnings.push(sentence);
    (await loadAdapter(model, into, { onWarning })).free();
    await mergeAdapter(llama, into, freshPath(folder, "merged"), { onWarning });
    const sentence = expect.stringMatching(
      /adapter_model\.safetensors also holds model\.embed_tokens\.weight, lm_head\.weight, the same as in the base/,
    );
    expect(warnings).toEqual([sentence, sentence]);
  });

  it("are the same as a tied head's embedding too", async () => {
    const tied = await randomModel(folder, llamaConfig({ vocab_size: 96, hidden_size: 32, num_attention_heads: 4 }), 1);
    const base = await Model.load(device, tied);
    const embedding = await tensorOf(tied, "model.embed_tokens.weight");
    const own: HandMade = { config: { r: 1, lora_alpha: 1, target_modules: ["q_proj"] }, modules: {} };
    const q = [
      { name: `${attention(0, "q")}.lora_A.weight`, shape: [1, 32], data: zeros([1, 32]) },
      { name: `${attention(0, "q")}.lora_B.weight`, shape: [32, 1], data: zeros([32, 1]) },
    ];
    const warnings: string[] = [];
    const into = await written(own, [...q, { ...embedding, name: "lm_head.weight" }]);
    (await loadAdapter(base, into, { onWarning: (sentence) => warnings.push(sentence) })).free();
    expect(warnings).toHaveLength(1);
    base.free();
  });

  it.each<[string, (tensor: Tensor) => Tensor, RegExp]>([
    [
      "were trained",
      (tensor) => ({ ...tensor, data: tensor.data.map((value, i) => (i === 700 ? value + 1e-6 : value)) }),
      /tensor "base_model\.model\.lm_head\.weight" is a whole "lm_head\.weight" whose numbers differ from the base's, though "modules_to_save" does not name it/,
    ],
    [
      "were resized",
      ({ name, shape: [rows = 0, width = 0] }) => ({ name, shape: [rows + 1, width], data: zeros([rows + 1, width]) }),
      /is a whole "lm_head\.weight" of shape \[\d+, 32\] where the base's is \[\d+, 32\], though/,
    ],
    [
      "have an adapter",
      () => ({ name: "lm_head.lora_A.weight", shape: [2, 32], data: zeros([2, 32]) }),
      /lm_head\.lora_A\.weight" belongs to a layer that adapter_config\.json does not select/,
    ],
    [
      "have an adapter as an embedding",
      () => ({ name: "model.embed_tokens.lora_embedding_A", shape: [2, 32], data: zeros([2, 32]) }),
      /lora_embedding_A" belongs to a layer that adapter_config\.json does not select/,
    ],
    [
      "are DoRA's",
      () => ({ name: `${attention(0, "q")}.lora_magnitude_vector`, shape: [32], data: zeros([32]) }),
      /belongs to DoRA, but "use_dora" of adapter_config\.json is not true/,
    ],
    [
      "are biases",
      () => ({ name: `${attention(0, "q")}.bias`, shape: [32], data: zeros([32]) }),
      /q_proj\.bias" is a bias, but "bias" of adapter_config\.json is "none"/,
    ],
    [
      "are of a module that the base lacks",
      () => ({ name: "score.weight", shape: [2, 32], data: zeros([2, 32]) }),
      /"modules_to_save" names "score", which is no module of this model; it has down_proj, embed_tokens/,
    ],
  ])("are refused by their cause where they %s", async (reason, change, message) => {
    const config = { ...pattern.config, modules_to_save: reason.includes("lacks") ? ["score"] : null };
    const into = await written({ ...pattern, config }, [
      ...matrices(pattern),
      change(await tensorOf(llama, "lm_head.weight")),
    ]);
    const before = device.totalBytes;
    await expect(loadAdapter(model, into)).rejects.toThrow(message);
    await expect(mergeAdapter(llama, into, freshPath(folder, "merged"))).rejects.toThrow(message);
    expect(device.totalBytes).toBe(before);
  });
});
