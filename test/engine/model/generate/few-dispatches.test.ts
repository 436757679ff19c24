/**
 * Few rows of a model of Llama's kind on a software adapter: norms, gates, rotation and cache go into the products, to
 * the same tokens, and into nothing where something lies between.
 */
import { expect, it, vi } from "vitest";
import { Program } from "../../../../src/engine/gpu/program.ts";
import { Generator } from "../../../../src/engine/model/generate/generate.ts";
import { Model } from "../../../../src/engine/model/model.ts";
import { sharedDevice } from "../../../helpers/device.ts";
import { exactGreedy, float64Of } from "../../../helpers/fixtures.ts";
import { temporaryFolder } from "../../../helpers/folders.ts";
import { llamaConfig, randomModel } from "../../../helpers/models.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const load = async (config: Readonly<Record<string, unknown>>) =>
  await Model.load(device, await randomModel(folder, config, 1));
const LAYERS = 2;
const shape = { hidden_size: 32, num_attention_heads: 2, head_dim: 64, num_hidden_layers: LAYERS };

/** Greedy continuations, and the kernels of the passes behind the prompts. */
async function generated(model: Model, prompts: number[][]) {
  const run = vi.spyOn(Program.prototype, "run");
  const generator = new Generator(model, { maxBatch: prompts.length, maxLength: 20 });
  try {
    const options = { maxNewTokens: 6, temperature: 0, topK: 0, topP: 1, seed: 1, eosTokenIds: [] };
    const results = await generator.generate(prompts, options);
    const { kernels = [] } = (run.mock.contexts.at(-1) ?? {}) as Partial<Program>;
    return { ids: results.map(({ ids }) => ids), kernels: kernels.map((kernel) => kernel.split(" ")[0] ?? "") };
  } finally {
    run.mockRestore();
    generator.free();
  }
}

const many = (kernels: readonly string[], of: string) => kernels.filter((kernel) => kernel === of).length;
const prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14], [15, 3], [16, 17], [18], [19, 20], [21]];

it.each([1, 9])("%i sequences side by side have five dispatches a layer", async (count) => {
  const model = await load(llamaConfig(shape));
  const exact = await float64Of(model);
  const own = prompts.slice(0, count);
  const { ids, kernels } = await generated(model, own);
  expect(ids).toEqual(own.map((prompt) => exactGreedy(exact, prompt, 6, model.config.vocabSize)));
  // Its norm before the first layer, and the one before the head.
  expect(many(kernels, "rmsNormForward")).toBe(2);
  expect(many(kernels, "projectIntoCache")).toBe(LAYERS);
  expect(many(kernels, "matmulNT")).toBe(3 * LAYERS + 1);
  expect(many(kernels, "attentionForward")).toBe(LAYERS);
  expect(kernels).not.toContain("swigluForward");
  expect(kernels).not.toContain("ropeIntoCache");
  model.free();
});

// A bias and norms of heads lie between projection and cache, a norm behind the branch between product and norm.
it.each([
  ["biases", { ...llamaConfig(shape), attention_bias: true }, 2, 0],
  ["norms of heads", { ...llamaConfig(shape), model_type: "qwen3", architectures: ["Qwen3ForCausalLM"] }, 2, 0],
])("%s take dispatches of their own", async (_, config, norms, projections) => {
  const model = await load(config);
  const exact = await float64Of(model);
  const { ids, kernels } = await generated(model, [[5, 6, 7]]);
  expect(ids).toEqual([exactGreedy(exact, [5, 6, 7], 6, model.config.vocabSize)]);
  expect(many(kernels, "rmsNormForward")).toBe(norms);
  expect(many(kernels, "projectIntoCache")).toBe(projections);
  expect(many(kernels, "ropeIntoCache")).toBe(LAYERS);
  model.free();
});
