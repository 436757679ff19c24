/** The quickstart's committed data keeps its word: the thumbs are the rule's, and nothing held out was trained on. */
import { expect, test } from "vitest";
import { judgeStory } from "../../examples/quickstart/judge.ts";
import { heldOutOpenings, trainingOpenings } from "../../examples/quickstart/openings.ts";
import { pairText, wrap } from "../../examples/quickstart/print.ts";
import { feedbackFile, modelFolder, storyTokens } from "../../examples/quickstart/stories.ts";
import { loadTokenizer, readFeedback, type TextRow, tokenizeRows } from "../../src/index.ts";

const rows = (await readFeedback(feedbackFile)) as TextRow[];

test("every thumb is the rule's verdict on the text beside it", () => {
  const wrong = rows.filter(({ completion, label }) => judgeStory(completion).good !== label);
  expect(wrong.map(({ source }) => source.line)).toEqual([]);
});

test("both classes are there and unequal, so that weights matter", () => {
  const good = rows.filter(({ label }) => label).length;
  expect(good).toBeGreaterThan(200);
  expect(rows.length - good).toBeGreaterThan(3 * good);
});

test("openings are those of the training list; the held-out ones share none with it", () => {
  expect(new Set(rows.map(({ prompt }) => prompt))).toEqual(new Set(trainingOpenings));
  const seen = new Set(trainingOpenings);
  expect(heldOutOpenings.filter((opening) => seen.has(opening))).toEqual([]);
  expect(new Set([...trainingOpenings, ...heldOutOpenings]).size).toBe(
    trainingOpenings.length + heldOutOpenings.length,
  );
});

test("every row fits the model and tokenizes as prompt, then completion", async () => {
  const tokenizer = await loadTokenizer(modelFolder);
  const { report } = tokenizeRows(rows, { tokenizer, vocabSize: 512, contextLength: 512, appendEos: false });
  expect(report).toMatchObject({ rows: rows.length, examples: rows.length, cut: 0, warnings: [], advice: [] });
});

test("wrap breaks at spaces and lets a long word stand alone", () => {
  expect(wrap("a bb ccc dddd", 5)).toEqual(["a bb", "ccc", "dddd"]);
  expect(wrap("ab cdefghi j", 4)).toEqual(["ab", "cdefghi", "j"]);
  expect(wrap("", 4)).toEqual([]);
});

test("a story that was cut is shown with an ellipsis, one that ended without", () => {
  const told = (text: string, tokens: number) => ({
    stories: [{ opening: "One day.", text, completionIds: Array.from({ length: tokens }, () => 5) }],
    verdicts: [{ reason: "ends well" }],
  });
  const shown = pairText(told("They played on and", storyTokens), told("The end.", storyTokens - 1), 0);
  expect(shown.split("\n")[2]).toMatch(/^ {2}They played on and … {20,}The end\.$/);
});
