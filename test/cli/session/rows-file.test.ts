/** rows.jsonl: texts of rows that stand out, cut, and cut back with the run. No model is run. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RowTexts } from "../../../src/cli/session/rows-file.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import type { Example } from "../../../src/kto/data/types.ts";
import type { ExampleLine } from "../../../src/kto/run/example-line.ts";
import { ROWS_FILE, type RowLine } from "../../../src/kto/run/row-line.ts";
import { fixtures, freshPath, stories, temporaryFolder } from "../../helpers/folders.ts";

const folder = temporaryFolder();
const tokenizer = await loadTokenizer(stories);

const example = (index: number, prompt: string, completion: string, label: boolean): Example => ({
  ...{ index, label, cut: false, source: { file: "rows.jsonl", line: index + 1 } },
  promptIds: Uint32Array.from(tokenizer.encode(prompt)),
  completionIds: Uint32Array.from(tokenizer.encode(prompt + completion).slice(tokenizer.encode(prompt).length)),
});
const examples = [
  example(0, "Once upon a time", " there was a cat.", true),
  example(7, "One day", " it rained.", false),
  example(9, "Tom went home.".concat(" Tom went home.".repeat(99)), " He was happy.".repeat(100), true),
];

const line = (step: number, ratios: Readonly<Record<number, number>>): ExampleLine => {
  const index = Object.keys(ratios).map(Number);
  return {
    ...{ step, beta: 0.1, desirable_weight: 1, undesirable_weight: 1, rows: index.length, z0: [0], z0_unclamped: [0] },
    ...{ pairs: [1], index, label: index.map((row) => row !== 7), group: index.map(() => 0) },
    log_ratio: Object.values(ratios),
    ...{ u: index.map(() => 0), v: index.map(() => 0), saturated: index.map(() => false) },
  };
};

function begin(model = stories) {
  const output = freshPath(folder, "run");
  mkdirSync(output, { recursive: true });
  const warnings: string[] = [];
  const make = () =>
    new RowTexts(output, { folder: model, adapter: undefined }, examples, (text) => warnings.push(text));
  const read = () =>
    readFileSync(join(output, ROWS_FILE), "utf8")
      .trim()
      .split("\n")
      .map((text) => JSON.parse(text) as RowLine);
  return { output, warnings, make, read };
}

test("each row once, as text; long ones are cut, the prompt at its beginning and the completion at its end", async () => {
  const { make, read, warnings } = begin();
  const texts = make();
  await texts.start(0, []);
  await texts.write(line(2, { 0: 1, 9: 2 }));
  await texts.write(line(4, { 0: 3, 7: 1, 9: 0 }));
  const [first, long, last, ...more] = read();
  expect(more).toEqual([]);
  expect(new Set([first?.index, long?.index])).toEqual(new Set([0, 9]));
  expect(last).toEqual({ step: 4, index: 7, label: false, prompt: "One day", completion: " it rained." });
  const cut = [first, long].find((row) => row?.index === 9);
  expect(cut?.prompt).toMatch(/^… .*Tom went home\.$/s);
  expect(cut?.completion).toMatch(/^ He was happy\. .* …$/s);
  expect((cut?.prompt.length ?? 0) + (cut?.completion.length ?? 0)).toBeLessThan(1300);
  // The tokenizer takes away the space at the beginning of a text, which is none here.
  const short = [first, long].find((row) => row?.index === 0);
  expect(short).toMatchObject({ prompt: "Once upon a time", completion: " there was a cat." });
  expect(warnings).toEqual([]);
});

test("a run that goes on from a checkpoint has the lines that it would have had", async () => {
  const [whole, resumed] = [begin(), begin()];
  const lines = [line(1, { 0: 1 }), line(2, { 7: 1 }), line(3, { 9: 1, 0: 2 })];
  const run = async (texts: RowTexts, from: number) => {
    for (const one of lines.slice(from)) await texts.write(one);
  };
  const texts = whole.make();
  await texts.start(0, []);
  await run(texts, 0);
  const before = resumed.make();
  await before.start(0, []);
  await run(before, 0);
  const after = resumed.make();
  await after.start(2, lines.slice(0, 2));
  expect(resumed.read().map(({ index }) => index)).toEqual([0, 7]);
  await run(after, 2);
  expect(resumed.read()).toEqual(whole.read());
});

test("rows of token ids for a model without a tokenizer have no texts, and nobody is warned", async () => {
  const { output, make, warnings } = begin(`${fixtures}/llama/policy`);
  const texts = make();
  await texts.start(0, []);
  await texts.write(line(1, { 0: 1 }));
  expect(existsSync(join(output, ROWS_FILE))).toBe(false);
  expect(warnings).toEqual([]);
});

test("a file that cannot be written is told once", async () => {
  const { output, make, warnings } = begin();
  const texts = make();
  await texts.start(0, []);
  mkdirSync(join(output, ROWS_FILE));
  await texts.write(line(1, { 0: 1 }));
  await texts.write(line(2, { 7: 1 }));
  expect(warnings).toEqual([
    expect.stringMatching(/rows\.jsonl.* The training goes on, and writes no texts of rows\.$/),
  ]);
});
