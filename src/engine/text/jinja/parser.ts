/**
 * The grammar of statements: a template's text to what it consists of. Templates that take in others (include, import,
 * extends, block) have no place in a chat template, which is one text; they are refused here.
 */

import { checkTemplate, namesReadIn } from "./check.ts";
import { isConstantName, parseExpression, parseFilterCall, parseTuple } from "./expressions.ts";
import type { Expression, FilterCall, MacroBody, MacroParameter, Statement, Target } from "./syntax.ts";
import { TokenStream } from "./token-stream.ts";

/** @throws TemplateError naming the line */
export function parseTemplate(text: string): readonly Statement[] {
  const tokens = new TokenStream(text);
  const body = parseBody(tokens, []);
  checkTemplate(body);
  return body;
}

/** Statements up to a block that begins with one of these names (of the template: up to its end); that name is next. */
function parseBody(tokens: TokenStream, ends: readonly string[]): Statement[] {
  const body: Statement[] = [];
  for (;;) {
    if (tokens.is("data")) body.push({ kind: "text", text: tokens.next().value });
    else if (tokens.skip("variable_begin")) {
      body.push({ kind: "output", value: parseTuple(tokens) });
      tokens.expect("variable_end");
    } else if (tokens.skip("block_begin")) {
      if (tokens.isName(...ends)) return body;
      body.push(tokens.nested(() => parseStatement(tokens)));
      tokens.expect("block_end");
    } else if (ends.length === 0) return body;
    else throw tokens.fails(`Unexpected end of template; looking for ${ends.join(" or ")}`);
  }
}

/** The body of a block whose own tag ends here. */
function parseBlock(tokens: TokenStream, ...ends: readonly string[]): Statement[] {
  tokens.skip("operator", ":");
  tokens.expect("block_end");
  return parseBody(tokens, ends);
}

/** The body, and past the name that ends it. */
function parseWholeBlock(tokens: TokenStream, end: string): Statement[] {
  const body = parseBlock(tokens, end);
  tokens.next();
  return body;
}

function parseStatement(tokens: TokenStream): Statement {
  const tag = tokens.expect("name");
  switch (tag.value) {
    case "for":
      return parseFor(tokens);
    case "if":
      return parseIf(tokens);
    case "set":
      return parseSet(tokens);
    case "print":
      return { kind: "output", value: { kind: "concat", parts: parsePrinted(tokens) } };
    case "with":
      return parseWith(tokens);
    case "macro": {
      const name = parseNewName(tokens);
      return { kind: "macro", macro: parseMacroBody(tokens, name, parseSignature(tokens), "endmacro") };
    }
    case "call": {
      const parameters = tokens.isOperator("(") ? parseSignature(tokens) : [];
      const call = parseExpression(tokens);
      if (call.kind !== "call") throw tokens.fails("expected call");
      return { kind: "call block", call, caller: parseMacroBody(tokens, "caller", parameters, "endcall") };
    }
    case "filter": {
      const filters = [parseFilterCall(tokens), ...parseFilters(tokens)];
      return { kind: "filter block", filters, body: parseWholeBlock(tokens, "endfilter") };
    }
    case "generation":
      return { kind: "generation", body: parseWholeBlock(tokens, "endgeneration") };
    case "break":
    case "continue":
      return { kind: tag.value };
    case "include":
    case "import":
    case "from":
    case "extends":
      throw tokens.fails(
        `the tag '${tag.value}' takes in another template, and a chat template has no other`,
        "TypeError",
      );
    case "block":
    case "autoescape":
      throw tokens.fails(`the tag '${tag.value}' is not supported in chat templates here`);
  }
  throw tokens.fails(`Encountered unknown tag '${tag.value}'`);
}

/** The values that a print tag writes one after another. */
function parsePrinted(tokens: TokenStream): Expression[] {
  const values: Expression[] = [];
  while (!tokens.is("block_end")) {
    if (values.length > 0) tokens.expect("operator", ",");
    values.push(parseExpression(tokens));
  }
  return values;
}

function parseFor(tokens: TokenStream): Statement {
  const target = parseTarget(tokens, false);
  tokens.expect("name", "in");
  const iterable = parseTuple(tokens, { withCondition: false });
  const filter = tokens.skip("name", "if") ? parseExpression(tokens) : undefined;
  const recursive = tokens.skip("name", "recursive");
  const body = parseBlock(tokens, "endfor", "else");
  const otherwise = tokens.next().value === "else" ? parseWholeBlock(tokens, "endfor") : [];
  return { kind: "for", target, iterable, filter, recursive, body, otherwise };
}

