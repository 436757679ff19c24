import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { autoWeights, weightAdvice, weightRatio } from "../../../src/kto/data/weights.ts";

describe("class weights", () => {
  it("solves the published examples", () => {
    expect(autoWeights(1, 10).desirable).toBeCloseTo(13.33, 2);
    expect(autoWeights(10, 1)).toEqual({ desirable: 1, undesirable: 7.5 });
    expect(autoWeights(50, 50).desirable).toBeCloseTo(1.33, 2);
  });

  it("brings every pair of counts to 4/3 and then has no advice", () => {
    const count = fc.integer({ min: 1, max: 1e7 });
    fc.assert(
      fc.property(count, count, (desirable, undesirable) => {
        const weights = autoWeights(desirable, undesirable);
        const ratio = weightRatio(desirable, undesirable, weights.desirable, weights.undesirable);
        expect(ratio).toBeCloseTo(4 / 3, 12);
        expect(weightAdvice(desirable, undesirable, weights.desirable, weights.undesirable)).toBeUndefined();
      }),
    );
  });

  it("names numbers that mend a ratio outside the range", () => {
    const advice = weightAdvice(100, 1000, 1, 1) ?? "";
    expect(advice).toMatch(/ratio of 0\.1, outside \[1, 1\.5\]/);
    const [, low, high] = advice.match(/desirable_weight between ([\d.]+) and ([\d.]+), or/) ?? [];
    expect([low, high].map(Number)).toEqual([10, 15]);
    expect(weightAdvice(100, 1000, Number(low), 1)).toBeUndefined();
    expect(weightAdvice(100, 1000, Number(high), 1)).toBeUndefined();
    expect(weightAdvice(300, 100, 1, 1)).toMatch(/undesirable_weight between 2 and 3\./);
  });

  it("names only numbers that mend, for any counts and weights", () => {
    const count = fc.integer({ min: 1, max: 1e6 });
    const weight = fc.double({ min: 0.01, max: 100, noNaN: true });
    fc.assert(
      fc.property(count, count, weight, weight, (nD, nU, wD, wU) => {
        const numbers = weightAdvice(nD, nU, wD, wU)?.match(
          /between ([\d.e-]+) and ([\d.e-]+), or .* ([\d.e-]+) and (.+)\.$/,
        );
        if (!numbers) return;
        const [, lowD, highD, lowU, highU] = numbers.map(Number);
        for (const mend of [lowD, highD]) expect(weightAdvice(nD, nU, mend ?? 0, wU)).toBeUndefined();
        for (const mend of [lowU, highU]) expect(weightAdvice(nD, nU, wD, mend ?? 0)).toBeUndefined();
      }),
      { numRuns: 500 },
    );
  });

  it("accepts the borders and is silent where a class is absent", () => {
    expect(weightAdvice(3, 2, 1, 1)).toBeUndefined();
    expect(weightAdvice(2, 2, 1, 1)).toBeUndefined();
    expect(weightAdvice(5, 0, 1, 1)).toBeUndefined();
    expect(autoWeights(0, 5)).toEqual({ desirable: 1, undesirable: 1 });
  });

  it("has a remedy where a weight is 0", () => {
    expect(weightAdvice(10, 10, 1, 0)).toMatch(/infinity.*set undesirable_weight between 0\.667 and 1\./);
    expect(weightAdvice(10, 10, 0, 0)).toMatch(/set desirable_weight 1\.33 and undesirable_weight 1\./);
  });
});
