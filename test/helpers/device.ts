/**
 * The one device of the test process. vitest runs all files in one module graph (vitest.config.ts), so this module's
 * state is shared and a kernel is compiled once. Without an adapter the tests fail with AdapterError's sentence: a test
 * that skips itself would pass on a machine that can run nothing.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import type { ActivationFormat } from "../../src/kernels/kernel.ts";
import { type AdapterFacts, BASE_FACTS } from "../../src/kernels/wgsl.ts";

let opened: Promise<Device> | undefined;

/** Every product on subgroup matrices, which scripts/test-matrix.mjs asks for. */
const tuning = process.env.KTO_TUNING === "matrices" ? "matrices" : "off";

/**
 * The shared device, without tuning, so that results do not hang on timings; never close it. KTO_ADAPTER chooses the
 * adapter.
 */
export function sharedDevice(): Promise<Device> {
  opened ??= Device.open({ tuning });
  return opened;
}

/**
 * Lanes of GPUs' subgroups at which kernels run on the machine of `wgsl/machine.ts`, where this adapter's have another
 * number: 32, which most GPUs have; scripts/wide-subgroups.mjs asks for more.
 */
const ASKED_LANES = process.env.KTO_TEST_LANES;
const GPU_LANES = (ASKED_LANES ?? "32")
  .split(",")
  .filter((lanes) => lanes !== "")
  .map(Number);

/** The lane counts among these that this adapter cannot run. */
export async function emulatedLanes(): Promise<number[]> {
  const { facts } = await sharedDevice();
  return GPU_LANES.filter((lanes) => lanes !== facts.subgroupSize);
}

/**
 * KTO_TEST_SHAPES=all runs every shape, variant and model everywhere. Else the tests run a chosen part of them, since
 * compiling a kernel costs seconds on a software adapter.
 */
export const ALL_SHAPES = process.env.KTO_TEST_SHAPES === "all";

/** A variant of the kernels, and whether its lanes are emulated. */
export interface KernelVariant {
  readonly variant: string;
  readonly facts: AdapterFacts;
  readonly emulated: boolean;
}

/**
 * The variants of a kernel to test: what this adapter gets, what any adapter can, and what GPUs with wider subgroups
 * get; of all shapes also what a GPU with this adapter's subgroups gets, the wider ones' text for fewer lanes.
 */
export async function kernelVariants(): Promise<KernelVariant[]> {
  const { facts } = await sharedDevice();
  const own = { variant: `subgroups of ${facts.subgroupSize}`, facts, emulated: false };
  const gpu = { ...own, variant: `${own.variant} on a GPU`, facts: { ...facts, software: false } };
  const native =
    facts.subgroupSize === BASE_FACTS.subgroupSize ? [] : facts.software && ALL_SHAPES ? [own, gpu] : [own];
  const wide = (await emulatedLanes()).map((subgroupSize) => ({
    variant: `subgroups of ${subgroupSize}, emulated`,
    facts: { subgroupSize, software: false },
    emulated: true,
  }));
  return [...native, { variant: "base", facts: BASE_FACTS, emulated: false }, ...wide];
}

/**
 * How many of `count` drawn shapes to run: a sixth on the machine, which takes some 50 times as long for one.
 * KTO_TEST_SHAPES=all runs all of them everywhere.
 */
export function runsFor({ emulated }: Pick<KernelVariant, "emulated">, count: number): number {
  return emulated && !ALL_SHAPES ? Math.ceil(count / 6) : count;
}

/** The shapes of a list to run: the first two on the machine, unless lanes were asked for. */
export function someOf<T>({ emulated }: Pick<KernelVariant, "emulated">, shapes: readonly T[]): readonly T[] {
  return emulated && ASKED_LANES === undefined ? shapes.slice(0, 2) : shapes;
}

/** A device on which a whole model meets the kernels that another adapter would. */
export interface DeviceVariant {
  readonly variant: string;
  /** The shared device as it is, as if it had no subgroups, or with no more than every adapter guarantees. */
  readonly kind: "native" | "workgroups" | "core";
  /** The shared device, or one of its own: `close` it. */
  readonly open: () => Promise<{ readonly device: Device; readonly close: () => void }>;
}

/**
 * What whole models are run on: the shared device, the same as if it were hardware without subgroups, and a device with
 * no more than every adapter guarantees. Compiling for more of them would cost minutes; `kernelVariants` has more.
 */
export async function deviceVariants(): Promise<DeviceVariant[]> {
  const device = await sharedDevice();
  const { subgroupSize } = device.facts;
  const shared = {
    variant: `subgroups of ${subgroupSize}`,
    kind: "native" as const,
    open: async () => ({ device, close: () => undefined }),
  };
  const workgroups = async () => {
    const own = Object.getOwnPropertyDescriptor(device, "facts") ?? {};
    Object.defineProperty(device, "facts", { ...own, value: BASE_FACTS });
    return { device, close: () => void Object.defineProperty(device, "facts", own) };
  };
  const core = async () => {
    const opened = await Device.open({ adapter: device.kind, features: "core", tuning: "off" });
    return { device: opened, close: () => opened.close() };
  };
  return [
    shared,
    { variant: "workgroups", kind: "workgroups", open: workgroups },
    { variant: "without optional features", kind: "core", open: core },
  ];
}

/**
 * What activations may be stored as. Kernels' tests run them all: where the adapter has no `shader-f16`, texts with f16
 * run on the machine of `wgsl/machine.ts` (`runKernel`).
 */
export const ACTIVATION_FORMATS: readonly ActivationFormat[] = ["f32", "f16"];

/** Whether texts with activations of this format run on the machine, since the adapter cannot run them. */
export async function onlyOnMachine(format: ActivationFormat): Promise<boolean> {
  return !(await activationFormats()).includes(format);
}

/** What activations may be stored as on this adapter: in what whole models can run. */
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
