/**
 * What a family's fixture is measured by: how far the device is from PyTorch's numbers and from the float64 model, as
 * numbers. Tests and `scripts/family-matrix.ts` decide what is near enough.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeRandomModel } from "../../bench/random-model.ts";
import type { Device } from "../../src/engine/gpu/device.ts";
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { longRopeBeyond } from "../../src/engine/model/config/config.ts";
import { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import { adapterGradients, float64Model, float64Weights } from "../../src/engine/model/float64/lora.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { Model } from "../../src/engine/model/model.ts";
import { Random } from "../../src/engine/random.ts";
import type { QuantizedFormat } from "../../src/kernels/kernel.ts";
import type { ObjectiveOptions } from "../../src/kto/method/objective.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { wholeArena } from "./arenas.ts";
import { bits, normals } from "./compare.ts";
import {
  exactGreedy,
  type FixtureName,
  fixtureFolder,
  loadModel,
  readExamples,
  readExpected,
  readExpectedGradients,
  relativeDistance,
} from "./fixtures.ts";
import { exactStep, microbatchGradients } from "./step.ts";
import { boundsOf, roundedLogProb } from "./tolerances.ts";

function objectiveOf(name: FixtureName): ObjectiveOptions {
  const { beta, desirable_weight, undesirable_weight } = readExpected(name).hyperparameters;
  return { beta, desirableWeight: desirable_weight, undesirableWeight: undesirable_weight, lossType: "kto" };
}

/** The largest |actual - wanted|; Infinity where numbers are missing or not finite. */
function largestDifference(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  if (actual.length !== wanted.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < wanted.length; i++) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - (wanted[i] ?? Number.NaN));
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return largest;
}

/** The largest relative distance of the tensors, and its tensor's name. Both must have the same names. */
function worstTensor(
  actual: ReadonlyMap<string, ArrayLike<number>>,
  wanted: ReadonlyMap<string, ArrayLike<number>>,
): { gradient: number; worst: string } {
  let [gradient, worst] = [0, ""];
  for (const name of new Set([...actual.keys(), ...wanted.keys()])) {
    const distance = relativeDistance(actual.get(name) ?? [], wanted.get(name) ?? [Number.NaN]);
    if (!(distance <= gradient))
      [gradient, worst] = [Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance, name];
  }
  return { gradient, worst };
}

/** One microbatch with its mismatched pairs against PyTorch's numbers. */
export async function familyErrors(name: FixtureName, policy: Model, reference: Model) {
  const expected = readExpected(name);
  const [objective, examples] = [objectiveOf(name), readExamples(name)];
  const found = await microbatchGradients(policy, reference, objective, examples);
  const wanted = new Map([...readExpectedGradients(name)].map(([tensor, { data }]) => [tensor, data]));
  return {
    logProbs: Math.max(
      largestDifference(found.policy, [...expected.policy_logps, ...expected.kl_policy_logps]),
      largestDifference(found.reference, [...expected.reference_logps, ...expected.kl_reference_logps]),
    ),
    loss: largestDifference([found.loss], [expected.loss]),
    z0: largestDifference([found.kl], [expected.kl]),
    ...worstTensor(found.tensors, wanted),
  };
}

/** Whether a microbatch has the same loss and gradients, bit by bit, with gradient checkpointing. */
export async function checkpointingKeepsBits(name: FixtureName, policy: Model, reference: Model): Promise<boolean> {
  const [objective, examples] = [objectiveOf(name), readExamples(name)];
  const [kept, again] = [
    await microbatchGradients(policy, reference, objective, examples),
    await microbatchGradients(policy, reference, objective, examples, { gradientCheckpointing: true }),
  ];
  return again.loss === kept.loss && String(bits(again.gradients)) === String(bits(kept.gradients));
}

/**
 * Five updates by the trainer: the largest errors of loss and z0, and of the gradients' norm as a share of it; of losses
 * alone where the model is steep (`boundsOf`).
 */
