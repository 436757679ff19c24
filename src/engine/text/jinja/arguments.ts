/** The arguments of a call, sorted to the parameters of a function of the language, as Python sorts them. */
import { typeError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { type Arguments, asText, typeName, type Value } from "./values.ts";

export interface Signature {
  /** Names of the parameters in order. */
  readonly parameters: readonly string[];
  /** How many of them must be given; none if left out. */
  readonly required?: number;
  /** How many of them cannot be given by name; none if left out. */
  readonly positionalOnly?: number;
}

/** A filter: the value on the left is its first parameter. */
export interface Filter extends Signature {
  readonly run: (values: readonly (Value | undefined)[], budget: Budget) => Value;
}

/**
 * The value of each parameter; undefined where it was not given.
 *
 * @throws TemplateError for too many, too few, doubled or unknown arguments
 */
export function bind(name: string, args: Arguments, signature: Signature): (Value | undefined)[] {
  const { parameters, required = 0, positionalOnly = 0 } = signature;
  const { positional, keywords } = args;
  if (positional.length > parameters.length) {
    throw typeError(`${name}() takes at most ${parameters.length} arguments (${positional.length} given)`);
  }
  const values = parameters.map((_, i) => positional[i]);
  for (const [key, value] of keywords) {
    const index = parameters.indexOf(key);
    if (index < positionalOnly) throw typeError(`${name}() got an unexpected keyword argument '${key}'`);
    if (index < positional.length) throw typeError(`${name}() got multiple values for argument '${key}'`);
    values[index] = value;
  }
  const missing = parameters.findIndex((_, i) => i < required && values[i] === undefined);
  if (missing >= 0) throw typeError(`${name}() missing required argument: '${parameters[missing]}'`);
  return values;
}

export const noArguments: Arguments = { positional: [], keywords: new Map() };

/** An argument that must be text. */
export function textArgument(value: Value | undefined, name: string): string {
  const text = asText(value);
  if (text === undefined) throw typeError(`${name} must be str, not ${typeName(value ?? null)}`);
  return text;
}

/** An argument that must be an int (or a bool), as a number: beyond 2^53 rounded, beyond 2^1024 infinite. */
export function integerArgument(value: Value | undefined): number {
  return Number(wholeArgument(value));
}

/** An argument that must be an int (or a bool), exactly. */
export function wholeArgument(value: Value | undefined): bigint {
  if (typeof value === "boolean") return value ? 1n : 0n;
  if (typeof value === "bigint") return value;
  throw typeError(`'${typeName(value ?? null)}' object cannot be interpreted as an integer`);
}
