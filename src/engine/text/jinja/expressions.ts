/**
 * The grammar of expressions, rule for rule as Jinja2's parser has it, its precedences included (~ binds closer than
 * +).
 */
import { floatOf, integerOf } from "./numbers.ts";
import type { CallArguments, Comparison, Expression, FilterCall } from "./syntax.ts";
import type { TokenStream } from "./token-stream.ts";

const constants: ReadonlyMap<string, null | boolean> = new Map([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);

/** Names that stand for values, so that nothing can be assigned to them. */
export function isConstantName(name: string): boolean {
  return constants.has(name);
}

export const noCallArguments: CallArguments = { positional: [], keywords: [] };

/** An expression; `withCondition` lets it be `a if b else c`. */
export function parseExpression(tokens: TokenStream, withCondition = true): Expression {
  return tokens.nested(() => (withCondition ? parseCondition(tokens) : parseOr(tokens)));
}

/** One expression, or a tuple of several with commas between. */
export function parseTuple(
  tokens: TokenStream,
  options: { readonly withCondition?: boolean; readonly inParentheses?: boolean } = {},
): Expression {
  const { withCondition = true, inParentheses = false } = options;
  const items: Expression[] = [];
  let isTuple = false;
  for (;;) {
    if (items.length > 0) tokens.expect("operator", ",");
    if (tokens.is("variable_end") || tokens.is("block_end") || tokens.isOperator(")")) break;
    items.push(parseExpression(tokens, withCondition));
    if (!tokens.isOperator(",")) break;
    isTuple = true;
  }
  if (!isTuple) {
    const [only] = items;
    if (only !== undefined) return only;
    if (!inParentheses) throw tokens.fails(`Expected an expression, got ${tokens.described()}`);
  }
  return { kind: "tuple", items };
}

function parseCondition(tokens: TokenStream): Expression {
  let then = parseOr(tokens);
  while (tokens.skip("name", "if")) {
    const test = parseOr(tokens);
    const otherwise = tokens.skip("name", "else") ? tokens.nested(() => parseCondition(tokens)) : undefined;
    then = { kind: "condition", test, then, otherwise };
  }
  return then;
}

function parseOr(tokens: TokenStream): Expression {
  let left = parseAnd(tokens);
  while (tokens.skip("name", "or")) left = { kind: "or", left, right: parseAnd(tokens) };
  return left;
}

function parseAnd(tokens: TokenStream): Expression {
  let left = parseNot(tokens);
  while (tokens.skip("name", "and")) left = { kind: "and", left, right: parseNot(tokens) };
  return left;
}

function parseNot(tokens: TokenStream): Expression {
  if (!tokens.skip("name", "not")) return parseCompare(tokens);
  return { kind: "not", operand: tokens.nested(() => parseNot(tokens)) };
}

function comparisonAt(tokens: TokenStream): Comparison | undefined {
  if (tokens.isOperator("==", "!=", "<", "<=", ">", ">=")) return tokens.next().value as Comparison;
  if (tokens.skip("name", "in")) return "in";
  const after = tokens.look(1);
  if (!tokens.isName("not") || after.kind !== "name" || after.value !== "in") return undefined;
  tokens.next();
  tokens.next();
  return "not in";
}

function parseCompare(tokens: TokenStream): Expression {
  const first = parseSum(tokens);
  const rest: { operator: Comparison; operand: Expression }[] = [];
  for (let operator = comparisonAt(tokens); operator !== undefined; operator = comparisonAt(tokens)) {
    rest.push({ operator, operand: parseSum(tokens) });
  }
  return rest.length === 0 ? first : { kind: "compare", first, rest };
}

function parseSum(tokens: TokenStream): Expression {
  let left = parseConcat(tokens);
  while (tokens.isOperator("+", "-")) {
    const operator = tokens.next().value as "+" | "-";
    left = { kind: "binary", operator, left, right: parseConcat(tokens) };
  }
  return left;
}

function parseConcat(tokens: TokenStream): Expression {
  const first = parseProduct(tokens);
  const parts = [first];
  while (tokens.skip("operator", "~")) parts.push(parseProduct(tokens));
  return parts.length === 1 ? first : { kind: "concat", parts };
}

function parseProduct(tokens: TokenStream): Expression {
  let left = parsePower(tokens);
  while (tokens.isOperator("*", "/", "//", "%")) {
    const operator = tokens.next().value as "*" | "/" | "//" | "%";
    left = { kind: "binary", operator, left, right: parsePower(tokens) };
  }
  return left;
}

function parsePower(tokens: TokenStream): Expression {
  let left = parseUnary(tokens, true);
  while (tokens.skip("operator", "**"))
    left = { kind: "binary", operator: "**", left, right: parseUnary(tokens, true) };
  return left;
}

function parseUnary(tokens: TokenStream, withFilters: boolean): Expression {
  let node: Expression;
  if (tokens.isOperator("-", "+")) {
    const operator = tokens.next().value as "-" | "+";
    node = { kind: "sign", operator, operand: tokens.nested(() => parseUnary(tokens, false)) };
  } else node = parsePrimary(tokens);
  node = parsePostfix(tokens, node);
  return withFilters ? parseFiltersAndTests(tokens, node) : node;
}

function parsePrimary(tokens: TokenStream): Expression {
  const token = tokens.current;
  switch (token.kind) {
    case "name": {
      tokens.next();
      const value = constants.get(token.value);
      return value === undefined ? { kind: "name", name: token.value } : { kind: "constant", value };
    }
    case "string": {
      let text = "";
      while (tokens.is("string")) text += tokens.next().value;
      return { kind: "constant", value: text };
    }
    case "integer":
      tokens.next();
      return { kind: "constant", value: integerOf(token.value, 0) };
    case "float":
      tokens.next();
      return { kind: "constant", value: floatOf(token.value) };
  }
  if (tokens.skip("operator", "(")) {
    const inner = parseTuple(tokens, { inParentheses: true });
    tokens.expect("operator", ")");
    return inner;
  }
  if (tokens.skip("operator", "[")) {
    const items = parseSeries(tokens, "]", () => parseExpression(tokens));
    return { kind: "list", items };
  }
  if (tokens.skip("operator", "{")) {
    const entries = parseSeries(tokens, "}", () => {
      const key = parseExpression(tokens);
      tokens.expect("operator", ":");
      return { key, value: parseExpression(tokens) };
    });
    return { kind: "dict", entries };
  }
  throw tokens.fails(`unexpected ${tokens.described()}`);
}

/** Elements with commas between, and one at the end if it likes, up to the bracket. */
function parseSeries<T>(tokens: TokenStream, end: string, parse: () => T): T[] {
  const items: T[] = [];
  while (!tokens.isOperator(end)) {
    if (items.length > 0) tokens.expect("operator", ",");
    if (tokens.isOperator(end)) break;
    items.push(parse());
  }
  tokens.expect("operator", end);
  return items;
}

function parsePostfix(tokens: TokenStream, start: Expression): Expression {
  let node = start;
  for (;;) {
    if (tokens.skip("operator", ".")) {
      const token = tokens.next();
      if (token.kind === "name") node = { kind: "attribute", object: node, name: token.value };
      else if (token.kind === "integer") {
        node = { kind: "item", object: node, key: { kind: "constant", value: integerOf(token.value, 0) } };
      } else throw tokens.fails("expected name or number");
    } else if (tokens.skip("operator", "[")) node = parseSubscript(tokens, node);
    else if (tokens.isOperator("(")) node = { kind: "call", callee: node, args: parseCallArguments(tokens) };
    else return node;
  }
}

function parseSubscript(tokens: TokenStream, object: Expression): Expression {
  const keys: Expression[] = [];
  let bounds: (Expression | undefined)[] | undefined;
  while (!tokens.isOperator("]")) {
    if (keys.length > 0 || bounds !== undefined) tokens.expect("operator", ",");
    if (bounds !== undefined || tokens.isOperator("]"))
      throw tokens.fails("a slice stands alone in its brackets", "SyntaxError");
    const first = tokens.isOperator(":") ? undefined : parseExpression(tokens);
    if (!tokens.isOperator(":") && first !== undefined) keys.push(first);
    else {
      if (keys.length > 0) throw tokens.fails("a slice stands alone in its brackets", "SyntaxError");
      bounds = [first];
      while (bounds.length < 3 && tokens.skip("operator", ":")) {
        bounds.push(tokens.isOperator(":", "]", ",") ? undefined : parseExpression(tokens));
      }
    }
  }
  tokens.expect("operator", "]");
  if (bounds !== undefined) return { kind: "slice", object, bounds };
  const [only] = keys;
  const key: Expression = keys.length === 1 && only !== undefined ? only : { kind: "tuple", items: keys };
  return { kind: "item", object, key };
}

function parseFiltersAndTests(tokens: TokenStream, start: Expression): Expression {
  let node = start;
  for (;;) {
    if (tokens.skip("operator", "|")) node = { kind: "filter", operand: node, filter: parseFilterCall(tokens) };
    else if (tokens.skip("name", "is")) node = parseTest(tokens, node);
    else if (tokens.isOperator("(")) node = { kind: "call", callee: node, args: parseCallArguments(tokens) };
    else return node;
  }
}

/** A filter's name and arguments, after the bar. */
export function parseFilterCall(tokens: TokenStream): FilterCall {
  const name = parseDottedName(tokens);
  return { name, args: tokens.isOperator("(") ? parseCallArguments(tokens) : noCallArguments };
}

function parseDottedName(tokens: TokenStream): string {
  let name = tokens.expect("name").value;
  while (tokens.skip("operator", ".")) name += `.${tokens.expect("name").value}`;
  return name;
}

function parseTest(tokens: TokenStream, operand: Expression): Expression {
  const negated = tokens.skip("name", "not");
  const name = parseDottedName(tokens);
  let args = noCallArguments;
  if (tokens.isOperator("(")) args = parseCallArguments(tokens);
  else if (startsArgument(tokens)) {
    if (tokens.isName("is")) throw tokens.fails("You cannot chain multiple tests with is");
    args = { positional: [parsePostfix(tokens, parsePrimary(tokens))], keywords: [] };
  }
  const test: Expression = { kind: "test", operand, test: { name, args } };
  return negated ? { kind: "not", operand: test } : test;
}

/** Whether what follows a test's name is its argument, without parentheses: `is divisibleby 3`. */
function startsArgument(tokens: TokenStream): boolean {
  const { kind } = tokens.current;
  if (kind === "name") return !tokens.isName("else", "or", "and");
  return kind === "string" || kind === "integer" || kind === "float" || tokens.isOperator("[", "{");
}

/** Arguments in parentheses. */
export function parseCallArguments(tokens: TokenStream): CallArguments {
  tokens.expect("operator", "(");
  const positional: Expression[] = [];
  const keywords: { key: string; value: Expression }[] = [];
  const named = new Set<string>();
  let spread: Expression | undefined;
  let keywordSpread: Expression | undefined;
  const ensure = (holds: boolean) => {
    if (!holds) throw tokens.fails("invalid syntax for function call expression");
  };
  parseSeries(tokens, ")", () => {
    if (tokens.skip("operator", "*")) {
      ensure(spread === undefined && keywordSpread === undefined);
      spread = parseExpression(tokens);
    } else if (tokens.skip("operator", "**")) {
      ensure(keywordSpread === undefined);
      keywordSpread = parseExpression(tokens);
    } else if (tokens.is("name") && tokens.look(1).kind === "operator" && tokens.look(1).value === "=") {
      ensure(keywordSpread === undefined);
      const key = tokens.next().value;
      tokens.next();
      if (named.has(key)) throw tokens.fails(`keyword argument repeated: ${key}`, "SyntaxError");
      named.add(key);
      keywords.push({ key, value: parseExpression(tokens) });
    } else {
      ensure(spread === undefined && keywordSpread === undefined && keywords.length === 0);
      positional.push(parseExpression(tokens));
    }
  });
  return {
    positional,
    keywords,
    ...(spread === undefined ? {} : { spread }),
    ...(keywordSpread === undefined ? {} : { keywordSpread }),
  };
}
