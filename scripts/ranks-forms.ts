/**
 * The forms of a run of several ranks under a real launcher that scripts/ranks-test.ts leaves out: stopped by a signal
 * and gone on from, with the optimizer sharded and with local updates (also killed), planned by --dry_run, and under MPICH.
 *
 *     npx tsx scripts/ranks-forms.ts [stop] [signal] [plan] [mpich] [kill]     (default: all)
 *
 * MPICH is tried where `mpiexec.hydra` is in the PATH; its libraries may lie in a folder of LD_LIBRARY_PATH:
 *     apt-get download mpich libmpich12 libslurm38 && for f in *.deb; do dpkg -x $f mpich; done
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorLines, hasCheckpoint, killRanks, MpiRun, missingMpi, resultOf, trainWords } from "./ranks-test.ts";

const FORMS: Readonly<Record<string, readonly string[]>> = {
  "gradients summed": [],
  "optimizer sharded": ["--shard_optimizer"],
  "local updates": ["--sync_every", "3"],
};
/** More than are done while a rank looks whether another one has died. */
const STEPS = 60;
const kto = join(import.meta.dirname, "..", "bin", "kto.js");

/** How a run ended that one signal asked to end. */
export interface StopResult {
  readonly code: number | null;
  readonly lines: readonly string[];
  readonly text: string;
  readonly isSaved: boolean;
}

/**
 * Starts a run of two ranks and stops it once it has written its first metrics.
 *
 * @param whom the rank whose process gets SIGTERM, as from a scheduler; or mpirun, which gets SIGINT, as by Ctrl-C
 */
export async function stopRun(
  output: string,
  whom: number | "mpirun",
  ...more: readonly string[]
): Promise<StopResult> {
  const words = trainWords(output, "--save_steps", "100000", ...more);
  // mpirun waits so many seconds before it passes the signal on, and as many before it ends its ranks.
  const run = new MpiRun([words, words], { env: { OMPI_MCA_odls_base_sigkill_timeout: "5" } });
  const metrics = join(output, "metrics.jsonl");
  await run.until(() => existsSync(metrics) && readFileSync(metrics, "utf8").includes("\n"));
  const pid = whom === "mpirun" ? run.pid : run.ranks()[whom];
  if (pid === undefined) throw new Error(`rank ${whom} has no process`);
  process.kill(pid, whom === "mpirun" ? "SIGINT" : "SIGTERM");
  const { code, text } = await run.end();
  return { code, text, lines: errorLines(text), isSaved: hasCheckpoint(output) };
}

async function stopAndGoOn(folder: string): Promise<boolean> {
  let good = true;
  for (const [name, options] of Object.entries(FORMS)) {
    const of = (output: string, ...more: string[]) =>
      trainWords(output, ...options, "--max_steps", String(STEPS), "--save_strategy", "no", ...more);
    const [whole, output] = [join(folder, `whole ${name}`), join(folder, `stopped ${name}`)];
    const unbroken = await new MpiRun([of(whole), of(whole)]).end(120);
    const stopped = await stopRun(output, 1, ...options, "--max_steps", String(STEPS));
    const resumed = of(output, "--resume_from_checkpoint");
    const { code, text } = await new MpiRun([resumed, resumed]).end(120);
    if (unbroken.code !== 0 || code !== 0) throw new Error(`${name}: ${unbroken.text}${text}`);
    const [found, wanted] = [resultOf(output), resultOf(whole)];
    const same = found.weights.equals(wanted.weights) && found.metrics === wanted.metrics;
    good &&= same && stopped.isSaved && stopped.lines.length === 1;
    console.log(
      `${name}: stopped by SIGTERM to rank 1, code ${stopped.code}, gone on from: ${same ? "the same bits" : "OTHER BITS"}`,
    );
    for (const line of stopped.lines) console.log(`    ${line.replaceAll(folder, "FOLDER")}`);
  }
  return good;
}

async function kill(runs: number): Promise<boolean> {
  let good = true;
  for (const [name, options] of Object.entries(FORMS).slice(1)) {
    console.log(`killed, ${name}:`);
    const results = await killRanks({ runs, seed: 3, more: options, tell: (line) => console.log(line) });
    good &&= results.every(({ same, orphans, kills, named }) => same && orphans === 0 && kills === named);
  }
  return good;
}

