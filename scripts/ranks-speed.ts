/**
 * What a second rank brings on this machine, beside what `kto plan` says of it: updates of a random Llama by one rank on
 * one core, and by two ranks on two, each with a software adapter of one thread; the share of the time that ranks spend
 * on each other; and when each piece of the gradients was read on the host, and summed.
 *
 * A machine is slower at times by more than what is looked for, so one rank and two run in turn, several rounds, and of
 * each the fastest round counts.
 *
 *     npx tsx scripts/ranks-speed.ts [updates of each run, default 8] [rounds, default 3] [a file for all measured, as JSON]
 *     npx tsx scripts/ranks-speed.ts show FILE     (what such a file says)
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeRandomModel } from "../bench/random-model.ts";
import { Device } from "../src/engine/gpu/device.ts";
import { LoraAdapter } from "../src/engine/model/lora.ts";
import { Model } from "../src/engine/model/model.ts";
import { launchOf } from "../src/engine/platform/node-launch.ts";
import { RankLink } from "../src/engine/platform/node-mpi.ts";
import { Random } from "../src/engine/random.ts";
import type { PieceTimes } from "../src/engine/ranks/arena-sum.ts";
import { ALONE, type Communicator } from "../src/engine/ranks/communicator.ts";
import { hostSpeed } from "../src/engine/ranks/host-speed.ts";
import type { BatchExample } from "../src/kto/method/batch.ts";
import { type Link, type RankWork, scaledUpdate } from "../src/kto/report/scaling.ts";
import { KtoTrainer, type TrainerInputs } from "../src/kto/trainer.ts";
import { missingMpi } from "./ranks-test.ts";

/** A Llama of 12 million parameters: gradients of three pieces. */
const CONFIG = {
  ...{ model_type: "llama", architectures: ["LlamaForCausalLM"], vocab_size: 1024, hidden_size: 384 },
  ...{ num_attention_heads: 6, num_key_value_heads: 6, num_hidden_layers: 6, intermediate_size: 1024 },
  ...{ tie_word_embeddings: true, rope_theta: 10000, rms_norm_eps: 1e-5, max_position_embeddings: 64 },
  ...{ hidden_act: "silu", bos_token_id: 1, eos_token_id: 2 },
};
const TOKENS = { prompt: 6, completion: 10 };

/** The first updates of a run compile, and its first outer step has fresh memory. */
const unmeasured = (syncEvery: number | undefined) => syncEvery ?? 2;

/** What is measured: options of the run by their names. */
const RUNS = {
  "all weights, 2 rows a rank": { rows: 2, lora: false, options: {} },
  "all weights, 6 rows a rank": { rows: 6, lora: false, options: {} },
  "2 rows, shard_optimizer": { rows: 2, lora: false, options: { shard_optimizer: true } },
  "2 rows, sync_every 4": { rows: 2, lora: false, options: { sync_every: 4 } },
  "LoRA, 2 rows a rank": { rows: 2, lora: true, options: {} },
} as const;
type RunName = keyof typeof RUNS;

/** What a process measured of one run. */
interface Measured {
  readonly name: RunName;
  /** Of each update but the first ones, see `unmeasured`; by the clock. */
  readonly seconds: readonly number[];
  readonly communicationShare: number;
  readonly work: Omit<RankWork, "ranksPerMachine">;
  /** Pieces of the last update's gradients, with when its programs were all submitted. */
  readonly pieces: readonly PieceTimes[];
}

/** One rank, or a process alone. */
async function measure(folder: string, updates: number): Promise<void> {
  const launch = launchOf(process.env);
  const link = launch && (await RankLink.join(launch, 60_000, { onFault: ({ sentence }) => console.error(sentence) }));
  const ranks: Communicator = link ?? ALONE;
  const device = await Device.open({ adapter: "lavapipe" });
  const host = await hostSpeed(device);
  for (const name of Object.keys(RUNS) as RunName[]) {
    const measured = await measureRun(name, device, folder, updates, ranks, host);
    if (ranks.rank === 0) console.log(JSON.stringify(measured));
  }
  device.close();
  await link?.leave();
  process.exit(0);
}

