/**
 * Where prompt and completion meet: their tokens together say what tokens(prompt + completion) say, whatever the last
 * character of the one and the first of the other. SentencePiece's kinds of tokenizer put a space before a text, in
 * three ways; decoded by the Rust library as well.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Tokenizer as RustTokenizer } from "tokenizers";
import { describe, expect, it } from "vitest";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../../../src/engine/text/tokenizer.ts";
import { rowEncoder } from "../../../src/kto/data/encode.ts";
import { readFeedback } from "../../../src/kto/data/read.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

const json = (folder: string, name: string) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const llama2 = json(tokenizerFolders.llama2, "tokenizer.json");
const gpt2 = json(tokenizerFolders.gpt2, "tokenizer.json");
const metaspace = (scheme: string) => ({
  ...llama2,
  normalizer: null,
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: scheme, split: false },
});

/** Tokenizers by what they put before a text. */
const files: Record<string, Record<string, unknown>> = {
  "Prepend, Llama 2's": llama2,
  "Metaspace, always": metaspace("always"),
  "Metaspace, first": metaspace("first"),
  "Metaspace in a sequence": {
    ...metaspace("first"),
    pre_tokenizer: { type: "Sequence", pretokenizers: [metaspace("first").pre_tokenizer] },
  },
  "nothing, GPT-2's": gpt2,
  "a space before bytes": { ...gpt2, pre_tokenizer: { ...gpt2.pre_tokenizer, add_prefix_space: true } },
};

function idsOf(tokenizer: Tokenizer, prompt: string, completion: string) {
  const row = { prompt, completion, label: true, source: { file: "f.jsonl", line: 1 } };
  const { promptIds, completionIds } = rowEncoder({ tokenizer, appendEos: false })(row);
  return [Array.from(promptIds), Array.from(completionIds)] as const;
}

it("the case: Llama 2's tokens say just what the rows say", async () => {
  const tokenizer = await loadTokenizer(tokenizerFolders.llama2);
  const rust = RustTokenizer.fromFile(join(tokenizerFolders.llama2, "tokenizer.json"));
  const rows = await readFeedback("test/fixtures/cases/11-seam-space/rows.jsonl");
  const encode = rowEncoder({ tokenizer });
  const texts = await Promise.all(
    rows.map(async (row) => {
      const { promptIds, completionIds } = encode(row);
      const ids = [...Array.from(promptIds), ...Array.from(completionIds)];
      const text = tokenizer.decode(ids, { skipSpecialTokens: true });
      expect(await rust.decode(ids, true)).toBe(text);
      return text;
    }),
  );
  expect(texts).toEqual(["Answer: yes", "Hello world"]);
  expect(idsOf(tokenizer, "Hello wor", "ld")[1].map((id) => tokenizer.decode([id]))).toEqual(["ld"]);
});

describe.each(Object.entries(files))("with %s", (_, file) => {
  const tokenizer = createTokenizer(file, {});
  const rust = RustTokenizer.fromString(JSON.stringify(file));
  /** What the tokens say, and what those of the whole text say; both without special tokens. */
  const said = async (prompt: string, completion: string) => {
    const [promptIds, completionIds] = idsOf(tokenizer, prompt, completion);
    const whole = tokenizer.encode(prompt + completion);
    return [await rust.decode([...promptIds, ...completionIds], false), await rust.decode(whole, false)];
  };

  it("at every place of texts with spaces, line breaks, tabs, marks, emoji and digits", async () => {
    for (const text of [
      "Hello  world, it's 12345!\n\n\tif x:  \n    return 'naïve ▁ 你好' 👩‍👩‍👧 é e\u0301",
      "  two before",
      "_ __a",
    ]) {
      for (let seam = 1; seam < text.length; seam++) {
        if (/[\udc00-\udfff]/.test(text[seam] ?? "")) continue;
        const [parts, whole] = await said(text.slice(0, seam), text.slice(seam));
        expect(parts, JSON.stringify([text.slice(0, seam), text.slice(seam)])).toBe(whole);
      }
    }
  });

  it("of any two texts", async () => {
    const text = fc.string({ unit: fc.constantFrom(..."ab Z\n\t.9▁é你_'"), minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(text, text, async (prompt, completion) => {
        const [parts, whole] = await said(prompt, completion);
        expect(parts).toBe(whole);
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  it("with a special token in the completion, after which a text begins as ever", async () => {
    const special = ["</s>", "<|endoftext|>"].find(
      (one) => tokenizer.encode(one, { addSpecialTokens: false }).length === 1,
    );
    const [parts, whole] = await said("Hello wor", `ld${special}more`);
    expect(parts).toBe(whole);
  });
});
