/**
 * Every backward of the float64 twin against central differences of its forward, over odd shapes; and the few
 * forwards that no whole-model golden pins down.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { geluBackward, geluForward, swigluBackward, swigluForward } from "../../../src/kernels/float64/activation.ts";
import { adamwStep } from "../../../src/kernels/float64/adamw.ts";
import { attentionBackward, attentionForward } from "../../../src/kernels/float64/attention.ts";
import { at } from "../../../src/kernels/float64/elements.ts";
import { embeddingBackward, embeddingForward } from "../../../src/kernels/float64/embedding.ts";
import { headNormBackward, headNormForward } from "../../../src/kernels/float64/head-norm.ts";
import {
  logSoftmaxGatherBackward,
  logSoftmaxGatherForward,
  segmentSum,
} from "../../../src/kernels/float64/log-softmax-gather.ts";
import { matmul, matmulAbsolute } from "../../../src/kernels/float64/matmul.ts";
import {
  layerNormBackward,
  layerNormForward,
  rmsNormBackward,
  rmsNormForward,
} from "../../../src/kernels/float64/norm.ts";
import { clipScale, globalNorm } from "../../../src/kernels/float64/reduce.ts";
import { ropeBackward, ropeForward } from "../../../src/kernels/float64/rope.ts";
import { shortConvolutionBackward, shortConvolutionForward } from "../../../src/kernels/float64/short-convolution.ts";
import { dot, expectGradient, normals, relativeError } from "../../helpers/central-differences.ts";

/** Fixed, so that a failure is the same on every machine. */
const RUNS = { numRuns: 30, seed: 20240202 };
const rows = fc.integer({ min: 1, max: 5 });
const columns = fc.integer({ min: 1, max: 9 });
const seed = fc.integer({ min: 0, max: 2 ** 31 });

function transpose(x: Float64Array, rowCount: number, columnCount: number): Float64Array {
  return Float64Array.from({ length: x.length }, (_, i) =>
    at(x, (i % rowCount) * columnCount + Math.floor(i / rowCount)),
  );
}

describe("matmul", () => {
  it("multiplies two matrices worked out by hand, with bias and residual", () => {
    const y = matmul({
      a: Float64Array.of(1, 2, 3, 4, 5, 6),
      b: Float64Array.of(1, -1, 0, 2, 3, 1),
      m: 2,
      n: 2,
      k: 3,
      bias: Float64Array.of(10, 20),
      residual: Float64Array.of(0.5, 0, 0, -0.5),
    });
    expect([...y]).toEqual([20.5, 26, 32, 31.5]);
    expect([
      ...matmulAbsolute({
        a: Float64Array.of(1, -2),
        b: Float64Array.of(-3, -4),
        m: 1,
        n: 1,
        k: 2,
        bias: Float64Array.of(-5),
      }),
    ]).toEqual([16]);
  });

  it("reads transposed operands, and its absolute sum bounds it", () => {
    fc.assert(
      fc.property(rows, columns, fc.integer({ min: 0, max: 7 }), seed, (m, n, k, s) => {
        const random = normals(s);
        const a = random(m * k);
        const b = random(k * n);
        const y = matmul({ a, b, m, n, k });
        for (const [transposeA, transposeB] of [
          [true, false],
          [false, true],
          [true, true],
        ] as const) {
          const stored = { a: transposeA ? transpose(a, m, k) : a, b: transposeB ? transpose(b, k, n) : b };
          expect(matmul({ ...stored, m, n, k, transposeA, transposeB })).toEqual(y);
        }
        const bound = matmulAbsolute({ a, b, m, n, k });
        for (const [i, value] of y.entries()) expect(Math.abs(value)).toBeLessThanOrEqual(at(bound, i));
      }),
      RUNS,
    );
  });
});

describe("norms", () => {
  it("rmsNormBackward is the gradient of rmsNormForward", () => {
    fc.assert(
      fc.property(rows, columns, seed, (t, c, s) => {
        const random = normals(s);
        const [x, weight, dy] = [random(t * c), random(c), random(t * c)];
        const f = () => dot(rmsNormForward(x, weight, 1e-5).y, dy);
        const d = rmsNormBackward(dy, x, weight, rmsNormForward(x, weight, 1e-5).inverseRms);
        expectGradient(f, x, d.dx);
        expectGradient(f, weight, d.dWeight);
      }),
      RUNS,
    );
  });

  it("layerNormBackward is the gradient of layerNormForward", () => {
    fc.assert(
      fc.property(rows, columns, seed, (t, c, s) => {
        const random = normals(s);
        const [x, weight, bias, dy] = [random(t * c), random(c), random(c), random(t * c)];
        const f = () => dot(layerNormForward(x, weight, bias, 1e-5).y, dy);
        const { mean, inverseStd } = layerNormForward(x, weight, bias, 1e-5);
        const d = layerNormBackward(dy, x, weight, mean, inverseStd);
        expectGradient(f, x, d.dx);
        expectGradient(f, weight, d.dWeight);
        expectGradient(f, bias, d.dBias);
      }),
      RUNS,
    );
  });
});

