/**
 * The rotary positions of a config.json: base, scaling and rotated channels of each layer. Older files have
 * `rope_theta` and `rope_scaling`, newer ones `rope_parameters`, one object or one for each type of layer. What the
 * scalings compute is said in `kernels/rope-table.ts`.
 */
import { shown } from "../../../errors.ts";
import type { LayerRope, RopeScaling } from "../../../kernels/rope-table.ts";
import { type Keys, listed } from "./config-keys.ts";
import type { Family } from "./families.ts";
import { FULL, SLIDING } from "./window-keys.ts";

/** What the keys are read for. */
interface Reading {
  readonly family: Family;
  /** The file's own keys. */
  readonly file: Keys;
  readonly headSize: number;
  readonly contextLength: number;
}

/** The rotary positions of the layers that see everything and of those with a sliding window; often the same object. */
export interface Ropes {
  readonly full: LayerRope;
  readonly windowed: LayerRope;
}

export function ropesOf(file: Keys, family: Family, headSize: number, contextLength: number): Ropes {
  const reading = { file, family, headSize, contextLength };
  const parameters = file.object("rope_parameters");
  const [ofFull, ofWindowed] = [parameters?.object(FULL), parameters?.object(SLIDING)];
  if ((ofFull || ofWindowed) && family.windowRope === "same") {
    for (const key of [FULL, SLIDING]) parameters?.refuseUse(key);
  }
  const full = ropeOf(reading, ofFull ?? parameters);
  if (family.windowRope === "same") return { full, windowed: full };
  if (ofWindowed) return { full, windowed: ropeOf({ ...reading, file: ofWindowed }, ofWindowed) };
  const theta = family.windowRope === "localTheta" ? file.positive("rope_local_base_freq", 10000) : full.theta;
  return { full, windowed: { theta, rotated: full.rotated, scaling: { type: "none" } } };
}

/** Base and scaling: `rope_theta` with `rope_scaling`, or both within `newer`, of `rope_parameters`. */
function ropeOf(reading: Reading, newer: Keys | undefined): LayerRope {
  const { file, family } = reading;
  const older = file.object("rope_scaling");
  const [scalingOfOlder, scalingOfNewer] = [older, newer].map((keys) => keys && scalingOf(keys, reading));
  const text = (scaling: RopeScaling | undefined) => shown(scaling, Number.POSITIVE_INFINITY);
  if (older && newer && text(scalingOfOlder) !== text(scalingOfNewer)) {
    throw file.error(`"rope_scaling" and "rope_parameters" scale the rotary positions differently; keep one of them`);
  }
  const outer = file.positive("rope_theta", family.ropeTheta);
  const theta = (newer ?? older)?.positive("rope_theta", outer) ?? outer;
  const scaling: RopeScaling = scalingOfNewer ?? scalingOfOlder ?? { type: "none" };
  // The pairs that YaRN slows are found by the logarithm of the base.
  if (scaling.type === "yarn" && theta <= 1) {
    throw file.error(`"rope_theta" is ${theta}, and rotary positions that are scaled by "yarn" need one above 1`);
  }
  return { theta, rotated: rotatedOf(reading, newer ?? older), scaling };
}

/** r: floor(D partial_rotary_factor), from the file or from the rotary positions' own object. */
function rotatedOf({ file, family, headSize }: Reading, inner: Keys | undefined): number {
  if (!family.partialRotary) {
    for (const keys of [file, inner]) keys?.refuse("partial_rotary_factor", 1);
    return headSize;
  }
  const keys = inner?.has("partial_rotary_factor") ? inner : file;
  const share = keys.positive("partial_rotary_factor", family.rotaryShare ?? 1);
  const rotated = Math.floor(headSize * share);
  if (share <= 1 && rotated >= 2 && rotated % 2 === 0) return rotated;
  throw keys.error(
    `"partial_rotary_factor" ${share} rotates ${rotated} of ${headSize} channels of a head; it must be an even number of them`,
  );
}

const SCALINGS = ["default", "linear", "dynamic", "llama3", "yarn"];

