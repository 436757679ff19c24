/** Arithmetic on Python's ints and floats, what + and * do with texts and lists, and numbers read from text. */

import { shortened } from "../../../errors.ts";
import { asNumber } from "./compare.ts";
import { TemplateError, typeError, valueError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { strip } from "./strings.ts";
import { asText, isList, Markup, Tuple, typeName, Undefined, type Value } from "./values.ts";

export type Operator = "+" | "-" | "*" | "/" | "//" | "%" | "**";

/** a operator b */
export function arithmetic(operator: Operator, a: Value, b: Value, budget: Budget): Value {
  if (a instanceof Undefined) throw a.refuse();
  if (b instanceof Undefined) throw b.refuse();
  if (operator === "+" && asNumber(a) === undefined) return joined(a, b, budget);
  if (operator === "*") {
    const product = repeated(a, b, budget) ?? repeated(b, a, budget);
    if (product !== undefined) return product;
  }
  const [x, y] = [asNumber(a), asNumber(b)];
  if (x === undefined || y === undefined) throw unsupported(operator, a, b);
  if (typeof x === "bigint" && typeof y === "bigint") return integers(operator, x, y, budget);
  return floats(operator, toFloat(x), toFloat(y));
}

function unsupported(operator: string, a: Value, b: Value): TemplateError {
  return typeError(`unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`);
}

function joined(a: Value, b: Value, budget: Budget): Value {
  const [s, t] = [asText(a), asText(b)];
  if (s !== undefined && t !== undefined) {
    budget.text(s.length + t.length);
    if (!(a instanceof Markup) && !(b instanceof Markup)) return s + t;
    return new Markup((a instanceof Markup ? s : escapeHtml(s)) + (b instanceof Markup ? t : escapeHtml(t)));
  }
  if (isList(a) && isList(b)) {
    budget.spend(a.length + b.length);
    return [...a, ...b];
  }
  if (a instanceof Tuple && b instanceof Tuple) {
    budget.spend(a.items.length + b.items.length);
    return new Tuple([...a.items, ...b.items]);
  }
  const kind = typeName(a);
  if (s !== undefined || isList(a) || a instanceof Tuple) {
    throw typeError(`can only concatenate ${kind} (not "${typeName(b)}") to ${kind}`);
  }
  throw unsupported("+", a, b);
}

/** A text or list, so many times; undefined where the two are not these. */
function repeated(sequence: Value, count: Value, budget: Budget): Value | undefined {
  const text = asText(sequence);
  const items = sequence instanceof Tuple ? sequence.items : isList(sequence) ? sequence : undefined;
  const times = asNumber(count);
  if ((text === undefined && items === undefined) || times === undefined) return undefined;
  if (typeof times === "number") throw typeError("can't multiply sequence by non-int of type 'float'");
  if (times >= 1n << 63n || times < -(1n << 63n)) {
    throw new TemplateError("OverflowError", "cannot fit 'int' into an index-sized integer");
  }
  const whole = Math.max(0, Number(times));
  if (text !== undefined) {
    if (text === "") return sequence;
    budget.text(text.length * whole);
    return sequence instanceof Markup ? new Markup(text.repeat(whole)) : text.repeat(whole);
  }
  const length = (items?.length ?? 0) * whole;
  if (!(length > 0)) return sequence instanceof Tuple ? new Tuple([]) : [];
  budget.spend(length);
  const many = Array.from({ length: whole }, () => items ?? []).flat() as Value[];
  return sequence instanceof Tuple ? new Tuple(many) : many;
}

function zeroDivision(what: string): TemplateError {
  return new TemplateError("ZeroDivisionError", what);
}

/** Bits of an int, rounded up. */
export function bitsOf(value: bigint): number {
  return value.toString(16).length * 4;
}

/** An int with which arithmetic is no more work than any other operation. */
function isShort(value: bigint): boolean {
  return BigInt.asIntN(64, value) === value;
}

function integers(operator: Operator, a: bigint, b: bigint, budget: Budget): Value {
  switch (operator) {
    case "+":
    case "-":
      if (!isShort(a) || !isShort(b)) budget.integer(Math.max(bitsOf(a), bitsOf(b)) + 1);
      return operator === "+" ? a + b : a - b;
    case "*":
      budget.integer(bitsOf(a) + bitsOf(b));
      return a * b;
    case "**":
      if (b < 0n) return floats("**", toFloat(a), toFloat(b));
      budget.integer(a === 0n || a === 1n || a === -1n ? 1 : bitsOf(a) * Number(b));
      return a ** b;
    case "/":
      if (b === 0n) throw zeroDivision("division by zero");
      spendDivision(a, b, budget);
      return quotient(a, b);
  }
  if (b === 0n) throw zeroDivision("integer division or modulo by zero");
  spendDivision(a, b, budget);
  const rest = a % b;
  // Python rounds down where JavaScript cuts.
  const below = rest !== 0n && rest < 0n !== b < 0n;
  if (operator === "//") return a / b - (below ? 1n : 0n);
  return below ? rest + b : rest;
}

/** Takes the steps of dividing long integers; short ones are no more work than any other operation. */
function spendDivision(a: bigint, b: bigint, budget: Budget): void {
  if (!isShort(a) || !isShort(b)) budget.spend((bitsOf(a) + bitsOf(b)) / 16);
}

/** The float next to a/b, also where either is too large to be a float itself. */
function quotient(a: bigint, b: bigint): number {
  const [x, y] = [Number(a), Number(b)];
  if (Number.isSafeInteger(x) && Number.isSafeInteger(y)) return x / y;
  const negative = a < 0n !== b < 0n;
  const [p, q] = [a < 0n ? -a : a, b < 0n ? -b : b];
  // 66 bits or more of the quotient, and a last one that says whether anything is left.
  const shift = BigInt(Math.max(0, 70 - bitsOf(p) + bitsOf(q)));
  const scaled = (p << shift) / q;
  const exact = scaled * q === p << shift ? scaled : scaled | 1n;
  const result = toFloat(exact) / 2 ** Number(shift);
  return negative ? -result : result;
}

function floats(operator: Operator, a: number, b: number): number {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      if (b === 0) throw zeroDivision("float division by zero");
      return a / b;
    case "**": {
      if (a === 0 && b < 0) throw zeroDivision("0.0 cannot be raised to a negative power");
      if (a < 0 && Number.isFinite(a) && Number.isFinite(b) && !Number.isInteger(b)) {
        throw typeError("complex numbers are not known to templates here");
      }
      if (a === 1 || (a === -1 && !Number.isFinite(b) && !Number.isNaN(b))) return 1;
      const power = a ** b;
      if (!Number.isFinite(power) && Number.isFinite(a) && Number.isFinite(b)) {
        throw new TemplateError("OverflowError", "(34, 'Numerical result out of range')");
      }
      return power;
    }
  }
  if (b === 0) throw zeroDivision(operator === "%" ? "float modulo" : "float floor division by zero");
  let rest = a % b;
  if (rest !== 0 && rest < 0 !== b < 0) rest += b;
  else if (rest === 0) rest = b < 0 ? -0 : 0;
  if (operator === "%") return rest;
  const floor = (a - rest) / b;
  return floor === 0 ? (a / b < 0 ? -0 : 0) : Math.round(floor);
}

