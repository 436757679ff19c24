/** Which layers of a config.json have a sliding window, and how long it is: by the family's own switch and keys. */
import type { Keys } from "./config-keys.ts";
import type { Family } from "./families.ts";

export const FULL = "full_attention";
export const SLIDING = "sliding_attention";

/** Layers with a window by their configuration, and the window where it acts within the context. */
export interface LayerWindows {
  readonly slidingWindow: number | undefined;
  readonly layerWindow: readonly boolean[];
}

/**
 * The sliding window and the layers that have it, from `sliding_window`, `layer_types` and the family's own switch.
 *
 * @param layerRope whether each layer has rotary positions
 * @returns `types`: the layers that are windowed by name, and `acting`: those of a window within the context
 */
export function windowsOf(
  read: Keys,
  family: Family,
  layerRope: readonly boolean[],
  contextLength: number,
): { readonly types: readonly boolean[]; readonly acting: LayerWindows } {
  const window = windowOf(read, family);
  const layers = layerRope.length;
  const first = family.window === "from" && window !== undefined ? firstWindowed(read) : 0;
  const fullEvery = typeof family.window === "object" ? patternOf(read, family.window.fullEvery) : undefined;
  const usual = layerRope.map((rope, layer) => {
    if (window === undefined || layer < first) return false;
    if (fullEvery !== undefined) return (layer + 1) % fullEvery !== 0;
    return !(family.window === "withoutRope" && rope);
  });
  // Where layers have other mixers, the list is of these (`mixer-keys.ts`), and none has a window.
  const listed = family.otherMixer !== "none" ? undefined : read.perLayer("layer_types", layers, [FULL, SLIDING]);
  const types = listed ? listed.map((type) => type === SLIDING) : usual;
  const listIsIgnored = ["none", "all", "given"].includes(family.window as string);
  const at = types.findIndex((windowed, layer) => (listIsIgnored || window === undefined) && windowed !== usual[layer]);
  if (at >= 0) {
    throw read.error(
      `"layer_types" makes layer ${at} "${types[at] ? SLIDING : FULL}", which "sliding_window" and the model type contradict`,
    );
  }
  const everActs = window !== undefined && window < contextLength && types.includes(true);
  const acting = everActs
    ? { slidingWindow: window, layerWindow: types }
    : { slidingWindow: undefined, layerWindow: types.map(() => false) };
  return { types, acting };
}

/** Every n-th layer is full: Gemma 3's files say n, under one of two names. */
function patternOf(read: Keys, usual: number): number {
  return read.count("sliding_window_pattern", read.count("_sliding_window_pattern", usual));
}

function windowOf(read: Keys, family: Family): number | undefined {
  const isNull = read.json.sliding_window === null;
  switch (family.window) {
    case "none":
      read.refuseUse("sliding_window");
      return undefined;
    case "given":
      return read.has("sliding_window") ? read.count("sliding_window") : undefined;
    case "from":
      return read.flag("use_sliding_window", false) && !isNull ? read.count("sliding_window", 4096) : undefined;
    case "withoutRope":
      return read.flag("use_sliding_window", false) && read.has("sliding_window")
        ? read.count("sliding_window")
        : undefined;
    default:
      return isNull ? undefined : read.count("sliding_window", 4096);
  }
}

/** `max_window_layers`: layers from this one on are windowed. */
function firstWindowed(read: Keys): number {
  return read.json.max_window_layers === 0 ? 0 : read.count("max_window_layers", 28);
}
