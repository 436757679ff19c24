/**
 * What Python refuses before it renders anything: break outside of a loop, an assigned `loop`, filters and tests that
 * do not exist, unless a condition stands before them. And which names a macro's body reads.
 */
import { TemplateError } from "./errors.ts";
import { hasFilter } from "./filters.ts";
import type { Expression, FilterCall, Statement, Target } from "./syntax.ts";
import { hasTest } from "./tests.ts";

interface Place {
  /** The nearest loop is in the same function of Python: macros and call blocks begin another one. */
  readonly inLoop: boolean;
  /** Somewhere within a loop, or what it calls. */
  readonly withinLoop: boolean;
  /** Within a condition, where an unknown filter is refused only when it is reached. */
  readonly conditional: boolean;
}

/** @throws TemplateError for what is wrong with a parsed template */
export function checkTemplate(body: readonly Statement[]): void {
  checkBody(body, { inLoop: false, withinLoop: false, conditional: false });
}

function checkBody(body: readonly Statement[], place: Place): void {
  for (const statement of body) checkStatement(statement, place);
}

function checkStatement(statement: Statement, place: Place): void {
  const inner = { ...place, conditional: false };
  switch (statement.kind) {
    case "text":
      return;
    case "break":
    case "continue":
      if (!place.inLoop) throw new TemplateError("SyntaxError", `'${statement.kind}' outside loop`);
      return;
    case "output":
      checkExpression(statement.value, place);
      return;
    case "if": {
      const conditional = { ...place, conditional: true };
      for (const { test, body } of statement.branches) {
        checkExpression(test, conditional);
        checkBody(body, conditional);
      }
      checkBody(statement.otherwise, conditional);
      return;
    }
    case "for": {
      const loop = { inLoop: true, withinLoop: true, conditional: false };
      checkExpression(statement.iterable, place);
      if (statement.filter) checkExpression(statement.filter, inner);
      checkTarget(statement.target, loop);
      checkBody(statement.body, loop);
      // Else stands behind the loop, so that a break there ends the loop around it.
      checkBody(statement.otherwise, { ...inner, inLoop: place.inLoop && !statement.recursive, withinLoop: true });
      return;
    }
    case "set":
      checkExpression(statement.value, place);
      checkTarget(statement.target, place);
      return;
    case "set block":
      for (const filter of statement.filters) checkFilter(filter, inner);
      checkTarget(statement.target, place);
      checkBody(statement.body, inner);
      return;
    case "with":
      for (const { target, value } of statement.bindings) {
        checkExpression(value, place);
        checkTarget(target, place);
      }
      checkBody(statement.body, inner);
      return;
    case "filter block":
      for (const filter of statement.filters) checkFilter(filter, inner);
      checkBody(statement.body, inner);
      return;
    case "macro":
      checkFunction(statement.macro, place);
      return;
    case "call block":
      checkExpression(statement.call, place);
      checkFunction(statement.caller, place);
      return;
    case "generation":
      checkBody(statement.body, { ...inner, inLoop: false });
      return;
  }
}

function checkFunction(
  {
    parameters,
    body,
  }: { readonly parameters: readonly { default?: Expression }[]; readonly body: readonly Statement[] },
  place: Place,
): void {
  const inner = { inLoop: false, withinLoop: place.withinLoop, conditional: false };
  for (const parameter of parameters) if (parameter.default) checkExpression(parameter.default, inner);
  checkBody(body, inner);
}

function checkTarget(target: Target, place: Place): void {
  if (target.kind === "targets") for (const item of target.items) checkTarget(item, place);
  else if (target.kind === "name" && target.name === "loop" && place.withinLoop) {
    throw new TemplateError("TemplateAssertionError", "Can't assign to special loop variable in for-loop target");
  }
}

