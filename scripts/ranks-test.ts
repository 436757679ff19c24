/**
 * Runs of `kto train` by several ranks under a real mpirun, on this machine and on two "machines" that are network
 * namespaces, with faults of every kind: each must end everywhere, within the time, with one sentence that names it.
 *
 *     npx tsx scripts/ranks-test.ts [runs that are killed twice, default 10] [seed, default 1]
 *     npx tsx scripts/ranks-test.ts faults WORDS     (only the faults with these words in their names)
 *     npx tsx scripts/ranks-test.ts machines         (only a run on two machines over TCP, against one on a single machine)
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Random } from "../src/engine/random.ts";

const root = join(import.meta.dirname, "..");
export const kto = join(root, "bin", "kto.js");
export const model = join(root, "examples", "quickstart", "model");
export const feedback = join(root, "examples", "quickstart", "feedback.jsonl");

/** Words of a short run; later ones replace earlier ones. */
export function trainWords(output: string, ...more: readonly string[]): string[] {
  return [
    ...["train", "--model_name_or_path", model, "--dataset_name", feedback, "--output_dir", output],
    ...["--per_device_train_batch_size", "2", "--max_steps", "4", "--learning_rate", "5e-4", "--max_length", "64"],
    ...["--max_samples", "64", "--logging_steps", "1", "--save_steps", "1", "--save_total_limit", "2"],
    ...["--rank_timeout", "20", ...more],
  ];
}

export interface Ended {
  readonly code: number | null;
  readonly text: string;
  readonly seconds: number;
}

/** A run of several ranks. */
export class MpiRun {
  /** How many ranks it has. */
  readonly size: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  readonly #outputs: ReadonlySet<string>;
  #text = "";
  readonly #startedMs = performance.now();

  /**
   * @param programs the words of each rank, after "kto"; the same array for all is one command line
   * @param options.commands the file that each rank runs; this checkout's where there is none
   */
  constructor(
    programs: readonly (readonly string[])[],
    {
      before = [] as readonly string[],
      mpirun = [] as readonly string[],
      commands = [] as readonly string[],
      env = {},
    } = {},
  ) {
    this.size = programs.length;
    this.#outputs = new Set(programs.map((words) => words[words.indexOf("--output_dir") + 1] ?? ""));
    const words = programs.flatMap((words, i) => [
      ...(i > 0 ? [":"] : []),
      "-n",
      "1",
      process.execPath,
      commands[i] ?? kto,
      ...words,
    ]);
    const [program = "", ...first] = [...before, "mpirun", "--allow-run-as-root", "--oversubscribe", ...mpirun];
    this.#child = spawn(program, [...first, ...words], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on("data", (chunk) => {
        this.#text += String(chunk);
      });
    this.#ended = new Promise((resolve) => this.#child.on("close", resolve));
  }

  get text(): string {
    return this.#text;
  }

  /** The processes of its ranks, by their numbers. */
  ranks(): number[] {
    const found: number[] = [];
    for (const pid of this.running()) {
      const rank = rankOf(pid);
      if (rank !== undefined) found[rank] = pid;
    }
    return found;
  }

  /** The processes of this machine that still run and name its output folder: mpirun, its ranks, what they started. */
  running(): number[] {
    return alive(processes()).filter((pid) => {
      const words = textOf(`/proc/${pid}/cmdline`).split("\0");
      return words.some((word) => this.#outputs.has(word));
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits for the end; a run that does not end in this time is ended and counts as hanging. */
  async end(withinSeconds = 60): Promise<Ended> {
    const pids = [...this.ranks(), this.pid];
    const late = new AbortController();
    const code = await Promise.race([
      this.#ended,
      delay(1000 * withinSeconds, "late" as const, { signal: late.signal }).catch(() => null),
    ]);
    late.abort();
    if (code === "late") {
      for (const pid of pids) kill(pid, "SIGKILL");
      throw new Error(`the run did not end within ${withinSeconds} s: ${this.#text}`);
    }
    return { code, text: this.#text, seconds: (performance.now() - this.#startedMs) / 1000 };
  }

  /** Done once the run has written a checkpoint, or whatever else is asked for. */
  async until(isThere: () => boolean): Promise<void> {
    let isOpen = true;
    void this.#ended.then(() => {
      isOpen = false;
    });
    while (!isThere()) {
      if (!isOpen) throw new Error(`the run ended too early: ${this.#text}`);
      await delay(5);
    }
  }
}

/** Whether a run has a checkpoint. */
export function hasCheckpoint(output: string): boolean {
  return existsSync(output) && readdirSync(output).some((name) => /^checkpoint-\d+$/.test(name));
}

export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended already.
  }
}

