/**
 * What a second rank brings on this machine, and what `kto plan` says of it before: updates on one core by one rank, and on
 * two cores by two ranks, each with a software adapter of one thread.
 *
 *     npx tsx scripts/ranks-speed.ts [updates, default 12]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { launchOf } from "../src/engine/platform/node-launch.ts";
import { RankLink } from "../src/engine/platform/node-mpi.ts";
import { type RankWork, scaledUpdate } from "../src/kto/report/scaling.ts";
import { MpiRun, missingMpi, trainWords } from "./ranks-test.ts";

const PIECE = 2 ** 24;
const environment = { LP_NUM_THREADS: "1" };

/** Bytes a second in one direction between two ranks, and seconds of a small call. */
interface MeasuredLink {
  readonly bytesPerSecond: number;
  readonly latency: number;
}

/** The part that runs under mpirun. */
async function measureLink(): Promise<void> {
  const launch = launchOf(process.env);
  if (launch === undefined) throw new Error("started without mpirun");
  const link = await RankLink.join(launch, 60_000, { onFault: ({ sentence }) => console.error(sentence) });
  const [own, other] = [new Uint8Array(PIECE).fill(launch.rank), new Uint8Array(PIECE)];
  const small = new Uint8Array(8);
  const seconds = async (rounds: number, work: () => Promise<void>) => {
    await work();
    const started = performance.now();
    for (let round = 0; round < rounds; round++) await work();
    return (performance.now() - started) / 1000 / rounds;
  };
  const perPiece = await seconds(20, () => link.allToAll(own, other));
  const latency = await seconds(200, () => link.allGather(small, new Uint8Array(8 * launch.size)));
  if (launch.rank === 0)
    console.log(JSON.stringify({ bytesPerSecond: PIECE / 2 / perPiece, latency } satisfies MeasuredLink));
  await link.leave();
  process.exit(0);
}

function measuredLink(): MeasuredLink {
  const words = ["--allow-run-as-root", "--bind-to", "core", "-n", "2", process.execPath, "--import", "tsx"];
  const { stdout, stderr } = spawnSync("mpirun", [...words, fileURLToPath(import.meta.url), "link"], {
    encoding: "utf8",
  });
  const line = stdout.split("\n").find((one) => one.startsWith("{"));
  if (line === undefined) throw new Error(`the link could not be measured: ${stdout}${stderr}`);
  return JSON.parse(line) as MeasuredLink;
}

/** Median seconds of an update, by the metrics of a run; the first ones compile. */
async function secondsPerUpdate(ranks: number, updates: number, folder: string, more: readonly string[]) {
  const output = join(folder, `${ranks}-${more.join("")}`);
  const words = trainWords(
    output,
    "--max_steps",
    String(updates),
    "--save_strategy",
    "no",
    "--rank_timeout",
    "60",
    ...more,
  );
  const { code, text } = await new MpiRun(
    Array.from({ length: ranks }, () => words),
    {
      mpirun: ["--bind-to", "core"],
      env: environment,
    },
  ).end(600);
  if (code !== 0) throw new Error(`${ranks} ranks ended with ${code}: ${text}`);
  const lines = readFileSync(join(output, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const rows = ranks * Number(more[more.indexOf("--per_device_train_batch_size") + 1]);
  const speeds = lines
    .slice(2)
    .map((line) => Number(line.train_samples_per_second))
    .filter(Number.isFinite);
  const seconds = speeds.map((speed) => rows / speed).toSorted((a, b) => a - b);
  return seconds[Math.floor(seconds.length / 2)] ?? Number.NaN;
}

async function main(updates: number): Promise<void> {
  const missing = missingMpi();
  if (missing !== undefined) throw new Error(missing);
  const folder = mkdtempSync(join(tmpdir(), "kto-speed-"));
  try {
    const link = measuredLink();
    console.log(
      `link between two ranks: ${(link.bytesPerSecond / 1e9).toFixed(2)} GB/s, a small call ${(link.latency * 1e6).toFixed(0)} us`,
    );
    console.log("rows a rank  1 rank, s  2 ranks, s  efficiency  predicted, s  off by");
    for (const rows of [4, 16]) {
      const more = ["--per_device_train_batch_size", String(rows)];
      const one = await secondsPerUpdate(1, updates, folder, more);
      const two = await secondsPerUpdate(2, updates, folder, more);
      const work: RankWork = {
        secondsPerUpdate: one,
        gradientBytes: 4 * 260_032,
        microbatches: 1,
        ranksPerMachine: 2,
        hostBytesPerSecond: link.bytesPerSecond,
      };
      const predicted = scaledUpdate(2, work, link).secondsPerUpdate;
      console.log(
        [
          String(rows).padStart(11),
          one.toFixed(3).padStart(10),
          two.toFixed(3).padStart(11),
          `${((100 * one) / two).toFixed(1)}%`.padStart(11),
          predicted.toFixed(3).padStart(13),
          `${(100 * (predicted / two - 1)).toFixed(1)}%`.padStart(7),
        ].join(" "),
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const [word = "12"] = process.argv.slice(2);
if (word === "link") await measureLink();
else await main(Number(word));
