/**
 * The tiles of a matmul with one row and B's rows along k (NT): what generates one sequence, whose time is that of
 * reading the weights, each once. On GPUs lanes share the steps along k of a few rows of B, so that neighbours read
 * neighbouring weights (`rowTile`); on software adapters a lane reads rows of B of its own (`columnTile`).
 */
import { ACROSS_LANES } from "./matmul-subgroup-tile.ts";
import { addProducts, declareSums, loadB, type MatmulTile } from "./matmul-sums.ts";
import { type MatmulVariant, operandLoads } from "./matmul-variant.ts";
import { acrossNeighbours } from "./matmul-workgroup-tile.ts";
import { range } from "./wgsl.ts";

/** Invocations of a workgroup where subgroups cannot be used. */
const WORKGROUP_LANES = 64;

/** One row by `columns` columns, 4 or 8: by a subgroup, or by a workgroup where subgroups cannot be used. */
export function rowTile(variant: MatmulVariant, columns: number): MatmulTile {
  if (variant.continues) throw new Error("sums that lanes share cannot be continued");
  const inSubgroup = variant.subgroupSize >= 4;
  const lanes = inSubgroup ? variant.subgroupSize : WORKGROUP_LANES;
  const fours = columns / 4;
  const own = (four: number) => range(4).map((i) => `alongLane(part${4 * four + i})`);
  return {
    enable: inSubgroup ? ["subgroups"] : [],
    groupSize: lanes,
    rows: 1,
    columns,
    declarations: `${operandLoads(variant)}
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }${inSubgroup ? "" : `\nvar<workgroup> laneSums: array<vec4f, ${fours * lanes}>;`}`,
    parameters: `@builtin(workgroup_id) group: vec3u, @builtin(${inSubgroup ? "subgroup_invocation_id" : "local_invocation_index"}) lane: u32`,
    setup: "let ownFirst = firstRow;",
    matmul: /* wgsl */ `${range(columns)
      .map((i) => `var part${i} = vec4f();`)
      .join(" ")}
  for (var k = 4u * lane; k < u.K; k += ${4 * lanes}u) {
    let a = readA(firstRow, k);
    ${range(columns)
      .map((i) => `part${i} = fma(a, readB(firstColumn + ${i}u, k), part${i});`)
      .join("\n    ")}
  }
  ${range(fours)
    .map((four) => `let own${four}: vec4f = vec4f(${own(four).join(", ")});`)
    .join("\n  ")}
  ${inSubgroup ? subgroupTotals(fours) : workgroupTotals(fours, lanes)}
  // A lane stores four columns; those beyond the tile's have none.
  let column = select(u.N, firstColumn + 4u * lane, lane < ${fours}u);
  let sum0 = ${fours === 1 ? "total0" : "select(total1, total0, lane == 0u)"};`,
    ownRows: 1,
    rowStep: 1,
    ownFours: 1,
    fourStep: 0,
    acrossColumns: inSubgroup ? ACROSS_LANES : acrossNeighbours(lanes, lanes),
    leads: "lane == 0u",
  };
}

/**
 * One row by four columns a lane, each of which walks its own rows of B, on software adapters: the loads of a lane are
 * instructions of their own there, so that a processor foresees each of these rows. A's numbers are loaded once for all
 * columns, a vector a lane for as many steps as there are lanes.
 */
export function columnTile(variant: MatmulVariant): MatmulTile {
  const lanes = variant.subgroupSize;
  const loads = loadB("NT", (line) => line, { name: "b", column: "column" });
  return {
    enable: ["subgroups"],
    groupSize: lanes,
    rows: 1,
    columns: 4 * lanes,
    declarations: operandLoads(variant),
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32",
    setup: "let ownFirst = firstRow;",
    matmul: /* wgsl */ `let column = firstColumn + lane * 4u;
${declareSums(variant, 1)}
  for (var start = 0u; start < u.K; start += ${4 * lanes}u) {
    let ahead: vec4f = readA(firstRow, start + 4u * lane);
    for (var k = start; k < min(start + ${4 * lanes}u, u.K); k += 4u) {
      let a = subgroupShuffle(ahead, (k - start) / 4u);
      ${[...loads, addProducts("sum0")].join("\n      ")}
    }
  }`,
    ownRows: 1,
    rowStep: 1,
    ownFours: 1,
    fourStep: 0,
    acrossColumns: ACROSS_LANES,
    leads: "lane == 0u",
  };
}

const subgroupTotals = (fours: number) =>
  range(fours)
    .map((four) => `let total${four} = subgroupAdd(own${four});`)
    .join("\n  ");

/** By halves: half the lanes add what the other half has. */
function workgroupTotals(fours: number, lanes: number): string {
  const each = (statement: (first: number) => string) =>
    range(fours)
      .map((four) => statement(four * lanes))
      .join(" ");
  return /* wgsl */ `workgroupBarrier(); // earlier sums may still be read
  ${range(fours)
    .map((four) => `laneSums[${four * lanes}u + lane] = own${four};`)
    .join(" ")}
  workgroupBarrier();
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${each((first) => `laneSums[${first}u + lane] += laneSums[${first}u + lane + half];`)} }
    workgroupBarrier();
  }
  ${range(fours)
    .map((four) => `let total${four} = laneSums[${four * lanes}u];`)
    .join(" ")}`;
}
