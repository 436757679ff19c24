/** Matrices side by side, and the columns of a table by ids with their gradient: the small moves of adapters. */
import { describe, expect, it } from "vitest";
import { bucketRows, embeddingColumnsBackward, gatherColumns } from "../../src/kernels/embedding.ts";
import { joinColumns } from "../../src/kernels/join-columns.ts";
import { expectWithin, float64, normals, seeded } from "../helpers/compare.ts";
import { sharedDevice } from "../helpers/device.ts";
import { f32, runKernel, stored, u32 } from "../helpers/gpu.ts";

const device = await sharedDevice();
const random = seeded(23);
const numbers = (count: number) => normals(random, count);

describe("columns joined into a wider matrix", () => {
  it.each(["f32", "f16", "bf16", "nf4", "int8"] as const)(
    "of %s, as they are and times gains less a shift",
    async (format) => {
      const [R, C, O, columns, first, xFirst] = [9, 64, 80, 60, 13, 2];
      const { array, values } = stored(format, [R, C], numbers(R * C));
      const [gains, before] = [numbers(R + 3), numbers(R * O)];
      for (const hasGains of [0, 1]) {
        const args = { x: array, gains: f32([R + 3], gains), out: f32([R, O], before) };
        const found = (
          await runKernel(device, joinColumns(format), { ...args, columns, first, xFirst, hasGains, shift: 1 })
        )("out");
        const wanted = float64(before);
        for (let row = 0; row < R; row++) {
          const factor = hasGains ? (gains[row] ?? 0) - 1 : 1;
          for (let c = 0; c < columns; c++) wanted[row * O + first + c] = factor * (values[row * C + xFirst + c] ?? 0);
        }
        expectWithin(`${format} ${hasGains}`, found, wanted, (i) => 2 ** -21 * (1e-3 + Math.abs(wanted[i] ?? 0)));
      }
    },
  );
});

describe("columns of a table by ids", () => {
  const [N, R, V, C, firstRow] = [21, 3, 17, 7, 2];
  const ids = Uint32Array.from({ length: N }, (_, n) => (n * n) % V);

  it("are looked up into rows", async () => {
    const [table, before] = [numbers(R * V), numbers(N * C)];
    const args = { table: f32([R, V], table), columns: u32([N], ids), y: f32([N, C], before), firstRow };
    const found = (await runKernel(device, gatherColumns, args))("y");
    const wanted = before.slice();
    for (let n = 0; n < N; n++)
      for (let k = 0; k < R; k++) wanted[n * C + firstRow + k] = table[k * V + (ids[n] ?? 0)] ?? 0;
    expect([...found]).toEqual([...wanted]);
  });

  it("get the sums of the rows of each id as their gradient", async () => {
    const [dy, before] = [numbers(N * C), numbers(R * V)];
    const used = N - 2;
    const { order, bucketIds, bucketStarts } = bucketRows(ids, used);
    const result = await runKernel(device, embeddingColumnsBackward, {
      ...{ dy: f32([N, C], dy), order: u32([N], order), bucketIds: u32([N], bucketIds) },
      ...{ bucketStarts: u32([N + 1], bucketStarts), dTable: f32([R, V], before), firstRow },
    });
    const wanted = float64(before);
    for (let n = 0; n < used; n++) {
      for (let k = 0; k < R; k++) {
        const at = k * V + (ids[n] ?? 0);
        wanted[at] = (wanted[at] ?? 0) + (dy[n * C + firstRow + k] ?? 0);
      }
    }
    expectWithin("gradient", result("dTable"), wanted, (i) => 1e-6 * (1 + Math.abs(wanted[i] ?? 0)));
  });
});
