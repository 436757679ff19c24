/**
 * A kernel's text rewritten so that each lane computes some numbers of every matrix of its subgroup, from the operands
 * in workgroup memory: a text for any shape of matrices and any number of lanes runs on adapters that have neither.
 * What is not understood throws.
 */
import { type Kernel, MATRICES } from "../../src/kernels/kernel.ts";
import type { AdapterFacts, MatrixFacts } from "../../src/kernels/wgsl.ts";

/**
 * The same kernel and its candidates, for the lanes and matrices of these facts; what has no matrices stays as it is.
 */
export function emulateMatrices<B extends string, U extends string>(
  kernel: Kernel<B, U>,
  facts: AdapterFacts,
): Kernel<B, U> {
  const { candidates } = kernel;
  return {
    ...kernel,
    wgsl: emulatedMatrixText(kernel.name, kernel.wgsl, facts),
    ...(candidates && { candidates: (values) => candidates(values).map((one) => emulateMatrices(one, facts)) }),
  };
}

/** An operand's matrix: where it lies, and whether its rows lie along the array. */
interface Loaded {
  readonly array: string;
  readonly order: string;
}

function emulatedMatrixText(name: string, wgsl: string, { subgroupSize: lanes, matrices }: AdapterFacts): string {
  if (!wgsl.includes(`enable ${MATRICES};`) || matrices === undefined) return wgsl;
  const subgroups = Number(/@workgroup_size\((\d+)\)/.exec(wgsl)?.[1]) / lanes;
  const loaded = new Map<string, Loaded>();
  const functions = new Map<string, string>();
  const text = wgsl
    .replace(`enable ${MATRICES};\n`, "")
    .replace("diagnostic(off, chromium.subgroup_matrix_uniformity);\n", "")
    .replace(/alias (Left|Right|Sums) = .*\n/g, "")
    // Neighbours are in different subgroups: WGSL does not say which invocations are one.
    .replace(
      /var claim: u32 = 0u;[\s\S]*?subgroupBroadcastFirst\(claim\);/,
      `let subgroup = invocation % ${subgroups}u;`,
    )
    .replace(", @builtin(subgroup_invocation_id) ownLane: u32", "")
    .replace(/fn main\([^{]*\{/, (start) => `${start}\n  let ownLane = invocation / ${subgroups}u;`)
    .replace(
      /let (\w+) = subgroupMatrixLoad<\w+, (row|col)_major>\(&(\w+), (.*), (\d+u)\);/g,
      (_, matrix: string, order: string, array: string, start: string, stride: string) => {
        loaded.set(matrix, { array, order });
        return `let ${matrix} = vec2u(${start}, ${stride});`;
      },
    )
    .replace(
      /(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \1\);/g,
      (all, sums: string, left: string, right: string) => {
        const [a, b] = [loaded.get(left), loaded.get(right)];
        if (a === undefined || b === undefined) throw new Error(`${name}: ${all} cannot be rewritten`);
        const multiply = `multiply_${a.array}_${b.array}_${b.order}`;
        functions.set(multiply, multiplyOf(multiply, a, b, matrices, lanes));
        return `${sums} = ${multiply}(${left}, ${right}, ${sums}, ownLane);`;
      },
    )
    .replaceAll("subgroupMatrixScalarMultiply(", "scaleSums(")
    .replace(/subgroupMatrixStore<row_major>\(&results, (.*), (\w+), (\d+u)\);/g, "storeSums($1, $2, $3, ownLane);");
  const left = /\bsubgroup(?!ShuffleXor|Min|Max|_uniformity)([A-Z]|_)\w*/.exec(text);
  if (left !== null) throw new Error(`${name}: ${left[0]} cannot be rewritten for emulated matrices`);
  const place = text.indexOf("struct Uniforms");
  const { M, N } = matrices;
  const whole = `${text.slice(0, place)}${prelude((M * N) / lanes, N, lanes)}${[...functions.values()].join("")}${text.slice(place)}`;
  const [, dimension = ""] = /struct Uniforms \{ (\w+): u32/.exec(text) ?? [];
  // What exchanges nothing needs no lanes. Bounds are such that no compiler knows them, so that none unrolls the loops.
  return (EXCHANGES.test(whole) ? whole : whole.replace("enable subgroups;\n", "")).replaceAll(
    "UNKNOWN",
    `(u.${dimension} >> 31u)`,
  );
}

const EXCHANGES = /\bsubgroup[A-Z]/;

/**
 * Whether a text with emulated matrices still exchanges numbers within subgroups: only the machine knows which
 * invocations are one there.
 */
export const needsMachine = (emulated: Kernel, original: Kernel) =>
  emulated.wgsl !== original.wgsl && EXCHANGES.test(emulated.wgsl);

/** The sums plus a b, in the lane's numbers of the sums; a and b are starts and strides. */
function multiplyOf(name: string, a: Loaded, b: Loaded, { N, K }: MatrixFacts, lanes: number): string {
  const at = ({ order }: Loaded, operand: string, row: string, column: string) =>
    order === "row"
      ? `${operand}.x + ${row} * ${operand}.y + ${column}`
      : `${operand}.x + ${column} * ${operand}.y + ${row}`;
  return /* wgsl */ `
fn ${name}(a: vec2u, b: vec2u, sums: Sums, lane: u32) -> Sums {
  var result = sums;
  for (var i = 0u; i < OWN_NUMBERS + UNKNOWN; i++) {
    let row = (lane + i * ${lanes}u) / ${N}u;
    let column = (lane + i * ${lanes}u) % ${N}u;
    var sum = result[i];
    for (var k = 0u; k < ${K}u + UNKNOWN; k++) {
      sum = fma(f32(${a.array}[${at(a, "a", "row", "k")}]), f32(${b.array}[${at(b, "b", "k", "column")}]), sum);
    }
    result[i] = sum;
  }
  return result;
}
`;
}

const prelude = (own: number, N: number, lanes: number) => /* wgsl */ `
const OWN_NUMBERS: u32 = ${own}u;
alias Sums = array<f32, ${own}>;
fn scaleSums(sums: Sums, factor: f32) -> Sums {
  var result = sums;
  for (var i = 0u; i < OWN_NUMBERS + UNKNOWN; i++) { result[i] *= factor; }
  return result;
}
fn storeSums(start: u32, sums: Sums, stride: u32, lane: u32) {
  var numbers = sums;
  for (var i = 0u; i < OWN_NUMBERS + UNKNOWN; i++) {
    let place = lane + i * ${lanes}u;
    results[start + place / ${N}u * stride + place % ${N}u] = numbers[i];
  }
}
`;
