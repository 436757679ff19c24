/**
 * WGSL for the state of `gated-delta.ts`, a matrix [K, V]: each invocation keeps some columns of it in registers. This
 * file has the declarations, loads, stores and loops over them; what is computed stands in `gated-delta.ts`.
 */
import type { Kernel } from "./kernel.ts";
import { type AdapterFacts, type Lanes, range, unknownCount } from "./wgsl.ts";

/** What the texts depend on: channels of a key and of a value. */
export interface DeltaSize {
  /** K. */
  readonly keySize: number;
  /** V. */
  readonly valueSize: number;
}

/** Invocations of a workgroup, and columns of each: a program on the CPU reads q and k once for all of them. */
const GROUP = 32;
const perLane = ({ software }: AdapterFacts) => (software ? 2 : 1);

/**
 * On a software adapter a load costs ten times what a shuffle does, and each takes its compiler a branch a lane: there
 * the lanes of a subgroup share the loads of q and k. Elsewhere all read the same address. 0: they share nothing.
 */
const sharingLanes = ({ software, subgroupSize }: AdapterFacts) => (software && subgroupSize >= 4 ? subgroupSize : 0);

/**
 * On a software adapter whose lanes share nothing, columns are arrays that loops walk, not names: of heads of 128 channels
 * its compiler takes some 17 s for the text of every element of the forward pass, and 2 s for the loops.
 */
const walks = (facts: AdapterFacts) => facts.software && sharingLanes(facts) === 0;

/** An element of a column: a number, or the variable of a loop over them. */
export type Element = number | "c";
const index = (c: Element) => (c === "c" ? c : `${c}u`);

/** Elements of a column that one round moves between registers and memory: each is a branch too. */
const ROUND = 4;

/** Workgroups for so many columns. */
export const slices = (columns: number, facts: AdapterFacts) => Math.ceil(columns / (GROUP * perLane(facts)));

/** A kernel for each size of heads and kind of adapter. */
export function perSize<B extends string, U extends string>(
  build: (size: DeltaSize, facts: AdapterFacts) => Kernel<B, U>,
) {
  const built = new Map<string, Kernel<B, U>>();
  return ({ keySize, valueSize }: DeltaSize, facts: AdapterFacts): Kernel<B, U> => {
    const key = `${keySize} ${valueSize} ${facts.software} ${sharingLanes(facts)}`;
    const found = built.get(key) ?? build({ keySize, valueSize }, facts);
    built.set(key, found);
    return found;
  };
}

/** A vector that every invocation reads, as text. */
export interface SharedVector {
  /** What loads it, once a row. */
  readonly load: string;
  /** One of its elements. */
  readonly of: (c: Element) => string;
}

/**
 * A matrix of which an invocation owns some columns: `x0_0` is the first element of the first one (or `x_0[c]`, where a
 * loop walks them), and what is written once is text for each element and column. An invocation without a column computes
 * the last one and stores nothing.
 */
export class Columns {
  readonly #facts: AdapterFacts;
  /** Elements of a column. */
  readonly #elements: number;
  /** Columns of the matrix. */
  readonly #count: number;
  /** The columns of an invocation. */
  readonly #own: readonly number[];

  constructor(lanes: Lanes, length: number, count: number, facts: AdapterFacts) {
    this.#facts = facts;
    this.#elements = length / lanes.count;
    this.#count = count;
    this.#own = range(perLane(facts));
  }

