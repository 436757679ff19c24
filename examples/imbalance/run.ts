/**
 * The imbalance study: with a tenth of the desirable rows, do the weights that `auto` solves for end with a better
 * validation accuracy than weights 1 and 1? `npx tsx examples/imbalance/run.ts [seed ...]`; docs/imbalance.md says what
 * is measured. Runs are kept in out/imbalance, so that the seeds may be trained one call at a time. Exits with 1 unless
 * all seeds are there and show the direction.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ConfigError, Device, KtoError, loadTokenizer, Model, tokenizeRows } from "../../src/index.ts";
import { modelFolder } from "../quickstart/stories.ts";
import { judge, maxLength, readComparisons } from "./comparisons.ts";
import { splitOf, validationShare } from "./design.ts";
import { type Labels, type Run, summarize, tableText } from "./summary.ts";
import { trainArm, trainingOptions, validationLogProbs, type Weighting } from "./train.ts";

/** The seeds that are reported; the options were chosen on seed 0. */
const reportedSeeds = [1, 2, 3, 4, 5, 6, 7, 8];

const folder = resolve(process.cwd(), "out", "imbalance");

interface Kept {
  /** `trainingOptions`: runs under others are not mixed with these. */
  readonly options: typeof trainingOptions;
  readonly adapter: string;
  readonly runs: readonly Run[];
}

/** @throws ConfigError where the file holds runs under other options: whoever made them decides what becomes of them */
async function keptRuns(file: string): Promise<readonly Run[]> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  const kept = JSON.parse(text) as Kept;
  if (JSON.stringify(kept.options) === JSON.stringify(trainingOptions)) return kept.runs;
  throw new ConfigError(`${file} holds runs under other options than those of train.ts; move it away first.`);
}

async function main(seeds: readonly number[]): Promise<boolean> {
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  const comparisons = await readComparisons();
  const { rows, ties, unfit } = judge(comparisons);
  const tokenizer = await loadTokenizer(modelFolder);
  const { examples } = tokenizeRows(rows, { tokenizer, vocabSize: 512, contextLength: 512, maxLength });
  say(
    `${comparisons.length} comparisons; left out: ${ties} ties, ${unfit} with an empty answer; ${examples.length} rows, half of them desirable`,
  );
  await mkdir(folder, { recursive: true });
  const file = join(folder, "results.json");
  const runs = [...(await keptRuns(file))];
  const device = await Device.open();
  try {
    const base = await Model.load(device, modelFolder);
    for (const seed of seeds) {
      const truth = splitOf(examples, seed, false).validation;
      const before = await validationLogProbs(base, truth);
      for (const labels of ["annotators", "shuffled"] as const satisfies Labels[]) {
        const split = splitOf(examples, seed, labels === "shuffled");
        for (const weighting of ["1/1", "auto"] as const satisfies Weighting[]) {
          if (runs.some((run) => run.seed === seed && run.labels === labels && run.weighting === weighting)) continue;
          const outcome = await trainArm(device, { split, weighting, seed, truth, before });
          runs.push({ seed, labels, weighting, outcome });
          const kept: Kept = { options: trainingOptions, adapter: device.description, runs };
          await writeFile(file, `${JSON.stringify(kept, null, 2)}\n`);
          const desirable = split.training.filter(({ label }) => label).length;
          say(
            `seed ${seed}, ${labels}, weights ${weighting}: ${desirable} desirable and ${split.training.length - desirable} undesirable rows, ${outcome.updates} updates; of ${split.validation.length} validation rows ${(100 * outcome.accuracy).toFixed(1)}% right; ${outcome.seconds.toFixed(0)} s`,
          );
        }
      }
    }
  } finally {
    device.close();
  }
  const reported = runs.filter(({ seed }) => reportedSeeds.includes(seed));
  const missing = reportedSeeds.filter((seed) => reported.filter((run) => run.seed === seed).length < 4);
  if (missing.length > 0) {
    process.stderr.write(`The study is not whole: seeds ${missing.join(", ")} are missing.\n`);
    return false;
  }
  const summary = summarize(reported, validationShare / (1 - validationShare));
  say(`\n${tableText(summary)}\n`);
  const { wins, losses, ties: even, low, high } = summary.wins;
  say(
    `In ${wins} seeds of ${reportedSeeds.length} auto is better, in ${losses} worse, in ${even} the same (95% interval ${(100 * low).toFixed(0)}% to ${(100 * high).toFixed(0)}%).`,
  );
  await writeFile(join(folder, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
  if (summary.failures.length > 0)
    process.stderr.write(`error: the direction is not shown: ${summary.failures.join("; ")}.\n`);
  return summary.failures.length === 0;
}

const given = process.argv.slice(2).map(Number);
if (given.some((seed) => !Number.isInteger(seed) || seed < 0)) {
  process.stderr.write(`error: seeds are whole numbers (found "${process.argv.slice(2).join(" ")}").\n`);
  process.exitCode = 2;
} else {
  try {
    if (!(await main(given.length > 0 ? given : reportedSeeds))) process.exitCode = 1;
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    process.exitCode = error.exitCode;
  }
}
