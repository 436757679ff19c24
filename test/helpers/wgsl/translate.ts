/**
 * A kernel's finished WGSL as JavaScript: a function for each of its own, a generator where invocations wait for each
 * other at barriers or exchange values within a subgroup. No package runs WGSL with barriers and subgroups. It covers
 * what kernels use; anything else throws. `machine.ts` runs it.
 */
import type { Code, Site, WgslFunction } from "./code.ts";
import { Expressions } from "./expressions.ts";
import { BOOL, NOTHING, sizeOf, type Type } from "./types.ts";
import { runtime, type Value, zeroOf } from "./values.ts";

/** A text that is ready to run over bindings. */
export interface Translated {
  /** Invocations of a workgroup in x, y and z. */
  readonly size: readonly [number, number, number];
  /** The built-in values that the entry point takes, in order. */
  readonly builtins: readonly string[];
  /** Whether its invocations wait for each other. */
  readonly waits: boolean;
  readonly sites: readonly Site[];
  /** Bindings by name, with the type of their elements. */
  readonly bindings: ReadonlyMap<string, Type>;
  /** @param here the lane that runs at the moment, and its number in the workgroup */
  readonly start: (
    here: { readonly lane: number; readonly invocation: number },
    bindings: object,
    uniforms: object,
  ) => Started;
}

/** A call: it yields the number of the site where it waits, with what it hands over, or `CALLS` and another call. */
export type Run = Generator<readonly [site: number, value?: Value | Run], Value | undefined, Value>;

export interface Started {
  readonly main: (...builtins: Value[]) => Run | undefined;
  /** Zeroes workgroup memory, as each workgroup finds it. */
  readonly reset: () => void;
  /** The fold of each site that has one. */
  readonly folds: readonly (((a: Value, b: Value) => Value) | undefined)[];
}

const known = new Map<string, Translated>();

export function translate(wgsl: string): Translated {
  const found = known.get(wgsl) ?? new Translator(wgsl).translate();
  known.set(wgsl, found);
  return found;
}

class Translator extends Expressions {
  readonly #constants: string[] = [];
  readonly #shared: { name: string; type: Type }[] = [];
  readonly #private: string[] = [];
  readonly #bodies = new Map<string, string>();
  readonly #bindings = new Map<string, Type>();
  #size: [number, number, number] = [1, 1, 1];
  #locals = 0;

  translate(): Translated {
    while (this.tokens.peek() !== "") this.#declaration();
    const main = this.functions.get("main");
    if (main === undefined) throw new Error("a text without main");
    this.translated(main);
    const text = [
      '"use strict"; const { fround, half, toUnsigned, toSigned, quotient, remainder } = runtime;',
      ...[...this.#bindings.keys()].map((name) => `const $${name} = bindings.${name};`),
      ...this.#constants,
      ...this.#shared.map(({ name }) => `let $${name};`),
      ...this.#private.map((name) => `const $${name} = [];`),
      ...[...this.helpers.values()].map((helper) => `const ${helper}`),
      ...this.#bodies.values(),
      `return { main: $main, folds: [${this.sites.map(({ fold }) => fold ?? "undefined").join(", ")}], reset() {`,
      ...this.#shared.map(({ name, type }) => `$${name} = ${fresh(type)};`),
      ...this.#private.map((name) => `$${name}.length = 0;`),
      "} };",
    ].join("\n");
    const build = new Function("runtime", "here", "bindings", "$u", text);
    return {
      size: this.#size,
      builtins: main.parameters.map(({ builtin = "" }) => builtin),
      waits: main.waits === true,
      sites: this.sites,
      bindings: this.#bindings,
      start: (here, bindings, uniforms) => build(runtime, here, bindings, uniforms) as Started,
    };
  }

  protected constant(js: string): number {
    return Number(new Function(`${this.#constants.join("\n")} return ${js};`)());
  }

  #declaration(): void {
    const { tokens } = this;
    if (tokens.take(";")) return;
    if (tokens.peek() === "enable") {
      while (!tokens.take(";")) tokens.next();
    } else if (tokens.peek() === "@") this.#attribute();
    else if (tokens.take("struct")) this.#struct();
    else if (tokens.take("alias")) {
      const name = tokens.next();
      tokens.expect("=");
      this.types.set(name, this.type());
      tokens.expect(";");
    } else if (tokens.take("const")) this.#constant();
    else if (tokens.take("var")) this.#global();
    else if (tokens.take("fn")) this.#function();
    else throw new Error(`"${tokens.around()}" is not understood`);
  }

