/**
 * The adapter of the tests without Dawn's bounds checks, and kernels run on windows whose surroundings are poisoned: what
 * reads outside its windows then gives other results, and what writes there is seen.
 */
import { create } from "webgpu";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { byteLength, type Tensor, WINDOW_ALIGNMENT } from "../../src/engine/gpu/tensor.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { swiftShaderDriver, swiftShaderFolder } from "../../src/engine/platform/node-swiftshader.ts";
import type { Kernel, KernelArguments } from "../../src/kernels/kernel.ts";
import { sharedDevice } from "./device.ts";
import type { HostArray } from "./gpu.ts";

/** Kept: an instance that is collected takes its devices along. */
const instances: GPU[] = [];

/** A device of the shared device's adapter on which shaders index without bounds checks; close it. */
export async function openWithoutRobustness(): Promise<Device> {
  const { kind, description } = await sharedDevice();
  const folder = kind === "swiftshader" ? await swiftShaderFolder() : undefined;
  if (folder !== undefined) process.env.VK_DRIVER_FILES = swiftShaderDriver(folder);
  const gpu = create(["enable-dawn-features=disable_robustness"]);
  instances.push(gpu);
  const asked = gpu.requestAdapter({ powerPreference: "high-performance" });
  if (folder !== undefined) delete process.env.VK_DRIVER_FILES;
  const adapter = await asked;
  if (adapter === null) throw new Error(`there is no adapter without robustness beside "${description}"`);
  const { requestAdapter } = platform;
  Object.assign(platform, { requestAdapter: async () => ({ adapter, kind, description }) });
  try {
    return await Device.open({ tuning: "off" });
  } finally {
    Object.assign(platform, { requestAdapter });
  }
}

/** Words of poison before a window, which keeps it aligned, and behind it. */
const [BEFORE, BEHIND] = [WINDOW_ALIGNMENT / 4, 4096];
/** NaN as f32, or as two f16 or bf16; as an index one that exists, since nothing would stop the access of another. */
const poisonOf = ({ dtype }: HostArray): number => (dtype === "u32" ? 7 : dtype === "f32" ? 0x7fc00000 : 0x7fc07fc0);

/** Dispatches a kernel on poisoned windows. Returns the bits of what it writes, in the order of its bindings. */
export async function runPoisoned<B extends string, U extends string>(
  device: Device,
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
): Promise<number[][]> {
  const program = new Program(device, `poisoned ${kernel.name}`);
  const tensors = new Map<HostArray, Tensor>();
  const operands = args as Readonly<Record<string, HostArray | number>>;
  const onDevice = Object.fromEntries(
    Object.entries(operands).map(([name, value]) => {
      if (typeof value === "number") return [name, value];
      const known = tensors.get(value);
      if (known !== undefined) return [name, known];
      const words = new Uint32Array(BEFORE + byteLength(value) / 4 + BEHIND).fill(poisonOf(value));
      words.set(new Uint32Array(value.data.buffer, 0, byteLength(value) / 4), BEFORE);
      const whole = device.allocate("scratch", name, [words.length], "u32");
      device.upload(whole, words);
      const tensor = { ...whole, offset: 4 * BEFORE, shape: value.shape, dtype: value.dtype };
      tensors.set(value, tensor);
      return [name, tensor];
    }),
  ) as KernelArguments<Tensor, B, U>;
  try {
    program.dispatch(kernel, onDevice);
    await program.prepare();
    program.run();
    const results: number[][] = [];
    for (const { name, access } of kernel.bindings) {
      const host = operands[name] as HostArray;
      const tensor = tensors.get(host);
      if (access === "read" || tensor === undefined) continue;
      const window = byteLength(host) / 4;
      const whole = { ...tensor, offset: 0, shape: [BEFORE + window + BEHIND], dtype: "u32" } as const;
      const words = [...new Uint32Array(await device.downloadBytes(whole))];
      results.push(words.splice(BEFORE, window));
      if (words.some((word) => word !== poisonOf(host))) throw new Error(`${kernel.name} writes outside ${name}`);
    }
    return results;
  } finally {
    program.dispose();
    for (const tensor of tensors.values()) device.free(tensor);
  }
}
