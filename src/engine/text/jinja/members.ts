/**
 * What stands behind a dot or in brackets: attributes, methods, items and slices, as Jinja2's sandbox looks them up. A
 * dot takes the attribute first and then the item, brackets the item first; what changes a value is hidden.
 */
import { bind, integerArgument } from "./arguments.ts";
import { asNumber, charged, contains, equals } from "./compare.ts";
import { typeError, valueError } from "./errors.ts";
import type { FieldLookup } from "./format.ts";
import type { Budget } from "./limits.ts";
import { asMarked, markedMethod } from "./markup.ts";
import { stringMethod } from "./string-methods.ts";
import { characterAt, cutText, slice, sliceIndices } from "./strings.ts";
import {
  type Arguments,
  asText,
  Dict,
  DictView,
  Func,
  isList,
  iterate,
  Markup,
  ObjectValue,
  orElse,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** Methods that change a list or a dict; ImmutableSandboxedEnvironment hides them. */
const changing: Readonly<Record<string, ReadonlySet<string>>> = {
  list: new Set(["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"]),
  dict: new Set(["clear", "pop", "popitem", "setdefault", "update"]),
};

/** value.name */
export function getAttribute(value: Value, name: string, budget: Budget): Value {
  if (value instanceof Undefined) throw value.refuse();
  const attribute = attributeOf(value, name, budget);
  return orElse(attribute === undefined ? itemOf(value, name, budget) : attribute, () => missing(value, name));
}

/** value[key] */
export function getItem(value: Value, key: Value, budget: Budget): Value {
  if (value instanceof Undefined) throw value.refuse();
  const item = itemOf(value, key, budget);
  if (item !== undefined) return item;
  const name = asText(key);
  const attribute = name === undefined ? undefined : attributeOf(value, name, budget);
  return orElse(attribute, () => missing(value, key));
}

/** value|attr(name): never an item. */
export function attributeOnly(value: Value, name: string, budget: Budget): Value {
  if (value instanceof Undefined) throw value.refuse();
  return orElse(attributeOf(value, name, budget), () => missing(value, name));
}

/** The lookup of fields in str.format. */
export function fieldLookup(budget: Budget): FieldLookup {
  return (value, step) => {
    const found = "attribute" in step ? getAttribute(value, step.attribute, budget) : getItem(value, step.item, budget);
    if (found instanceof Undefined) throw found.refuse();
    return found;
  };
}

function missing(value: Value, key: Value): Undefined {
  const name = asText(key);
  const owner = value === null ? "None" : `'${value instanceof Dict ? "dict" : typeName(value)} object'`;
  if (name !== undefined) return new Undefined(`${owner} has no attribute '${name}'`);
  return new Undefined(`${owner} has no element ${typeof key === "bigint" ? key : `of kind '${typeName(key)}'`}`);
}

/** An item by key or position; undefined where there is none, or where the value has no items. */
function itemOf(value: Value, key: Value, budget: Budget): Value | undefined {
  if (value instanceof Dict) return isHashable(key) ? value.get(charged(key, budget)) : undefined;
  const index = typeof key === "boolean" ? Number(key) : typeof key === "bigint" ? Number(key) : undefined;
  if (index === undefined) return undefined;
  if (isList(value)) return value.at(index);
  if (value instanceof Tuple) return value.items.at(index);
  if (value instanceof Range) {
    const at = index < 0 ? index + value.length : index;
    return at >= 0 && at < value.length ? value.at(at) : undefined;
  }
  const text = asText(value);
  if (text === undefined) return undefined;
  budget.text(text.length);
  const character = characterAt(text, index);
  return character === undefined ? undefined : asMarked(value, character);
}

function isHashable(key: Value): boolean {
  if (key instanceof Tuple) return key.items.every(isHashable);
  return !isList(key) && !(key instanceof Dict) && !(key instanceof DictView);
}

function attributeOf(value: Value, name: string, budget: Budget): Value | undefined {
  if (value instanceof ObjectValue) return value.attribute(name);
  const kind = typeName(value);
  if (changing[kind]?.has(name)) {
    return new Undefined(`access to attribute '${name}' of '${kind}' object is unsafe.`, "SecurityError");
  }
  if (value instanceof Tuple && value.names.includes(name)) return value.items[value.names.indexOf(name)];
  const part = numberPart(value, name);
  if (part !== undefined) return part;
  const run = methodOf(value, name, budget);
  return run && new Func(`${name} of ${kind} object`, run);
}

/** The attributes of numbers. */
function numberPart(value: Value, name: string): Value | undefined {
  const number = asNumber(value);
  if (number === undefined) return undefined;
  if (name === "real") return number;
  if (name === "imag") return typeof number === "bigint" ? 0n : 0;
  if (typeof number !== "bigint") return undefined;
  return name === "numerator" ? number : name === "denominator" ? 1n : undefined;
}

function methodOf(value: Value, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const text = asText(value);
  if (text !== undefined) {
    const isMarked = value instanceof Markup;
    const run = stringMethod(text, name, fieldLookup(budget), budget, isMarked);
    return run && isMarked ? markedMethod(name, run, budget) : run;
  }
  if (value instanceof Dict) return dictMethod(value, name, budget);
  if (isList(value)) return listMethod(value, name, budget);
  if (value instanceof Tuple) return name === "copy" ? undefined : listMethod(value.items, name, budget);
  if (value instanceof Range) return name === "copy" ? undefined : listMethod(rangeItems(value, budget), name, budget);
  if (typeof value === "number" && name === "is_integer") return () => Number.isInteger(value);
  if (typeof value === "bigint" && name === "bit_length") {
    return () => BigInt(value === 0n ? 0 : (value < 0n ? -value : value).toString(2).length);
  }
  return undefined;
}

function rangeItems(range: Range, budget: Budget): Value[] {
  budget.spend(range.length);
  return [...range];
}

function dictMethod(dict: Dict, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const none = (args: Arguments) => bind(name, args, { parameters: [] });
  switch (name) {
    case "get":
      return (args) => {
        const [key = null, otherwise = null] = bind(name, args, {
          parameters: ["key", "default"],
          required: 1,
          positionalOnly: 2,
        });
        return orElse(dict.get(charged(key, budget)), () => otherwise);
      };
    case "items":
    case "keys":
    case "values":
      return (args) => {
        none(args);
        return new DictView(dict, name);
      };
    case "copy":
      return (args) => {
        none(args);
        budget.spend(dict.size);
        return new Dict(dict.entries());
      };
    case "fromkeys":
      return (args) => {
        const [keys = null, value = null] = bind(name, args, { parameters: ["iterable", "value"], required: 1 });
        const made = new Dict();
        for (const key of iterate(keys)) {
          budget.spend(1);
          made.set(charged(key, budget), value);
        }
        return made;
      };
  }
  return undefined;
}

function listMethod(items: readonly Value[], name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  switch (name) {
    case "copy":
      return (args) => {
        bind(name, args, { parameters: [] });
        budget.spend(items.length);
        return [...items];
      };
    case "count":
      return (args) => {
        const [wanted = null] = bind(name, args, { parameters: ["value"], required: 1, positionalOnly: 1 });
        return BigInt(items.filter((item) => equals(item, wanted, budget)).length);
      };
    case "index":
      return (args) => {
        const parameters = ["value", "start", "stop"];
        const [wanted = null, start, stop] = bind(name, args, { parameters, required: 1, positionalOnly: 3 });
        const { from, length } = sliceIndices(
          items.length,
          start === undefined ? undefined : integerArgument(start),
          stop === undefined ? undefined : integerArgument(stop),
          1,
        );
        for (let at = from; at < from + length; at++) {
          if (contains([items[at] ?? null], wanted, budget)) return BigInt(at);
        }
        throw valueError("value is not in list");
      };
  }
  return undefined;
}

/** value[start:stop:step]; null where one is left out. */
export function getSlice(value: Value, bounds: readonly Value[], budget: Budget): Value {
  if (value instanceof Undefined) throw value.refuse();
  const text = asText(value);
  if (text === undefined && !isList(value) && !(value instanceof Tuple) && !(value instanceof Range)) {
    throw typeError(
      value instanceof Dict ? "unhashable type: 'slice'" : `'${typeName(value)}' object is not subscriptable`,
    );
  }
  const [start, stop, given] = bounds.map((bound) => {
    if (bound instanceof Undefined || (bound !== null && typeof bound !== "bigint" && typeof bound !== "boolean")) {
      throw typeError("slice indices must be integers or None or have an __index__ method");
    }
    // Beyond any length, and finite so that no product with it is NaN.
    return bound === null
      ? undefined
      : Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number(bound), Number.MAX_SAFE_INTEGER));
  });
  const step = given ?? 1;
  if (step === 0) throw valueError("slice step cannot be zero");
  if (text !== undefined) {
    if (step === 1) budget.text(text.length);
    else budget.letters(text);
    const cut = cutText(text, start, stop, step);
    return asMarked(value, cut);
  }
  if (value instanceof Range) {
    const { from, to } = sliceIndices(value.length, start, stop, step);
    return new Range(value.start + from * value.step, value.start + to * value.step, step * value.step);
  }
  const items = value instanceof Tuple ? value.items : isList(value) ? value : [];
  const cut = slice(items, start, stop, step);
  budget.spend(cut.length);
  return value instanceof Tuple ? new Tuple(cut) : cut;
}
