/** Which words of two texts are marked as different. */
import { expect, test } from "vitest";
import { wordDifferences } from "../../src/dashboard/page/word-differences.ts";

/** Both texts, words of their own in brackets. */
function marked(first: string, last: string): string[] {
  const found = wordDifferences(first, last);
  return [found.first, found.last].map((words) =>
    words.map(({ text, isOwn }) => (isOwn ? `[${text.trim()}]` : text.trim())).join(" "),
  );
}

test.each([
  ["a b c", "a b c", ["a b c", "a b c"]],
  ["the cat sat", "the big dog sat down", ["the [cat] sat", "the [big] [dog] sat [down]"]],
  ["", "new words", ["", "[new] [words]"]],
  ["b a", "a b", ["[b] a", "a [b]"]],
])("%j and %j", (first, last, wanted) => {
  expect(marked(first, last)).toEqual(wanted);
});

test("nothing is lost, and very long texts take bounded work", () => {
  const [first, last] = ["  x y ".repeat(5000), "y x ".repeat(5000)];
  const found = wordDifferences(first, last);
  expect(found.first.map(({ text }) => text).join("")).toBe(first);
  expect(found.last.map(({ text }) => text).join("")).toBe(last);
});
