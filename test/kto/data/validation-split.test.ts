/** Rows held out of training: by whole prompts, by the seed, and refused where a side would have none. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DatasetError } from "../../../src/errors.ts";
import { holdOut } from "../../../src/kto/data/validation-split.ts";

const row = (prompt: number, completion: number) => ({
  promptIds: [prompt, prompt + 1],
  completionIds: [completion],
  label: completion % 2 === 0,
});

describe("holdOut", () => {
  test("parts all rows, never a prompt, keeps the order, and reaches the share with the last prompt taken", () => {
    const rows = fc.array(fc.nat(12), { minLength: 8, maxLength: 60 });
    fc.assert(
      fc.property(rows, fc.double({ min: 0.05, max: 0.6, noNaN: true }), fc.nat(1000), (prompts, share, seed) => {
        const examples = prompts.map((prompt, i) => row(prompt, i));
        let parts: ReturnType<typeof holdOut>;
        try {
          parts = holdOut(examples, share, seed);
        } catch (error) {
          expect(error).toBeInstanceOf(DatasetError);
          return;
        }
        const { training, validation } = parts;
        const byRow = (one: { completionIds: ArrayLike<number> }) => one.completionIds[0] ?? -1;
        expect([...training, ...validation].map(byRow).sort((a, b) => a - b)).toEqual(prompts.map((_, i) => i));
        for (const side of [training, validation]) {
          const places = side.map(byRow);
          expect(places).toEqual([...places].sort((a, b) => a - b));
        }
        const held = new Set(validation.map(({ promptIds }) => promptIds[0]));
        expect(training.some(({ promptIds }) => held.has(promptIds[0]))).toBe(false);
        expect(validation.length).toBeGreaterThanOrEqual(share * prompts.length);
        const largest = Math.max(...[...held].map((key) => prompts.filter((prompt) => prompt === key).length));
        expect(validation.length - largest).toBeLessThan(share * prompts.length);
      }),
    );
  });

  test("the same seed holds out the same rows, another one others", () => {
    const examples = Array.from({ length: 40 }, (_, i) => row(i, i));
    const heldBy = (seed: number) => holdOut(examples, 0.25, seed).validation;
    expect(heldBy(1)).toEqual(heldBy(1));
    expect(heldBy(1)).not.toEqual(heldBy(2));
    expect(heldBy(1)).toHaveLength(10);
  });

  test("one prompt cannot be parted, and a share may be too small", () => {
    const same = Array.from({ length: 6 }, (_, i) => row(3, i));
    expect(() => holdOut(same, 0.5, 0)).toThrow(
      /^validation_split 0.5 of 6 rows with 1 different prompt leaves 0 to train on and 6 to evaluate on, and both need at least 2/,
    );
    const different = Array.from({ length: 6 }, (_, i) => row(i, i));
    expect(() => holdOut(different, 0.1, 0)).toThrow(/leaves 5 to train on and 1 to evaluate on/);
  });
});
