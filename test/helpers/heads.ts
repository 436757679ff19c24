/** Language-model heads to try kernels on: shapes, windows and splits with ragged ends, and what f32 may be off by. */
import fc from "fast-check";
import type { WeightFormat } from "../../src/kernels/kernel.ts";
import { EPSILON, expError, normals, seeded, tanhError } from "./compare.ts";
import { type HostArray, stored } from "./gpu.ts";

const at = (values: ArrayLike<number>, index: number) => values[index] ?? Number.NaN;

export interface Head {
  readonly rows: number;
  readonly vocabulary: number;
  readonly width: number;
  readonly hidden: Float32Array<ArrayBuffer>;
  readonly table: Float32Array<ArrayBuffer>;
  readonly targets: readonly number[];
  /** Tokens per window, and per split inside a window. */
  readonly window: number;
  readonly split: number;
  /** How the table is stored; its numbers are representable. Default f32. */
  readonly format?: WeightFormat;
  /** Soft cap of the logits; default: none. */
  readonly cap?: number;
}

/** Rows of the table as they are stored. */
export function tableRows({ table, width, format = "f32" }: Head, start: number, count: number): HostArray {
  return stored(format, [count, width], table.subarray(start * width, (start + count) * width)).array;
}

/** Targets in turn at the first and last token and on both sides of every border of a split or window. */
export function borderTargets(rows: number, vocabulary: number, step: number): number[] {
  const borders = [0, vocabulary - 1];
  for (let border = step; border < vocabulary; border += step) borders.push(border - 1, border);
  return Array.from({ length: rows }, (_, row) => at(borders, row % borders.length));
}

export function windowsOf({ vocabulary, window, split }: Head): { start: number; count: number; splits: number }[] {
  const windows: { start: number; count: number; splits: number }[] = [];
  for (let start = 0; start < vocabulary; start += window) {
    const count = Math.min(window, vocabulary - start);
    windows.push({ start, count, splits: Math.ceil(count / split) });
  }
  return windows;
}

/** Logits in float64, and per row the errors that f32 may make, from the absolute terms. */
export function errorsOf({ rows, vocabulary, width, hidden, table, cap }: Head, logSumExp: Float64Array) {
  const logits = new Float64Array(rows * vocabulary);
  const logitErrors = new Float64Array(rows * vocabulary);
  // What a soft cap multiplies gradients with: 1 - tanh^2.
  const slopes = new Float64Array(rows * vocabulary).fill(1);
  const slopeErrors = new Float64Array(rows * vocabulary);
  const logSumExpErrors = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let highest = Number.NEGATIVE_INFINITY;
    for (let token = 0; token < vocabulary; token++) {
      let sum = 0;
      let absolute = 0;
      for (let c = 0; c < width; c++) {
        const product = at(hidden, row * width + c) * at(table, token * width + c);
        sum += product;
        absolute += Math.abs(product);
      }
      const i = row * vocabulary + token;
      logits[i] = sum;
      logitErrors[i] = 4 * Math.sqrt(width) * EPSILON * absolute; // as in the test of matmul
      if (cap !== undefined) {
        const tanh = Math.tanh(sum / cap);
        const error = tanhError(sum / cap) + at(logitErrors, i) / cap;
        logits[i] = cap * tanh;
        logitErrors[i] = cap * (error + 4 * EPSILON * Math.abs(tanh));
        slopes[i] = 1 - tanh ** 2;
        slopeErrors[i] = 2 * Math.abs(tanh) * error + 8 * EPSILON;
      }
      highest = Math.max(highest, at(logits, i));
    }
    // Each term of the sum weighs as much as its probability; exp measures it from the maximum in up to three steps
    // (lane, split, all), whose distances add up. Then log: 3 units, or 2^-21 near 1, and one addition.
    const total = at(logSumExp, row);
    let error =
      (Math.sqrt(vocabulary) + 16) * EPSILON + 7 * EPSILON * Math.abs(total - highest) + EPSILON * Math.abs(total);
    for (let token = 0; token < vocabulary; token++) {
      const logit = at(logits, row * vocabulary + token);
      const own = at(logitErrors, row * vocabulary + token) + expError(highest - logit) + 2 * expError(0);
      error += Math.exp(logit - total) * own;
    }
    logSumExpErrors[row] = error;
  }
  return { logits, logitErrors, logSumExpErrors, slopes, slopeErrors };
}

type Cut = Pick<Head, "window" | "split">;

export const shapes = fc.record({
  rows: fc.constantFrom(1, 3, 15, 16, 17, 33),
  vocabulary: fc.constantFrom(1, 2, 31, 32, 33, 97, 128, 257, 513),
  width: fc.constantFrom<number>(1, 3, 4, 8, 20, 33),
  // Windows and splits as the caller takes them (the whole, one split), and cut so that both have ragged ends.
  cut: fc.constantFrom<Cut>({ window: 1000, split: 256 }, { window: 1000, split: 32 }, { window: 192, split: 64 }),
  seed: fc.nat(1e9),
});
export type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never;

export function headOf({ rows, vocabulary, width, cut, seed }: Shape, scale = 1): Head {
  const random = seeded(seed);
  return {
    rows,
    vocabulary,
    width,
    hidden: normals(random, rows * width, scale),
    table: normals(random, vocabulary * width),
    targets: borderTargets(rows, vocabulary, Math.min(cut.window, cut.split)),
    ...cut,
  };
}

/** Rows whose logits lie between -80 and 80, with the target now the highest and now the lowest of all. */
export function steepHead(width: number): Head {
  const [rows, vocabulary] = [18, 97];
  const random = seeded(77);
  const table = normals(random, vocabulary * width, 0.01);
  for (let token = 0; token < vocabulary; token++) table[token * width] = 80 * (1 - (2 * token) / (vocabulary - 1));
  const hidden = normals(random, rows * width, 0.01);
  for (let row = 0; row < rows; row++) hidden[row * width] = row % 2 === 0 ? 1 : -1;
  return {
    rows,
    vocabulary,
    width,
    hidden,
    table,
    targets: borderTargets(rows, vocabulary, 32),
    window: 64,
    split: 32,
  };
}
