/** The token that follows a row and the rows of the next pass against their twins, over odd shapes and several windows. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Draw, nextTokens, passArrays, threefry, tokenValues } from "../../src/kernels/float64/next-token.ts";
import { HIGHEST_TEMPERATURE, likeliestToken, NO_TOKEN, nextRows, nextToken } from "../../src/kernels/next-token.ts";
import { normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, u32, unset } from "../helpers/gpu.ts";

const device = await sharedDevice();

const bitsOf = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;

/** Draws that differ in all that they are made of; temperatures as f32 holds them. */
function draws(rows: number, temperature: number, seed = 5): Draw[] {
  const random = seeded(seed);
  const word = () => random.below(2 ** 32);
  return Array.from({ length: rows }, () => {
    return { key: [word(), word()], position: random.below(5000), temperature: Math.fround(temperature) };
  });
}

const likeliest = (rows: number) => draws(rows, 0);

/** The tokens that the kernel finds in windows of these widths, which together are a row. */
async function found(
  logits: Float32Array,
  drawn: readonly Draw[],
  windows: readonly number[],
  kernel = nextToken,
): Promise<number[]> {
  const rows = drawn.length;
  const width = windows.reduce((a, b) => a + b, 0);
  const words = drawn.flatMap(({ key, position, temperature }) => [...key, position, bitsOf(temperature)]);
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
    const result = await runKernel(device, kernel, {
      ...{ logits: part, draws: u32([rows, 4], words), best, tokens, firstToken: first },
    });
    best = f32([rows], result("best"));
    tokens = u32([rows], new Uint32Array(result("tokens").buffer));
    first += columns;
  }
  return [...tokens.data];
}

describe("the next token", () => {
  const windows = fc.array(fc.constantFrom(1, 3, 4, 64, 127, 128, 129, 516, 1000), { minLength: 1, maxLength: 3 });
  const cases = fc.record({
    rows: fc.constantFrom(1, 2, 5, 16),
    windows,
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
    /** Few different logits, so that several are the largest. */
    coarse: fc.boolean(),
  });

  it("is the twin's likeliest one, the lower one of equals, whatever the windows", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ rows, windows, seed, coarse }) => {
        const width = windows.reduce((a, b) => a + b, 0);
        const logits = Float32Array.from(normals(seeded(seed), rows * width), (x) => (coarse ? Math.round(x) : x));
        const wanted = nextTokens(logits, likeliest(rows));
        expect(await found(logits, likeliest(rows), windows)).toEqual(wanted);
        expect(await found(logits, likeliest(rows), windows, likeliestToken)).toEqual(wanted);
      }),
      { seed: 1, numRuns: 25 },
    );
  });

  it("is drawn as the twin draws it, but where two values are within rounding", async () => {
    let close = 0;
    const some = { rows: fc.constantFrom(5, 16), windows, seed: fc.integer({ min: 0, max: 2 ** 31 }) };
    const temperature = fc.constantFrom(1e-3, 0.3, 1, 2.5, 1e6, HIGHEST_TEMPERATURE);
    await fc.assert(
      fc.asyncProperty(fc.record({ ...some, temperature }), async ({ rows, windows, seed, temperature }) => {
        const width = windows.reduce((a, b) => a + b, 0);
        const logits = Float32Array.from(normals(seeded(seed), rows * width), (x) => 5 * x);
        const drawn = draws(rows, temperature, seed);
        const tokens = await found(logits, drawn, windows);
        for (const [row, values] of tokenValues(logits, drawn).entries()) {
          const most = values.reduce((a, b) => Math.max(a, b));
          const token = values.indexOf(most);
          if (tokens[row] === token) continue;
          close++;
          // WGSL's two logarithms are within 2^-21 or 3 ulp of their value, at most 22; logits are within 2^5.
          const bound = 2 * (temperature * 2e-5 + 2 ** -19);
          expect(most - (values[tokens[row] ?? 0] ?? Number.NaN)).toBeLessThan(bound);
        }
      }),
      { seed: 2, numRuns: 25 },
    );
    expect(close).toBeLessThan(5);
  });

  it("has the probabilities of softmax(logits / T)", async () => {
    const [rows, width, temperature] = [4096, 6, 0.7];
    const own = [1, -0.5, 0, 2, 0.25, -3];
    const logits = Float32Array.from({ length: rows * width }, (_, i) => own[i % width] ?? 0);
    const tokens = await found(logits, draws(rows, temperature), [width]);
    const weights = own.map((logit) => Math.exp(logit / temperature));
    const total = weights.reduce((a, b) => a + b);
    const statistic = weights.reduce((sum, weight, token) => {
      const wanted = (rows * weight) / total;
      return sum + (tokens.filter((drawn) => drawn === token).length - wanted) ** 2 / wanted;
    }, 0);
    expect(statistic).toBeLessThan(20.5); // the 99.9% point of chi-square with 5 degrees of freedom
  });

  it("is none where a logit is not finite, wherever it stands, drawn or not", async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      for (const [at, temperature] of [
        [0, 0],
        [63, 1],
        [130, 0],
        [259, 0.5],
      ] as const) {
        const logits = Float32Array.from(normals(seeded(2), 3 * 260));
        logits[260 + at] = bad;
        const drawn = draws(3, temperature);
        const wanted = nextTokens(logits, drawn);
        expect(wanted[1]).toBe(NO_TOKEN);
        expect(await found(logits, drawn, [260]), `${bad} at ${at}`).toEqual(wanted);
        expect(await found(logits, drawn, [129, 131]), `${bad} at ${at}`).toEqual(wanted);
      }
    }
  });
});

// The known answers of the authors' library, Random123, for threefry2x32 with 20 rounds.
it.each([
  [
    [0, 0],
    [0, 0],
    [0x6b200159, 0x99ba4efe],
  ],
  [
    [0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x1cb996fc, 0xbb002be7],
  ],
  [
    [0x13198a2e, 0x03707344],
    [0x243f6a88, 0x85a308d3],
    [0xc4923a9c, 0x483df7a0],
  ],
] as const)("Threefry of key %j and counter %j is what its authors say", (key, counter, words) => {
  expect(threefry(key, counter)).toEqual(words);
});

/** Draws of rows, of which a step changes the position of the token to come; padding has none. */
function drawWords(given: readonly { readonly position: number }[], rows: number): number[] {
  const words = given.flatMap(({ position }, row) => [100 + row, 200 + row, position + 1, bitsOf(0.7)]);
  return [...words, ...new Array(4 * (rows - given.length)).fill(9)];
}

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
      draws: u32([rows, 4], drawWords(given, rows)),
      window,
    });
    const next = given.map((row, at) => ({ ...row, token: chosen[at] ?? 0, position: row.position + 1 }));
    const arrays = { ...passArrays(next, rows, window), draws: drawWords(next, rows) };
    for (const [name, array] of Object.entries(arrays)) {
      const own = new Uint32Array(result(name as "tokens").buffer);
      expect([...own], `${name} of ${rows} rows`).toEqual([...array]);
    }
  }
});
