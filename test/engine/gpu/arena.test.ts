/**
 * Arenas in one buffer and in several: every parameter in its place, and a whole training step that gives the same
 * bits.
 */
import { describe, expect, it } from "vitest";
import { Arena, ParameterLayout } from "../../../src/engine/gpu/arena.ts";
import { elementBytes, elementCount } from "../../../src/engine/gpu/tensor.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { parameterSpecs } from "../../../src/engine/model/weights/parameters.ts";
import { KtoTrainer } from "../../../src/kto/trainer.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";
import { loadModel, readExamples, readExpected, relativeDistance } from "../../helpers/fixtures.ts";
import { gpt2 } from "../../helpers/folders.ts";

const device = await sharedDevice();
const { config } = await loadModel(device, "gpt2", "policy").then((model) => {
  model.free();
  return model;
});
const specs = parameterSpecs(config);

describe("a layout", () => {
  it.each([
    { format: "f32" as const, maxBufferBytes: undefined, segments: 1 },
    { format: "f32" as const, maxBufferBytes: 40_000, segments: undefined },
    { format: "bf16" as const, maxBufferBytes: undefined, segments: 2 },
    { format: "f16" as const, maxBufferBytes: 20_000, segments: undefined },
  ])("$format in buffers of $maxBufferBytes bytes holds each parameter once, aligned, in one buffer", (one) => {
    const { format, maxBufferBytes, segments } = one;
    const layout = new ParameterLayout(specs, maxBufferBytes === undefined ? { format } : { format, maxBufferBytes });
    if (segments === undefined) expect(layout.segments.length).toBeGreaterThan(2);
    else expect(layout.segments).toHaveLength(segments);
    const owners = layout.segments.map(({ size }) => new Array<string | undefined>(size).fill(undefined));
    for (const spec of specs) {
      const { segment, offset } = layout.place(spec.name);
      const { dtype = "f32", size = 0, decayedSize = 0 } = layout.segments[segment] ?? {};
      expect(dtype).toBe(spec.shape.length > 1 ? format : "f32");
      expect((offset * elementBytes(dtype)) % 256).toBe(0);
      const end = offset + elementCount(spec.shape);
      expect(end).toBeLessThanOrEqual(spec.decay ? decayedSize : size);
      if (!spec.decay) expect(offset).toBeGreaterThanOrEqual(decayedSize);
      for (let at = offset; at < end; at++) {
        expect(owners[segment]?.[at]).toBeUndefined();
        if (owners[segment]) owners[segment][at] = spec.name;
      }
      expect(size * elementBytes(dtype)).toBeLessThanOrEqual(
        Math.max(maxBufferBytes ?? Number.POSITIVE_INFINITY, 4 * elementCount(spec.shape) + 256),
      );
    }
    expect(owners.flat().filter((name) => name !== undefined)).toHaveLength(layout.parameterCount);
    expect([...layout.parts()].map(({ name }) => name).sort()).toEqual(
      specs.flatMap(({ parts }) => parts.map(({ name }) => name)).sort(),
    );
  });

  it("windows cover every element once, within one binding, those with decay apart", async () => {
    await withLimits({ maxStorageBufferBindingSize: 4096 }, async (limited) => {
      const layout = new ParameterLayout(specs, { maxBufferBytes: 40_000 });
      const arena = new Arena(limited, layout, "scratch", "windows");
      const seen = layout.segments.map(({ size }) => new Uint8Array(size));
      for (const { decays, of } of arena.windows()) {
        const { buffer, offset, shape } = of(arena);
        const segment = arena.segments.findIndex((tensor) => tensor.buffer === buffer);
        const [count = 0] = shape;
        expect(4 * count).toBeLessThanOrEqual(4096);
        expect(offset % 256).toBe(0);
        for (let at = offset / 4; at < offset / 4 + count; at++) {
          expect(decays).toBe(at < (layout.segments[segment]?.decayedSize ?? 0));
          const marks = seen[segment] ?? new Uint8Array();
          expect(marks[at]).toBe(0);
          marks[at] = 1;
        }
      }
      expect(seen.every((marks) => marks.every((mark) => mark === 1))).toBe(true);
      arena.free();
    });
  });
});

it("training in several buffers gives the bits of training in one", async () => {
  const train = async () => {
    const policy = await Model.load(device, gpt2);
    const trainer = await KtoTrainer.create({
      policy,
      examples: readExamples("gpt2"),
      options: { max_steps: 3, learning_rate: 1e-3, weight_decay: 0.1, max_grad_norm: 0 },
    });
    for await (const _ of trainer);
    const tensors = await policy.readTensors(policy.weights);
    const { segments } = policy.weights;
    trainer.free();
    policy.free();
    return { tensors: tensors.map(({ name, data }) => [name, bits(data)]), buffers: segments.length };
  };
  const one = await train();
  expect(one.buffers).toBe(1);
  const several = await withLimits({ maxBufferSize: 100_000 }, train);
  expect(several.buffers).toBeGreaterThan(1);
  expect(several.tensors).toEqual(one.tensors);
});

it("the norm of the gradients is taken, and clipped, over all buffers", async () => {
  const { adamw } = readExpected("gpt2");
  const expected = adamw.steps[0]?.grad_norm ?? Number.NaN;
  const maxNorm = expected / 4;
  const reference = await loadModel(device, "gpt2", "reference");
  const step = async () => {
    const policy = await Model.load(device, gpt2);
    const trainer = await KtoTrainer.create({
      policy,
      reference,
      examples: readExamples("gpt2"),
      options: {
        ...{ max_steps: 1, learning_rate: 0.01, lr_scheduler_type: "constant", max_grad_norm: maxNorm },
        // So large that an update is the clipped gradient, and not its sign: what is clipped shows.
        ...{ adam_epsilon: 1, logging_steps: 1, shuffle_dataset: false },
      },
    });
    let norm: number | undefined;
    for await (const { metrics } of trainer) norm = metrics?.grad_norm ?? norm;
    const tensors = await policy.readTensors(policy.weights);
    trainer.free();
    policy.free();
    return { norm: norm ?? Number.NaN, weights: tensors.flatMap(({ data }) => [...data]) };
  };
  const one = await step();
  const several = await withLimits({ maxBufferSize: 100_000 }, step);
  reference.free();
  expect(Math.abs(several.norm / expected - 1)).toBeLessThan(1e-3);
  // The sum of squares in another order.
  expect(Math.abs(several.norm / one.norm - 1)).toBeLessThan(1e-6);
  expect(relativeDistance(several.weights, one.weights)).toBeLessThan(1e-6);
});
