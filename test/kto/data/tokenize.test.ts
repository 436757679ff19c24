import { beforeAll, describe, expect, it } from "vitest";
import { loadTokenizer, type Tokenizer } from "../../../src/engine/text/tokenizer.ts";
import { ConfigError, DatasetError } from "../../../src/errors.ts";
import { summarizeRows } from "../../../src/kto/data/summary.ts";
import { tokenizeRows } from "../../../src/kto/data/tokenize.ts";
import type { FeedbackRow } from "../../../src/kto/data/types.ts";

const bos = 1;
const eos = 2;
const limits = { vocabSize: 512, contextLength: 512 };
let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer("test/fixtures/data/stories260K");
});

let lineNumber = 0;
const source = () => ({ file: "data.jsonl", line: ++lineNumber });
const text = (prompt: string, completion: string, label = true): FeedbackRow => {
  return { prompt, completion, label, source: source() };
};
const ids = (promptIds: number[], completionIds: number[], label = true): FeedbackRow => {
  return { promptIds, completionIds, label, source: source() };
};

/** One character per token from id 10, "ab" in one token; no beginning-of-sequence token. */
const letters: Tokenizer = {
  bosTokenId: undefined,
  eosTokenId: 0,
  vocabSize: 40,
  addsBos: false,
  encode: (words) => [...words.matchAll(/ab|./gs)].map(([t]) => (t === "ab" ? 9 : 10 + t.charCodeAt(0) - 97)),
  decode: () => "",
};

