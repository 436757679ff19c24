/**
 * Classifies the adapters that were found, ranks them, and chooses the one that a selector means. It only looks at how
 * an adapter describes itself: it opens nothing and does not depend on the host.
 */
import { AdapterError } from "../../errors.ts";
import type { AdapterKind, FoundAdapter } from "./platform.ts";

/** What tells adapters apart. */
export type AdapterIdentity = Pick<
  GPUAdapterInfo,
  "vendor" | "architecture" | "device" | "description" | "isFallbackAdapter"
>;

/** In the order of `auto`, the fastest first. lavapipe is several times as fast as SwiftShader. */
export const adapterKinds: readonly AdapterKind[] = ["hardware", "lavapipe", "swiftshader", "software"];

export function isAdapterKind(text: string): text is AdapterKind {
  return (adapterKinds as readonly string[]).includes(text);
}

/** What runs an adapter's work: a GPU, Mesa's or Google's software Vulkan, or some other software ("software"). */
export function classifyAdapter(facts: AdapterIdentity): AdapterKind {
  const text = `${facts.vendor} ${facts.architecture} ${facts.device} ${facts.description}`.toLowerCase();
  if (text.includes("swiftshader")) return "swiftshader";
  if (text.includes("llvmpipe") || text.includes("lavapipe")) return "lavapipe";
  // Windows lists its software rasteriser as an ordinary adapter when asked for it by name.
  if (facts.isFallbackAdapter || text.includes("microsoft basic render")) return "software";
  return "hardware";
}

/** One line for messages. Software adapters put everything into the description, GPUs spread it over the fields. */
export function describeAdapter(facts: AdapterIdentity): string {
  if (classifyAdapter(facts) !== "hardware" && facts.description !== "") return facts.description;
  const parts: string[] = [];
  for (const part of [facts.vendor, facts.architecture, facts.device.replace(/-+$/, ""), facts.description]) {
    if (part !== "" && !parts.includes(part)) parts.push(part);
  }
  return parts.length === 0 ? "unnamed adapter" : parts.join(" ");
}

/** What the host answered with, if anything. */
export function foundAdapter(adapter: GPUAdapter | null | undefined): FoundAdapter | undefined {
  return adapter
    ? { adapter, kind: classifyAdapter(adapter.info), description: describeAdapter(adapter.info) }
    : undefined;
}

/** The best first; adapters of the same kind stay in the order in which the host lists them. */
export function rankAdapters<T extends { readonly kind: AdapterKind }>(found: readonly T[]): T[] {
  return [...found].sort((a, b) => adapterKinds.indexOf(a.kind) - adapterKinds.indexOf(b.kind));
}

/**
 * The adapter that `selector` means in a ranked list: "auto" (the first), a kind ("software" for the first that is no
 * hardware), an index, or a part of the description in upper or lower case.
 *
 * @throws AdapterError naming the selector and the choices; why a list is empty must be explained by the caller
 */
export function chooseAdapter<T extends { readonly kind: AdapterKind; readonly description: string }>(
  ranked: readonly T[],
  selector: string,
): T {
  const wanted = selector.trim().toLowerCase();
  let chosen: T | undefined;
  if (wanted === "auto" || wanted === "") chosen = ranked[0];
  else if (wanted === "software") chosen = ranked.find((found) => found.kind !== "hardware");
  else if (isAdapterKind(wanted)) chosen = ranked.find((found) => found.kind === wanted);
  else if (/^\d+$/.test(wanted)) chosen = ranked[Number(wanted)];
  else chosen = ranked.find((found) => found.description.toLowerCase().includes(wanted));
  if (chosen === undefined) {
    const choices = ranked.map((found, index) => `${index} = ${found.kind}: ${found.description}`).join("; ");
    throw new AdapterError(
      `No adapter matches "${selector}"; it can be auto, ${adapterKinds.join(", ")}, a part of a name, or an index of: ${choices || "nothing, none was found"}.`,
    );
  }
  return chosen;
}

/** The sentence for a host without any adapter: what is missing and what to do about it. */
export function noAdapterMessage(os: string, reason?: string): string {
  const found = `No WebGPU adapter was found${reason === undefined ? "" : ` (${reason})`}: `;
  if (os === "linux") {
    return `${found}install the GPU's Vulkan driver, or a software one with scripts/install-lavapipe.sh (Debian and Ubuntu, needs root) or "npm i -D @sparticuz/chromium" (x64, no root).`;
  }
  if (os === "browser") return `${found}use a browser with WebGPU turned on, on a page served over https or localhost.`;
  return `${found}a GPU with a current driver is needed (${os === "darwin" ? "Metal" : os === "win32" ? "Direct3D 12" : "Vulkan"}).`;
}
