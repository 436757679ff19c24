/** The filters of Jinja2 that make text or numbers of one value. */
import { type Filter, integerArgument, textArgument, wholeArgument } from "./arguments.ts";
import { asNumber } from "./compare.ts";
import { TemplateError, typeError, valueError } from "./errors.ts";
import { percentFormat } from "./format.ts";
import { capitalized, titleCased } from "./letters.ts";
import type { Budget } from "./limits.ts";
import { asMarked } from "./markup.ts";
import { arithmetic, bitsOf, escapeHtml, fixed, floatOf, integerOf, signed, toFloat } from "./numbers.ts";
import { str } from "./print.ts";
import { cutText, padText, replaced, replacedLength, splitLines, strip } from "./strings.ts";
import {
  asText,
  Dict,
  isList,
  isTrue,
  length,
  Markup,
  Tuple,
  textLength,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** A filter that turns the text of any value into another one, letter by letter. */
function onLetters(way: (text: string) => string): Filter {
  return {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) => {
      const text = str(value, budget);
      budget.letters(text);
      return asMarked(value, budget.made(way(text)));
    },
  };
}

/** A filter that turns the text of any value into another one. */
function onText(way: (text: string) => string): Filter {
  return {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) => asMarked(value, budget.made(way(budget.made(str(value, budget))))),
  };
}

function rounded(value: Value, precision: bigint, way: string, budget: Budget): Value {
  const number = asNumber(value);
  if (value instanceof Undefined) throw value.refuse();
  if (number === undefined) throw typeError(`type ${typeName(value)} doesn't define __round__ method`);
  if (way === "common") {
    if (typeof number === "bigint") return roundedInteger(number, precision, budget);
    budget.spend(10);
    if (!Number.isFinite(number)) return number;
    return roundedFloat(number, Number(precision), budget);
  }
  if (way !== "ceil" && way !== "floor") {
    throw new TemplateError("FilterArgumentError", "method must be common, ceil or floor");
  }
  const factor = arithmetic("**", 10n, precision, budget);
  const scaled = asNumber(arithmetic("*", number, factor, budget)) ?? 0n;
  const whole =
    typeof scaled === "bigint" ? scaled : truncated(way === "ceil" ? Math.ceil(scaled) : Math.floor(scaled));
  return arithmetic("/", whole, factor, budget);
}

/** round(value, digits) of a float: to the nearest, from the exact middle to the even one. */
function roundedFloat(value: number, digits: number, budget: Budget): number {
  if (digits >= 0) return Number(fixed(value, digits));
  const sign = value < 0 || Object.is(value, -0) ? -1 : 1;
  // Below 10 to this power nothing is left of any float.
  if (digits < -308) return sign * 0;
  const size = Math.abs(value);
  const whole = Math.trunc(size);
  // A rest behind the point decides as any rest does: twice the whole part and one more stands for it.
  const doubled = 2n * BigInt(whole) + (size > whole ? 1n : 0n);
  const unit = 2n * 10n ** BigInt(-digits);
  budget.integer(bitsOf(unit));
  const rest = doubled % unit;
  const down = (doubled - rest) / unit;
  const up = 2n * rest > unit || (2n * rest === unit && down % 2n === 1n);
  const rounded = Number(((down + (up ? 1n : 0n)) * unit) / 2n);
  if (Number.isFinite(rounded)) return sign * rounded;
  throw new TemplateError("OverflowError", "rounded value too large to represent");
}

function roundedInteger(value: bigint, precision: bigint, budget: Budget): bigint {
  if (precision >= 0n) return value;
  if (precision < -5000n) return 0n;
  budget.integer(4 * Number(-precision));
  const unit = 10n ** -precision;
  const rest = ((value % unit) + unit) % unit;
  const down = value - rest;
  if (rest * 2n === unit) return (down / unit) % 2n === 0n ? down : down + unit;
  return rest * 2n > unit ? down + unit : down;
}

function toInteger(value: Value, otherwise: Value, base: number, budget: Budget): Value {
  try {
    const text = asText(value);
    if (text !== undefined) return integerOf(text, base, budget);
    return truncated(value);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    if (error.kind === "OverflowError" || error.kind === "UndefinedError") throw error;
  }
  try {
    return truncated(toFloatValue(value, budget));
  } catch (error) {
    if (error instanceof TemplateError) return otherwise;
    throw error;
  }
}

function truncated(value: Value): bigint {
  const number = asNumber(value);
  if (typeof number === "bigint") return number;
  if (number === undefined) throw typeError(`int() argument must be a string or a number, not '${typeName(value)}'`);
  if (Number.isNaN(number)) throw valueError("cannot convert float NaN to integer");
  if (!Number.isFinite(number)) throw new TemplateError("OverflowError", "cannot convert float infinity to integer");
  return BigInt(Math.trunc(number));
}

function toFloatValue(value: Value, budget: Budget): number {
  const text = asText(value);
  if (text !== undefined) return floatOf(text, budget);
  const number = asNumber(value);
  if (number === undefined) throw typeError(`float() argument must be a string or a number, not '${typeName(value)}'`);
  return toFloat(number);
}

/** What indent takes: Jinja2 adds a line end to it and then asks for its lines, which a list does not have. */
function indentedText(value: Value): string {
  if (value instanceof Undefined) throw value.refuse();
  if (isList(value)) throw new TemplateError("AttributeError", "'list' object has no attribute 'splitlines'");
  return textArgument(value, "what is indented");
}

