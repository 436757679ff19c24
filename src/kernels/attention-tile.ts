/**
 * A tile of attention, the body that its three kernels share: a few rows of one side against the columns, four or fewer
 * to a lane, of the other, in two products:
 *
 *   scores       x[r, j] = sum_d a[r, d] b[j, d]      lanes own columns j; both operands are head rows in memory
 *   accumulate   sum[r, d] += sum_j x[r, j] b[j, d]   lanes own channels d; x is computed from the scores
 *
 * The lanes that share a tile are a team (`attention-team.ts`). Not the softmax, nor which rows see which: that is
 * `attention.ts`.
 */
import { component, type Team, type TeamShape, teamOf } from "./attention-team.ts";
import type { ActivationFormat, Grid } from "./kernel.ts";
import { softCapFunctions } from "./scale.ts";
import { activationBinding, loadedActivation, storedActivation, storedBytes } from "./stored.ts";
import { type AdapterFacts, COMPONENTS, range, unknownCount } from "./wgsl.ts";

/** What becomes of the product of a query and a key. */
export interface ScoreShape {
  /** What it is multiplied with; default 1 / sqrt(D). */
  readonly scale?: number | undefined;
  /** Default: none. */
  readonly softCap?: number | undefined;
}

/** What a tile's text depends on. */
export interface TileShape extends TeamShape, ScoreShape {
  /** D */
  readonly headSize: number;
}

/** What a tile's text reads. */
export interface TileOperands {
  /** The format of activations. */
  readonly format: ActivationFormat;
  readonly loads: Readonly<Record<string, ActivationFormat>>;
  /** Names of what it multiplies, rows and columns by where they start: each has a scale where matrices multiply it. */
  readonly factors: readonly string[];
}

/** Invocations of a workgroup where subgroups cannot be used. */
const WORKGROUP_LANES = 32;

/**
 * Head sizes up to which a lane is a team of its own, with subgroups and without. Measured on lavapipe: against a
 * subgroup it is faster at 8 and 16, against a workgroup at 32 too.
 */
const SMALL_HEAD = { subgroups: 16, none: 32 } as const;

/**
 * Rows of a lane alone, and the vectors of four channels that one operand's rows may fill: its registers. Software
 * adapters keep them in memory, where eight rows share a load; on a GPU the four operands of dK and dV must fit.
 */
const LANE_ROWS = { many: 8, few: 2 } as const;
const LANE_VECTORS = { software: 32, hardware: 8 } as const;

/**
 * Chunks of channels that share what lanes hand round in `accumulate`. Measured on lavapipe against one: heads of 64
 * and 128 run 10 to 25% faster and compile in 60% of the time; with four or more the sums of large heads are slower.
 */
const CHUNKS_TOGETHER = 2;

/** The tile for heads of this size, `few` where there are no more than a few rows. */
export function tileShape(headSize: number, facts: AdapterFacts, few: boolean): TileShape {
  const { subgroupSize: lanes, software } = facts;
  const inSubgroup = lanes >= 4;
  if (headSize <= (inSubgroup ? SMALL_HEAD.subgroups : SMALL_HEAD.none)) {
    const most = Math.floor(LANE_VECTORS[software ? "software" : "hardware"] / Math.ceil(headSize / 4));
    const rows = Math.min(LANE_ROWS[few ? "few" : "many"], most);
    return { headSize, team: "lane", lanes: 1, software, rows, columns: 1 };
  }
  if (!inSubgroup) return { headSize, team: "workgroup", lanes: WORKGROUP_LANES, software, rows: 4, columns: 4 };
  // On lavapipe more rows share a load, and their sums are in memory anyway; SwiftShader, with 4 lanes, compiles too
  // slowly.
  const rows = few ? 4 : (headSize > 4 * lanes ? 8 : 16) * (software && lanes >= 8 ? 2 : 1);
  return { headSize, team: "subgroup", lanes, software, rows, columns: lanes <= 8 ? 4 : lanes <= 16 ? 2 : 1 };
}

/** WGSL of a tile. Rows r are numbers known here, and text for each row is a function of r. */
export class AttentionTile {
  readonly shape: TileShape;
  /** The format of q, k, v and the result; gradients are f32. */
  readonly format: ActivationFormat;
  /** The bindings that are read four numbers at a time, with their formats. */
  readonly loads: Readonly<Record<string, ActivationFormat>>;
  /** Whether head rows are read as vec4f: their size, widths and first columns are multiples of 4. */
  readonly vectors: boolean;
  /** Rows r that a lane computes, and its channels: four of each chunk. */
  readonly rows: readonly number[];
  readonly chunks: readonly number[];
  /** Columns that all lanes own together. */
  readonly width: number;
  readonly team: Team;
  /** Lanes that own channels; where a team has more, lanes of the same channels share the columns j in `accumulate`. */
  readonly #channelLanes: number;

