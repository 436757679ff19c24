/** Buffers and their accounting, transfers, and errors that come back at the next call in the foreground. */
import { describe, expect, it, vi } from "vitest";
import { Device, type DeviceOptions } from "../../../src/engine/gpu/device.ts";
import { byteLength, reshape, rowWindows, sliceRows, type Tensor } from "../../../src/engine/gpu/tensor.ts";
import { AdapterError, ConfigError, DeviceLostError } from "../../../src/errors.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";

const device = await sharedDevice();

describe("opening", () => {
  it("with core features asks for nothing that WebGPU does not guarantee", async () => {
    const core = await Device.open({ adapter: device.kind, features: "core" });
    try {
      expect([...core.gpu.features].filter((feature) => feature !== "core-features-and-limits")).toEqual([]);
      expect(core.facts.subgroupSize).toBe(0);
      // The specification's default limits.
      const { limits } = core;
      expect([limits.maxStorageBuffersPerShaderStage, limits.maxComputeWorkgroupStorageSize]).toEqual([8, 16384]);
      expect([limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX]).toEqual([256, 256]);
      expect([limits.maxStorageBufferBindingSize, limits.maxBufferSize]).toEqual([2 ** 27, 2 ** 28]);
    } finally {
      core.close();
    }
  });

  it.each([
    ["KTO_FEATURES", 'the variable KTO_FEATURES is "some"; use all or core.'],
    ["KTO_TUNING", 'the variable KTO_TUNING is "some"; use on or off or matrices.'],
  ])("refuses what %s does not mean", async (variable, sentence) => {
    vi.stubEnv(variable, "some");
    await expect(Device.open()).rejects.toThrow(new ConfigError(sentence));
    vi.unstubAllEnvs();
  });

  it.each([
    [{ features: "some" }, 'option "features" is "some"; use all or core.'],
    [{ tuning: "some" }, 'option "tuning" is "some"; use on or off or matrices.'],
  ])("refuses %j, which a program without types may give", async (options, sentence) => {
    await expect(Device.open(options as DeviceOptions)).rejects.toThrow(new ConfigError(sentence));
  });
});

