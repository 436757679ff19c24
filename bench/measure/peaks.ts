/**
 * Measures the peaks of an adapter: fused multiply-adds in registers, products of subgroup matrices, and a copy between
 * buffers. All other figures are given as shares of these.
 */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { reshape } from "../../src/engine/gpu/tensor.ts";
import { kernel, MATRICES } from "../../src/kernels/kernel.ts";
import { elementwise, elementwiseGrid, type MatrixFacts } from "../../src/kernels/wgsl.ts";
import { BenchmarkMemory } from "./case.ts";
import { type TimingOptions, time } from "./measure.ts";

export interface Peaks {
  /** Billions of floating-point operations a second, f32 (a multiply-add is two). */
  readonly gflops: number;
  /** Billions of f16 operations a second; undefined without `shader-f16`, and on software, which has no f16 of its own. */
  readonly f16Gflops?: number | undefined;
  /** Billions of operations a second by the subgroup matrices that products use here; undefined where they use none. */
  readonly matrixGflops?: number | undefined;
  /** Billions of bytes a second, read and written bytes added. */
  readonly gbps: number;
}

/** Independent chains of operations, which hide each other's latency, and the operations of each in an invocation. */
const CHAINS = 12;
const ROUNDS = 256;

/** Fused multiply-adds of vectors of four. */
export const multiplyAdd = (type: "f32" | "f16") => {
  const vector = `vec4<${type}>`;
  const chains = Array.from({ length: CHAINS }, (_, c) => c);
  return kernel({
    name: `benchMultiplyAdd${type}`,
    read: {},
    write: { out: "f32[n, 4] as vec4f" },
    uniforms: { n: "u32" },
    ...(type === "f16" && { enable: ["f16"] }),
    wgsl: /* wgsl */ `
fn element(i: u32) {
  let x = ${vector}(${type}(f32(i & 7u) * 1e-3));
${chains.map((c) => `  var s${c} = ${vector}(${c}.0);`).join("\n")}
  for (var round = 0u; round < ${ROUNDS}u; round += 8u) {
${Array.from({ length: 8 }, () => chains.map((c) => `    s${c} = fma(s${c}, x, ${vector}(0.5));`).join("\n")).join("\n")}
  }
  out[i] = vec4f(${chains.map((c) => `s${c}`).join(" + ")});
}
${elementwise("u.n")}`,
    grid: ({ n = 0 }) => elementwiseGrid(n),
    cost: ({ n = 0 }) => ({ flops: 2 * 4 * CHAINS * ROUNDS * n, bytes: 16 * n }),
  });
};

/** Sums of matrices that a subgroup keeps, each of which is added to in every round. */
const SUMS = 8;
const MATRIX_ROUNDS = 64;

/**
 * Products of two matrices added to each of several sums, n subgroups with one workgroup each; a subgroup's sums end in
 * `out`, so that nothing is left out.
 */
export const multiplyMatrices = ({ component, M, N, K }: MatrixFacts, lanes: number) => {
  const sums = Array.from({ length: SUMS }, (_, c) => c);
  const fill = (name: string, size: number) =>
    `for (var i = lane; i < ${size}u; i += ${lanes}u) { ${name}[i] = ${component}(f32((i + u.n) & 7u) * 1e-3); }`;
  return kernel({
    name: "benchMatrices",
    read: {},
    write: { out: `f32[n, ${M * N}]` },
    uniforms: { n: "u32" },
    enable: ["subgroups", ...(component === "f16" ? ["f16"] : []), MATRICES],
    wgsl: /* wgsl */ `
var<workgroup> left: array<${component}, ${M * K}>;
var<workgroup> right: array<${component}, ${K * N}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${fill("left", M * K)}
  ${fill("right", K * N)}
  workgroupBarrier();
  let a = subgroupMatrixLoad<subgroup_matrix_left<${component}, ${K}, ${M}>, row_major>(&left, 0u, ${K}u);
  let b = subgroupMatrixLoad<subgroup_matrix_right<${component}, ${N}, ${K}>, col_major>(&right, 0u, ${K}u);
${sums.map((c) => `  var s${c}: subgroup_matrix_result<f32, ${N}, ${M}>;`).join("\n")}
  for (var round = 0u; round < ${MATRIX_ROUNDS}u; round++) {
${sums.map((c) => `    s${c} = subgroupMatrixMultiplyAccumulate(a, b, s${c});`).join("\n")}
  }
  let at = group.x * ${M * N}u;
${sums.map((c) => `  subgroupMatrixStore<row_major>(&out, at, s${c}, ${N}u);`).join("\n")}
}`,
    grid: ({ n = 0 }) => [n, 1, 1],
    cost: ({ n = 0 }) => ({ flops: 2 * M * N * K * SUMS * MATRIX_ROUNDS * n, bytes: 4 * M * N * SUMS * n }),
  });
};

