/** Expressions of WGSL as JavaScript. What is not understood throws; nothing passes through unchanged. */
import { CALLS, type Code, literal, type Site, type WgslFunction } from "./code.ts";
import { Tokens } from "./tokens.ts";
import {
  BOOL,
  binary,
  converted,
  ELEMENTWISE,
  isComparison,
  meeting,
  namedType,
  rounded,
  type Scalar,
  scalarOf,
  scalarType,
  sizeOf,
  type Type,
  U32,
  withScalar,
} from "./types.ts";
import { zeroOf } from "./values.ts";

const PRECEDENCE: readonly (readonly string[])[] = [
  ["||"],
  ["&&"],
  ["|"],
  ["^"],
  ["&"],
  ["==", "!="],
  ["<", ">", "<=", ">="],
  ["<<", ">>"],
  ["+", "-"],
  ["*", "/", "%"],
];
const FOLDS: Readonly<Record<string, string>> = { subgroupAdd: "+", subgroupMax: "max", subgroupMin: "min" };
const ATOMICS: readonly string[] = ["atomicAdd", "atomicMax", "atomicMin", "atomicStore"];
/** From which lane a value comes, for the second argument of each exchange. */
const SOURCES: Readonly<Record<string, (argument: string) => string>> = {
  subgroupShuffle: (from) => from,
  subgroupBroadcast: (from) => from,
  subgroupBroadcastFirst: () => "0",
  subgroupShuffleXor: (mask) => `here.lane ^ ${mask}`,
  subgroupShuffleDown: (delta) => `here.lane + ${delta}`,
};

export abstract class Expressions {
  protected readonly tokens: Tokens;
  protected readonly scopes: Map<string, Code>[] = [new Map()];
  protected readonly types = new Map<string, Type>();
  protected readonly functions = new Map<string, WgslFunction>();
  /** Functions over vectors that the text needs, by name. */
  protected readonly helpers = new Map<string, string>();
  protected readonly sites: Site[] = [];
  /** Of the function that is being translated. */
  protected waits = false;
  /** Of the branch that is being translated: whether lanes use there what they have handed to each other. */
  protected handsOn = false;

  constructor(text: string) {
    this.tokens = new Tokens(text);
  }

  /** Translates a function before it is called, which tells whether it waits. */
  protected abstract translated(called: WgslFunction): void;

  protected abstract constant(js: string): number;

  protected type(): Type {
    const name = this.tokens.next();
    const known = this.types.get(name) ?? namedType(name);
    if (known !== undefined) return known;
    this.tokens.expect("<");
    const element = this.type();
    let count = 0;
    if (this.tokens.take(",")) count = this.constant(this.primary().js);
    this.tokens.expect(">");
    if (name === "array") return { kind: "array", element, count };
    if (name === "atomic") return { kind: "atomic" };
    const size = /^vec([234])$/.exec(name)?.[1];
    const scalar = scalarOf(element);
    if (size === undefined || scalar === undefined) throw new Error(`the type ${name} is not understood`);
    return { kind: "vector", scalar, size: Number(size) };
  }

  protected expression(level = 0): Code {
    const operators = PRECEDENCE[level];
    if (operators === undefined) return this.unary();
    let left = this.expression(level + 1);
    while (operators.includes(this.tokens.peek())) {
      const operator = this.tokens.next();
      left = this.binary(operator, left, this.expression(level + 1));
    }
    return left;
  }

  protected binary(operator: string, a: Code, b: Code): Code {
    const [left, right] = [this.#scalar(a, operator), this.#scalar(b, operator)];
    const isShift = operator === "<<" || operator === ">>";
    const scalar = isShift ? left : meeting(left, right);
    const [x, y] = [this.as(a, scalar), isShift ? this.as(b, "u32") : this.as(b, scalar)];
    const js = this.#each(`${operator} ${scalar}`, [x, y], ([p = "", q = ""]) => binary(operator, scalar, p, q));
    const size = Math.max(sizeOf(a.type), sizeOf(b.type));
    const shape: Type = size === 1 ? scalarType(scalar) : { kind: "vector", scalar, size };
    return { js, type: isComparison(operator) ? withScalar(shape, "bool") : shape };
  }

  #scalar({ type }: Code, what: string): Scalar {
    const scalar = scalarOf(type);
    if (scalar === undefined) throw new Error(`"${what}" of a ${type.kind} is not understood`);
    return scalar;
  }

  /** The same value with numbers of another type; literals are rounded here. */
  protected as(value: Code, to: Scalar): Code {
    const from = this.#scalar(value, `conversion to ${to}`);
    if (from === to) return value;
    const literal = Number(value.js);
    if (value.js !== "" && !Number.isNaN(literal) && (to === "f32" || to === "float")) {
      return { js: String(to === "f32" ? Math.fround(literal) : literal), type: scalarType(to) };
    }
    const js = this.#each(`${from} to ${to}`, [value], ([x = ""]) => converted(x, from, to));
    return { js, type: withScalar(value.type, to) };
  }