  constructor(shape: TileShape, operands: TileOperands) {
    this.shape = shape;
    this.format = operands.format;
    this.loads = operands.loads;
    const { headSize, lanes } = shape;
    const fours = Math.ceil(headSize / 4);
    this.vectors = headSize % 4 === 0;
    this.team = teamOf(shape);
    this.rows = range(this.team.computed);
    this.width = this.team.width;
    this.chunks = range(Math.ceil(headSize / (shape.team === "matrices" ? this.width : 4 * lanes)));
    this.#channelLanes = Math.min(lanes, 2 ** Math.ceil(Math.log2(fours)));
  }

  /** The declaration of a binding of head rows. */
  binding(format: ActivationFormat, shape: string): string {
    return activationBinding(format, shape, this.vectors);
  }

  /** Bytes of an activation. */
  get activationBytes(): number {
    return storedBytes(this.format);
  }

  /**
   * Constants, types, functions and memory. `E` is an element of a binding, `UNIT` numbers long; `X` and `XU` are
   * numbers and indices of a row in the columns of a lane. `stores` is the binding that is written four numbers at a
   * time, with its format.
   */
  declarations([stores, storedAs]: readonly [string, ActivationFormat]): string {
    const { headSize, columns, scale = 1 / Math.sqrt(headSize), softCap } = this.shape;
    const loaders = Object.entries(this.loads).map(([name, format]) =>
      this.vectors
        ? `fn ${name}Four(start: u32, d: u32) -> vec4f { return ${loadedActivation(format, `${name}[start + d / 4u]`, true)}; }`
        : `fn ${name}One(start: u32, d: u32) -> f32 { return select(0.0, ${loadedActivation(format, `${name}[start + min(d, ${headSize - 1}u)]`, false)}, d < ${headSize}u); }
fn ${name}Four(start: u32, d: u32) -> vec4f {
  return vec4f(${range(4)
    .map((i) => `${name}One(start, d + ${i}u)`)
    .join(", ")});
}`,
    );
    return /* wgsl */ `
alias E = ${this.vectors ? "vec4f" : "f32"};
alias X = ${columns === 1 ? "f32" : `vec${columns}f`};
alias XU = ${columns === 1 ? "u32" : `vec${columns}u`};
const UNIT: u32 = ${this.vectors ? 4 : 1}u;
const HEAD: u32 = ${this.vectors ? headSize / 4 : headSize}u;
const SCALE: f32 = ${scale};
const NONE: u32 = 0xffffffffu;
${loaders.join("\n")}
fn store(start: u32, d: u32, value: vec4f) {
  ${
    this.vectors
      ? `${stores}[start + d / 4u] = ${storedActivation(storedAs, "value", true)};`
      : `for (var i = 0u; i < 4u; i++) { if (d + i < ${headSize}u) { ${stores}[start + d + i] = ${storedActivation(storedAs, "value[i]", false)}; } }`
  }
}
fn largest(x: X) -> f32 { return ${fold(columns, (a, b) => `max(${a}, ${b})`)}; }
fn total(x: X) -> f32 { return ${fold(columns, (a, b) => `(${a} + ${b})`)}; }
// The first of [start, end) that is not before \`least\`.
fn firstFrom(start: u32, end: u32, least: u32) -> u32 {
  let first = max(start, least);
  return select(NONE, first, first < end);
}
${this.team.declarations}${softCap === undefined ? "" : softCapFunctions("X", softCap)}
`;
  }

  /** WGSL: the scores of the products `${product}`, an X. */
  score(product: string): string {
    return this.shape.softCap === undefined ? `${product} * SCALE` : `softCapped(${product} * SCALE)`;
  }

  /** WGSL: the derivative of the scores by these products. */
  scoreSlope(product: string): string {
    return this.shape.softCap === undefined ? "SCALE" : `(SCALE * softCapSlope(${this.score(product)}))`;
  }

  /** Entry point: `element(owner, tile, lane)` for each tile of `rows` rows of each of `owners`. */
  entry(rows: string, owners: string): string {
    const { rows: tileRows } = this.shape;
    return this.team.entry(`((${rows} + ${tileRows - 1}u) / ${tileRows}u)`, owners);
  }

  grid(rows: number, owners: number): Grid {
    return this.team.grid(Math.ceil(rows / this.shape.rows), owners);
  }

