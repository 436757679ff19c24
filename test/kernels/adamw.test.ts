/** Whole optimiser steps on the device, global norm, clip and update, against float64 AdamW. */
import { afterAll, describe, expect, it } from "vitest";
import { Program } from "../../src/engine/gpu/program.ts";
import type { Tensor } from "../../src/engine/gpu/tensor.ts";
import { adamw, STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import * as twin from "../../src/kernels/float64/adamw.ts";
import { clipScale, globalNorm } from "../../src/kernels/float64/reduce.ts";
import { clipAndAdvance, NORM_PARTIALS, normSums, OPTIMIZER_STATE, squarePartials } from "../../src/kernels/reduce.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { bits, EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";

const device = await sharedDevice();
const LEARNING_RATE = Math.fround(0.01);
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

interface Options {
  readonly maxNorm: number;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

/** An optimiser over n parameters in two parts of the norm, recorded once and replayed. */
async function optimizer(n: number, start: Float32Array<ArrayBuffer>, options: Options) {
  const { maxNorm, weightDecay, beta1, beta2, epsilon } = options;
  const tensor = (label: string, size: number) => device.allocate("optimizer", label, [size]);
  const tensors = {
    gradient: tensor("gradient", n),
    // In fours where the gradient is: the parts of one norm are all read in the same way.
    other: tensor("other", n % 4 === 0 ? 4 : 3),
    sums: tensor("sums", normSums(BASE_FACTS)),
    partials: tensor("partials", NORM_PARTIALS),
    state: tensor("state", OPTIMIZER_STATE.size),
    step: tensor("step", STEP_NUMBERS.size),
    parameter: tensor("parameter", n),
    first: tensor("first", n),
    second: tensor("second", n),
  };
  const { gradient, other, sums, partials, state, step, parameter, first, second } = tensors;
  device.upload(parameter, start);
  device.upload(step, Float32Array.of(LEARNING_RATE, 1, 0, 0));
  const betas = { beta1, beta2, complement1: 1 - beta1, complement2: 1 - beta2 };
  const program = new Program(device, "optimizer");
  program.dispatch(squarePartials(BASE_FACTS), { x: gradient, sums, partials, first: 1, skipped: 0 });
  program.dispatch(squarePartials(BASE_FACTS), { x: other, sums, partials, first: 0, skipped: 0 });
  program.dispatch(clipAndAdvance, { partials, state, maxNorm, ...betas });
  program.dispatch(adamw, { gradient, state, step, parameter, first, second, ...betas, epsilon, weightDecay });
  await program.prepare();
  return {
    /** Takes a step with this gradient, `rest` being gradients of parameters elsewhere. */
    async step(values: Float32Array<ArrayBuffer>, rest: Float32Array<ArrayBuffer>) {
      device.upload(gradient, values);
      device.upload(other, n % 4 === 0 ? Float32Array.of(...rest, 0) : rest);
      program.run();
    },
    async read() {
      const read = (one: Tensor) => device.download(one);
      return {
        parameter: await read(parameter),
        first: await read(first),
        second: await read(second),
        state: await read(state),
      };
    },
    free() {
      program.dispose();
      for (const one of Object.values(tensors)) device.free(one);
    },
  };
}

const DEFAULTS: Options = { maxNorm: 1, weightDecay: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

async function checkSteps(n: number, options: Options, gradientScale: number): Promise<void> {
  const random = seeded(n);
  const start = normals(random, n);
  const onDevice = await optimizer(n, start, options);
  let wanted: twin.AdamwState = {
    parameter: float64(start),
    firstMoment: new Float64Array(n),
    secondMoment: new Float64Array(n),
  };
  const bound = new Float64Array(n);
  /** The first moment over absolute gradients: what its roundings are relative to. */
  let firstTerms = new Float64Array(n);
  const STEPS = 6;
  for (let t = 1; t <= STEPS; t++) {
    const gradient = normals(random, n, gradientScale);
    const rest = normals(random, 3, gradientScale);
    await onDevice.step(gradient, rest);
    const norm = globalNorm([float64(gradient), float64(rest)]);
    const scale = options.maxNorm > 0 ? clipScale(norm, options.maxNorm) : 1;
    const before = wanted.parameter;
    wanted = twin.adamwStep(wanted, float64(gradient), {
      ...options,
      learningRate: LEARNING_RATE,
      step: t,
      scale,
    });
    firstTerms = firstTerms.map(
      (sum, i) => options.beta1 * sum + (1 - options.beta1) * scale * Math.abs(at(gradient, i)),
    );
    // Per step: three roundings of the parameter's own update; and those of the direction, in which the clip factor
    // carries the norm's (sqrt(n / 256 + 256) additions), the moments and corrections 2 t, root and divisions 16.
    const relative = (Math.sqrt(n / NORM_PARTIALS + NORM_PARTIALS) + 4 * t + 16) * EPSILON;
    const corrections = [1 - options.beta1 ** t, 1 - options.beta2 ** t];
    for (let i = 0; i < n; i++) {
      const root = Math.sqrt(at(wanted.secondMoment, i) / at(corrections, 1)) + options.epsilon;
      const direction = at(firstTerms, i) / at(corrections, 0) / root;
      bound[i] = at(bound, i) + 3 * EPSILON * Math.abs(at(before, i)) + LEARNING_RATE * direction * relative;
    }
    if (t !== 1 && t !== STEPS) continue;
    const actual = await onDevice.read();
    expectWithin(`parameter after ${t}`, actual.parameter, wanted.parameter, bound);
    expectWithin(`first moment after ${t}`, actual.first, wanted.firstMoment, (i) => at(firstTerms, i) * relative);
    expectWithin(`second moment after ${t}`, actual.second, wanted.secondMoment, (i) => {
      return 2 * at(wanted.secondMoment, i) * relative;
    });
    expect(actual.state[OPTIMIZER_STATE.stepsTaken]).toBe(t);
  }
  onDevice.free();
}

describe("AdamW", () => {
  it.each([1, 63, 64, 65, 1000])("six clipped steps of %i parameters equal float64", async (n) => {
    await checkSteps(n, DEFAULTS, 3);
  });

  it("gradients within the limit, and clipping turned off", async () => {
    await checkSteps(67, DEFAULTS, 1e-3);
    await checkSteps(67, { ...DEFAULTS, maxNorm: 0 }, 3);
  });

  it("no decay, other betas, and an epsilon that weighs against the gradient", async () => {
    await checkSteps(67, { maxNorm: 1, weightDecay: 0, beta1: 0.8, beta2: 0.95, epsilon: 1e-3 }, 1e-2);
  });

  it("a parameter whose gradient is always zero is only decayed", async () => {
    const onDevice = await optimizer(2, Float32Array.of(2, 2), DEFAULTS);
    await onDevice.step(Float32Array.of(0, 1), new Float32Array(3));
    const { parameter, first, second } = await onDevice.read();
    const decayed = 2 * (1 - LEARNING_RATE * 0.1);
    expectWithin("decayed", [at(parameter, 0)], [decayed], () => 3 * EPSILON * decayed);
    expect([first[0], second[0]]).toEqual([0, 0]);
    onDevice.free();
  });

  describe("gradients that are not finite", () => {
    const n = 70;
    const random = seeded(6);
    const good = normals(random, n);
    const opened = optimizer(n, normals(random, n), DEFAULTS);
    afterAll(async () => (await opened).free());

    it.each([
      ["NaN among the parameters", 69, Number.NaN, 0],
      ["Infinity among the parameters", 0, Number.POSITIVE_INFINITY, 0],
      ["-Infinity elsewhere in the norm", 0, 1, Number.NEGATIVE_INFINITY],
      ["squares that overflow", 3, 3e19, 0],
    ])("%s: nothing changes and the step is counted", async (_, place, value, elsewhere) => {
      const onDevice = await opened;
      await onDevice.step(good, Float32Array.of(1, 2, 3));
      const before = await onDevice.read();
      const bad = good.slice();
      bad[place] = value;
      await onDevice.step(bad, Float32Array.of(1, elsewhere, 3));
      const after = await onDevice.read();
      for (const name of ["parameter", "first", "second"] as const) {
        expect(bits(after[name]), name).toEqual(bits(before[name]));
      }
      const { stepsTaken, stepsSkipped, correction1, correction2, skipped } = OPTIMIZER_STATE;
      expect(after.state[skipped]).toBe(1);
      expect(after.state[stepsSkipped]).toBe(at(before.state, stepsSkipped) + 1);
      for (const kept of [stepsTaken, correction1, correction2]) expect(after.state[kept]).toBe(before.state[kept]);
    });
  });
});
