/** The tables of rotary angles: scalings by their published formulas, worked out here. */
import { describe, expect, it } from "vitest";
import { ropeFrequency } from "../../src/kernels/float64/rope.ts";
import { ropeFrequencies, ropeTable } from "../../src/kernels/rope-table.ts";

const POSITIONS = 1024;
const plainRope = (rotated: number, theta: number) => ({ rotated, theta, scaling: { type: "none" } }) as const;

describe("tables of rotary angles", () => {
  it("the table holds cosines and sines of float64 angles, each rounded once", () => {
    const table = ropeTable(POSITIONS, plainRope(8, 10000));
    const [position, pair] = [1023, 1];
    const angle = position * 10000 ** (-2 / 8);
    const entry = position * 2 * 4 + pair;
    expect([table[entry], table[entry + 4]]).toEqual([Math.fround(Math.cos(angle)), Math.fround(Math.sin(angle))]);
  });

  it("llama3's frequencies, by the published formula worked out here, at Llama 3.1's own numbers", () => {
    // Llama 3.1 8B: D 128, theta 500000, factor 8, low 1, high 4, 8192 tokens at first.
    const scaling = {
      type: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 8192,
    } as const;
    const found = ropeFrequencies({ rotated: 128, theta: 500000, scaling });
    const wanted = Array.from({ length: 64 }, (_, pair) => {
      const plain = Math.exp((-Math.log(500000) * 2 * pair) / 128);
      const wavelength = (2 * Math.PI) / plain;
      if (wavelength < 8192 / 4) return plain;
      if (wavelength > 8192 / 1) return plain / 8;
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      return (1 - smooth) * (plain / 8) + smooth * plain;
    });
    // 29 pairs turn fast enough to be kept, 29 are divided; those between are blended, strictly within both.
    const kinds = wanted.map((value, pair) => value * 500000 ** ((2 * pair) / 128));
    expect(kinds.filter((share) => Math.abs(share - 1) < 1e-12)).toHaveLength(29);
    expect(kinds.filter((share) => Math.abs(share - 1 / 8) < 1e-12)).toHaveLength(29);
    for (const [pair, value] of wanted.entries()) expect((found[pair] ?? 0) / value, `pair ${pair}`).toBeCloseTo(1, 12);
    const exact = (i: number) => ropeFrequency(i, 128, 500000, scaling);
    for (const [pair, value] of wanted.entries()) expect(exact(pair) / value, `pair ${pair}`).toBeCloseTo(1, 12);
  });

  it("linear scaling divides every frequency, so that a position acts as one the factor nearer", () => {
    const plain = plainRope(8, 100);
    const linear = { ...plain, scaling: { type: "linear", factor: 4 } } as const;
    expect([...ropeFrequencies(plain)]).toEqual([1, 100 ** -0.25, 0.1, 100 ** -0.75].map((f) => expect.closeTo(f, 14)));
    expect([...ropeFrequencies(linear)]).toEqual([...ropeFrequencies(plain)].map((value) => value / 4));
    expect([...ropeTable(9, linear).slice(8 * 8)]).toEqual([...ropeTable(3, plain).slice(2 * 8)]);
  });

  it("YaRN keeps fast pairs, divides slow ones and blends between, at Qwen3's own numbers", () => {
    // Qwen3: D 128, theta 1e6, factor 4 over 32768. index(n) = 128 ln(32768 / (2 pi n)) / (2 ln 1e6): 23.6 at 32 turns,
    // which becomes 23, and 39.7 at one turn, which becomes 40.
    const scaling = {
      type: "yarn",
      factor: 4,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
      originalContextLength: 32768,
      magnitude: 1 + 0.1 * Math.log(4),
    } as const;
    const turns = { rotated: 128, theta: 1e6, scaling };
    const found = ropeFrequencies(turns);
    for (const [pair, frequency] of found.entries()) {
      const share = frequency * 1e6 ** ((2 * pair) / 128);
      const through = Math.min(1, Math.max(0, (pair - 23) / 17));
      expect(share, `pair ${pair}`).toBeCloseTo(1 - through + through / 4, 12);
      expect(ropeFrequency(pair, 128, 1e6, scaling) / frequency, `pair ${pair}`).toBeCloseTo(1, 12);
    }
    const whole = { ...turns, scaling: { ...scaling, truncate: false } };
    expect(ropeFrequencies(whole)[24]).not.toBe(found[24]);
    expect(ropeFrequency(24, 128, 1e6, whole.scaling) / (ropeFrequencies(whole)[24] ?? 0)).toBeCloseTo(1, 12);
    expect(ropeTable(1, turns)[0]).toBe(Math.fround(scaling.magnitude));
  });

  it("LongRoPE has a table for short sequences and behind it one for long ones", () => {
    const scaling = {
      type: "longrope",
      shortFactors: [1, 2],
      longFactors: [4, 8],
      originalContextLength: 10,
      magnitude: 2,
    } as const;
    const turns = { rotated: 4, theta: 100, scaling } as const;
    expect([...ropeFrequencies(turns)]).toEqual([1, 0.05]);
    expect([...ropeFrequencies(turns, true)]).toEqual([1 / 4, 0.1 / 8]);
    const table = ropeTable(3, turns);
    const [short, long] = [table.subarray(2 * 4, 3 * 4), table.subarray(5 * 4, 6 * 4)];
    const wanted = (angles: number[]) =>
      [...angles.map((angle) => 2 * Math.cos(angle)), ...angles.map((angle) => 2 * Math.sin(angle))].map(Math.fround);
    expect([...short]).toEqual(wanted([2, 0.1]));
    expect([...long]).toEqual(wanted([0.5, 0.025]));
    expect([10, 11].map((tokens) => ropeFrequency(1, 4, 100, scaling, tokens))).toEqual([0.05, 0.1 / 8]);
  });
});
