/** JavaScript's values, as rows and callers give them, to values of templates. */
import { ConfigError } from "../../../errors.ts";
import { sourceNumber, sourceOrder } from "../../files/exact-json.ts";
import { floatOf, integerOf } from "./numbers.ts";
import { Dict, type Value } from "./values.ts";

/**
 * A value of JSON's kinds as Python would have read it. Whole numbers become ints, unless the row was read with its
 * numbers as they stood there (exact-json.ts): then 1.0 stays a float and long integers keep all their digits.
 *
 * @throws ConfigError for what JSON has not (functions, symbols)
 */
export function toValue(given: unknown): Value {
  switch (typeof given) {
    case "string":
    case "boolean":
    case "bigint":
      return given;
    case "number":
      return Number.isInteger(given) && !Object.is(given, -0) ? BigInt(given) : given;
    case "object":
      if (given === null) return null;
      if (Array.isArray(given)) return given.map((item, i) => toMember(given, String(i), item));
      return toDict(given);
    case "undefined":
      return null;
  }
  throw new ConfigError(`A chat template's variables hold a ${typeof given}; give texts, numbers, lists and objects.`);
}

/** The variables that a template is given, by name. */
export function toVariables(given: Readonly<Record<string, unknown>>): Map<string, Value> {
  const variables = new Map<string, Value>();
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined) variables.set(name, toMember(given, name, value));
  }
  return variables;
}

function toDict(object: object): Dict {
  const dict = new Dict();
  const members = object as Readonly<Record<string, unknown>>;
  for (const key of sourceOrder(object)) {
    if (members[key] !== undefined) dict.set(key, toMember(object, key, members[key]));
  }
  return dict;
}

function toMember(holder: object, key: string, value: unknown): Value {
  const source = typeof value === "number" ? sourceNumber(holder, key, value) : undefined;
  if (source === undefined) return toValue(value);
  return /^-?\d+$/.test(source) ? integerOf(source) : floatOf(source);
}
