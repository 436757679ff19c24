/**
 * AdamW with moments of eight bits: the twin's rounding, and steps on the device against float64 from the same codes.
 */
import { describe, expect, it } from "vitest";
import { Program } from "../../src/engine/gpu/program.ts";
import { STEP_NUMBERS } from "../../src/kernels/adamw.ts";
import { adamw8bit } from "../../src/kernels/adamw-8bit.ts";
import { dynamicMap, MOMENT_BLOCK } from "../../src/kernels/dynamic-map.ts";
import { type AdamwState, adamwStep } from "../../src/kernels/float64/adamw.ts";
import { adamw8bitStep, type CodedState, decodeMoments, encodeMoments } from "../../src/kernels/float64/adamw-8bit.ts";
import { OPTIMIZER_STATE } from "../../src/kernels/reduce.ts";
import { EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";

const device = await sharedDevice();
const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)];
const OPTIONS = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 };
const LEARNING_RATE = Math.fround(0.01);
const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

describe("the twin", () => {
  it("codes to the nearest value of a block's own scale, and a second moment above 0 never to 0", () => {
    const random = seeded(1);
    const values = float64(normals(random, 3 * MOMENT_BLOCK + 5)).map((value, i) => value * 10 ** -(i % 7));
    const back = decodeMoments(encodeMoments(values, signed), signed);
    values.forEach((value, i) => {
      const block = Math.floor(i / MOMENT_BLOCK) * MOMENT_BLOCK;
      const scale = Math.max(...values.slice(block, block + MOMENT_BLOCK).map(Math.abs));
      const nearest = Math.min(...Array.from(signed, (code) => Math.abs(code * scale - value)));
      expect(Math.abs(at(back, i) - value)).toBeLessThanOrEqual(nearest * (1 + 1e-12));
    });
    const tiny = encodeMoments(Float64Array.of(1, 1e-12, 0), unsigned);
    expect([...tiny.codes]).toEqual([255, 1, 0]);
  });

  it("moves parameters as AdamW does, to a few hundredths, where gradients keep their size", () => {
    const [n, random] = [1000, seeded(2)];
    const start = float64(normals(random, n));
    let whole: AdamwState = {
      parameter: start,
      firstMoment: new Float64Array(n),
      secondMoment: new Float64Array(n),
    };
    const zeros = { codes: new Uint8Array(n), scales: new Float64Array(4) };
    let coded: CodedState = { parameter: start, first: zeros, second: zeros };
    for (let step = 1; step <= 5; step++) {
      const gradient = float64(normals(random, n));
      const numbers = { ...OPTIONS, learningRate: LEARNING_RATE, step, scale: 1 };
      whole = adamwStep(whole, gradient, numbers);
      coded = adamw8bitStep(coded, gradient, numbers);
    }
    const norm = (values: Float64Array) => Math.hypot(...values);
    const moved = whole.parameter.map((value, i) => value - at(start, i));
    const apart = whole.parameter.map((value, i) => value - at(coded.parameter, i));
    expect(norm(apart) / norm(moved)).toBeLessThan(0.05);
    expect(norm(apart)).toBeGreaterThan(0);
  });
});

/** Codes of four bytes a word, as numbers. */
const unpacked = (words: ArrayBuffer, n: number) => new Uint8Array(words).slice(0, n);

