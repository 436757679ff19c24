/** Parts of some work that ranks share: each is done once, and every rank gets all results in order. */
import { describe, expect, test } from "vitest";
import { ALONE } from "../../../src/engine/ranks/communicator.ts";
import { shareParts } from "../../../src/engine/ranks/share.ts";
import { localRanks } from "../../helpers/local-ranks.ts";

describe("parts", () => {
  test.each([
    [2, 5],
    [3, 3],
    [3, 7],
    [4, 2],
    [2, 0],
  ])("by %d ranks, %d of them", async (size, count) => {
    const done: number[] = [];
    const work = async (parts: readonly number[]) => {
      done.push(...parts);
      return parts.map((part) => `part ${part}`);
    };
    const found = await Promise.all(localRanks(size).map((ranks) => shareParts(ranks, count, work)));
    const all = Array.from({ length: count }, (_, part) => part);
    expect(done.sort((a, b) => a - b)).toEqual(all);
    for (const results of found) expect(results).toEqual(all.map((part) => `part ${part}`));
  });

  test("by one process are all its own, and results are as they were given", async () => {
    const results = await shareParts(ALONE, 2, async (parts) => parts.map((part) => new Map([[part, Number.NaN]])));
    expect(results).toEqual([new Map([[0, Number.NaN]]), new Map([[1, Number.NaN]])]);
  });
});
