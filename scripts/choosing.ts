/**
 * What beta, the learning rate and the weights do: the quickstart's training (stories260K, 60 updates) with one of them
 * changed at a time, and what comes out of it, for docs/choosing.md and docs/curves.md:
 * `npx tsx scripts/choosing.ts [--only a,b] [--out file.json]`. A setting that is in the file already is not
 * run again, so that the runs can be made one by one. The model is tiny: directions are to be read off, no values for
 * larger ones.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { training, wholeRun } from "../examples/quickstart/align.ts";
import { measure } from "../examples/quickstart/measure.ts";
import { heldOutOpenings } from "../examples/quickstart/openings.ts";
import { feedbackFile, modelFolder } from "../examples/quickstart/stories.ts";
import { commit } from "../src/engine/platform/node-commit.ts";
import { Device, KtoTrainer, loadTokenizer, Model, readFeedback, tokenizeRows } from "../src/index.ts";

const { perOpening: _, rise: __, ...updates } = wholeRun;
const usual = { ...training, ...updates };
/** What differs from the quickstart, by name. */
const settings: Readonly<
  Record<string, { readonly beta?: number; readonly learning_rate?: number; readonly desirable_weight?: number }>
> = {
  quickstart: {},
  "beta 0.01": { beta: 0.01 },
  "beta 0.5": { beta: 0.5 },
  "learning rate 5e-5": { learning_rate: 5e-5 },
  "learning rate 5e-3": { learning_rate: 5e-3 },
  "weights 1 and 1": { desirable_weight: 1 },
};
/** Metrics of training that are kept. */
const kept = [
  ...["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"],
  ...["kl", "kl/unclamped", "saturated", "grad_norm", "entropy"],
];
const seed = 2026;

const { values } = parseArgs({
  options: { only: { type: "string" }, out: { type: "string" }, stories: { type: "string", default: "8" } },
});
const perOpening = Number(values.stories);
/** What the file holds now: another process may have added to it meanwhile. */
const results = (): Record<string, unknown> =>
  values.out !== undefined && existsSync(values.out) ? JSON.parse(readFileSync(values.out, "utf8")) : {};
const device = await Device.open();
const tokenizer = await loadTokenizer(modelFolder);
const base = await Model.load(device, modelFolder);
const { vocabSize, contextLength } = base.config;
const rows = await readFeedback(feedbackFile);
const { examples } = tokenizeRows(rows, { tokenizer, vocabSize, contextLength, appendEos: false });
const environment = { adapter: device.description, commit: commit(), node: process.version, perOpening };

async function figures(model: Model) {
  const { good, ...rest } = await measure(model, base, tokenizer, heldOutOpenings, { perOpening, seed });
  const { logProbPerToken, repeating, distinctTrigrams } = rest;
  return { good, logProbPerToken, repeating, distinctTrigrams };
}

for (const [name, change] of [["base", undefined], ...Object.entries(settings)] as const) {
  if (name in results() || (values.only !== undefined && !values.only.split(",").includes(name))) continue;
  const policy = Model.copyOf(base, "weights");
  const curve: Record<string, number>[] = [];
  if (change !== undefined) {
    const trainer = await KtoTrainer.create({ policy, reference: base, examples, options: { ...usual, ...change } });
    for await (const { step, metrics = {} } of trainer) {
      const chosen = kept.flatMap((metric) => (metrics[metric] === undefined ? [] : [[metric, metrics[metric]]]));
      curve.push({ step, ...Object.fromEntries(chosen) });
    }
    trainer.free();
  }
  const found = { ...(change && { change, curve }), ...(await figures(policy)) };
  policy.free();
  console.log(name, JSON.stringify({ ...found, curve: curve.at(-1) }));
  if (values.out === undefined) continue;
  writeFileSync(values.out, `${JSON.stringify({ ...results(), environment, [name]: found }, null, 1)}\n`);
}
device.close();
