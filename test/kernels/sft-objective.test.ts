/** The objective of supervised fine-tuning: coefficients and sums against float64, over many microbatches. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/sft-objective.ts";
import { SFT_SUMS, sftObjective, sftTokenSums } from "../../src/kernels/sft-objective.ts";
import { EPSILON, expectWithin } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

interface Microbatch {
  readonly policy: readonly number[];
  readonly tokens: readonly number[];
  readonly hits: readonly number[];
}

/** One microbatch of an update of `total` completion tokens, added to the sums so far. */
async function run(
  { policy, tokens, hits }: Microbatch,
  total: number,
  sums: Iterable<number> = new Float32Array(SFT_SUMS.size),
) {
  const m = policy.length;
  const result = await runKernel(device, sftObjective, {
    policy: f32([m], policy),
    hits: f32([m], hits),
    completionTokens: u32([m], tokens),
    step: f32([4], [0, 1 / total, 0, 0]),
    coefficients: unset(m),
    metrics: f32([SFT_SUMS.size], sums),
  });
  return { coefficients: result("coefficients"), sums: result("metrics") };
}

const sequence = fc.record({
  policy: fc.float({ min: -2000, max: 0, noNaN: true, noDefaultInfinity: true }),
  tokens: fc.integer({ min: 1, max: 4000 }),
});

describe("sftObjective", () => {
  it("coefficients and sums of microbatches of any size, which add up to the update's loss", async () => {
    const microbatch = fc.array(sequence, { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(fc.array(microbatch, { minLength: 1, maxLength: 3 }), async (microbatches) => {
        const total = microbatches.flat().reduce((sum, { tokens }) => sum + tokens, 0);
        let sums = new Float32Array(SFT_SUMS.size);
        let loss = 0;
        for (const rows of microbatches) {
          const policy = rows.map((row) => row.policy);
          const tokens = rows.map((row) => row.tokens);
          const wanted = twin.sftObjective({ policyLogProbs: policy, tokens: total });
          loss += wanted.loss;
          const found = await run({ policy, tokens, hits: tokens.map((count) => count >> 1) }, total, sums);
          expectWithin("coefficients", found.coefficients, wanted.coefficients, () => EPSILON / total);
          sums = found.sums;
        }
        const all = microbatches.flat();
        const size = all.reduce((sum, { policy }) => sum + Math.abs(policy), 0);
        const error = (all.length * EPSILON * size) / total;
        // An adapter may flush what is below the smallest normal f32 to zero, as SwiftShader does.
        const flushed = 2 ** -126;
        expectWithin("loss", [-(sums[SFT_SUMS.logProb] ?? Number.NaN) / total], [loss], () => error + flushed);
        expect(sums[SFT_SUMS.tokens]).toBe(total); // whole numbers below 2^24 are exact
        expect(sums[SFT_SUMS.hits]).toBe(all.reduce((sum, { tokens }) => sum + (tokens >> 1), 0));
      }),
      { numRuns: 20 },
    );
  });

  it("adds to sums that are there, and takes the weight of a token from the host alone", async () => {
    const { coefficients, sums } = await run(
      { policy: [-3, -5], tokens: [2, 4], hits: [1, 0] },
      16,
      [1, 2, 3, 0, 0, 0, 0, 0],
    );
    expect([...coefficients]).toEqual([-1 / 16, -1 / 16]);
    expect([...sums]).toEqual([-7, 8, 4, 0, 0, 0, 0, 0]);
  });

  it("adds entropies and the tokens that they are over beside the others", async () => {
    const result = await runKernel(device, sftTokenSums, {
      completionTokens: u32([3], [2, 1, 4]),
      entropies: f32([3], [0.5, 0.25, 3]),
      metrics: f32([SFT_SUMS.size], [1, 2, 3, 4, 5, 6, 7, 8]),
    });
    expect([...result("metrics")]).toEqual([1, 2, 3, 11, 8.75, 6, 7, 8]);
  });
});
