/**
 * A fixture's five AdamW updates one by one: each is compared with float64 from the weights and moments that the device
 * had before it. Nothing that an earlier update did differently is counted again, so every update of every fixture can be
 * bounded, those of models that are steep too; and what the weights are at the end, for moments of both formats.
 */

import type { Arena } from "../../src/engine/gpu/arena.ts";
import type { Device } from "../../src/engine/gpu/device.ts";
import type { MomentFormat } from "../../src/engine/gpu/moments.ts";
import { longRopeBeyond } from "../../src/engine/model/config/config.ts";
import { Float64Model } from "../../src/engine/model/float64/decoder.ts";
import type { Model } from "../../src/engine/model/model.ts";
import { type AdamwState, adamwStep } from "../../src/kernels/float64/adamw.ts";
import { clipScale, globalNorm } from "../../src/kernels/float64/reduce.ts";
import { type Batch, packBatch } from "../../src/kto/method/batch.ts";
import { Update } from "../../src/kto/method/update.ts";
import { arenaNumbers } from "./arenas.ts";
import {
  type FixtureName,
  float64Fixture,
  loadModel,
  readExamples,
  readExpected,
  relativeDistance,
} from "./fixtures.ts";
import { decays, float64Updates, remembered } from "./float64-updates.ts";
import { exactStep } from "./step.ts";

interface FixtureUpdate {
  readonly policy: Model;
  readonly update: Update;
  readonly batch: Batch;
}

/** Uses a fixture's update of one microbatch, with its own hyperparameters; gives the memory back. */
async function withUpdate<T>(
  device: Device,
  name: FixtureName,
  moments: { readonly momentFormat?: MomentFormat; readonly leastCoded?: number },
  use: (made: FixtureUpdate) => Promise<T>,
): Promise<T> {
  const { hyperparameters, adamw } = readExpected(name);
  const policy = await loadModel(device, name, "policy");
  const reference = await loadModel(device, name, "reference");
  const longBeyond = longRopeBeyond(policy.config);
  const batch = packBatch(readExamples(name), { mismatched: true, maxLength: policy.config.contextLength, longBeyond });
  const update = new Update({
    policy,
    reference,
    shapes: [batch.packed.shape],
    maxSize: batch.size,
    objective: objectiveOf(hyperparameters),
    optimizer: {
      beta1: adamw.adam_beta1,
      beta2: adamw.adam_beta2,
      epsilon: adamw.adam_epsilon,
      weightDecay: adamw.weight_decay,
      maxGradientNorm: adamw.max_grad_norm,
      ...moments,
    },
    referencePointScope: "microbatch",
  });
  try {
    return await use({ policy, update, batch });
  } finally {
    update.free();
    policy.free();
    reference.free();
  }
}

function objectiveOf(given: ReturnType<typeof readExpected>["hyperparameters"]) {
  const { beta, desirable_weight: desirableWeight, undesirable_weight: undesirableWeight } = given;
  return { beta, desirableWeight, undesirableWeight, lossType: "kto" } as const;
}

/** Errors of the worst of the five updates, each begun where the device was. */
export interface StepErrors {
  /** Of a gradient tensor, relative in norm; `worst` is its name. */
  readonly gradient: number;
  readonly worst: string;
  /** Of the gradients' norm before the clip, relative. */
  readonly norm: number;
  /** Of how far a tensor moved, relative in norm, against AdamW in float64 on the device's own gradients. */
  readonly moved: number;
  /** Of the weights after it, relative in norm, against the whole update in float64, gradients too. */
  readonly weights: number;
}

