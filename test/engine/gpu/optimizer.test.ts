/**
 * AdamW over a model's arena against float64: every parameter, decay, clip, windows, and gradients that are not finite.
 */
import { afterAll, describe, expect, it } from "vitest";
import type { ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { AdamW, type AdamWOptions } from "../../../src/engine/gpu/optimizer.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { elementCount } from "../../../src/engine/gpu/tensor.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { type AdamwState, adamwStep } from "../../../src/kernels/float64/adamw.ts";
import { clipScale, globalNorm } from "../../../src/kernels/float64/reduce.ts";
import { normSums, OPTIMIZER_STATE } from "../../../src/kernels/reduce.ts";
import { arenaSize, wholeArena } from "../../helpers/arenas.ts";
import { bits, EPSILON, expectWithin, normals, seeded } from "../../helpers/compare.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";
import { loadModel } from "../../helpers/fixtures.ts";
import { temporaryFolder } from "../../helpers/folders.ts";
import { gpt2Config, randomModel } from "../../helpers/models.ts";

const device = await sharedDevice();
const folder = temporaryFolder();
const model = await loadModel(device, "gpt2", "policy");
const start = await device.download(wholeArena(model.weights));
afterAll(() => model.free());

const options: AdamWOptions = { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.3, maxGradientNorm: 1 };
const LEARNING_RATE = 1e-2;

/** Which elements of the arena belong to parameters; the others are padding. */
function owners(layout: ParameterLayout): { names: (string | undefined)[]; decays: boolean[] } {
  const names = new Array<string | undefined>(arenaSize(layout)).fill(undefined);
  const decays = new Array<boolean>(arenaSize(layout)).fill(false);
  for (const { name, shape, offset } of layout.parts()) {
    names.fill(name, offset, offset + elementCount(shape));
    decays.fill(shape.length > 1, offset, offset + elementCount(shape));
  }
  return { names, decays };
}

const { names, decays } = owners(model.layout);

/** Gradients of the size of the arena; padding has none. */
function gradientOf(seed: number, scale: number): Float32Array<ArrayBuffer> {
  return normals(seeded(seed), arenaSize(model.layout), scale).map((value, i) => (names[i] === undefined ? 0 : value));
}

/** Updates from these gradients, from the model's first weights; state and weights after each. */
async function updates(
  own: AdamWOptions,
  gradients: readonly Float32Array<ArrayBuffer>[],
  { weights: arena, first } = { weights: model.weights, first: start },
) {
  device.upload(wholeArena(arena), first);
  const optimizer = new AdamW(arena, own);
  const program = new Program(device, "update");
  optimizer.recordStep(program);
  await program.prepare();
  try {
    const results: { weights: Float32Array<ArrayBuffer>; state: Float32Array<ArrayBuffer> }[] = [];
    for (const gradient of gradients) {
      optimizer.setStep(LEARNING_RATE, 1);
      device.upload(wholeArena(optimizer.gradients), gradient);
      program.run();
      const weights = await device.download(wholeArena(arena));
      results.push({ weights, state: await device.download(optimizer.state) });
    }
    return results;
  } finally {
    program.dispose();
    optimizer.free();
  }
}

/** The same in float64. */
function exactUpdates(own: AdamWOptions, gradients: readonly Float32Array[]): Float64Array[] {
  const zeros = () => new Float64Array(start.length);
  const group = (weightDecay: number) => {
    let state: AdamwState = { parameter: Float64Array.from(start), firstMoment: zeros(), secondMoment: zeros() };
    return gradients.map((gradient, index) => {
      const exact = Float64Array.from(gradient);
      const norm = globalNorm([exact]);
      const scale = own.maxGradientNorm > 0 ? clipScale(norm, own.maxGradientNorm) : 1;
      state = adamwStep(state, exact, { ...own, learningRate: LEARNING_RATE, weightDecay, step: index + 1, scale });
      return state.parameter;
    });
  };
  const [decayed, plain] = [group(own.weightDecay), group(0)];
  return gradients.map((_, step) =>
    start.reduce((all, _value, i) => {
      all[i] = (decays[i] ? decayed : plain)[step]?.[i] ?? Number.NaN;
      return all;
    }, zeros()),
  );
}

describe("AdamW", () => {
  const gradients = [gradientOf(1, 0.1), gradientOf(2, 1e-3), gradientOf(3, 0.02)];

  it.each([1, 0])(
    "updates every parameter as float64 does, clipped to a norm of %d (0: not)",
    async (maxGradientNorm) => {
      const own = { ...options, maxGradientNorm };
      const results = await updates(own, gradients);
      const exact = exactUpdates(own, gradients);
      results.forEach(({ weights, state }, step) => {
        // A weight of size w is rounded at each update; the update itself is LEARNING_RATE in size.
        expectWithin(`weights after step ${step + 1}`, weights, exact[step] ?? [], (i) => {
          return 4 * (step + 1) * EPSILON * (Math.abs(start[i] ?? 0) + 1);
        });
        const norm = globalNorm([Float64Array.from(gradients[step] ?? [])]);
        expectWithin("norm", [state[OPTIMIZER_STATE.gradientNorm] ?? 0], [norm], () => 1e-6 * norm);
      });
      // Decay reaches matrices, embeddings and positions, and neither biases nor norms.
      expect(new Set(names.filter((name, i) => name && decays[i])).size).toBe(2 + 4 * 2);
      expect(new Set(names.filter((name, i) => name && !decays[i])).size).toBe(2 + 8 * 2);
    },
  );

  it("windows that the adapter can bind make the same update and the same norm, bit by bit", async () => {
    // Matrices of 590 KB, more than the sums of the norm, which lie in one binding.
    const large = await Model.load(device, await randomModel(folder, gpt2Config({ n_embd: 192 }), 3));
    const limit = 4 * normSums(device.facts);
    const drawn = [1, 2].map((seed) => normals(seeded(seed), arenaSize(large.layout), 0.1));
    const of = { weights: large.weights, first: normals(seeded(3), arenaSize(large.layout)) };
    try {
      const whole = await updates(options, drawn, of);
      const windowed = await withLimits({ maxStorageBufferBindingSize: limit }, () => updates(options, drawn, of));
      for (const [step, { weights, state }] of whole.entries()) {
        expect(bits(windowed[step]?.weights ?? start)).toEqual(bits(weights));
        expect(bits(windowed[step]?.state ?? start)).toEqual(bits(state));
      }
    } finally {
      large.free();
    }
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "a gradient with %d anywhere leaves everything as it was and is counted",
    async (value) => {
      const [first, , third] = gradients as [Float32Array<ArrayBuffer>, unknown, Float32Array<ArrayBuffer>];
      const broken = first.slice();
      broken[arenaSize(model.layout) - 64] = value;
      const clean = await updates(options, [first, third]);
      const results = await updates(options, [first, broken, third]);
      expect(bits(results[1]?.weights ?? start)).toEqual(bits(results[0]?.weights ?? start));
      // The moments and the count of steps too: the next update is the one that it would have been.
      expect(bits(results[2]?.weights ?? start)).toEqual(bits(clean[1]?.weights ?? start));
      expect(results.map(({ state }) => state[OPTIMIZER_STATE.stepsSkipped])).toEqual([0, 1, 1]);
    },
  );

  it("padding between parameters stays zero", async () => {
    const [result] = await updates(options, gradients.slice(0, 1));
    const padding = (result?.weights ?? start).filter((_, i) => names[i] === undefined);
    expect(padding.length).toBeGreaterThan(0);
    expect(padding.every((value) => value === 0)).toBe(true);
  });
});