describe("head norm", () => {
  it("headNormBackward is the gradient of headNormForward, and the columns behind the heads pass through", () => {
    fc.assert(
      fc.property(rows, rows, rows, fc.integer({ min: 1, max: 4 }), seed, (t, queryHeads, keyHeads, size, s) => {
        const random = normals(s);
        const width = (queryHeads + keyHeads) * size + 3;
        const [x, dy, queryWeight, keyWeight] = [random(t * width), random(t * width), random(size), random(size)];
        const inputs = { queryWeight, keyWeight, queryHeads, keyHeads, rows: t };
        const forward = () => headNormForward(x, 1e-5, inputs);
        const d = headNormBackward(dy, x, forward().inverse, inputs);
        const f = () => dot(forward().y, dy);
        expectGradient(f, x, d.dx);
        expectGradient(f, queryWeight, d.dQueryWeight);
        expectGradient(f, keyWeight, d.dKeyWeight);
        for (let row = 0; row < t; row++) {
          expect(forward().y.slice((row + 1) * width - 3, (row + 1) * width)).toEqual(
            x.slice((row + 1) * width - 3, (row + 1) * width),
          );
        }
      }),
      RUNS,
    );
  });

  it("each head has a mean square of its own and the weight of its kind", () => {
    const inputs = {
      queryWeight: Float64Array.of(1, 10),
      keyWeight: Float64Array.of(2, 0),
      queryHeads: 1,
      keyHeads: 1,
      rows: 1,
    };
    // Mean squares 25 / 2 and 2: (3, 4) and (2, 0) over their roots.
    const { y } = headNormForward(Float64Array.of(3, 4, 2, 0, 7), 0, inputs);
    const wanted = [3 / Math.sqrt(12.5), 40 / Math.sqrt(12.5), 4 / Math.sqrt(2), 0, 7];
    expect([...y]).toEqual(wanted.map((value) => expect.closeTo(value, 12)));
  });
});

describe("rope", () => {
  it("ropeBackward is the gradient of ropeForward, at positions that are not the row index", () => {
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 }), seed, (t, heads, half, s) => {
        const random = normals(s);
        const length = t * heads * 2 * half;
        const [x, dy] = [random(length), random(length)];
        const positions = random(t).map((value) => Math.floor(Math.abs(value) * 50));
        const shape = { positions, heads, headSize: 2 * half, theta: 10000 };
        expectGradient(() => dot(ropeForward({ x, ...shape }), dy), x, ropeBackward({ x: dy, ...shape }));
      }),
      RUNS,
    );
  });

  it("makes scores depend on the distance of positions alone", () => {
    const [q, k] = [normals(1)(6), normals(2)(6)];
    const turn = (x: Float64Array, position: number) =>
      ropeForward({ x, positions: [position], heads: 1, headSize: 6, theta: 100 });
    expect(dot(turn(q, 9), turn(k, 4))).toBeCloseTo(dot(turn(q, 105), turn(k, 100)), 12);
  });
});

describe("activations", () => {
  it("swigluBackward is the gradient of swigluForward", () => {
    fc.assert(
      fc.property(rows, columns, seed, (t, i, s) => {
        const random = normals(s);
        const [gateUp, dy] = [random(t * 2 * i, 2), random(t * i)];
        expectGradient(() => dot(swigluForward(gateUp, i), dy), gateUp, swigluBackward(dy, gateUp, i));
      }),
      RUNS,
    );
  });

  it("geluBackward is the gradient of geluForward", () => {
    fc.assert(
      fc.property(columns, seed, (n, s) => {
        const random = normals(s);
        const [x, dy] = [random(n, 2), random(n)];
        expectGradient(() => dot(geluForward(x), dy), x, geluBackward(dy, x));
      }),
      RUNS,
    );
  });

  it("stay finite where exp and x^3 would overflow", () => {
    const far = Float64Array.of(-1e4, 1e4);
    const ones = Float64Array.of(1, 1);
    expect([...geluForward(far), ...geluBackward(ones, far)]).toEqual([-0, 1e4, 0, 1]);
    expect([...swigluForward(Float64Array.of(-1e4, 1e4, 1, 1), 2)]).toEqual([-0, 1e4]);
    expect([...swigluBackward(ones, Float64Array.of(-1e4, 1e4, 1, 1), 2)].every(Number.isFinite)).toBe(true);
  });
});

