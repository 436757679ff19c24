/**
 * Python's values as templates have them: None is null, an int a bigint, a float a number, a str a string, a list an
 * array; the rest are the classes here. What can be done with them stands in the files beside.
 */
import { platform } from "../../platform/index.ts";
import { TemplateError, typeError } from "./errors.ts";

export type Value =
  | null
  | boolean
  | bigint
  | number
  | string
  | readonly Value[]
  | Undefined
  | Markup
  | Tuple
  | Dict
  | DictView
  | Range
  | Iterated
  | ObjectValue;

/** A name or attribute that is not there: empty text, no items, false; any other use is refused. */
export class Undefined {
  /** Why it is not there, as Jinja2 says it. */
  readonly reason: string;
  /** "SecurityError" for what the sandbox hides. */
  readonly kind: string;

  constructor(reason: string, kind = "UndefinedError") {
    this.reason = reason;
    this.kind = kind;
  }

  refuse(): TemplateError {
    return new TemplateError(this.kind, this.reason);
  }
}

/** Text marked as HTML by the filters escape and safe: adding plain text to it escapes that. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export class Tuple {
  /** Its hash, once it was asked for, and the characters from which it was made. */
  hash: string | undefined;
  hashedCharacters = 0;
  readonly items: readonly Value[];
  /** Attributes by position, of groupby's pairs. */
  readonly names: readonly string[];

  constructor(items: readonly Value[], names: readonly string[] = []) {
    this.items = items;
    this.names = names;
  }
}

/** Numbers that are equal are one key, as in Python; tuples are keys by what they hold. */
type Hash = null | string | number | bigint | symbol | object;
const undefinedHash = Symbol("undefined");

export function hash(value: Value): Hash {
  if (typeof value === "boolean") return value ? 1n : 0n;
  if (typeof value === "number") return Number.isInteger(value) ? integerHash(BigInt(value)) : value;
  if (typeof value === "bigint") return integerHash(value);
  if (value === null) return value;
  const text = asText(value);
  if (text !== undefined) return textHash(text.startsWith("\0") ? `\0text${text}` : text);
  if (value instanceof Undefined) return undefinedHash;
  if (value instanceof Tuple) {
    if (value.hash === undefined) {
      const text = tupleHash(value.items);
      value.hashedCharacters = text.length;
      value.hash = textHash(text);
    }
    return value.hash;
  }
  if (Array.isArray(value) || value instanceof Dict || value instanceof DictView) {
    throw typeError(`unhashable type: '${typeName(value)}'`);
  }
  return value;
}

/** V8's maps tell integers apart by their lowest 64 bits only. */
function integerHash(value: bigint): Hash {
  return BigInt.asIntN(64, value) === value ? value : `\0int${value.toString(36)}`;
}

/** V8's maps tell longer texts (of more than 16,383 characters) apart by their length only. */
const longestKey = 1 << 13;

function textHash(text: string): string {
  if (text.length <= longestKey) return text;
  const units = Uint16Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  const hash = platform.sha256();
  hash.update(new Uint8Array(units.buffer));
  return `\0long${text.length} ${hash.digest()}`;
}

/** Characters of a tuple's hash: tuples within tuples can double it without end. */
const longestHash = 1 << 20;

/** @throws RangeError if it would be too long */
function tupleHash(items: readonly Value[]): string {
  let text = "\0tuple";
  for (const item of items) {
    const part = hash(item);
    const shown = String(part);
    if (text.length + shown.length > longestHash) throw new RangeError("a key of a dict is too long");
    text += `${typeof part}${shown.length}:${shown}`;
  }
  return text;
}

/** A dict in order of insertion. */
export class Dict {
  readonly #entries = new Map<Hash, [key: Value, value: Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hash(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(hash(key));
  }

  /** Only while the dict is made: templates cannot change one. An equal key that is there stays as it is. */
  set(key: Value, value: Value): void {
    const id = hash(key);
    const entry = this.#entries.get(id);
    if (entry) entry[1] = value;
    else this.#entries.set(id, [key, value]);
  }

  entries(): Iterable<readonly [key: Value, value: Value]> {
    return this.#entries.values();
  }

  *keys(): Generator<Value> {
    for (const [key] of this.#entries.values()) yield key;
  }
}

/** What dict.items(), .keys() and .values() give: sized, in order, without positions. */
export class DictView {
  readonly dict: Dict;
  readonly kind: "items" | "keys" | "values";

  constructor(dict: Dict, kind: DictView["kind"]) {
    this.dict = dict;
    this.kind = kind;
  }

  *[Symbol.iterator](): Generator<Value> {
    for (const [key, value] of this.dict.entries()) {
      if (this.kind === "items") yield new Tuple([key, value]);
      else yield this.kind === "keys" ? key : value;
    }
  }
}

export class Range {
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  readonly length: number;

  constructor(start: number, stop: number, step: number) {
    this.start = start;
    this.stop = stop;
    this.step = step;
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }

  at(index: number): bigint {
    return BigInt(this.start + index * this.step);
  }

