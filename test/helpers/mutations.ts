/**
 * Damage to good files, drawn from a seed: bytes flipped, cut, spliced and repeated; and, for text of JSON's kind, keys
 * doubled and removed, numbers and texts exchanged for wild ones, nesting without end. Not what reads them.
 */
import type { Random } from "../../src/engine/random.ts";

/** How a file is built, which says what damage still gets past its first check. In "pages" nothing may move. */
export type FileForm = "text" | "binary" | "safetensors" | "pages";

/** No damaged file is larger than this, so that what is read into memory has a known bound. */
export const LARGEST_INPUT = 2 ** 21;

/** Values in place of others, as they are written. */
const WILD = [
  ..."0 -1 -0 1.5 1e999 -1e999 1e-320 NaN Infinity -Infinity .nan .inf 4294967296 9007199254740993".split(" "),
  ...'2147483647 1e15 18446744073709551615 true false null {} [] [[]] [null] {"__proto__":1}'.split(" "),
  ...'"" " " "\\u0000" "\\ud800" "__proto__" "constructor" "../../x" "mistral" "smollm3" "gpt2" "qwen3"'.split(" "),
  `"${"a".repeat(5000)}"`,
];

/** A key with its value, where the value is a scalar. */
const ENTRY = /"[^"\\\n]{0,80}"\s*:\s*("[^"\\\n]{0,200}"|-?\d[\d.eE+-]*|true|false|null)/g;
/** The same as YAML writes it. */
const YAML_ENTRY = /^[\w-]+:[^\n]*$/gm;
const SCALAR = /"[^"\\\n]{0,200}"(?!\s*:)|-?\b\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b/g;

/** A damaged copy. Up to three kinds of damage one after another. */
export function mutated(random: Random, bytes: Uint8Array, form: FileForm): Uint8Array {
  let result = bytes;
  const times = 1 + random.below(3);
  for (let i = 0; i < times; i++) result = onceMutated(random, result, form);
  return result.length > LARGEST_INPUT ? result.subarray(0, LARGEST_INPUT) : result;
}

function onceMutated(random: Random, bytes: Uint8Array, form: FileForm): Uint8Array {
  if (form === "text" && random.below(4) > 0) return Buffer.from(textMutated(random, Buffer.from(bytes).toString()));
  if (form === "safetensors" && random.below(3) > 0) return headerMutated(random, bytes);
  if (form === "pages" && random.below(4) > 0) return bytesChanged(random, bytes);
  return bytesMutated(random, bytes);
}

/**
 * Damage that leaves everything where it is: one byte to eight exchanged, most for those at the ends of their range.
 */
function bytesChanged(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes);
  const at = random.below(copy.length);
  for (let i = random.below(8); i >= 0 && at + i < copy.length; i--) {
    copy[at + i] = [0, 1, 0x7f, 0x80, 0xff, random.below(256)][random.below(6)] ?? 0;
  }
  return copy;
}

/** Damage within the JSON header, whose length field is right again afterwards. */
function headerMutated(random: Random, bytes: Uint8Array): Uint8Array {
  if (bytes.length < 8) return bytesMutated(random, bytes);
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  if (length > bytes.length - 8) return bytesMutated(random, bytes);
  const header = Buffer.from(textMutated(random, Buffer.from(bytes.subarray(8, 8 + length)).toString()));
  const field = Buffer.alloc(8);
  field.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([field, header, bytes.subarray(8 + length)]);
}

function bytesMutated(random: Random, bytes: Uint8Array): Uint8Array {
  const at = random.below(bytes.length + 1);
  const length = Math.min(bytes.length - at, 1 + random.below(64));
  const copy = Buffer.from(bytes);
  switch (random.below(6)) {
    case 0: {
      for (let flips = 1 + random.below(8); flips > 0 && copy.length > 0; flips--) {
        const place = random.below(copy.length);
        copy[place] = (copy[place] as number) ^ (1 << random.below(8));
      }
      return copy;
    }
    case 1:
      return copy.subarray(0, at);
    case 2:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + length)]);
    case 3: {
      const from = random.below(bytes.length + 1);
      return Buffer.concat([copy.subarray(0, at), copy.subarray(from, from + length), copy.subarray(at)]);
    }
    case 4:
      // Lengths and offsets of binary formats.
      return copy.fill(random.below(2) === 0 ? 0xff : 0, at, at + Math.min(8, length));
    default: {
      const again = new Array<Buffer>(1 + random.below(1000)).fill(copy.subarray(at, at + length));
      return Buffer.concat([copy.subarray(0, at), ...again, copy.subarray(at)]);
    }
  }
}

function textMutated(random: Random, text: string): string {
  const wild = () => WILD[random.below(WILD.length)] as string;
  switch (random.below(6)) {
    case 0:
      return replaced(random, text, ENTRY, YAML_ENTRY, (entry, yaml) => `${entry}${yaml ? "\n" : ", "}${entry}`);
    case 1:
      return replaced(random, text, ENTRY, YAML_ENTRY, () => "");
    case 2:
      return replaced(random, text, SCALAR, YAML_ENTRY, (entry, yaml) =>
        yaml ? `${keyOf(entry)}: ${wild()}` : wild(),
      );
    case 3: {
      const deep = nested(random);
      return replaced(random, text, SCALAR, YAML_ENTRY, (entry, yaml) => (yaml ? `${keyOf(entry)}: ${deep}` : deep));
    }
    case 4:
      return replaced(random, text, ENTRY, YAML_ENTRY, (entry, yaml) =>
        yaml
          ? entry.replace(/^[\w-]+/, wild())
          : entry.replace(/^"[^"]*"/, random.below(2) === 0 ? '"__proto__"' : '""'),
      );
    default:
      return replaced(random, text, SCALAR, SCALAR, wild);
  }
}

function keyOf(entry: string): string {
  return entry.slice(0, entry.indexOf(":"));
}

function nested(random: Random): string {
  const depth = [20, 500, 5000, 100_000][random.below(4)] ?? 20;
  return random.below(2) === 0
    ? `${"[".repeat(depth)}${"]".repeat(depth)}`
    : `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
}

/** One match of the first pattern that has any, in a text of which only the beginning is searched, exchanged. */
function replaced(
  random: Random,
  text: string,
  pattern: RegExp,
  otherPattern: RegExp,
  change: (match: string, isOther: boolean) => string,
): string {
  const searched = text.slice(0, 200_000);
  let matches = [...searched.matchAll(pattern)];
  const isOther = matches.length === 0 && otherPattern !== pattern;
  if (isOther) matches = [...searched.matchAll(otherPattern)];
  const match = matches[matches.length === 0 ? 0 : random.below(matches.length)];
  if (match === undefined) return text;
  return text.slice(0, match.index) + change(match[0], isOther) + text.slice(match.index + match[0].length);
}
