import { describe, expect, it } from "vitest";
import { Random } from "../../src/engine/random.ts";

describe("Random", () => {
  it("gives the published numbers of pcg32-demo (seed 42, stream 54)", () => {
    const random = new Random(42, 54);
    const words = Array.from({ length: 6 }, () => random.uint32().toString(16));
    expect(words).toEqual(["a15c02b7", "7b47f409", "ba1d3330", "83d2f293", "bfa4784b", "cbed606e"]);
  });

  it("agrees with 64-bit integer arithmetic for seeds and streams above 2^32", () => {
    const mask = (1n << 64n) - 1n;
    for (const [seed, stream] of [
      [2 ** 53 - 1, 2 ** 53 - 1],
      [2 ** 32, 2 ** 31],
      [0xdeadbeef, 3],
      [0, 0],
    ] as const) {
      const increment = ((BigInt(stream) << 1n) | 1n) & mask;
      const step = (state: bigint) => (state * 6364136223846793005n + increment) & mask;
      let state = step((step(0n) + BigInt(seed)) & mask);
      const random = new Random(seed, stream);
      for (let i = 0; i < 200; i++) {
        const word = (((state >> 18n) ^ state) >> 27n) & 0xffffffffn;
        const turn = state >> 59n;
        const wanted = ((word >> turn) | (word << (-turn & 31n))) & 0xffffffffn;
        expect(random.uint32()).toBe(Number(wanted));
        state = step(state);
      }
    }
  });

  it("goes on from a state that went through JSON", () => {
    const random = new Random(7, 2);
    for (let i = 0; i < 5; i++) random.normal();
    const copy = Random.fromState(JSON.parse(JSON.stringify(random.getState())));
    expect(Array.from({ length: 20 }, () => copy.uint32())).toEqual(Array.from({ length: 20 }, () => random.uint32()));
  });

  it("draws below(n) evenly, also where 2^32 is far from a multiple of n", () => {
    const random = new Random(1);
    const n = 3 * 2 ** 30; // a bare remainder would give the lowest quarter twice as often
    let low = 0;
    for (let i = 0; i < 6000; i++) if (random.below(n) < 2 ** 30) low++;
    expect(Math.abs(low / 6000 - 1 / 3)).toBeLessThan(4 * Math.sqrt(2 / 9 / 6000));
  });

  it("has the moments of a uniform and of a normal distribution", () => {
    const random = new Random(3);
    const count = 20000;
    let uniform = 0;
    let mean = 0;
    let square = 0;
    for (let i = 0; i < count; i++) {
      uniform += random.float() / count;
      const value = random.normal();
      mean += value / count;
      square += (value * value) / count;
    }
    expect(Math.abs(uniform - 0.5)).toBeLessThan(4 / Math.sqrt(12 * count));
    expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(count));
    expect(Math.abs(square - 1)).toBeLessThan(4 * Math.sqrt(2 / count));
  });

  it("shuffles every order of three equally often", () => {
    const random = new Random(11);
    const seen = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = random.shuffle([0, 1, 2]).join("");
      seen.set(order, (seen.get(order) ?? 0) + 1);
    }
    expect(seen.size).toBe(6);
    for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(120);
  });

  it("refuses a seed that is not a whole number from 0", () => {
    expect(() => new Random(-1)).toThrow(/seed is -1/);
    expect(() => new Random(1.5)).toThrow(/whole number/);
  });
});
