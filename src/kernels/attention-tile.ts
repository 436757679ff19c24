/**
 * A tile of attention, the body that its three kernels share: a few rows of one side against the columns, four or fewer
 * to a lane, of the other, in two products:
 *
 *   scores       x[r, j] = sum_d a[r, d] b[j, d]      lanes own columns j; both operands are head rows in memory
 *   accumulate   sum[r, d] += sum_j x[r, j] b[j, d]   lanes own channels d; x is what the first product has become
 *
 * The lanes that share a tile are a subgroup, which hands numbers round (`ofLane`; on software adapters that costs almost
 * nothing, and a load as much as eight multiply-adds), or, where subgroups cannot be used, a workgroup, which hands x
 * round through its memory. Not the softmax, nor which rows see which: that is `attention.ts`.
 */
import type { ActivationFormat } from "./kernel.ts";
import { activationBinding, loadedActivation, storedActivation, storedBytes } from "./stored.ts";
import { type AdapterFacts, linearGrid, linearGroup, ofLane, unknownCount } from "./wgsl.ts";

const range = (count: number) => Array.from({ length: count }, (_, index) => index);
const COMPONENTS = ["x", "y", "z", "w"];

/** What a tile's text depends on. */
export interface TileShape {
  /** D */
  readonly headSize: number;
  /** Of a subgroup, or of a workgroup. */
  readonly team: "subgroup" | "workgroup";
  readonly lanes: number;
  readonly software: boolean;
  /** Rows of a tile. */
  readonly rows: number;
  /** Columns of a lane in the first product. */
  readonly columns: 1 | 2 | 4;
}

/** Invocations of a workgroup where subgroups cannot be used. */
const WORKGROUP_LANES = 32;

/** The tile for heads of this size, `few` where there are no more than a few rows. */
export function tileShape(headSize: number, facts: AdapterFacts, few: boolean): TileShape {
  const { subgroupSize: lanes, software } = facts;
  if (lanes < 4) return { headSize, team: "workgroup", lanes: WORKGROUP_LANES, software, rows: 4, columns: 4 };
  // On lavapipe more rows share a load, and their sums are in memory anyway; SwiftShader, with 4 lanes, compiles too slowly.
  const rows = few ? 4 : (headSize > 4 * lanes ? 8 : 16) * (software && lanes >= 8 ? 2 : 1);
  return { headSize, team: "subgroup", lanes, software, rows, columns: lanes <= 8 ? 4 : lanes <= 16 ? 2 : 1 };
}

/** WGSL of a tile. Rows r are numbers known here; what is said of each row is text in terms of r. */
export class AttentionTile {
  readonly shape: TileShape;
  /** Of q, k, v and the result; gradients are f32. */
  readonly format: ActivationFormat;
  /** Whether head rows are read as vec4f: their size, widths and first columns are multiples of 4. */
  readonly vectors: boolean;
  /** Rows r of the tile, and the channels of a lane: four of each chunk. */
  readonly rows: readonly number[];
  readonly chunks: readonly number[];
  /** Columns that all lanes own together. */
  readonly width: number;
  /** WGSL type of a row's numbers in the columns of a lane. */
  readonly X: string;
  readonly enable: readonly string[];
  /** Lanes with channels of their own; where there are more, they share the columns j of the second product. */
  readonly #channelLanes: number;
  readonly #parts: number;
  /** Rows whose numbers a lane holds: of a subgroup its share, of a workgroup all. */
  readonly #held: readonly number[];

  constructor(shape: TileShape, format: ActivationFormat) {
    this.shape = shape;
    this.format = format;
    const { headSize, team, lanes, rows, columns } = shape;
    const fours = Math.ceil(headSize / 4);
    this.vectors = headSize % 4 === 0;
    this.rows = range(rows);
    this.chunks = range(Math.ceil(fours / lanes));
    this.width = lanes * columns;
    this.X = columns === 1 ? "f32" : `vec${columns}f`;
    this.enable = team === "subgroup" ? ["subgroups"] : [];
    this.#channelLanes = Math.min(lanes, 2 ** Math.ceil(Math.log2(fours)));
    this.#parts = lanes / this.#channelLanes;
    this.#held = range(team === "subgroup" ? Math.max(1, rows / lanes) : rows);
  }

