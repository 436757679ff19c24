/**
 * Times generation by this checkout against that by another one, in one process, in turns, with the copy between them,
 * so that the machine's other work meets all alike: tokens a second, bytes of weights read a second, and their share of
 * the copy, for 1, 4 and 16 sequences, by the wall clock and, on software adapters, by the processor time too, which
 * the machine's other work hardly changes. Both must generate the same tokens.
 *
 *   npx tsx bench/experiments/generation.ts OTHER [--shape NAME] [--rounds N] [--tokens N] [--out FILE]
 *
 * Writes FILE.json and FILE.txt. OTHER is the folder of the other checkout, with its packages installed. The model has
 * random bf16 weights, which fit no cache, in the shape of smollm2 (135M, 269 MB) or qwen3 (0.6B, 1.2 GB). KTO_ADAPTER and KTO_FEATURES choose the device; kernels are the defaults.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { Model } from "../../src/engine/model/model.ts";
import { type Generates, type GenerationSizes, generationCases, tokenStamps, weightBytes } from "../generation.ts";
import { summary } from "../measure/measure.ts";
import { copyPrograms } from "../measure/peaks.ts";
import { qwen3Shape, smolLM2Shape } from "../model-shapes.ts";
import { writeLargeRandomModel } from "../random-model.ts";
import { now, since, type Timed } from "./timed.ts";

/** One, since a checkout may run all longer prompts in a pass of a thousand rows. */
const PROMPT_TOKENS = 1;
/** Runs of each way to copy in a round. */
const COPIES = 3;

const median = (values: readonly number[]) => summary(values).medianMs;
/** The two clocks; a processor time is given as if it were spread over all cores. */
const CLOCKS = {
  wall: ({ ms }: Timed) => ms,
  processor: ({ processorMs }: Timed) => processorMs / cpus().length,
} as const;
type Clock = keyof typeof CLOCKS;

/** What of a checkout generates; each has modules, a device and a model of its own. */
interface Checkout {
  readonly Device: typeof Device;
  readonly Generator: typeof Generator;
  readonly Model: typeof Model;
}

async function checkoutAt(folder: string): Promise<Checkout> {
  const load = async <T>(file: string) => (await import(pathToFileURL(join(folder, "src/engine", file)).href)) as T;
  return {
    ...(await load<Pick<Checkout, "Device">>("gpu/device.ts")),
    ...(await load<Pick<Checkout, "Generator">>("model/generate/generate.ts")),
    ...(await load<Pick<Checkout, "Model">>("model/model.ts")),
  };
}

