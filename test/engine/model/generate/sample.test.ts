/** Choosing a token from logits: what may be drawn, how often, and what ties and extremes do. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type SamplingOptions, sampleToken } from "../../../../src/engine/model/generate/sample.ts";
import { Random } from "../../../../src/engine/random.ts";

const plain: SamplingOptions = { temperature: 1, topK: 0, topP: 1 };

/** Logits of given probabilities, up to a constant. */
const logitsOf = (probabilities: number[]) => Float32Array.from(probabilities, (p) => Math.log(p) + 3);

/** How often each token is drawn. */
function counts(logits: Float32Array, options: Partial<SamplingOptions>, draws: number, seed = 1): number[] {
  const random = new Random(seed);
  const found = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) {
    const token = sampleToken(logits, { ...plain, ...options }, random);
    found[token] = (found[token] ?? Number.NaN) + 1;
  }
  return found;
}

const drawn = (logits: Float32Array, options: Partial<SamplingOptions>) =>
  counts(logits, options, 2000).flatMap((count, token) => (count > 0 ? [token] : []));

/** Pearson's statistic of counts against probabilities; tokens of probability 0 must not occur. */
function chiSquare(found: number[], probabilities: number[]): number {
  const draws = found.reduce((sum, count) => sum + count, 0);
  return found.reduce((sum, count, token) => {
    const wanted = draws * (probabilities[token] ?? Number.NaN);
    if (wanted === 0) {
      expect(count).toBe(0);
      return sum;
    }
    return sum + (count - wanted) ** 2 / wanted;
  }, 0);
}

const normalised = (weights: number[]) => {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
};

/** 99.9% points of chi-square by degrees of freedom. */
const CRITICAL: Record<number, number> = { 1: 10.83, 2: 13.82, 5: 20.52 };

describe("temperature 0", () => {
  it("takes the likeliest token, of equal ones the lowest, whatever else is asked, and draws no number", () => {
    const random = new Random(3);
    const before = random.getState();
    for (const topK of [0, 2]) {
      const greedy = { temperature: 0, topK, topP: 0.1 };
      expect(sampleToken(Float32Array.of(1, 5, 5, 4), greedy, random)).toBe(1);
      expect(sampleToken(Float32Array.of(-3, -2, -1), greedy, random)).toBe(2);
      expect(sampleToken(Float32Array.of(7, 7, 7), greedy, random)).toBe(0);
    }
    expect(random.getState()).toEqual(before);
  });
});

describe("sampling", () => {
  it.each([0.5, 1, 2])("draws tokens with the probabilities of softmax(logits / %f)", (temperature) => {
    const logits = Float32Array.of(0.3, -1, 2, 1.5, -0.2, 0.9);
    const wanted = normalised(Array.from(logits, (logit) => Math.exp(logit / temperature)));
    expect(chiSquare(counts(logits, { temperature }, 20_000), wanted)).toBeLessThan(CRITICAL[5] ?? 0);
  });

  it("takes one number a token: what is drawn next does not depend on what was drawn", () => {
    for (const options of [plain, { ...plain, topK: 2 }, { ...plain, topP: 0.5 }]) {
      const [used, counted] = [new Random(9), new Random(9)];
      sampleToken(logitsOf([0.2, 0.3, 0.5]), options, used);
      counted.float();
      expect(used.getState()).toEqual(counted.getState());
    }
  });

  it("a temperature near 0 and logits far apart overflow nowhere", () => {
    expect(drawn(Float32Array.of(1e4, -1e4, 9e3), { temperature: 1e-3 })).toEqual([0]);
    expect(drawn(Float32Array.of(-3e38, 3e38), {})).toEqual([1]);
    expect(drawn(Float32Array.of(-1e30, -1e30), { temperature: 100 })).toEqual([0, 1]);
  });
});

