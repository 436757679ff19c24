/** Recording, preparing and replaying: what is refused when, what a replay does, what is counted and freed. */
import { describe, expect, it, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { coveredNanoseconds, PassTimer } from "../../../src/engine/gpu/pass-timer.ts";
import { Program } from "../../../src/engine/gpu/program.ts";
import { sliceRows, type Tensor } from "../../../src/engine/gpu/tensor.ts";
import { AdapterError } from "../../../src/errors.ts";
import { kernel, MATRICES, oneOf } from "../../../src/kernels/kernel.ts";
import { sharedDevice, withLimits } from "../../helpers/device.ts";

const device = await sharedDevice();

/** y = scale x + shift; a grid of its own rows. */
const affine = kernel({
  name: "affine",
  read: { x: "f32[N, C]" },
  write: { y: "f32[N, C]" },
  uniforms: { N: "u32", C: "u32", scale: "f32", shift: "i32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main(@builtin(global_invocation_id) id: vec3u) {
  for (var c = 0u; c < u.C; c++) { y[id.x * u.C + c] = u.scale * x[id.x * u.C + c] + f32(u.shift); }
}`,
  grid: ({ N = 0 }) => [N],
  cost: ({ N = 0, C = 0 }) => ({ flops: 2 * N * C, bytes: 8 * N * C }),
});

/** x += 1, in place. */
const increment = kernel({
  name: "increment",
  read: {},
  write: { x: "f32[N]" },
  uniforms: { N: "u32" },
  wgsl: /* wgsl */ `
@compute @workgroup_size(1)
fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] += 1.0; }`,
  grid: ({ N = 0 }) => [N],
  cost: ({ N = 0 }) => ({ flops: N, bytes: 8 * N }),
});

/** Runs `work` with a program and tensors of these shapes; frees them. */
async function withTensors<T>(
  shapes: readonly (readonly number[])[],
  work: (program: Program, ...tensors: Tensor[]) => Promise<T> | T,
): Promise<T> {
  const tensors = shapes.map((shape, i) => device.allocate("scratch", `tensor ${i}`, shape));
  const program = new Program(device, "test");
  try {
    return await work(program, ...tensors);
  } finally {
    program.dispose();
    for (const tensor of tensors) device.free(tensor);
  }
}

const read = async (tensor: Tensor) => [...(await device.download(tensor))];

describe("recording", () => {
  it("a shape that does not fit: kernel, binding, shape found, shape wanted", async () => {
    await withTensors([[4, 3], [4, 2], [12]], (program, x, y, flat) => {
      const args = { scale: 1, shift: 0 };
      expect(() => program.dispatch(affine, { x, y, ...args } as never)).toThrow(
        "affine: y has shape [4, 2], wanted [N, C] with N = 4, C = 3",
      );
      expect(() => program.dispatch(affine, { x: flat, y, ...args } as never)).toThrow(
        "affine: x has shape [12], wanted [N, C]",
      );
      expect(() => program.dispatch(affine, { x, y: { ...x, dtype: "u32" }, ...args } as never)).toThrow(
        "affine: y is u32, wanted f32",
      );
      expect(() => program.dispatch(affine, { x, ...args } as never)).toThrow("affine: no tensor for y");
      expect(() => program.dispatch(affine, { x, y: x, scale: 1 } as never)).toThrow(
        "affine: no value for uniform shift",
      );
      expect(program.dispatches).toBe(0);
    });
  });

  it("a window that no adapter or this one cannot bind", async () => {
    await withTensors(
      [
        [128, 3],
        [128, 3],
      ],
      async (program, x, y) => {
        const args = { scale: 1, shift: 0 };
        const [shiftedX, shiftedY] = [sliceRows(x, 1, 64), sliceRows(y, 1, 64)];
        expect(() => program.dispatch(affine, { x: shiftedX, y: shiftedY, ...args })).toThrow(
          "affine: x starts at byte 12, not a multiple of 256",
        );
        await withLimits({ maxStorageBufferBindingSize: 1024 }, async () => {
          expect(() => program.dispatch(affine, { x, y, ...args })).toThrow(AdapterError);
          expect(() => program.dispatch(affine, { x, y, ...args })).toThrow(
            /^affine: x \[128, 3\] has 1536 bytes and the adapter ".+" binds at most 1024; use a smaller batch or model\.$/,
          );
        });
      },
    );
  });

  it("a dispatch that reads and writes one buffer, by both names", async () => {
    await withTensors([[128, 1]], (program, x) => {
      const args = { x: sliceRows(x, 0, 64), y: sliceRows(x, 64, 64), scale: 1, shift: 0 };
      expect(() => program.dispatch(affine, args)).toThrow("affine: x is read from the buffer that y is written to");
    });
  });

  it("a dispatch over nothing is left out, copies must fit, and nothing can be added once prepared", async () => {
    await withTensors([[4], [2]], async (program, x, small) => {
      program.dispatch(increment, { x: { ...x, shape: [0] } });
      expect(program.dispatches).toBe(0);
      expect(() => program.copy(x, small)).toThrow("copy into a smaller tensor");
      program.dispatch(increment, { x });
      expect(() => program.run()).toThrow("run before prepare");
      await program.prepare();
      expect(() => program.dispatch(increment, { x })).toThrow("program test is already prepared");
    });
  });

  it("adds up dispatches, flops and bytes", async () => {
    await withTensors(
      [
        [4, 3],
        [4, 3],
      ],
      (program, x, y) => {
        for (let i = 0; i < 3; i++) program.dispatch(affine, { x, y, scale: 1, shift: 0 });
        program.clear(x);
        expect(program.dispatches).toBe(3);
        expect(program.cost).toEqual({ flops: 3 * 24, bytes: 3 * 96 });
      },
    );
  });
});

describe("replay", () => {
  it("works on what the tensors hold now, with the numbers that were recorded", async () => {
    await withTensors(
      [
        [2, 2],
        [2, 2],
      ],
      async (program, x, y) => {
        program.dispatch(affine, { x, y, scale: 0.5, shift: -3 });
        await program.prepare();
        for (const values of [
          [2, 4, 6, 8],
          [0, 1, -2, 20],
        ]) {
          device.upload(x, Float32Array.from(values));
          program.run();
          expect(await read(y)).toEqual(values.map((value) => 0.5 * value - 3));
        }
      },
    );
  });

  it("keeps the order of dispatches, clears and copies, and repeats without leaving a trace", async () => {
    await withTensors([[4], [4]], async (program, x, y) => {
      program.clear(x);
      program.dispatch(increment, { x });
      program.dispatch(increment, { x });
      program.copy(x, y);
      program.dispatch(increment, { x });
      await program.prepare();
      program.run();
      program.run();
      expect(await read(y)).toEqual([2, 2, 2, 2]);
      expect(await read(x)).toEqual([3, 3, 3, 3]);
    });
  });

  it("clears, copies and dispatches keep to their windows", async () => {
    await withTensors(
      [
        [192, 1],
        [192, 1],
      ],
      async (program, x, y) => {
        const window = (tensor: Tensor, index: number) => sliceRows(tensor, 64 * index, 64);
        program.dispatch(affine, { x: window(x, 0), y: window(y, 2), scale: 2, shift: 1 });
        program.clear(window(x, 1));
        program.copy(window(x, 2), window(y, 1));
        await program.prepare();
        device.upload(
          x,
          Float32Array.from({ length: 192 }, (_, i) => i),
        );
        device.upload(y, new Float32Array(192).fill(-1));
        program.run();
        expect(await read(x)).toEqual(Array.from({ length: 192 }, (_, i) => (i >= 64 && i < 128 ? 0 : i)));
        expect(await read(y)).toEqual(
          Array.from({ length: 192 }, (_, i) => (i < 64 ? -1 : i < 128 ? 64 + i : 2 * (i - 128) + 1)),
        );
      },
    );
  });

  it("a long program is submitted in parts, with the same result", async () => {
    await withTensors([[4]], async (program, x) => {
      for (let i = 0; i < 10; i++) program.dispatch(increment, { x });
      await program.prepare();
      const submit = vi.spyOn(device, "submit");
      const budget = vi.spyOn(device, "workLimit", "get").mockReturnValue(100); // three dispatches of 32 bytes
      try {
        program.run();
        expect(submit).toHaveBeenCalledTimes(4); // of three dispatches, the last of one
      } finally {
        submit.mockRestore();
        budget.mockRestore();
      }
      expect(await read(x)).toEqual([10, 10, 10, 10]);
    });
  });

  it("programs prepared at once each get their own errors", async () => {
    await withTensors([[4], [4]], async (program, x, y) => {
      for (let i = 0; i < 2; i++) program.dispatch(increment, { x });
      const other = new Program(device, "other");
      other.dispatch(increment, { x: { ...y, offset: 256 * 1000 } }); // far beyond the buffer's end
      for (let i = 0; i < 2; i++) other.dispatch(increment, { x: y }); // so that it is ready after the good one
      const [good, bad] = await Promise.allSettled([program.prepare(), other.prepare()]);
      other.dispose();
      expect(good).toEqual({ status: "fulfilled", value: undefined });
      expect(bad).toMatchObject({ status: "rejected", reason: { message: expect.stringMatching(/^program other: /) } });
    });
    device.check();
  });

  it("prepares once: pipelines are shared, equal numbers share a slot, and dispose gives the slots back", async () => {
    await withTensors(
      [
        [4, 3],
        [4, 3],
      ],
      async (program, x, y) => {
        const compile = vi.spyOn(device.gpu, "createComputePipelineAsync");
        const before = device.memory().uniforms ?? 0;
        for (const scale of [1, 2, 1, 2, 1]) program.dispatch(affine, { x, y, scale, shift: 0 });
        await Promise.all([program.prepare(), program.prepare()]);
        expect(device.memory().uniforms).toBe(before + 2 * 256);
        program.dispose();
        expect(device.memory().uniforms).toBe(before);
        const again = new Program(device, "again");
        again.dispatch(affine, { x, y, scale: 3, shift: 0 });
        await again.prepare();
        again.dispose();
        expect(compile).not.toHaveBeenCalled(); // an earlier test has compiled it
        compile.mockRestore();
      },
    );
  });
});

describe("profile", () => {
  it("times every dispatch and names kernels by falling time", async () => {
    await withTensors(
      [
        [64, 64],
        [64, 64],
      ],
      async (program, x, y) => {
        program.clear(x);
        for (let i = 0; i < 3; i++) program.dispatch(affine, { x, y, scale: 1, shift: 2 });
        program.dispatch(increment, { x: { ...y, shape: [4096] } });
        if (!device.gpu.features.has("timestamp-query")) {
          await expect(program.profile()).rejects.toThrow(AdapterError);
          return;
        }
        const times = await program.profile();
        expect(times.map(({ name }) => name).sort()).toEqual(["affine", "increment"]);
        expect(times.find(({ name }) => name === "affine")).toMatchObject({ dispatches: 3, flops: 3 * 2 * 4096 });
        expect(times.every(({ ms }) => ms >= 0 && Number.isFinite(ms))).toBe(true);
        expect(times[0]?.ms).toBeGreaterThanOrEqual(times[1]?.ms ?? 0);
        // It ran, once.
        expect((await read(y)).every((value) => value === 3)).toBe(true);
      },
    );
  });
});

describe("a text on matrices that the driver refuses", () => {
  it.each(["on", "off", "matrices"] as const)("gives the next candidate its turn (tuning %s)", async (tuning) => {
    const own = await Device.open({ adapter: device.kind, tuning });
    const fill = (variant: string, value: string, enable: readonly string[] = []) => ({
      variant,
      kernel: kernel({
        name: "fill",
        read: {},
        write: { out: "f32[N]" },
        uniforms: { N: "u32" },
        enable,
        wgsl: `@compute @workgroup_size(1) fn main() { out[0] = ${value}; }`,
        grid: () => [1],
        cost: () => ({ flops: 1e9, bytes: 16 }),
      }),
    });
    try {
      const out = own.allocate("scratch", "out", [4]);
      const program = new Program(own, "fill");
      const refused = fill("matrix16x16", "matricesOfAnotherDriver()", ["subgroups", MATRICES]);
      program.dispatch(oneOf([refused, fill("plain", "2.0")], "any"), { out, N: 4 });
      await program.prepare();
      program.run();
      expect((await own.download(out))[0]).toBe(2);
      expect(program.kernels).toEqual(["fill plain"]);
      // Without another one the error stands.
      const alone = new Program(own, "fill");
      alone.dispatch(refused.kernel, { out, N: 4 });
      await expect(alone.prepare()).rejects.toThrow("kernel fill does not compile");
    } finally {
      own.close();
    }
  });
});

describe("a kernel that does not compile", () => {
  it("is an exception with its name, the message and the numbered source, and harms nothing else", async () => {
    const broken = kernel({
      name: "broken",
      read: {},
      write: { x: "f32[N]" },
      uniforms: { N: "u32" },
      wgsl: "@compute @workgroup_size(1)\nfn main() { x[0] = missing; }",
      grid: () => [1],
      cost: () => ({ flops: 0, bytes: 0 }),
    });
    await withTensors([[4]], async (program, x) => {
      program.dispatch(broken, { x });
      const failing = program.prepare();
      await expect(failing).rejects.toThrow(/^kernel broken does not compile: .*missing/s);
      await expect(failing).rejects.toThrow(/ line \d+: .*\n(.*\n)* {3}\d+ {2}fn main\(\) \{ x\[0\] = missing; \}/);
    });
    await withTensors([[2]], async (program, x) => {
      program.dispatch(increment, { x });
      await program.prepare();
      program.run();
      expect(await read(x)).toEqual([1, 1]);
    });
    expect(device).toBeInstanceOf(Device);
    device.check();
  });
});

describe("the device's own time", () => {
  it("is told of every pass since the restart, and not where more passes ran than can be timed or none can be", async () => {
    const timed = device.gpu.features.has("timestamp-query");
    await withTensors([[4]], async (program, x) => {
      program.dispatch(increment, { x });
      await program.prepare();
      const timer = new PassTimer(device);
      expect(await timer.seconds()).toBeUndefined();
      for (let run = 0; run < 3; run++) program.run(timer);
      const seconds = await timer.seconds();
      if (timed) expect(seconds).toBeGreaterThan(0);
      else expect(seconds).toBeUndefined();
      expect(await read(x)).toEqual([3, 3, 3, 3]);
      timer.restart();
      expect(await timer.seconds()).toBeUndefined();
      for (let pass = 0; pass < 2048; pass++) expect(timer.next() !== undefined).toBe(timed);
      expect(timer.next()).toBeUndefined();
      expect(await timer.seconds()).toBeUndefined();
      timer.free();
    });
  });

  it("counts time in which two passes ran once", () => {
    const covered = (...stamps: number[]) => coveredNanoseconds(BigUint64Array.from(stamps, BigInt));
    expect(covered()).toBe(0);
    expect(covered(10, 20, 30, 45)).toBe(25);
    expect(covered(10, 20, 15, 25, 16, 18)).toBe(15);
  });
});
