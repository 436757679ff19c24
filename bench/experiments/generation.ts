/**
 * Times generation by this checkout against that by another one, in one process, in turns, with the copy between them, so
 * that the machine's other work meets all alike: tokens a second, bytes of weights read a second, and their share of the
 * copy, for 1, 4 and 16 sequences. Both must generate the same tokens.
 *
 *   npx tsx bench/experiments/generation.ts OTHER [--rounds N] [--tokens N] [--out FILE]     writes FILE.json and FILE.txt
 *
 * OTHER is the folder of the other checkout, with its packages installed. The model is SmolLM2-135M's shape with random
 * bf16 weights, 269 MB, which fit no cache. KTO_ADAPTER and KTO_FEATURES choose the device; kernels are the defaults.
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
import { type Generates, generationCases, passTimes } from "../generation.ts";
import { summary } from "../measure/measure.ts";
import { measureCopy } from "../measure/peaks.ts";
import { writeLargeRandomModel } from "../random-model.ts";

const PROMPT_TOKENS = 8;
const COPY = { leastMs: 100, repetitions: 3 };

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
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "9" },
    out: { type: "string" },
  },
});
const [other] = positionals;
if (other === undefined) throw new Error("name the folder of the other checkout");
const newTokens = Number(values.tokens);
const folders = { before: resolve(other), after: resolve(import.meta.dirname, "../..") };
const scratch = mkdtempSync(join(tmpdir(), "kto-generation-"));
const device = await Device.open({ tuning: "off" });
const theirs = await checkoutAt(folders.before);
const theirDevice = await theirs.Device.open({ tuning: "off" });
try {
  const [first] = generationCases;
  if (first === undefined) throw new Error("there is no case");
  await writeLargeRandomModel(scratch, first.config, 1);
  const model = await Model.load(device, scratch);
  const theirModel = await theirs.Model.load(theirDevice, scratch);
  const { vocabSize } = model.config;
  const { bytes, parameterCount } = model.layout;
  const lines: string[] = [];
  const say = (line: string) => {
    lines.push(line);
    console.log(line);
  };
  const load = () => loadavg().map((value) => value.toFixed(1));
  say(`${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}`);
  say(
    `commit ${commitOf(folders.before)} (before) and ${commitOf(folders.after)} (after), ${new Date().toISOString()}`,
  );
  say(`${cpus().length} cores, load ${load().join(" ")} at the start; ${parameterCount} parameters, ${bytes} bytes`);
  say(
    `medians over ${values.rounds} rounds, in each of which the copy, before and after take turns; spread: quartiles`,
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
    const [copies, times]: [number[], Record<"before" | "after", number[]>] = [[], { before: [], after: [] }];
    const shares: Record<"before" | "after", number[]> = { before: [], after: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      const gbps = await measureCopy(device, COPY);
      copies.push(gbps);
      for (const name of ["before", "after"] as const) {
        const { medianMs } = summary(await passTimes(generators[name], vocabSize, sizes));
        times[name].push(medianMs);
        shares[name].push(bytes / medianMs / 1e6 / gbps);
      }
    }
    const figures = (name: "before" | "after") => {
      const { medianMs, spread } = summary(times[name]);
      return {
        pass_ms: medianMs,
        spread,
        tokens_per_second: (1000 * sequences) / medianMs,
        weights_gbps: bytes / medianMs / 1e6,
        share_of_copy: summary(shares[name]).medianMs,
      };
    };
    const result = {
      sequences,
      copy_gbps: summary(copies).medianMs,
      before: figures("before"),
      after: figures("after"),
      /** How many times as fast as before: the median of the rounds' ratios. */
      ratio: summary(times.before.map((ms, round) => ms / (times.after[round] ?? Number.NaN))).medianMs,
      load: load(),
    };
    results.push(result);
    for (const name of ["before", "after"] as const) {
      const { pass_ms, spread, tokens_per_second, weights_gbps, share_of_copy } = result[name];
      say(
        `${String(sequences).padStart(2)} ${sequences === 1 ? "sequence " : "sequences"} ${name.padEnd(6)} ${tokens_per_second.toFixed(1).padStart(7)} tokens/s  pass ${pass_ms.toFixed(1).padStart(6)} ms (spread ${(100 * spread).toFixed(0)}%)  weights at ${weights_gbps.toFixed(2)} GB/s, ${(100 * share_of_copy).toFixed(0)}% of the copy (${result.copy_gbps.toFixed(2)} GB/s)`,
      );
    }
    say(`   ${result.ratio.toFixed(2)} times as fast as before; load ${result.load.join(" ")}`);
    generators.before.free();
    generators.after.free();
  }
  const [one, most] = [results[0], results.at(-1)];
  if (one && most) {
    const times = (name: "before" | "after") => (most[name].tokens_per_second / one[name].tokens_per_second).toFixed(1);
    say(
      `${most.sequences} sequences have ${times("before")} (before) and ${times("after")} (after) times the tokens of one`,
    );
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
