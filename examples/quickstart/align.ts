/**
 * The quickstart's run: aligns stories260K, a real small Llama, with thumbs on its own stories, so that its stories end
 * well, and measures base and aligned model on openings that neither feedback nor training has seen. No program
 * (run.ts).
 */
import { writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { Output } from "../../src/cli/terminal/output.ts";
import { showingRun } from "../../src/cli/terminal/run-part.ts";
import { working } from "../../src/cli/terminal/work.ts";
import {
  Device,
  disjoint,
  KtoTrainer,
  linePlots,
  loadTokenizer,
  type Metrics,
  Model,
  readFeedback,
  tokenizeRows,
} from "../../src/index.ts";
import { type Comparison, compare, type Measured, measure } from "./measure.ts";
import { heldOutOpenings } from "./openings.ts";
import { pairText, resultText } from "./print.ts";
import { RunFiles } from "./run-files.ts";
import { feedbackFile, modelFolder, storyTokens } from "./stories.ts";

/** What a run takes and measures. */
export interface RunSize {
  /** Rows of an update. */
  readonly per_device_train_batch_size: number;
  /** Updates. */
  readonly max_steps: number;
  readonly warmup_steps: number;
  readonly learning_rate: number;
  /** Stories per held-out opening and model. */
  readonly perOpening: number;
  /** The least rise of the share of good stories that the run must show. */
  readonly rise: number;
}

/** What `npm run quickstart` does, chosen among a few that were tried; docs/design/method.md has their results. */
export const wholeRun: RunSize = {
  per_device_train_batch_size: 32,
  max_steps: 60,
  warmup_steps: 5,
  learning_rate: 5e-4,
  perOpening: 8,
  rise: 0.3,
};

/** The other options of the training. */
export const training = {
  lr_scheduler_type: "cosine",
  beta: 0.1,
  desirable_weight: "auto",
  undesirable_weight: 1,
  weight_decay: 0,
  seed: 7,
  logging_steps: 1,
} as const;

/** Those of all options that the command line needs to train alike. */
const byHand = [
  ...(["learning_rate", "desirable_weight", "per_device_train_batch_size", "max_steps"] as const),
  ...(["lr_scheduler_type", "warmup_steps", "seed"] as const),
];

const measuringSeed = 2026;

/** The most that the log-prob of a token under the base model may fall, and the share of repeating stories rise. */
const most = { logProbFall: 0.5, repeatingRise: 0.05 } as const;

export interface Aligned {
  readonly before: Measured;
  readonly after: Measured;
  readonly result: Comparison;
  /** What the run should have shown and did not; empty if all is well. */
  readonly failures: readonly string[];
}

/** Aligns and measures, and shows how that goes on; writes model, curves and results into the folder. */
export async function align(size: RunSize, folder: string, output: Output): Promise<Aligned> {
  const say = (text: string): void => output.result(text);
  const started = performance.now();
  const { perOpening, rise, ...updates } = size;
  const options = { ...training, ...updates };
  const device = await working(output, "opening the adapter", () => Device.open());
  if (output.display) output.display.compiling = () => device.compiling;
  try {
    const policy = await working(output, "loading the model", (onProgress) =>
      Model.load(device, modelFolder, { onProgress }),
    );
    const base = Model.copyOf(policy, "reference weights");
    const tokenizer = await loadTokenizer(modelFolder);
    const { vocabSize, contextLength } = policy.config;
    const rows = await readFeedback(feedbackFile);
    // The stories of the feedback were cut in their middle, so no end-of-text token belongs behind them.
    const { examples, report } = tokenizeRows(rows, { tokenizer, vocabSize, contextLength, appendEos: false });

    say(`\nModel     stories260K, a Llama of ${policy.layout.parameterCount} parameters that tells children's stories`);
    say(
      `Feedback  ${examples.length} of its own stories: ${report.desirable} end well (thumbs up), ${report.undesirable} do not (thumbs down)`,
    );

    const measureModel = (model: Model, name: string): Promise<Measured> =>
      working(output, `sampling stories from the ${name} model`, (onProgress) =>
        measure(model, base, tokenizer, heldOutOpenings, { perOpening, seed: measuringSeed, onProgress }),
      );
    const before = await measureModel(policy, "base");

    const files = await RunFiles.create(folder, policy, examples, (sentence) => output.warning(sentence));
    const trainer = await working(output, "preparing the training", () =>
      KtoTrainer.create({ policy, reference: base, examples, options, onStep: (step) => files.add(step) }),
    );
    await files.start(trainer, device.description, { ...options, append_eos: false });
    const weights = trainer.weights;
    say(
      `Training  KTO, ${trainer.totalSteps} updates of ${options.per_device_train_batch_size} rows, beta ${options.beta}, learning rate ${options.learning_rate}, weight of a thumb up ${weights.desirable.toFixed(2)}, of a thumb down ${weights.undesirable.toFixed(2)}\n`,
    );
    const curve: { step: number; metrics: Metrics }[] = [];
    const trainingStarted = performance.now();
    await showingRun(output, { method: "kto", trainer }, async (show) => {
      for await (const update of trainer) {
        const { step, totalSteps, metrics = {} } = update;
        curve.push({ step, metrics });
        await files.addMetrics(trainer);
        show(update);
        if (step % 10 > 0) continue;
        const recent = (name: string) => number(meanOfTen(curve, curve.length - 1, name));
        const left = Math.ceil((((performance.now() - trainingStarted) / step) * (totalSteps - step)) / 1000);
        say(
          `update ${String(step).padStart(3)} of ${totalSteps}   loss ${recent("loss")}   reward of thumbs up ${recent("rewards/chosen")}, of thumbs down ${recent("rewards/rejected")}   margin ${recent("rewards/margins")}   ${left} s left`,
        );
      }
    });
    await files.finish(trainer);
    await working(output, "saving the model", () => trainer.save(folder));
    trainer.free();

    const after = await measureModel(policy, "aligned");
    const result = compare(before, after);

    say(`\nStories on ${heldOutOpenings.length} openings that the feedback does not hold, ${perOpening} for each\n`);
    say(resultText(before, after, result));
    say(
      `\nThe same openings and random numbers, not picked: the first story on each of the first three openings. "…" is where\na story was cut, after ${storyTokens} tokens: models so small seldom end one.\n`,
    );
    for (let index = 0; index < 3; index++) say(pairText(before, after, index));

    const curves = join(folder, "curves.svg");
    await writeFile(curves, plot(curve));
    const json = { seconds: (performance.now() - started) / 1000, ...result.numbers };
    await writeFile(join(folder, "results.json"), `${JSON.stringify(json, null, 2)}\n`);
    const shown = relative(process.cwd(), folder);
    say(`Aligned model     ${shown}  (config.json, model.safetensors, tokenizer.json)`);
    say(`Curves            ${relative(process.cwd(), curves)}, and every update: npx kto-webgpu dashboard ${shown}`);
    say(
      `Another story     npx kto-webgpu generate --model ${shown} --prompt "One day, a girl found a dragon." --seed 3 --max_new_tokens 100`,
    );
    say(
      `Alike by hand     npx kto-webgpu train --model ${relative(process.cwd(), modelFolder)} --dataset ${relative(process.cwd(), feedbackFile)} --output_dir out/my-model ${byHand.map((name) => `--${name} ${options[name]}`).join(" ")} --append_eos false`,
    );
    say(`\n${Math.round(json.seconds)} seconds on ${device.description}.`);
    base.free();
    policy.free();
    return { before, after, result, failures: shortfalls(before, after, rise) };
  } finally {
    device.close();
  }
}

function shortfalls(before: Measured, after: Measured, rise: number): string[] {
  return [
    ...(after.good.share - before.good.share >= rise ? [] : [`the share rose by less than ${rise}`]),
    ...(disjoint(before.good, after.good) ? [] : ["the intervals overlap"]),
    ...(before.logProbPerToken - after.logProbPerToken < most.logProbFall
      ? []
      : [`the log-prob per token fell by ${most.logProbFall} or more`]),
    ...(after.repeating <= before.repeating + most.repeatingRise
      ? []
      : ["the aligned model repeats sentences more often"]),
  ];
}

type Curve = readonly { readonly step: number; readonly metrics: Metrics }[];

/** A microbatch is noisy, so what is shown is the mean of the ten updates up to `at`. */
function meanOfTen(curve: Curve, at: number, name: string): number {
  const window = curve.slice(Math.max(0, at - 9), at + 1).flatMap(({ metrics }) => metrics[name] ?? []);
  return window.reduce((sum, value) => sum + value, 0) / window.length;
}

function number(value: number): string {
  return value.toFixed(2).padStart(5);
}

/** The curves of the run as SVG. */
function plot(curve: Curve): string {
  const smooth = (name: string): [number, number][] => curve.map(({ step }, at) => [step, meanOfTen(curve, at, name)]);
  return linePlots({
    title: "KTO on stories260K (means of ten updates)",
    xLabel: "update",
    panels: [
      { title: "loss", series: [{ name: "loss", points: smooth("loss") }] },
      {
        title: "rewards",
        series: [
          { name: "thumbs up", points: smooth("rewards/chosen") },
          { name: "thumbs down", points: smooth("rewards/rejected") },
          { name: "margin", points: smooth("rewards/margins") },
        ],
      },
      {
        title: "reference point",
        includeY: [0],
        series: [
          { name: "z0 (kl)", points: smooth("kl") },
          { name: "before the clamp at 0", points: smooth("kl/unclamped") },
        ],
      },
      {
        title: "accuracy of the rewards",
        includeY: [0, 1],
        series: [{ name: "rewards/accuracies", points: smooth("rewards/accuracies") }],
      },
    ],
  });
}
