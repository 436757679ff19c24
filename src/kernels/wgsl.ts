/**
 * The WGSL snippets that several kernels share, and the facts about an adapter that decide between variants. Text only:
 * no layer's formula, no device.
 */
import { type ActivationFormat, type Grid, inFormats, type Kernel, type Values } from "./kernel.ts";
import { activationBinding, storedBytes } from "./stored.ts";

/** What kernels may know of the adapter that they are built for. */
export interface AdapterFacts {
  /** Lanes of a subgroup where the adapter has exactly one size and the feature is enabled, else 0. */
  readonly subgroupSize: number;
  /** The adapter is a program on the CPU, where a load costs as much as several multiply-adds. */
  readonly software: boolean;
  /** The subgroup matrices that products may use, where the adapter has some. */
  readonly matrices?: MatrixFacts | undefined;
}

/** A shape of subgroup matrices that an adapter multiplies: M x K by K x N, operands of one type, f32 sums. */
export interface MatrixFacts {
  readonly component: "f16" | "f32";
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/**
 * WGSL: `value` as one lane of the subgroup has it, whose number is known here. On a GPU a broadcast exchanges nothing
 * between lanes; llvmpipe compiles a broadcast to three instructions and a shuffle to one: 79 instead of 67 GFLOP/s in
 * a matmul at 512^3, 70 instead of 64 at 1024^3 (NN, tiles of 32 rows, best of 25 rounds in one process).
 */
export function ofLane(lane: number, value: string, { software }: Pick<AdapterFacts, "software">): string {
  return `${software ? "subgroupShuffle" : "subgroupBroadcast"}(${value}, ${lane}u)`;
}

/**
 * WGSL: a count as a loop's bound that no compiler can know, so that none unrolls the loop. Mesa unrolls up to 32
 * rounds and compiles each load and store to branches, which then take most of the time to compile.
 *
 * @param dimension any that is less than 2^31
 */
export function unknownCount(count: number, dimension: string): string {
  return `(${count}u + (${dimension} >> 31u))`;
}

/**
 * WGSL: each subgroup of a workgroup draws its number, since WGSL does not say which invocations are a subgroup.
 * Whoever gets which, the sums that belong to a number are the same.
 */
export const claimNumber = (counter: string, name: string): string => /* wgsl */ `
  var claim: u32 = 0u;
  if (subgroupElect()) { claim = atomicAdd(&${counter}, 1u); }
  let ${name} = subgroupBroadcastFirst(claim);`;

/** 0, 1 and so on: what text is written for. */
export const range = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index);

/** The components of a vector of four. */
export const COMPONENTS = ["x", "y", "z", "w"] as const;

/** The facts that hold for every WebGPU adapter. */
export const BASE_FACTS: AdapterFacts = { subgroupSize: 0, software: false };

/** Workgroups in the first grid dimension before the second one is used; the limit is 65,535 in each. */
const ROW_OF_GROUPS = 32768;

/** A grid of at least `groups` workgroups within the limits per dimension; pairs with `linearGroup`. */
export function linearGrid(groups: number): Grid {
  return groups <= ROW_OF_GROUPS ? [groups] : [ROW_OF_GROUPS, Math.ceil(groups / ROW_OF_GROUPS)];
}

/** `linearGroup(id)`: the number of this workgroup in a `linearGrid`. It may lie beyond the last one: check it. */
export const linearGroup = /* wgsl */ `
fn linearGroup(id: vec3u) -> u32 { return id.x + id.y * ${ROW_OF_GROUPS}u; }
`;

/** Invocations of a workgroup in elementwise kernels. */
export const ELEMENTWISE_GROUP = 64;

/**
 * Entry point of an elementwise kernel: `element(i)`, or another WGSL statement in terms of `i`, is run for every i
 * below `count` (a WGSL expression).
 *
 * @param place the workgroup's in the whole grid: of a divisible kernel `placeInGrid(group)`
 */
export function elementwise(count: string, statement = "element(i);", place = "group"): string {
  return /* wgsl */ `${linearGroup}
@compute @workgroup_size(${ELEMENTWISE_GROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = linearGroup(${place}) * ${ELEMENTWISE_GROUP}u + lane;
  if (i < ${count}) { ${statement} }
}`;
}

/** The grid of an elementwise kernel over `count` elements. */
export function elementwiseGrid(count: number): Grid {
  return linearGrid(Math.ceil(count / ELEMENTWISE_GROUP));
}

/**
 * Columns and rows of a workgroup over rows and columns: narrow rows leave few of its invocations without work. A row
 * has at most 16 * 65,535 elements, numbers or fours.
 */
const ROW_GROUP = { columns: 16, rows: 4 } as const;

/**
 * Entry point of an elementwise kernel over rows and columns: `element(row, column)`, without the integer divisions
 * that a flat index would need: these are slow everywhere, and most of such a kernel's time on software adapters.
 */
export function rowElements(rows: string, columns: string): string {
  return /* wgsl */ `
@compute @workgroup_size(${ROW_GROUP.columns}, ${ROW_GROUP.rows})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = (group.y + group.z * ${ROW_OF_GROUPS}u) * ${ROW_GROUP.rows}u + local.y;
  let column = group.x * ${ROW_GROUP.columns}u + local.x;
  if (row < ${rows} && column < ${columns}) { element(row, column); }
}`;
}