/** The processes that still run among these. */
export function alive(pids: readonly number[]): number[] {
  return pids.filter((pid) => /\) [^ZX] /.test(textOf(`/proc/${pid}/stat`)));
}

/** Of a process: empty where it has ended. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function processes(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function rankOf(pid: number): number | undefined {
  if (!textOf(`/proc/${pid}/cmdline`).includes("kto.js")) return undefined;
  const found = /(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)\0/.exec(textOf(`/proc/${pid}/environ`));
  return found === null ? undefined : Number(found[1]);
}

/** What must be equal: weights, and metrics except those about time and memory. */
export function resultOf(output: string): { weights: Buffer; metrics: string } {
  const text = readFileSync(join(output, "metrics.jsonl"), "utf8");
  return {
    weights: readFileSync(join(output, "model.safetensors")),
    metrics: text.replace(/"([a-z_]*_per_second|[a-z_]*_share|slowest_rank|bytes\/\w+)": ?[\d.e-]+,?/g, ""),
  };
}

/** The greatest difference between two files of f32 tensors of one layout. */
export function weightDifference(a: Buffer, b: Buffer): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  const start = 8 + Number(a.readBigUInt64LE(0));
  let most = 0;
  for (let at = start; at < a.length; at += 4) most = Math.max(most, Math.abs(a.readFloatLE(at) - b.readFloatLE(at)));
  return most;
}

/** Whether there is an mpirun that starts two processes; else why not. */
export function missingMpi(): string | undefined {
  const { status, error, stderr } = spawnSync(
    "mpirun",
    ["--allow-run-as-root", "--oversubscribe", "-n", "2", process.execPath, "-e", "0"],
    { encoding: "utf8" },
  );
  if (error !== undefined) return "there is no mpirun: scripts/install-openmpi.sh installs it";
  return status === 0 ? undefined : `mpirun fails: ${stderr.trim().split("\n")[0]}`;
}

/** Two "machines": network namespaces with a cable between them, and hosts' names of their own. */
export class TwoMachines {
  readonly addresses = ["10.77.0.1", "10.77.0.2"] as const;
  readonly #names: readonly [string, string];
  readonly #folder: string;