describe("top-k", () => {
  it("keeps the k likeliest tokens in their proportions", () => {
    const probabilities = [0.05, 0.4, 0.1, 0.3, 0.15];
    const wanted = normalised([0, 0.4, 0, 0.3, 0.15]);
    expect(chiSquare(counts(logitsOf(probabilities), { topK: 3 }, 20_000), wanted)).toBeLessThan(CRITICAL[2] ?? 0);
  });

  it("of equal logits at the border the lower ids stay; k beyond the vocabulary keeps all", () => {
    expect(drawn(logitsOf([0.2, 0.4, 0.2, 0.2]), { topK: 2 })).toEqual([0, 1]);
    expect(drawn(logitsOf([0.2, 0.4, 0.2, 0.2]), { topK: 1 })).toEqual([1]);
    expect(drawn(logitsOf([0.2, 0.4, 0.2, 0.2]), { topK: 100 })).toEqual([0, 1, 2, 3]);
  });
});

describe("top-p", () => {
  const logits = logitsOf([0.1, 0.5, 0.15, 0.25]);

  it("keeps the smallest set of likeliest tokens that reaches p", () => {
    expect(drawn(logits, { topP: 0.49 })).toEqual([1]);
    expect(drawn(logits, { topP: 0.51 })).toEqual([1, 3]);
    expect(drawn(logits, { topP: 0.76 })).toEqual([1, 2, 3]);
    expect(drawn(logits, { topP: 0.91 })).toEqual([0, 1, 2, 3]);
    // Half of four equal ones is reached by two, the lower ids.
    expect(drawn(Float32Array.of(1, 1, 1, 1), { topP: 0.5 })).toEqual([0, 1]);
  });

  it("keeps one token at least, and its proportions", () => {
    expect(drawn(logits, { topP: 1e-9 })).toEqual([1]);
    expect(chiSquare(counts(logits, { topP: 0.7 }, 20_000), normalised([0, 0.5, 0, 0.25]))).toBeLessThan(
      CRITICAL[1] ?? 0,
    );
  });

  it("counts from the probabilities that temperature and top-k left, as Hugging Face does", () => {
    // Alone 0.5 does not reach 0.6; of the two likeliest it is 2/3.
    expect(drawn(logits, { topK: 2, topP: 0.6 })).toEqual([1]);
    expect(drawn(logits, { topP: 0.6 })).toEqual([1, 3]);
    // At temperature 1/2 the squares count: 0.25 of 0.345.
    expect(drawn(logits, { temperature: 0.5, topP: 0.7 })).toEqual([1]);
  });
});

describe("min-p", () => {
  const logits = logitsOf([0.1, 0.5, 0.15, 0.25]);

  it("keeps what is at least so many times as probable as the likeliest", () => {
    expect(drawn(logits, { minP: 0.19 })).toEqual([0, 1, 2, 3]);
    expect(drawn(logits, { minP: 0.21 })).toEqual([1, 2, 3]);
    expect(drawn(logits, { minP: 0.49 })).toEqual([1, 3]);
    expect(drawn(logits, { minP: 1 })).toEqual([1]);
  });

  it("after temperature, top-k and top-p", () => {
    // At temperature 2 the square roots count: sqrt(0.2) = 0.447.
    expect(drawn(logits, { temperature: 2, minP: 0.44 })).toEqual([0, 1, 2, 3]);
    expect(drawn(logits, { topK: 3, minP: 0.4 })).toEqual([1, 3]);
    expect(drawn(logits, { topP: 0.51, minP: 0.1 })).toEqual([1, 3]);
  });
});