async function measureRun(
  name: RunName,
  device: Device,
  folder: string,
  updates: number,
  ranks: Communicator,
  hostBytesPerSecond: number,
): Promise<Measured> {
  const { rows, lora, options } = RUNS[name];
  const syncEvery = "sync_every" in options ? options.sync_every : undefined;
  let policy = await Model.load(device, folder);
  if (lora) {
    const adapter = LoraAdapter.create(device, policy.config, { rank: 8, alpha: 16, dropout: 0, rslora: false });
    adapter.initialize(1);
    policy = policy.withAdapter(adapter);
  }
  const common = { per_device_train_batch_size: rows, max_steps: updates, logging_steps: updates, log_examples: false };
  const inputs: TrainerInputs = { policy, ranks, examples: examples(4 * rows), options: { ...common, ...options } };
  // As kto plan measures it: one rank, warm.
  const alone = { ...inputs, options: { ...common, ...options, sync_every: undefined } };
  const { secondsPerUpdate } = ranks.size === 1 ? await KtoTrainer.time(alone) : { secondsPerUpdate: Number.NaN };
  const trainer = await KtoTrainer.create(inputs);
  const { gradientSum, optimizer } = trainer.update;
  let pieces: PieceTimes[] = [];
  if (gradientSum) gradientSum.onPiece = (times) => void pieces.push(times);
  const seconds: number[] = [];
  let share = 0;
  try {
    let began = performance.now();
    for await (const { step, metrics } of trainer) {
      if (step > unmeasured(syncEvery)) seconds.push((performance.now() - began) / 1000);
      share = metrics?.communication_share ?? share;
      if (step < updates) pieces = [];
      began = performance.now();
    }
    const shardsOptimizer = "shard_optimizer" in options;
    const gradientBytes = 4 * optimizer.gradients.layout.parameterCount;
    const { isSoftware } = device;
    const work = {
      secondsPerUpdate,
      gradientBytes,
      microbatches: 1,
      hostBytesPerSecond,
      isSoftware,
      syncEvery,
      shardsOptimizer,
    };
    return { name, seconds, communicationShare: share, work, pieces };
  } finally {
    trainer.free();
    policy.adapter?.free();
    policy.free();
  }
}

/** Rows of equal length, so that every update is as large. */
function examples(count: number): BatchExample[] {
  const random = new Random(7);
  const ids = (length: number) => Array.from({ length }, () => 3 + random.below(1000));
  return Array.from({ length: count }, (_, i) => ({
    promptIds: ids(TOKENS.prompt),
    completionIds: ids(TOKENS.completion),
    label: i % 2 === 0,
  }));
}

/** Measures in processes of their own, each rank on a core. */
function measuredBy(ranks: number, folder: string, updates: number): Measured[] {
  const program = [process.execPath, "--import", "tsx", fileURLToPath(import.meta.url), "measure", folder];
  const words = ["--allow-run-as-root", "--bind-to", "core", "--map-by", "core", "-n", String(ranks), ...program];
  const { stdout, stderr, status } = spawnSync("mpirun", [...words, String(updates)], {
    encoding: "utf8",
    env: { ...process.env, LP_NUM_THREADS: "1" },
  });
  if (status !== 0) throw new Error(`${ranks} ranks ended with ${status}: ${stdout}${stderr}`);
  return stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Measured);
}

const median = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** The time of an update: where every so many have an outer step, the mean of as many. */
function timeOf({ seconds, work: { syncEvery: every } }: Measured): number {
  if (every === undefined) return median(seconds);
  const isOuter = (i: number) => (i + unmeasured(every) + 1) % every === 0;
  const [outer, own] = [true, false].map((is) => median(seconds.filter((_, i) => isOuter(i) === is)));
  return ((every - 1) * (own ?? Number.NaN) + (outer ?? Number.NaN)) / every;
}

/** A line for each piece: dots until it is read on the host, signs of equality while ranks sum it. */
function timeLine(pieces: readonly PieceTimes[]): string[] {
  const start = Math.min(...pieces.map(({ begun }) => begun));
  const end = Math.max(...pieces.map(({ summed }) => summed));
  const width = 60;
  const at = (ms: number) => Math.round(((ms - start) / (end - start)) * width);
  // Each piece is read behind the sums of those before it, so this is no end of the device's work.
  const last = Math.max(...pieces.map(({ read }) => read));
  const lines = pieces.map(({ bytes, read, summed }, i) => {
    const bar = ".".repeat(at(read)) + "=".repeat(Math.max(1, at(summed) - at(read)));
    return `  piece ${i + 1}, ${(bytes / 2 ** 20).toFixed(1).padStart(4)} MiB |${bar.padEnd(width)}| read after ${(read - start).toFixed(0)} ms, summed after ${(summed - start).toFixed(0)} ms`;
  });
  const before = pieces.reduce((sum, { read, summed }) => sum + Math.max(0, Math.min(summed, last) - read), 0);
  const all = pieces.reduce((sum, { read, summed }) => sum + summed - read, 0);
  return [
    ...lines,
    `  the last gradient is read on the host after ${(last - start).toFixed(0)} ms, behind the sums before it; ${((100 * before) / all).toFixed(0)}% of the time of the sums lies before that`,
  ];
}

