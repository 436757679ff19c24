/** f16 and bf16 on the host: every pattern, rounding to the nearest with ties to even, and what has no number. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bf16ToF32,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  firstNotFinite,
  firstNotFiniteStored,
  fromF32,
  toF32,
} from "../../src/engine/number-formats.ts";

const patterns = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** The value of a pattern by the definition: sign, exponent, fraction. */
function numberOf(bits: number, exponentBits: number, fractionBits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

describe.each([
  { format: "bf16" as const, exponentBits: 8, fractionBits: 7, widen: bf16ToF32, narrow: f32ToBf16 },
  { format: "f16" as const, exponentBits: 5, fractionBits: 10, widen: f16ToF32, narrow: f32ToF16 },
])("$format", ({ format, exponentBits, fractionBits, widen, narrow }) => {
  const values = widen(patterns);

  it("every pattern is the number that the format defines", () => {
    values.forEach((value, bits) => {
      expect(Object.is(value, numberOf(bits, exponentBits, fractionBits)), `pattern ${bits}`).toBe(true);
    });
  });

  it("every number comes back as its own pattern, and what is no number stays none", () => {
    narrow(values).forEach((bits, pattern) => {
      if (Number.isNaN(values[pattern])) expect(Number.isNaN(numberOf(bits, exponentBits, fractionBits))).toBe(true);
      else expect(bits).toBe(pattern);
    });
  });

  it("rounds to the nearest, ties to even, up to the largest and down to the smallest", () => {
    // Positive finite patterns are ordered as their numbers are; one more stands for infinity's place.
    const finite = 2 ** 15 - 2 ** fractionBits;
    const place = fc.integer({ min: 0, max: finite - 1 });
    const check = (value: number) => {
      const rounded = Math.fround(value);
      const [bits = 0] = narrow(Float32Array.of(rounded));
      const below = (candidate: number) =>
        candidate < finite
          ? numberOf(candidate, exponentBits, fractionBits)
          : 2 * numberOf(finite - 1, exponentBits, fractionBits) - numberOf(finite - 2, exponentBits, fractionBits);
      const own = Math.abs(below(bits) - rounded);
      for (const other of [bits - 1, bits + 1]) {
        if (other < 0 || other > finite) continue;
        const distance = Math.abs(below(other) - rounded);
        expect(own < distance || (own === distance && bits % 2 === 0), `${rounded} became pattern ${bits}`).toBe(true);
      }
      expect(narrow(Float32Array.of(-rounded))).toEqual(Uint16Array.of(bits | 0x8000));
    };
    fc.assert(
      fc.property(place, fc.constantFrom(0, 0.25, 0.5, 0.5 + 2 ** -12, 0.5 - 2 ** -12, 0.75, 1), (bits, share) => {
        const [from, to] = [numberOf(bits, exponentBits, fractionBits), numberOf(bits + 1, exponentBits, fractionBits)];
        if (Number.isFinite(to)) check(from + share * (to - from));
      }),
      { seed: 5, numRuns: 3000 },
    );
  });

  it("what is beyond half a unit over the largest number becomes infinite", () => {
    const largest = numberOf(2 ** 15 - 2 ** fractionBits - 1, exponentBits, fractionBits);
    const unit = largest - numberOf(2 ** 15 - 2 ** fractionBits - 2, exponentBits, fractionBits);
    const f32s = Float32Array.of(largest + 0.49 * unit, largest + 0.5 * unit, Number.POSITIVE_INFINITY);
    expect([...widen(narrow(f32s))]).toEqual([largest, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
  });

  it("bytes that start anywhere are read, and the first that is not finite is found", () => {
    const stored = fromF32(Float32Array.of(1.5, -2, 0.25), format);
    const shifted = new Uint8Array(stored.byteLength + 1);
    shifted.set(stored, 1);
    expect([...toF32(shifted.subarray(1), format)]).toEqual([1.5, -2, 0.25]);
    expect(firstNotFiniteStored(shifted.subarray(1), format)).toBe(-1);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      expect(firstNotFiniteStored(fromF32(Float32Array.of(3, 4, value, value), format), format)).toBe(2);
    }
  });
});

it("f32 passes through as it is", () => {
  const values = Float32Array.of(1, Number.NaN, -0);
  expect(toF32(fromF32(values, "f32"), "f32")).toEqual(values);
  expect([firstNotFinite(values), firstNotFiniteStored(fromF32(values, "f32"), "f32")]).toEqual([1, 1]);
});