/** float(value) of an int; @throws TemplateError beyond what a float holds */
export function toFloat(value: bigint | number): number {
  const float = Number(value);
  if (typeof value === "bigint" && !Number.isFinite(float)) {
    throw new TemplateError("OverflowError", "int too large to convert to float");
  }
  return float;
}

/** -value, +value */
export function signed(operator: "-" | "+", value: Value): Value {
  if (value instanceof Undefined) throw value.refuse();
  const number = asNumber(value);
  if (number === undefined) throw typeError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  return operator === "-" ? -number : number;
}

/** White space around numbers, which U+001C to U+001F are not, though they are elsewhere. */
const spaceOfNumbers =
  "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";

/** A text as numbers are read from it: without white space around it, and with every kind of digits as 0 to 9. */
function plainDigits(text: string): string {
  const bare = strip(text, "both", spaceOfNumbers);
  if (/^[\0-\x7f]*$/.test(bare)) return bare;
  return bare.replace(/(?![0-9])\p{Nd}/gu, (digit) => String(digitValue(digit.codePointAt(0) ?? 0)));
}

/** Digits stand in runs of ten in Unicode; those of mathematics are five runs without a gap. */
function digitValue(code: number): number {
  if (code >= 0x1d7ce && code <= 0x1d7ff) return (code - 0x1d7ce) % 10;
  let value = 0;
  while (value < 9 && /\p{Nd}/u.test(String.fromCodePoint(code - value - 1))) value++;
  return value;
}

/** Digits of another base that are read at once; 36 to this power is exact as a float. */
const digitsAtOnce = 10;