/** The grid that goes with `rowElements`. */
export function rowElementsGrid(rows: number, columns: number): Grid {
  const groups = Math.ceil(rows / ROW_GROUP.rows);
  const inY = Math.min(groups, ROW_OF_GROUPS);
  return [Math.ceil(columns / ROW_GROUP.columns), inY, Math.ceil(groups / ROW_OF_GROUPS)];
}

/** How a kernel sees the numbers of a row: one by one, or in fours. */
export interface Lanes {
  readonly count: 1 | 4;
  /** What a binding's declaration ends with. */
  readonly view: "" | " as vec4f";
  /** The declaration of a binding of activations of this shape; its elements are `A`. */
  readonly activations: (shape: string) => string;
  /** Bytes of an activation. */
  readonly activationBytes: number;
  /**
   * WGSL: `E`, what is computed with and what other bindings' elements are; `A`, what activations' elements are, so
   * that `E(x[i])` loads one and `A(value)` stores one; `LANES`, numbers in an element; `total(x: E) -> f32`, their
   * sum.
   */
  readonly wgsl: string;
}

function lanesOf(count: 1 | 4, format: ActivationFormat): Lanes {
  const [element, half] = count === 4 ? ["vec4f", "vec4h"] : ["f32", "f16"];
  return {
    count,
    view: count === 4 ? " as vec4f" : "",
    activations: (shape) => activationBinding(format, shape, count === 4),
    activationBytes: storedBytes(format),
    wgsl: /* wgsl */ `
alias E = ${element};
alias A = ${format === "f16" ? half : element};
const LANES: u32 = ${count}u;
fn total(x: E) -> f32 { return ${count === 4 ? "(x.x + x.y) + (x.z + x.w)" : "x"}; }
`,
  };
}

/**
 * A kernel that takes vectors where all `widths` (of rows and first columns) are multiples of 4: a vector costs about
 * as much to load as a number, on software adapters three to four times less per number.
 */
export function inVectors<B extends string, U extends string>(
  widths: (values: Values) => readonly (number | undefined)[],
  build: (lanes: Lanes) => Kernel<B, U>,
  format: ActivationFormat = "f32",
): Kernel<B, U> {
  const [byOne, byFour] = [build(lanesOf(1, format)), build(lanesOf(4, format))];
  const candidates = (values: Values) => [
    widths(values).every((width) => width !== undefined && width % 4 === 0) ? byFour : byOne,
  ];
  return { ...byOne, candidates };
}

/** `inVectors` for a kernel of activations, in each format that these can have. */
export function ofActivations<B extends string, U extends string>(
  widths: (values: Values) => readonly (number | undefined)[],
  build: (lanes: Lanes) => Kernel<B, U>,
): Kernel<B, U> {
  return inFormats((format) => inVectors(widths, build, format));
}

/** How a workgroup reduces: extensions to enable, its size, and the WGSL of `reduceSum(value, lane)`. */
export interface Reduction {
  readonly enable: readonly string[];
  readonly groupSize: number;
  readonly wgsl: string;
}

/** Invocations of a reducing workgroup where subgroups cannot be used. */
const TREE_GROUP = 64;

/**
 * `GROUP` and `reduceSum(value: f32, lane: u32) -> f32`: the sum over the workgroup, known to every invocation, in an
 * order that depends on nothing but the adapter. With subgroups of a fixed size the workgroup is one subgroup and no
 * barrier is needed; elsewhere it is a tree in workgroup memory.
 */
export function reduction(facts: AdapterFacts): Reduction {
  if (facts.subgroupSize >= 4) {
    return {
      enable: ["subgroups"],
      groupSize: facts.subgroupSize,
      wgsl: /* wgsl */ `
const GROUP: u32 = ${facts.subgroupSize}u;
fn reduceSum(value: f32, lane: u32) -> f32 { return subgroupAdd(value); }
`,
    };
  }
  return {
    enable: [],
    groupSize: TREE_GROUP,
    wgsl: /* wgsl */ `
const GROUP: u32 = ${TREE_GROUP}u;
var<workgroup> partialSums: array<f32, GROUP>;
fn reduceSum(value: f32, lane: u32) -> f32 {
  workgroupBarrier(); // an earlier reduction may still be read
  partialSums[lane] = value;
  workgroupBarrier();
  for (var stride = GROUP / 2u; stride > 0u; stride /= 2u) {
    if (lane < stride) { partialSums[lane] += partialSums[lane + stride]; }
    workgroupBarrier();
  }
  return partialSums[0];
}
`,
  };
}

/** `safeTanh(x: E)`: beyond +-9.01 f32 tanh is +-1, and some drivers' exponential form overflows to NaN. */
export const safeTanh = /* wgsl */ `
fn safeTanh(x: E) -> E { return tanh(clamp(x, E(-9.01), E(9.01))); }
`;

/** `sigmoid(x)` of this WGSL type, without overflow at either end. */
export const sigmoid = (type: "f32" | "E") => /* wgsl */ `
fn sigmoid(x: ${type}) -> ${type} {
  let e = exp(-abs(x));
  return select(e, ${type}(1.0), x >= ${type}()) / (1.0 + e);
}
`;

/** A kernel built once for each kind of adapter. */
export function memoized<T>(build: (facts: AdapterFacts) => T): (facts: AdapterFacts) => T {
  const cache = new Map<string, T>();
  return (facts) => {
    const key = `${facts.subgroupSize} ${facts.software}`;
    let found = cache.get(key);
    if (found === undefined) {
      found = build(facts);
      cache.set(key, found);
    }
    return found;
  };
}