describe("embedding", () => {
  it("embeddingBackward adds up repeated ids and leaves the others 0", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 8 }), columns, seed, (ids, c, s) => {
        const random = normals(s);
        const [table, dy] = [random(5 * c), random(ids.length * c)];
        expectGradient(() => dot(embeddingForward(table, ids, c), dy), table, embeddingBackward(dy, ids, 5, c));
      }),
      RUNS,
    );
  });

  it("refuses an id outside the table", () => {
    expect(() => embeddingForward(new Float64Array(6), [3], 2)).toThrow(RangeError);
  });
});

/** T rows of any two key ranges that do not overlap, empty ones included, over S keys. */
const attentionCase = fc
  .record({
    keys: fc.integer({ min: 1, max: 6 }),
    keyValueHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    headSize: fc.integer({ min: 1, max: 5 }),
    seed,
  })
  .chain((shape) => {
    const cut = fc.integer({ min: 0, max: shape.keys });
    const row = fc.tuple(cut, cut, cut, cut).map((cuts) => cuts.sort((a, b) => a - b));
    return fc.array(row, { minLength: 1, maxLength: 4 }).map((all) => ({ ...shape, ranges: all.flat() }));
  });

describe("attention", () => {
  it("attentionBackward is the gradient of attentionForward: grouped-query heads, two key ranges", () => {
    fc.assert(
      fc.property(attentionCase, ({ keys, keyValueHeads, group, headSize, seed: s, ranges }) => {
        const random = normals(s);
        const heads = keyValueHeads * group;
        const q = random((ranges.length / 4) * heads * headSize);
        const [k, v] = [random(keys * keyValueHeads * headSize), random(keys * keyValueHeads * headSize)];
        const inputs = { q, k, v, ranges, heads, keyValueHeads, headSize };
        const dOut = random(q.length);
        const f = () => dot(attentionForward(inputs).out, dOut);
        const d = attentionBackward({ ...inputs, dOut, logSumExp: attentionForward(inputs).logSumExp });
        expectGradient(f, q, d.dq);
        expectGradient(f, k, d.dk);
        expectGradient(f, v, d.dv);
      }),
      RUNS,
    );
  });

  it("gives a branch behind a shared prompt what the whole sequence would give", () => {
    // Rows 0-2 are a prompt, 3-4 its completion, 5-6 a branch that continues the same prompt.
    const shape = { heads: 4, keyValueHeads: 2, headSize: 3 };
    const random = normals(7);
    const [q, k, v] = [random(7 * 12), random(7 * 6), random(7 * 6)];
    const ranges = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 3, 5, 6, 0, 3, 5, 7];
    const packed = attentionForward({ q, k, v, ranges, ...shape });
    const alone = (x: Float64Array, width: number) =>
      Float64Array.of(...x.subarray(0, 3 * width), ...x.subarray(5 * width, 7 * width));
    const separate = attentionForward({
      q: alone(q, 12),
      k: alone(k, 6),
      v: alone(v, 6),
      ranges: [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5],
      ...shape,
    });
    expect(alone(packed.out, 12)).toEqual(separate.out);
    expect(alone(packed.logSumExp, 4)).toEqual(separate.logSumExp);
  });

  it("gives 0 for a row without keys", () => {
    const one = Float64Array.of(1);
    const inputs = { q: one, k: one, v: one, ranges: [0, 0, 1, 1], heads: 1, keyValueHeads: 1, headSize: 1 };
    const forward = attentionForward(inputs);
    expect([...forward.out, ...forward.logSumExp]).toEqual([0, Number.NEGATIVE_INFINITY]);
    const d = attentionBackward({ ...inputs, dOut: one, logSumExp: forward.logSumExp });
    expect([...d.dq, ...d.dk, ...d.dv]).toEqual([0, 0, 0]);
  });
});