  get #inSubgroup(): boolean {
    return this.shape.team === "subgroup";
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
   * Constants, types, functions and memory. `E` is an element of a binding, `UNIT` numbers long; `X` and `XU` are numbers
   * and indices of a row in the columns of a lane. `loads` and `stores` are the bindings that are read and written four
   * numbers at a time, with their formats.
   */
  declarations(
    loads: Readonly<Record<string, ActivationFormat>>,
    [stores, storedAs]: readonly [string, ActivationFormat],
  ): string {
    const { headSize, lanes, rows, columns } = this.shape;
    const E = this.vectors ? "vec4f" : "f32";
    const loaders = Object.entries(loads).map(([name, format]) =>
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
alias E = ${E};
alias X = ${this.X};
alias XU = ${columns === 1 ? "u32" : `vec${columns}u`};
const UNIT: u32 = ${this.vectors ? 4 : 1}u;
const HEAD: u32 = ${this.vectors ? headSize / 4 : headSize}u;
const SCALE: f32 = ${1 / Math.sqrt(headSize)};
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
/** The first of [start, end) that is not before \`least\`. */
fn firstFrom(start: u32, end: u32, least: u32) -> u32 {
  let first = max(start, least);
  return select(NONE, first, first < end);
}
${
  this.#inSubgroup
    ? `${this.attributes}
fn lanesMax(own: f32) -> f32 {
  var x = own;
${range(Math.log2(lanes))
  .map((i) => `  x = max(x, subgroupShuffleXor(x, ${2 ** i}u));`)
  .join("\n")}
  return x;
}
${this.attributes}
fn lanesSum(own: f32) -> f32 {
  var x = own;
${range(Math.log2(lanes))
  .map((i) => `  x += subgroupShuffleXor(x, ${2 ** i}u);`)
  .join("\n")}
  return x;
}`
    : `var<workgroup> handed: array<X, ${rows * lanes}>;
var<workgroup> handedStarts: array<XU, ${lanes}>;
var<workgroup> channels: array<vec4f, ${rows * lanes}>;
var<workgroup> rowResults: array<f32, ${rows}>;`
}
`
      .replaceAll("/** ", "// ")
      .replaceAll(" */", "");
  }

  /** Entry point: \`element(owner, tile, lane)\` for each tile of \`rows\` rows of each of \`owners\`. */
  entry(rows: string, owners: string): string {
    const { lanes, rows: tileRows } = this.shape;
    return /* wgsl */ `
${linearGroup}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(${this.#inSubgroup ? "subgroup_invocation_id" : "local_invocation_index"}) lane: u32) {
  let tiles = (${rows} + ${tileRows - 1}u) / ${tileRows}u;
  let index = linearGroup(group);
  if (index >= tiles * (${owners})) { return; }
  element(index / tiles, index % tiles, lane);
}`;
  }

  grid(rows: number, owners: number) {
    return linearGrid(Math.ceil(rows / this.shape.rows) * owners);
  }

  /** The compiler cannot see that what is taken over the subgroup is the same for all its lanes. */
  get attributes(): string {
    return this.#inSubgroup ? "@diagnostic(off, subgroup_uniformity)" : "";
  }

  /** Text for each row that the lane holds; `own` is its row, rows past the last of \`count\` being the last again. */
  held(count: string, text: (i: number, own: string) => string): string {
    const { lanes, rows } = this.shape;
    return this.#held
      .map((i) => {
        const place = this.#inSubgroup ? `${i * lanes}u + lane % ${Math.min(lanes, rows)}u` : `${i}u`;
        return text(i, `min(tile * ${rows}u + ${place}, ${count} - 1u)`);
      })
      .join("\n");
  }

  /** The number `name` that is held for row r. */
  of(name: string, r: number): string {
    if (!this.#inSubgroup) return `${name}${r}`;
    const { lanes } = this.shape;
    return ofLane(r % lanes, `${name}${Math.floor(r / lanes)}`, this.shape);
  }

  /** The smallest, or largest, u32 over all rows. */
  least(value: (i: number) => string): string {
    const own = this.#held.map(value).reduce((a, b) => `min(${a}, ${b})`);
    return this.#inSubgroup ? `subgroupMin(${own})` : own;
  }

  most(value: (i: number) => string): string {
    const own = this.#held.map(value).reduce((a, b) => `max(${a}, ${b})`);
    return this.#inSubgroup ? `subgroupMax(${own})` : own;
  }

  /** Text for each row. */
  each(text: (r: number) => string): string {
    return this.rows.map(text).join("\n");
  }

  /** `XU` of the lane's columns from `first`. */
  get columns(): string {
    const { columns } = this.shape;
    const from = `lane * ${columns}u`;
    return columns === 1 ? from : `${from} + XU(${range(columns).join(", ")})`;
  }

  /** Component c of an `X` or `XU`. */
  component(name: string, c: number): string {
    return this.shape.columns === 1 ? name : `${name}.${COMPONENTS[c]}`;
  }

  /** Declares `${name}${c}` for each column c of the lane. */
  starts(name: string, at: (c: number) => string): string {
    return range(this.shape.columns)
      .map((c) => `let ${name}${c} = ${at(c)};`)
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
    return /* wgsl */ `
${this.each((r) => `var ${into}${r} = X();`)}
{
  for (var d = 0u; d < ${unknown(this.shape.headSize)}; d += 4u) {
    ${this.#held.map((i) => `let a${i} = ${a}Four(${start}${i}, d);`).join(" ")}
    ${columns.map((c) => `let t${c} = ${b}Four(${starts}${c}, d);`).join(" ")}
    ${COMPONENTS.map((e, i) => `let b${i} = X(${columns.map((c) => `t${c}.${e}`).join(", ")});`).join(" ")}
${this.each((r) => `    { let a = ${this.of("a", r)}; ${into}${r} = fma(X(a.x), b0, fma(X(a.y), b1, fma(X(a.z), b2, fma(X(a.w), b3, ${into}${r})))); }`)}
  }
}`;
  }

  /** `${into}${r}`: the largest of `value(r)`, or their sum, over all lanes. */
  overLanes(into: string, what: "max" | "sum", value: (r: number) => string): string {
    if (this.#inSubgroup) {
      return this.each((r) => `let ${into}${r} = ${what === "max" ? "lanesMax" : "lanesSum"}(${value(r)});`);
    }
    const { lanes, rows, columns } = this.shape;
    const rest = columns === 1 ? "" : ".x";
    return /* wgsl */ `
workgroupBarrier();
${this.each((r) => `handed[${r * lanes}u + lane]${rest} = ${value(r)};`)}
workgroupBarrier();
if (lane < ${rows}u) {
  var result = handed[lane * ${lanes}u]${rest};
  for (var i = 1u; i < ${lanes}u; i++) {
    let other = handed[lane * ${lanes}u + i]${rest};
    result = ${what === "max" ? "max(result, other)" : "result + other"};
  }
  rowResults[lane] = result;
}
workgroupBarrier();
${this.each((r) => `let ${into}${r} = rowResults[${r}u];`)}`;
  }

  /** Declares `${sum}${chunk}x${r}` as zeros. */
  zeros(sum: string): string {
    return this.each((r) => this.chunks.map((chunk) => `var ${sum}${chunk}x${r} = vec4f();`).join(" "));
  }

  /**
   * Adds to each `${sum}${chunk}x${r}` the products of the X `${x}${r}` and the columns' rows of binding `b`, of
   * which a lane's own start at `${starts}${c}`.
   */
  accumulate(sum: string, x: string, b: string, starts: string): string {
    const { lanes, columns } = this.shape;
    const share = this.#inSubgroup
      ? ""
      : `workgroupBarrier();\n${this.each((r) => `handed[${r * lanes}u + lane] = ${x}${r};`)}
handedStarts[lane] = ${this.vector("XU", (c) => `${starts}${c}`)};
workgroupBarrier();`;
    const startOf = (c: number) =>
      this.#inSubgroup ? `subgroupShuffle(${starts}${c}, owner)` : this.component("handedStarts[owner]", c);
    const handed = (r: number) =>
      this.#inSubgroup ? `subgroupShuffle(${x}${r}, owner)` : `handed[${r * lanes}u + owner]`;
    const product = (r: number, chunk: number) => {
      const name = `${sum}${chunk}x${r}`;
      const added = range(columns).reduceRight(
        (rest, c) => `fma(vec4f(${this.component("a", c)}), b${c}, ${rest})`,
        name,
      );
      return `    { let a = ${handed(r)}; ${name} = ${added}; }`;
    };
    return /* wgsl */ `${share}
${this.chunks
  .map(
    (chunk) => `for (var i = 0u; i < ${unknown(this.shape.lanes / this.#parts)}; i++) {
    let owner = ${this.#parts === 1 ? "i" : `i * ${this.#parts}u + lane / ${this.#channelLanes}u`};
    ${range(columns)
      .map((c) => `let b${c} = ${b}Four(${startOf(c)}, ${this.#channel(chunk)});`)
      .join("\n    ")}
${this.each((r) => product(r, chunk))}
  }`,
  )
  .join("\n")}`;
  }

  /** Declares the held `${into}` of what all lanes know as `value(r)`. */
  hold(into: string, value: (r: number) => string): string {
    if (!this.#inSubgroup) return this.each((r) => `let ${into}${r} = ${value(r)};`);
    const { lanes } = this.shape;
    return this.#held
      .map((i) => {
        const rows = this.rows.slice(i * lanes, (i + 1) * lanes);
        const own = rows.reduceRight(
          (rest, r) => (rest === "" ? value(r) : `select(${rest}, ${value(r)}, lane == ${r % lanes}u)`),
          "",
        );
        return `let ${into}${i} = ${own};`;
      })
      .join("\n");
  }

  /** Stores the held `${value}` of each row at the held `${at}`. */
  storeHeld(binding: string, at: string, value: string): string {
    const { lanes, rows } = this.shape;
    const condition = this.#inSubgroup ? `lane < ${Math.min(lanes, rows)}u` : "lane == 0u";
    return `if (${condition}) { ${this.#held.map((i) => `${binding}[${at}${i}] = ${value}${i};`).join(" ")} }`;
  }

  /** The first of the lane's channels in a chunk; lanes without channels read the last ones again. */
  #channel(chunk: number): string {
    const first = `${4 * chunk * this.shape.lanes}u + lane % ${this.#channelLanes}u * 4u`;
    return `min(${first}, ${4 * Math.ceil(this.shape.headSize / 4) - 4}u)`;
  }

  /** Stores `value(r, sum)` of each row's sums where row r, held as `${start}`, starts. */
  store(sum: string, start: string, value: (r: number, sum: string) => string): string {
    const { lanes, headSize, rows } = this.shape;
    const stores: string[] = [];
    for (const chunk of this.chunks) {
      const names = this.rows.map((r) => `${sum}${chunk}x${r}`);
      if (this.#parts > 1 && this.#inSubgroup) {
        for (let apart = this.#channelLanes; apart < lanes; apart *= 2) {
          stores.push(...names.map((name) => `${name} += subgroupShuffleXor(${name}, ${apart}u);`));
        }
      }
      if (this.#parts > 1 && !this.#inSubgroup) {
        const others = (r: number) =>
          range(this.#parts).map(
            (part) => `channels[${r * lanes + part * this.#channelLanes}u + lane % ${this.#channelLanes}u]`,
          );
        stores.push(
          "workgroupBarrier();",
          ...names.map((name, r) => `channels[${r * lanes}u + lane] = ${name};`),
          "workgroupBarrier();",
          ...names.map((name, r) => `${name} = ${others(r).join(" + ")};`),
        );
      }
      // Once through memory, so that the stores are a loop: they are long texts to a driver's compiler.
      const values = names.map((name, r) => value(r, name));
      stores.push(/* wgsl */ `{
    let channel = ${4 * chunk * lanes}u + lane * 4u;
    var values = array<vec4f, ${rows}>(${values.join(", ")});
    var places = array<u32, ${rows}>(${this.rows.map((r) => this.of(start, r)).join(", ")});
    for (var r = 0u; r < ${unknown(rows)}; r++) {
      if (lane < ${this.#channelLanes}u && channel < ${headSize}u) { store(places[r], channel, values[r]); }
    }
  }`);
    }
    return stores.join("\n");
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