/**
 * Copies n times `each` vectors, `each` in an invocation, interleaved with its neighbours'. The fastest `each` differs
 * between adapters.
 */
const copyKernel = (each: number) =>
  kernel({
    name: `benchCopy${each}`,
    read: { x: `f32[n, ${each}, 4] as vec4f` },
    write: { out: `f32[n, ${each}, 4] as vec4f` },
    uniforms: { n: "u32" },
    wgsl: /* wgsl */ `
fn element(i: u32) {
${Array.from({ length: each }, (_, at) => `  out[i + ${at}u * u.n] = x[i + ${at}u * u.n];`).join("\n")}
}
${elementwise("u.n")}`,
    grid: ({ n = 0 }) => elementwiseGrid(n),
    cost: ({ n = 0 }) => ({ flops: 0, bytes: 32 * each * n }),
  });

/** Programs that copy a buffer, in the ways of which an adapter likes one best; `free` gives their memory back. */
export function copyPrograms(device: Device): { readonly programs: readonly Program[]; readonly free: () => void } {
  const memory = new BenchmarkMemory(device);
  const numbers = 2 ** 22;
  const [from, to] = [memory.zeros(numbers, 4), memory.zeros(numbers, 4)];
  const programs = [1, 4, 8].map((each) => {
    const program = new Program(device, "copy");
    const shape = [numbers / each, each, 4];
    program.dispatch(copyKernel(each), { x: reshape(from, shape), out: reshape(to, shape) });
    return program;
  });
  const free = () => {
    for (const program of programs) program.dispose();
    memory.free();
  };
  return { programs, free };
}

/** Measures all peaks that the device has. */
export async function measurePeaks(device: Device, options: TimingOptions): Promise<Peaks> {
  const memory = new BenchmarkMemory(device);
  const { programs: copies, free } = copyPrograms(device);
  const products: Program[] = [];
  const rate = async (program: Program, quantity: "flops" | "bytes") => {
    const { medianMs } = await time(device, program, options);
    return program.cost[quantity] / medianMs / 1e6;
  };
  const rateOf = async (record: (program: Program) => void) => {
    const program = new Program(device, "peak");
    products.push(program);
    record(program);
    return await rate(program, "flops");
  };
  // Enough invocations to fill a large GPU, little enough work for a software adapter.
  const invocations = device.isSoftware ? 2 ** 14 : 2 ** 20;
  const { matrices, subgroupSize } = device.facts;
  const subgroups = device.isSoftware ? 2 ** 4 : 2 ** 13;
  const multiplyAdds = (type: "f32" | "f16") =>
    rateOf((program) => program.dispatch(multiplyAdd(type), { out: memory.zeros(invocations, 4) }));
  try {
    const gbps: number[] = [];
    for (const copy of copies) gbps.push(await rate(copy, "bytes"));
    return {
      gflops: await multiplyAdds("f32"),
      ...(!device.isSoftware && device.gpu.features.has("shader-f16") && { f16Gflops: await multiplyAdds("f16") }),
      ...(matrices && {
        matrixGflops: await rateOf((program) => {
          const out = memory.zeros(subgroups, matrices.M * matrices.N);
          program.dispatch(multiplyMatrices(matrices, subgroupSize), { out });
        }),
      }),
      gbps: Math.max(...gbps),
    };
  } finally {
    for (const program of products) program.dispose();
    free();
    memory.free();
  }
}

/** "94 GFLOP/s (f32, fused multiply-add), ...": the peaks in words. */
export function peaksText(
  { gflops, f16Gflops, matrixGflops, gbps }: Peaks,
  round: (value: number) => string | number = (value) => value.toFixed(1),
) {
  return [
    `${round(gflops)} GFLOP/s (f32, fused multiply-add)`,
    ...(f16Gflops === undefined ? [] : [`${round(f16Gflops)} in f16`]),
    ...(matrixGflops === undefined ? [] : [`${round(matrixGflops)} by matrices`]),
    `${round(gbps)} GB/s (copy, read and written)`,
  ].join(", ");
}