describe("tokenizeRows", () => {
  it("splits the tokens of prompt + completion after those of the prompt and ends with EOS", () => {
    const { examples, report } = tokenizeRows([text("Once upon a time,", " there was a little girl")], {
      ...limits,
      tokenizer,
    });
    const whole = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421];
    const [example] = examples;
    const promptLength = example?.promptIds.length ?? 0;
    expect([...(example?.promptIds ?? []), ...(example?.completionIds ?? [])].slice(0, 8)).toEqual([
      bos,
      ...whole.slice(0, 7),
    ]);
    expect(tokenizer.decode(example?.promptIds.slice(1) ?? [])).toBe("Once upon a time,");
    expect(promptLength).toBeGreaterThan(1);
    expect(example?.completionIds.at(-1)).toBe(eos);
    expect(example?.cut).toBe(false);
    expect(report.warnings).toEqual([]);
    expect(report.advice).toEqual([expect.stringMatching(/KTO learns what tells the two apart/)]);
  });

  it("takes rows one after another as it takes a list; so does the summary", async () => {
    const rows = [text("Once", " upon"), text("Once", ""), ids([5], [6, 7], false), text("Once", " upon", false)];
    async function* stream() {
      yield* rows;
    }
    const options = { ...limits, tokenizer };
    const whole = tokenizeRows(rows, options);
    expect(await tokenizeRows(stream(), options)).toEqual(whole);
    expect(await summarizeRows(stream(), whole.report)).toEqual(summarizeRows(rows, whole.report));
    expect(summarizeRows(rows)).toMatchObject({ distinctPrompts: 2, contradictions: 1, unit: "characters" });
  });

  it("adds no second EOS, and none when told so or when the tokenizer has none", () => {
    const row = text("Once", " upon</s>");
    const last = (options: object) => tokenizeRows([row], { ...limits, tokenizer, ...options }).examples[0];
    expect([...(last({})?.completionIds ?? [])].filter((id) => id === eos)).toHaveLength(1);
    const plain = text("Once", " upon");
    const of = (given: Tokenizer, appendEos = true) =>
      tokenizeRows([plain], { ...limits, tokenizer: given, appendEos }).examples[0]?.completionIds.at(-1);
    expect(of(tokenizer)).toBe(eos);
    expect(of(tokenizer, false)).not.toBe(eos);
    expect(of({ ...tokenizer, eosTokenId: undefined })).not.toBe(eos);
  });

  it("tokenizes apart, and counts it, where the prompt's last token would change", () => {
    const { examples, report } = tokenizeRows([text("xa", "bc", true), text("xa", "c", false)], {
      ...limits,
      tokenizer: letters,
    });
    expect(examples.map(({ promptIds }) => [...promptIds])).toEqual([
      [33, 10],
      [33, 10],
    ]);
    expect(examples.map(({ completionIds }) => [...completionIds])).toEqual([
      [11, 12, 0],
      [12, 0],
    ]);
    expect(report.warnings).toEqual([expect.stringMatching(/^In 1 of 2 rows/)]);
  });

  it("cuts a long completion at its end, without EOS after the cut, and counts it", () => {
    const run = (maxLength: number) =>
      tokenizeRows([text("xyz", "cdef")], { ...limits, tokenizer: letters, maxLength });
    expect([...(run(8).examples[0]?.completionIds ?? [])]).toEqual([12, 13, 14, 15, 0]);
    for (const [maxLength, kept] of [
      [7, [12, 13, 14, 15]],
      [5, [12, 13]],
    ] as const) {
      const { examples, report } = run(maxLength);
      expect([...(examples[0]?.completionIds ?? [])]).toEqual(kept);
      expect(examples[0]?.cut).toBe(true);
      expect(report.cut).toBe(1);
    }
  });

  it("uses token ids verbatim, cutting only what is too long", () => {
    const { examples } = tokenizeRows([ids([7], [8, 9]), ids([7, 7], [3, 4, 5], false)], { ...limits, maxLength: 4 });
    expect(examples.map(({ promptIds, completionIds, cut }) => [[...promptIds], [...completionIds], cut])).toEqual([
      [[7], [8, 9], false],
      [[7, 7], [3, 4], true],
    ]);
  });

  it("drops by stated rules and keeps each example's place in the file", () => {
    const rows = [
      text("xy", ""),
      text("xy", "c"),
      text("xyzxyz", "c"),
      text("x".repeat(21), "c"),
      text("xyzx", "c", false),
      ids([1], []),
    ];
    const first = lineNumber - rows.length + 1;
    const { examples, report } = tokenizeRows(rows, {
      vocabSize: 40,
      contextLength: 20,
      tokenizer: letters,
      maxLength: 6,
    });
    expect(examples.map(({ index }) => index)).toEqual([1, 4]);
    expect(report).toMatchObject({
      rows: 6,
      examples: 2,
      desirable: 1,
      undesirable: 1,
      promptTokens: 6,
      completionTokens: 4,
      lengths: { total: { min: 4, median: 4, p95: 6, max: 6 } },
      warnings: [],
    });
    expect(report.dropped).toEqual([
      { reason: "the completion is empty", count: 2, firstLines: [first, first + 5] },
      {
        reason: "the prompt leaves no room for a completion within max_length (6 tokens)",
        count: 1,
        firstLines: [first + 2],
      },
      { reason: "the prompt is longer than the model's context of 20 tokens", count: 1, firstLines: [first + 3] },
    ]);
  });

  it("cuts prompts of rows that are too long to max_prompt_length, and counts them", () => {
    const rows = [ids([1, 2, 3], [4, 5, 6]), ids([1, 2, 3], [4])];
    const { report, examples } = tokenizeRows(rows, { ...limits, maxLength: 5, maxPromptLength: 2 });
    expect(examples.map(({ promptIds }) => [...promptIds])).toEqual([
      [2, 3],
      [1, 2, 3],
    ]);
    expect(report).toMatchObject({ dropped: [], cut: 0, promptsCut: 1 });
  });

  it("drops or refuses rows that are too long where it is asked to", () => {
    const rows = [ids([1, 2, 3], [4, 5, 6]), ids([1, 2, 3], [4])];
    const { report } = tokenizeRows(rows, { ...limits, maxLength: 5, excessLength: "drop" });
    expect(report.dropped).toMatchObject([{ reason: "the row is longer than max_length (5 tokens)", count: 1 }]);
    const refused = () => tokenizeRows(rows, { ...limits, maxLength: 5, excessLength: "raise" });
    expect(refused).toThrow(/has 6 tokens, more than max_length \(5\): set excess_length_strategy/);
  });

  it("keeps the pair of rows that came from one preference", () => {
    const pair = { prompt: "x", source: source(), pair: 4 };
    const { examples } = tokenizeRows(
      [
        { ...pair, completion: "c", label: true },
        { ...pair, completion: "d", label: false },
      ],
      { ...limits, tokenizer: letters },
    );
    expect(examples.map(({ pairId, label }) => [pairId, label])).toEqual([
      [4, true],
      [4, false],
    ]);
  });

  it("names file, line and id for a token outside the vocabulary", () => {
    const bad = { promptIds: [1], completionIds: [2, 512], label: true, source: { file: "f.jsonl", line: 8 } };
    expect(() => tokenizeRows([bad], limits)).toThrow(/^f\.jsonl:8: token id 512 .*vocabulary of 512 tokens\.$/);
    expect(() => tokenizeRows([text("z", "z")], { ...limits, vocabSize: 30, tokenizer: letters })).toThrow(
      /token id 35 .*tokenizer does not belong/,
    );
    // Must not wrap round to 0 in 32 bits.
    expect(() => tokenizeRows([ids([2 ** 32], [1])], limits)).toThrow(/4294967296/);
  });

  it("needs a token in every prompt: BOS will do, nothing will not", () => {
    expect([...(tokenizeRows([text("", "hi")], { ...limits, tokenizer }).examples[0]?.promptIds ?? [])]).toEqual([bos]);
    const empty = { prompt: "", completion: "c", label: true, source: { file: "f.jsonl", line: 3 } };
    expect(() => tokenizeRows([empty], { ...limits, tokenizer: letters })).toThrow(/^f\.jsonl:3: the prompt has no/);
  });

  it("says why no row is left, with the line", () => {
    const long = {
      promptIds: Array(20).fill(1),
      completionIds: [1],
      label: true,
      source: { file: "f.jsonl", line: 1 },
    };
    const run = () => tokenizeRows([long], { vocabSize: 9, contextLength: 10 });
    expect(run).toThrow(DatasetError);
    expect(run).toThrow(/^f\.jsonl: its only row cannot be used: 1 \(line 1\) because .*context of 10 tokens/);
    expect(() => tokenizeRows([], limits)).toThrow(DatasetError);
  });

  it("refuses limits that cannot be", () => {
    expect(() => tokenizeRows([ids([1], [1])], { ...limits, maxLength: 513 })).toThrow(ConfigError);
    expect(() => tokenizeRows([ids([1], [1])], { ...limits, maxLength: 1 })).toThrow(/max_length is 1/);
    expect(() => tokenizeRows([ids([1], [1])], { ...limits, maxPromptLength: 0 })).toThrow(/max_prompt_length is 0/);
  });

  it("limits to 1024 tokens or the context by default", () => {
    const row = ids([1], Array(3000).fill(2));
    const length = (contextLength: number) =>
      tokenizeRows([row], { vocabSize: 9, contextLength }).examples[0]?.completionIds.length;
    expect(length(2048)).toBe(1023);
    expect(length(512)).toBe(511);
  });
});