const commitOf = (folder: string) =>
  execFileSync("git", ["-C", folder, "rev-parse", "--short", "HEAD"]).toString().trim();

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: "string", default: "smollm2" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "9" },
    out: { type: "string" },
  },
});
const [other] = positionals;
if (other === undefined) throw new Error("name the folder of the other checkout");
const shapes: Readonly<Record<string, typeof qwen3Shape | typeof smolLM2Shape>> = {
  smollm2: smolLM2Shape,
  qwen3: qwen3Shape,
};
const shape = shapes[values.shape];
if (shape === undefined) throw new Error(`--shape is one of ${Object.keys(shapes).join(", ")}`);
const newTokens = Number(values.tokens);
const folders = { before: resolve(other), after: resolve(import.meta.dirname, "../..") };
const scratch = mkdtempSync(join(tmpdir(), "kto-generation-"));
const device = await Device.open({ tuning: "off" });
const copy = copyPrograms(device);
const theirs = await checkoutAt(folders.before);
const theirDevice = await theirs.Device.open({ tuning: "off" });
try {
  await writeLargeRandomModel(scratch, shape, 1);
  const model = await Model.load(device, scratch);
  const theirModel = await theirs.Model.load(theirDevice, scratch);
  const { vocabSize } = model.config;
  const bytes = weightBytes(model);
  const { parameterCount } = model.layout;
  const lines: string[] = [];
  const say = (line: string) => {
    lines.push(line);
    console.log(line);
  };
  const clocks: readonly Clock[] = device.isSoftware ? ["wall", "processor"] : ["wall"];
  const copyBytes = copy.programs[0]?.cost.bytes ?? 0;
  for (const program of copy.programs) await program.prepare();
  const load = () => loadavg().map((value) => value.toFixed(1));
  say(`${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}`);
  say(
    `commit ${commitOf(folders.before)} (before) and ${commitOf(folders.after)} (after), ${new Date().toISOString()}`,
  );
  say(`${cpus().length} cores, load ${load().join(" ")} at the start; ${parameterCount} parameters, ${bytes} bytes`);
  say(
    `medians of ${values.rounds} rounds, in each of which the copy, before and after take turns; spread between quartiles; processor: the time of all threads over ${cpus().length} cores`,
  );
  const results = [];
  for (const { sequences } of generationCases) {
    const sizes = { sequences, promptTokens: PROMPT_TOKENS, newTokens };
    const room = { maxBatch: sequences, maxLength: PROMPT_TOKENS + newTokens };
    const generators = {
      before: new theirs.Generator(theirModel, room),
      after: new Generator(model, room),
    } as const satisfies Record<string, Generates>;
    await expectSameTokens(generators, vocabSize, sequences);
    const rounds: Record<"copy" | "before" | "after", Timed>[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      const copy = await timeCopy();
      const [before, after] = [
        await timePass(generators.before, vocabSize, sizes),
        await timePass(generators.after, vocabSize, sizes),
      ];
      rounds.push({ copy, before, after });
    }
    const figures = (name: "before" | "after", clock: Clock) => {
      const { medianMs, spread } = summary(rounds.map((round) => CLOCKS[clock](round[name])));
      return {
        pass_ms: medianMs,
        spread,
        tokens_per_second: (1000 * sequences) / medianMs,
        weights_gbps: bytes / medianMs / 1e6,
        share_of_copy: median(
          rounds.map((round) => bytes / CLOCKS[clock](round[name]) / (copyBytes / CLOCKS[clock](round.copy))),
        ),
      };
    };
    const by = (clock: Clock) => ({
      copy_gbps: copyBytes / median(rounds.map(({ copy }) => CLOCKS[clock](copy))) / 1e6,
      before: figures("before", clock),
      after: figures("after", clock),
      /** How many times as fast as before: the median of the rounds' ratios. */
      ratio: median(rounds.map(({ before, after }) => CLOCKS[clock](before) / CLOCKS[clock](after))),
    });
    const result = { sequences, wall: by("wall"), processor: by("processor"), load: load() };
    results.push(result);
    for (const clock of clocks) {
      for (const name of ["before", "after"] as const) {
        const { pass_ms, spread, tokens_per_second, weights_gbps, share_of_copy } = result[clock][name];
        say(
          `${String(sequences).padStart(2)} ${sequences === 1 ? "sequence " : "sequences"} ${clock.padEnd(9)} ${name.padEnd(6)} ${tokens_per_second.toFixed(1).padStart(6)} tokens/s  pass ${pass_ms.toFixed(1).padStart(6)} ms (spread ${(100 * spread).toFixed(0)}%)  weights at ${weights_gbps.toFixed(2)} GB/s, ${(100 * share_of_copy).toFixed(0)}% of the copy (${result[clock].copy_gbps.toFixed(2)} GB/s)`,
        );
      }
    }
    say(
      `   ${clocks.map((clock) => `${result[clock].ratio.toFixed(2)} times as fast (${clock})`).join(", ")}; load ${result.load.join(" ")}`,
    );
    generators.before.free();
    generators.after.free();
  }
  const [one, most] = [results[0], results.at(-1)];
  if (one && most) {
    for (const clock of clocks) {
      const times = (name: "before" | "after") =>
        (most[clock][name].tokens_per_second / one[clock][name].tokens_per_second).toFixed(1);
      say(
        `${most.sequences} sequences have ${times("before")} (before) and ${times("after")} (after) times the tokens of one, by ${clock}`,
      );
    }
  }
  if (values.out !== undefined) {
    const report = {
      adapter: device.description,
      commits: { before: commitOf(folders.before), after: commitOf(folders.after) },
      date: new Date().toISOString(),
      ...{ cores: cpus().length, parameters: parameterCount, weight_bytes: bytes, new_tokens: newTokens, results },
    };
    writeFileSync(`${values.out}.json`, `${JSON.stringify(report, null, 2)}\n`);
    writeFileSync(`${values.out}.txt`, `${lines.join("\n")}\n`);
  }
} finally {
  device.close();
  theirDevice.close();
  rmSync(scratch, { recursive: true, force: true });
}

/** The way to copy that takes the least time, by each clock. */
async function timeCopy(): Promise<Timed> {
  const times: Timed[] = [];
  for (const program of copy.programs) {
    for (let run = 0; run < COPIES; run++) {
      const start = now();
      program.run();
      await device.idle();
      times.push(since(start));
    }
  }
  const best = (of: (time: Timed) => number) =>
    Math.min(...copy.programs.map((_, way) => median(times.slice(way * COPIES, (way + 1) * COPIES).map(of))));
  return { ms: best(({ ms }) => ms), processorMs: best(({ processorMs }) => processorMs) };
}

/** The median time from a token to the next one. */
async function timePass(generator: Generates, vocabSize: number, sizes: GenerationSizes): Promise<Timed> {
  const stamps = await tokenStamps(generator, vocabSize, sizes, now);
  const between = (of: (time: Timed) => number) =>
    median(stamps.slice(1).map((stamp, i) => of(stamp) - of(stamps[i] as Timed)));
  return { ms: between(({ ms }) => ms), processorMs: between(({ processorMs }) => processorMs) };
}

/** Also compiles. Greedy tokens of equal weights are equal unless two logits are within rounding. */
async function expectSameTokens(
  generators: Readonly<Record<"before" | "after", Generates>>,
  vocabSize: number,
  sequences: number,
): Promise<void> {
  const prompts = Array.from({ length: sequences }, (_, i) =>
    Array.from({ length: PROMPT_TOKENS }, (_, at) => (7919 * (i * PROMPT_TOKENS + at + 1)) % vocabSize),
  );
  const options = { maxNewTokens: 4, seed: 1, temperature: 0, topK: 0, topP: 1, eosTokenIds: [] };
  const before = await generators.before.generate(prompts, options);
  const after = await generators.after.generate(prompts, options);
  if (JSON.stringify(before) === JSON.stringify(after)) return;
  throw new Error(`other tokens: before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`);
}