describe("memory", () => {
  it("is counted by category, in whole windows of 256 bytes, and given back once", () => {
    const before = device.memory();
    const total = device.totalBytes;
    const tensors = [
      device.allocate("gradients", "a", [3, 5]),
      device.allocate("gradients", "b", [65]),
      device.allocate("batch", "c", [1], "u32"),
    ] as [Tensor, Tensor, Tensor];
    const grown = (category: string) => (device.memory()[category] ?? 0) - (before[category] ?? 0);
    expect([grown("gradients"), grown("batch")]).toEqual([256 + 512, 256]);
    expect(device.totalBytes).toBe(total + 1024);
    expect(device.peakBytes).toBeGreaterThanOrEqual(device.totalBytes);
    const peak = device.peakBytes;
    device.free(tensors[0]);
    device.free(tensors[0]);
    device.free({ ...tensors[1], shape: [1] }); // a window stands for its buffer
    device.free(tensors[2]);
    expect(device.memory()).toEqual(before);
    expect(device.peakBytes).toBe(peak);
  });

  it("starts as zeros, an empty tensor too", async () => {
    const tensor = device.allocate("scratch", "zeros", [100]);
    expect([...(await device.download(tensor))]).toEqual(new Array(100).fill(0));
    const empty = device.allocate("scratch", "empty", [0, 7]);
    expect(await device.download(empty)).toHaveLength(0);
    device.free(tensor);
    device.free(empty);
  });

  it("more than one buffer may hold is refused by name, size and limit", async () => {
    await withLimits({ maxBufferSize: 1000 }, async () => {
      expect(() => device.allocate("weights", "embedding", [300])).toThrow(AdapterError);
      expect(() => device.allocate("weights", "embedding", [300])).toThrow(
        /^"embedding" needs 1280 bytes in one buffer and the adapter ".+" allows 1000; use a smaller batch or a smaller model\.$/,
      );
    });
  });

  describe("reading back", () => {
    /** The staging buffers that `work` has made. */
    async function stagingOf(
      work: () => Promise<unknown>,
      change: (staging: GPUBuffer) => void = () => {},
    ): Promise<{ made: GPUBuffer[]; destroyed: GPUBuffer[] }> {
      const made: GPUBuffer[] = [];
      const destroyed: GPUBuffer[] = [];
      const create = device.gpu.createBuffer.bind(device.gpu);
      const spy = vi.spyOn(device.gpu, "createBuffer").mockImplementation((descriptor) => {
        const buffer = create(descriptor);
        if (descriptor.label !== "staging") return buffer;
        made.push(buffer);
        change(buffer);
        const destroy = buffer.destroy.bind(buffer);
        vi.spyOn(buffer, "destroy").mockImplementation(() => {
          destroyed.push(buffer);
          return destroy();
        });
        return buffer;
      });
      try {
        await work();
      } finally {
        spy.mockRestore();
      }
      return { made, destroyed };
    }

    it("keeps a small staging buffer for the next time and no large one", async () => {
      // Sizes that no other test reads.
      const small = device.allocate("scratch", "small", [64 * 1237]);
      const large = device.allocate("scratch", "large", [2 ** 18 + 64]);
      const { made, destroyed } = await stagingOf(async () => {
        for (const tensor of [small, small, large, large]) await device.download(tensor);
      });
      expect(made.map(({ size }) => size)).toEqual([4 * 64 * 1237, 2 ** 20 + 256, 2 ** 20 + 256]);
      expect(destroyed).toEqual(made.slice(1));
      device.free(small);
      device.free(large);
    });

    it("that fails destroys its staging buffer", async () => {
      const tensor = device.allocate("scratch", "read", [64 * 1239]);
      const { made, destroyed } = await stagingOf(
        () => expect(device.download(tensor)).rejects.toThrow("no mapping"),
        (staging) => vi.spyOn(staging, "mapAsync").mockRejectedValue(new Error("no mapping")),
      );
      expect(made).toHaveLength(1);
      expect(destroyed).toEqual(made);
      device.free(tensor);
    });
  });

  it("work that fails gives back what it had allocated, and nothing else", () => {
    const kept = device.allocate("scratch", "kept", [10]);
    const before = device.memory();
    expect(() =>
      device.allocating(() => {
        device.allocate("weights", "one", [10]);
        device.allocate("scratch", "two", [10]);
        throw new RangeError("no");
      }),
    ).toThrow(RangeError);
    expect(device.memory()).toEqual(before);
    const tensor = device.allocating(() => device.allocate("scratch", "three", [10]));
    expect(device.memory()).not.toEqual(before);
    device.free(tensor);
    device.free(kept);
  });
});

describe("transfers", () => {
  it("bits survive the way up and down, in windows and in parts", async () => {
    const tensor = device.allocate("scratch", "bits", [192], "u32");
    const data = Uint32Array.from({ length: 192 }, (_, i) => (i * 0x9e3779b1) >>> 0);
    data[0] = 0x7fc01234; // a NaN with a payload
    device.upload(tensor, data);
    expect(new Uint32Array(await device.downloadBytes(tensor))).toEqual(data);
    const middle = sliceRows(tensor, 64, 64);
    expect(new Uint32Array(await device.downloadBytes(middle))).toEqual(data.subarray(64, 128));
    device.upload(middle, Uint32Array.of(1, 2, 3)); // the first elements alone
    const after = new Uint32Array(await device.downloadBytes(tensor));
    expect([...after.subarray(63, 68)]).toEqual([data[63], 1, 2, 3, data[67]]);
    device.free(tensor);
  });

  it("are ordered: a download sees the uploads before it and not those after", async () => {
    const tensor = device.allocate("scratch", "order", [1]);
    const results: Promise<Float32Array>[] = [];
    for (let i = 0; i < 6; i++) {
      device.upload(tensor, Float32Array.of(i));
      results.push(device.download(tensor));
    }
    expect((await Promise.all(results)).map(([value]) => value)).toEqual([0, 1, 2, 3, 4, 5]);
    device.free(tensor);
  });

  it("refuses more than the tensor holds, and shared memory", () => {
    const tensor = device.allocate("scratch", "small", [3]);
    expect(() => device.upload(tensor, new Float32Array(4))).toThrow("upload of 16 bytes into a tensor of 12");
    const shared = new Float32Array(new SharedArrayBuffer(12)) as unknown as Float32Array<ArrayBuffer>;
    expect(() => device.upload(tensor, shared)).toThrow("upload from shared memory");
    device.free(tensor);
  });
});

