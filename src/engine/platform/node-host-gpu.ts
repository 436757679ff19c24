/**
 * The WebGPU that the host itself has, in place of Dawn's addon: Deno's (wgpu and naga). Deno runs the Node platform as
 * it is, and its GPU needs no package, no driver search and no flags.
 */
import { foundAdapter } from "./adapters.ts";
import type { FoundAdapter } from "./platform.ts";

/** Whether this process runs in Deno, whose `navigator.gpu` is used. */
export const hostHasGpu: boolean = "Deno" in globalThis;

/** The host's preferred adapter; undefined where it has none. */
export async function openHostAdapter(): Promise<FoundAdapter | undefined> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
  return foundAdapter(await gpu?.requestAdapter({ powerPreference: "high-performance" }));
}