async function main(updates: number, rounds: number, file: string | undefined): Promise<void> {
  const missing = missingMpi();
  if (missing !== undefined) throw new Error(missing);
  const root = mkdtempSync(join(tmpdir(), "kto-speed-"));
  try {
    const folder = join(root, "model");
    await writeRandomModel(folder, CONFIG, 1);
    const measured: Rounds = { one: [], two: [] };
    for (let round = 0; round < rounds; round++) {
      measured.one.push(measuredBy(1, folder, updates));
      measured.two.push(measuredBy(2, folder, updates));
      if (file) writeFileSync(file, JSON.stringify(measured));
    }
    show(measured);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** By round, what one rank measured of each run, and two. */
interface Rounds {
  readonly one: Measured[][];
  readonly two: Measured[][];
}

/** Of each run its fastest round, and of one rank the fastest update that was measured for a plan. */
function fastest(rounds: readonly (readonly Measured[])[]): Measured[] {
  return Object.keys(RUNS).map((name) => {
    const found = rounds.flatMap((round) => round.filter((measured) => measured.name === name));
    const [best] = found.toSorted((a, b) => timeOf(a) - timeOf(b));
    if (best === undefined) throw new Error(`nothing measured "${name}"`);
    const secondsPerUpdate = Math.min(...found.map(({ work }) => work.secondsPerUpdate));
    const hostBytesPerSecond = Math.max(...found.map(({ work }) => work.hostBytesPerSecond));
    return { ...best, work: { ...best.work, secondsPerUpdate, hostBytesPerSecond } };
  });
}

/** "0.41 to 0.52", of the rounds of a run. */
function range(rounds: readonly (readonly Measured[])[], name: RunName): string {
  const times = rounds.flatMap((round) => round.filter((measured) => measured.name === name).map(timeOf));
  return `${Math.min(...times).toFixed(3)} to ${Math.max(...times).toFixed(3)}`;
}

function show(measured: Rounds): void {
  const [one, two] = [fastest(measured.one), fastest(measured.two)];
  // Ranks of one machine cross no link.
  const link: Link = { bytesPerSecond: Number.POSITIVE_INFINITY, latency: 20e-6 };
  console.log(`${cpus()[0]?.model.trim()}, ${cpus().length} cores; lavapipe of one thread on each rank's own core`);
  console.log(
    `host: ${((one[0]?.work.hostBytesPerSecond ?? 0) / 1e6).toFixed(0)} MB/s of gradients read, added and written`,
  );
  console.log(
    "seconds of an update                 1 rank  2 ranks  efficiency  of row 1's  on each other  kto plan  off by",
  );
  const [base] = one;
  if (base === undefined) throw new Error("one rank measured nothing");
  // Where one rank has nothing to shard or to meet for, its best program is the first row's.
  const isFirst = (name: RunName) => RUNS[name].rows === RUNS[base.name].rows && !RUNS[name].lora;
  let worst = 0;
  for (const [i, alone] of one.entries()) {
    const both = two[i];
    if (both === undefined) throw new Error("two ranks measured less");
    const predicted = scaledUpdate(2, { ...alone.work, ranksPerMachine: 2 }, link).secondsPerUpdate;
    const [first, second] = [timeOf(alone), timeOf(both)];
    const off = predicted / second - 1;
    worst = Math.max(worst, Math.abs(off));
    const percent = (value: number) => `${(100 * value).toFixed(1)}%`;
    console.log(
      [
        alone.name.padEnd(34),
        first.toFixed(3).padStart(8),
        second.toFixed(3).padStart(8),
        percent(first / second).padStart(11),
        (isFirst(alone.name) ? percent(timeOf(base) / second) : "").padStart(11),
        percent(both.communicationShare).padStart(14),
        predicted.toFixed(3).padStart(9),
        percent(off).padStart(7),
      ].join(" "),
    );
  }
  console.log(`kto plan is off by ${(100 * worst).toFixed(1)}% at most; of ${measured.one.length} rounds in turn:`);
  for (const { name } of one)
    console.log(`  ${name.padEnd(34)} 1 rank ${range(measured.one, name)} s, 2 ranks ${range(measured.two, name)} s`);
  console.log("2 ranks have twice their efficiency times the throughput of one");
  for (const { name, pieces } of two) {
    if (pieces.length < 2) continue;
    console.log(
      `\nthe last update of "${name}", rank 0: pieces of the gradients in the order in which they are final on the device`,
    );
    for (const line of timeLine(pieces)) console.log(line);
  }
}

const [word = "8", second = "", third = ""] = process.argv.slice(2);
if (word === "show") show(JSON.parse(readFileSync(second, "utf8")) as Rounds);
else if (word === "measure") await measure(second, Number(third));
else await main(Number(word), Number(second || 3), third || undefined);
