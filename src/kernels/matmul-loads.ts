/**
 * How a matmul's kernel declares and loads its two operands, in the formats that they are stored in; what of that a
 * variant needs is decided in `matmul-variant.ts`. No tile's text is here.
 */
import type { MatmulVariant, OperandLoads } from "./matmul-variant.ts";
import {
  activationBinding,
  EIGHTS,
  loadedActivation,
  storedBinding,
  storedEights,
  storedElement,
  storedFunctions,
  storedVector,
} from "./stored.ts";
import type { TableLookup } from "./stored-nf4.ts";

/** The declarations of the two operands, named a and b, for a kernel that computes a matmul. */
export function operandBindings(variant: MatmulVariant): { a: string; b: string } {
  const { layout, loadsA, loadsB, format, aFormat, gated } = variant;
  const shape = layout === "NT" ? `${gated ? "2*" : ""}N, K` : "K, N";
  return {
    a: activationBinding(aFormat, layout === "TN" ? "K, aWidth" : "M, aWidth", loadsA !== "single"),
    b: loadsB === "eights" ? storedEights(format, shape) : storedBinding(format, shape, loadsB !== "single"),
  };
}

/**
 * `readA(line, at)` and `readB(line, at)`: four contiguous elements of an operand from column `at` of its stored row
 * `line`. Of what lies outside, single loads give zeros; vectors may be anything, since it meets only results that are
 * never stored.
 *
 * @param lanes of a subgroup whose lanes read fours of B that follow one another: where they are shifted there is then
 * `readBOfLane(line, at, lane)` too, in which a lane takes its second vector from the next lane, and `at` must be a
 * column that there is: for a lane beyond the last one, that one
 */
export function operandLoads(variant: MatmulVariant, lanes = 0): string {
  const { layout, loadsA, loadsB, format, aFormat, gated } = variant;
  const alongK = { a: layout === "TN", b: layout !== "NT" };
  const loads = [
    operandLoad("a", loadsA, {
      lines: alongK.a ? "u.K" : "u.M",
      columns: alongK.a ? "u.M" : "u.K",
      start: (line) => `${line} * u.aWidth + u.aFrom`,
      width: "u.aWidth",
      load: (index) => loadedActivation(aFormat, `a[${index}]`, loadsA !== "single"),
      lanes: 0,
    }),
    operandLoad("b", loadsB, {
      lines: alongK.b ? "u.K" : gated ? "(2u * u.N)" : "u.N",
      width: alongK.b ? "u.N" : "u.K",
      columns: alongK.b ? "u.N" : "u.K",
      start: (line) => `${line} * ${alongK.b ? "u.N" : "u.K"}`,
      load: (index) => (loadsB === "single" ? storedElement : storedVector)(format, "b", index),
      lanes,
    }),
  ];
  const shifted = loadsA === "shifted" || loadsB === "shifted" ? SHIFTED_FOUR : "";
  const eights = loadsB === "eights" ? EIGHTS : "";
  return storedFunctions(format, "b", tableLookup(variant)) + eights + shifted + loads.join("\n");
}

/**
 * How a tile looks up codes of B. Loads cost most on software adapters, where an exchange between lanes is one
 * instruction; a GPU's lanes exchange A already.
 */
export function tableLookup({ software, subgroupSize, tile }: MatmulVariant): TableLookup {
  if (!software || tile.startsWith("matrix")) return "workgroup";
  return subgroupSize >= 8 ? { lanes: subgroupSize } : "constant";
}

interface StoredOperand {
  readonly lines: string;
  readonly columns: string;
  /** Where a stored row's own columns start. */
  readonly start: (line: string) => string;
  /** Elements of a stored row, its own columns and others. */
  readonly width: string;
  /** An element, or a vector of four, by its index. */
  readonly load: (index: string) => string;
  /** The lanes of a subgroup that reads consecutive fours, else 0. */
  readonly lanes: number;
}

/** Four elements from place `shift` on of the eight in two vectors. */
const SHIFTED_FOUR = /* wgsl */ `
fn shiftedFour(low: vec4f, high: vec4f, shift: u32) -> vec4f {
  let less = select(low, vec4f(low.yzw, high.x), shift == 1u);
  let more = select(vec4f(low.zw, high.xy), vec4f(low.w, high.xyz), shift == 3u);
  return select(less, more, shift >= 2u);
}`;

/** The vector of this number, or the last one: what lies past the end meets only results that are never stored. */
const shiftedVector = ({ load, lines, width }: StoredOperand, four: string) =>
  load(`min(${four}, ${lines} * ${width} / 4u - 1u)`);

function shiftedOfLane(load: string, operand: StoredOperand): string {
  const { start, lanes } = operand;
  return /* wgsl */ `
fn ${load}OfLane(line: u32, at: u32, lane: u32) -> vec4f {
  let i = ${start("line")} + at;
  let low: vec4f = ${operand.load("i / 4u")};
  var high = subgroupShuffleDown(low, 1u);
  if (lane == ${lanes - 1}u) { high = ${shiftedVector(operand, "i / 4u + 1u")}; }
  return shiftedFour(low, high, i % 4u);
}`;
}

function operandLoad(name: "a" | "b", loads: OperandLoads, operand: StoredOperand): string {
  const { lines, columns, start, load: at, lanes } = operand;
  const load = `read${name.toUpperCase()}`;
  switch (loads) {
    case "aligned":
      return /* wgsl */ `
fn ${load}(line: u32, at: u32) -> vec4f {
  let four = (${start(`min(line, ${lines} - 1u)`)} + min(at, ${columns} - 4u)) / 4u;
  return ${at("four")};
}`;
    case "eights":
      return /* wgsl */ `
fn ${load}(line: u32, at: u32) -> Eight {
  let eight = (${start(`min(line, ${lines} - 1u)`)} + min(at, ${columns} - 8u)) / 8u;
  return unpackEight(${name}[eight]);
}`;
    case "shifted":
      return /* wgsl */ `
fn ${load}(line: u32, at: u32) -> vec4f {
  let i = ${start("line")} + at;
  return shiftedFour(${shiftedVector(operand, "i / 4u")}, ${shiftedVector(operand, "i / 4u + 1u")}, i % 4u);
}
${lanes > 0 ? shiftedOfLane(load, operand) : ""}`;
    case "single":
      return /* wgsl */ `
fn ${load}One(line: u32, at: u32) -> f32 {
  let inside = (line < ${lines}) & (at < ${columns}); // not &&, which branches
  let i = select(0u, ${start("line")} + at, inside);
  return select(0.0, ${at("i")}, inside);
}
fn ${load}(line: u32, at: u32) -> vec4f {
  return vec4f(${load}One(line, at), ${load}One(line, at + 1u), ${load}One(line, at + 2u), ${load}One(line, at + 3u));
}`;
  }
}