  /** Of the attributes only the size of a workgroup matters here. */
  #attribute(): string {
    this.tokens.expect("@");
    const name = this.tokens.next();
    if (this.tokens.peek() !== "(") return "";
    if (name !== "workgroup_size") {
      const first = this.tokens.peek(1);
      this.tokens.skip("(", ")");
      return first;
    }
    this.tokens.expect("(");
    for (let axis = 0; !this.tokens.take(")"); axis++) {
      this.#size[axis] = this.constant(this.primary().js);
      this.tokens.take(",");
    }
    return "";
  }

  #struct(): void {
    const name = this.tokens.next();
    const members = new Map<string, Type>();
    this.tokens.expect("{");
    while (!this.tokens.take("}")) {
      const member = this.tokens.next();
      this.tokens.expect(":");
      members.set(member, this.type());
      this.tokens.take(",");
    }
    this.types.set(name, { kind: "struct", name, members });
  }

  #constant(): void {
    const name = this.tokens.next();
    const type = this.tokens.take(":") ? this.type() : undefined;
    this.tokens.expect("=");
    const value = this.expression();
    this.tokens.expect(";");
    const { js, type: own } = type === undefined ? value : this.of(value, type);
    this.#constants.push(`const $${name} = ${js};`);
    this.scopes[0]?.set(name, { js: `$${name}`, type: type ?? own });
  }

  #global(): void {
    const { tokens } = this;
    tokens.expect("<");
    const space = tokens.next();
    while (!tokens.take(">")) tokens.next();
    const name = tokens.next();
    tokens.expect(":");
    const type = this.type();
    tokens.expect(";");
    if (space === "storage" && type.kind === "array") this.#bindings.set(name, type.element);
    else if (space === "workgroup") this.#shared.push({ name, type });
    else if (space === "private") {
      // One for each invocation, which has to set it before it reads it.
      this.#private.push(name);
      const js = `$${name}[here.invocation]`;
      this.scopes[0]?.set(name, { js, type, assign: (value) => `${js} = ${value}` });
      return;
    } else if (space !== "uniform") throw new Error(`var<${space}> ${name} is not understood`);
    this.scopes[0]?.set(name, { js: `$${name}`, type, assign: (value) => `$${name} = ${value}` });
  }

  #function(): void {
    const { tokens } = this;
    const name = tokens.next();
    const parameters: { name: string; type: Type; builtin?: string }[] = [];
    tokens.expect("(");
    while (!tokens.take(")")) {
      const builtin = tokens.peek() === "@" ? this.#attribute() : "";
      const parameter = tokens.next();
      tokens.expect(":");
      parameters.push({ name: parameter, type: this.type(), ...(builtin !== "" && { builtin }) });
      tokens.take(",");
    }
    const result = tokens.take("->") ? this.type() : NOTHING;
    this.functions.set(name, { name, parameters, result, bodyAt: tokens.at });
    tokens.skip("{", "}");
  }

  protected translated(called: WgslFunction): void {
    if (this.#bodies.has(called.name)) return;
    const [at, waits, scopes] = [this.tokens.at, this.waits, this.scopes.splice(1)];
    this.tokens.at = called.bodyAt;
    this.waits = false;
    this.#bodies.set(called.name, ""); // a function that calls itself is not WGSL
    const locals = new Map<string, Code>();
    this.scopes.push(locals);
    const names = called.parameters.map(({ name, type }) => this.#declare(name, type, true));
    const body = this.#block(called.result);
    const star = this.waits ? "*" : "";
    this.#bodies.set(called.name, `function${star} $${called.name}(${names.join(", ")}) ${body}`);
    called.waits = this.waits;
    this.scopes.splice(1, Number.POSITIVE_INFINITY, ...scopes);
    this.tokens.at = at;
    this.waits = waits;
  }

  #declare(name: string, type: Type, changes: boolean): string {
    const js = `${name}$${this.#locals++}`;
    this.scopes.at(-1)?.set(name, {
      js,
      type,
      ...(changes ? { assign: (value: string) => `${js} = ${value}` } : { handed: `${js}_all` }),
    });
    return js;
  }

  /** What some lanes may run and others not: where they exchange values, all have to be there. */
  #branch(result: Type): string {
    const handsOn = this.handsOn;
    this.handsOn = false;
    const body = this.#block(result);
    const together = this.handsOn ? `${this.wait({ name: "together" })};\n` : "";
    this.handsOn ||= handsOn;
    return body.replace("{\n", () => `{\n${together}`);
  }

  #block(result: Type): string {
    this.scopes.push(new Map());
    this.tokens.expect("{");
    const lines: string[] = [];
    while (!this.tokens.take("}")) lines.push(this.#statement(result));
    this.scopes.pop();
    return `{\n${lines.join("\n")}\n}`;
  }

  #statement(result: Type): string {
    const { tokens } = this;
    while (tokens.peek() === "@") this.#attribute();
    switch (tokens.peek()) {
      case "{":
        return this.#block(result);
      case ";":
        tokens.next();
        return ";";
      case "if":
        return this.#if(result);
      case "for":
        return this.#for(result);
      case "while":
        tokens.next();
        return `while (${this.expression().js}) ${this.#branch(result)}`;
      case "loop":
        tokens.next();
        return `for (;;) ${this.#branch(result)}`;
      case "break":
      case "continue":
        return `${tokens.next()};`;
      case "return": {
        tokens.next();
        if (tokens.take(";")) return "return;";
        const value = this.of(this.expression(), result).js;
        tokens.expect(";");
        return `return ${value};`;
      }
    }
    const text = this.#simple();
    tokens.expect(";");
    return `${text};`;
  }

  #if(result: Type): string {
    this.tokens.expect("if");
    const text = `if (${this.expression().js}) ${this.#branch(result)}`;
    if (!this.tokens.take("else")) return text;
    return `${text} else ${this.tokens.peek() === "if" ? this.#if(result) : this.#branch(result)}`;
  }

  #for(result: Type): string {
    const { tokens } = this;
    tokens.expect("for");
    tokens.expect("(");
    this.scopes.push(new Map());
    const first = tokens.peek() === ";" ? "" : this.#simple();
    tokens.expect(";");
    const condition = tokens.peek() === ";" ? "" : this.expression().js;
    tokens.expect(";");
    const step = tokens.peek() === ")" ? "" : this.#simple();
    tokens.expect(")");
    // Around it, so that JavaScript does not make the loop's variable again for each round.
    const text = `{ ${first}; for (; ${condition}; ${step}) ${this.#branch(result)} }`;
    this.scopes.pop();
    return text;
  }

  /** A declaration, an assignment or a call. */
  #simple(): string {
    const { tokens } = this;
    if (["let", "var", "const"].includes(tokens.peek())) return this.#local();
    const target = this.postfix(this.primary());
    const operator = tokens.peek();
    if (!/^([-+*/%&|^]?=|\+\+|--)$/.test(operator)) return target.js;
    tokens.next();
    const { assign, type } = target;
    if (assign === undefined) throw new Error(`"${target.js} ${operator}" is not understood`);
    if (operator === "=") return assign(copied(this.of(this.expression(), type)));
    const isStep = operator === "++" || operator === "--";
    const more: Code = isStep ? { js: "1", type: { kind: "scalar", scalar: "int" } } : this.expression();
    const changed = this.binary(operator.charAt(0), target, more);
    if (sizeOf(changed.type) !== sizeOf(type)) throw new Error(`"${target.js} ${operator}" is not understood`);
    return assign(changed.js);
  }

  #local(): string {
    const { tokens } = this;
    const changes = tokens.next() === "var";
    const name = tokens.next();
    const declared = tokens.take(":") ? this.type() : undefined;
    if (!tokens.take("=")) {
      const type = declared ?? BOOL;
      return `let ${this.#declare(name, type, true)} = ${JSON.stringify(zeroOf(type))}`;
    }
    const given = this.expression();
    const value = declared === undefined ? this.concrete(given) : this.of(given, declared);
    const type = declared ?? value.type;
    const own = copied(value);
    const js = this.#declare(name, type, changes);
    return `let ${js} = ${own}${changes ? "" : `, ${js}_all`}`;
  }
}

/**
 * Vectors are never changed in place here; arrays and structs are, so a variable gets its own of what another one
 * holds.
 */
function copied({ js, type, assign }: Code): string {
  const isOwn = assign === undefined || (type.kind !== "array" && type.kind !== "struct");
  return isOwn ? js : `structuredClone(${js})`;
}

/** Workgroup memory as a workgroup finds it. */
function fresh(type: Type): string {
  if (type.kind === "atomic") return "{ value: 0 }";
  if (type.kind !== "array") return JSON.stringify(zeroOf(type));
  const { element, count } = type;
  return `Array.from({ length: ${count} }, () => ${element.kind === "atomic" ? "{ value: 0 }" : JSON.stringify(zeroOf(element))})`;
}