/** Five updates of moments in f32, each against float64 from where the device was before it. */
export async function eachStepErrors(name: FixtureName, device: Device): Promise<StepErrors> {
  const { adamw, hyperparameters } = readExpected(name);
  const rows = readExamples(name);
  const reference = remembered(float64Fixture(name, "reference"));
  return await withUpdate(device, name, {}, async ({ policy, update, batch }) => {
    const read = (arena: Arena) => tensorsOf(policy, arena);
    const { optimizer } = update;
    let errors: StepErrors = { gradient: 0, worst: "", norm: 0, moved: 0, weights: 0 };
    for (const index of adamw.steps.keys()) {
      const before = await read(policy.weights);
      const [first, second] = [await read(optimizer.moments.first), await read(optimizer.moments.second)];
      await update.run([batch], adamw.learning_rate, index);
      const after = await read(policy.weights);
      const gradients = await read(optimizer.gradients);
      const exact = exactStep(new Float64Model(policy.config, before), reference, objectiveOf(hyperparameters), [rows]);
      const norm = globalNorm([...gradients.values()].map(({ data }) => data));
      errors = { ...errors, norm: Math.max(errors.norm, Math.abs(norm / exact.gradientNorm - 1)) };
      let [apart, size] = [0, 0];
      for (const [tensor, { data: start }] of before) {
        const state: AdamwState = {
          parameter: start,
          firstMoment: dataOf(first, tensor),
          secondMoment: dataOf(second, tensor),
        };
        const options = {
          learningRate: adamw.learning_rate,
          beta1: adamw.adam_beta1,
          beta2: adamw.adam_beta2,
          epsilon: adamw.adam_epsilon,
          weightDecay: decays(tensor) ? adamw.weight_decay : 0,
          step: index + 1,
        };
        const [found, own] = [dataOf(after, tensor), dataOf(gradients, tensor)];
        const ofOwn = adamwStep(state, own, { ...options, scale: clipScale(norm, adamw.max_grad_norm) }).parameter;
        const wanted = exact.gradients.get(tensor) ?? new Float64Array(start.length).fill(Number.NaN);
        const scale = clipScale(exact.gradientNorm, adamw.max_grad_norm);
        const whole = adamwStep(state, wanted, { ...options, scale }).parameter;
        const gradient = relativeDistance(own, wanted);
        // The first difference that is no number stays.
        if (!(gradient <= errors.gradient)) errors = { ...errors, gradient, worst: tensor };
        const moved = relativeDistance(difference(found, start), difference(ofOwn, start));
        errors = { ...errors, moved: Math.max(errors.moved, moved) };
        whole.forEach((value, i) => {
          apart += ((found[i] ?? Number.NaN) - value) ** 2;
          size += value ** 2;
        });
      }
      errors = { ...errors, weights: Math.max(errors.weights, Math.sqrt(apart / size)) };
    }
    return errors;
  });
}

type Tensors = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float64Array<ArrayBuffer> }>;

async function tensorsOf(policy: Model, arena: Arena): Promise<Tensors> {
  const tensors = await policy.readTensors(arena);
  return new Map(tensors.map(({ name, shape, data }) => [name, { shape, data: Float64Array.from(data) }]));
}

function dataOf(tensors: Tensors, name: string): Float64Array<ArrayBuffer> {
  const found = tensors.get(name);
  if (found === undefined) throw new Error(`the device has no "${name}"`);
  return found.data;
}

const difference = (to: Float64Array, from: Float64Array) => to.map((value, i) => value - (from[i] ?? Number.NaN));

/** How far all weights together are, relative in norm, after five updates in a row, from five in float64. */
export async function afterAllError(name: FixtureName, device: Device): Promise<number> {
  const { adamw } = readExpected(name);
  const found = await withUpdate(device, name, {}, async ({ policy, update, batch }) => {
    for (const step of adamw.steps.keys()) await update.run([batch], adamw.learning_rate, step);
    return await tensorsOf(policy, policy.weights);
  });
  const wanted = [...float64Updates(name).weights];
  return relativeDistance(
    wanted.flatMap(([tensor]) => [...dataOf(found, tensor)]),
    wanted.flatMap(([, data]) => [...data]),
  );
}

/**
 * How far apart the weights are after five updates with moments in 8 bits, every tensor's, and in f32, as a share of how
 * far those of f32 moved.
 */
export async function eightBitDistance(name: FixtureName, device: Device): Promise<number> {
  const { adamw } = readExpected(name);
  const trained = (momentFormat: MomentFormat) =>
    withUpdate(device, name, { momentFormat, leastCoded: 1 }, async ({ policy, update, batch }) => {
      const before = await arenaNumbers(policy.weights);
      for (const step of adamw.steps.keys()) await update.run([batch], adamw.learning_rate, step);
      return { before, after: await arenaNumbers(policy.weights) };
    });
  const [{ before, after }, coded] = [await trained("f32"), await trained("8bit")];
  const from = (weights: Float32Array) => weights.map((value, i) => value - (before[i] ?? Number.NaN));
  return relativeDistance(from(coded.after), from(after));
}
