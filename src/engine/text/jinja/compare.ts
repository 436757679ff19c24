/** Equality, order and membership as Python has them: 1 == 1.0 == True, no order between kinds. */
import { typeError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import {
  asText,
  Dict,
  DictView,
  hash,
  isList,
  iterate,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** An int or a bool as bigint, a float as number; undefined for what is no number. */
export function asNumber(value: Value): bigint | number | undefined {
  if (typeof value === "boolean") return value ? 1n : 0n;
  return typeof value === "bigint" || typeof value === "number" ? value : undefined;
}

/** A key of a dict, after the steps of looking it up are taken. */
export function charged(key: Value, budget: Budget): Value {
  const text = asText(key);
  if (text !== undefined) budget.text(text.length);
  else if (key instanceof Tuple) {
    // Its hash is made once and kept; what it holds was made at the cost of as many steps.
    hash(key);
    budget.text(key.hashedCharacters);
  } else if (typeof key === "bigint" && BigInt.asIntN(64, key) !== key) budget.integer(key.toString(16).length * 4);
  return key;
}

/** a == b */
export function equals(a: Value, b: Value, budget: Budget): boolean {
  budget.spend(1);
  const number = asNumber(a);
  if (number !== undefined) {
    const other = asNumber(b);
    // biome-ignore lint/suspicious/noDoubleEquals: an int and a float are compared by value.
    return other !== undefined && number == other;
  }
  const text = asText(a);
  if (text !== undefined) {
    const other = asText(b);
    if (other === undefined || other.length !== text.length) return false;
    budget.text(text.length);
    return text === other;
  }
  if (a instanceof Undefined) return b instanceof Undefined;
  if (isList(a)) return isList(b) && equalItems(a, b, budget);
  if (a instanceof Tuple) return b instanceof Tuple && equalItems(a.items, b.items, budget);
  if (a instanceof Dict) return b instanceof Dict && equalDicts(a, b, budget);
  if (a instanceof Range) {
    if (!(b instanceof Range) || a.length !== b.length) return false;
    return a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step));
  }
  if (a instanceof DictView) {
    if (!(b instanceof DictView) || a.kind === "values" || b.kind === "values" || a.dict.size !== b.dict.size) {
      return a === b;
    }
    const others = [...b];
    return [...a].every((item) => others.some((other) => equals(item, other, budget)));
  }
  return a === b;
}

function equalItems(a: readonly Value[], b: readonly Value[], budget: Budget): boolean {
  return a.length === b.length && a.every((item, i) => equals(item, b[i] ?? null, budget));
}

function equalDicts(a: Dict, b: Dict, budget: Budget): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a.entries()) {
    const other = b.get(charged(key, budget));
    if (other === undefined || !equals(value, other, budget)) return false;
  }
  return true;
}

/**
 * Negative where a < b, positive where a > b, 0 where they are equal; NaN where neither (a float nan).
 *
 * @param operator as the refusal names it
 * @throws TemplateError where Python knows no order of the two
 */
export function compare(a: Value, b: Value, operator: string, budget: Budget): number {
  budget.spend(1);
  if (a instanceof Undefined) throw a.refuse();
  if (b instanceof Undefined) throw b.refuse();
  const [x, y] = [asNumber(a), asNumber(b)];
  if (x !== undefined && y !== undefined) {
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.NaN;
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const [s, t] = [asText(a), asText(b)];
  if (s !== undefined && t !== undefined) {
    budget.text(Math.min(s.length, t.length));
    return compareTexts(s, t);
  }
  if (isList(a) && isList(b)) return compareItems(a, b, operator, budget);
  if (a instanceof Tuple && b instanceof Tuple) return compareItems(a.items, b.items, operator, budget);
  throw typeError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

function compareItems(a: readonly Value[], b: readonly Value[], operator: string, budget: Budget): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const [x = null, y = null] = [a[i], b[i]];
    if (!equals(x, y, budget)) return compare(x, y, operator, budget);
  }
  return a.length - b.length;
}

/** By code points: UTF-16 units would put what lies beyond U+FFFF before U+E000. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  let i = 0;
  while (i < a.length && i < b.length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  const rank = (unit: number) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
  const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)];
  if (Number.isNaN(x) || Number.isNaN(y)) return a.length - b.length;
  return rank(x) - rank(y);
}

/** a item in container */
export function contains(container: Value, item: Value, budget: Budget): boolean {
  const text = asText(container);
  if (text !== undefined) {
    const part = asText(item);
    if (part === undefined) throw typeError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    budget.search(text, part);
    return text.includes(part);
  }
  if (container instanceof Dict) return container.has(charged(item, budget));
  if (container instanceof DictView && container.kind === "keys") {
    return container.dict.has(charged(item, budget));
  }
  if (container instanceof Range) return rangeHas(container, item);
  const items = argumentItems(container);
  for (const one of items) {
    budget.spend(1);
    if (one === item || equals(one, item, budget)) return true;
  }
  return false;
}

function rangeHas(range: Range, item: Value): boolean {
  const number = asNumber(item);
  const index = number === undefined ? Number.NaN : (Number(number) - range.start) / range.step;
  return Number.isInteger(index) && index >= 0 && index < range.length;
}

function argumentItems(container: Value): Iterable<Value> {
  try {
    return iterate(container);
  } catch {
    throw typeError(`argument of type '${typeName(container)}' is not iterable`);
  }
}
