/**
 * The tests of Jinja2: what stands behind `is`. Only the test `filter`, which asks for names of filters, is not here.
 */
import { bind, type Signature } from "./arguments.ts";
import { asNumber, compare, contains, equals } from "./compare.ts";
import { TemplateError } from "./errors.ts";
import { isLower, isUpper } from "./letters.ts";
import type { Budget } from "./limits.ts";
import { arithmetic } from "./numbers.ts";
import { str } from "./print.ts";
import {
  type Arguments,
  asText,
  Dict,
  isList,
  itemsOf,
  Markup,
  ObjectValue,
  Range,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

interface Test extends Signature {
  readonly run: (values: readonly Value[], budget: Budget) => boolean;
}

const one = (run: (value: Value, budget: Budget) => boolean): Test => ({
  parameters: ["value"],
  required: 1,
  run: ([value = null], budget) => run(value, budget),
});

const two = (run: (value: Value, other: Value, budget: Budget) => boolean): Test => ({
  parameters: ["value", "other"],
  required: 2,
  run: ([value = null, other = null], budget) => run(value, other, budget),
});

function remainder(value: Value, by: bigint, budget: Budget): boolean {
  return equals(arithmetic("%", value, by, budget), 1n, budget);
}

const equal = two(equals);
const unequal = two((a, b, budget) => !equals(a, b, budget));
const less = two((a, b, budget) => compare(a, b, "<", budget) < 0);
const lessOrEqual = two((a, b, budget) => compare(a, b, "<=", budget) <= 0);
const greater = two((a, b, budget) => compare(a, b, ">", budget) > 0);
const greaterOrEqual = two((a, b, budget) => compare(a, b, ">=", budget) >= 0);

const tests: Readonly<Record<string, Test>> = {
  boolean: one((value) => typeof value === "boolean"),
  callable: one((value) => value instanceof Undefined || (value instanceof ObjectValue && value.call !== undefined)),
  defined: one((value) => !(value instanceof Undefined)),
  divisibleby: two((value, by, budget) => equals(arithmetic("%", value, by, budget), 0n, budget)),
  eq: equal,
  "==": equal,
  equalto: equal,
  escaped: one((value) => value instanceof Markup),
  even: one((value, budget) => equals(arithmetic("%", value, 2n, budget), 0n, budget)),
  false: one((value) => value === false),
  float: one((value) => typeof value === "number"),
  ge: greaterOrEqual,
  ">=": greaterOrEqual,
  gt: greater,
  ">": greater,
  greaterthan: greater,
  in: two((value, container, budget) => contains(container, value, budget)),
  integer: one((value) => typeof value === "bigint"),
  iterable: one((value) => itemsOf(value) !== undefined),
  le: lessOrEqual,
  "<=": lessOrEqual,
  lt: less,
  "<": less,
  lessthan: less,
  lower: one((value, budget) => isLower(letters(value, budget))),
  mapping: one((value) => value instanceof Dict),
  ne: unequal,
  "!=": unequal,
  none: one((value) => value === null),
  number: one((value) => asNumber(value) !== undefined),
  odd: one((value, budget) => remainder(value, 2n, budget)),
  sameas: two((value, other) => (value instanceof Undefined ? value === other : Object.is(value, other))),
  sequence: one(isSequence),
  string: one((value) => asText(value) !== undefined),
  test: one((value) => typeof value === "string" && hasTest(value)),
  true: one((value) => value === true),
  undefined: one((value) => value instanceof Undefined),
  upper: one((value, budget) => isUpper(letters(value, budget))),
};

/** Python asks for len() and items by key, which an undefined value has too. */
function isSequence(value: Value): boolean {
  return (
    asText(value) !== undefined ||
    isList(value) ||
    value instanceof Tuple ||
    value instanceof Dict ||
    value instanceof Range ||
    value instanceof Undefined
  );
}

/** The text of a value, whose letters will be looked at. */
function letters(value: Value, budget: Budget): string {
  const text = budget.made(str(value, budget));
  budget.letters(text);
  return text;
}

export function hasTest(name: string): boolean {
  return Object.hasOwn(tests, name);
}

/** value is name(...args) */
export function applyTest(name: string, value: Value, args: Arguments, budget: Budget): boolean {
  const test = hasTest(name) ? tests[name] : undefined;
  if (test === undefined) throw new TemplateError("TemplateRuntimeError", `No test named '${name}'.`);
  budget.spend(2);
  const all = { positional: [value, ...args.positional], keywords: args.keywords };
  const values = bind(name, all, test).map((given) => given ?? null);
  return test.run(values, budget);
}
