/** The filters of Jinja2 by name, and those that apply other filters or tests to each item. */
import { bind, type Filter } from "./arguments.ts";
import { getter } from "./attributes.ts";
import { TemplateError } from "./errors.ts";
import { sequenceFilters } from "./filters-sequence.ts";
import { formatFilter, textFilters } from "./filters-text.ts";
import type { Budget } from "./limits.ts";
import { attributeOnly } from "./members.ts";
import { str } from "./print.ts";
import { applyTest } from "./tests.ts";
import { toJson } from "./tojson.ts";
import { type Arguments, Iterated, isTrue, iterate, type Value } from "./values.ts";

type FilterFunction = (args: Arguments, budget: Budget) => Value;

function argumentError(message: string): TemplateError {
  return new TemplateError("FilterArgumentError", message);
}

/** select, reject, selectattr, rejectattr: the items that a test says yes, or no, to. */
function selecting(wanted: boolean, byAttribute: boolean): FilterFunction {
  return function select({ positional: [value = null, ...args], keywords }, budget) {
    const attribute = byAttribute ? args.shift() : null;
    const [test, ...rest] = args;
    function* chosen(): Generator<Value> {
      if (!isTrue(value)) return;
      if (attribute === undefined) throw argumentError("Missing parameter for attribute name");
      const get = getter(attribute, budget);
      const holds = (item: Value) =>
        test === undefined ? isTrue(item) : applyTest(str(test, budget), item, { positional: rest, keywords }, budget);
      for (const item of iterate(value)) if (holds(get(item)) === wanted) yield item;
    }
    return new Iterated(chosen());
  };
}

/** map: an attribute of each item, or what a filter makes of it. */
function mapping({ positional: [value = null, ...args], keywords }: Arguments, budget: Budget): Value {
  function* mapped(): Generator<Value> {
    if (!isTrue(value)) return;
    const [name, ...rest] = args;
    let each: (item: Value) => Value;
    if (name === undefined) {
      const { attribute, default: otherwise = null, ...others } = Object.fromEntries(keywords);
      if (attribute === undefined) throw argumentError("map requires a filter argument");
      const [other] = Object.keys(others);
      if (other !== undefined) throw argumentError(`Unexpected keyword argument '${other}'`);
      each = getter(attribute, budget, otherwise);
    } else {
      const filter = str(name, budget);
      each = (item) => applyFilter(filter, item, { positional: rest, keywords }, budget);
    }
    for (const item of iterate(value)) yield each(item);
  }
  return new Iterated(mapped());
}

function bound(name: string, filter: Filter): FilterFunction {
  return (args, budget) => filter.run(bind(name, args, filter), budget);
}

const filters: ReadonlyMap<string, FilterFunction> = new Map<string, FilterFunction>([
  ...[...Object.entries(textFilters), ...Object.entries(sequenceFilters)].map(
    ([name, filter]): [string, FilterFunction] => [name, bound(name, filter)],
  ),
  ["attr", attr],
  ["count", bound("count", sequenceFilters.length)],
  ["d", bound("default", textFilters.default)],
  ["e", bound("escape", textFilters.escape)],
  [
    "format",
    ({ positional: [value = null, ...rest], keywords }, budget) => formatFilter(value, rest, keywords, budget),
  ],
  ["map", mapping],
  ["reject", selecting(false, false)],
  ["rejectattr", selecting(false, true)],
  ["select", selecting(true, false)],
  ["selectattr", selecting(true, true)],
  ["tojson", toJson],
]);

function attr(args: Arguments, budget: Budget): Value {
  const [value = null, name = null] = bind("attr", args, { parameters: ["obj", "name"], required: 2 });
  return attributeOnly(value, str(name, budget), budget);
}

/** Filters of Jinja2 that make HTML or pages, or differ from run to run; no chat template needs them. */
const notHere = new Set([
  "filesizeformat",
  "pprint",
  "random",
  "striptags",
  "urlencode",
  "urlize",
  "wordwrap",
  "xmlattr",
]);

export function hasFilter(name: string): boolean {
  return filters.has(name) || notHere.has(name);
}

/** value|name(...args) */
export function applyFilter(name: string, value: Value, args: Arguments, budget: Budget): Value {
  budget.spend(2);
  const filter = filters.get(name);
  if (filter) return filter({ positional: [value, ...args.positional], keywords: args.keywords }, budget);
  if (notHere.has(name)) {
    throw new TemplateError("NotImplementedError", `the filter '${name}' is not supported in chat templates here`);
  }
  throw new TemplateError("TemplateRuntimeError", `No filter named '${name}'.`);
}