export async function updateErrors(name: FixtureName, reference: Model): Promise<{ loss: number; norm: number }> {
  const { adamw, hyperparameters } = readExpected(name);
  const examples = readExamples(name);
  const policy = await loadModel(reference.device, name, "policy");
  const trainer = await KtoTrainer.create({
    policy,
    reference,
    examples,
    options: {
      ...hyperparameters,
      learning_rate: adamw.learning_rate,
      adam_beta1: adamw.adam_beta1,
      adam_beta2: adamw.adam_beta2,
      adam_epsilon: adamw.adam_epsilon,
      weight_decay: adamw.weight_decay,
      max_grad_norm: adamw.max_grad_norm,
      lr_scheduler_type: "constant",
      per_device_train_batch_size: examples.length,
      shuffle_dataset: false,
      max_steps: adamw.steps.length,
      logging_steps: 1,
    },
  });
  try {
    let [loss, norm] = [0, 0];
    for await (const { step, metrics } of trainer) {
      const at = adamw.steps[step - 1];
      const { isSteep } = boundsOf(name);
      const found = [metrics?.loss, metrics?.kl].slice(0, isSteep ? 1 : 2).map((value) => value ?? Number.NaN);
      const exact = [at?.loss, at?.kl].slice(0, found.length).map((value) => value ?? Number.NaN);
      loss = Math.max(loss, largestDifference(found, exact));
      if (isSteep && step > 1) continue;
      const wanted = at?.grad_norm ?? Number.NaN;
      norm = Math.max(norm, largestDifference([(metrics?.grad_norm ?? Number.NaN) / wanted], [1]));
    }
    return { loss, norm };
  } finally {
    trainer.free();
    policy.free();
  }
}

/** Gradients of an adapter on every linear layer, against the float64 model with the adapter merged into it. */
export async function adapterErrors(name: FixtureName, model: Model): Promise<{ gradient: number; worst: string }> {
  const [objective, rows] = [objectiveOf(name), readExamples(name).slice(0, 2)];
  const options = { rank: 3, alpha: 6, dropout: 0, rslora: false, targetModules: "all-linear" };
  const adapter = LoraAdapter.create(model.device, model.config, options);
  try {
    const whole = wholeArena(adapter.weights);
    model.device.upload(whole, normals(new Random(9), elementCount(whole.shape), 0.1));
    const adapted = model.withAdapter(adapter);
    const float64Of = async (of: Model) => await float64Model(of);
    const exact = exactStep(await float64Of(adapted), await float64Of(model), objective, [rows]);
    const { tensors } = await microbatchGradients(adapted, model, objective, rows);
    return worstTensor(tensors, await adapterGradients(adapted, exact.gradients));
  } finally {
    adapter.free();
  }
}

/** A fixture's config.json with widths of which every matrix is whole blocks of quantised numbers. */
function wholeBlocks(name: FixtureName): Record<string, unknown> {
  const config = JSON.parse(readFileSync(join(fixtureFolder(name, "policy"), "config.json"), "utf8"));
  const { num_attention_heads: heads, num_key_value_heads: keyValueHeads = heads } = config;
  if (config.model_type === "gpt2") return { ...config, n_embd: 64 };
  // Heads that the hidden size is not shared out to are fewer; as many share a key head as before, or all have one.
  const fewer = config.head_dim === undefined && 64 % heads !== 0;
  const own = fewer && { num_attention_heads: 4, num_key_value_heads: keyValueHeads === heads ? 4 : 2 };
  const ofLongRope = name === "phi3-longrope" && { num_attention_heads: 4, num_key_value_heads: 1 };
  const width = config.block_ff_dim === undefined ? {} : { block_ff_dim: 64 };
  return { ...config, ...own, ...ofLongRope, ...width, hidden_size: 64, intermediate_size: 64 };
}

/**
 * Tokens of a completion over a quantised base. One of twice as many, as long64's are, has a log-prob below -1024, whose
 * neighbours in f32 are 1.2e-4 apart: a rounding alone is over half the bound.
 */
const QUANTISED_TOKENS = 100;

/**
 * A model of a fixture's configuration with quantised matrices and an adapter on every one of them, against float64 on
 * the numbers that their bytes stand for: log-probs, and the gradients of A and B in a microbatch whose reference is the
 * base.
 */