describe("log-softmax-gather", () => {
  it("logSoftmaxGatherBackward is the gradient of the weighted log-probs, and its dLogits rows sum to 0", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4 }), columns, fc.integer({ min: 1, max: 7 }), seed, (n, c, vocab, s) => {
        const random = normals(s);
        const [hidden, table, coefficients] = [random(n * c), random(vocab * c), random(n)];
        const targets = [...random(n)].map((value) => Math.floor(Math.abs(value) * 1000) % vocab);
        const f = () => dot(logSoftmaxGatherForward(hidden, table, targets).logProbs, coefficients);
        const { logSumExp } = logSoftmaxGatherForward(hidden, table, targets);
        const d = logSoftmaxGatherBackward(hidden, table, targets, coefficients, logSumExp);
        expectGradient(f, hidden, d.dHidden);
        expectGradient(f, table, d.dTable);
        // dTable = dLogits^T hidden, so its sum over the vocabulary is (row sums of dLogits)^T hidden = 0.
        for (let column = 0; column < c; column++) {
          let total = 0;
          for (let v = 0; v < vocab; v++) total += at(d.dTable, v * c + column);
          expect(Math.abs(total)).toBeLessThan(1e-12);
        }
      }),
      RUNS,
    );
  });

  it("survives logits beyond the range of exp", () => {
    const { logProbs } = logSoftmaxGatherForward(Float64Array.of(1), Float64Array.of(5000, -5000), [1]);
    expect([...logProbs]).toEqual([-10000]);
  });

  it("sums log-probs over segments, empty ones to 0", () => {
    expect([...segmentSum(Float64Array.of(1, 2, 4, 8), [0, 2, 2, 2, 1, 4])]).toEqual([3, 0, 14]);
  });
});

describe("clip and AdamW", () => {
  it("takes one norm over all arrays and clips as torch's clip_grad_norm_", () => {
    expect(globalNorm([Float64Array.of(2, 3), Float64Array.of(), Float64Array.of(6)])).toBe(7);
    expect(clipScale(7, 1)).toBe(1 / 7.000001);
    expect(clipScale(0.5, 1)).toBe(1);
    // Just below the limit the added 1e-6 already clips.
    expect(clipScale(1 - 5e-7, 1)).toBeLessThan(1);
    expect(clipScale(Number.NaN, 1)).toBeNaN();
  });

  it("first step moves by the learning rate against the sign, after the decay and whatever the scale", () => {
    const options = { learningRate: 0.1, beta1: 0.9, beta2: 0.98, epsilon: 0, weightDecay: 0.5, step: 1 };
    const state = {
      parameter: Float64Array.of(2, -4),
      firstMoment: new Float64Array(2),
      secondMoment: new Float64Array(2),
    };
    const after = adamwStep(state, Float64Array.of(3, -0.001), { ...options, scale: 0.25 });
    expect(relativeError(after.parameter, Float64Array.of(2 * 0.95 - 0.1, -4 * 0.95 + 0.1))).toBeLessThan(1e-14);
    expect(relativeError(after.firstMoment, Float64Array.of(0.075, -0.000025))).toBeLessThan(1e-14);
    expect([...state.parameter]).toEqual([2, -4]);
  });
});

describe("short convolution", () => {
  it.each(["nothing", "silu", "gates"] as const)("with %s around it, backward is the gradient of forward", (around) => {
    fc.assert(
      fc.property(rows, rows, columns, fc.integer({ min: 2, max: 4 }), seed, (prompt, other, c, taps, s) => {
        const random = normals(s);
        // A sequence, and one that continues its first rows.
        const ranges = [
          ...Array.from({ length: prompt + other }, (_, t) => [0, 0, 0, t + 1]),
          ...[0, 1].map((t) => [0, prompt, prompt + other, prompt + other + t + 1]),
        ].flat();
        const t = ranges.length / 4;
        const width = around === "gates" ? 3 * c : c + 1;
        const [x, dOut, weight, bias] = [random(t * width), random(t * c), random(c * taps), random(c)];
        const inputs = { x, weight, bias, taps, around, ranges };
        const { z } = shortConvolutionForward(inputs);
        const d = shortConvolutionBackward({ ...inputs, z, dOut });
        const f = () => dot(shortConvolutionForward(inputs).out, dOut);
        expectGradient(f, x, d.dx);
        expectGradient(f, weight, d.dWeight);
        expectGradient(f, bias, d.dBias);
      }),
      { ...RUNS, numRuns: 8 },
    );
  });
});
