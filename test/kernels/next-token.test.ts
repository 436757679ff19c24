/** The likeliest token and the rows of the next pass against their twins, over odd shapes and several windows. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { likeliestTokens, passArrays } from "../../src/kernels/float64/next-token.ts";
import { likeliestToken, NO_TOKEN, nextRows } from "../../src/kernels/next-token.ts";
import { normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

/** The tokens that the kernel finds in windows of these widths, which together are a row. */
async function found(logits: Float32Array, rows: number, windows: readonly number[]): Promise<number[]> {
  const width = windows.reduce((a, b) => a + b, 0);
  let best = unset(rows);
  let tokens = u32([rows], new Array(rows).fill(7));
  let first = 0;
  for (const columns of windows) {
    const own = Array.from({ length: rows }, (_, row) =>
      logits.subarray(row * width + first, row * width + first + columns),
    );
    const part = f32(
      [rows, columns],
      own.flatMap((row) => [...row]),
    );
    const result = await runKernel(device, likeliestToken, { logits: part, best, tokens, firstToken: first });
    best = f32([rows], result("best"));
    tokens = u32([rows], new Uint32Array(result("tokens").buffer));
    first += columns;
  }
  return [...tokens.data];
}

describe("the likeliest token", () => {
  const cases = fc.record({
    rows: fc.constantFrom(1, 2, 5, 16),
    windows: fc.array(fc.constantFrom(1, 3, 4, 64, 127, 128, 129, 516, 1000), { minLength: 1, maxLength: 3 }),
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
    /** Few different logits, so that several are the largest. */
    coarse: fc.boolean(),
  });

  it("is the twin's, the lower one of equals, whatever the windows", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ rows, windows, seed, coarse }) => {
        const width = windows.reduce((a, b) => a + b, 0);
        const logits = Float32Array.from(normals(seeded(seed), rows * width), (x) => (coarse ? Math.round(x) : x));
        expect(await found(logits, rows, windows)).toEqual(likeliestTokens(logits, rows));
      }),
      { seed: 1, numRuns: 25 },
    );
  });

  it("is none where a logit is not finite, wherever it stands", async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      for (const at of [0, 63, 130, 259]) {
        const logits = Float32Array.from(normals(seeded(2), 3 * 260));
        logits[260 + at] = bad;
        const wanted = likeliestTokens(logits, 3);
        expect(wanted[1]).toBe(NO_TOKEN);
        expect(await found(logits, 3, [260]), `${bad} at ${at}`).toEqual(wanted);
        expect(await found(logits, 3, [129, 131]), `${bad} at ${at}`).toEqual(wanted);
      }
    }
  });
});

it("the rows of the next pass are those of the tokens that were chosen, padding stays", async () => {
  const random = seeded(3);
  for (const [rows, used, window] of [
    [1, 1, 1],
    [8, 5, 4],
    [72, 70, 9],
    [16, 16, 64],
  ] as const) {
    const given = Array.from({ length: used }, (_, slot) => {
      return { token: slot, position: random.below(20), first: 40 * slot };
    });
    const chosen = Array.from({ length: rows }, () => random.below(1000));
    const before = passArrays(given, rows, window);
    const result = await runKernel(device, nextRows, {
      chosen: u32([rows], chosen),
      tokens: u32([rows], before.tokens),
      positions: u32([rows], before.positions),
      ranges: u32([rows, 4], before.ranges),
      windowRanges: u32([rows, 4], before.windowRanges),
      cacheRows: u32([rows], before.cacheRows),
      window,
    });
    const next = given.map((row, at) => ({ ...row, token: chosen[at] ?? 0, position: row.position + 1 }));
    for (const [name, array] of Object.entries(passArrays(next, rows, window))) {
      const own = new Uint32Array(result(name as "tokens").buffer);
      expect([...own], `${name} of ${rows} rows`).toEqual([...array]);
    }
  }
});
