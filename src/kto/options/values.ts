/**
 * How people write values: "yes", "1e-4", "none", a JSON object. Text becomes the option's own type where it can;
 * whether the value is in range is the schema's concern.
 */
import { parseExactJson } from "../../engine/files/exact-json.ts";
import { shown } from "../../errors.ts";
import type { OptionInfo } from "./option.ts";

/** "yes", "True", "1", ... as YAML 1.1 and Python's argument parsers read them; undefined for any other text. */
export function booleanWord(text: string): boolean | undefined {
  const word = text.trim().toLowerCase();
  if (["true", "yes", "on", "1", "y", "t"].includes(word)) return true;
  if (["false", "no", "off", "0", "n", "f"].includes(word)) return false;
  return undefined;
}

/**
 * The value in the option's own type where its text allows it; whatever else comes is left for the schema to refuse.
 */
export function coerce(info: OptionInfo, written: unknown): unknown {
  // transformers' own spelling of an empty list of debug flags.
  if (info.kind === "boolean" && (written === "" || (Array.isArray(written) && written.length === 0))) return false;
  if (info.kind === "strings") {
    if (written === null) return undefined;
    return Array.isArray(written) ? written.map((item) => (isScalar(item) ? String(item) : item)) : [String(written)];
  }
  if (isNull(written) && !(typeof written === "string" && info.words.includes(written))) {
    if (info.about.nullMeans !== undefined) return info.about.nullMeans;
    return !info.required && info.defaultValue === undefined ? undefined : written;
  }
  if (!isScalar(written)) return written;
  const text = String(written).trim();
  switch (info.kind) {
    case "number":
      return typeof written === "number" ? written : (numberFromText(text, written) ?? written);
    case "boolean":
      return booleanWord(text) ?? written;
    case "flagOrText":
      return booleanWord(text) ?? text;
    case "choice": {
      const word = text.toLowerCase();
      return info.about.valueAliases?.[word] ?? word;
    }
    case "numberOrWord":
      return typeof written === "number" ? written : (numberFromText(text, written) ?? text.toLowerCase());
    case "string":
      return String(written);
    case "object":
      return jsonFromText(text, info.about.exact === true) ?? written;
  }
}

/** A mapping that is written as JSON text, as on a command line; in a configuration file it is an object already. */
function jsonFromText(text: string, exact: boolean): unknown {
  try {
    return exact ? parseExactJson(text) : JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isScalar(value: unknown): value is string | number | boolean | bigint {
  return ["string", "number", "boolean", "bigint"].includes(typeof value);
}

/** Python's and YAML's ways to say that there is no value. */
function isNull(value: unknown): boolean {
  return value === null || (typeof value === "string" && /^(none|null|~)$/i.test(value.trim()));
}

/** Decimal numbers as Python writes them ("1e-4", "1_000", ".5"); true is not 1. */
function numberFromText(text: string, written: unknown): number | undefined {
  if (typeof written === "boolean") return undefined;
  return /^[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text.replaceAll("_", "")) : undefined;
}

/** Values that switch a feature off, in the spellings that people use. */
export const OFF = [false, null, "no", 0, "", [], {}] as const;

/** Whether a value asks for nothing. */
export function isOff(written: unknown): boolean {
  return OFF.some((value) => sameValue(value, written));
}

/** Equality across the spellings of a value: false, "False" and "no" are one, and so are null and "none". */
export function sameValue(harmless: unknown, written: unknown): boolean {
  if (harmless === null) return isNull(written) || written === "";
  if (typeof harmless === "boolean") return isScalar(written) && booleanWord(String(written)) === harmless;
  if (typeof harmless === "number") return isScalar(written) && Number(written) === harmless;
  if (typeof harmless === "string") return isScalar(written) && String(written).trim().toLowerCase() === harmless;
  return shown(harmless) === shown(written, Number.POSITIVE_INFINITY);
}