  /**
   * Declares the numbers that a lane holds of its rows i, `${name}${i}` for each of `numbers`, by type. `text` declares
   * these for the row `own`, under their names alone; rows past the last of `count` are the last again. `operands` are
   * bindings by the number where the row starts in them: a lane alone keeps the row in registers.
   */
  held(
    count: string,
    text: string,
    numbers: Readonly<Record<string, "u32" | "f32" | "vec4u">>,
    operands: Readonly<Record<string, string>> = {},
  ): string {
    const { held, place } = this.team;
    const chunks = this.chunks.length;
    const names = Object.keys(numbers);
    const kept = this.#alone ? Object.entries(operands) : [];
    // A loop through memory: loads are long texts to a driver's compiler.
    return /* wgsl */ `
  ${names.map((name) => `var ${name}Held: array<${numbers[name]}, ${held}>;`).join("\n  ")}
  ${kept.map(([start]) => `var ${start}Row: array<vec4f, ${held * chunks}>;`).join("\n  ")}
  for (var i = 0u; i < ${unknown(held)}; i++) {
    let own = min(tile * ${this.shape.rows}u + ${place("i")}, ${count} - 1u);
    ${text.trim()}
    ${names.map((name) => `${name}Held[i] = ${name};`).join("\n    ")}
    ${
      kept.length === 0
        ? ""
        : `for (var chunk = 0u; chunk < ${unknown(chunks)}; chunk++) {
      ${kept.map(([start, binding]) => `${start}Row[i * ${chunks}u + chunk] = ${binding}Four(${start}, 4u * chunk);`).join("\n      ")}
    }`
    }
  }
  ${this.eachHeld((i) => names.map((name) => `let ${name}${i}: ${numbers[name]} = ${name}Held[${i}];`).join(" "))}
  ${kept
    .map(([start]) =>
      range(held)
        .map((i) =>
          this.chunks.map((chunk) => `let ${start}Row${chunk}x${i} = ${start}Row[${i * chunks + chunk}];`).join(" "),
        )
        .join("\n  "),
    )
    .join("\n  ")}`;
  }

  /** Text for each row that a lane holds. */
  eachHeld(text: (i: number) => string): string {
    return range(this.team.held).map(text).join("\n  ");
  }

