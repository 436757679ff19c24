/** Statements to text, as Jinja2 renders them: loops, conditions, assignments, macros and blocks. */
import { TemplateError, typeError, valueError } from "./errors.ts";
import { call, evaluate, evaluateArguments } from "./evaluate.ts";
import { applyFilter } from "./filters.ts";
import type { Budget } from "./limits.ts";
import { LoopVariable } from "./loop.ts";
import { Macro } from "./macro.ts";
import { str } from "./print.ts";
import { Scope } from "./scope.ts";
import type { FilterCall, ForLoop, MacroBody, Statement, Target } from "./syntax.ts";
import { isTrue, itemsOf, iterate, Namespace, Tuple, typeName, Undefined, type Value } from "./values.ts";

/** How a body ended before its end. */
type Jump = "break" | "continue" | undefined;

/** The text that a rendering writes. */
export class RenderedText {
  readonly #parts: string[] = [];
  readonly #budget: Budget;
  #length = 0;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  write(text: string): void {
    this.#length += text.length;
    this.#budget.output(text.length, this.#length);
    this.#parts.push(text);
  }

  toString(): string {
    return this.#parts.join("");
  }
}

export class Renderer {
  readonly #budget: Budget;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  /** What a body writes. */
  text(body: readonly Statement[], scope: Scope): string {
    const out = new RenderedText(this.#budget);
    this.run(body, scope, out);
    return out.toString();
  }

  /** Writes what a body writes, up to a break or continue of the loop around it. */
  run(body: readonly Statement[], scope: Scope, out: RenderedText): Jump {
    for (const statement of body) {
      const jump = this.#statement(statement, scope, out);
      if (jump !== undefined) return jump;
    }
    return undefined;
  }

  #statement(statement: Statement, scope: Scope, out: RenderedText): Jump {
    const budget = this.#budget;
    budget.spend(1);
    switch (statement.kind) {
      case "text":
        out.write(statement.text);
        return undefined;
      case "output":
        out.write(str(evaluate(statement.value, scope, budget), budget));
        return undefined;
      case "if": {
        const branch = statement.branches.find(({ test }) => isTrue(evaluate(test, scope, budget)));
        return this.run(branch?.body ?? statement.otherwise, scope, out);
      }
      case "for":
        return this.#loop(statement, scope, out);
      case "set":
        this.#assign(statement.target, evaluate(statement.value, scope, budget), scope);
        return undefined;
      case "set block":
        return this.#filtered(statement.body, statement.filters, scope, (value) => {
          this.#assign(statement.target, value, scope);
        });
      case "filter block":
        return this.#filtered(statement.body, statement.filters, scope, (value) => out.write(str(value, budget)));
      case "with": {
        const inner = new Scope(scope);
        for (const { target, value } of statement.bindings) {
          this.#assign(target, evaluate(value, scope, budget), inner);
        }
        return this.run(statement.body, inner, out);
      }
      case "macro":
        scope.set(statement.macro.name, this.#macro(statement.macro, scope));
        return undefined;
      case "call block": {
        const { callee, args } = statement.call;
        const macro = evaluate(callee, scope, budget);
        const given = evaluateArguments(args, scope, budget);
        if (given.keywords.has("caller")) throw typeError("got multiple values for keyword argument 'caller'");
        const caller = this.#macro(statement.caller, scope);
        const keywords = new Map([...given.keywords, ["caller", caller] as const]);
        out.write(str(call(macro, { positional: given.positional, keywords }), budget));
        return undefined;
      }
      case "generation":
        // transformers makes a call block of it, so what is set inside is gone after it.
        out.write(this.text(statement.body, new Scope(scope)));
        return undefined;
      case "break":
      case "continue":
        return statement.kind;
    }
  }

  /** Renders a body in a scope of its own, filters the text and hands it over, unless a loop was left on the way. */
  #filtered(
    body: readonly Statement[],
    filters: readonly FilterCall[],
    scope: Scope,
    take: (value: Value) => void,
  ): Jump {
    const inner = new Scope(scope);
    const out = new RenderedText(this.#budget);
    const jump = this.run(body, inner, out);
    if (jump !== undefined) return jump;
    let value: Value = out.toString();
    for (const { name, args } of filters) {
      value = applyFilter(name, value, evaluateArguments(args, inner, this.#budget), this.#budget);
    }
    take(value);
    return undefined;
  }

  #macro(macro: MacroBody, scope: Scope): Macro {
    return new Macro(macro, scope, (body, inner) => this.text(body, inner), this.#budget);
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === "name") {
      scope.set(target.name, value);
      return;
    }
    if (target.kind === "field") {
      const object = scope.get(target.object);
      if (!(object instanceof Namespace)) {
        throw new TemplateError("TemplateRuntimeError", "cannot assign attribute on non-namespace object");
      }
      object.fields.set(target.name, value);
      return;
    }
    const items = itemsOf(value);
    if (value instanceof Undefined || items === undefined) {
      throw value instanceof Undefined
        ? valueError(`not enough values to unpack (expected ${target.items.length}, got 0)`)
        : typeError(`cannot unpack non-iterable ${typeName(value)} object`);
    }
    const values: Value[] = [];
    for (const item of items) {
      if (values.length === target.items.length) {
        throw valueError(`too many values to unpack (expected ${target.items.length})`);
      }
      values.push(item);
    }
    if (values.length < target.items.length) {
      throw valueError(`not enough values to unpack (expected ${target.items.length}, got ${values.length})`);
    }
    for (const [i, one] of target.items.entries()) this.#assign(one, values[i] ?? null, scope);
  }

  #loop(loop: ForLoop, scope: Scope, out: RenderedText): Jump {
    const run = (items: Value, depth: number, to: RenderedText): Jump =>
      this.#budget.nested(() => this.#runLoop(loop, items, depth, scope, to, recurse));
    const recurse = loop.recursive
      ? (items: Value, depth: number): string => {
          const inner = new RenderedText(this.#budget);
          run(items, depth, inner);
          return inner.toString();
        }
      : undefined;
    return run(evaluate(loop.iterable, scope, this.#budget), 0, out);
  }

  #runLoop(
    loop: ForLoop,
    iterable: Value,
    depth: number,
    scope: Scope,
    out: RenderedText,
    recurse: ((items: Value, depth: number) => string) | undefined,
  ): Jump {
    const again = recurse && ((inner: Value) => recurse(inner, depth + 1));
    const variable = new LoopVariable(this.#loopItems(loop, iterable, scope), depth, again, this.#budget);
    let completed = false;
    for (let item = variable.next(); item !== undefined; item = variable.next()) {
      const inner = new Scope(scope);
      inner.set("loop", variable);
      this.#assign(loop.target, item, inner);
      const jump = this.run(loop.body, inner, out);
      if (jump === "break") break;
      if (jump === undefined) completed = true;
    }
    // Jinja2 takes the else block unless a body has run to its end.
    return completed ? undefined : this.run(loop.otherwise, new Scope(scope), out);
  }

  /** One after another as the loop asks for them: the condition may depend on what the body sets. */
  *#loopItems(loop: ForLoop, iterable: Value, scope: Scope): Generator<Value> {
    for (const item of iterate(iterable)) {
      this.#budget.spend(1);
      if (loop.filter !== undefined) {
        const inner = new Scope(scope);
        this.#assign(loop.target, item, inner);
        if (!isTrue(evaluate(loop.filter, inner, this.#budget))) continue;
        // Jinja2's condition gives back the names that it has unpacked, so that nextitem is a tuple of them.
        yield repacked(loop.target, inner) ?? item;
      } else yield item;
    }
  }
}

/** The values of several names as a tuple; undefined for one name. */
function repacked(target: Target, scope: Scope): Tuple | undefined {
  if (target.kind !== "targets") return undefined;
  return new Tuple(target.items.map((one) => repacked(one, scope) ?? scope.get(one.kind === "name" ? one.name : "")));
}