describe("tensors", () => {
  const tensor = { buffer: {} as GPUBuffer, offset: 512, shape: [200, 3], dtype: "f32" } as const;

  it("slices and reshapes stay within", () => {
    expect(sliceRows(tensor, 64, 10)).toMatchObject({ offset: 512 + 768, shape: [10, 3] });
    expect(() => sliceRows(tensor, 195, 6)).toThrow("rows [195, 201) are outside a tensor of 200 rows");
    expect(() => sliceRows(tensor, -1, 2)).toThrow(/outside/);
    expect(reshape(tensor, [599]).shape).toEqual([599]);
    expect(() => reshape(tensor, [601])).toThrow("cannot see [200, 3] as [601]");
  });

  it("windows of rows cover the tensor once, aligned and within the limit", () => {
    for (const [bytes, wanted] of [
      [12 * 64, 4],
      [12 * 130, 2],
      [12 * 200, 2],
      [12 * 256, 1],
      [1, 4], // 64 rows at least, for the alignment
    ] as const) {
      const windows = rowWindows(tensor, bytes);
      expect(windows).toHaveLength(wanted);
      let next = 0;
      for (const { first, window } of windows) {
        expect(first).toBe(next);
        expect(window.offset % 256).toBe(0);
        expect(window.offset).toBe(512 + 12 * first);
        expect(byteLength(window)).toBeLessThanOrEqual(Math.max(bytes, 12 * 64));
        next += window.shape[0] ?? 0;
      }
      expect(next).toBe(200);
    }
    expect(rowWindows({ ...tensor, shape: [0, 3] }, 1000)).toEqual([]);
  });
});

describe("errors", () => {
  it("that no scope has caught are raised once, at the next call in the foreground", async () => {
    device.gpu.createBuffer({ size: 16, usage: 1 | 2 | 4 | 8 | 128 }); // mapping both ways at once is not allowed
    await device.gpu.queue.onSubmittedWorkDone();
    // The callback comes when Dawn's turn comes.
    await vi.waitFor(() => expect(() => device.check()).toThrow(/^WebGPU: .*usage/is), { timeout: 5 * 60_000 });
    device.check();
    await device.idle();
  });

  it("memory that was freed and is used again is named, once, with the mistake", async () => {
    const tensor = device.allocate("scratch", "a thing", [4]);
    device.free(tensor);
    const sentence = /^The device memory "a thing" was freed and used again: free a model, .* or to come\.$/;
    for (const use of [
      () => device.download(tensor),
      async () => {
        device.upload(tensor, Float32Array.of(1));
        await device.idle();
      },
    ]) {
      const error = await use().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as Error).message).toMatch(sentence);
      await device.idle();
    }
  });

  it("a device that is lost stays lost, and says so in every call", async () => {
    const own = await Device.open();
    const tensor = own.allocate("scratch", "x", [4]);
    own.gpu.destroy(); // as a driver would take it away
    await own.gpu.lost;
    await new Promise((resolve) => setTimeout(resolve, 0));
    for (const call of [
      () => own.upload(tensor, Float32Array.of(1)),
      () => own.allocate("scratch", "y", [4]),
      () => own.check(),
    ]) {
      expect(call).toThrow(DeviceLostError);
      expect(call).toThrow(/^The device ".+" was lost \(destroyed\)/);
    }
    await expect(own.download(tensor)).rejects.toThrow(DeviceLostError);
    await expect(own.idle()).rejects.toThrow(DeviceLostError);
  });

  it("a device that was closed says that, may be closed again, and leaves others alone", async () => {
    const own = await Device.open();
    const tensor = own.allocate("scratch", "x", [4]);
    own.close();
    own.close();
    expect(() => own.upload(tensor, Float32Array.of(1))).toThrow("The device was closed and used again.");
    await expect(own.download(tensor)).rejects.toThrow(DeviceLostError);
    device.check();
  });

  it("a wait for work under way when the device is lost ends with the loss", async () => {
    const own = await Device.open();
    const tensor = own.allocate("scratch", "x", [1024]);
    const reading = own.download(tensor);
    own.gpu.destroy();
    await expect(reading).rejects.toThrow(DeviceLostError);
  });
});