  /** What a kernel's declaration says of it. */
  get enable(): readonly string[] {
    return sharingLanes(this.#facts) > 0 ? ["subgroups"] : [];
  }

  /** A text for each column of the invocation. */
  each(text: (j: number) => string): string {
    return this.#own.map(text).join("\n");
  }

  /** A text for each element `x` of each column, behind `loads` for the same element of vectors. */
  eachElement(loads: (c: Element) => string, text: (x: string, c: Element, j: number) => string): string {
    if (walks(this.#facts)) {
      return `${this.#walk()} { ${loads("c")} ${this.#own.map((j) => text(`x_${j}[c]`, "c", j)).join(" ")} }`;
    }
    return range(this.#elements)
      .map((c) => `${loads(c)} ${this.#own.map((j) => text(`x${c}_${j}`, c, j)).join(" ")}`)
      .join("\n");
  }

  /** The vector of a binding, as long as a column, that begins at element `at`, WGSL. */
  vector(name: string, binding: string, at: string): SharedVector {
    const lanes = sharingLanes(this.#facts);
    if (lanes === 0) return { load: "", of: (c) => `E(${binding}[${at} + ${index(c)}])` };
    const last = this.#elements - 1;
    const part = (m: number) => `let ${name}${m} = E(${binding}[${at} + min(${m * lanes}u + ofSubgroup, ${last}u)]);`;
    return {
      load: range(Math.ceil(this.#elements / lanes))
        .map(part)
        .join("\n"),
      of: (c) => `subgroupShuffle(${name}${Math.floor(Number(c) / lanes)}, ${Number(c) % lanes}u)`,
    };
  }

  /** Declares the columns, all zeros. */
  zeros(): string {
    if (walks(this.#facts)) return this.each((j) => `var x_${j} = array<E, ${this.#elements}>();`);
    return this.eachElement(
      () => "",
      (x) => `var ${x} = E();`,
    );
  }

  /** Adds the state of `place`, WGSL, to the columns. */
  add(states: string, place: string): string {
    if (walks(this.#facts)) {
      return this.each((j) => `${this.#walk()} { x_${j}[c] += ${this.#element(states, place, "c", j)}; }`);
    }
    const parts = (j: number) =>
      range(ROUND)
        .map((part) => `let part${part} = ${this.#state(states, place, part, j)};`)
        .join("\n");
    const taken = (c: number) => `select(E(), part${c % ROUND}, round == ${Math.floor(c / ROUND)}u)`;
    const all = (j: number) => range(this.#elements).map((c) => `x${c}_${j} += ${taken(c)};`);
    return this.each((j) => `${this.#rounds()} {\n${parts(j)}\n${all(j).join("\n")}\n}`);
  }

  /** Stores the columns as the state of `place`, WGSL. */
  keep(states: string, place: string): string {
    if (walks(this.#facts)) {
      const all = (j: number) => `${this.#walk()} { ${this.#element(states, place, "c", j)} = x_${j}[c]; }`;
      return this.each((j) => `if (${this.#column(j)} < ${this.#count}u) { ${all(j)} }`);
    }
    const part = (first: number, j: number) =>
      range(this.#elements)
        .filter((c) => c % ROUND === first)
        .reduce(
          (text, c) => (text === "" ? `x${c}_${j}` : `select(${text}, x${c}_${j}, round == ${Math.floor(c / ROUND)}u)`),
          "",
        );
    const all = (j: number) =>
      range(Math.min(ROUND, this.#elements)).map(
        (first) =>
          `if (round * ${ROUND}u + ${first}u < ${this.#elements}u) { ${this.#state(states, place, first, j)} = ${part(first, j)}; }`,
      );
    return this.each(
      (j) => `if (${this.#column(j)} < ${this.#count}u) {\n${this.#rounds()} {\n${all(j).join("\n")}\n}\n}`,
    );
  }

  #walk(): string {
    return `for (var c = 0u; c < ${unknownCount(this.#elements, "u.T")}; c++)`;
  }

  #rounds(): string {
    return `for (var round = 0u; round < ${unknownCount(Math.ceil(this.#elements / ROUND), "u.T")}; round++)`;
  }

  /** WGSL: an element of a state in memory, in this round or, beyond the last, the last. */
  #state(states: string, place: string, part: number, j: number): string {
    return this.#element(states, place, `min(round * ${ROUND}u + ${part}u, ${this.#elements - 1}u)`, j);
  }

  /** WGSL: an element of a state in memory. */
  #element(states: string, place: string, element: string, j: number): string {
    const size = this.#elements * this.#count;
    return `${states}[((${place}) * u.heads + head) * ${size}u + ${element} * ${this.#count}u + ${this.loadable(j)}]`;
  }

  #column(j: number): string {
    return j === 0 ? "column" : `(column + ${j * GROUP}u)`;
  }

  /** WGSL: which column the j-th of an invocation is, or the last one: what may be loaded. */
  loadable(j: number): string {
    return `min(${this.#column(j)}, ${this.#count - 1}u)`;
  }

  /** Stores a number of each column there is. */
  store(text: (column: string, j: number) => string): string {
    return this.each((j) => `if (${this.#column(j)} < ${this.#count}u) { ${text(this.#column(j), j)} }`);
  }

  /** The entry point: `head`, its first `column`, `segment`, and the columns of the fused rows where heads start. */
  entry({ keySize, valueSize }: DeltaSize, body: string): string {
    const count = slices(this.#count, this.#facts);
    const inSubgroup = sharingLanes(this.#facts) > 0 ? ", @builtin(subgroup_invocation_id) ofSubgroup: u32" : "";
    return /* wgsl */ `
@compute @workgroup_size(${GROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32${inSubgroup}) {
  let head = group.x / ${count}u;
  let column = (group.x % ${count}u) * ${GROUP * this.#own.length}u + lane;
  let segment = segments[u.first + group.y];
  let start = segment.x;
  let end = segment.y;
  let queryFrom = head / (u.heads / u.keyHeads) * ${keySize}u;
  let keyFrom = queryFrom + u.keyHeads * ${keySize}u;
  let valueFrom = 2u * u.keyHeads * ${keySize}u + head * ${valueSize}u;
${body}
}`;
  }
}