describe("on the device", () => {
  it.each([1, 6, 255, 256, 257, 1000])("four steps of %i parameters equal float64 from the same codes", async (n) => {
    const random = seeded(n);
    const [words, blocks] = [Math.ceil(n / 4), Math.ceil(n / MOMENT_BLOCK)];
    const tensors = {
      gradient: device.allocate("optimizer", "gradient", [n]),
      state: device.allocate("optimizer", "state", [OPTIMIZER_STATE.size]),
      step: device.allocate("optimizer", "step", [STEP_NUMBERS.size]),
      table: device.allocate("optimizer", "table", [512]),
      parameter: device.allocate("optimizer", "parameter", [n]),
      first: device.allocate("optimizer", "first", [words], "u32"),
      second: device.allocate("optimizer", "second", [words], "u32"),
      scales: device.allocate("optimizer", "scales", [blocks, 2]),
    };
    const program = new Program(device, "8 bit");
    const { beta1, beta2 } = OPTIONS;
    program.dispatch(adamw8bit, { ...tensors, ...OPTIONS, complement1: 1 - beta1, complement2: 1 - beta2 });
    await program.prepare();
    device.upload(tensors.table, Float32Array.of(...signed, ...unsigned));
    device.upload(tensors.parameter, normals(random, n));
    const read = async () => {
      const scales = float64(await device.download(tensors.scales));
      const moments = async (codes: typeof tensors.first, place: number) => ({
        codes: unpacked(await device.downloadBytes(codes), n),
        scales: Float64Array.from({ length: blocks }, (_, block) => at(scales, 2 * block + place)),
      });
      return {
        parameter: float64(await device.download(tensors.parameter)),
        first: await moments(tensors.first, 0),
        second: await moments(tensors.second, 1),
      };
    };
    const update = async (step: number, gradient: Float32Array<ArrayBuffer>, skipped = 0) => {
      const numbers = new Float32Array(OPTIMIZER_STATE.size);
      numbers[OPTIMIZER_STATE.clipScale] = 0.5;
      numbers[OPTIMIZER_STATE.correction1] = 1 - beta1 ** step;
      numbers[OPTIMIZER_STATE.correction2] = 1 - beta2 ** step;
      numbers[OPTIMIZER_STATE.skipped] = skipped;
      device.upload(tensors.state, numbers);
      device.upload(tensors.step, Float32Array.of(LEARNING_RATE, 1, 0, 0));
      device.upload(tensors.gradient, gradient);
      program.run();
    };
    try {
      for (let step = 1; step <= 4; step++) {
        // Of very different sizes, with zeros among them.
        const gradient = normals(random, n).map((value, i) => (i % 11 === 3 ? 0 : value * 10 ** -(i % 5)));
        const before = await read();
        await update(step, gradient);
        const after = await read();
        const exact = adamwStep(
          {
            parameter: before.parameter,
            firstMoment: decodeMoments(before.first, signed),
            secondMoment: decodeMoments(before.second, unsigned),
          },
          float64(gradient),
          { ...OPTIONS, learningRate: LEARNING_RATE, step, scale: 0.5 },
        );
        expectWithin("parameter", after.parameter, exact.parameter, (i) => {
          return (
            8 * EPSILON * Math.abs(at(exact.parameter, i)) +
            40 * EPSILON * Math.abs(at(exact.parameter, i) - at(before.parameter, i))
          );
        });
        for (const [kind, values, table] of [
          ["first", exact.firstMoment, signed],
          ["second", exact.secondMoment, unsigned],
        ] as const) {
          const wanted = encodeMoments(values, table);
          expectWithin(`${kind} scales`, after[kind].scales, wanted.scales, (i) => 16 * EPSILON * at(wanted.scales, i));
          // The same code, or its neighbour where the value lies in the middle between both.
          const [device, twin] = [decodeMoments(after[kind], table), decodeMoments(wanted, table)];
          values.forEach((value, i) => {
            const scale = at(wanted.scales, Math.floor(i / MOMENT_BLOCK));
            const [here, there] = [at(device, i), at(twin, i)].map((decoded) => Math.abs(decoded - value));
            expect(at(after[kind].codes, i) === 0, `${kind} ${i}`).toBe(at(wanted.codes, i) === 0);
            expect((here ?? Number.NaN) - (there ?? 0), `${kind} ${i}`).toBeLessThanOrEqual(
              1e-5 * Math.abs(value) + 1e-9 * scale,
            );
          });
        }
      }
      const before = await read();
      await update(5, new Float32Array(n).fill(Number.NaN), 1);
      expect(await read()).toEqual(before);
    } finally {
      program.dispose();
      for (const tensor of Object.values(tensors)) device.free(tensor);
    }
  });
});
