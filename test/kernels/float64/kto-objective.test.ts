/** The invariants of the KTO objective that concern formulas alone, on the float64 twin. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/kernels/float64/elements.ts";
import { ktoObjective, referencePoint } from "../../../src/kernels/float64/kto-objective.ts";
import { expectGradient } from "../../helpers/central-differences.ts";

const RUNS = { numRuns: 50, seed: 20240202 };
const logProb = fc.double({ min: -300, max: 0, noNaN: true });
const microbatch = fc.array(
  fc.record({ policy: logProb, reference: logProb, klPolicy: logProb, klReference: logProb, label: fc.boolean() }),
  { minLength: 1, maxLength: 9 },
);
type Row = { policy: number; reference: number; klPolicy: number; klReference: number; label: boolean };

function pointOf(batch: Row[]) {
  return referencePoint({
    policyLogProbs: batch.map((row) => row.klPolicy),
    referenceLogProbs: batch.map((row) => row.klReference),
    valid: batch.map(() => true),
    lossType: "kto",
  });
}

function objectiveOf(batch: Row[], z0: number, weights = { desirableWeight: 1.5, undesirableWeight: 0.75 }) {
  return ktoObjective({
    policyLogProbs: batch.map((row) => row.policy),
    referenceLogProbs: batch.map((row) => row.reference),
    labels: batch.map((row) => row.label),
    z0,
    beta: 0.1,
    ...weights,
  });
}

/** z0 of mismatched log-ratios k. */
function pointOfRatios(k: number[], valid = k.map(() => true), lossType: "kto" | "apo_zero_unpaired" = "kto") {
  return referencePoint({ policyLogProbs: k, referenceLogProbs: k.map(() => 0), valid, lossType });
}

describe("reference point", () => {
  it("is the clamped mean over the valid pairs", () => {
    expect(pointOfRatios([2, -3, 1, 0.5])).toEqual({ z0: 0.125, unclamped: 0.125, pairs: 4 });
    expect(pointOfRatios([2, -3])).toEqual({ z0: 0, unclamped: -0.5, pairs: 2 });
    expect(pointOfRatios([2, -3, 1], [true, false, true])).toEqual({ z0: 1.5, unclamped: 1.5, pairs: 2 });
  });

  it("differs between microbatches of 2 and the step of 4, as the clamp is not linear", () => {
    expect(pointOfRatios([2, -3]).z0).toBe(0);
    expect(pointOfRatios([1, 0.5]).z0).toBe(0.75);
    expect(pointOfRatios([2, -3, 1, 0.5]).z0).toBe(0.125);
  });

  it("is 0 without a valid pair and for apo_zero_unpaired", () => {
    expect(pointOfRatios([5, 5], [false, false])).toEqual({ z0: 0, unclamped: 0, pairs: 0 });
    expect(pointOfRatios([5, 5], [true, true], "apo_zero_unpaired").z0).toBe(0);
    expect(pointOfRatios([], [], "apo_zero_unpaired").z0).toBe(0);
  });

  it("does not hide a log-prob that is not a number", () => {
    expect(pointOfRatios([1, Number.NaN]).z0).toBeNaN();
  });
});

