/**
 * The tiles of a matmul with one row and B's rows along k (NT): what generates one sequence, whose time is that of
 * reading the weights, each once. On GPUs lanes share the steps along k of a few rows of B, so that neighbours read
 * neighbouring weights (`rowTile`); on software adapters a lane reads rows of B of its own (`columnTile`).
 */

import { operandLoads } from "./matmul-loads.ts";
import { factorOfOnlyRow } from "./matmul-norm.ts";
import { ACROSS_LANES } from "./matmul-subgroup-tile.ts";
import type { MatmulTile } from "./matmul-sums.ts";
import { firstHalf, type MatmulVariant } from "./matmul-variant.ts";
import { acrossNeighbours } from "./matmul-workgroup-tile.ts";
import { range, sigmoid, unknownCount } from "./wgsl.ts";

/** Invocations of a workgroup where subgroups cannot be used. */
const WORKGROUP_LANES = 64;

/** One row by `columns` columns, 4 or 8: by a subgroup, or by a workgroup where subgroups cannot be used. */
export function rowTile(variant: MatmulVariant, columns: number): MatmulTile {
  if (variant.continues) throw new Error("sums that lanes share cannot be continued");
  const inSubgroup = variant.subgroupSize >= 4;
  const lanes = inSubgroup ? variant.subgroupSize : WORKGROUP_LANES;
  const fours = columns / 4;
  const takes = variant.norm === "takes";
  const own = (four: number) => range(4).map((i) => `alongLane(part${4 * four + i})`);
  return {
    enable: inSubgroup ? ["subgroups"] : [],
    groupSize: lanes,
    rows: 1,
    columns,
    declarations: `${operandLoads(variant)}
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }${takes ? factorOfOnlyRow(lanes) : ""}${inSubgroup ? "" : `\nvar<workgroup> laneSums: array<vec4f, ${fours * lanes}>;`}`,
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
  let sum0 = ${fours === 1 ? "total0" : "select(total1, total0, lane == 0u)"}${takes ? " * onlyFactor(lane)" : ""};`,
    ownRows: 1,
    rowStep: 1,
    ownFours: 1,
    fourStep: 0,
    acrossColumns: inSubgroup ? ACROSS_LANES : acrossNeighbours(lanes, lanes),
    leads: "lane == 0u",
  };
}

/** Numbers along k of which a lane loads a row of B before it multiplies them: a line of the caches in 16 bits. */
const LINE = 32;
/** Sets of columns of a workgroup, one after another: a workgroup of one set would be done as soon as it has begun. */
const SETS = 4;

/**
 * One row by four columns a lane on software adapters, where the loads of a lane are instructions of their own: a lane
 * walks one row of B after another, a whole line of the caches at a time. More rows side by side are more streams than a
 * processor fetches ahead of. A's numbers are loaded once for all lanes, a vector a lane for as many fours as there are
 * lanes. Gated, half of its sets are gates and the others what they are multiplied with.
 */
export function columnTile(variant: MatmulVariant): MatmulTile {
  if (variant.continues) throw new Error("sums that lie in four parts cannot be continued");
  const { subgroupSize: lanes, loadsB, gated, turns } = variant;
  const takes = variant.norm === "takes";
  // What is a pair with a column of the first sets: what a gate is for, or the other half of a head.
  const other = gated ? "u.N" : turns && `${turns / 2}u`;
  const columns = (gated ? SETS / 2 : SETS) * lanes;
  const first = turns ? "firstHalf" : "firstColumn";
  const ahead = 4 * lanes;
  const each = loadsB === "eights" ? 8 : 4;
  // Single loads compile to branches for every number: one four a round is enough of them.
  const round = loadsB === "single" || loadsB === "shifted" ? each : Math.min(ahead, (LINE * each) / 8);
  const loads = range(round / each).map((i) => `let b${i} = readB(column, k + ${each * i}u);`);
  const products = range(round / 4).map((four) => {
    const b = each === 4 ? `b${four}` : `b${Math.floor(four / 2)}.${four % 2 === 0 ? "low" : "high"}`;
    return `part = fma(${b}, subgroupShuffle(ahead, (k - start) / 4u + ${four}u), part);`;
  });
  return {
    enable: ["subgroups"],
    groupSize: lanes,
    rows: 1,
    columns,
    declarations: `${operandLoads(variant)}
fn alongLane(part: vec4f) -> f32 { return (part.x + part.y) + (part.z + part.w); }${takes ? factorOfOnlyRow(lanes) : ""}${gated ? `\nalias E = vec4f;${sigmoid("E")}` : ""}`,
    parameters: "@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32",
    setup: "let ownFirst = firstRow;",
    matmul: /* wgsl */ `${turns ? `${firstHalf(turns)}\n  ` : ""}${takes ? "let factor = onlyFactor(lane);\n  " : ""}${range(
      SETS,
    )
      .map((set) => `var total${set} = 0.0;`)
      .join(" ")}
  for (var here = 0u; here < ${unknownCount(SETS, "u.M")}; here++) {
    let column = ${first} + here ${other ? `% ${SETS / 2}u ` : ""}* ${lanes}u + lane${other ? ` + here / ${SETS / 2}u * ${other}` : ""};
    var part = vec4f();
    for (var start = 0u; start < u.K; start += ${ahead}u) {
      var ahead: vec4f = readA(firstRow, start + 4u * lane);
      ahead = select(vec4f(), ahead, start + 4u * lane < u.K);
      ${
        round === ahead
          ? `let k = start;
      ${[...loads, ...products].join("\n      ")}`
          : `for (var k = start; k < min(start + ${ahead}u, u.K); k += ${round}u) {
        ${[...loads, ...products].join("\n        ")}
      }`
      }
    }
    let own = alongLane(part)${takes ? " * factor" : ""};
    ${range(SETS)
      .map((set) => `total${set} = select(total${set}, own, here == ${set}u);`)
      .join(" ")}
  }
  // A lane stores four neighbours of one set, from its lane \`first\` on.
  let owner = 4u * lane / ${lanes}u;
  let first = 4u * lane % ${lanes}u;
  ${
    other
      ? `let column = select(u.N, ${first} + 4u * lane, lane < ${(SETS * lanes) / 8}u);
  let four = ${fourOfSets(0, SETS / 2)};
  let otherFour = ${fourOfSets(SETS / 2, SETS)};
  ${gated ? "let sum0 = four * sigmoid(four) * otherFour;" : "let sum0 = four; let sum1 = otherFour;"}`
      : `let column = firstColumn + 4u * lane;
  let sum0 = ${fourOfSets(0, SETS)};`
  }`,
    ownRows: 1,
    rowStep: 1,
    ownFours: turns ? 2 : 1,
    fourStep: (turns ?? 0) / 2,
    acrossColumns: ACROSS_LANES,
    leads: "lane == 0u",
  };
}

/** The sums of columns 4 lane to 4 lane + 3 of these sets, which lanes of the set `owner` have. */
function fourOfSets(from: number, end: number): string {
  const total = (set: number, i: number) => `subgroupShuffle(total${set}, first + ${i}u)`;
  const sum = (i: number) =>
    range(end - from - 1).reduceRight(
      (others, set) => `select(${others}, ${total(from + set, i)}, owner == ${set}u)`,
      total(end - 1, i),
    );
  return `vec4f(${range(4).map(sum).join(", ")})`;
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