export async function quantisedErrors(name: FixtureName, device: Device, format: QuantizedFormat) {
  const folder = mkdtempSync(join(tmpdir(), "kto-quantised-"));
  const warnings: string[] = [];
  try {
    await writeRandomModel(folder, wholeBlocks(name), 7);
    const onWarning = (sentence: string) => void warnings.push(sentence);
    const base = await Model.load(device, folder, { quantization: { format }, onWarning });
    if (warnings.length > 0) throw new Error(warnings.join(" "));
    const options = { rank: 3, alpha: 4, dropout: 0, rslora: false, targetModules: "all-linear" };
    const adapter = LoraAdapter.create(device, base.config, options);
    try {
      const whole = wholeArena(adapter.weights);
      device.upload(whole, normals(new Random(5), elementCount(whole.shape), 0.1));
      const policy = base.withAdapter(adapter);
      const objective = objectiveOf(name);
      const rows = readExamples(name).map(({ completionIds, ...row }) => {
        return { ...row, completionIds: Array.from(completionIds).slice(0, QUANTISED_TOKENS) };
      });
      const [exact, exactBase] = [await float64Model(policy), await float64Model(base)];
      const { tensors, policy: found } = await microbatchGradients(policy, base, objective, rows);
      const wanted = rows.map(({ promptIds, completionIds }) => exact.logProb(promptIds, completionIds));
      const { gradients } = exactStep(exact, exactBase, objective, [rows]);
      return {
        logProbs: largestDifference(found.subarray(0, rows.length), wanted),
        ...worstTensor(tensors, await adapterGradients(policy, gradients)),
      };
    } finally {
      adapter.free();
      base.free();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** One microbatch with activations in f16 against PyTorch's numbers, log-probs as a share of what their tokens allow. */
export async function fp16Errors(name: FixtureName, policy: Model, reference: Model) {
  const expected = readExpected(name);
  const [objective, examples] = [objectiveOf(name), readExamples(name)];
  const found = await microbatchGradients(policy, reference, objective, examples, { precision: "fp16" });
  const wanted = new Map([...readExpectedGradients(name)].map(([tensor, { data }]) => [tensor, data]));
  const tokens = examples.map(({ completionIds }) => completionIds.length);
  const ofPairs = tokens.map((_, i) => tokens[(i + 1) % tokens.length] ?? 0);
  const exact = [...expected.policy_logps, ...expected.kl_policy_logps];
  const shares = [...tokens, ...ofPairs].map((count, i) => {
    return Math.abs((found.policy[i] ?? Number.NaN) - (exact[i] ?? Number.NaN)) / roundedLogProb(count);
  });
  return {
    logProbs: largestDifference(
      shares,
      shares.map(() => 0),
    ),
    loss: largestDifference([found.loss], [expected.loss]),
    ...worstTensor(found.tensors, wanted),
  };
}

/** Tokens that are generated: enough to leave the fixtures' windows and to become long to their LongRoPE. */
const NEW_TOKENS = 10;

/** Greedy continuations with the cache where they are not the float64 model's without one; undefined where they are. */
export async function greedyMismatch(
  name: FixtureName,
  policy: Model,
): Promise<{ found: readonly number[][]; wanted: readonly number[][] } | undefined> {
  const [long = [], short = []] = readExamples(name).map(({ promptIds }) => Array.from(promptIds));
  // The last one ends within the windows and the original context of LongRoPE, and its continuation beyond them.
  const prompts = [long, short, long.slice(0, 15)];
  return await mismatchOf(policy, prompts, NEW_TOKENS);
}

/** Prompts as long as LongRoPE's original context, whose second new token is another one if they stay short to it. */
export async function longRopeMismatch(policy: Model) {
  const { config } = policy;
  const length = longRopeBeyond(config) ?? 0;
  const layerRope = config.layerRope.map((rope) => {
    if (rope?.scaling.type !== "longrope") return rope;
    return { ...rope, scaling: { ...rope.scaling, originalContextLength: config.contextLength } };
  });
  const weights = await float64Weights(policy);
  const [exact, short] = [config, { ...config, layerRope }].map((one) => new Float64Model(one, weights));
  const random = new Random(3);
  const drawn = Array.from({ length: 80 }, () => Array.from({ length }, () => 3 + random.below(config.vocabSize - 3)));
  const second = (model: Float64Model | undefined, prompt: number[]) =>
    model && exactGreedy(model, prompt, 2, config.vocabSize)[1];
  const prompts = drawn.filter((prompt) => second(exact, prompt) !== second(short, prompt)).slice(0, 4);
  if (prompts.length < 4) throw new Error("too few prompts tell long sequences from short ones");
  return await mismatchOf(policy, prompts, 3);
}

export async function mismatchOf(policy: Model, prompts: number[][], maxNewTokens: number) {
  const generator = new Generator(policy, {
    maxBatch: 4,
    maxLength: Math.min(200, policy.config.contextLength),
    startLength: 24,
  });
  const options = { maxNewTokens, temperature: 0, topK: 0, topP: 1, seed: 0, eosTokenIds: [] };
  const results = await generator.generate(prompts, options).finally(() => generator.free());
  const exact = await float64Model(policy);
  const found = results.map(({ ids }) => ids);
  const wanted = prompts.map((prompt) => exactGreedy(exact, prompt, maxNewTokens, policy.config.vocabSize));
  return JSON.stringify(found) === JSON.stringify(wanted) ? undefined : { found, wanted };
}