/** int(text, base) @throws TemplateError if it is none */
export function integerOf(given: string, base = 10, budget?: Budget): bigint {
  budget?.letters(given);
  const text = plainDigits(given);
  const refusal = () => valueError(`invalid literal for int() with base ${base}: '${shortened(given, 200)}'`);
  if (base !== 0 && (base < 2 || base > 36)) throw valueError("int() base must be >= 2 and <= 36, or 0");
  const found = /^([-+]?)(0[xobXOB](?=_?[\da-zA-Z]))?(_?)([\da-zA-Z]+(?:_[\da-zA-Z]+)*)$/.exec(text);
  if (!found) throw refusal();
  const [, sign, marked = "", underscore, body = ""] = found;
  const prefixes: Readonly<Record<string, number>> = { "0x": 16, "0o": 8, "0b": 2 };
  const prefix = marked.toLowerCase();
  let digits = body.replaceAll("_", "").toLowerCase();
  let radix = base;
  if (prefix !== "" && (base === 0 || base === prefixes[prefix])) radix = prefixes[prefix] ?? base;
  else if (underscore !== "") {
    // Between a prefix that is only digits here, as 0b is in base 16, and the rest.
    if (prefix === "") throw refusal();
    digits = prefix + digits;
  } else if (prefix !== "") digits = prefix + digits;
  if (radix === 0) {
    if (/^0+[1-9a-z]/.test(digits)) throw refusal();
    radix = 10;
  }
  const allowed = "0123456789abcdefghijklmnopqrstuvwxyz".slice(0, radix);
  if (Array.from(new Set(digits)).some((digit) => !allowed.includes(digit))) throw refusal();
  const isPowerOfTwo = (radix & (radix - 1)) === 0;
  if (digits.length > 4300 && !isPowerOfTwo) {
    throw valueError("Exceeds the limit (4300 digits) for integer string conversion");
  }
  budget?.integer(digits.length * Math.log2(radix));
  const value = integerOfDigits(digits, radix);
  return sign === "-" ? -value : value;
}

/** The bases that JavaScript reads itself, with the prefix of each. */
const nativeRadix: Readonly<Record<number, string>> = { 2: "0b", 8: "0o", 10: "", 16: "0x" };

function integerOfDigits(digits: string, radix: number): bigint {
  const native = nativeRadix[radix];
  if (native !== undefined) return BigInt(native + digits);
  let value = 0n;
  for (let at = 0; at < digits.length; at += digitsAtOnce) {
    const piece = digits.slice(at, at + digitsAtOnce);
    value = value * BigInt(radix) ** BigInt(piece.length) + BigInt(Number.parseInt(piece, radix));
  }
  return value;
}

/** float(text) @throws TemplateError if it is none */
export function floatOf(text: string, budget?: Budget): number {
  budget?.letters(text);
  const plain = plainDigits(text).replace(/(?<=\d)_(?=\d)/g, "");
  const word = /^([-+]?)(inf|infinity|nan)$/i.exec(plain);
  if (word) {
    const value = word[2]?.toLowerCase() === "nan" ? Number.NaN : Number.POSITIVE_INFINITY;
    return word[1] === "-" ? -value : value;
  }
  if (/^[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?$/i.test(plain)) return Number(plain);
  throw valueError(`could not convert string to float: '${shortened(text, 200)}'`);
}

/** A float as decimal digits, rounded half to even at so many digits behind the point, as Python's round and % do. */
export function fixed(value: number, digits: number): string {
  const short = Math.min(Math.max(digits, 0), 100);
  // Beyond 1e21 toFixed gives an exponent; all such floats are whole.
  if (Math.abs(value) >= 1e21 && Number.isFinite(value)) {
    return BigInt(value).toString() + (short > 0 ? `.${"0".repeat(short)}` : "");
  }
  const text = value.toFixed(short);
  const tie = Math.abs(value) < 1e21 && short < 60 ? value.toFixed(100) : "";
  const at = tie.indexOf(".") + 1 + short;
  // Only an exact tie is rounded otherwise: toFixed takes the larger one, Python the even one.
  if (tie === "" || !/^50*$/.test(tie.slice(at))) return text;
  const down = short === 0 ? tie.slice(0, at - 1) : tie.slice(0, at);
  return /[02468]$/.test(down) ? down : text;
}

export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll(">", "&gt;")
    .replaceAll("<", "&lt;")
    .replaceAll("'", "&#39;")
    .replaceAll('"', "&#34;");
}