  *[Symbol.iterator](): Generator<Value> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

/** A generator or iterator: made as it is read, and read once. It is true even where nothing comes. */
export class Iterated {
  readonly typeName: string;
  readonly #iterator: Iterator<Value>;

  constructor(items: Iterable<Value>, typeName = "generator") {
    this.#iterator = items[Symbol.iterator]();
    this.typeName = typeName;
  }

  /** Goes on where the last reader stopped. */
  [Symbol.iterator](): Iterator<Value> {
    // Without `return`, so that a loop that ends early leaves the rest to be read, as in Python.
    return { next: () => this.#iterator.next() };
  }
}

/** The arguments of a call. */
export interface Arguments {
  readonly positional: readonly Value[];
  readonly keywords: ReadonlyMap<string, Value>;
}

/** Whatever has attributes of its own or can be called: functions, methods, macros, namespaces, `loop`. */
export abstract class ObjectValue {
  abstract readonly typeName: string;
  /** What str() and repr() give. */
  abstract readonly shown: string;

  attribute(_name: string): Value | undefined {
    return undefined;
  }

  /** Items of the object, where it has such. */
  items(): Iterable<Value> | undefined {
    return undefined;
  }

  /** Undefined where it cannot be called. */
  readonly call?: (args: Arguments) => Value;
}

/** A function of the language or a bound method. */
export class Func extends ObjectValue {
  readonly typeName: string;
  readonly shown: string;
  override readonly call: (args: Arguments) => Value;

  constructor(name: string, call: (args: Arguments) => Value, typeName = "builtin_function_or_method") {
    super();
    this.typeName = typeName;
    this.shown = `<${typeName} ${name}>`;
    this.call = call;
  }
}

/** namespace(...): the one thing whose attributes a template can set. */
export class Namespace extends ObjectValue {
  readonly typeName = "Namespace";
  readonly shown = "<Namespace>";
  readonly fields: Dict;

  constructor(fields: Dict) {
    super();
    this.fields = fields;
  }

  override attribute(name: string): Value | undefined {
    return this.fields.get(name);
  }
}

/** A value that may not be there, and what stands for it then. None is there: `??` would lose it. */
export function orElse<T>(value: Value | undefined, otherwise: () => T): Value | T {
  return value === undefined ? otherwise() : value;
}

/** type(value).__name__ */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "bigint") return "int";
  if (typeof value === "number") return "float";
  if (typeof value === "string") return "str";
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Markup) return "Markup";
  if (value instanceof Tuple) return "tuple";
  if (value instanceof Dict) return "dict";
  if (value instanceof DictView) return `dict_${value.kind}`;
  if (value instanceof Range) return "range";
  if (value instanceof Iterated || value instanceof ObjectValue) return value.typeName;
  return "list";
}

export function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

/** The text of a str, plain or marked. */
export function asText(value: Value | undefined): string | undefined {
  if (typeof value === "string") return value;
  return value instanceof Markup ? value.text : undefined;
}

/** bool(value) */
export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === "boolean") return value;
  if (typeof value === "bigint") return value !== 0n;
  if (typeof value === "number") return value !== 0;
  if (typeof value === "string") return value !== "";
  return sizeOf(value) !== 0;
}

/** Number of items; undefined where Python has no len(). Of a str: UTF-16 units. */
function sizeOf(value: Value): number | undefined {
  if (isList(value)) return value.length;
  if (value instanceof Markup) return value.text.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  if (value instanceof Range) return value.length;
  return undefined;
}

const surrogate = /[\ud800-\udfff]/;
const pairs = /[\ud800-\udbff][\udc00-\udfff]/g;

/** Every UTF-16 unit of the text is a character of its own. */
export function isPlain(text: string): boolean {
  return !surrogate.test(text);
}

/** The characters of a text as Python counts them: code points. */
export function characters(text: string): readonly string[] {
  return surrogate.test(text) ? Array.from(text) : text.split("");
}

export function textLength(text: string): number {
  return text.length - (surrogate.test(text) ? (text.match(pairs)?.length ?? 0) : 0);
}

/** len(value) */
export function length(value: Value): number {
  const text = asText(value);
  if (text !== undefined) return textLength(text);
  if (value instanceof Undefined) return 0;
  const size = sizeOf(value);
  if (size === undefined) throw typeError(`object of type '${typeName(value)}' has no len()`);
  return size;
}

/** The items of what can be iterated; undefined for the rest. */
export function itemsOf(value: Value): Iterable<Value> | undefined {
  if (isList(value) || value instanceof Range || value instanceof DictView || value instanceof Iterated) return value;
  const text = asText(value);
  // By code points, one after another.
  if (text !== undefined) return text;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof Undefined) return [];
  return value instanceof ObjectValue ? value.items() : undefined;
}

/** iter(value) */
export function iterate(value: Value): Iterable<Value> {
  const items = itemsOf(value);
  if (items === undefined) throw typeError(`'${typeName(value)}' object is not iterable`);
  return items;
}
