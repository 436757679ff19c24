/** Expressions to values, as Jinja2 evaluates them. Statements, which write text, are render.ts's. */
import { charged, compare, contains, equals } from "./compare.ts";
import { typeError } from "./errors.ts";
import { applyFilter } from "./filters.ts";
import { percentFormat } from "./format.ts";
import type { Budget } from "./limits.ts";
import { asMarked } from "./markup.ts";
import { getAttribute, getItem, getSlice } from "./members.ts";
import { arithmetic, signed } from "./numbers.ts";
import { str } from "./print.ts";
import type { Scope } from "./scope.ts";
import type { CallArguments, Comparison, Expression } from "./syntax.ts";
import { applyTest } from "./tests.ts";
import {
  type Arguments,
  asText,
  Dict,
  isTrue,
  iterate,
  Markup,
  Namespace,
  ObjectValue,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** @throws TemplateError where Python would raise; TemplateLimitError beyond a limit */
export function evaluate(node: Expression, scope: Scope, budget: Budget): Value {
  budget.spend(1);
  const at = (inner: Expression) => evaluate(inner, scope, budget);
  switch (node.kind) {
    case "constant":
      return node.value;
    case "name":
      return scope.get(node.name);
    case "list":
      return node.items.map(at);
    case "tuple":
      return new Tuple(node.items.map(at));
    case "dict":
      return new Dict(node.entries.map(({ key, value }) => [charged(at(key), budget), at(value)] as const));
    case "attribute":
      return getAttribute(at(node.object), node.name, budget);
    case "item":
      return getItem(at(node.object), at(node.key), budget);
    case "slice": {
      const object = at(node.object);
      return getSlice(
        object,
        [0, 1, 2].map((i) => optional(node.bounds[i], at)),
        budget,
      );
    }
    case "call": {
      const callee = at(node.callee);
      return call(callee, evaluateArguments(node.args, scope, budget));
    }
    case "filter": {
      const value = at(node.operand);
      return applyFilter(node.filter.name, value, evaluateArguments(node.filter.args, scope, budget), budget);
    }
    case "test": {
      const value = at(node.operand);
      return applyTest(node.test.name, value, evaluateArguments(node.test.args, scope, budget), budget);
    }
    case "not":
      return !isTrue(at(node.operand));
    case "sign":
      return signed(node.operator, at(node.operand));
    case "binary": {
      const left = at(node.left);
      const right = at(node.right);
      const text = node.operator === "%" ? asText(left) : undefined;
      if (text === undefined) return arithmetic(node.operator, left, right, budget);
      return asMarked(left, percentFormat(text, right, budget, left instanceof Markup));
    }
    case "and": {
      const left = at(node.left);
      return isTrue(left) ? at(node.right) : left;
    }
    case "or": {
      const left = at(node.left);
      return isTrue(left) ? left : at(node.right);
    }
    case "concat":
      return budget.made(node.parts.map((part) => str(at(part), budget)).join(""));
    case "compare":
      return evaluateComparison(node, at, budget);
    case "condition":
      if (isTrue(at(node.test))) return at(node.then);
      if (node.otherwise !== undefined) return at(node.otherwise);
      return new Undefined("the inline if-expression evaluated to false and no else section was defined.");
  }
}

function optional(node: Expression | undefined, at: (node: Expression) => Value): Value {
  return node === undefined ? null : at(node);
}

/** a < b < c compares neighbours and stops at the first that fails. */
function evaluateComparison(
  node: Expression & { kind: "compare" },
  at: (node: Expression) => Value,
  budget: Budget,
): boolean {
  let left = at(node.first);
  for (const { operator, operand } of node.rest) {
    const right = at(operand);
    if (!holds(operator, left, right, budget)) return false;
    left = right;
  }
  return true;
}

function holds(operator: Comparison, left: Value, right: Value, budget: Budget): boolean {
  switch (operator) {
    case "==":
      return equals(left, right, budget);
    case "!=":
      return !equals(left, right, budget);
    case "in":
      return contains(right, left, budget);
    case "not in":
      return !contains(right, left, budget);
    case "<":
      return compare(left, right, operator, budget) < 0;
    case "<=":
      return compare(left, right, operator, budget) <= 0;
    case ">":
      return compare(left, right, operator, budget) > 0;
    case ">=":
      return compare(left, right, operator, budget) >= 0;
  }
}

/** callee(...args) */
export function call(callee: Value, args: Arguments): Value {
  if (callee instanceof Undefined) throw callee.refuse();
  if (callee instanceof ObjectValue && callee.call) return callee.call(args);
  throw typeError(`'${callee instanceof Namespace ? "Namespace" : typeName(callee)}' object is not callable`);
}

export function evaluateArguments(args: CallArguments, scope: Scope, budget: Budget): Arguments {
  const positional = args.positional.map((node) => evaluate(node, scope, budget));
  const keywords = new Map<string, Value>();
  for (const { key, value } of args.keywords) keywords.set(key, evaluate(value, scope, budget));
  if (args.spread) {
    for (const item of iterate(evaluate(args.spread, scope, budget))) {
      budget.spend(1);
      positional.push(item);
    }
  }
  if (args.keywordSpread) {
    const given = evaluate(args.keywordSpread, scope, budget);
    if (!(given instanceof Dict)) throw typeError(`argument after ** must be a mapping, not ${typeName(given)}`);
    for (const [key, value] of given.entries()) {
      budget.spend(2);
      const name = asText(key);
      if (name === undefined) throw typeError("keywords must be strings");
      if (keywords.has(name)) throw typeError(`got multiple values for keyword argument '${name}'`);
      keywords.set(name, value);
    }
  }
  return { positional, keywords };
}