  /** @throws Error where namespaces are not allowed here */
  constructor(folder: string) {
    const id = process.pid;
    this.#names = [`kto-a-${id}`, `kto-b-${id}`];
    this.#folder = folder;
    const [a, b] = this.#names;
    const cable = ["ka", "kb"].map((end) => `${end}${id}`.slice(0, 15));
    const ip = (...words: string[]) => execFileSync("ip", words, { stdio: ["ignore", "ignore", "pipe"] });
    try {
      for (const name of this.#names) ip("netns", "add", name);
      ip("link", "add", cable[0] ?? "", "type", "veth", "peer", "name", cable[1] ?? "");
      for (const [i, name] of this.#names.entries()) {
        ip("link", "set", cable[i] ?? "", "netns", name);
        ip("-n", name, "link", "set", cable[i] ?? "", "name", "cable");
        ip("-n", name, "addr", "add", `${this.addresses[i]}/24`, "dev", "cable");
        ip("-n", name, "link", "set", "cable", "up");
        ip("-n", name, "link", "set", "lo", "up");
      }
    } catch (error) {
      this.remove();
      throw error;
    }
    // What mpirun takes for ssh: it enters the other namespace, under another host's name.
    writeFileSync(
      join(folder, "enter.sh"),
      `#!/bin/sh\nshift\nexec ip netns exec ${b} unshare --uts sh -c "hostname machine-b; $*"\n`,
      { mode: 0o755 },
    );
    writeFileSync(
      join(folder, "first.sh"),
      `#!/bin/sh\nexec ip netns exec ${a} unshare --uts sh -c 'hostname machine-a; exec "$@"' sh "$@"\n`,
      { mode: 0o755 },
    );
  }

  /** A run with its first rank on one machine, its second on the other. */
  run(words: readonly string[], more: readonly string[] = words): MpiRun {
    return new MpiRun([words, more], {
      before: [join(this.#folder, "first.sh")],
      mpirun: [
        ...["--host", `${this.addresses[0]}:1,${this.addresses[1]}:1`, "--map-by", "node"],
        ...["--mca", "plm_rsh_agent", join(this.#folder, "enter.sh"), "--mca", "btl", "tcp,self"],
        ...["--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include", "10.77.0.0/24"],
        // mpirun and its daemons notice a cut cable by themselves only where they look for it.
        ...["--mca", "oob_tcp_keepalive_time", "2", "--mca", "oob_tcp_keepalive_intvl", "1"],
        ...["--mca", "oob_tcp_keepalive_probes", "2"],
      ],
    });
  }

  /** Bytes that the first machine has sent over the cable. */
  sentBytes(): number {
    const text = execFileSync("ip", ["-n", this.#names[0], "-s", "-j", "link", "show", "cable"], { encoding: "utf8" });
    const [{ stats64 }] = JSON.parse(text) as [{ readonly stats64: { readonly tx: { readonly bytes: number } } }];
    return stats64.tx.bytes;
  }

  /** Pulls the cable. */
  cut(): void {
    execFileSync("ip", ["-n", this.#names[0], "link", "set", "cable", "down"]);
  }

  remove(): void {
    for (const name of this.#names) spawnSync("ip", ["netns", "del", name]);
  }
}

/** Why two machines cannot be played here; undefined where they can. */
export function missingMachines(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), "kto-machines-"));
  try {
    new TwoMachines(folder).remove();
    return undefined;
  } catch (error) {
    return `network namespaces cannot be made here (${String(error)})`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Counts the sentences of a run that tell its end. */
export function errorLines(text: string): string[] {
  return text.split("\n").filter((line) => /^(error|stopped): /.test(line));
}

/** One fault and how it ended. */
export interface FaultResult {
  readonly fault: string;
  readonly code: number | null;
  readonly seconds: number;
  readonly lines: readonly string[];
  /** How many ranks were seen to run. */
  readonly ranks: number;
  /** Processes of the run that were there one second after mpirun had ended. */
  readonly orphans: number;
}

/**
 * Waits until all ranks of a run are there and it has a checkpoint, or whatever else is asked for, does something to it,
 * and waits for its end.
 *
 * @param seconds counts from what was done
 */
export async function faultRun(
  fault: string,
  run: MpiRun,
  isThere: () => boolean,
  act: FaultAct,
): Promise<FaultResult> {
  let ranks = run.ranks();
  const count = () => ranks.filter((pid) => pid !== undefined).length;
  await run.until(() => {
    if (count() < run.size) ranks = run.ranks();
    return count() === run.size && isThere();
  });
  const actedMs = performance.now();
  act(ranks);
  const { code, text } = await run.end();
  const seconds = (performance.now() - actedMs) / 1000;
  await delay(1000);
  return { fault, code, seconds, lines: errorLines(text), ranks: count(), orphans: run.running().length };
}

/** What is done to a run, given the processes of its ranks. */
type FaultAct = (ranks: readonly number[]) => void;

export interface RankKills {
  readonly runs: number;
  readonly seed: number;
  readonly steps?: number;
  readonly mostKills?: number;
  readonly tell?: (line: string) => void;
  /** Options of these runs beside those of every short run. */
  readonly more?: readonly string[];
}

/**
 * Runs of two ranks, of which one is killed by SIGKILL at a random moment, each rank in turn, and which are resumed until they
 * end: weights and metrics must be those of a run that was left alone, bit by bit.
 */
export async function killRanks(kills: RankKills) {
  const { runs, seed, steps = 12, mostKills = 2, tell = () => undefined, more: options = [] } = kills;
  const folder = mkdtempSync(join(tmpdir(), "kto-ranks-"));
  const random = new Random(seed);
  const results: { kills: number; same: boolean; named: number; orphans: number; slowest: number }[] = [];
  const words = (output: string, ...more: string[]) =>
    trainWords(output, "--max_steps", String(steps), ...options, ...more);
  try {
    const whole = join(folder, "whole");
    const { code, text } = await new MpiRun([words(whole), words(whole)]).end(120);
    if (code !== 0) throw new Error(`the run without kills ended with ${code}: ${text}`);
    const wanted = resultOf(whole);
    tell("  run  kills  named  orphans  slowest end  the same bits");
    for (let i = 0; i < runs; i++) {
      const output = join(folder, `run-${i}`);
      const result = { kills: 0, same: false, named: 0, orphans: 0, slowest: 0 };
      for (;;) {
        const more = hasCheckpoint(output) ? ["--resume_from_checkpoint"] : [];
        const run = new MpiRun([words(output, ...more), words(output, ...more)]);
        if (result.kills < mostKills) {
          const before = hasCheckpoint(output) ? readdirSync(output).join() : "";
          const victim = (i + result.kills) % 2;
          await run.until(() => hasCheckpoint(output) && readdirSync(output).join() !== before).catch(() => undefined);
          await delay(random.below(200));
          const pids = run.ranks();
          const pid = pids[victim];
          if (pid !== undefined) {
            const killedMs = performance.now();
            kill(pid, "SIGKILL");
            const ended = await run.end();
            if (ended.code !== 0) {
              result.kills++;
              result.slowest = Math.max(result.slowest, (performance.now() - killedMs) / 1000);
              if (errorLines(ended.text).some((line) => line.includes(`rank ${victim} `))) result.named++;
              await delay(200);
              result.orphans += run.running().length;
              continue;
            }
            break; // it had done its work
          }
        }
        const ended = await run.end(120);
        if (ended.code !== 0) throw new Error(`run ${i} ended with ${ended.code}: ${ended.text}`);
        break;
      }
      const got = resultOf(output);
      result.same = got.weights.equals(wanted.weights) && got.metrics === wanted.metrics;
      results.push(result);
      tell(
        `${String(i + 1).padStart(5)}${String(result.kills).padStart(7)}${String(result.named).padStart(7)}${String(result.orphans).padStart(9)}${`${result.slowest.toFixed(1)} s`.padStart(13)}  ${result.same ? "yes" : "NO"}`,
      );
      rmSync(output, { recursive: true, force: true });
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What N ranks may be off by from one process. */
const MOST_DIFFERENCE = 1e-6;

/**
 * Runs of 2, 3 and 4 ranks against one process, of 12 rows an update: the largest difference of a logged loss,
 * as of the equality tests, and of the weights, as the norm of their difference over the norm of what was learnt.
 *
 * @returns the larger of the two, of all numbers of ranks
 */
export async function compareRanks(adapter: string, tell: (line: string) => void): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "kto-equal-"));
  try {
    const of = (ranks: number) => join(folder, `${ranks}`);
    const words = (ranks: number) => [
      ...trainWords(of(ranks), "--per_device_train_batch_size", String(12 / ranks), "--max_steps", "5"),
      ...["--max_samples", "256", "--adapter", adapter],
    ];
    const losses = (ranks: number) =>
      [...readFileSync(join(of(ranks), "metrics.jsonl"), "utf8").matchAll(/"loss":([\d.e-]+)/g)].map(([, loss]) =>
        Number(loss),
      );
    for (const ranks of [1, 2, 3, 4]) {
      const { code, text } = await new MpiRun(Array.from({ length: ranks }, () => words(ranks))).end(200);
      if (code !== 0) throw new Error(`the run of ${ranks} ranks ended with ${code}: ${text}`);
    }
    const [base, one] = [weightsIn(model), weightsIn(of(1))];
    const norm = (a: Float32Array, b: Float32Array) =>
      Math.sqrt(a.reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0));
    const learnt = norm(one, base);
    let worst = 0;
    for (const ranks of [2, 3, 4]) {
      const [alone, shared] = [losses(1), losses(ranks)];
      const loss = Math.max(...alone.map((value, i) => lossDifference(shared[i] ?? Number.NaN, value)));
      const weights = norm(weightsIn(of(ranks)), one) / learnt;
      tell(
        `${ranks} ranks against one process on ${adapter}: losses of ${alone.length} updates within ${loss.toExponential(1)}, weights within ${weights.toExponential(1)} of what was learnt`,
      );
      worst = Math.max(worst, loss, weights);
    }
    return worst;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Relative, of a loss below 1 absolute: test/kto/run/ranks.test.ts compares metrics so. */
const lossDifference = (found: number, wanted: number) => Math.abs(found - wanted) / Math.max(1, Math.abs(wanted));

/** All numbers of a model's file, which are f32. */
function weightsIn(folder: string): Float32Array {
  const file = readFileSync(join(folder, "model.safetensors"));
  const start = 8 + Number(file.readBigUInt64LE(0));
  return Float32Array.from({ length: (file.length - start) / 4 }, (_, i) => file.readFloatLE(start + 4 * i));
}

/** Two runs of two ranks, over TCP between two machines and on one, of which both should give the same bits. */
export async function compareMachines(): Promise<{
  readonly same: boolean;
  readonly sentBytes: number;
  readonly gradientBytes: number;
}> {
  const folder = mkdtempSync(join(tmpdir(), "kto-machines-"));
  const machines = new TwoMachines(folder);
  try {
    const [near, far] = [join(folder, "near"), join(folder, "far")];
    const local = await new MpiRun([trainWords(near), trainWords(near)]).end();
    const remote = await machines.run(trainWords(far)).end();
    for (const { code, text } of [local, remote]) if (code !== 0) throw new Error(`a run ended with ${code}: ${text}`);
    const [found, wanted] = [resultOf(far), resultOf(near)];
    const same = found.weights.equals(wanted.weights) && found.metrics === wanted.metrics;
    return { same, sentBytes: machines.sentBytes(), gradientBytes: 4 * weightsIn(model).length };
  } finally {
    machines.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface FaultChoice {
  /** Which, by their names. Default: all. */
  readonly chooses?: (fault: string) => boolean;
  /** `rank_timeout` of the runs. Default 8. */
  readonly timeoutSeconds?: number;
}

/** Every other fault, once. */
export async function allFaults(
  tell: (line: string) => void,
  { chooses = () => true, timeoutSeconds = 8 }: FaultChoice = {},
): Promise<FaultResult[]> {
  const folder = mkdtempSync(join(tmpdir(), "kto-faults-"));
  const results: FaultResult[] = [];
  /** @param start starts the run */
  const add = async (fault: string, start: () => MpiRun, isThere: () => boolean, act: FaultAct = () => undefined) => {
    if (!chooses(fault)) return;
    const result = await faultRun(fault, start(), isThere, act);
    results.push(result);
    tell(
      `${fault}: ${result.ranks} ranks, code ${result.code} after ${result.seconds.toFixed(1)} s, orphans ${result.orphans}`,
    );
    for (const line of result.lines)
      tell(`    ${line.replaceAll(folder, "FOLDER").replace(/process \d+/g, "process N")}`);
  };
  const timeout = ["--rank_timeout", String(timeoutSeconds)];
  const long = (name: string, ...more: string[]) =>
    trainWords(join(folder, name), "--max_steps", "100000", ...timeout, ...more);
  const twice = (words: readonly string[]) => [words, words];
  try {
    const at = (name: string) => () => hasCheckpoint(join(folder, name));
    const now = () => true;
    for (const victim of [0, 1]) {
      const run = () => new MpiRun(twice(long(`stop-${victim}`)));
      const stop = (ranks: readonly number[]) => kill(ranks[victim] ?? 0, "SIGSTOP");
      await add(`SIGSTOP of rank ${victim}`, run, at(`stop-${victim}`), stop);
    }
    const options = () => new MpiRun([long("options"), long("options", "--beta", "0.3")]);
    await add("another beta on rank 1", options, now);
    const older = otherVersion(folder);
    await add("another version on rank 1", () => new MpiRun(twice(long("older")), { commands: [kto, older] }), now);
    const copy = join(folder, "model");
    cpSync(model, copy, { recursive: true });
    const weights = readFileSync(join(copy, "model.safetensors"));
    weights[weights.length - 1] = (weights.at(-1) ?? 0) ^ 1;
    writeFileSync(join(copy, "model.safetensors"), weights);
    const files = () => new MpiRun([long("files"), long("files", "--model_name_or_path", copy)]);
    await add("one other bit in rank 1's model", files, now);
    const rows = join(folder, "rows.jsonl");
    writeFileSync(rows, readFileSync(feedback, "utf8").replace("the", "The"));
    const data = () => new MpiRun([long("rows"), long("rows", "--dataset_name", rows)]);
    await add("one other letter in rank 1's rows", data, now);
    const nan = () => new MpiRun(twice(long("nan", "--learning_rate", "1e38", "--max_grad_norm", "0")));
    await add("numbers that are not finite", nan, now);
    const loses = `--import ${pathToFileURL(join(root, "scripts", "lose-device.mjs")).href}`;
    const lost = () => new MpiRun(twice(long("lost")), { env: { NODE_OPTIONS: loses, LOSE_RANK: "1" } });
    // Some seconds after it was opened, which on a busy machine is before the first checkpoint.
    await add("a lost device on rank 1", lost, now);
    await onFullDisk(folder, tell, async (disk) => {
      // The model has 1 MB. What cannot be written beside it, such as a checkpoint, is a warning.
      const short = trainWords(join(disk, "run"), "--max_steps", "3", "--save_strategy", "no");
      await add("a full disk on rank 0", () => new MpiRun(twice(short)), now);
    });
    const cable = "the cable between two machines cut";
    const missing = chooses(cable) ? missingMachines() : undefined;
    if (missing !== undefined) tell(`two machines: not tried, since ${missing}`);
    else if (chooses(cable)) {
      const machines = new TwoMachines(folder);
      const cut = () => machines.cut();
      try {
        await add(cable, () => machines.run(long("cable")), at("cable"), cut);
      } finally {
        machines.remove();
      }
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A copy of this program as it is built that says it is another version; its kto.js. */
export function otherVersion(folder: string): string {
  const copy = join(folder, "older");
  for (const name of ["dist", "bin"]) cpSync(join(root, name), join(copy, name), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  const text = readFileSync(join(root, "package.json"), "utf8");
  writeFileSync(join(copy, "package.json"), text.replace(/"version": "[^"]*"/, '"version": "0.0.1"'));
  return join(copy, "bin", "kto.js");
}

/** A folder of 800 KB in memory, for as long as `use` takes. */
async function onFullDisk(folder: string, tell: (line: string) => void, use: (disk: string) => Promise<void>) {
  const disk = join(folder, "disk");
  mkdirSync(disk);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=800k", "tmpfs", disk]).status !== 0) {
    tell("a full disk: not tried, since tmpfs cannot be mounted here");
    return;
  }
  try {
    await use(disk);
  } finally {
    spawnSync("umount", [disk]);
  }
}

/** Whether a fault did not end its run, everywhere, with one sentence. */
function isBad({ code, lines, orphans }: FaultResult): boolean {
  return code === 0 || lines.length !== 1 || orphans > 0;
}

/** Tells of a run over TCP; false where it has other bits than one on a single machine. */
async function tellMachines(tell: (line: string) => void): Promise<boolean> {
  const missing = missingMachines();
  if (missing !== undefined) tell(`a run over TCP: not tried, since ${missing}`);
  const found = missing === undefined ? await compareMachines() : undefined;
  if (found === undefined) return true;
  const megabytes = (found.sentBytes / 1e6).toFixed(1);
  tell(
    `a run over TCP, ${megabytes} MB by each: ${found.same ? "the bits of the same run on one machine" : "OTHER BITS"}`,
  );
  return found.same;
}

async function main(runs: number, seed: number): Promise<void> {
  const tell = (line: string) => console.log(line);
  const differences = [];
  for (const adapter of ["lavapipe", "swiftshader"]) differences.push(await compareRanks(adapter, tell));
  const kills = await killRanks({ runs, seed, tell });
  const total = (key: "kills" | "named" | "orphans") => kills.reduce((sum, result) => sum + result[key], 0);
  const different = kills.filter(({ same }) => !same).length;
  tell(
    `${runs} runs, ${total("kills")} kills, ${total("named")} named, ${total("orphans")} orphans; ${different} runs ended in other bits`,
  );
  const bad = (await allFaults(tell)).filter(isBad);
  const isSameFar = await tellMachines(tell);
  if (
    !isSameFar ||
    !(Math.max(...differences) <= MOST_DIFFERENCE) ||
    different > 0 ||
    total("named") < total("kills") ||
    bad.length > 0
  )
    process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const missing = missingMpi();
  if (missing !== undefined) throw new Error(missing);
  const [first = "10", second] = process.argv.slice(2);
  if (first === "machines") {
    if (!(await tellMachines(console.log))) process.exitCode = 1;
  } else if (first !== "faults") await main(Number(first), Number(second ?? 1));
  else if ((await allFaults(console.log, { chooses: (fault) => fault.includes(second ?? "") })).some(isBad))
    process.exitCode = 1;
}
