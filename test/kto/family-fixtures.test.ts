/**
 * The families of test/fixtures that differ from the first four by switches of the decoder, on the adapter against
 * float64 PyTorch: log-probs, loss, gradients, five updates; and, against our own float64 model, adapters and greedy
 * generation. `scripts/family-matrix.ts` runs the same in every variant.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Model } from "../../src/engine/model/model.ts";
import { sharedDevice } from "../helpers/device.ts";
import { adapterErrors, familyErrors, greedyMismatch, updateErrors } from "../helpers/families.ts";
import { FAMILY_FIXTURES, loadModel } from "../helpers/fixtures.ts";
import { GRADIENT, LOG_PROB, LOSS, STEP_LOSS } from "../helpers/tolerances.ts";

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

  it("log-probs, loss and every gradient, with gradient checkpointing to the same bits", async () => {
    const errors = await familyErrors(name, policy, reference);
    expect(errors.logProbs).toBeLessThanOrEqual(LOG_PROB);
    expect(errors.loss).toBeLessThanOrEqual(LOSS);
    expect(errors.gradient, errors.worst).toBeLessThanOrEqual(GRADIENT);
    expect(errors.checkpointingSameBits).toBe(true);
  });

  it("five AdamW steps", async () => {
    const errors = await updateErrors(name, reference);
    expect(errors.loss).toBeLessThanOrEqual(STEP_LOSS);
    expect(errors.norm).toBeLessThanOrEqual(STEP_LOSS);
  });

  it("gradients of an adapter on every linear layer", async () => {
    const { gradient, worst } = await adapterErrors(name, policy);
    expect(gradient, worst).toBeLessThanOrEqual(GRADIENT);
  });

  it("greedy continuations with the cache are the likeliest tokens of the whole sequence", async () => {
    expect(await greedyMismatch(name, policy)).toBeUndefined();
  });
});
