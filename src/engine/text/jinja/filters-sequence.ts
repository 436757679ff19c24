/** The filters of Jinja2 on lists, dicts and whatever else has items. */
import { type Filter, integerArgument } from "./arguments.ts";
import { getter, getters, sortedBy } from "./attributes.ts";
import { charged, compare, equals } from "./compare.ts";
import { TemplateError, typeError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { asMarked } from "./markup.ts";
import { arithmetic } from "./numbers.ts";
import { str } from "./print.ts";

import {
  asText,
  characters,
  Dict,
  DictView,
  hash,
  Iterated,
  isList,
  isTrue,
  iterate,
  length,
  orElse,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** list(value) */
export function toList(value: Value, budget: Budget): Value[] {
  const items: Value[] = [];
  for (const item of iterate(value)) {
    budget.spend(1);
    items.push(item);
  }
  return items;
}

/** reversed(value), which generators do not have. */
function backwards(value: Value, budget: Budget): Value[] | undefined {
  const known =
    asText(value) !== undefined ||
    isList(value) ||
    value instanceof Tuple ||
    value instanceof Dict ||
    value instanceof Range;
  return known || value instanceof DictView || value instanceof Undefined ? toList(value, budget).reverse() : undefined;
}

function* batches(value: Value, size: number, fill: Value, budget: Budget): Generator<Value> {
  let batch: Value[] = [];
  for (const item of iterate(value)) {
    budget.spend(1);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
    batch.push(item);
  }
  if (batch.length === 0) return;
  const missing = fill === null ? 0 : Math.max(0, size - batch.length);
  budget.spend(missing);
  yield [...batch, ...Array.from({ length: missing }, () => fill)];
}

function* slices(value: Value, count: number, fill: Value, budget: Budget): Generator<Value> {
  const items = toList(value, budget);
  if (count === 0) throw new TemplateError("ZeroDivisionError", "integer division or modulo by zero");
  const size = Math.floor(items.length / count);
  const longer = items.length - size * count;
  let at = 0;
  for (let i = 0; i < count; i++) {
    // A list each.
    budget.spend(4);
    const end = at + size + (i < longer ? 1 : 0);
    const part = items.slice(at, end);
    if (fill !== null && i >= longer) part.push(fill);
    yield part;
    at = end;
  }
}

function* uniqueItems(value: Value, caseSensitive: boolean, attribute: Value, budget: Budget): Generator<Value> {
  const get = getter(attribute, budget, null, !caseSensitive);
  const seen = new Set<unknown>();
  for (const item of iterate(value)) {
    const key = hash(charged(get(item), budget));
    if (seen.has(key)) continue;
    seen.add(key);
    yield item;
  }
}

function extreme(name: "min" | "max"): Filter {
  return {
    parameters: ["value", "case_sensitive", "attribute"],
    required: 1,
    run: ([value = null, caseSensitive = false, attribute = null], budget) => {
      const get = getter(attribute, budget, null, !isTrue(caseSensitive));
      let best: { item: Value; key: Value } | undefined;
      for (const item of iterate(value)) {
        const key = get(item);
        const better =
          best === undefined ||
          (name === "min" ? compare(key, best.key, "<", budget) < 0 : compare(key, best.key, ">", budget) > 0);
        if (better) best = { item, key };
      }
      return best === undefined ? new Undefined("No aggregated item, sequence was empty.") : best.item;
    },
  };
}

function grouped(value: Value, attribute: Value, otherwise: Value, caseSensitive: boolean, budget: Budget): Value {
  const get = getter(attribute, budget, otherwise, !caseSensitive);
  const shown = getter(attribute, budget, otherwise);
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sortedBy(toList(value, budget), get, false, budget)) {
    const key = get(item);
    const last = groups.at(-1);
    if (last !== undefined && equals(last.key, key, budget)) last.items.push(item);
    else groups.push({ key, items: [item] });
  }
  return groups.map(({ items }) => new Tuple([shown(items[0] ?? null), items], ["grouper", "list"]));
}

function total(value: Value, attribute: Value, start: Value, budget: Budget): Value {
  if (asText(start) !== undefined) throw typeError("sum() can't sum strings [use ''.join(seq) instead]");
  const get = getter(attribute, budget);
  let sum = start;
  for (const item of iterate(value)) sum = arithmetic("+", sum, get(item), budget);
  return sum;
}

const sequence = (name: string, run: (value: Value, budget: Budget) => Value): Filter => ({
  parameters: [name],
  required: 1,
  run: ([value = null], budget) => run(value, budget),
});

export const sequenceFilters = {
  batch: {
    parameters: ["value", "linecount", "fill_with"],
    required: 2,
    run: ([value = null, size = null, fill = null], budget) =>
      new Iterated(batches(value, integerArgument(size), fill, budget)),
  },
  dictsort: {
    parameters: ["value", "case_sensitive", "by", "reverse"],
    required: 1,
    run: ([value = null, caseSensitive = false, by = "key", reverse = false], budget) => {
      if (by !== "key" && by !== "value") {
        throw new TemplateError("FilterArgumentError", 'You can only sort by either "key" or "value"');
      }
      if (value instanceof Undefined) throw value.refuse();
      if (!(value instanceof Dict)) {
        throw new TemplateError("AttributeError", `'${typeName(value)}' object has no attribute 'items'`);
      }
      const get = getter(by === "key" ? 0n : 1n, budget, null, !isTrue(caseSensitive));
      return sortedBy([...new DictView(value, "items")], get, isTrue(reverse), budget);
    },
  },
  first: sequence("seq", (value) => {
    const { value: item, done } = iterate(value)[Symbol.iterator]().next();
    return done ? new Undefined("No first item, sequence was empty.") : item;
  }),
  groupby: {
    parameters: ["value", "attribute", "default", "case_sensitive"],
    required: 2,
    run: ([value = null, attribute = null, otherwise = null, caseSensitive = false], budget) =>
      grouped(value, attribute, otherwise, isTrue(caseSensitive), budget),
  },
  items: sequence("value", (value) => {
    if (!(value instanceof Dict) && !(value instanceof Undefined)) {
      // As a generator, which refuses when it is read.
      return new Iterated(refusing(typeError("Can only get item pairs from a mapping.")));
    }
    return new Iterated(value instanceof Dict ? new DictView(value, "items") : []);
  }),
  join: {
    parameters: ["value", "d", "attribute"],
    required: 1,
    run: ([value = null, separator = "", attribute = null], budget) => {
      const get = getter(attribute, budget);
      const between = str(separator, budget);
      let size = 0;
      const parts: string[] = [];
      for (const item of iterate(value)) {
        const part = str(get(item), budget);
        size += part.length + between.length;
        budget.output(part.length + between.length, size);
        parts.push(part);
      }
      return parts.join(between);
    },
  },
  last: sequence("seq", (value, budget) => {
    const items = backwards(value, budget);
    if (items === undefined) throw typeError(`'${typeName(value)}' object is not reversible`);
    return orElse(items[0], () => new Undefined("No last item, sequence was empty."));
  }),
  length: sequence("obj", (value, budget) => {
    const text = asText(value);
    if (text !== undefined) budget.text(text.length);
    return BigInt(length(value));
  }),
  list: sequence("value", toList),
  max: extreme("max"),
  min: extreme("min"),
  reverse: sequence("value", (value, budget) => {
    const text = asText(value);
    if (text !== undefined) {
      budget.letters(text);
      return asMarked(value, [...characters(text)].reverse().join(""));
    }
    const items = backwards(value, budget);
    if (items !== undefined) return new Iterated(items, `${typeName(value)}_reverseiterator`);
    try {
      return toList(value, budget).reverse();
    } catch (error) {
      if (error instanceof TemplateError) throw new TemplateError("FilterArgumentError", "argument must be iterable");
      throw error;
    }
  }),
  slice: {
    parameters: ["value", "slices", "fill_with"],
    required: 2,
    run: ([value = null, count = null, fill = null], budget) =>
      new Iterated(slices(value, integerArgument(count), fill, budget)),
  },
  sort: {
    parameters: ["value", "reverse", "case_sensitive", "attribute"],
    required: 1,
    run: ([value = null, reverse = false, caseSensitive = false, attribute = null], budget) =>
      sortedBy(toList(value, budget), getters(attribute, budget, !isTrue(caseSensitive)), isTrue(reverse), budget),
  },
  sum: {
    parameters: ["iterable", "attribute", "start"],
    required: 1,
    run: ([value = null, attribute = null, start = 0n], budget) => total(value, attribute, start, budget),
  },
  unique: {
    parameters: ["value", "case_sensitive", "attribute"],
    required: 1,
    run: ([value = null, caseSensitive = false, attribute = null], budget) =>
      new Iterated(uniqueItems(value, isTrue(caseSensitive), attribute, budget)),
  },
} satisfies Readonly<Record<string, Filter>>;

// biome-ignore lint/correctness/useYield: it refuses before anything comes.
function* refusing(error: TemplateError): Generator<Value> {
  throw error;
}