  get #alone(): boolean {
    return this.shape.team === "lane";
  }

  /** The smallest, or largest, u32 over all rows. */
  over(what: "min" | "max", value: (i: number) => string): string {
    const own = range(this.team.held).map(value);
    return this.team.over(
      what,
      own.reduce((a, b) => `${what}(${a}, ${b})`),
    );
  }

  /** Text for each row. */
  readonly each = (text: (r: number) => string): string => this.rows.map(text).join("\n");

  /** `XU` of the lane's columns from `first`. */
  get columns(): string {
    const { columns } = this.shape;
    const from = `${this.team.columnLane} * ${columns}u`;
    return columns === 1 ? from : `${from} + XU(${range(columns).join(", ")})`;
  }

  /** Declares `${name}${c}` for each column c of the lane. */
  starts(name: string, at: (c: number) => string): string {
    return range(this.shape.columns)
      .map((c) => `let ${name}${c}: u32 = ${at(c)};`)
      .join("\n");
  }

  /** An `X` or `XU` of a text for each column of the lane. */
  vector(type: "X" | "XU", text: (c: number) => string): string {
    return `${type}(${range(this.shape.columns).map(text).join(", ")})`;
  }

  /**
   * Declares `${into}${r}`: the products of row r, which starts at the held `${start}` in binding `a`, and the lane's
   * columns, which start at `${starts}${c}` in binding `b`.
   */
  scores(into: string, a: string, start: string, b: string, starts: string): string {
    const columns = range(this.shape.columns);
    const products = (d: string, row: (r: number) => string) => /* wgsl */ `
    ${columns.map((c) => `let t${c} = ${b}Four(${starts}${c}, ${d});`).join(" ")}
    ${COMPONENTS.map((e, i) => `let b${i} = X(${columns.map((c) => `t${c}.${e}`).join(", ")});`).join(" ")}
    ${this.rows
      .map(
        (r) =>
          `{ let a = ${row(r)}; ${into}${r} = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, ${into}${r})))); }`,
      )
      .join("\n    ")}`;
    const sums = this.each((r) => `var ${into}${r} = X();`);
    if (this.#alone) {
      const chunks = this.chunks.map((chunk) => `{ ${products(`${4 * chunk}u`, (r) => `${start}Row${chunk}x${r}`)}\n}`);
      return `${sums}\n${chunks.join("\n")}`;
    }
    return /* wgsl */ `
${sums}
for (var d = 0u; d < ${unknown(this.shape.headSize)}; d += 4u) {
    ${this.eachHeld((i) => `let a${i}: vec4f = ${a}Four(${start}${i}, d);`)} ${products("d", (r) => this.team.of("a", r))}
  }`;
  }

  /** Declares `${sum}${chunk}x${r}` as zeros. */
  zeros(sum: string): string {
    return this.each((r) => this.chunks.map((chunk) => `var ${sum}${chunk}x${r}: vec4f;`).join(" "));
  }

  /** Multiplies the sums of row r by a number. */
  scaled(sum: string, r: number, factor: string): string {
    return this.chunks.map((chunk) => `${sum}${chunk}x${r} *= ${factor};`).join(" ");
  }

  /**
   * Adds to each `${sum}${chunk}x${r}` the products of the X `${x}${r}` and the columns' rows of binding `b`, of
   * which a lane's own start at `${starts}${c}`.
   */
  accumulate(sum: string, x: string, b: string, starts: string): string {
    const { lanes } = this.shape;
    const columns = range(this.shape.columns);
    const parts = lanes / this.#channelLanes;
    const handed = this.team.hand(
      x,
      columns.map((c) => `${starts}${c}`),
    );
    const product = (r: number, chunk: number) => {
      const name = `${sum}${chunk}x${r}`;
      const added = columns.reduceRight(
        (rest, c) => `fma(vec4f(${component(this.shape, `a${r}`, c)}), b${c}, ${rest})`,
        name,
      );
      return `${name} = ${added};`;
    };
    const chunkOf = (chunk: number) => /* wgsl */ `{
    ${columns.map((c) => `let b${c} = ${b}Four(start${c}, ${this.#channel(chunk)});`).join("\n    ")}
    ${this.rows.map((r) => product(r, chunk)).join("\n    ")}
    }`;
    const owner = parts === 1 ? "i" : `i * ${parts}u + lane / ${this.#channelLanes}u`;
    const chunksOf = (from: number) => /* wgsl */ `
    ${columns.map((c) => `let start${c} = ${handed.start(c)};`).join(" ")}
    ${this.rows.map((r) => `let a${r} = ${handed.x(r)};`).join(" ")}
    ${this.chunks
      .slice(from, from + CHUNKS_TOGETHER)
      .map(chunkOf)
      .join("\n    ")}`;
    return [
      handed.text,
      ...this.chunks
        .filter((chunk) => chunk % CHUNKS_TOGETHER === 0)
        .map((chunk) =>
          this.#alone
            ? `{ ${chunksOf(chunk)}\n}`
            : `for (var i = 0u; i < ${unknown(lanes / parts)}; i++) {
    let owner = ${owner}; ${chunksOf(chunk)}
  }`,
        ),
    ].join("\n");
  }

  /** Stores the held `${value}` of each row at the held `${at}`. */
  storeHeld(binding: string, at: string, value: string): string {
    const { held, storing } = this.team;
    const all = (name: string) =>
      range(held)
        .map((i) => `${name}${i}`)
        .join(", ");
    return /* wgsl */ `{
    var values = array<f32, ${held}>(${all(value)});
    var places = array<u32, ${held}>(${all(at)});
    for (var i = 0u; i < ${unknown(held)}; i++) {
      if (${storing}) { ${binding}[places[i]] = values[i]; }
    }
  }`;
  }

  /** The first of the lane's channels in a chunk; lanes without channels read the last ones again. */
  #channel(chunk: number): string {
    if (this.#alone) return `${4 * chunk}u`;
    const first = `${4 * chunk * this.shape.lanes}u + lane % ${this.#channelLanes}u * 4u`;
    return `min(${first}, ${4 * Math.ceil(this.shape.headSize / 4) - 4}u)`;
  }

  /** Stores `value(r, sum)` of each row's sums where row r, held as `${start}`, starts. */
  store(sum: string, start: string, value: (r: number, sum: string) => string): string {
    const { lanes, headSize, rows } = this.shape;
    return this.chunks
      .map((chunk) => {
        const names = this.rows.map((r) => `${sum}${chunk}x${r}`);
        const values = names.map((name, r) => value(r, name));
        // Once through memory, so that the stores are a loop: they are long texts to a driver's compiler.
        return /* wgsl */ `{
    ${this.#channelLanes < lanes ? this.team.gather(names, this.#channelLanes) : ""}
    let channel = ${4 * chunk * lanes}u + lane * 4u;
    var values = array<vec4f, ${rows}>(${values.join(", ")});
    var places = array<u32, ${rows}>(${this.rows.map((r) => this.team.of(start, r)).join(", ")});
    for (var r = 0u; r < ${unknown(rows)}; r++) {
      if (lane < ${this.#channelLanes}u && channel < ${headSize}u) { store(places[r], channel, values[r]); }
    }
  }`;
      })
      .join("\n");
  }
}

function fold(columns: number, join: (a: string, b: string) => string): string {
  if (columns === 1) return "x";
  return range(columns)
    .map((c) => `x.${COMPONENTS[c]}`)
    .reduce(join);
}

/** For loops that unrolled ran slower on lavapipe and took two to three times as long to compile. */
export const unknown = (count: number) => unknownCount(count, "u.H");