/** Ctrl-C on a terminal: mpirun alone gets it. */
async function stopMpirun(folder: string): Promise<boolean> {
  const { code, lines, isSaved } = await stopRun(join(folder, "ctrl-c"), "mpirun", "--max_steps", "100000");
  console.log(`SIGINT to mpirun: code ${code}, ${isSaved ? "saved" : "NOT SAVED"}`);
  for (const line of lines) console.log(`    ${line.replaceAll(folder, "FOLDER")}`);
  return isSaved && lines.length === 1;
}

/** What a plan says that runs as so many ranks. */
async function plan(folder: string): Promise<boolean> {
  const of = async (ranks: number, ...more: string[]) => {
    const words = trainWords(join(folder, "plan"), "--dry_run", "--per_device_train_batch_size", "4", ...more);
    const { code, text } = await new MpiRun(Array.from({ length: ranks }, () => words)).end(120);
    if (code !== 0) throw new Error(`the plan of ${ranks} ranks ended with ${code}: ${text}`);
    return {
      rows: Number(/updates? of (\d+) rows/.exec(text)?.[1]),
      advised: Number(/reference point is taken over (\d+) rows/.exec(text)?.[1]),
      optimizer: Number(/optimizer +([\d.]+) MiB/.exec(text)?.[1]),
    };
  };
  const [one, two, sharded] = [await of(1), await of(3), await of(3, "--shard_optimizer")];
  console.log(`--dry_run: ${JSON.stringify({ "1 rank": one, "3 ranks": two, "3 ranks, sharded": sharded })}`);
  return one.rows === 4 && two.rows === 12 && sharded.rows === 12 && sharded.optimizer < 0.5 * two.optimizer;
}

/** The same run under MPICH: the bits of Open MPI's. */
async function mpich(folder: string): Promise<boolean> {
  const launcher = spawnSync("mpiexec.hydra", ["--version"], { encoding: "utf8" });
  if (launcher.error !== undefined) {
    console.log("MPICH: not tried, since there is no mpiexec.hydra in the PATH");
    return true;
  }
  const of = (output: string) => trainWords(output, "--shard_optimizer");
  const run = (output: string, env = {}) =>
    spawnSync("mpiexec.hydra", ["-n", "2", process.execPath, kto, ...of(output)], {
      encoding: "utf8",
      env: { ...process.env, ...env },
    });
  const [own, other] = [join(folder, "mpich"), join(folder, "open-mpi")];
  const { status, stdout, stderr } = run(own);
  const { code, text } = await new MpiRun([of(other), of(other)]).end(120);
  if (code !== 0) throw new Error(text);
  const same = status === 0 && resultOf(own).weights.equals(resultOf(other).weights);
  const library = /ranks: 2 on 1 machine, (.*)/.exec(stdout + stderr)?.[1];
  console.log(`${library ?? "MPICH"}: code ${status}, ${same ? "the bits of Open MPI's run" : "OTHER BITS"}`);
  const wrong = run(join(folder, "wrong"), { KTO_MPI_LIBRARY: "libmpi.so.40" });
  const refused = [...new Set(errorLines(wrong.stdout + wrong.stderr))];
  console.log(`MPICH's launcher with Open MPI's library: code ${wrong.status}`);
  for (const line of refused) console.log(`    ${line}`);
  return same && wrong.status !== 0 && refused.length > 0;
}

const PARTS: Readonly<Record<string, (folder: string) => Promise<boolean>>> = {
  stop: stopAndGoOn,
  signal: stopMpirun,
  plan,
  mpich,
  kill: () => kill(2),
};

async function main(asked: readonly string[]): Promise<void> {
  const missing = missingMpi();
  if (missing !== undefined) throw new Error(missing);
  const folder = mkdtempSync(join(tmpdir(), "kto-forms-"));
  try {
    for (const [name, part] of Object.entries(PARTS)) {
      if (asked.length > 0 && !asked.includes(name)) continue;
      if (!(await part(folder))) process.exitCode = 1;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.filename === process.argv[1]) await main(process.argv.slice(2));
