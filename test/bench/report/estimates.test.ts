/**
 * What the report leaves out, and why: operations as the engine's own programs count them, seconds that follow from the
 * peaks.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { smolLM2Shape } from "../../../bench/model-shapes.ts";
import { writeRandomModel } from "../../../bench/random-model.ts";
import { Budget, seconds } from "../../../bench/report/budget.ts";
import { generationSeconds, modelSize, trainingSeconds, updateFlops } from "../../../bench/report/estimates.ts";
import { partSeconds, parts } from "../../../bench/report/parts.ts";
import { trainingCases } from "../../../bench/report/training.ts";
import { hidden256, timeStep } from "../../../bench/step.ts";
import { sharedDevice } from "../../helpers/device.ts";

let scratch = "";
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "kto-report-"));
});
afterAll(() => rmSync(scratch, { recursive: true }));

describe("operations of an update", () => {
  // A width of 256, so that matmuls outweigh norms and activations, which are not estimated, as in real models;
  // completions of 64, since the head's rows are padded. Attention's kernels count 64 keys a row, whatever the rows
  // are.
  it.each([
    { name: "the whole model", loraRank: undefined },
    { name: "an adapter", loraRank: 4 },
  ])("are those that the engine records, within 15%: $name", async ({ loraRank }) => {
    const shape = { ...hidden256, num_hidden_layers: 2 };
    const folder = join(scratch, `model-${loraRank}`);
    await writeRandomModel(folder, shape, 1);
    const batch = { rows: 2, prompt: 64, completion: 64 };
    const { rows, prompt, completion } = batch;
    const lora = loraRank === undefined ? {} : { loraRank };
    const { flops } = await timeStep(await sharedDevice(), folder, { batch, ...lora }, 1);
    const size = modelSize(shape);
    const [read, trained] = [rows * (prompt + 2 * completion), rows * (prompt + completion)];
    const counted = size.layers * size.attentionWidth * 64 * (2 * 4 * read + 14 * trained);
    const { matmuls } = updateFlops(size, batch, loraRank === undefined);
    expect((matmuls + counted) / flops).toBeGreaterThan(0.85);
    expect((matmuls + counted) / flops).toBeLessThan(1.15);
  });

  it("of attention grow with the square of the row, all others with its length", () => {
    const size = modelSize(smolLM2Shape);
    const short = updateFlops(size, { rows: 1, prompt: 512, completion: 512 }, true);
    const long = updateFlops(size, { rows: 1, prompt: 2048, completion: 2048 }, true);
    expect(long.matmuls / short.matmuls).toBeCloseTo(4, 10);
    expect(long.attention / short.attention).toBeCloseTo(16, 1);
  });
});

describe("a model's size", () => {
  it("is what its name says", () => {
    // 134,515,008 is what the Hub counts in HuggingFaceTB/SmolLM2-135M.
    expect(modelSize(smolLM2Shape).parameters).toBe(134_515_008);
    const { shape } = trainingCases(false).at(-1)?.model ?? { shape: {} };
    expect(modelSize(shape).parameters).toBe(596_049_920); // Qwen/Qwen3-0.6B
  });
});

describe("seconds", () => {
  const size = modelSize(smolLM2Shape);
  const work = { flops: 1e13, updates: 10, software: false };

  it("of training follow the peak, but for what is no computation", () => {
    const slow = trainingSeconds(size, work, { gflops: 100, gbps: 10 });
    const fast = trainingSeconds(size, work, { gflops: 10_000, gbps: 10 });
    expect(slow).toBeGreaterThan(10 * (1e13 / 100e9));
    expect(fast).toBeLessThan(60);
    expect(fast).toBeGreaterThan(10 * (1e13 / 10_000e9));
  });

  it("of generation follow the bandwidth and the sequences", () => {
    const one = { weightBytes: 270e6, sequences: 1, passes: 100, software: false };
    const peaks = { gflops: 1000, gbps: 100 };
    const base = generationSeconds(size, one, peaks);
    expect(generationSeconds(size, one, { ...peaks, gbps: 10 }) - base).toBeCloseTo(
      (100 * 270e6 * 9) / (0.25 * 100e9),
      5,
    );
    expect(generationSeconds(size, { ...one, sequences: 16 }, peaks)).toBeGreaterThan(base);
  });
});

describe("a budget", () => {
  it("leaves out what does not fit any more, with the estimate", () => {
    let now = 0;
    const budget = new Budget(60, () => now);
    expect(budget.leavesOut("short", 59)).toBeUndefined();
    now = 50_000;
    expect(budget.leavesOut("long", 400)).toEqual({
      kind: "left out",
      name: "long",
      reason: "it would take about 7 min on this adapter, and 10 s were left",
      estimatedSeconds: 400,
    });
    now = 70_000;
    expect(budget.leavesOut("short", 1)).toMatchObject({ reason: expect.stringMatching(/ 0\.0 s were left$/) });
  });

  it("passes on what a part does not need, and leaves a late part a third of its own", () => {
    const shares = parts.map(({ share }) => share);
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 10);
    const [first = 0, second = 0] = shares;
    expect(partSeconds(0, 600, 0)).toBeCloseTo(600 * first, 10);
    expect(partSeconds(1, 600, 1)).toBeCloseTo(600 * (first + second) - 1, 10);
    expect(partSeconds(1, 600, 500)).toBeCloseTo((600 * second) / 3, 10);
  });

  it.each([
    [3.44, "3.4 s"],
    [59.6, "60 s"],
    [299, "299 s"],
    [900, "15 min"],
    [9000, "2.5 h"],
  ])("says %d seconds as %s", (value, text) => expect(seconds(value)).toBe(text));
});
