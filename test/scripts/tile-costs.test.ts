/** What the tiles of a matmul ask of a GPU, in the instructions that Tint makes of them and in bytes from memory. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { attentionCosts, attentionTable, matmulTable, tileCosts } from "../../scripts/tile-costs.ts";
import { matmulTile } from "../../src/kernels/matmul-tile.ts";
import type { MatmulVariant, TileName } from "../../src/kernels/matmul-variant.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";

const costs = tileCosts(32);

it("the tables of docs/design/kernels.md are those of the kernels as they are", () => {
  const text = readFileSync("docs/design/kernels.md", "utf8");
  expect(text).toContain(`\n\n${matmulTable(costs)}\n\n`);
  const adapters = [{ ...BASE_FACTS, subgroupSize: 32 }, BASE_FACTS];
  expect(text).toContain(`\n\n${attentionTable(attentionCosts(adapters, () => true))}\n\n`);
});

describe("the inner loop of a tile in workgroup memory", () => {
  const tiles = costs.filter(({ tile }) => tile.startsWith("workgroup"));

  it("is counted for three tiles in three layouts", () => {
    expect(tiles.length).toBe(9);
  });

  it.each(tiles)("has four multiply-adds a number and no clamp: $tile $layout", (one) => {
    expect(one.fma / one.fromWorkgroup).toBeGreaterThanOrEqual(4);
    expect(one.fromWorkgroup / one.workgroupLoads).toBe(4); // vectors
    expect([one.clamps, one.memoryLoads, one.exchanges]).toEqual([0, 0, 0]);
  });
});

describe.each([8, 16, 32, 64])("with subgroups of %i", (subgroupSize) => {
  const numbersAResult = (tile: TileName): number => {
    const variant: MatmulVariant = {
      ...{ layout: "NN", loadsA: "aligned", loadsB: "aligned", vectorStores: true, subgroupSize, software: false },
      ...{ format: "f32", aFormat: "f32", outFormat: "f32", continues: false, gated: false, tile },
    };
    const { rows, columns } = matmulTile(variant);
    return (rows + columns) / (rows * columns);
  };

  it("four that share B read at most half of what one reads for a result", () => {
    expect(numbersAResult("subgroup16x4")).toBeLessThanOrEqual(numbersAResult("subgroup16") / 2);
  });
});
