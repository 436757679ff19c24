/** The learning rate of each update, by the formulas of transformers' optimization module. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { learningRateAt, type ScheduleOptions } from "../../src/engine/schedule.ts";

const rates = (options: ScheduleOptions) =>
  Array.from({ length: options.totalSteps }, (_, step) => learningRateAt(step, options));

describe("learningRateAt", () => {
  it("constant, linear and cosine without warm-up", () => {
    const options = { learningRate: 8, warmupSteps: 0, totalSteps: 4 };
    expect(rates({ ...options, type: "constant" })).toEqual([8, 8, 8, 8]);
    expect(rates({ ...options, type: "linear" })).toEqual([8, 6, 4, 2]);
    const cosine = [1, Math.cos(Math.PI / 4), 0, -Math.cos(Math.PI / 4)].map((value) => 4 * (1 + value));
    rates({ ...options, type: "cosine" }).forEach((rate, step) => {
      expect(rate).toBeCloseTo(cosine[step] ?? Number.NaN, 14);
    });
  });

  it("rises from 0 in warmupSteps updates, then decays over those that are left", () => {
    const options = { learningRate: 6, warmupSteps: 3, totalSteps: 6 };
    expect(rates({ ...options, type: "constant" })).toEqual([0, 2, 4, 6, 6, 6]);
    expect(rates({ ...options, type: "linear" })).toEqual([0, 2, 4, 6, 4, 2]);
    const [, , , peak, , last] = rates({ ...options, type: "cosine" });
    expect([peak, last]).toEqual([6, expect.closeTo(6 * 0.25, 14)]);
  });

  it("is between 0 and the highest rate, which a run with room for it reaches; 0 at the end of a decay", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<ScheduleOptions["type"]>("constant", "linear", "cosine"),
        fc.integer({ min: 1, max: 50 }),
        fc.nat(60),
        (type, totalSteps, warmupSteps) => {
          const options = { type, learningRate: 3e-4, warmupSteps, totalSteps };
          const all = rates(options);
          for (const rate of all) expect(rate >= 0 && rate <= 3e-4).toBe(true);
          if (warmupSteps < totalSteps) expect(all[warmupSteps]).toBe(3e-4);
          if (type !== "constant" && warmupSteps < totalSteps) expect(learningRateAt(totalSteps, options)).toBe(0);
        },
      ),
    );
  });
});
