/**
 * The quickstart: aligns stories260K, a real small Llama, with thumbs on its own stories, so that its stories end well,
 * then measures base and aligned model on openings that neither feedback nor training has seen. `npm run quickstart`.
 * Exits with 1 when the run does not show what it promises.
 */
import { writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { Output } from "../../src/cli/terminal/output.ts";
import { showingRun } from "../../src/cli/terminal/run-part.ts";
import { working } from "../../src/cli/terminal/work.ts";
import {
  Device,
  disjoint,
  KtoError,
  KtoTrainer,
  linePlots,
  loadTokenizer,
  type Metrics,
  Model,
  readFeedback,
  tokenizeRows,
} from "../../src/index.ts";
import { compare, type Measured, measure } from "./measure.ts";
import { heldOutOpenings } from "./openings.ts";
import { pairText, resultText } from "./print.ts";
import { feedbackFile, modelFolder } from "./stories.ts";

/** The options of the training, chosen among a few that were tried; docs/design/method.md has their results. */
const training = {
  per_device_train_batch_size: 32,
  max_steps: 60,
  learning_rate: 5e-4,
  lr_scheduler_type: "cosine",
  warmup_steps: 5,
  beta: 0.1,
  desirable_weight: "auto",
  undesirable_weight: 1,
  weight_decay: 0,
  seed: 7,
  logging_steps: 1,
} as const;

/** Stories per held-out opening and model. */
const perOpening = 8;
const measuringSeed = 2026;

/** The least effect that a run must show. */
const promise = { rise: 0.3, logProbFall: 0.5 } as const;

const folder = resolve(process.cwd(), "out", "quickstart");

async function main(): Promise<boolean> {
  const started = performance.now();
  const { stdout } = process;
  // All of it to stdout, since npm's scripts may read stderr. Without a terminal the lines of every ten updates are
  // enough.
  const streams = { stdout, stderr: stdout };
  const output = new Output(streams, { json: false, log_level: "info", quiet: stdout.isTTY !== true });
  const say = (text: string): void => output.result(text);
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

    const trainer = await working(output, "preparing the training", () =>
      KtoTrainer.create({ policy, reference: base, examples, options: training }),
    );
    const weights = trainer.weights;
    say(
      `Training  KTO, ${trainer.totalSteps} updates of ${training.per_device_train_batch_size} rows, beta ${training.beta}, learning rate ${training.learning_rate}, weight of a thumb up ${weights.desirable.toFixed(2)}, of a thumb down ${weights.undesirable.toFixed(2)}\n`,
    );
    const curve: { step: number; metrics: Metrics }[] = [];
    const trainingStarted = performance.now();
    await showingRun(output, { method: "kto", trainer }, async (show) => {
      for await (const update of trainer) {
        const { step, totalSteps, metrics = {} } = update;
        curve.push({ step, metrics });
        show(update);
        if (step % 10 > 0) continue;
        const recent = (name: string) => number(meanOfTen(curve, curve.length - 1, name));
        const left = Math.ceil((((performance.now() - trainingStarted) / step) * (totalSteps - step)) / 1000);
        say(
          `update ${String(step).padStart(3)} of ${totalSteps}   loss ${recent("loss")}   reward of thumbs up ${recent("rewards/chosen")}, of thumbs down ${recent("rewards/rejected")}   margin ${recent("rewards/margins")}   ${left} s left`,
        );
      }
    });
    await working(output, "saving the model", () => trainer.save(folder));
    trainer.free();

    const after = await measureModel(policy, "aligned");
    const result = compare(before, after);

    say(`\nStories on ${heldOutOpenings.length} openings that the feedback does not hold, ${perOpening} for each\n`);
    say(resultText(before, after, result));
    say("\nThe same openings and random numbers, not picked: the first story on each of the first three openings.\n");
    for (let index = 0; index < 3; index++) say(pairText(before, after, index));

    const curves = join(folder, "curves.svg");
    await writeFile(curves, plot(curve));
    const json = { seconds: (performance.now() - started) / 1000, ...result.numbers };
    await writeFile(join(folder, "results.json"), `${JSON.stringify(json, null, 2)}\n`);
    const shown = relative(process.cwd(), folder);
    say(`Aligned model     ${shown}  (config.json, model.safetensors, tokenizer.json)`);
    say(`Curves            ${relative(process.cwd(), curves)}`);
    say(
      `Another story     npx kto-webgpu generate --model ${shown} --prompt "One day, a girl found a dragon." --seed 3 --max_new_tokens 100`,
    );
    say(
      `Alike by hand     npx kto-webgpu train --model ${relative(process.cwd(), modelFolder)} --dataset ${relative(process.cwd(), feedbackFile)} --output_dir out/my-model --learning_rate 5e-4 --desirable_weight auto --per_device_train_batch_size 32 --max_steps 60 --lr_scheduler_type cosine --warmup_steps 5 --seed 7 --append_eos false`,
    );
    say(`\n${Math.round(json.seconds)} seconds on ${device.description}.`);

    const failures = [
      ...(after.good.share - before.good.share >= promise.rise ? [] : [`the share rose by less than ${promise.rise}`]),
      ...(disjoint(before.good, after.good) ? [] : ["the intervals overlap"]),
      ...(before.logProbPerToken - after.logProbPerToken < promise.logProbFall
        ? []
        : [`the log-prob per token fell by ${promise.logProbFall} or more`]),
      ...(after.repeating <= before.repeating + 0.05 ? [] : ["the aligned model repeats sentences more often"]),
    ];
    if (failures.length > 0)
      process.stderr.write(`error: this run shows less than it should: ${failures.join("; ")}.\n`);
    return failures.length === 0;
  } finally {
    device.close();
  }
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

if (process.argv.length > 2) {
  process.stderr.write(
    `error: the quickstart takes no options (found "${process.argv[2]}"); the environment variable KTO_ADAPTER chooses the adapter.\n`,
  );
  process.exitCode = 2;
} else {
  try {
    if (!(await main())) process.exitCode = 1;
  } catch (error) {
    if (!(error instanceof KtoError)) throw error;
    process.stderr.write(`error: ${error.message}\n`);
    process.exitCode = error.exitCode;
  }
}