export const textFilters = {
  abs: {
    parameters: ["x"],
    required: 1,
    run: ([value = null]) => {
      const number = asNumber(value);
      if (value instanceof Undefined) throw value.refuse();
      if (number === undefined) throw typeError(`bad operand type for abs(): '${typeName(value)}'`);
      return number < 0 ? signed("-", number) : typeof number === "number" ? Math.abs(number) : number;
    },
  },
  capitalize: onLetters(capitalized),
  center: {
    parameters: ["value", "width"],
    required: 1,
    run: ([value = null, width], budget) => {
      const columns = width === undefined ? 80 : Math.max(0, integerArgument(width));
      budget.text(columns);
      return asMarked(value, padText(str(value, budget), columns, " ", "center"));
    },
  },
  default: {
    parameters: ["value", "default_value", "boolean"],
    required: 1,
    run: ([value = null, otherwise = "", boolean = false]) =>
      value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? otherwise : value,
  },
  escape: {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) =>
      value instanceof Markup ? value : new Markup(budget.made(escapeHtml(str(value, budget)))),
  },
  float: {
    parameters: ["value", "default"],
    required: 1,
    run: ([value = null, otherwise = 0], budget) => {
      if (value instanceof Undefined) throw value.refuse();
      try {
        return toFloatValue(value, budget);
      } catch (error) {
        if (error instanceof TemplateError && error.kind !== "OverflowError") return otherwise;
        throw error;
      }
    },
  },
  forceescape: {
    parameters: ["value"],
    required: 1,
    run: ([value = null], budget) => new Markup(budget.made(escapeHtml(str(value, budget)))),
  },
  indent: {
    parameters: ["s", "width", "first", "blank"],
    required: 1,
    run: ([value = null, width = 4n, first = false, blank = false], budget) => {
      const text = indentedText(value);
      if (asText(width) === undefined) budget.text(Math.max(0, integerArgument(width)));
      const indentation = asText(width) ?? " ".repeat(Math.max(0, integerArgument(width)));
      const lines = splitLines(`${text}\n`);
      budget.text(text.length + lines.length * indentation.length);
      budget.spend(lines.length);
      const [head = "", ...rest] = lines;
      const body = isTrue(blank)
        ? lines.join(`\n${indentation}`)
        : [head, ...rest.map((line) => (line === "" ? line : indentation + line))].join("\n");
      return asMarked(value, isTrue(first) ? indentation + body : body);
    },
  },
  int: {
    parameters: ["value", "default", "base"],
    required: 1,
    run: ([value = null, otherwise = 0n, base = 10n], budget) => {
      if (value instanceof Undefined) throw value.refuse();
      return toInteger(value, otherwise, integerArgument(base), budget);
    },
  },
  lower: onText((text) => text.toLowerCase()),
  replace: {
    parameters: ["s", "old", "new", "count"],
    required: 3,
    run: ([value = null, old = null, by = null, most = null], budget) => {
      const [text, from, to] = [str(value, budget), str(old, budget), str(by, budget)];
      const times = most === null ? -1 : integerArgument(most);
      budget.search(text, from);
      budget.text(replacedLength(text, from, to, times));
      return replaced(text, from, to, times);
    },
  },
  round: {
    parameters: ["value", "precision", "method"],
    required: 1,
    run: ([value = null, precision = 0n, way = "common"], budget) =>
      rounded(value, wholeArgument(precision), textArgument(way, "method"), budget),
  },
  safe: { parameters: ["value"], required: 1, run: ([value = null], budget) => new Markup(str(value, budget)) },
  string: {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) => (value instanceof Markup ? value : budget.made(str(value, budget))),
  },
  title: {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) => {
      const text = str(value, budget);
      budget.letters(text);
      return budget.made(titleCased(text));
    },
  },
  trim: {
    parameters: ["value", "chars"],
    required: 1,
    run: ([value = null, chars = null], budget) => {
      const text = budget.made(str(value, budget));
      const given = chars === null ? undefined : textArgument(chars, "strip arg");
      budget.letters(given ?? "");
      return asMarked(value, strip(text, "both", given));
    },
  },
  truncate: {
    parameters: ["s", "length", "killwords", "end", "leeway"],
    required: 1,
    run: ([value = null, longest = 255n, killWords = false, end = "...", leeway = null], budget) => {
      const most = integerArgument(longest);
      const tail = textArgument(end, "end");
      const slack = leeway === null ? 5 : integerArgument(leeway);
      if (most < textLength(tail))
        throw new TemplateError("AssertionError", `expected length >= ${textLength(tail)}, got ${most}`);
      if (slack < 0) throw new TemplateError("AssertionError", `expected leeway >= 0, got ${slack}`);
      budget.text(asText(value)?.length ?? 0);
      if (length(value) <= most + slack) return value;
      const head = cutText(textArgument(value, "what is truncated"), 0, most - textLength(tail), 1);
      const at = isTrue(killWords) ? -1 : head.lastIndexOf(" ");
      return arithmetic("+", asMarked(value, at < 0 ? head : head.slice(0, at)), end, budget);
    },
  },
  upper: onText((text) => text.toUpperCase()),
  wordcount: {
    parameters: ["s"],
    required: 1,
    run: ([value = null], budget) => {
      const text = str(value, budget);
      budget.letters(text);
      return BigInt(text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0);
    },
  },
} satisfies Readonly<Record<string, Filter>>;

/** value|format(*args, **kwargs): the text on the left has the places. */
export function formatFilter(
  value: Value,
  positional: readonly Value[],
  keywords: ReadonlyMap<string, Value>,
  budget: Budget,
): Value {
  if (positional.length > 0 && keywords.size > 0) {
    throw new TemplateError("FilterArgumentError", "can't handle positional and keyword arguments at the same time");
  }
  const given = keywords.size > 0 ? new Dict(keywords) : new Tuple(positional);
  return asMarked(value, percentFormat(str(value, budget), given, budget, value instanceof Markup));
}
