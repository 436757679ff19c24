/** The learning rate of each update, against transformers' own code (scripts/schedules.py wrote the fixture). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { learningRateAt, type Schedule } from "../../src/engine/schedule.ts";
import { parseKtoConfig } from "../../src/kto/options/kto.ts";
import { scheduleOf, scheduleTypes } from "../../src/kto/options/schedule.ts";

interface Fixture {
  readonly learning_rate: number;
  readonly total_steps: number;
  readonly schedules: readonly {
    readonly type: Schedule["type"];
    readonly kwargs: Readonly<Record<string, unknown>>;
    readonly warmup_steps: number;
    readonly rates: readonly number[];
  }[];
}

const { learning_rate, total_steps, schedules }: Fixture = JSON.parse(
  readFileSync(join(import.meta.dirname, "../fixtures/schedules.json"), "utf8"),
);

describe("transformers", () => {
  test.each(schedules)("$type $kwargs with warmup_steps $warmup_steps", ({ type, kwargs, warmup_steps, rates }) => {
    const config = parseKtoConfig({
      ...{ model: "m", dataset: "d", output: "o", learning_rate },
      ...{ lr_scheduler_type: type, lr_scheduler_kwargs: kwargs, warmup_steps },
    });
    const schedule = scheduleOf(config, total_steps);
    rates.forEach((rate, step) => {
      expect(Math.abs(learningRateAt(step, schedule) - rate)).toBeLessThanOrEqual(1e-14 * learning_rate);
    });
  });

  it("covers every schedule", () => {
    const types = new Set(schedules.map(({ type }) => type));
    expect([...types].sort()).toEqual([...scheduleTypes].sort());
  });
});

describe("learningRateAt", () => {
  it("rises from 0 in warmupSteps updates, then decays over those that are left", () => {
    const schedule = { type: "linear", learningRate: 6, warmupSteps: 3, totalSteps: 6 } as const;
    expect([0, 1, 2, 3, 4, 5].map((step) => learningRateAt(step, schedule))).toEqual([0, 2, 4, 6, 4, 2]);
  });

  it("is between 0 and the highest rate, which a run with room for it reaches; 0 at the end of a decay", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Schedule["type"]>("constant_with_warmup", "linear", "cosine", "cosine_with_restarts"),
        fc.integer({ min: 1, max: 50 }),
        fc.nat(60),
        (type, totalSteps, warmupSteps) => {
          const schedule = { type, learningRate: 3e-4, warmupSteps, totalSteps };
          const all = Array.from({ length: totalSteps }, (_, step) => learningRateAt(step, schedule));
          for (const rate of all) expect(rate >= 0 && rate <= 3e-4).toBe(true);
          if (warmupSteps >= totalSteps) return;
          expect(all[warmupSteps]).toBe(3e-4);
          if (type !== "constant_with_warmup") expect(learningRateAt(totalSteps, schedule)).toBe(0);
        },
      ),
    );
  });
});
