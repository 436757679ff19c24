/**
 * Runs of `kto train` that are killed by SIGKILL at random moments, also while a checkpoint is being written, and
 * resumed until they end: their weights, metrics and state must be those of a run that was left alone, bit by bit. Runs
 * that save every second update keep moments in 8 bits.
 *
 *     npx tsx scripts/kill-test.ts [runs, default 20] [seed, default 1]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Random } from "../src/engine/random.ts";

export interface KillTestOptions {
  readonly runs: number;
  readonly seed: number;
  /** Updates of a run; each is followed by a checkpoint, or every second one. */
  readonly steps?: number;
  /** Kills of a run at most, after which it is left alone. */
  readonly mostKills?: number;
  /** Values of save_steps, in turn; default 1 and 2. */
  readonly saveEvery?: readonly (1 | 2)[];
  readonly tell?: (line: string) => void;
}

export interface KilledRun {
  readonly kills: number;
  /** Kills that left a folder behind which was being written or thrown away. */
  readonly whileSaving: number;
  readonly saveSteps: number;
  readonly same: boolean;
}

const root = join(import.meta.dirname, "..");
const model = join(root, "examples", "quickstart", "model");
const feedback = join(root, "examples", "quickstart", "feedback.jsonl");

function train(output: string, steps: number, saveSteps: number, resume: boolean): ChildProcess {
  const words = [
    ...["train", "--model_name_or_path", model, "--dataset_name", feedback, "--output_dir", output],
    ...["--per_device_train_batch_size", "2", "--max_steps", String(steps), "--learning_rate", "5e-4"],
    ...["--logging_steps", "2", "--save_steps", String(saveSteps), "--save_total_limit", "2", "--log_level", "error"],
    ...["--max_length", "64", "--optim", saveSteps === 2 ? "adamw_8bit" : "adamw_torch"],
    ...(resume ? ["--resume_from_checkpoint"] : []),
  ];
  return spawn(process.execPath, [join(root, "bin", "kto.js"), ...words], { stdio: ["ignore", "ignore", "pipe"] });
}

/** Waits for the end; kills `afterMs` after the run has begun to write, if it still runs then. */
async function finish(
  child: ChildProcess,
  output: string,
  afterMs?: number,
): Promise<{ code: number | null; text: string }> {
  let text = "";
  child.stderr?.on("data", (chunk) => {
    text += String(chunk);
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  if (afterMs !== undefined) {
    const before = marks(output);
    let open = true;
    void ended.then(() => {
      open = false;
    });
    // A process takes seconds to start: the clock runs from its first sign of life in the folder.
    while (open && marks(output) === before) await new Promise((resolve) => setTimeout(resolve, 2));
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    child.kill("SIGKILL");
  }
  return { code: await ended, text };
}

function marks(output: string): string {
  return existsSync(output)
    ? readdirSync(output)
        .filter((name) => name.includes("checkpoint"))
        .join()
    : "";
}

/** What must be equal: the weights and the metrics of the run, except those about time and memory. */
function resultOf(output: string): string {
  const timeless = (text: string) =>
    text.replace(/"([a-z_]*_per_second|device_time_share|bytes\/\w+)": ?[\d.e-]+,?/g, "").replaceAll(output, "");
  return createHash("sha256")
    .update(readFileSync(join(output, "model.safetensors")))
    .update(timeless(readFileSync(join(output, "metrics.jsonl"), "utf8")))
    .update(timeless(readFileSync(join(output, "trainer_state.json"), "utf8")))
    .digest("hex");
}

/** @throws Error when a run fails of itself */
export async function killTest(options: KillTestOptions): Promise<KilledRun[]> {
  const { runs, seed, steps = 8, mostKills = 3, saveEvery = [1, 2], tell = () => undefined } = options;
  const folder = mkdtempSync(join(tmpdir(), "kto-kill-"));
  const random = new Random(seed);
  const wanted = new Map<number, string>();
  const results: KilledRun[] = [];
  try {
    for (const saveSteps of saveEvery.slice(0, runs)) {
      const output = join(folder, `whole-${saveSteps}`);
      const { code, text } = await finish(train(output, steps, saveSteps, false), output);
      if (code !== 0) throw new Error(`the run without kills ended with ${code}: ${text}`);
      wanted.set(saveSteps, resultOf(output));
    }
    tell("  run  save_steps  kills  while saving  the same bits");
    for (let run = 0; run < runs; run++) {
      const saveSteps = saveEvery[run % saveEvery.length] ?? 1;
      const output = join(folder, `run-${run}`);
      let kills = 0;
      let whileSaving = 0;
      for (;;) {
        const resume = existsSync(output) && readdirSync(output).some((name) => /^checkpoint-\d+$/.test(name));
        const delay = kills < mostKills ? random.below(400) : undefined;
        const { code, text } = await finish(train(output, steps, saveSteps, resume), output, delay);
        if (code === 0) break;
        if (code !== null) throw new Error(`run ${run} ended with ${code}: ${text}`);
        kills++;
        if (readdirSync(output).some((name) => name.startsWith(".checkpoint-"))) whileSaving++;
      }
      const same = resultOf(output) === wanted.get(saveSteps);
      results.push({ kills, whileSaving, saveSteps, same });
      tell(
        `${String(run + 1).padStart(5)}${String(saveSteps).padStart(12)}${String(kills).padStart(7)}${String(whileSaving).padStart(14)}  ${same ? "yes" : "NO"}`,
      );
      rmSync(output, { recursive: true, force: true });
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [runs = 20, seed = 1] = process.argv.slice(2).map(Number);
  const results = await killTest({ runs, seed, tell: (line) => console.log(line) });
  const sum = (key: "kills" | "whileSaving") => results.reduce((total, result) => total + result[key], 0);
  const different = results.filter(({ same }) => !same).length;
  console.log(
    `${results.length} runs, ${sum("kills")} kills, ${sum("whileSaving")} of them while a checkpoint was being written; ${different} runs ended in other bits`,
  );
  if (different > 0) process.exitCode = 1;
}