describe("the repetition penalty", () => {
  const greedy = { ...plain, temperature: 0, repetitionPenalty: 2 };
  const random = new Random(1);

  it("divides positive logits and multiplies negative ones, once, also when greedy", () => {
    // 3 becomes 1.5, below 2; -1 becomes -2, below -1.5.
    expect(sampleToken(Float32Array.of(3, 2, 1), greedy, random, [0, 0, 0])).toBe(1);
    expect(sampleToken(Float32Array.of(3, 1.4, 1), greedy, random, [0, 0, 0])).toBe(0);
    expect(sampleToken(Float32Array.of(-1, -1.5), greedy, random, [0])).toBe(1);
    expect(sampleToken(Float32Array.of(-1, -2.5), greedy, random, [0])).toBe(0);
    expect(sampleToken(Float32Array.of(3, 2, 1), { ...greedy, repetitionPenalty: 1 }, random, [0])).toBe(0);
  });

  it("comes before temperature, and leaves the caller's logits", () => {
    const logits = Float32Array.of(2, 1, -1);
    const wanted = normalised([Math.exp(2 / 2 / 0.5), Math.exp(1 / 0.5), Math.exp((-1 * 2) / 0.5)]);
    const found = [0, 0, 0];
    for (let i = 0; i < 20_000; i++) {
      const token = sampleToken(logits, { ...plain, temperature: 0.5, repetitionPenalty: 2 }, random, [0, 2]);
      found[token] = (found[token] ?? Number.NaN) + 1;
    }
    expect(chiSquare(found, wanted)).toBeLessThan(CRITICAL[2] ?? 0);
    expect(logits).toEqual(Float32Array.of(2, 1, -1));
  });

  it.each([
    ["all from all", {}],
    ["all from the likeliest", { topK: 2, topP: 0.9 }],
    ["all by a least probability", { minP: 0.1 }],
  ])("of any size leaves a token to draw: %s", (_, options) => {
    // Beyond f32 a token that occurred is certain where its logit was positive, and never comes where it was negative.
    const tiny = { ...plain, ...options, repetitionPenalty: 1e-45 };
    expect(sampleToken(Float32Array.of(1, 7, 2, -1), tiny, random, [2])).toBe(2);
    expect(sampleToken(Float32Array.of(1, 7, 2, -1), { ...tiny, temperature: 0 }, random, [2])).toBe(2);
    const huge = { ...plain, ...options, repetitionPenalty: 1e300 };
    expect(sampleToken(Float32Array.of(-1, -7, -2, -30), huge, random, [0, 1, 3])).toBe(2);
    expect([0, 1]).toContain(sampleToken(Float32Array.of(-1, -7), huge, random, [0, 1]));
  });
});

/** The same by sorting everything and walking down, as the definitions read. */
function plainSample(logits: Float32Array, options: Required<SamplingOptions>, draw: number, seen: number[]): number {
  const { temperature, topK, topP, minP, repetitionPenalty } = options;
  let kept = Array.from(logits, (logit, id) => {
    const factor = logit < 0 ? repetitionPenalty : 1 / repetitionPenalty;
    return { id, logit: Math.fround(seen.includes(id) ? logit * factor : logit) };
  }).sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (topK > 0) kept = kept.slice(0, topK);
  const top = kept[0]?.logit ?? 0;
  const weighed = kept.map(({ id, logit }) => ({ id, weight: Math.exp((logit - top) / temperature) }));
  const total = weighed.reduce((sum, { weight }) => sum + weight, 0);
  let before = 0;
  const nucleus = weighed.filter(({ weight }) => {
    const stays = topP >= 1 || before < topP * total;
    before += weight;
    return stays;
  });
  const left = nucleus.filter(({ weight }) => weight >= minP);
  if (topK === 0 && topP >= 1) left.sort((a, b) => a.id - b.id);
  let rest = draw * left.reduce((sum, { weight }) => sum + weight, 0);
  for (const { id, weight } of left) {
    rest -= weight;
    if (rest < 0) return id;
  }
  return left.at(-1)?.id ?? -1;
}

it("draws what sorting the whole vocabulary would draw, whatever the options and the vocabulary", () => {
  const options = fc.record({
    temperature: fc.constantFrom(0.3, 1, 5),
    topK: fc.constantFrom(0, 1, 7, 40, 300, 5000),
    topP: fc.constantFrom(1, 0.9, 0.43, 0.999),
    minP: fc.constantFrom(0, 0.03, 0.7),
    repetitionPenalty: fc.constantFrom(1, 1.25),
  });
  fc.assert(
    fc.property(options, fc.constantFrom(3, 50, 2000, 9000), fc.nat(1e6), (chosen, size, seed) => {
      const source = new Random(seed);
      // In steps of a quarter, so that many are equal.
      const logits = Float32Array.from({ length: size }, () => Math.round(40 * source.float() - 20) / 4);
      const seen = [0, 1, 2, size - 1];
      const draw = new Random(seed, 1).float();
      expect(sampleToken(logits, chosen, new Random(seed, 1), seen)).toBe(plainSample(logits, chosen, draw, seen));
    }),
  );
});
