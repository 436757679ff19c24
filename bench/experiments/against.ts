/**
 * Times the kernels of this checkout against those of another one, alternating in one process on one device, so that
 * the machine's other work meets both alike. Each case is checked against float64 first. Medians of the ratios of a
 * round, of wall time and of processor time, which is a software adapter's own.
 *
 *   npx tsx bench/experiments/against.ts OTHER [--cases TEXT] [--rounds N] [--json FILE]
 *
 * OTHER is the folder of the other checkout, with its packages installed. `--cases` takes the cases of the benchmark
 * whose name and shape contain one of these texts, separated by commas; default: all. KTO_ADAPTER and KTO_FEATURES
 * choose the device; kernels are the defaults, without tuning. Ends with exit code 1 where a case takes over 3% more
 * processor time than before.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { type BenchmarkCase, BenchmarkMemory } from "../measure/case.ts";
import { summary } from "../measure/measure.ts";
import { now, since, type Timed } from "./timed.ts";

/** Least time of one timing, in milliseconds. */
const LEAST_MS = 50;
/** What a case may take more than before, as a share of it. */
const SLOWER = 0.03;

/** A case that has run once and was right; `firstMs` is the time of compiling and of that run. */
async function prepare(device: Device, memory: BenchmarkMemory, one: BenchmarkCase) {
  const program = new Program(device, one.name);
  const check = one.record(memory, program);
  const start = performance.now();
  await program.prepare();
  program.run();
  await device.idle();
  const firstMs = performance.now() - start;
  await check();
  return { program, firstMs };
}

async function compare(device: Device, before: BenchmarkCase, after: BenchmarkCase, rounds: number) {
  const memory = new BenchmarkMemory(device);
  const contenders = [await prepare(device, memory, before), await prepare(device, memory, after)] as const;
  const timed = async ({ program }: (typeof contenders)[number], times: number) => {
    const start = now();
    for (let i = 0; i < times; i++) program.run();
    await device.idle();
    const { ms, processorMs } = since(start);
    return { ms: ms / times, processorMs: processorMs / times };
  };
  try {
    const times = Math.ceil(LEAST_MS / Math.max(0.01, (await timed(contenders[1], 1)).ms));
    const [befores, afters]: [Timed[], Timed[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      // Who goes first alternates, so that neither always finds the caches that the other left.
      for (const which of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
        [befores, afters][which]?.push(await timed(contenders[which], times));
      }
    }
    const ratio = (of: (time: Timed) => number) =>
      summary(befores.map((before, round) => of(before) / of(afters[round] ?? before))).medianMs;
    return {
      name: after.name,
      shape: after.shape,
      before_ms: summary(befores.map(({ ms }) => ms)).medianMs,
      after_ms: summary(afters.map(({ ms }) => ms)).medianMs,
      /** How many times as fast as before, by wall time and by processor time. */
      ratio: ratio(({ ms }) => ms),
      processor_ratio: ratio(({ processorMs }) => processorMs),
      before_first_ms: contenders[0].firstMs,
      after_first_ms: contenders[1].firstMs,
    };
  } finally {
    for (const { program } of contenders) program.dispose();
    memory.free();
  }
}

/** A checkout's cases of all kernels; every checkout's are written for the same interface. */
async function casesOf(checkout: string): Promise<BenchmarkCase[]> {
  const folder = join(checkout, "bench", "kernels");
  const cases: BenchmarkCase[] = [];
  for (const file of readdirSync(folder).sort()) {
    const exported = (await import(pathToFileURL(join(folder, file)).href)) as Record<string, readonly BenchmarkCase[]>;
    cases.push(...Object.entries(exported).flatMap(([name, value]) => (name.endsWith("Cases") ? value : [])));
  }
  return cases;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cases: { type: "string", default: "" },
    rounds: { type: "string", default: "7" },
    json: { type: "string" },
  },
});
const [other] = positionals;
if (other === undefined) throw new Error("name the folder of the other checkout");
const wanted = values.cases.split(",");
const others = await casesOf(resolve(other));
const own = await casesOf(fileURLToPath(new URL("../..", import.meta.url)));
const device = await Device.open({ tuning: "off" });
try {
  const results = [];
  const { description: adapter, facts } = device;
  console.log(`${adapter}, subgroups of ${facts.subgroupSize} (0: none used), commit ${commit()}`);
  for (const after of own) {
    const label = `${after.name} ${after.shape}`;
    if (!wanted.some((text) => label.includes(text))) continue;
    const before = others.find(({ name, shape }) => name === after.name && shape === after.shape);
    if (before === undefined) {
      console.log(`${label.padEnd(60)} ${other} has no such case`);
      continue;
    }
    const result = await compare(device, before, after, Number(values.rounds));
    results.push(result);
    const [from, to] = [result.before_ms, result.after_ms].map((ms) => ms.toPrecision(3));
    const [first, last] = [result.before_first_ms, result.after_first_ms].map((ms) => ms.toFixed(0));
    console.log(
      `${label.padEnd(60)} ${from} -> ${to} ms, ${result.ratio.toFixed(2)} times, by processor time ${result.processor_ratio.toFixed(3)}; first run ${first} -> ${last} ms`,
    );
    if (result.processor_ratio * (1 + SLOWER) < 1) process.exitCode = 1;
    // After each case: a run that is broken off keeps what it has.
    const file = { date: new Date().toISOString(), adapter, facts, commit: commit(), results };
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
  }
} finally {
  device.close();
}
