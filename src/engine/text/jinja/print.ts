/** Values as Python's str() and repr() write them. JSON is tojson.ts's. */
import { valueError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { bitsOf } from "./numbers.ts";
import {
  Dict,
  DictView,
  Iterated,
  isList,
  Markup,
  Namespace,
  ObjectValue,
  Range,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** str(value): what a template writes for it. */
export function str(value: Value, budget: Budget): string {
  if (typeof value === "string") return value;
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return "";
  return repr(value, budget);
}

/** repr(value) */
export function repr(value: Value, budget: Budget): string {
  const parts: string[] = [];
  write(value, parts, budget);
  return parts.join("");
}

function write(value: Value, parts: string[], budget: Budget): void {
  budget.spend(2);
  if (value === null) parts.push("None");
  else if (typeof value === "boolean") parts.push(value ? "True" : "False");
  else if (typeof value === "bigint") parts.push(integerText(value, budget));
  else if (typeof value === "number") {
    budget.spend(4);
    parts.push(floatText(value));
  } else if (typeof value === "string") parts.push(budget.made(quoted(value, budget)));
  else if (value instanceof Markup) parts.push(budget.made(`Markup(${quoted(value.text, budget)})`));
  else if (value instanceof Undefined) parts.push("Undefined");
  else if (isList(value)) writeItems("[", value, "]", parts, budget);
  else if (value instanceof Tuple) writeItems("(", value.items, value.items.length === 1 ? ",)" : ")", parts, budget);
  else if (value instanceof Dict) writeDict(value, parts, budget);
  else if (value instanceof DictView) writeItems(`dict_${value.kind}([`, value, "])", parts, budget);
  else if (value instanceof Range) {
    const { start, stop, step } = value;
    parts.push(`range(${start}, ${stop}${step === 1 ? "" : `, ${step}`})`);
  } else if (value instanceof Namespace) {
    parts.push("<Namespace ");
    writeDict(value.fields, parts, budget);
    parts.push(">");
  } else if (value instanceof Iterated) parts.push(`<${value.typeName} object>`);
  else if (value instanceof ObjectValue) parts.push(value.shown);
}

function writeItems(open: string, items: Iterable<Value>, close: string, parts: string[], budget: Budget): void {
  parts.push(open);
  let first = true;
  for (const item of items) {
    if (!first) parts.push(", ");
    write(item, parts, budget);
    first = false;
  }
  parts.push(close);
}

function writeDict(dict: Dict, parts: string[], budget: Budget): void {
  let separator = "{";
  for (const [key, value] of dict.entries()) {
    parts.push(separator);
    write(key, parts, budget);
    parts.push(": ");
    write(value, parts, budget);
    separator = ", ";
  }
  parts.push(dict.size === 0 ? "{}" : "}");
}

const mostDigits = 4300;

/** @throws TemplateError beyond 4,300 digits, as Python has it */
export function integerText(value: bigint, budget: Budget): string {
  if (BigInt.asIntN(64, value) === value) return value.toString();
  budget.integer(bitsOf(value));
  const text = value.toString();
  if (text.length <= mostDigits || text.replace("-", "").length <= mostDigits) return text;
  throw valueError(`Exceeds the limit (${mostDigits} digits) for integer string conversion`);
}

/** repr of a float: the shortest digits that give it back; an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa = "", exponentText = "0"] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const sign = value < 0 ? "-" : "";
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

const escapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

/** A str in quotes: single ones unless only those are within; what cannot be printed is escaped. */
function quoted(text: string, budget: Budget): string {
  budget.text(text.length);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[\\\p{C}\p{Z}]|'/gu, (character) => {
    budget.spend(1);
    if (character === " ") return character;
    if (character === "'") return quote === "'" ? "\\'" : "'";
    const known = escapes[character];
    if (known !== undefined) return known;
    const hex = (character.codePointAt(0) ?? 0).toString(16);
    if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`;
    return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
  return quote + body + quote;
}
