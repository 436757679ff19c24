/**
 * The lanes that share a tile of attention (`attention-tile.ts`), and how numbers get from one to another:
 *
 *   subgroup    by shuffles and broadcasts; on software adapters these cost almost nothing, and a load as much as eight
 *               multiply-adds. A lane holds the numbers of its share of the rows.
 *   workgroup   through workgroup memory, where subgroups cannot be used. Every lane holds the numbers of all rows.
 *   lane        a lane is alone, for small heads, whose rows fit its registers: nothing is handed round.
 *   matrices    one subgroup, or two by two, that share a tile on subgroup matrices (`attention-matrix.ts`):
 *               neighbouring lanes have a row, each some of its columns.
 *
 * Text only. What the numbers mean is not known here.
 */
import type { Grid } from "./kernel.ts";
import { MATRICES } from "./kernel.ts";
import {
  COMPONENTS,
  claimNumber,
  elementwise,
  elementwiseGrid,
  linearGrid,
  linearGroup,
  type MatrixFacts,
  ofLane,
  range,
} from "./wgsl.ts";

/** How many lanes a team has, and what it works on. */
export interface TeamShape {
  readonly team: "subgroup" | "workgroup" | "lane" | "matrices";
  /** Lanes of the team; of each of its subgroups where they share matrices. */
  readonly lanes: number;
  readonly software: boolean;
  /** Rows of a tile. */
  readonly rows: number;
  /** Columns of a lane: an `X` has one number for each. */
  readonly columns: 1 | 2 | 4;
  /** How the team multiplies, if it works on subgroup matrices. */
  readonly matrices?: TeamMatrices | undefined;
}

/** How a team on matrices is laid out. */
export interface TeamMatrices extends MatrixFacts {
  /** Columns of a tile. */
  readonly width: number;
  /** Subgroups beside one another, and one above the other. */
  readonly inRow: 1 | 2;
}

/** Text for row r of the tile. */
type RowText = (r: number) => string;

export interface Team {
  /** WGSL extensions. */
  readonly enable: readonly string[];
  /** Attributes of functions in which lanes exchange numbers. */
  readonly attributes: string;
  /** Functions and workgroup memory. */
  readonly declarations: string;
  /**
   * The entry point of a divisible kernel: `element(owner, tile, lane)` for each of `tiles` tiles of each of `owners`.
   */
  readonly entry: (tiles: string, owners: string) => string;
  readonly grid: (tiles: number, owners: number) => Grid;
  /** Columns that all lanes own together, and the number of a lane among those that share them out. */
  readonly width: number;
  readonly columnLane: string;
  /** Rows of the tile that a lane computes, each in its own columns. */
  readonly computed: number;
  /** How many rows a lane holds numbers of, and which row of the tile its row i is. */
  readonly held: number;
  readonly place: (i: string) => string;
  /** What is held as `name` for row r. */
  readonly of: (name: string, r: number) => string;
  /** The smallest, or largest, of the lanes' u32 `own`. */
  readonly over: (what: "min" | "max", own: string) => string;
  /** Declares `${into}${r}`: the largest of the lanes' f32 `value(r)`, or their sum. */
  readonly overLanes: (into: string, what: "max" | "sum", value: RowText) => string;
  /** Declares the held `${into}` of what all lanes know as `value(r)`. */
  readonly hold: (into: string, value: RowText) => string;
  /** The lanes that store what they hold, so that each row is stored once. */
  readonly storing: string;
  /** Hands round each lane's X `${x}${r}` and its XU `starts`, one text a column; both as lane `owner` has them. */
  readonly hand: (
    x: string,
    starts: readonly string[],
  ) => { readonly text: string; readonly x: RowText; readonly start: (c: number) => string };
  /** Adds to the vec4f variables `names`, one a row, those of the lanes with the same number modulo `apart`. */
  readonly gather: (names: readonly string[], apart: number) => string;
}

const each = (count: number, text: RowText) => range(count).map(text).join("\n");

/** Component c of an `X` or `XU`. */
export const component = ({ columns }: TeamShape, name: string, c: number) =>
  columns === 1 ? name : `${name}.${COMPONENTS[c]}`;

const workgroupEntry = (lanes: number, builtin: string, tiles: string, owners: string) => /* wgsl */ `
${linearGroup}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(${builtin}) lane: u32) {
  let tiles = ${tiles};
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (${owners})) { return; }
  element(index / tiles, index % tiles, lane);
}`;

/** The compiler cannot see that what is taken over the subgroup is the same for all its lanes. */
const OVER_SUBGROUPS = "@diagnostic(off, subgroup_uniformity)";

