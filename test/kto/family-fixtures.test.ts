/**
 * The families of test/fixtures that differ from the first four by switches of the decoder, on the adapter against
 * float64 PyTorch: log-probs, loss and every gradient of each; and what their switches mean for gradient checkpointing,
 * updates, adapters and generation, on those that have them. `scripts/family-matrix.ts` runs every fixture in every
 * variant.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Model } from "../../src/engine/model/model.ts";
import { eachStepErrors } from "../helpers/adamw-steps.ts";
import { sharedDevice } from "../helpers/device.ts";
import {
  adapterErrors,
  checkpointingKeepsBits,
  familyErrors,
  greedyMismatch,
  longRopeMismatch,
  updateErrors,
} from "../helpers/families.ts";
import { FAMILY_FIXTURES, loadModel } from "../helpers/fixtures.ts";
import { boundsOf, GRADIENT, LOSS, STEP_LOSS, STEP_MOVED } from "../helpers/tolerances.ts";

const device = await sharedDevice();

describe.each(FAMILY_FIXTURES)("%s", (name) => {
  let policy: Model;
  let reference: Model;
  beforeAll(async () => {
    policy = await loadModel(device, name, "policy");
    reference = await loadModel(device, name, "reference");
  });
  afterAll(() => {
    policy.free();
    reference.free();
  });
  /** A test of these fixtures alone; the others have it in scripts/family-matrix.ts. */
  const has =
    (...fixtures: readonly string[]) =>
    (title: string, body: () => Promise<void>) => {
      if (fixtures.includes(name)) it(title, body);
    };

  it("log-probs, loss and every gradient", async () => {
    const errors = await familyErrors(name, policy, reference);
    const { logProb, z0 } = boundsOf(name);
    expect(errors.logProbs).toBeLessThanOrEqual(logProb);
    expect(errors.z0).toBeLessThanOrEqual(z0);
    expect(errors.loss).toBeLessThanOrEqual(LOSS);
    expect(errors.gradient, errors.worst).toBeLessThanOrEqual(GRADIENT);
  });

  has(
    "gemma2",
    "olmo3",
    "qwen3_5",
  )("gradient checkpointing gives the same bits", async () => {
    expect(await checkpointingKeepsBits(name, policy, reference)).toBe(true);
  });

  has(
    "granite",
    "gemma2",
    "qwen3_5",
  )("five AdamW steps", async () => {
    const errors = await updateErrors(name, reference);
    expect(errors.loss).toBeLessThanOrEqual(STEP_LOSS);
    expect(errors.norm).toBeLessThanOrEqual(STEP_LOSS);
  });

  // Of a model that is steep five updates in a row cannot be compared (test/kto/steep-updates.test.ts); each of them can.
  has("qwen3_5")(
    "each of five AdamW steps from where the device was before it, gradients, norm and weights",
    async () => {
      const errors = await eachStepErrors(name, device);
      expect(errors.gradient, errors.worst).toBeLessThanOrEqual(GRADIENT);
      expect(errors.norm).toBeLessThanOrEqual(GRADIENT);
      expect(errors.moved).toBeLessThanOrEqual(STEP_MOVED);
      expect(errors.weights).toBeLessThanOrEqual(STEP_LOSS);
    },
  );

  has(
    "olmo2",
    "phi3-longrope",
    "lfm2",
    "qwen3_5",
  )("gradients of an adapter on every linear layer", async () => {
    const { gradient, worst } = await adapterErrors(name, policy);
    expect(gradient, worst).toBeLessThanOrEqual(GRADIENT);
  });

  has("phi3-longrope")("keys are turned again where a sequence becomes long", async () => {
    expect(await longRopeMismatch(policy)).toBeUndefined();
  });

  has(
    "granite",
    "gemma2",
    "olmo3-yarn",
    "phi3-longrope",
    "ministral3",
    "lfm2",
    "qwen3_5",
  )("greedy continuations with the cache are the likeliest tokens of the whole sequence", async () => {
    expect(await greedyMismatch(name, policy)).toBeUndefined();
  });
});
