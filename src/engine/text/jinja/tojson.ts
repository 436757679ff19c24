/** The filter tojson as transformers has it: Python's json.dumps, with letters and angle brackets as they are. */
import { bind, integerArgument, textArgument } from "./arguments.ts";
import { compare } from "./compare.ts";
import { typeError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { floatText, integerText } from "./print.ts";
import { type Arguments, asText, Dict, isList, isTrue, Tuple, typeName, type Value } from "./values.ts";

interface Form {
  readonly ascii: boolean;
  /** The indent of one level; undefined for all on one line. */
  readonly indent: string | undefined;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

const parameters = ["value", "ensure_ascii", "indent", "separators", "sort_keys"];

/** value|tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
export function toJson(args: Arguments, budget: Budget): string {
  const [value = null, ascii, indent, separators, sortKeys] = bind("tojson", args, { parameters, required: 1 });
  const step = indentOf(indent ?? null, budget);
  let [itemSeparator, keySeparator] = [step === undefined ? ", " : ",", ": "];
  if (separators !== undefined && separators !== null) {
    const pair = separators instanceof Tuple ? separators.items : isList(separators) ? separators : [];
    if (pair.length !== 2) throw typeError("separators must be a pair of texts");
    [itemSeparator, keySeparator] = [textArgument(pair[0], "separators"), textArgument(pair[1], "separators")];
  }
  const form = {
    ascii: isTrue(ascii ?? false),
    indent: step,
    itemSeparator,
    keySeparator,
    sortKeys: isTrue(sortKeys ?? false),
  };
  const parts: string[] = [];
  write(value, form, "\n", parts, budget);
  const text = parts.join("");
  budget.text(text.length);
  return text;
}

function indentOf(indent: Value, budget: Budget): string | undefined {
  if (indent === null) return undefined;
  const text = asText(indent);
  if (text !== undefined) return text;
  const width = Math.max(0, integerArgument(indent));
  budget.text(width);
  return " ".repeat(width);
}

function write(value: Value, form: Form, line: string, parts: string[], budget: Budget): void {
  const scalar = scalarJson(value, form.ascii, budget);
  if (scalar !== undefined) {
    parts.push(scalar);
    return;
  }
  const inner = form.indent === undefined ? line : line + form.indent;
  budget.text(inner.length);
  const separator = form.itemSeparator + (form.indent === undefined ? "" : inner);
  const [open, close] = value instanceof Dict ? ["{", "}"] : ["[", "]"];
  let lead = open + (form.indent === undefined ? "" : inner);
  let empty = true;
  for (const [key, item] of membersOf(value, form.sortKeys, budget)) {
    budget.text(separator.length);
    parts.push(lead, key === undefined ? "" : jsonText(key, form.ascii, budget) + form.keySeparator);
    write(item, form, inner, parts, budget);
    lead = separator;
    empty = false;
  }
  parts.push(empty ? open + close : (form.indent === undefined ? "" : line) + close);
}

function scalarJson(value: Value, ascii: boolean, budget: Budget): string | undefined {
  budget.spend(4);
  if (value === null) return "null";
  if (typeof value === "boolean") return String(value);
  if (typeof value === "bigint") return integerText(value, budget);
  if (typeof value === "number") return jsonFloat(value);
  const text = asText(value);
  return text === undefined ? undefined : budget.made(jsonText(text, ascii, budget));
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Infinity" : "-Infinity";
  return floatText(value);
}

/** Members with their keys, of a list without. */
function* membersOf(value: Value, sorted: boolean, budget: Budget): Generator<[key: string | undefined, item: Value]> {
  if (isList(value) || value instanceof Tuple) {
    for (const item of isList(value) ? value : value.items) yield [undefined, item];
  } else if (value instanceof Dict) {
    const entries = [...value.entries()];
    if (sorted) entries.sort(([a], [b]) => compare(a, b, "<", budget));
    for (const [key, item] of entries) {
      const text = asText(key) ?? (isScalarKey(key) ? scalarJson(key, false, budget) : undefined);
      if (text === undefined) {
        throw typeError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
      }
      yield [text, item];
    }
  } else throw typeError(`Object of type ${typeName(value)} is not JSON serializable`);
}

function isScalarKey(key: Value): boolean {
  return key === null || typeof key === "boolean" || typeof key === "bigint" || typeof key === "number";
}

const short: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\f": "\\f",
  "\b": "\\b",
};

function jsonText(text: string, ascii: boolean, budget: Budget): string {
  budget.text(text.length);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON escapes them.
  const escaped = ascii ? /["\\]|[^ -~]/g : /["\\\u0000-\u001f]/g;
  const body = text.replace(escaped, (unit) => {
    budget.spend(1);
    return short[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return `"${body}"`;
}