  /** As a declaration or parameter of this type holds it. */
  protected of(value: Code, type: Type): Code {
    const scalar = scalarOf(type);
    return scalar === undefined || scalarOf(value.type) === undefined ? value : this.as(value, scalar);
  }

  /** A literal's value as the type that a declaration without one gives it. */
  protected concrete(value: Code): Code {
    const scalar = scalarOf(value.type);
    return scalar === "int" ? this.as(value, "i32") : scalar === "float" ? this.as(value, "f32") : value;
  }

  /** JavaScript for each component of vectors, or for numbers; numbers beside vectors meet every component. */
  #each(key: string, values: readonly Code[], of: (values: string[]) => string): string {
    const sizes = values.map(({ type }) => sizeOf(type));
    const size = Math.max(...sizes);
    if (size === 1) return of(values.map(({ js }) => js));
    const name = this.#named(`${key} ${sizes.join(" ")}`, () => {
      const names = values.map((_, i) => `v${i}`);
      const components = Array.from({ length: size }, (_, c) =>
        of(names.map((one, i) => (sizes[i] === 1 ? one : `${one}[${c}]`))),
      );
      return `(${names.join(", ")}) => [${components.join(", ")}]`;
    });
    return `${name}(${values.map(({ js }) => js).join(", ")})`;
  }

  /** The name of a helper, which is made where there is none yet. */
  #named(key: string, make: () => string): string {
    const known = this.helpers.get(key);
    if (known !== undefined) return known.slice(0, known.indexOf(" "));
    const name = `helper${this.helpers.size}`;
    this.helpers.set(key, `${name} = ${make()};`);
    return name;
  }

  protected unary(): Code {
    const { tokens } = this;
    if (tokens.take("-")) {
      const value = this.unary();
      const scalar = this.#scalar(value, "-");
      if (!Number.isNaN(Number(value.js)) && sizeOf(value.type) === 1) return { js: `-${value.js}`, type: value.type };
      const js = this.#each(`negative ${scalar}`, [value], ([x = ""]) => rounded(scalar, `-${x}`));
      return { js, type: value.type };
    }
    if (tokens.take("!")) {
      const value = this.unary();
      return { js: this.#each("not", [value], ([x = ""]) => `!${x}`), type: value.type };
    }
    if (tokens.take("~")) {
      const value = this.unary();
      const scalar = this.#scalar(value, "~");
      return {
        js: this.#each(`inverted ${scalar}`, [value], ([x = ""]) => rounded(scalar, `~${x}`)),
        type: value.type,
      };
    }
    if (tokens.take("&")) return this.unary();
    return this.postfix(this.primary());
  }

  protected postfix(given: Code): Code {
    let value = given;
    for (;;) {
      if (this.tokens.take("[")) {
        const index = this.as(this.expression(), "u32").js;
        this.tokens.expect("]");
        value = this.#element(value, index);
      } else if (this.tokens.take(".")) {
        value = this.#member(value, this.tokens.next());
      } else return value;
    }
  }

  #element({ js, type, assign }: Code, index: string): Code {
    if (type.kind === "vector") {
      const set = (value: string) => assign?.(`runtime.with(${js}, ${index}, ${value})`) ?? "";
      return {
        js: `runtime.at(${js}, ${index}, "a vector")`,
        type: scalarType(type.scalar),
        ...(assign && { assign: set }),
      };
    }
    if (type.kind !== "array") throw new Error(`an element of a ${type.kind} is not understood`);
    const { element, count } = type;
    if (count === 0) {
      return { js: `${js}.load(${index})`, type: element, assign: (value) => `${js}.store(${index}, ${value})` };
    }
    return {
      js: `runtime.at(${js}, ${index}, "${js}")`,
      type: element,
      assign: (value) => `runtime.put(${js}, ${index}, ${value}, "${js}")`,
    };
  }

  #member({ js, type, assign }: Code, name: string): Code {
    if (type.kind === "struct") {
      const member = type.members.get(name);
      if (member === undefined) throw new Error(`${type.name} has no ${name}`);
      return { js: `${js}.${name}`, type: member, assign: (value) => `${js}.${name} = ${value}` };
    }
    if (type.kind !== "vector") throw new Error(`"${name}" of a ${type.kind} is not understood`);
    const places = [...name].map((letter) => Math.max("xyzw".indexOf(letter), "rgba".indexOf(letter)));
    if (places.some((place) => place < 0 || place >= type.size)) throw new Error(`a vector has no ${name}`);
    if (places.length > 1) {
      const swizzle = this.#named(
        `swizzle ${name}`,
        () => `(v) => [${places.map((place) => `v[${place}]`).join(", ")}]`,
      );
      return { js: `${swizzle}(${js})`, type: { ...type, size: places.length } };
    }
    const set = (value: string) => assign?.(`runtime.with(${js}, ${places[0]}, ${value})`) ?? "";
    return { js: `${js}[${places[0]}]`, type: scalarType(type.scalar), ...(assign && { assign: set }) };
  }

  protected primary(): Code {
    const { tokens } = this;
    if (tokens.take("(")) {
      const value = this.expression();
      tokens.expect(")");
      return value.assign === undefined ? value : { js: value.js, type: value.type };
    }
    const word = tokens.next();
    if (/^[\d.]/.test(word)) return literal(word);
    if (word === "true" || word === "false") return { js: word, type: BOOL };
    if (word === "bitcast") return this.#bitcast();
    const variable = this.#variable(word);
    if (variable !== undefined) return variable;
    if (
      this.types.has(word) ||
      namedType(word) !== undefined ||
      (tokens.peek() === "<" && /^(array|vec\d)$/.test(word))
    ) {
      tokens.at--;
      return this.#constructed(this.type());
    }
    if (tokens.peek() !== "(") throw new Error(`the name ${word} is not understood`);
    return this.#call(word, this.#arguments());
  }

  #variable(name: string): Code | undefined {
    for (const scope of this.scopes.toReversed()) {
      const found = scope.get(name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #arguments(): Code[] {
    this.tokens.expect("(");
    const values: Code[] = [];
    while (!this.tokens.take(")")) {
      values.push(this.expression());
      if (this.tokens.peek() !== ")") this.tokens.expect(",");
    }
    return values;
  }

  #bitcast(): Code {
    this.tokens.expect("<");
    const to = this.type();
    this.tokens.expect(">");
    const [value] = this.#arguments();
    const scalar = scalarOf(to);
    if (value === undefined || scalar === undefined) throw new Error("this bitcast is not understood");
    const given = this.concrete(value);
    const from = this.#scalar(given, "bitcast");
    if (sizeOf(given.type) !== sizeOf(to)) throw new Error("this bitcast is not understood");
    const js = this.#each(`bits ${from} ${scalar}`, [given], ([x]) => `runtime.bitcast("${from}", "${scalar}", ${x})`);
    return { js, type: to };
  }

  #constructed(type: Type): Code {
    const values = this.#arguments();
    if (type.kind === "struct") {
      const members = [...type.members];
      const set = members.map(([name, member], i) => {
        const value = values[i];
        if (value === undefined) throw new Error(`${type.name} without ${name} is not understood`);
        return `${name}: ${this.of(value, member).js}`;
      });
      return { js: `({ ${set.join(", ")} })`, type };
    }
    if (type.kind === "array") {
      if (values.length === 0) return { js: JSON.stringify(zeroOf(type)), type };
      return { js: `[${values.map((value) => this.of(value, type.element).js).join(", ")}]`, type };
    }
    const scalar = scalarOf(type);
    if (scalar === undefined) throw new Error(`a constructor of ${type.kind} is not understood`);
    const size = sizeOf(type);
    const parts = values.map((value) => this.as(value, scalar));
    const [first] = parts;
    if (first === undefined) {
      const zero = scalar === "bool" ? "false" : "0";
      return { js: size === 1 ? zero : `[${new Array(size).fill(zero).join(", ")}]`, type };
    }
    if (parts.length === 1) {
      if (sizeOf(first.type) === size) return { js: first.js, type };
      const splat = this.#named(`splat ${size}`, () => `(x) => [${new Array(size).fill("x").join(", ")}]`);
      return { js: `${splat}(${first.js})`, type };
    }
    const flat = parts.map(({ js, type: { kind } }) => (kind === "vector" ? `...${js}` : js));
    return { js: `[${flat.join(", ")}]`, type };
  }

  #call(name: string, values: readonly Code[]): Code {
    const own = this.functions.get(name);
    if (own !== undefined) {
      this.translated(own);
      const given = own.parameters.map(({ type }, i) => this.of(values[i] ?? { js: "", type }, type).js);
      const js = `$${name}(${given.join(", ")})`;
      this.waits ||= own.waits === true;
      return { js: own.waits ? `(yield [${CALLS}, ${js}])` : js, type: own.result };
    }
    const [a, b, c] = values;
    if (name === "workgroupBarrier" || name === "storageBarrier")
      return { js: this.wait({ name }), type: scalarType("bool") };
    if (name === "subgroupElect") return { js: `(${this.wait({ name })}, here.lane === 0)`, type: BOOL };
    if (a === undefined) throw new Error(`${name}() is not understood`);
    if (name in FOLDS || name in SOURCES) return this.#exchange(name, this.concrete(a), b);
    if (name === "arrayLength") return { js: `${a.js}.length`, type: U32 };
    if (name === "unpack2x16float") return { js: `runtime.unpack2x16float(${a.js})`, type: vectorOf("f32", 2) };
    if (name === "pack2x16float") return { js: `runtime.pack2x16float(${a.js})`, type: U32 };
    if (a.type.kind === "atomic" && ATOMICS.includes(name) && b)
      return { js: `runtime.${name}(${a.js}, ${this.as(b, "u32").js})`, type: U32 };
    if (name === "workgroupUniformLoad") return this.#uniformLoad(a);
    if (name === "any" || name === "all")
      return { js: `${a.js}.${name === "any" ? "some" : "every"}((x) => x)`, type: BOOL };
    if (name === "select" && b && c) return this.#select(a, b, c);
    if (name === "dot" && b) return this.#dot(a, b);
    const elementwise = ELEMENTWISE[name];
    if (elementwise === undefined) throw new Error(`${name}() is not understood`);
    const scalar = values.map((value) => this.#scalar(value, name)).reduce(meeting);
    const all = values.map((value) => this.as(value, scalar));
    const [shape = a] = all.filter(({ type }) => type.kind === "vector");
    return {
      js: this.#each(`${name} ${scalar}`, all, (texts) => elementwise(scalar, ...texts)),
      type: withScalar(shape.type, scalar),
    };
  }

  /** What memory holds between two barriers. */
  #uniformLoad({ js, type }: Code): Code {
    const [before, after] = [this.wait({ name: "loadBarrier" }), this.wait({ name: "loadBarrier" })];
    const isAtomic = type.kind === "atomic";
    return {
      js: `runtime.between(${before}, ${isAtomic ? `${js}.value` : js}, ${after})`,
      type: isAtomic ? U32 : type,
    };
  }

  #select(no: Code, yes: Code, condition: Code): Code {
    const scalar = meeting(this.#scalar(no, "select"), this.#scalar(yes, "select"));
    const [x, y] = [this.as(no, scalar), this.as(yes, scalar)];
    const type = withScalar(yes.type, scalar);
    // A function, so that both values are computed whatever is chosen: lanes may wait in them.
    if (sizeOf(condition.type) === 1) return { js: `runtime.select(${x.js}, ${y.js}, ${condition.js})`, type };
    return { js: this.#each("select", [x, y, condition], ([p, q, which]) => `(${which} ? ${q} : ${p})`), type };
  }

  #dot(a: Code, b: Code): Code {
    const scalar = this.#scalar(a, "dot");
    const name = this.#named(`dot ${scalar} ${sizeOf(a.type)}`, () => {
      const terms = Array.from({ length: sizeOf(a.type) }, (_, i) => rounded(scalar, `a[${i}] * b[${i}]`));
      return `(a, b) => ${terms.reduce((sum, term) => rounded(scalar, `${sum} + ${term}`))}`;
    });
    return { js: `${name}(${a.js}, ${b.js})`, type: scalarType(scalar) };
  }

  /** Lanes hand a value to each other once; who needs it of which lane then finds it. */
  #exchange(name: string, value: Code, argument: Code | undefined): Code {
    const source = SOURCES[name];
    if (source !== undefined) {
      const from = source(argument === undefined ? "" : this.as(argument, "u32").js);
      const all = this.wait({ name }, value.js);
      const { handed } = value;
      this.handsOn ||= handed !== undefined;
      const known = handed === undefined ? all : `(${handed} ?? (${handed} = ${all}))`;
      return { js: `runtime.ofLane(${known}, ${from})`, type: value.type };
    }
    const operator = FOLDS[name] ?? "";
    const two = ["a", "b"].map((js): Code => ({ js, type: value.type }));
    const [a, b] = two as [Code, Code];
    const scalar = this.#scalar(value, name);
    const folded =
      operator === "+"
        ? this.binary("+", a, b).js
        : this.#each(`${operator} ${scalar}`, two, (texts) => ELEMENTWISE[operator]?.(scalar, ...texts) ?? "");
    return { js: this.wait({ name, fold: `(a, b) => ${folded}` }, value.js), type: value.type };
  }

  protected wait(site: Site, value?: string): string {
    this.waits = true;
    this.sites.push(site);
    const number = this.sites.length - 1;
    return `(yield [${value === undefined ? number : `${number}, ${value}`}])`;
  }
}

const vectorOf = (scalar: Scalar, size: number): Type => ({ kind: "vector", scalar, size });
