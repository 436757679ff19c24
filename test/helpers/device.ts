/**
 * The one device of the test process. vitest runs all files in one module graph (vitest.config.ts), so this module's
 * state is shared and a kernel is compiled once. Without an adapter the tests fail with AdapterError's sentence: a test
 * that skips itself would pass on a machine that can run nothing.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import { type AdapterFacts, BASE_FACTS } from "../../src/kernels/wgsl.ts";

let opened: Promise<Device> | undefined;

/** The shared device, without tuning, so that results do not hang on timings; never close it. KTO_ADAPTER chooses the adapter. */
export function sharedDevice(): Promise<Device> {
  opened ??= Device.open({ tuning: "off" });
  return opened;
}

/** The variants of a kernel to test: what this adapter gets, what a GPU with its subgroups gets, and what any adapter can. */
export async function kernelVariants(): Promise<{ variant: string; facts: AdapterFacts }[]> {
  const { facts } = await sharedDevice();
  const base = { variant: "base", facts: BASE_FACTS };
  if (facts.subgroupSize === BASE_FACTS.subgroupSize) return [base];
  const own = { variant: `subgroups of ${facts.subgroupSize}`, facts };
  const gpu = { variant: `subgroups of ${facts.subgroupSize} on a GPU`, facts: { ...facts, software: false } };
  return facts.software ? [own, gpu, base] : [own, base];
}

/** What activations may be stored as on this adapter. */
export async function activationFormats(): Promise<ActivationFormat[]> {
  const { features } = (await sharedDevice()).gpu;
  return features.has("shader-f16") ? ["f32", "f16"] : ["f32"];
}

/** Runs `work` while the shared device reports other limits, to meet on a small model what a large one would meet. */
export async function withLimits<T>(
  limits: Partial<Record<"maxBufferSize" | "maxStorageBufferBindingSize", number>>,
  work: (device: Device) => Promise<T>,
): Promise<T> {
  const device = await sharedDevice();
  const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
  const own = Object.getOwnPropertyDescriptor(device, "limits") ?? {};
  Object.defineProperty(device, "limits", { ...own, value: { maxBufferSize, maxStorageBufferBindingSize, ...limits } });
  try {
    return await work(device);
  } finally {
    Object.defineProperty(device, "limits", own);
  }
}
