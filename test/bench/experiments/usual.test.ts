/** The usual schedule, which ours is measured against: it must do the same work, or the ratio means nothing. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { predictedRatio } from "../../../bench/experiments/usual/prediction.ts";
import { UsualStep } from "../../../bench/experiments/usual/step.ts";
import { hidden256 } from "../../../bench/step.ts";
import { parseModelConfig } from "../../../src/engine/model/config/config.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { Random } from "../../../src/engine/random.ts";
import { METRIC_SUMS } from "../../../src/kernels/kto-objective.ts";
import { type BatchExample, packBatch } from "../../../src/kto/method/batch.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { llamaConfig, randomModel } from "../../helpers/models.ts";
import { gradientsOf, noOptimizer, updateFor } from "../../helpers/step.ts";

let scratch = "";
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "kto-usual-"));
});
afterAll(() => rmSync(scratch, { recursive: true }));

describe("the usual schedule", () => {
  // 120 tokens are taken in fours, 119 are not.
  test.each([120, 119])(
    "gives our gradients and our loss, for rows of different lengths, %i tokens",
    async (tokens) => {
      const device = await sharedDevice();
      const config = llamaConfig({ num_hidden_layers: 2, vocab_size: tokens });
      const policy = await Model.load(device, await randomModel(scratch, config, 1));
      const reference = await Model.load(device, await randomModel(scratch, config, 2));
      const random = new Random(3);
      const ids = (count: number) => Uint32Array.from({ length: count }, () => random.below(tokens));
      const examples: BatchExample[] = [
        { promptIds: ids(5), completionIds: ids(9), label: true },
        { promptIds: ids(1), completionIds: ids(1), label: false },
        { promptIds: ids(12), completionIds: ids(4), label: true },
      ];
      const objective = { beta: 0.02, desirableWeight: 1, undesirableWeight: 1.3, lossType: "kto" } as const;
      const packed = packBatch(examples, { mismatched: true, maxLength: 64 });
      const ours = updateFor(policy, reference, objective, [packed]);
      const usual = new UsualStep({ policy, reference, examples, objective, optimizer: noOptimizer });
      try {
        const wanted = await gradientsOf(ours, [packed]);
        await usual.gradients(0);
        const sums = await device.download(usual.objective.metrics);
        expect(sums[METRIC_SUMS.loss]).toBeCloseTo(wanted.loss, 6);
        for (const { name, data } of await policy.readTensors(usual.optimizer.gradients)) {
          const expected = wanted.tensors.get(name) ?? new Float32Array();
          const norm = Math.hypot(...expected);
          const off = Math.hypot(...data.map((value, i) => value - (expected[i] ?? Number.NaN)));
          expect(off / norm, name).toBeLessThan(1e-4);
        }
      } finally {
        ours.free();
        usual.free();
        policy.free();
        reference.free();
      }
    },
  );

  test("costs what the issue says in multiplications, for hidden 256 and a vocabulary of 8192", () => {
    const config = parseModelConfig(JSON.stringify(hidden256), "config.json");
    expect(predictedRatio(config, { prompt: 64, completion: 64 }, "live")).toBeCloseTo(1.33, 2);
    expect(predictedRatio(config, { prompt: 192, completion: 64 }, "live")).toBeCloseTo(1.66, 2);
    expect(predictedRatio(config, { prompt: 64, completion: 64 }, "cached")).toBeCloseTo(1.89, 2);
  });
});