function checkExpression(expression: Expression, place: Place): void {
  const within = expression.kind === "condition" ? { ...place, conditional: true } : place;
  if (expression.kind === "filter") checkFilter(expression.filter, place);
  if (expression.kind === "test" && !place.conditional && !hasTest(expression.test.name)) {
    throw new TemplateError("TemplateAssertionError", `No test named '${expression.test.name}'.`);
  }
  for (const child of childrenOf(expression)) checkExpression(child, within);
}

function checkFilter(filter: FilterCall, place: Place): void {
  if (!place.conditional && !hasFilter(filter.name)) {
    throw new TemplateError("TemplateAssertionError", `No filter named '${filter.name}'.`);
  }
  for (const argument of argumentsOf(filter)) checkExpression(argument, place);
}

function argumentsOf({ args }: Pick<FilterCall, "args">): Expression[] {
  const spreads = [args.spread, args.keywordSpread].filter((one) => one !== undefined);
  return [...args.positional, ...args.keywords.map(({ value }) => value), ...spreads];
}

function childrenOf(expression: Expression): readonly Expression[] {
  switch (expression.kind) {
    case "constant":
    case "name":
      return [];
    case "list":
    case "tuple":
      return expression.items;
    case "dict":
      return expression.entries.flatMap(({ key, value }) => [key, value]);
    case "attribute":
      return [expression.object];
    case "item":
      return [expression.object, expression.key];
    case "slice":
      return [expression.object, ...expression.bounds.filter((bound) => bound !== undefined)];
    case "call":
      return [expression.callee, ...argumentsOf(expression)];
    case "filter":
      return [expression.operand, ...argumentsOf(expression.filter)];
    case "test":
      return [expression.operand, ...argumentsOf(expression.test)];
    case "not":
    case "sign":
      return [expression.operand];
    case "binary":
    case "and":
    case "or":
      return [expression.left, expression.right];
    case "concat":
      return expression.parts;
    case "compare":
      return [expression.first, ...expression.rest.map(({ operand }) => operand)];
    case "condition":
      return [expression.test, expression.then, ...(expression.otherwise ? [expression.otherwise] : [])];
  }
}

/** Kept, since each macro around another one asks again for the names in it. */
const namesOfBodies = new WeakMap<readonly Statement[], ReadonlySet<string>>();

/** The names that statements read anywhere, those within other macros included. */
export function namesReadIn(body: readonly Statement[]): ReadonlySet<string> {
  const known = namesOfBodies.get(body);
  if (known !== undefined) return known;
  const names = new Set<string>();
  const read = (expression: Expression): void => {
    if (expression.kind === "name") names.add(expression.name);
    for (const child of childrenOf(expression)) read(child);
  };
  for (const statement of body) {
    for (const expression of expressionsOf(statement)) read(expression);
    for (const inner of bodiesOf(statement)) for (const name of namesReadIn(inner)) names.add(name);
  }
  namesOfBodies.set(body, names);
  return names;
}

function expressionsOf(statement: Statement): readonly Expression[] {
  const defaults = (parameters: readonly { readonly default?: Expression }[]) =>
    parameters.map((parameter) => parameter.default).filter((one) => one !== undefined);
  switch (statement.kind) {
    case "output":
    case "set":
      return [statement.value];
    case "for":
      return statement.filter ? [statement.iterable, statement.filter] : [statement.iterable];
    case "if":
      return statement.branches.map(({ test }) => test);
    case "with":
      return statement.bindings.map(({ value }) => value);
    case "set block":
    case "filter block":
      return statement.filters.flatMap(argumentsOf);
    case "macro":
      return defaults(statement.macro.parameters);
    case "call block":
      return [statement.call, ...defaults(statement.caller.parameters)];
  }
  return [];
}

function bodiesOf(statement: Statement): readonly (readonly Statement[])[] {
  switch (statement.kind) {
    case "for":
      return [statement.body, statement.otherwise];
    case "if":
      return [...statement.branches.map(({ body }) => body), statement.otherwise];
    case "set block":
    case "with":
    case "filter block":
    case "generation":
      return [statement.body];
    case "macro":
      return [statement.macro.body];
    case "call block":
      return [statement.caller.body];
  }
  return [];
}