/** `lanesMax(own)` and `lanesSum(own)`: over each so many neighbouring lanes. */
function butterflies(lanes: number): string {
  const butterfly = (name: string, step: (other: string) => string) => /* wgsl */ `
${OVER_SUBGROUPS}
fn ${name}(own: f32) -> f32 {
  var x: f32 = own;
  ${range(Math.log2(lanes))
    .map((i) => step(`subgroupShuffleXor(x, ${2 ** i}u)`))
    .join("\n  ")}
  return x;
}`;
  return `${butterfly("lanesMax", (other) => `x = max(x, ${other});`)}${butterfly("lanesSum", (other) => `x += ${other};`)}`;
}

const overLanes =
  (rows: number): Team["overLanes"] =>
  (into, what, value) =>
    each(rows, (r) => `let ${into}${r} = ${what === "max" ? "lanesMax" : "lanesSum"}(${value(r)});`);

function subgroup(shape: TeamShape): Team {
  const { lanes, rows, columns } = shape;
  const held = Math.max(1, rows / lanes);
  return {
    enable: ["subgroups"],
    attributes: OVER_SUBGROUPS,
    declarations: `${butterflies(lanes)}
${OVER_SUBGROUPS}
fn lanesLeast(own: u32) -> u32 { return subgroupMin(own); }
${OVER_SUBGROUPS}
fn lanesMost(own: u32) -> u32 { return subgroupMax(own); }`,
    entry: (tiles, owners) => workgroupEntry(lanes, "subgroup_invocation_id", tiles, owners),
    grid: (tiles, owners) => linearGrid(tiles * owners),
    width: lanes * columns,
    columnLane: "lane",
    computed: rows,
    held,
    place: (i) => `${i} * ${lanes}u + lane % ${Math.min(lanes, rows)}u`,
    of: (name, r) => ofLane(r % lanes, `${name}${Math.floor(r / lanes)}`, shape),
    over: (what, own) => `${what === "min" ? "lanesLeast" : "lanesMost"}(${own})`,
    overLanes: overLanes(rows),
    hold: (into, value) =>
      each(held, (i) => {
        const own = range(rows)
          .slice(i * lanes, (i + 1) * lanes)
          .reduceRight(
            (rest, r) => (rest === "" ? value(r) : `select(${rest}, ${value(r)}, lane == ${r % lanes}u)`),
            "",
          );
        return `let ${into}${i} = ${own};`;
      }),
    storing: `lane < ${Math.min(lanes, rows)}u`,
    hand: (x, starts) => ({
      text: "",
      x: (r) => `subgroupShuffle(${x}${r}, owner)`,
      start: (c) => `subgroupShuffle(${starts[c]}, owner)`,
    }),
    gather: (names, apart) =>
      range(Math.log2(lanes / apart))
        .flatMap((i) => names.map((name) => `${name} += subgroupShuffleXor(${name}, ${apart * 2 ** i}u);`))
        .join("\n"),
  };
}

function workgroup(shape: TeamShape): Team {
  const { lanes, rows, columns } = shape;
  const first = columns === 1 ? "" : ".x";
  return {
    enable: [],
    attributes: "",
    declarations: /* wgsl */ `
var<workgroup> handed: array<X, ${rows * lanes}>;
var<workgroup> handedStarts: array<XU, ${lanes}>;
var<workgroup> channels: array<vec4f, ${rows * lanes}>;
var<workgroup> rowResults: array<f32, ${rows}>;`,
    entry: (tiles, owners) => workgroupEntry(lanes, "local_invocation_index", tiles, owners),
    grid: (tiles, owners) => linearGrid(tiles * owners),
    width: lanes * columns,
    columnLane: "lane",
    computed: rows,
    held: rows,
    place: (i) => i,
    of: (name, r) => `${name}${r}`,
    over: (_, own) => own,
    overLanes: (into, what, value) => /* wgsl */ `
workgroupBarrier();
${each(rows, (r) => `handed[${r * lanes}u + lane]${first} = ${value(r)};`)}
workgroupBarrier();
if (lane < ${rows}u) {
  var result = handed[lane * ${lanes}u]${first};
  for (var i = 1u; i < ${lanes}u; i++) {
    let other = handed[lane * ${lanes}u + i]${first};
    result = ${what === "max" ? "max(result, other)" : "result + other"};
  }
  rowResults[lane] = result;
}
workgroupBarrier();
${each(rows, (r) => `let ${into}${r} = rowResults[${r}u];`)}`,
    hold: (into, value) => each(rows, (r) => `let ${into}${r} = ${value(r)};`),
    storing: "lane == 0u",
    hand: (x, starts) => ({
      text: /* wgsl */ `workgroupBarrier();
${each(rows, (r) => `handed[${r * lanes}u + lane] = ${x}${r};`)}
handedStarts[lane] = XU(${starts.join(", ")});
workgroupBarrier();`,
      x: (r) => `handed[${r * lanes}u + owner]`,
      start: (c) => component(shape, "handedStarts[owner]", c),
    }),
    gather: (names, apart) => {
      const others = (r: number) =>
        range(lanes / apart).map((part) => `channels[${r * lanes + part * apart}u + lane % ${apart}u]`);
      return [
        "workgroupBarrier();",
        ...names.map((name, r) => `channels[${r * lanes}u + lane] = ${name};`),
        "workgroupBarrier();",
        ...names.map((name, r) => `${name} = ${others(r).join(" + ")};`),
      ].join("\n");
    },
  };
}

