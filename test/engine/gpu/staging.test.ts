/** Memory between host and device that stays: numbers of any windows, buffers that serve again, a device that is lost. */
import { expect, test } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { Staging } from "../../../src/engine/gpu/staging.ts";
import type { Tensor } from "../../../src/engine/gpu/tensor.ts";
import { DeviceLostError } from "../../../src/errors.ts";
import { sharedDevice } from "../../helpers/device.ts";

const device = await sharedDevice();

/** Windows of these lengths in two buffers, none at its start. */
function windowsOf(lengths: readonly number[]): Tensor[] {
  const buffers = [0, 1].map((i) => device.allocate("scratch", `windows ${i}`, [64_000]));
  const next = [64, 128];
  return lengths.map((length, i) => {
    const [buffer, at] = [buffers[i % 2], next[i % 2]];
    if (buffer === undefined || at === undefined) throw new Error("no buffer");
    next[i % 2] = at + Math.ceil(length / 64) * 64;
    return { ...buffer, offset: 4 * at, shape: [length] };
  });
}

const numbersOf = (length: number, seed: number) => Float32Array.from({ length }, (_, i) => Math.sin(i + seed));

test.each([[[1]], [[5, 7, 3]], [[16_384]], [[20_000, 1, 30_000, 2]], [[]]])(
  "windows of %j numbers are written and read, again and again and several at once",
  async (lengths) => {
    const staging = new Staging(device);
    const windows = windowsOf(lengths);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    for (let round = 0; round < 3; round++) {
      const [first, second] = [numbersOf(total, round), numbersOf(total, round + 50)];
      staging.write(windows, first);
      const early = staging.read(windows);
      staging.write(windows, second);
      const late = staging.read(windows);
      expect([early.length, late.length]).toEqual([total, total]);
      const [found, foundLate] = [new Float32Array(total), new Float32Array(total)];
      await late.take(foundLate);
      await early.take(found);
      expect(found).toEqual(first);
      expect(foundLate).toEqual(second);
    }
    expect(() => staging.write(windows, new Float32Array(total + 1))).toThrow("bytes for windows");
    staging.free();
    for (const window of windows.slice(0, 2)) device.free(window);
  },
);

test("buffers are made once, not in every round, and none is left", async () => {
  const made: GPUBuffer[] = [];
  const destroyed = new Set<GPUBuffer>();
  const counted = new Proxy(device, {
    get(target, key) {
      if (key !== "gpu") {
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      }
      return new Proxy(target.gpu, {
        get(gpu, name) {
          const value: unknown = Reflect.get(gpu, name, gpu);
          if (name !== "createBuffer") return typeof value === "function" ? value.bind(gpu) : value;
          return (descriptor: GPUBufferDescriptor) => {
            const buffer = gpu.createBuffer(descriptor);
            const destroy = buffer.destroy.bind(buffer);
            buffer.destroy = () => {
              destroyed.add(buffer);
              destroy();
            };
            made.push(buffer);
            return buffer;
          };
        },
      });
    },
  });
  const staging = new Staging(counted);
  const windows = windowsOf([300, 500]);
  const numbers = new Float32Array(800);
  for (let round = 0; round < 5; round++) {
    staging.write(windows, numbersOf(800, round));
    await staging.readInto(windows, numbers);
    await device.idle();
  }
  expect(made.length).toBeLessThanOrEqual(3); // one is read; one is written, or two where the first came back late
  staging.free();
  await device.idle();
  await new Promise((resolve) => setImmediate(resolve));
  expect(destroyed.size).toBe(made.length);
  for (const window of windows) device.free(window);
});

test("a device that is lost is an error, not numbers", async () => {
  const own = await Device.open();
  const staging = new Staging(own);
  const tensor = own.allocate("scratch", "numbers", [256]);
  const reading = staging.read([tensor]);
  own.close();
  await expect(reading.take(new Float32Array(256))).rejects.toThrow(DeviceLostError);
  expect(() => staging.write([tensor], new Float32Array(256))).toThrow(DeviceLostError);
  staging.free();
});
