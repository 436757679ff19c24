/**
 * Measures the peaks of an adapter: fused multiply-adds in registers, and a copy between buffers. All other figures are
 * given as shares of these.
 */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { reshape } from "../../src/engine/gpu/tensor.ts";
import { kernel } from "../../src/kernels/kernel.ts";
import { elementwise, elementwiseGrid } from "../../src/kernels/wgsl.ts";
import { BenchmarkMemory } from "./case.ts";
import { type TimingOptions, time } from "./measure.ts";

export interface Peaks {
  /** Billions of floating-point operations a second, f32 (a multiply-add is two). */
  readonly gflops: number;
  /** Billions of bytes a second, read and written bytes added. */
  readonly gbps: number;
}

/** Independent chains of operations, which hide each other's latency, and the operations of each in an invocation. */
const CHAINS = 12;
const ROUNDS = 256;

const multiplyAdd = kernel({
  name: "benchMultiplyAdd",
  read: {},
  write: { out: "f32[n, 4] as vec4f" },
  uniforms: { n: "u32" },
  wgsl: /* wgsl */ `
fn element(i: u32) {
  let x = vec4f(f32(i & 7u) * 1e-3);
${Array.from({ length: CHAINS }, (_, c) => `  var s${c} = vec4f(${c}.0);`).join("\n")}
  for (var round = 0u; round < ${ROUNDS}u; round += 8u) {
${Array.from({ length: 8 }, () => Array.from({ length: CHAINS }, (_, c) => `    s${c} = fma(s${c}, x, vec4f(0.5));`).join("\n")).join("\n")}
  }
  out[i] = ${Array.from({ length: CHAINS }, (_, c) => `s${c}`).join(" + ")};
}
${elementwise("u.n")}`,
  grid: ({ n = 0 }) => elementwiseGrid(n),
  cost: ({ n = 0 }) => ({ flops: 2 * 4 * CHAINS * ROUNDS * n, bytes: 16 * n }),
});

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

/** Measures both peaks. */
export async function measurePeaks(device: Device, options: TimingOptions): Promise<Peaks> {
  const memory = new BenchmarkMemory(device);
  const { programs: copies, free } = copyPrograms(device);
  const products = new Program(device, "peak");
  const rate = async (program: Program, quantity: "flops" | "bytes") => {
    const { medianMs } = await time(device, program, options);
    return program.cost[quantity] / medianMs / 1e6;
  };
  // Enough invocations to fill a large GPU, little enough work for a software adapter.
  const invocations = device.isSoftware ? 2 ** 14 : 2 ** 20;
  try {
    products.dispatch(multiplyAdd, { out: memory.zeros(invocations, 4) });
    const gbps: number[] = [];
    for (const copy of copies) gbps.push(await rate(copy, "bytes"));
    return { gflops: await rate(products, "flops"), gbps: Math.max(...gbps) };
  } finally {
    products.dispose();
    free();
    memory.free();
  }
}