function parseIf(tokens: TokenStream): Statement {
  const branches: { test: Expression; body: Statement[] }[] = [];
  for (;;) {
    const test = parseTuple(tokens, { withCondition: false });
    branches.push({ test, body: parseBlock(tokens, "elif", "else", "endif") });
    const end = tokens.next().value;
    if (end === "elif") continue;
    return { kind: "if", branches, otherwise: end === "else" ? parseWholeBlock(tokens, "endif") : [] };
  }
}

function parseSet(tokens: TokenStream): Statement {
  const target = parseTarget(tokens, true);
  if (tokens.skip("operator", "=")) return { kind: "set", target, value: parseTuple(tokens) };
  const filters = parseFilters(tokens);
  return { kind: "set block", target, filters, body: parseWholeBlock(tokens, "endset") };
}

function parseWith(tokens: TokenStream): Statement {
  const bindings: { target: Target; value: Expression }[] = [];
  while (!tokens.is("block_end")) {
    if (bindings.length > 0) tokens.expect("operator", ",");
    const target = parseTargetItem(tokens, false);
    tokens.expect("operator", "=");
    bindings.push({ target, value: parseExpression(tokens) });
  }
  return { kind: "with", bindings, body: parseWholeBlock(tokens, "endwith") };
}

/** Filters behind bars. */
function parseFilters(tokens: TokenStream): FilterCall[] {
  const filters: FilterCall[] = [];
  while (tokens.skip("operator", "|")) filters.push(parseFilterCall(tokens));
  return filters;
}

function parseNewName(tokens: TokenStream): string {
  const { value } = tokens.expect("name");
  if (isConstantName(value)) throw tokens.fails(`can't assign to '${value}'`);
  return value;
}

/** One target, or several with commas between. */
function parseTarget(tokens: TokenStream, withFields: boolean): Target {
  const items: Target[] = [];
  let isTuple = false;
  for (;;) {
    if (items.length > 0) tokens.expect("operator", ",");
    // Not before "in": after a comma Jinja2 takes it for a name.
    if (tokens.is("block_end") || tokens.isOperator(")")) break;
    items.push(parseTargetItem(tokens, withFields));
    if (!tokens.isOperator(",")) break;
    isTuple = true;
  }
  const [only] = items;
  if (!isTuple && only !== undefined) return only;
  if (items.length === 0) throw tokens.fails(`Expected an expression, got ${tokens.described()}`);
  return { kind: "targets", items };
}

function parseTargetItem(tokens: TokenStream, withFields: boolean): Target {
  if (tokens.skip("operator", "(")) {
    const inner = tokens.nested(() => parseTarget(tokens, withFields));
    tokens.expect("operator", ")");
    return inner;
  }
  const name = parseNewName(tokens);
  if (!withFields || !tokens.skip("operator", ".")) return { kind: "name", name };
  return { kind: "field", object: name, name: tokens.expect("name").value };
}

function parseSignature(tokens: TokenStream): MacroParameter[] {
  tokens.expect("operator", "(");
  const parameters: MacroParameter[] = [];
  const named = new Set<string>();
  while (!tokens.isOperator(")")) {
    if (parameters.length > 0) tokens.expect("operator", ",");
    const name = parseNewName(tokens);
    if (named.has(name)) throw tokens.fails(`duplicate argument '${name}'`, "SyntaxError");
    named.add(name);
    if (tokens.skip("operator", "=")) parameters.push({ name, default: parseExpression(tokens) });
    else if (parameters.at(-1)?.default !== undefined)
      throw tokens.fails("non-default argument follows default argument");
    else parameters.push({ name });
  }
  tokens.expect("operator", ")");
  return parameters;
}

function parseMacroBody(
  tokens: TokenStream,
  name: string,
  parameters: readonly MacroParameter[],
  end: string,
): MacroBody {
  const body = parseWholeBlock(tokens, end);
  const read = namesReadIn(body);
  const special = (one: string) => read.has(one) && !parameters.some((parameter) => parameter.name === one);
  const uses = { caller: special("caller"), varargs: special("varargs"), kwargs: special("kwargs") };
  const caller = parameters.find((parameter) => parameter.name === "caller");
  if (read.has("caller") && caller !== undefined && caller.default === undefined) {
    throw tokens.fails('the special "caller" argument must be omitted or be given a default');
  }
  return { name, parameters, body, uses };
}
