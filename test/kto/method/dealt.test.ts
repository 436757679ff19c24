/** One update by several ranks, whose gradients travel while the backward pass runs, against the same by one. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "../../../src/engine/model/model.ts";
import { type BatchExample, packUpdate, partOf } from "../../../src/kto/method/batch.ts";
import { Update } from "../../../src/kto/method/update.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { loadModel, relativeDistance } from "../../helpers/fixtures.ts";
import { localRanks } from "../../helpers/local-ranks.ts";
import { rankExamples } from "../../helpers/rank-runs.ts";
import { gradientsOf, noOptimizer, runUpdate, type StepResult, shapesOfBatch } from "../../helpers/step.ts";

const device = await sharedDevice();
const objective = { beta: 0.5, desirableWeight: 1, undesirableWeight: 1.3, lossType: "kto" } as const;
const packing = { mismatched: true, maxLength: 1000 };
let policy: Model;
let reference: Model;
beforeAll(async () => {
  policy = await loadModel(device, "llama", "policy");
  reference = await loadModel(device, "llama", "reference");
});
afterAll(() => {
  policy.free();
  reference.free();
});

/** An update of these microbatches by several ranks of this process; what is left on each. */
async function dealt(
  size: number,
  microbatches: readonly (readonly BatchExample[])[],
  scope: "microbatch" | "step",
  pieceBytes?: number,
): Promise<StepResult[]> {
  return await Promise.all(
    localRanks(size).map(async (ranks) => {
      const batches = packUpdate(microbatches, packing, scope, ranks);
      const update = new Update({
        ...{ policy, reference, objective, ranks, pieceBytes, optimizer: noOptimizer, referencePointScope: scope },
        shapes: batches.flatMap(shapesOfBatch),
        maxSize: Math.max(...batches.map((batch) => batch.size)),
        maxUpdateRows: batches.reduce((sum, batch) => sum + batch.size, 0),
      });
      try {
        return await gradientsOf(update, batches);
      } finally {
        update.free();
      }
    }),
  );
}

test("parts hold every row once, in sizes that differ by one at most, the last ones the smaller", () => {
  for (const size of [1, 2, 3, 4, 7]) {
    for (const rows of [0, 1, 2, 5, 8, 13]) {
      const parts = Array.from({ length: size }, (_, rank) => partOf(rows, { rank, size }));
      expect(parts.map(({ first }) => first)).toEqual([0, ...parts.slice(0, -1).map(({ end }) => end)]);
      expect(parts.at(-1)?.end).toBe(rows);
      const sizes = parts.map(({ first, end }) => end - first);
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
      if (rows > 0) expect(sizes[0]).toBeGreaterThan(0);
    }
  }
});

describe("an update of several ranks", () => {
  const microbatches = [rankExamples(5, 21), rankExamples(4, 22)];

  test.each(["microbatch", "step"] as const)("has the reference point and gradients of one: %s", async (scope) => {
    const whole = await runUpdate(policy, reference, objective, packUpdate(microbatches, packing, scope), scope);
    // Pieces of 4 KiB: every layer's gradients leave before those of the layer below are there.
    const [first, second] = await dealt(2, microbatches, scope, 4096);
    if (first === undefined || second === undefined) throw new Error("no result");
    expect(first.loss).toBeCloseTo(whole.loss, 6);
    expect(first.klUnclamped).toBeCloseTo(whole.klUnclamped, 5);
    for (const [name, gradient] of whole.tensors) {
      expect(relativeDistance(first.tensors.get(name) ?? [], gradient), name).toBeLessThanOrEqual(1e-6);
    }
    expect(second.gradients).toEqual(first.gradients);
    const [late] = await dealt(2, microbatches, scope);
    expect(late?.gradients).toEqual(first.gradients);
  });
});
