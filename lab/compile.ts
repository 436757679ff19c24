// compile time of every pipeline of the benchmark cases, by wall time of first run minus second
import { Device } from "../src/engine/device.ts";
import { Program } from "../src/engine/program.ts";
import { BenchmarkMemory } from "../src/bench/case.ts";
import { chooseBenchmarks } from "../src/bench/run.ts";
const device = await Device.open({ adapter: process.env.AD ?? "lavapipe", tuning: "off" } as any);
const filter = process.argv[2];
const chosen = (chooseBenchmarks as any)(process.env.QUICK === "1", filter) as any;
const cases = (chosen.kernels ?? chosen.cases ?? chosen[0]);
const seen = new Map<string, number>();
for (const c of cases) {
  const bench = new BenchmarkMemory(device);
  const program = new Program(device, "x");
  const orig = program.dispatch.bind(program);
  const names: string[] = [];
  (program as any).dispatch = (k: any, a: any) => { names.push(k.name); return orig(k, a); };
  c.record(bench, program);
  const t0 = performance.now();
  await program.prepare();
  program.run(); await device.idle();
  const t1 = performance.now();
  program.run(); await device.idle();
  const t2 = performance.now();
  console.log((2 * t1 - t0 - t2).toFixed(0).padStart(7), "ms", c.name, c.shape, [...new Set(names)].join(","));
  program.dispose(); bench.free();
}
device.close();
