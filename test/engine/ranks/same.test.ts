import { expect, test } from "vitest";
import { firstDifference } from "../../../src/engine/ranks/same.ts";

test("the lowest rank that differs is named, with both values", () => {
  expect(
    firstDifference([
      { a: 1, b: [2] },
      { a: 1, b: [2] },
    ]),
  ).toBeUndefined();
  expect(firstDifference([{ a: 1 }, { a: 1 }, { a: 2 }, { a: 3 }])).toEqual({
    rank: 2,
    name: "a",
    theirs: 2,
    first: 1,
  });
  expect(firstDifference([{ a: 1 }, {}])).toMatchObject({ rank: 1, name: "a", theirs: undefined, first: 1 });
  expect(firstDifference([{}, { a: 1 }])).toMatchObject({ rank: 1, name: "a", theirs: 1, first: undefined });
});
