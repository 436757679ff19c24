/**
 * Times the kernels of this checkout against those of another one, alternating in one process on one device, so that
 * the machine's other work meets both alike. Each case is checked against float64 first. Medians of the ratios of a
 * round.
 *
 *   npx tsx bench/experiments/against.ts OTHER [--cases TEXT] [--rounds N] [--json FILE]
 *
 * OTHER is the folder of the other checkout, with its packages installed. `--cases` takes the cases of the benchmark
 * whose name and shape contain one of these texts, separated by commas; default: all matmuls. KTO_ADAPTER and
 * KTO_FEATURES choose the device; kernels are the defaults, without tuning.
 */
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { logSoftmaxGatherCases } from "../kernels/log-softmax-gather.ts";
import { matmulCases } from "../kernels/matmul.ts";
import { type BenchmarkCase, BenchmarkMemory } from "../measure/case.ts";
import { summary } from "../measure/measure.ts";

/** Least time of one timing, in milliseconds. */
const LEAST_MS = 50;

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
    const start = performance.now();
    for (let i = 0; i < times; i++) program.run();
    await device.idle();
    return (performance.now() - start) / times;
  };
  try {
    const times = Math.ceil(LEAST_MS / Math.max(0.01, await timed(contenders[1], 1)));
    const [befores, afters]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      befores.push(await timed(contenders[0], times));
      afters.push(await timed(contenders[1], times));
    }
    return {
      name: after.name,
      shape: after.shape,
      before_ms: summary(befores).medianMs,
      after_ms: summary(afters).medianMs,
      /** How many times as fast as before. */
      ratio: summary(befores.map((ms, round) => ms / (afters[round] ?? Number.NaN))).medianMs,
      before_first_ms: contenders[0].firstMs,
      after_first_ms: contenders[1].firstMs,
    };
  } finally {
    for (const { program } of contenders) program.dispose();
    memory.free();
  }
}

/** The other checkout's cases; they are written for the same interface. */
async function casesOf(checkout: string): Promise<readonly BenchmarkCase[]> {
  const load = (file: string) => import(pathToFileURL(join(checkout, "bench", "kernels", file)).href);
  const { matmulCases: matmuls } = (await load("matmul.ts")) as { matmulCases: readonly BenchmarkCase[] };
  const { logSoftmaxGatherCases: heads } = (await load("log-softmax-gather.ts")) as {
    logSoftmaxGatherCases: readonly BenchmarkCase[];
  };
  return [...matmuls, ...heads];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cases: { type: "string", default: "matmul" },
    rounds: { type: "string", default: "7" },
    json: { type: "string" },
  },
});
const [other] = positionals;
if (other === undefined) throw new Error("name the folder of the other checkout");
const wanted = values.cases.split(",");
const others = await casesOf(resolve(other));
const device = await Device.open({ tuning: "off" });
try {
  const results = [];
  const { description: adapter, facts } = device;
  console.log(`${adapter}, subgroups of ${facts.subgroupSize} (0: none used), commit ${commit()}`);
  for (const after of [...matmulCases, ...logSoftmaxGatherCases]) {
    const label = `${after.name} ${after.shape}`;
    if (!wanted.some((text) => label.includes(text))) continue;
    const before = others.find(({ name, shape }) => name === after.name && shape === after.shape);
    if (before === undefined) {
      console.log(`${label.padEnd(48)} ${other} has no such case`);
      continue;
    }
    const result = await compare(device, before, after, Number(values.rounds));
    results.push(result);
    const [from, to] = [result.before_ms, result.after_ms].map((ms) => ms.toFixed(1));
    const [first, now] = [result.before_first_ms, result.after_first_ms].map((ms) => ms.toFixed(0));
    console.log(
      `${label.padEnd(48)} ${from} -> ${to} ms, ${result.ratio.toFixed(2)} times; first run ${first} -> ${now} ms`,
    );
    // After each case: a run that is broken off keeps what it has.
    const file = { date: new Date().toISOString(), adapter, facts, commit: commit(), results };
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
  }
} finally {
  device.close();
}
