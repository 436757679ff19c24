/** The files of a run that never was, with everything in them that the dashboard shows. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { EventLine } from "../../src/kto/run/event-line.ts";
import type { ExampleLine } from "../../src/kto/run/example-line.ts";
import type { RowLine } from "../../src/kto/run/row-line.ts";
import type { RunFacts } from "../../src/kto/run/run-facts.ts";

const UPDATES = 60;
const ROWS = 48;
const ROWS_OF_UPDATE = 16;
const MIB = 2 ** 20;

const started = Date.UTC(2026, 10, 30, 22);
const lines = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join("");
/** A number from -0.5 to 0.5 that looks random. */
const noise = (seed: number) => ((((Math.sin(seed * 12.9898) * 43758.5453) % 1) + 1) % 1) - 0.5;

/** Whether a row has a thumb up, and its log-ratio after an update: both classes fall, those of thumbs down faster. */
const isUp = (row: number) => row % 4 === 0;
const ratioOf = (row: number, step: number) =>
  (isUp(row) ? -4 : -11) * (step / UPDATES) + 14 * noise(row) * (step / UPDATES);

export function writeToldRun(folder: string, options: Readonly<Record<string, unknown>>): void {
  mkdirSync(folder, { recursive: true });
  const steps = Array.from({ length: UPDATES }, (_, i) => i + 1);
  const write = (name: string, values: readonly unknown[]) => writeFileSync(join(folder, name), lines(values));
  write("metrics.jsonl", steps.flatMap(metricsOf));
  write("examples.jsonl", steps.map(examplesOf));
  write(
    "rows.jsonl",
    Array.from({ length: ROWS }, (_, row) => rowOf(row)),
  );
  write("samples.jsonl", [0, 30, 60].flatMap(samplesOf));
  write("events.jsonl", eventsOf());
  const facts: RunFacts = {
    ...{ started: new Date(started).toISOString(), method: "kto", program: "kto-webgpu 0.1.0" },
    ...{ adapter: "a software adapter", model: "examples/quickstart/model", parameters: 260_032, trained: 260_032 },
    ...{ data: "48 rows, 12 desirable, 36 undesirable", updates: UPDATES, updates_per_epoch: 3 },
    options: { model_name_or_path: "examples/quickstart/model", dataset_name: "feedback.jsonl", ...options },
  };
  writeFileSync(join(folder, "run.json"), JSON.stringify(facts));
}

function metricsOf(step: number): Record<string, number>[] {
  const share = step / UPDATES;
  const [chosen, rejected] = [-0.4 * share, -1.1 * share];
  const line = {
    ...{ step, loss: 1 + 0.05 * noise(step), grad_norm: 2 + noise(step), learning_rate: 5e-4 * (1 - share) },
    ...{ kl: 0, "kl/unclamped": -0.02 - 3 * share + 0.2 * noise(step), saturated: 0.1 * share },
    ...{ "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected },
    ...{ "rewards/accuracies": 0.5 + 0.2 * share, "logps/chosen": -40 - 4 * share, "logps/rejected": -45 - 11 * share },
    ...{ entropy: 1.4, tokens_per_second: 5200 + 300 * noise(step), device_time_share: 0.93 + 0.02 * noise(step) },
    ...{ "bytes/weights": 6 * MIB, "bytes/activations": 4 * MIB, "bytes/optimizer": 2 * MIB, "bytes/batch": 0 },
    ...{ epoch: step / 3, num_tokens: step * 900 },
  };
  if (step % 20 !== 0) return [line];
  const [win, margin] = [0.5 + 0.229 * share, 0.6 * share];
  const evaluation = {
    ...{ step, epoch: step / 3, eval_loss: 1 - 0.05 * share, "eval_rewards/margins": margin },
    ...{ "eval_rewards/margins/low": margin - 0.2, "eval_rewards/margins/high": margin + 0.2 },
    ...{ eval_win_rate: win, "eval_win_rate/low": win - 0.058, "eval_win_rate/high": win + 0.05 },
    ...{ "eval_win_rate/wins": 134, "eval_win_rate/ties": 105, "eval_win_rate/losses": 17 },
  };
  return [line, evaluation];
}

function examplesOf(step: number): ExampleLine {
  const index = Array.from({ length: ROWS_OF_UPDATE }, (_, i) => (step * ROWS_OF_UPDATE + i) % ROWS);
  const [beta, up, down] = [0.1, 3, 1];
  const ratios = index.map((row) => ratioOf(row, step));
  const u = index.map((row, at) => (isUp(row) ? 1 : -1) * beta * (ratios[at] ?? 0));
  const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));
  return {
    ...{ step, beta, desirable_weight: up, undesirable_weight: down, rows: ROWS_OF_UPDATE },
    ...{ z0: [0], z0_unclamped: [-0.02 - step / 20], pairs: [ROWS_OF_UPDATE], index, label: index.map(isUp) },
    ...{ group: index.map(() => 0), log_ratio: ratios, u },
    v: u.map((value, at) => (isUp(index[at] ?? 0) ? up : down) * sigmoid(value)),
    saturated: u.map((value) => sigmoid(value) * (1 - sigmoid(value)) < 0.01),
  };
}

function rowOf(row: number): RowLine {
  const long = "Tom had a red ball and a blue ball, and he liked to play with them in the park every day. ";
  const html = '<img src=x onerror="window.hacked=1"> and <b>bold</b>';
  return {
    ...{ step: 1, index: row, label: isUp(row) },
    prompt: row % 5 === 0 ? `… ${long.repeat(5)}` : "Once upon a time, there was a little girl named Lily.",
    completion: ` She saw ${html}. ${row % 3 === 0 ? `${long.repeat(5)} …` : "She was very happy and said thank you."}`,
  };
}

function samplesOf(step: number) {
  const endings = [
    "the bird was sad and went away.",
    "the bird was happy.",
    "the bird was happy and they were friends.",
  ];
  return ["One day, a bird", "Lily had a box"].map((prompt, index) => ({
    ...{ step, index, prompt, completion: ` saw a big tree. It wanted to fly up, and ${endings[step / 30]}` },
  }));
}

function eventsOf(): EventLine[] {
  const event = (step: number, level: EventLine["level"], text: string): EventLine => {
    return { step, time: new Date(started + 1000 * step).toISOString(), level, text };
  };
  return [
    event(0, "info", "adapter: a software adapter (lavapipe, no GPU: slow)"),
    event(1, "warning", "<b>look</b> at the labels: 12 rows are desirable and 36 undesirable."),
    ...[20, 40, 60].map((step) => event(step, "info", `checkpoint: out/checkpoint-${step}`)),
  ];
}
