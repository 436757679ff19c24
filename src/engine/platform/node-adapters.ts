/**
 * Finds WebGPU adapters in Node through Dawn (npm `webgpu`): the system's own Vulkan, Metal or Direct3D drivers, then
 * SwiftShader. What `create()` returns is kept in a module variable, since on `navigator` it would hang Node at exit.
 */
import { AdapterError, errorMessage } from "../../errors.ts";
import { chooseAdapter, foundAdapter, isAdapterKind, noAdapterMessage, rankAdapters } from "./adapters.ts";
import { hostHasGpu, openHostAdapter } from "./node-host-gpu.ts";
import { silenceNativeStderr } from "./node-native-stderr.ts";
import { installLoader, swiftShaderDriver, swiftShaderFolder } from "./node-swiftshader.ts";
import type { FoundAdapter } from "./platform.ts";

/**
 * By default timestamps are quantised to 100 microseconds, too coarse for kernels; f16 on NVIDIA under Linux and subgroup
 * matrices are behind toggles.
 */
const DAWN_TOGGLES = ["vulkan_enable_f16_on_nvidia", "allow_unsafe_apis"] as const;
/**
 * No bounds checks on SwiftShader, where updates are 1.3 times as fast without them to the same bits; on lavapipe these
 * cost nothing (bench/results/2026-12-01-robustness.txt). That no kernel needs one is what the tests' machine for WGSL
 * shows, which stops at an index that is out of bounds.
 */
const SWIFTSHADER_TOGGLES = [...DAWN_TOGGLES, "disable_robustness"] as const;

/** Where Dawn looks for adapters: in the host's own drivers, or in one Vulkan driver alone, given by its ICD file. */
type Source = { readonly driver?: string; readonly name?: string };

let createGpu: ((flags: string[]) => GPU) | undefined;
/** One Dawn instance per source. They are kept, since an instance has loaded its drivers, which takes 0.4 s. */
const instances = new Map<string, GPU>();

/** See Platform.requestAdapter. The default selector is KTO_ADAPTER, or else "auto". */
export async function requestAdapter(selector?: string): Promise<FoundAdapter> {
  const wanted = selector ?? process.env.KTO_ADAPTER ?? "auto";
  const short = wanted.trim().toLowerCase();
  if (hostHasGpu) return chooseAdapter(await listAdapters(), wanted);
  // For the usual selectors not every driver is opened: Dawn's own first choice or SwiftShader alone will do.
  if (short === "auto" || short === "") {
    const best = await openAdapter({});
    if (best?.kind === "hardware" || best?.kind === "lavapipe") return best;
    const found = [best, await openSwiftShader()].filter((one) => one !== undefined);
    if (found.length === 0) throw new AdapterError(noAdapterMessage(process.platform));
    return chooseAdapter(rankAdapters(found), "auto");
  }
  if (isAdapterKind(short)) {
    const found = short === "swiftshader" ? await openSwiftShader() : await openAdapter({});
    if (found?.kind === short) return found;
  }
  const all = await listAdapters();
  if (all.length === 0) throw new AdapterError(noAdapterMessage(process.platform));
  return chooseAdapter(all, wanted);
}

/** See Platform.listAdapters. */
export async function listAdapters(): Promise<FoundAdapter[]> {
  const found: FoundAdapter[] = [];
  if (hostHasGpu) {
    const one = await openHostAdapter();
    if (one === undefined) throw new AdapterError(noAdapterMessage(process.platform));
    return [one];
  }
  for (const name of await systemAdapterNames()) {
    const one = await openAdapter({ name });
    if (one !== undefined && !found.some((other) => other.description === one.description)) found.push(one);
  }
  if (!found.some((one) => one.kind === "swiftshader")) {
    const swiftShader = await openSwiftShader();
    if (swiftShader !== undefined) found.push(swiftShader);
  }
  return rankAdapters(found);
}

/** SwiftShader from the npm package; undefined if the package is not installed or does not support this platform. */
async function openSwiftShader(): Promise<FoundAdapter | undefined> {
  const folder = await swiftShaderFolder();
  if (folder === undefined) return undefined;
  const driver = swiftShaderDriver(folder);
  const found = await openAdapter({ driver });
  if (found !== undefined) return found;
  // A driver without an adapter: this machine has no Vulkan loader. The instance that failed cannot be used again.
  if (!(await installLoader(folder))) return undefined;
  instances.delete(keyOf({ driver }));
  return await openAdapter({ driver });
}

/**
 * The names of the adapters that Dawn sees. WebGPU has no call that lists them, but Dawn does so when it is asked for a
 * name that does not exist.
 */
async function systemAdapterNames(): Promise<string[]> {
  try {
    await openAdapter({ name: "list the adapters, please" });
  } catch (error) {
    const names = new Set<string>();
    for (const match of errorMessage(error).matchAll(/backend: '(\w+)', name: '(.*)'/g)) {
      const [, backend, name] = match;
      if (name !== undefined && (backend === "vulkan" || backend === "metal" || backend === "d3d12")) names.add(name);
    }
    return [...names];
  }
  return [];
}

async function openAdapter(source: Source): Promise<FoundAdapter | undefined> {
  const create = await loadDawn();
  let answer: Promise<GPUAdapter | null>;
  const restoreEnvironment = source.driver === undefined ? undefined : useDriver(source.driver);
  const restoreStderr = silenceNativeStderr();
  try {
    // The drivers are loaded inside these two calls, so only they need the environment, and nothing is awaited
    // meanwhile.
    const key = keyOf(source);
    let gpu = instances.get(key);
    if (gpu === undefined) {
      gpu = create(dawnFlags(source));
      instances.set(key, gpu);
    }
    answer = gpu.requestAdapter({ powerPreference: "high-performance" });
  } finally {
    restoreStderr?.();
    restoreEnvironment?.();
  }
  return foundAdapter(await answer);
}

/** A source with a driver of its own is SwiftShader. */
function dawnFlags({ driver, name }: Source): string[] {
  const toggles = driver === undefined ? DAWN_TOGGLES : SWIFTSHADER_TOGGLES;
  return [
    `enable-dawn-features=${toggles.join(",")}`,
    "disable-dawn-features=timestamp_quantization",
    ...(name === undefined ? [] : [`adapter=${name}`]),
  ];
}

function keyOf(source: Source): string {
  return JSON.stringify([source.driver, source.name]);
}

/**
 * At need and not above: a native package of 60 MB, which not every system can load and help or `kto merge` do without.
 */
async function loadDawn(): Promise<(flags: string[]) => GPU> {
  try {
    createGpu ??= (await import("webgpu")).create;
    return createGpu;
  } catch (error) {
    const reason = errorMessage(error).split("\n", 1)[0] ?? "";
    throw new AdapterError(
      `The npm package "webgpu" (Dawn) cannot be loaded on ${process.platform}-${process.arch}: ${reason}. It runs on Linux with glibc, macOS and Windows, on x64 and arm64; if this is one of them, run "npm ci".`,
      { cause: error },
    );
  }
}

/** Makes the Vulkan loader see only this driver. The function that it returns restores the environment. */
function useDriver(driver: string): () => void {
  // Newer loaders read the first, older ones the second.
  const names = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
  const before = names.map((name) => process.env[name]);
  for (const name of names) process.env[name] = driver;
  return () => {
    names.forEach((name, index) => {
      const value = before[index];
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    });
  };
}
