/** Texts with values put in: the operator % and str.format, with Python's conversions and widths. */
import { asNumber } from "./compare.ts";
import { keyError, TemplateError, typeError, valueError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { escapedText } from "./markup.ts";
import { fixed, toFloat } from "./numbers.ts";
import { floatText, integerText, repr, str } from "./print.ts";
import { cutText, padText } from "./strings.ts";
import {
  type Arguments,
  asText,
  Dict,
  isList,
  Markup,
  Namespace,
  Range,
  Tuple,
  textLength,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/**
 * text % value
 *
 * @param isMarked whether the text is marked as HTML, so that what is put in is escaped
 */
export function percentFormat(text: string, value: Value, budget: Budget, isMarked = false): string {
  const positional = value instanceof Tuple ? value.items : [value];
  let used = 0;
  let named = false;
  const take = (): Value => {
    if (used >= positional.length) throw typeError("not enough arguments for format string");
    return positional[used++] ?? null;
  };
  const out = text.replace(
    /%(?:\(([^()]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?([\s\S]|$)/g,
    (
      whole,
      name: string | undefined,
      flags: string,
      widthText: string | undefined,
      precisionText: string | undefined,
      kind: string,
    ) => {
      budget.spend(2);
      if (kind === "") throw valueError("incomplete format");
      const given = widthText === "*" ? starArgument(take()) : Number(widthText ?? 0);
      const width = Math.abs(given);
      const hasPrecision = whole.replace(/^%(\([^()]*\))?/, "").includes(".");
      const precision =
        precisionText === "*"
          ? Math.max(0, starArgument(take()))
          : hasPrecision
            ? Number(precisionText ?? 0)
            : undefined;
      budget.text(width + (precision ?? 0));
      if (kind === "%") return "%";
      let item: Value;
      if (name === undefined) item = take();
      else {
        if (!(value instanceof Dict)) throw typeError("format requires a mapping");
        const found = value.get(name);
        if (found === undefined) throw keyError(name);
        named = true;
        item = found;
      }
      const body = converted(kind, item, flags, precision, budget, isMarked);
      const left = flags.includes("-") || given < 0;
      if (flags.includes("0") && !left && /[dioxXeEfFgGu]/.test(kind)) return zeroPadded(body, width);
      return padText(body, width, " ", left ? "right" : "left");
    },
  );
  // Whatever can be subscripted may stand for a mapping of which nothing is used.
  const isMapping = isList(value) || value instanceof Dict || value instanceof Range || value instanceof Undefined;
  if (!named && !isMapping && !(value instanceof Namespace) && used < positional.length) {
    throw typeError("not all arguments converted during string formatting");
  }
  return budget.made(out);
}

/** A width or precision that is given as "*": the next argument. A width below zero means the left side. */
function starArgument(value: Value): number {
  if (typeof value === "boolean" || typeof value === "bigint") return Number(value);
  throw typeError("* wants int");
}

function zeroPadded(body: string, width: number): string {
  const sign = /^[-+ ]?(0[xXoObB])?/.exec(body)?.[0] ?? "";
  return sign + padText(body.slice(sign.length), width - sign.length, "0", "left");
}

function converted(
  kind: string,
  item: Value,
  flags: string,
  precision: number | undefined,
  budget: Budget,
  isMarked: boolean,
): string {
  const plus = flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
  switch (kind) {
    case "s":
    case "r":
    case "a": {
      const plain = kind === "s" ? str(item, budget) : repr(item, budget);
      const text = isMarked ? escapedText(kind === "s" ? item : null, plain, budget) : plain;
      return precision === undefined ? text : cutText(budget.made(text), 0, precision, 1);
    }
    case "c": {
      const text = asText(item);
      if (text !== undefined && textLength(text) === 1) return text;
      const code = asNumber(item);
      if (typeof code !== "bigint") throw typeError("%c requires int or char");
      return characterOf(code);
    }
    case "d":
    case "i":
    case "u":
    case "x":
    case "X":
    case "o": {
      const number = asNumber(item);
      if (item instanceof Undefined && /[diu]/.test(kind)) throw item.refuse();
      if (number === undefined) throw typeError(`%${kind} format: a real number is required, not ${typeName(item)}`);
      if (typeof number === "number" && !/[diu]/.test(kind)) {
        throw typeError(`%${kind} format: an integer is required, not float`);
      }
      const whole = typeof number === "number" ? truncated(number) : number;
      return signedDigits(whole, kind, plus, flags.includes("#"), precision ?? 0, budget);
    }
    case "e":
    case "E":
    case "f":
    case "F":
    case "g":
    case "G": {
      const number = asNumber(item);
      if (item instanceof Undefined) throw item.refuse();
      if (number === undefined) throw typeError(`must be real number, not ${typeName(item)}`);
      budget.spend(8);
      const text = floatDigits(toFloat(number), kind, precision ?? 6, flags.includes("#"));
      return text.startsWith("-") ? text : plus + text;
    }
  }
  throw valueError(`unsupported format character '${kind}'`);
}

/** The character of a code point, as %c and {:c} have it. */
function characterOf(code: bigint): string {
  if (code >= 0n && code <= 0x10ffffn) return String.fromCodePoint(Number(code));
  throw new TemplateError("OverflowError", "%c arg not in range(0x110000)");
}

function truncated(value: number): bigint {
  if (Number.isNaN(value)) throw valueError("cannot convert float NaN to integer");
  if (!Number.isFinite(value)) throw valueError("cannot convert float infinity to integer");
  return BigInt(Math.trunc(value));
}

function signedDigits(
  value: bigint,
  kind: string,
  plus: string,
  alternate: boolean,
  precision: number,
  budget: Budget,
): string {
  const size = value < 0n ? -value : value;
  const radix = kind === "o" ? 8 : kind === "x" || kind === "X" ? 16 : kind === "b" ? 2 : 10;
  const digits = (radix === 10 ? integerText(size, budget) : size.toString(radix)).padStart(precision, "0");
  const prefix = alternate && radix !== 10 ? `0${kind.toLowerCase()}` : "";
  const text = prefix + digits;
  return (value < 0n ? "-" : plus) + (kind === "X" ? text.toUpperCase() : text);
}

/**
 * A float in the form e, f or g; a large letter gives large letters.
 *
 * @param withDot as str() of a float, which writes a digit behind the point or an exponent in any case
 */
function floatDigits(value: number, kind: string, precision: number, alternate = false, withDot = false): string {
  const big = kind !== kind.toLowerCase();
  const up = (text: string) => (big ? text.toUpperCase() : text);
  if (!Number.isFinite(value)) return up(Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf");
  switch (kind.toLowerCase()) {
    case "f":
      return withPoint(Object.is(value, -0) ? `-${fixed(0, precision)}` : fixed(value, precision), alternate);
    case "e":
      return up(withPoint(exponential(value, precision), alternate));
  }
  const digits = precision === 0 ? 1 : precision;
  const text = exponential(value, digits - 1);
  const exponent = Number(text.slice(text.indexOf("e") + 1));
  const trim = (body: string) => (alternate || !body.includes(".") ? body : body.replace(/\.?0+$/, ""));
  if (exponent >= -4 && exponent < digits - (withDot ? 1 : 0)) {
    const body = fixed(value, digits - 1 - exponent);
    const plain = withPoint(trim(Object.is(value, -0) ? `-${body}` : body), alternate);
    return withDot && !plain.includes(".") ? `${plain}.0` : plain;
  }
  const [mantissa = "", tail = ""] = text.split("e");
  return up(withPoint(`${trim(mantissa)}e${tail}`, alternate));
}

/** The flag # keeps the point where no digits follow it. */
function withPoint(text: string, alternate: boolean): string {
  return alternate && !text.includes(".") ? text.replace(/^-?\d+/, "$&.") : text;
}

function exponential(value: number, precision: number): string {
  const short = Math.min(precision, 100);
  const exact = value.toExponential(100);
  // Only an exact tie is rounded otherwise: toExponential takes the larger one, Python the even one.
  const at = exact.indexOf(".") + 1 + short;
  const down = exact.slice(0, short === 0 ? at - 1 : at);
  const isTie = short < 60 && /^50*e/.test(exact.slice(at)) && /[02468]$/.test(down);
  const text = isTie ? down + exact.slice(exact.indexOf("e")) : value.toExponential(short);
  const [mantissa = "", exponent = "0"] = text.split("e");
  const size = Math.abs(Number(exponent));
  const sign = Object.is(value, -0) ? "-" : "";
  return `${sign}${mantissa}e${exponent.startsWith("-") ? "-" : "+"}${String(size).padStart(2, "0")}`;
}

/** How a field of str.format is looked up: `name.attribute[item]`. */
export type FieldLookup = (value: Value, step: { readonly attribute: string } | { readonly item: Value }) => Value;

/**
 * text.format(...)
 *
 * @param isMarked whether the text is marked as HTML, so that what is put in is escaped
 */
export function braceFormat(
  text: string,
  args: Arguments,
  lookup: FieldLookup,
  budget: Budget,
  isMarked: boolean,
): string {
  let automatic = 0;
  let numbered = false;
  const fieldValue = (field: string): Value => {
    const [, first = "", path = ""] = /^([^.[]*)([\s\S]*)$/.exec(field) ?? [];
    let value: Value | undefined;
    if ((first === "" && numbered) || (/^\d+$/.test(field) && automatic > 0)) {
      throw valueError("cannot switch between manual field specification and automatic field numbering");
    }
    if (/^\d+$/.test(field)) numbered = true;
    if (first === "" || /^\d+$/.test(first)) {
      value = args.positional[first === "" ? automatic++ : Number(first)];
      if (value === undefined) {
        throw new TemplateError("IndexError", "Replacement index out of range for positional args tuple");
      }
    } else value = args.keywords.get(first);
    if (value === undefined) throw keyError(first);
    for (const [, attribute, item] of path.matchAll(/\.([^.[]+)|\[([^\]]+)\]/g)) {
      if (attribute !== undefined) value = lookup(value, { attribute });
      else value = lookup(value, { item: /^\d+$/.test(item ?? "") ? BigInt(item ?? "") : (item ?? "") });
    }
    return value;
  };
  const render = (template: string, depth: number): string => {
    // A field, a field in its form, and that one's own form, which is empty.
    if (depth > 3) throw valueError("Max string recursion exceeded");
    let out = "";
    let at = 0;
    while (at < template.length) {
      const character = template[at] ?? "";
      if ((character === "{" || character === "}") && template[at + 1] === character) {
        out += character;
        at += 2;
      } else if (character === "}") throw valueError("Single '}' encountered in format string");
      else if (character === "{") {
        budget.spend(10);
        const end = closing(template, at);
        const [, field = "", conversion, spec = ""] =
          /^([^!:[]*(?:\[[^\]]*\][^!:[]*)*)(?:!([\s\S]))?(?::([\s\S]*))?$/.exec(template.slice(at + 1, end)) ?? [];
        const value = fieldValue(field);
        const shown = conversion === "r" ? repr(value, budget) : conversion === "s" ? str(value, budget) : value;
        if (conversion !== undefined && !/[rsa]/.test(conversion))
          throw valueError(`Unknown conversion specifier ${conversion}`);
        const form = render(spec, depth + 1);
        if (shown instanceof Markup && isMarked && form !== "") {
          throw valueError("Unsupported format specification for Markup.");
        }
        const text = formatted(shown, form, budget);
        out += isMarked ? escapedText(shown, text, budget) : text;
        at = end + 1;
      } else {
        const next = template.slice(at).search(/[{}]/);
        const end = next < 0 ? template.length : at + next;
        out += template.slice(at, end);
        at = end;
      }
    }
    return budget.made(out);
  };
  return render(text, 1);
}

function closing(template: string, start: number): number {
  let depth = 0;
  for (let at = start; at < template.length; at++) {
    if (template[at] === "{") depth++;
    else if (template[at] === "}" && --depth === 0) return at;
  }
  throw valueError(
    template.length === start + 1 ? "Single '{' encountered in format string" : "expected '}' before end of string",
  );
}

/** format(value, spec): [[fill]align][sign][#][0][width][,][.precision][type] */
function formatted(value: Value, spec: string, budget: Budget): string {
  if (spec === "") return str(value, budget);
  const found = /^(?:(.)?([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su.exec(spec);
  const kind = typeName(value);
  if (!found) throw valueError(`Invalid format specifier '${spec}' for object of type '${kind}'`);
  const [, fill, align, signGiven, alternate, zero, widthText = "0", grouping, precisionText, type] = found;
  const sign = signGiven ?? "-";
  const width = Number(widthText);
  const precision = precisionText === undefined ? undefined : Number(precisionText);
  budget.text(width + (precision ?? 0));
  const number = asNumber(value);
  if (number === undefined) {
    if (asText(value) === undefined) {
      throw typeError(`unsupported format string passed to ${kind}.__format__`);
    }
    if (type !== undefined && type !== "s")
      throw valueError(`Unknown format code '${type}' for object of type '${kind}'`);
    if (align === "=" || signGiven !== undefined || alternate || grouping) {
      throw valueError(`Format specifier '${spec}' is not allowed for texts`);
    }
    const text = cutText(budget.made(str(value, budget)), 0, precision, 1);
    const side = align === ">" ? "left" : align === "^" ? "center" : "right";
    return centred(text, width, fill ?? (zero ? "0" : " "), side);
  }
  budget.spend(8);
  let body = numberDigits(number, type, precision, alternate !== undefined, kind, budget);
  if (grouping && type !== undefined && /[cnsxXob]/.test(type) && !(grouping === "_" && /[xXob]/.test(type))) {
    throw valueError(`Cannot specify '${grouping}' with '${type}'.`);
  }
  if (type === "c" && signGiven !== undefined) throw valueError("Sign not allowed with integer format specifier 'c'");
  const fillsZeros = zero !== undefined && align === undefined && fill === undefined;
  if (grouping) {
    const size = type !== undefined && /[xXob]/.test(type) ? 4 : 3;
    const signed = !body.startsWith("-") && sign !== "-" ? 1 : 0;
    body = grouped(
      body,
      grouping,
      size,
      fillsZeros || (align === "=" && (fill ?? (zero && "0")) === "0") ? width - signed : 0,
    );
  }
  if (!body.startsWith("-") && sign !== "-") body = sign + body;
  if (align === "=" || (zero && align === undefined)) {
    const lead = /^[-+ ]?(0[xob])?/i.exec(body)?.[0] ?? "";
    return lead + padText(body.slice(lead.length), width - lead.length, fill ?? (zero ? "0" : " "), "left");
  }
  return centred(body, width, fill ?? (zero ? "0" : " "), align === "<" ? "right" : align === "^" ? "center" : "left");
}

/**
 * Fills up to a width as Python's format() does: of an odd number of fillers the last goes to the right of centred
 * text.
 */
function centred(text: string, width: number, fill: string, side: "left" | "right" | "center"): string {
  if (side !== "center") return padText(text, width, fill, side);
  const missing = Math.max(0, width - textLength(text));
  return fill.repeat(Math.floor(missing / 2)) + text + fill.repeat(Math.ceil(missing / 2));
}

function numberDigits(
  number: bigint | number,
  type: string | undefined,
  precision: number | undefined,
  alternate: boolean,
  kind: string,
  budget: Budget,
): string {
  if (typeof number === "bigint" && (type === undefined || /[dnxXob]/.test(type))) {
    if (precision !== undefined) throw valueError("Precision not allowed in integer format specifier");
    return signedDigits(number, type ?? "d", "", alternate, 0, budget);
  }
  if (typeof number === "bigint" && type === "c") {
    if (precision !== undefined || alternate) throw valueError("Precision and # are not allowed with 'c'");
    return characterOf(number);
  }
  const float = toFloat(number);
  if (type === "%") return `${floatDigits(float * 100, "f", precision ?? 6, alternate)}%`;
  if (type === "n") return floatDigits(float, "g", precision ?? 6, alternate);
  if (type === undefined) {
    if (precision === undefined) return withPoint(floatText(float), alternate && Number.isFinite(float));
    return floatDigits(float, "g", precision, alternate, true);
  }
  if (/[eEfFgG]/.test(type)) return floatDigits(float, type, precision ?? 6, alternate);
  throw valueError(`Unknown format code '${type}' for object of type '${kind}'`);
}

/** Digits in groups, with so many zeros before them that the text is as wide as `width`. */
function grouped(body: string, mark: string, size: number, width: number): string {
  const [, sign = "", whole = "", rest = ""] = /^(-?(?:0[xob])?)([\da-f]+)(.*)$/is.exec(body) ?? [];
  const room = width - sign.length - rest.length;
  // Of n digits the groups have n + ceil(n / size) - 1 characters.
  let count = Math.max(whole.length, Math.floor((room * size) / (size + 1)));
  while (count + Math.ceil(count / size) - 1 < room) count++;
  const digits = whole.padStart(count, "0");
  const lead = digits.length % size || size;
  const groups = [digits.slice(0, lead)];
  for (let at = lead; at < digits.length; at += size) groups.push(digits.slice(at, at + size));
  return sign + groups.join(mark) + rest;
}
