/**
 * logits/chosen, logits/rejected and entropy of a run: against float64, of which update, and that training feels
 * nothing.
 */
import { describe, expect, it } from "vitest";
import type { BatchExample } from "../../../src/kto/method/batch.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { FIXTURES, type FixtureName, float64Fixture, loadModel, readExamples } from "../../helpers/fixtures.ts";
import { exactTokenMetrics } from "../../helpers/token-metrics.ts";

const device = await sharedDevice();
const NAMES = ["logits/chosen", "logits/rejected", "entropy"];

async function train(
  name: FixtureName,
  options: NonNullable<TrainerInputs["options"]>,
  examples: readonly BatchExample[] = readExamples(name),
) {
  const policy = await loadModel(device, name, "policy");
  const trainer = await KtoTrainer.create({ policy, examples, options: { learning_rate: 1e-3, ...options } });
  try {
    const lines: Metrics[] = [];
    for await (const { metrics } of trainer) if (metrics) lines.push(metrics);
    return {
      lines,
      weights: bits(await device.download(wholeArena(policy.weights))),
      gradients: bits(await device.download(wholeArena(trainer.update.optimizer.gradients))),
    };
  } finally {
    trainer.free();
    policy.free();
  }
}

const told = (metrics: Metrics | undefined) => NAMES.map((name) => metrics?.[name]);

function expectExact(name: FixtureName, metrics: Metrics | undefined): void {
  for (const [metric, value] of Object.entries(exactTokenMetrics(float64Fixture(name, "policy"), readExamples(name)))) {
    const found = metrics?.[metric] ?? Number.NaN;
    expect(Math.abs(found - value), `${metric}: ${found} for ${value}`).toBeLessThan(
      1e-4 * Math.max(1, Math.abs(value)),
    );
  }
}

/** All rows in one update, so that float64 need not know the sampler. */
const once = { max_steps: 1, per_device_train_batch_size: 8 };

describe.each(FIXTURES)("%s", (name) => {
  it("are means over the completion tokens of the update, as in float64", async () => {
    expectExact(name, (await train(name, once)).lines[0]);
  });
});

it("so they are over several microbatches, with one reference point for all, and with gradient checkpointing", async () => {
  const accumulated = { ...once, per_device_train_batch_size: 3, gradient_accumulation_steps: 2 };
  expectExact("llama", (await train("llama", accumulated)).lines[0]);
  expectExact("llama", (await train("llama", { ...accumulated, reference_point_scope: "step" })).lines[0]);
  expectExact("llama", (await train("llama", { ...once, gradient_checkpointing: true })).lines[0]);
});

it("tell of the window's last update, and training has the same bits whenever they are told", async () => {
  const options = { max_steps: 4, per_device_train_batch_size: 3 };
  const each = await train("llama", { ...options, logging_steps: 1 });
  const last = await train("llama", { ...options, logging_steps: 4 });
  expect(each.lines).toHaveLength(4);
  expect(last.lines).toHaveLength(1);
  expect(told(last.lines[0])).toEqual(told(each.lines[3]));
  expect(told(each.lines[2])).not.toEqual(told(each.lines[3]));
  expect(last.weights).toEqual(each.weights);
  expect(last.gradients).toEqual(each.gradients);
  expect(last.lines[0]?.grad_norm).toBe(each.lines[3]?.grad_norm);
});

it("a class that the update does not hold has no logits", async () => {
  const examples = readExamples("llama").map((row) => ({ ...row, label: true }));
  const [metrics] = (await train("llama", once, examples)).lines;
  expect(metrics).toHaveProperty(["logits/chosen"]);
  expect(metrics).toHaveProperty(["entropy"]);
  expect(metrics).not.toHaveProperty(["logits/rejected"]);
});
