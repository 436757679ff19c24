/**
 * Times whole KTO updates, the steps of the benchmark, of this checkout against another one. Each checkout trains in a
 * process of its own and one update of each takes turns, so that the machine's other work meets both alike.
 *
 *   npx tsx bench/experiments/steps-against.ts OTHER [--rounds N] [--steps a,b,c] [--json FILE]
 *
 * OTHER is the folder of the other checkout, with its packages installed. What is compared is the median over the
 * rounds of the ratio of the two times of a round, wall time and processor time, which is a software adapter's own.
 * `--steps` takes some of the steps, default a and b. KTO_ADAPTER and KTO_FEATURES choose the device; KTO_TUNING=off the
 * default kernels.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { commit } from "../../src/engine/platform/node-commit.ts";
import type * as library from "../../src/index.ts";
import { summary } from "../measure/measure.ts";
import { writeRandomModel } from "../random-model.ts";
import { stepCases, stepExamples, stepOptions } from "../step.ts";
import { now, since, type Timed } from "./timed.ts";

const WARM_UP = 2;

/**
 * Trains the model in `folder` with the library of `checkout`: one update for each message; the answer is its
 * wall and processor milliseconds.
 */
async function serve(checkout: string, folder: string, name: string, updates: number): Promise<void> {
  const index = pathToFileURL(join(checkout, "src", "index.ts")).href;
  const { Device, KtoTrainer, Model } = (await import(index)) as typeof library;
  const one = stepCases.find((step) => step.name === name);
  if (one === undefined) throw new Error(`the benchmark has no step ${name}`);
  const { batch, options } = one;
  const device = await Device.open();
  const policy = await Model.load(device, folder);
  const trainer = await KtoTrainer.create({
    policy,
    examples: stepExamples(batch, policy.config.vocabSize),
    options: { ...stepOptions(batch, updates), ...options },
  });
  const steps = trainer[Symbol.asyncIterator]();
  process.on("message", async () => {
    const start = now();
    await steps.next();
    await device.idle();
    process.send?.(since(start));
  });
  process.send?.(device.description);
}

async function answer(child: ChildProcess): Promise<unknown> {
  const [value] = (await Promise.race([once(child, "message"), failure(child)])) as [unknown];
  return value;
}

async function failure(child: ChildProcess): Promise<never> {
  const [code] = await once(child, "exit");
  throw new Error(`a checkout's process ended with code ${code}`);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "15" },
    steps: { type: "string", default: "a,b" },
    json: { type: "string" },
    serve: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const [other = "", folder = "", name = ""] = positionals;

if (values.serve !== undefined) {
  await serve(values.serve, folder, name, rounds + WARM_UP);
} else {
  if (other === "") throw new Error("name the folder of the other checkout");
  const here = fileURLToPath(new URL("../..", import.meta.url));
  const models = mkdtempSync(join(tmpdir(), "kto-steps-"));
  const results = [];
  try {
    const letters = values.steps.split(",");
    for (const one of stepCases.filter(({ name }) => letters.some((letter) => name.includes(`(${letter})`)))) {
      await writeRandomModel(models, one.config, 1);
      const children = [resolve(other), here].map((checkout) =>
        fork(
          fileURLToPath(import.meta.url),
          ["--serve", checkout, "--rounds", String(rounds), other, models, one.name],
          {
            stdio: ["ignore", "inherit", "inherit", "ipc"],
          },
        ),
      );
      const adapters = await Promise.all(children.map(answer));
      const times: Timed[][] = [[], []];
      for (let round = 0; round < rounds + WARM_UP; round++) {
        // Who goes first alternates, so that neither always follows the other's garbage collection.
        for (const which of round % 2 === 0 ? [0, 1] : [1, 0]) {
          const child = children[which];
          if (child === undefined) continue;
          child.send("next");
          const time = (await answer(child)) as Timed;
          if (round >= WARM_UP) times[which]?.push(time);
        }
      }
      for (const child of children) child.kill();
      const [befores = [], afters = []] = times;
      const wall = (of: readonly Timed[]) => of.map(({ ms }) => ms);
      const ratio = (of: (time: Timed) => number) =>
        summary(befores.map((before, round) => of(before) / of(afters[round] ?? before))).medianMs;
      const result = {
        ...{ name: one.name, adapter: adapters[1], rounds },
        ...{ before_ms: summary(wall(befores)).medianMs, after_ms: summary(wall(afters)).medianMs },
        ...{ ratio: ratio(({ ms }) => ms), processor_ratio: ratio(({ processorMs }) => processorMs) },
        ...{ least_before_ms: Math.min(...wall(befores)), least_after_ms: Math.min(...wall(afters)) },
      };
      results.push(result);
      console.log(
        `${one.name}: median ${result.before_ms.toFixed(1)} -> ${result.after_ms.toFixed(1)} ms, least ` +
          `${result.least_before_ms.toFixed(1)} -> ${result.least_after_ms.toFixed(1)} ms, ${result.ratio.toFixed(3)} times as fast, by processor time ${result.processor_ratio.toFixed(3)}`,
      );
    }
  } finally {
    rmSync(models, { recursive: true });
  }
  const file = { date: new Date().toISOString(), commit: commit(), other, results };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(file, null, 2)}\n`);
}
