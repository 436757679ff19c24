/** The dynamic map of 8-bit moments: its codes against bitsandbytes' own. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dynamicMap } from "../../src/kernels/dynamic-map.ts";

const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)];

describe("the dynamic map", () => {
  it("of signed codes is that of bitsandbytes, bit by bit", () => {
    const file = join(import.meta.dirname, "..", "fixtures", "optimizer", "signed-dynamic-map.json");
    const { values } = JSON.parse(readFileSync(file, "utf8")) as { values: number[] };
    expect([...signed]).toEqual(values);
  });

  it.each([
    ["signed", signed],
    ["unsigned", unsigned],
  ] as const)("of %s codes ascends through 256 different numbers to 1", (_, table) => {
    expect(new Set(table).size).toBe(256);
    expect([...table]).toEqual([...table].sort((a, b) => a - b));
    expect(table.at(-1)).toBe(1);
    expect(table.includes(0)).toBe(true);
  });
});