/** Neighbouring lanes take one tile of all owners, since a tile's rows see about as much as the next one's do. */
function lane({ rows, columns }: TeamShape): Team {
  return {
    enable: [],
    attributes: "",
    declarations: "",
    entry: (tiles, owners) =>
      elementwise(`${tiles} * (${owners})`, `element(i % (${owners}), i / (${owners}), 0u);`, "placeInGrid(group)"),
    grid: (tiles, owners) => elementwiseGrid(tiles * owners),
    width: columns,
    columnLane: "lane",
    computed: rows,
    held: rows,
    place: (i) => i,
    of: (name, r) => `${name}${r}`,
    over: (_, own) => own,
    overLanes: (into, _, value) => each(rows, (r) => `let ${into}${r} = ${value(r)};`),
    hold: (into, value) => each(rows, (r) => `let ${into}${r} = ${value(r)};`),
    storing: "true",
    hand: (x, starts) => ({ text: "", x: (r) => `${x}${r}`, start: (c) => starts[c] ?? "" }),
    gather: () => "",
  };
}

const handsNothing = (): never => {
  throw new Error("lanes that share matrices hand their numbers to these");
};

/**
 * Subgroups that share a tile. A lane's rows are apart by as many as the team has at once; what it has of them it hands
 * to the matrices through workgroup memory, which is the tile's to do.
 */
function matrices({ lanes, rows, columns, matrices: layout }: TeamShape): Team {
  if (layout === undefined) throw new Error("a team on matrices without matrices");
  const { width, inRow, component } = layout;
  const [subgroups, sharing] = [inRow * inRow, width / columns];
  const group = subgroups * lanes;
  const atOnce = group / sharing;
  const held = rows / atOnce;
  const over = (name: string, what: "Min" | "Max", start: string) => /* wgsl */ `
${OVER_SUBGROUPS}
fn ${name}(own: u32, lane: u32) -> u32 {
  let ofSubgroup = subgroup${what}(own);
  if (lane == 0u) { atomicStore(&overRows, ${start}); }
  workgroupBarrier();
  if (lane % ${lanes}u == 0u) { atomic${what}(&overRows, ofSubgroup); }
  return workgroupUniformLoad(&overRows);
}`;
  return {
    enable: ["subgroups", ...(component === "f16" ? ["f16"] : []), MATRICES],
    attributes: OVER_SUBGROUPS,
    declarations: /* wgsl */ `${butterflies(sharing)}
var<workgroup> overRows: atomic<u32>;${over("tileLeast", "Min", "NONE")}${over("tileMost", "Max", "0u")}
${subgroups > 1 ? "var<workgroup> subgroupsClaimed: atomic<u32>;" : ""}`,
    entry: (tiles, owners) => /* wgsl */ `
${linearGroup}
@compute @workgroup_size(${group})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) invocation: u32, @builtin(subgroup_invocation_id) ownLane: u32) {
  ${subgroups > 1 ? claimNumber("subgroupsClaimed", "subgroup") : "let subgroup = 0u;"}
  let tiles = ${tiles};
  let index = linearGroup(placeInGrid(group));
  if (index >= tiles * (${owners})) { return; }
  element(index / tiles, index % tiles, subgroup * ${lanes}u + ownLane);
}`,
    grid: (tiles, owners) => linearGrid(tiles * owners),
    width,
    columnLane: `lane % ${sharing}u`,
    computed: held,
    held,
    place: (i) => `${i} * ${atOnce}u + lane / ${sharing}u`,
    of: (name, r) => `${name}${r}`,
    over: (what, own) => `${what === "min" ? "tileLeast" : "tileMost"}(${own}, lane)`,
    overLanes: overLanes(held),
    hold: (into, value) => each(held, (r) => `let ${into}${r} = ${value(r)};`),
    storing: `lane % ${sharing}u == 0u`,
    hand: handsNothing,
    gather: handsNothing,
  };
}

const TEAMS: Readonly<Record<TeamShape["team"], (shape: TeamShape) => Team>> = { subgroup, workgroup, lane, matrices };
export const teamOf = (shape: TeamShape): Team => TEAMS[shape.team](shape);