function scalingOf(keys: Keys, reading: Reading): RopeScaling {
  const { family, contextLength } = reading;
  const { rope_type, type } = keys.json;
  // rope_scaling without a type is damaged; rope_parameters without one only gives the base.
  const named = rope_type ?? type ?? (keys.inside === "rope_scaling" ? undefined : "default");
  const kind = family.oldLongRope && (named === "yarn" || named === "su") ? "longrope" : named;
  const supported = family.oldLongRope ? [...SCALINGS.slice(0, -1), "longrope"] : SCALINGS;
  if (!supported.some((one) => one === kind)) {
    throw keys.error(
      `"${keys.inside}" is ${shown(keys.json)}, and this scaling is not supported; supported are ${listed(supported)}`,
    );
  }
  if (!family.multimodalRope) keys.refuseUse("mrope_section");
  if (!family.ownKeys.includes("llama_4_scaling_beta")) keys.refuseUse("llama_4_scaling_beta");
  if (kind === "yarn") return yarnScaling(keys, contextLength);
  if (kind === "longrope") return longScaling(keys, reading);
  keys.refuse("attention_factor", 1);
  if (kind === "linear") return { type: "linear", factor: keys.positive("factor") };
  if (kind === "llama3") return llama3Scaling(keys);
  // Dynamic scaling changes the base only for sequences beyond the context, which are never run: the longer context
  // that its factor promises is not offered.
  if (kind === "dynamic") {
    keys.positive("factor");
    keys.refuse("original_max_position_embeddings", contextLength);
  }
  return { type: "none" };
}

function llama3Scaling(keys: Keys): RopeScaling {
  const [low, high] = [keys.positive("low_freq_factor"), keys.positive("high_freq_factor")];
  if (high <= low) {
    throw keys.error(`"high_freq_factor" of "${keys.inside}" is ${high}, not above its "low_freq_factor" of ${low}`);
  }
  return {
    type: "llama3",
    factor: keys.positive("factor"),
    lowFrequencyFactor: low,
    highFrequencyFactor: high,
    originalContextLength: keys.count("original_max_position_embeddings"),
  };
}

/**
 * YaRN. The magnitude is `attention_factor`, else g(mscale) / g(mscale_all_dim) where both are given and not 0, else
 * g(1), with g(k) = 1 + 0.1 k ln(factor) for factors above 1.
 */
function yarnScaling(keys: Keys, contextLength: number): RopeScaling {
  // Without either number nothing says how far the context was extended.
  const original = keys.has("original_max_position_embeddings");
  const originalContextLength = keys.count("original_max_position_embeddings", contextLength);
  const factor = keys.positive("factor", original ? contextLength / originalContextLength : undefined);
  const [betaFast, betaSlow] = [keys.positive("beta_fast", 32), keys.positive("beta_slow", 1)];
  if (betaFast <= betaSlow) {
    throw keys.error(`"beta_fast" of "${keys.inside}" is ${betaFast}, not above its "beta_slow" of ${betaSlow}`);
  }
  const magnitudeOf = (scale: number) => (factor <= 1 ? 1 : 1 + 0.1 * scale * Math.log(factor));
  const scales = ["mscale", "mscale_all_dim"].map((key) => (keys.json[key] ? keys.positive(key) : 0));
  const [scale = 0, ofAll = 0] = scales;
  const usual = scale > 0 && ofAll > 0 ? magnitudeOf(scale) / magnitudeOf(ofAll) : magnitudeOf(1);
  return {
    type: "yarn",
    factor,
    betaFast,
    betaSlow,
    truncate: keys.flag("truncate", true),
    originalContextLength,
    magnitude: keys.positive("attention_factor", usual),
  };
}

/** LongRoPE: its original context stands in the file's own keys, or, in newer files, beside the factors. */
function longScaling(keys: Keys, reading: Reading): RopeScaling {
  const { file, contextLength } = reading;
  const place = keys.has("original_max_position_embeddings") ? keys : file;
  const originalContextLength = place.count("original_max_position_embeddings", 4096);
  if (originalContextLength < 2) {
    throw place.error(
      `"original_max_position_embeddings" is ${originalContextLength}, too short for a prompt and a completion`,
    );
  }
  const pairs = rotatedOf(reading, keys) / 2;
  const factor = keys.positive("factor", contextLength / originalContextLength);
  const usual = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalContextLength));
  return {
    type: "longrope",
    shortFactors: keys.numbers("short_factor", pairs),
    longFactors: keys.numbers("long_factor", pairs),
    originalContextLength,
    magnitude: keys.positive("attention_factor", usual),
  };
}
