/** Ids as numbers, against a Map of strings. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { int32s, Names } from "../../../../src/kto/data/exports/names.ts";

/** Also of characters above 255, half of a pair among them, and of texts that differ in the width of characters alone. */
const texts = fc.array(
  fc.oneof(
    fc.string({ unit: fc.constantFrom("a", "b", "\u0000", "\u00ff", "\u0161", "\ud83d") }),
    fc.string({ maxLength: 3 }),
    fc.constantFrom("", "a\u0001", "\u0161"),
  ),
);

test("equal strings have one number, in the order in which they first come, and come back as they were", () => {
  fc.assert(
    fc.property(texts, (list) => {
      const names = new Names();
      const known = new Map<string, number>();
      for (const text of list) {
        expect(names.find(text)).toBe(known.get(text));
        if (!known.has(text)) known.set(text, known.size);
        expect(names.add(text)).toBe(known.get(text));
      }
      expect(names.size).toBe(known.size);
      for (const [text, number] of known) expect([names.find(text), names.textOf(number)]).toEqual([number, text]);
    }),
  );
});

test("more ids than there is room for at first", () => {
  const names = new Names();
  const ids = Array.from({ length: 20_000 }, (_, i) => `00000000-0000-4000-8000-${String(i * 37).padStart(12, "0")}`);
  expect(ids.map((id) => names.add(id))).toEqual(ids.map((_, i) => i));
  expect(ids.map((id) => names.find(id))).toEqual(ids.map((_, i) => i));
  expect(names.textOf(12_345)).toBe(ids[12_345]);
});

test("a column grows, and what was never set is 0", () => {
  const column = int32s();
  column.set(5_000, -3);
  expect([column.at(0), column.at(4_999), column.at(5_000), column.at(1e9)]).toEqual([0, 0, -3, 0]);
});
