// usage: npx tsx lab/mm.ts "NN 512 512 512" tile,tile ... [--spin seconds]
import { Device } from "../src/engine/device.ts";
import { Program } from "../src/engine/program.ts";
import { BenchmarkMemory } from "../src/bench/case.ts";
import { productInputs } from "../src/bench/kernels/matmul.ts";
import { matmul } from "../src/kernels/matmul.ts";
import { measurePeaks } from "../src/bench/peaks.ts";
const device = await Device.open({ adapter: process.env.AD ?? "lavapipe" });
const rounds = Number(process.env.ROUNDS ?? 8);
const only = process.env.TILES?.split(",");
const shapes = process.argv.slice(2);
if (!process.env.SPIN) { const p = await measurePeaks(device, { leastMs: 100, repetitions: 5 }); console.log("peak", p.gflops.toFixed(1)); }
for (const text of shapes) {
  const [layout, ...n] = text.split(" ") as [any, ...string[]];
  const [M, N, K] = n.map(Number) as [number, number, number];
  const bench = new BenchmarkMemory(device);
  const { a, b, aShape, bShape, check } = productInputs({ layout, M, N, K });
  const out = bench.zeros(M, N);
  const args = { a: bench.of(aShape, a), b: bench.of(bShape, b), out, bias: bench.zeros(1), residual: bench.zeros(1, 4), aFrom: 0, outFrom: 0, scale: 1, hasBias: 0, hasResidual: 0, accumulate: 0 };
  const k = matmul(layout, { M, N, K }, device.facts) as any;
  const cands = (k.candidates ? k.candidates({ M, N, K }) : [k]).filter((c: any) => !only || only.includes(c.variant));
  const programs: { name: string; program: Program; times: number[]; compile: number }[] = [];
  for (const c of cands) {
    const program = new Program(device, "x");
    program.dispatch(c, args as any);
    const t0 = performance.now();
    await program.prepare();
    program.run(); await device.idle();
    const compile = performance.now() - t0;
    let ok = "";
    try { check(await device.download(out)); } catch (e) { ok = " WRONG " + (e as Error).message.slice(0, 80); }
    programs.push({ name: c.variant + ok, program, times: [], compile });
  }
  if (process.env.SPIN) { const end = performance.now() + 1000 * Number(process.env.SPIN); console.log("pid", process.pid); while (performance.now() < end) { for (let i = 0; i < 20; i++) programs[0]!.program.run(); await device.idle(); } }
  const reps = Math.max(1, Math.ceil(3e9 / (2 * M * N * K) ));
  for (let r = 0; r < rounds; r++) for (const p of programs) {
    const s = performance.now();
    for (let i = 0; i < reps; i++) p.program.run();
    await device.idle();
    p.times.push((performance.now() - s) / reps);
  }
  for (const p of programs) { const s = p.times.sort((x, y) => x - y); const g = (ms: number) => (2 * M * N * K / ms / 1e6).toFixed(1); console.log(text, p.name.padEnd(14), "best", g(s[0]!), "median", g(s[s.length >> 1]!), "GFLOP/s   compile", p.compile.toFixed(0)); }
  bench.free();
}
device.close();