describe("objective", () => {
  it("coefficients are the gradient of the loss with z0 held fixed", () => {
    fc.assert(
      fc.property(microbatch, (batch) => {
        const near = batch.map((row) => ({ ...row, policy: row.reference + row.policy / 20 }));
        const policyLogProbs = Float64Array.from(near, (row) => row.policy);
        const inputs = {
          policyLogProbs,
          referenceLogProbs: near.map((row) => row.reference),
          labels: near.map((row) => row.label),
          z0: pointOf(near).z0 / 20,
          beta: 0.1,
          desirableWeight: 4 / 3,
          undesirableWeight: 1,
        };
        expectGradient(() => ktoObjective(inputs).loss, policyLogProbs, ktoObjective(inputs).coefficients, 1e-3);
      }),
      RUNS,
    );
  });

  it("step 0: with policy equal to reference, loss and coefficients depend on the weights and counts alone", () => {
    const batch = [true, false, true, true, false].map((label, i) => {
      const [same, kl] = [-10 * i - 3, -7 * i - 1];
      return { policy: same, reference: same, klPolicy: kl, klReference: kl, label };
    });
    const { z0 } = pointOf(batch);
    const { loss, logRatios, coefficients } = objectiveOf(batch, z0, { desirableWeight: 3, undesirableWeight: 2 });
    expect(z0).toBe(0);
    expect([...logRatios]).toEqual([0, 0, 0, 0, 0]);
    expect(loss).toBeCloseTo((3 * 3 + 2 * 2) / (2 * 5), 14);
    coefficients.forEach((coefficient, i) => {
      expect(coefficient).toBeCloseTo(((batch[i]?.label ? -3 : 2) * 0.1) / (4 * 5), 16);
    });
  });

  it("does not change when a constant is added to every r and to z0", () => {
    fc.assert(
      fc.property(microbatch, fc.double({ min: -50, max: 50, noNaN: true }), (batch, constant) => {
        const { z0 } = pointOf(batch);
        const shifted = batch.map((row) => ({ ...row, policy: row.policy + constant }));
        const [before, after] = [objectiveOf(batch, z0), objectiveOf(shifted, z0 + constant)];
        for (const [i, loss] of before.losses.entries()) expect(at(after.losses, i)).toBeCloseTo(loss, 12);
      }),
      RUNS,
    );
  });

  it("with equal weights w, the losses of a batch and of its label swap sum to w", () => {
    fc.assert(
      fc.property(microbatch, (batch) => {
        const weights = { desirableWeight: 1.7, undesirableWeight: 1.7 };
        const { z0 } = pointOf(batch);
        const swapped = batch.map((row) => ({ ...row, label: !row.label }));
        const total = objectiveOf(batch, z0, weights).loss + objectiveOf(swapped, z0, weights).loss;
        expect(total).toBeCloseTo(1.7, 13);
      }),
      RUNS,
    );
  });

  it("loss and value of a row sum to its weight, and coefficients push desirable up and undesirable down", () => {
    fc.assert(
      fc.property(microbatch, (batch) => {
        const { losses, values, coefficients } = objectiveOf(batch, pointOf(batch).z0);
        batch.forEach((row, i) => {
          expect(at(losses, i) + at(values, i)).toBeCloseTo(row.label ? 1.5 : 0.75, 14);
          expect(Math.sign(at(coefficients, i))).toBe(row.label ? -1 : 1);
        });
      }),
      RUNS,
    );
  });

  it("follows a permutation of the rows together with their pairs", () => {
    fc.assert(
      fc.property(
        microbatch.chain((batch) =>
          fc.tuple(fc.constant(batch), fc.shuffledSubarray([...batch.keys()], { minLength: batch.length })),
        ),
        ([batch, order]) => {
          const permuted = order.map((i) => batch[i] as Row);
          const [z0, permutedZ0] = [pointOf(batch).z0, pointOf(permuted).z0];
          expect(permutedZ0).toBeCloseTo(z0, 10);
          const [before, after] = [objectiveOf(batch, z0), objectiveOf(permuted, permutedZ0)];
          expect(after.loss).toBeCloseTo(before.loss, 10);
          for (const [n, i] of order.entries()) {
            expect(at(after.coefficients, n)).toBeCloseTo(at(before.coefficients, i), 10);
          }
        },
      ),
      RUNS,
    );
  });

  it("uniform equals a reference whose log-probs are all one constant, low enough that the clamp does not act", () => {
    fc.assert(
      fc.property(microbatch, (batch) => {
        const numbers = {
          beta: 0.1,
          desirableWeight: 1.5,
          undesirableWeight: 0.75,
          labels: batch.map((row) => row.label),
        };
        const pairs = { policyLogProbs: batch.map((row) => row.klPolicy), valid: batch.map(() => true) };
        const policyLogProbs = batch.map((row) => row.policy);
        const [uniform, constant] = (["uniform", "model"] as const).map((referenceKind) => {
          const referenceLogProbs = batch.map(() => (referenceKind === "uniform" ? 0 : -1e6));
          const point = referencePoint({ ...pairs, referenceLogProbs, lossType: "kto", referenceKind });
          return ktoObjective({ ...numbers, policyLogProbs, referenceLogProbs, z0: point.z0 });
        });
        expect(uniform?.loss).toBeCloseTo(constant?.loss ?? Number.NaN, 8);
        for (const [i, coefficient] of (uniform?.coefficients ?? []).entries()) {
          expect(coefficient).toBeCloseTo(constant?.coefficients[i] ?? Number.NaN, 8);
        }
      }),
      RUNS,
    );
  });

  it.each([200, -200, 1e4, -1e4])("is finite and keeps its digits at r = %d", (r) => {
    for (const label of [true, false]) {
      const row = { policy: r, reference: 0, klPolicy: 0, klReference: 0, label };
      const { loss, coefficients } = objectiveOf([row], 0, { desirableWeight: 1, undesirableWeight: 1 });
      const u = 0.1 * (label ? r : -r);
      // Where 1 - sigmoid(u) would round to 0 or to a few digits, the loss is e^-u to full precision.
      const expected = u > 0 ? Math.exp(-u) / (1 + Math.exp(-u)) : 1 / (1 + Math.exp(u));
      expect(Math.abs(loss - expected)).toBeLessThanOrEqual(1e-15 * expected);
      expect(Number.isFinite(at(coefficients, 0))).toBe(true);
      const slope = (0.1 * Math.exp(-Math.abs(u))) / (1 + Math.exp(-Math.abs(u))) ** 2;
      expect(Math.abs(Math.abs(at(coefficients, 0)) - slope)).toBeLessThanOrEqual(1e-15 * slope);
    }
  });

  it("is finite at u = 1e4 and -1e4", () => {
    for (const policy of [1e5, -1e5]) {
      const row = { policy, reference: 0, klPolicy: 0, klReference: 0, label: true };
      const { loss, coefficients, values } = objectiveOf([row], 0);
      expect([loss, at(coefficients, 0), at(values, 0)].every(Number.isFinite)).toBe(true);
    }
  });
});
