/** The rule that gives the quickstart's thumbs: each of its sentences, at its borders. */
import { describe, expect, test } from "vitest";
import { distinctTrigrams, judgeStory, repeatsSentence, sentencesOf } from "../../examples/quickstart/judge.ts";

/** Plain words, all different, so that nothing repeats. */
const filler = (count: number, from = 0) =>
  Array.from(
    { length: count },
    (_, i) => `w${String.fromCharCode(97 + ((from + i) % 26))}${"xyz"[Math.floor((from + i) / 26)]}`,
  ).join(" ");

describe("judgeStory", () => {
  test.each([
    ["a happy word among the last twenty", `${filler(20)} then she smiled and went home.`, "ends well"],
    ["the happy word is the twentieth from the end", `${filler(5)} happy ${filler(19, 5)}.`, "ends well"],
    ["the happy word is the twenty-first from the end", `${filler(5)} happy ${filler(20, 5)}.`, "no happy ending"],
    ["a sad word beside it", `${filler(20)} she smiled but he cried.`, "a sad ending"],
    ["a sad word before the ending does not count", `sad ${filler(19)} then she smiled.`, "ends well"],
    ["denied: not happy", `${filler(20)} she was not happy.`, "a sad ending"],
    ["denied: didn't ... smile", `${filler(20)} she didn't even smile.`, "a sad ending"],
    ["the denial is too far away", `${filler(20)} not one two three four happy day.`, "ends well"],
    ["nineteen words", `${filler(18)} happy.`, "too short"],
    ["a happy word three times", `${filler(20)} happy day happy night happy end.`, "repeats itself"],
    [
      "a sentence of four words twice",
      `${filler(20)}. They played all day. They played all day. Fun came.`,
      "repeats itself",
    ],
    ["upper case", `${filler(20)} SHE WAS HAPPY.`, "ends well"],
    ["a word cut at the end does not count", `${filler(20)} it was fun`, "no happy ending"],
    ["nothing", "", "too short"],
  ])("%s", (_, text, reason) => {
    expect(judgeStory(text)).toEqual({ good: reason === "ends well", reason });
  });
});

test("repetition: sentences of four words or more, three-word runs", () => {
  expect(repeatsSentence("Thank you! Thank you!")).toBe(false);
  expect(repeatsSentence("He ran to her.\nHe ran to her!")).toBe(true);
  expect(sentencesOf("He ran. “She  sat?”")).toEqual(["he ran", "she sat"]);
  expect(distinctTrigrams("a b c a b c.")).toBe(3 / 4);
  expect(distinctTrigrams("a b.")).toBe(1);
});
