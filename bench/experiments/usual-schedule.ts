/**
 * Measures what packing and the fused head save: whole updates by our own engine on its own schedule and on the usual
 * one (`usual/step.ts`), alternating in one process after their gradients have been compared. Beside each measured
 * ratio stands the ratio of multiplications, without attention.
 *
 *   npx tsx bench/experiments/usual-schedule.ts [--updates N] [--small] [--json FILE]
 *
 * `--small` takes the shape of stories260K instead of hidden 256: a quick check that it runs, not a measurement.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { Model } from "../../src/engine/model/model.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { type Batch, packBatch } from "../../src/kto/method/batch.ts";
import type { Update } from "../../src/kto/method/update.ts";
import { summary } from "../measure/measure.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { writeRandomModel } from "../random-model.ts";
import {
  expectGradients,
  hidden256,
  STEP_SETTINGS,
  stepExamples,
  stepMethod,
  stepUpdate,
  stories260K,
} from "../step.ts";
import { predictedRatio } from "./usual/prediction.ts";
import { UsualStep } from "./usual/step.ts";

interface Case {
  readonly batch: StepRows;
  readonly reference: "live" | "cached";
  /** The least ratio that is wanted. */
  readonly wanted: number;
}

const cases: readonly Case[] = [
  { batch: { rows: 8, prompt: 64, completion: 64 }, reference: "live", wanted: 1.25 },
  { batch: { rows: 8, prompt: 192, completion: 64 }, reference: "live", wanted: 1.5 },
  { batch: { rows: 8, prompt: 64, completion: 64 }, reference: "cached", wanted: 1.8 },
];

async function measure(device: Device, folder: string, { batch, reference: mode, wanted }: Case, updates: number) {
  const policy = await Model.load(device, folder);
  const reference = Model.copyOf(policy, "reference weights");
  const examples = stepExamples(batch, policy.config.vocabSize);
  const packed = packBatch(examples, { mismatched: true, maxLength: batch.prompt + batch.completion });
  const usual = new UsualStep({ policy, reference, examples, ...stepMethod });
  let ours = stepUpdate(policy, reference, packed);
  try {
    await compare(policy, ours, usual, packed);
    let ready: Batch = packed;
    if (mode === "cached") {
      const { reference: referenceLogProbs } = await ours.readLogProbs(batch.rows);
      ours.free();
      ours = stepUpdate(policy, "cached", packed);
      ready = { ...packed, referenceLogProbs: Float32Array.from(referenceLogProbs) };
    }
    const times = { ours: [] as number[], usual: [] as number[] };
    for (let update = -1; update < updates; update++) {
      for (const which of ["ours", "usual"] as const) {
        const start = performance.now();
        if (which === "ours") await ours.run([ready], STEP_SETTINGS.learningRate, update + 1);
        else await usual.run(STEP_SETTINGS.learningRate);
        await device.idle();
        if (update >= 0) times[which].push(performance.now() - start);
      }
    }
    const [mine, theirs] = [summary(times.ours), summary(times.usual)];
    return {
      shape: `${batch.rows} rows of ${batch.prompt} + ${batch.completion} tokens, ${mode} reference`,
      median_ms: mine.medianMs,
      spread: mine.spread,
      usual_median_ms: theirs.medianMs,
      usual_spread: theirs.spread,
      ratio: theirs.medianMs / mine.medianMs,
      predicted: predictedRatio(policy.config, batch, mode),
      wanted,
    };
  } finally {
    ours.free();
    usual.free();
    reference.free();
    policy.free();
  }
}

/** Both schedules must give the same gradients; what differs is the order of sums. */
async function compare(policy: Model, ours: Update, usual: UsualStep, packed: Batch): Promise<void> {
  await ours.gradients([packed], STEP_SETTINGS.learningRate);
  await usual.gradients(STEP_SETTINGS.learningRate);
  const wanted = await policy.readTensors(ours.optimizer.gradients);
  const found = new Map((await policy.readTensors(usual.optimizer.gradients)).map(({ name, data }) => [name, data]));
  expectGradients(found, wanted, 1e-4);
}

const { values } = parseArgs({
  options: {
    updates: { type: "string", default: "12" },
    small: { type: "boolean", default: false },
    json: { type: "string" },
  },
});
const folder = mkdtempSync(join(tmpdir(), "kto-schedule-"));
const device = await Device.open();
try {
  await writeRandomModel(folder, values.small ? stories260K : hidden256, 1);
  console.log(`${device.description}${device.isSoftware ? " (software: these figures are not a GPU's)" : ""}`);
  const results: Awaited<ReturnType<typeof measure>>[] = [];
  for (const one of cases) {
    const result = await measure(device, folder, one, Number(values.updates));
    results.push(result);
    console.log(
      `${result.shape}: ${result.median_ms.toFixed(1)} ms, usual schedule ${result.usual_median_ms.toFixed(1)} ms: ${result.ratio.toFixed(2)} times (multiplications: ${result.predicted.toFixed(2)}; wanted: ${result.wanted})`,
    );
  }
  if (values.json) {
    const report = { adapter: device.description, commit: commit(), date: new Date().toISOString(), results };
    writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  }
} finally {
  device.close();
  rmSync(folder, { recursive: true });
}
