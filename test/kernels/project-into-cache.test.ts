/** The projection of rows that generate: turned heads in the result and in the cache, against product and rotation. */
import { describe, expect, it } from "vitest";
import * as twin from "../../src/kernels/float64/matmul.ts";
import { ropeForward } from "../../src/kernels/float64/rope.ts";
import { takesTurns } from "../../src/kernels/matmul-variant.ts";
import { type NormedProjectionKernel, projectIntoCache } from "../../src/kernels/project-into-cache.ts";
import { ropeTable } from "../../src/kernels/rope-table.ts";
import { EPSILON, expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const POSITIONS = 83;
const UNWRITTEN = 7;

// The tile of one row and of several, with a norm before them and without; at 4 lanes on the machine.
const CASES = [
  { lanes: 8, M: 1, heads: 3, keyHeads: 1, D: 64, K: 68, format: "bf16", norm: "takes" },
  { lanes: 8, M: 1, heads: 2, keyHeads: 2, D: 128, K: 36, format: "f32", norm: undefined },
  { lanes: 8, M: 16, heads: 3, keyHeads: 1, D: 64, K: 36, format: "bf16", norm: "takes" },
  { lanes: 8, M: 3, heads: 1, keyHeads: 1, D: 128, K: 20, format: "f16", norm: undefined },
  { lanes: 4, M: 2, heads: 2, keyHeads: 1, D: 32, K: 20, format: "f32", norm: "takes" },
] as const;

describe.each(CASES)("a projection of $M rows to heads of $D at $lanes lanes, norm: $norm", (one) => {
  it("gives turned queries, and turned keys and values their rows of the cache", async () => {
    const { lanes, M, heads, keyHeads, D, K, format, norm } = one;
    const facts = { subgroupSize: lanes, software: true };
    const random = seeded(41);
    const [N, KV, V] = [(heads + 2 * keyHeads) * D, keyHeads * D, 2 * POSITIONS];
    const a = f32([M, K], normals(random, M * K));
    const b = stored(format, [N, K], normals(random, N * K, 0.3));
    // Two sequences of the cache in turns; every third row is padding.
    const positions = Array.from({ length: M }, (_, row) => (5 * row) % POSITIONS);
    const isPadding = (row: number) => row % 3 === 2;
    const first = (row: number) => (row % 2) * POSITIONS;
    const ranges = positions.flatMap((position, row) =>
      isPadding(row) ? [0, 0, 0, 0] : [0, 0, first(row), first(row) + position + 1],
    );
    const squares = Array.from({ length: 2 * M }, (_, i) => (1 + (i % 5)) * K);
    const epsilon = 1e-3;
    const kernel: NormedProjectionKernel = projectIntoCache({ M, N, K }, D, facts, { format, norm });
    const filled = (...shape: number[]) =>
      f32(shape, new Float32Array((shape[0] ?? 0) * (shape[1] ?? 0)).fill(UNWRITTEN));
    const turns = { rotated: D, theta: 10000, scaling: { type: "none" } } as const;
    const operands = { a, b: b.array, table: f32([POSITIONS, 2, D / 2], ropeTable(POSITIONS, turns)) };
    const written = { out: filled(M, N), keys: filled(V, KV), values: filled(V, KV) };
    // Without a norm nobody reads it.
    const taken = { squares: f32([M, 2], squares), epsilon };
    const numbers = { M, N, K, aFrom: 0, heads };
    const args = { ...operands, ...written, ...taken, ...numbers, ranges: u32([M, 4], ranges) };
    const result = await runKernel(device, kernel, args, facts);

    const factors = positions.map((_, row) =>
      norm === undefined ? 1 : 1 / Math.sqrt(((squares[2 * row] ?? 0) + (squares[2 * row + 1] ?? 0)) / K + epsilon),
    );
    const inputs = {
      a: float64(a.data).map((value, i) => value * (factors[Math.floor(i / K)] ?? Number.NaN)),
      ...{ b: b.values, m: M, n: N, k: K, transposeB: true },
    };
    const [product, absolute] = [twin.matmul(inputs), twin.matmulAbsolute(inputs)];
    const turnedHeads = heads + keyHeads;
    const out = new Float64Array(M * N).fill(UNWRITTEN);
    const [keys, values] = [new Float64Array(V * KV).fill(UNWRITTEN), new Float64Array(V * KV).fill(UNWRITTEN)];
    const bounds = { out: new Float64Array(M * N), keys: new Float64Array(V * KV), values: new Float64Array(V * KV) };
    for (let row = 0; row < M; row++) {
      const of = product.subarray(row * N, (row + 1) * N);
      const x = Float64Array.from(of.subarray(0, turnedHeads * D));
      const y = ropeForward({ x, positions: [positions[row] ?? 0], heads: turnedHeads, headSize: D, theta: 10000 });
      const cacheRow = first(row) + (positions[row] ?? 0);
      for (let c = 0; c < N; c++) {
        const partner = c % D < D / 2 ? c + D / 2 : c - D / 2;
        const terms = (absolute[row * N + c] ?? 0) + (absolute[row * N + partner] ?? 0);
        const bound = (4 * Math.sqrt(K) + 8) * EPSILON * terms;
        // A row of padding has no position: its queries are whatever they are.
        if (c < heads * D) {
          out[row * N + c] = isPadding(row) ? (result("out")[row * N + c] ?? 0) : (y[c] ?? 0);
          bounds.out[row * N + c] = bound;
        } else if (!isPadding(row)) {
          const isKey = c < turnedHeads * D;
          const at = cacheRow * KV + (c - (isKey ? heads : turnedHeads) * D);
          (isKey ? keys : values)[at] = (isKey ? y[c] : of[c]) ?? 0;
          (isKey ? bounds.keys : bounds.values)[at] = bound;
        }
      }
    }
    // What is not written keeps what it held.
    expectWithin("queries", result("out"), out, bounds.out);
    expectWithin("keys", result("keys"), keys, bounds.keys);
    expectWithin("values", result("values"), values, bounds.values);
  });
});

it("is for few rows on software adapters, and heads whose halves a workgroup's columns divide", () => {
  const eight = { subgroupSize: 8, software: true };
  const shape = { M: 1, N: 192, K: 64 };
  expect(takesTurns(shape, 64, eight)).toBe(true);
  expect(takesTurns({ ...shape, M: 16 }, 32, eight)).toBe(false);
  expect(takesTurns({ ...shape, M: 17 }, 64, eight)).toBe(false);
  expect(takesTurns(shape, 48, eight)).toBe(false);
  expect(takesTurns(shape, 64, { subgroupSize: 32, software: false })).toBe(false);
});
