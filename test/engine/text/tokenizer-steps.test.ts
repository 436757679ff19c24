/**
 * What a tokenizer.json can make of a text: hangs and floods are told in a sentence, usual files have no limit to pay
 * for.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../src/engine/files/json-file.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { createTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { riskySteps, USUAL_PATTERNS } from "../../../src/engine/text/tokenizer-steps.ts";
import { ModelFormatError } from "../../../src/errors.ts";
import { stories } from "../../helpers/folders.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

/** A tokenizer of the letters a to e with these steps. */
const withSteps = (steps: JsonObject): JsonObject => ({
  model: { type: "BPE", vocab: { a: 0, b: 1, c: 2, d: 3, e: 4 }, merges: [], unk_token: "e" },
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  ...steps,
});

const replace = (pattern: string, content: string) => ({ type: "Replace", pattern: { String: pattern }, content });
const slow = { Regex: "(a+)+$" };
const doubling = (type: string) => ({ type: "Sequence", [type]: Array(40).fill(replace("a", "aa")) });

/** Takes a backtracking search 2^28 steps with the slow pattern. */
const text = `${"a".repeat(28)}b`;

function failureOf(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("steps that take too long over a text", () => {
  test.each<[string, JsonObject, string]>([
    ["Split", { pre_tokenizer: { type: "Split", pattern: slow, behavior: "Isolated", invert: false } }, '"(a+)+$"'],
    ["Replace", { normalizer: { type: "Replace", pattern: slow, content: "" } }, '"(a+)+$"'],
    [
      "Replace",
      { pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Replace", pattern: slow }] } },
      '"(a+)+$"',
    ],
    ["Replace", { normalizer: doubling("normalizers") }, '{"String":"a"}'],
  ])("%s is named, %#", (type, steps, pattern) => {
    const error = failureOf(() => createTokenizer(withSteps(steps), {}, "m/tokenizer.json", 50).encode(text));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(String(error)).toMatch(/m\/tokenizer\.json cannot be used: it (takes too long over|makes more of) a text/);
    if (String(error).includes("too long")) {
      expect(String(error)).toContain(`because of its step "${type}"`);
      expect(String(error)).toContain(pattern);
    }
  });

  test("a decoder is named", () => {
    const decoder = { type: "Sequence", decoders: [{ type: "Fuse" }, { type: "Replace", pattern: slow, content: "" }] };
    const tokenizer = createTokenizer(withSteps({ decoder }), {}, "t.json", 50);
    expect(() => tokenizer.decode([...Array(28).fill(0), 1])).toThrow(
      /^t\.json cannot be used: it takes too long over a text \(no end within .* s\), because of its step "Replace" with the pattern "\(a\+\)\+\$"\.$/,
    );
  });

  test("an added token is a text as well", () => {
    const added = { id: 5, content: text, normalized: true, special: false };
    const json = {
      ...withSteps({ normalizer: { type: "Replace", pattern: slow, content: "" } }),
      added_tokens: [added],
    };
    expect(() => createTokenizer(json, {}, "t.json", 50)).toThrow(ModelFormatError);
  });

  test("after which the same tokenizer still works", () => {
    const tokenizer = createTokenizer(
      withSteps({ normalizer: { type: "Replace", pattern: slow, content: "c" } }),
      {},
      "",
      50,
    );
    expect(failureOf(() => tokenizer.encode(text))).toBeInstanceOf(ModelFormatError);
    expect(tokenizer.encode("baa")).toEqual([1, 2]);
  });
});

describe("steps that make too much of a text", () => {
  test("a decoder that grows text beyond what can be held", () => {
    const decoder = { type: "Sequence", decoders: Array(4).fill(replace("a", "a".repeat(1000))) };
    const tokenizer = createTokenizer(withSteps({ decoder }), {});
    expect(() => tokenizer.decode([0])).toThrow(
      new ModelFormatError(
        "tokenizer.json cannot be used: it makes more of a text than memory can hold (Invalid string length).",
      ),
    );
  });

  test.each<[string, JsonObject, RegExp]>([
    [
      "a long prefix",
      { normalizer: { type: "Prepend", prepend: "a".repeat(2e6) } },
      /the normalizer inserts 2000000 char/,
    ],
    [
      "a long replacement",
      { decoder: replace("a", "b".repeat(1001)) },
      /the decoder inserts 1001 characters in its step "R/,
    ],
    [
      "pieces of no length",
      { pre_tokenizer: { type: "FixedLength", length: 0 } },
      /pieces of length 0, which is not a whole/,
    ],
    [
      "a pattern that goes on from the match before, which the library would take for one that starts anywhere",
      { pre_tokenizer: { type: "Split", pattern: { Regex: "\\\\|\\Gab" }, behavior: "Isolated", invert: false } },
      /^tokenizer\.json: the pre_tokenizer has the pattern "\\\\\\\\\|\\\\Gab" in its step "Split", whose \\G \(the end of/,
    ],
    [
      "many steps",
      { normalizer: { type: "Sequence", normalizers: Array(101).fill({ type: "NFC" }) } },
      /more than 100 steps/,
    ],
  ])("%s is refused", (_, steps, message) => {
    expect(() => createTokenizer(withSteps(steps), {})).toThrow(ModelFormatError);
    expect(() => createTokenizer(withSteps(steps), {})).toThrow(message);
  });
});

describe("usual tokenizers", () => {
  test.each([...Object.values(tokenizerFolders), stories])("%s needs no limit", (folder) => {
    const json = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as JsonObject;
    expect(riskySteps(json, "")).toEqual([]);
  });

  test.each([" {2,}", "\\p{N}{1,3}", "[0-9]", "\\s+", ".{1,24}", "▁"])("a single class needs none: %s", (Regex) => {
    expect(riskySteps(withSteps({ pre_tokenizer: { type: "Split", pattern: { Regex } } }), "")).toEqual([]);
  });

  test.each(["a*a", "\\\\Ga", "(a|a)*", "[a]+[b]", "a{2,300}", "\\s+$", "a|a+", "(?=a)"])(
    "all others do: %s",
    (Regex) => {
      expect(riskySteps(withSteps({ decoder: { type: "Replace", pattern: { Regex }, content: "" } }), "")).toHaveLength(
        1,
      );
    },
  );

  test.each([...USUAL_PATTERNS])("takes time in proportion to the text: %s", (Regex) => {
    const step = { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
    const split = new Tokenizer(withSteps({ pre_tokenizer: step }), {}).pre_tokenizer;
    const letters = ["a", "A", "1", " ", "\n", "!", "'", "漢", "\u0301", "/"];
    const ends = process.env.KTO_TEST_SHAPES === "all" ? letters : [" ", "!", "漢"];
    // A search that takes quadratic time needs minutes for any of them, one that takes linear time some milliseconds.
    for (const one of letters) {
      for (const other of ends) {
        const long = `${one.repeat(300_000)}${other}`;
        const pieces = platform.withinTime(60_000, () => split?.pre_tokenize_text(long, {}) ?? []);
        expect(pieces.join("") === long).toBe(true);
      }
    }
  });
});
