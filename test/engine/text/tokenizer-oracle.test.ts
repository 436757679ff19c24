/**
 * Our tokenizers against the Rust library that Hugging Face models are trained with, on the real files of four
 * families: byte-level BPE with three kinds of splitting, and SentencePiece-like BPE with byte fallback.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { Tokenizer as RustTokenizer } from "tokenizers";
import { beforeAll, describe, expect, it } from "vitest";
import { createTokenizer, type Tokenizer } from "../../../src/engine/text/tokenizer.ts";
import { tokenizerFolders } from "../../helpers/tokenizers.ts";

const words =
  "the Model don't WE'RE it's 1234567 3.14 https://a.b/c?d=e#f snake_case CamelCase (x) [y] {z} <tag/> — … “quoted” naïve façade Straße ÅNGSTRÖM".split(
    " ",
  );

const scripts = [
  "你好，世界！今天天气怎么样？",
  "日本語のテキストとカタカナ、漢字が混ざる。",
  "안녕하세요 세계",
  "مرحبا بالعالم، كيف حالك؟",
  "שָׁלוֹם עוֹלָם",
  "Привет, мир! Ёлка",
  "γειά σου Κόσμε",
  "नमस्ते दुनिया",
  "สวัสดีชาวโลก",
  "Tiếng Việt có dấu",
  "e\u0301 vs é, ﬁ ligature, Ⅷ, ½, ㎏",
  "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒻𝒶𝓃𝒸𝓎",
];

const emoji = ["🙂", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽", "☃️", "#️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "♥", "\u200d", "🤷🏻‍♂️"];

const whitespace = [
  " ",
  "  ",
  "   \n",
  "\n\n\n",
  "\t\t",
  "\r\n",
  " \n ",
  "\u00a0",
  "\u2003",
  "\u3000",
  "\u2028",
  "\u200b",
];

const controls = [
  "\u0000",
  "\u0001",
  "\u0007",
  "\u001b[31m",
  "\u007f",
  "\u0085",
  "\ufeff",
  "\ufffd",
  "\u202e",
  "\uffff",
];

const markup = [
  "<s>",
  "</s>",
  "<unk>",
  "<|endoftext|>",
  "<|im_start|>user\n",
  "<|im_end|>\n",
  "<think>\n\n</think>\n\n",
  "<|begin_of_text|>",
  "<|start_header_id|>assistant<|end_header_id|>\n\n",
  "<|eot_id|>",
  "[INST] ",
  " [/INST]",
  "<|im_start|",
  "<tool_call>",
];

const code = [
  "def f(x):\n    return x ** 2\n\n\nclass A:\n\tpass\n",
  "for (let i = 0; i < 10; i++) {\r\n  console.log(i);\r\n}\r\n",
  "SELECT * FROM t WHERE a != 'b' AND c >= 0.5;  -- note\n{\"k\": [1, 2.5e-3, null]}",
];

/** Texts of every kind, the same in each run. */
function texts(): string[] {
  const fixed = ["", ...words, ...scripts, ...emoji, ...whitespace, ...controls, ...markup, ...code];
  const around = [...scripts, ...emoji, ...whitespace, ...controls, ...markup].flatMap((text) => [
    `${text} ${text}`,
    `a${text}b`,
    ` ${text}\n${text} 7`,
  ]);
  const options = (count: number) => ({ seed: 20261124, numRuns: count });
  const piece = fc.constantFrom(...words, ...scripts, ...emoji, ...whitespace, ...controls, ...markup);
  const mixed = fc.sample(
    fc.array(piece, { minLength: 2, maxLength: 12 }).map((pieces) => pieces.join("")),
    options(200),
  );
  const spaced = fc.sample(
    fc.array(fc.tuple(fc.constantFrom(...words), fc.constantFrom(...whitespace)), { minLength: 3, maxLength: 25 }),
    options(60),
  );
  const unicode = fc.sample(fc.string({ unit: "binary", maxLength: 40 }), options(150));
  const graphemes = fc.sample(fc.string({ unit: "grapheme", maxLength: 40 }), options(100));
  const all = [
    ...fixed,
    ...around,
    ...mixed,
    ...spaced.map((pairs) => pairs.flat().join("")),
    ...unicode,
    ...graphemes,
  ];
  return [...new Set(all)];
}

const corpus = texts();

it("has 500 texts and more", () => {
  expect(corpus.length).toBeGreaterThanOrEqual(500);
});

describe.each(Object.entries(tokenizerFolders))("%s", (_, folder) => {
  let rust: RustTokenizer;
  let ours: Tokenizer;
  beforeAll(() => {
    const path = join(folder, "tokenizer.json");
    const text = readFileSync(path, "utf8");
    const config = JSON.parse(readFileSync(join(folder, "tokenizer_config.json"), "utf8"));
    rust = RustTokenizer.fromString(text);
    // Tidying of spaces is done by transformers, not by the Rust library.
    ours = createTokenizer(JSON.parse(text), { ...config, clean_up_tokenization_spaces: false }, path);
  });

  it("encodes as the Rust library does, without special tokens and with leading ones", async () => {
    const plain = await rust.encodeBatch(corpus, { addSpecialTokens: false });
    const special = await rust.encodeBatch(corpus, { addSpecialTokens: true });
    const wrong: unknown[] = [];
    for (const [i, text] of corpus.entries()) {
      const wanted = plain[i]?.getIds() ?? [];
      const found = ours.encode(text, { addSpecialTokens: false });
      if (String(found) !== String(wanted)) wrong.push({ text, found, wanted });
      // Ours adds no second BOS to a text that has one.
      const bos = ours.addsBos && wanted[0] !== ours.bosTokenId ? [ours.bosTokenId] : [];
      const withBos = ours.encode(text);
      if (String(withBos) !== String([...bos, ...wanted])) wrong.push({ text, withBos });
      if (wanted[0] !== ours.bosTokenId && String(withBos) !== String(special[i]?.getIds()))
        wrong.push({ text, withBos });
    }
    expect(wrong).toEqual([]);
  });

  it("decodes as the Rust library does, with special tokens and without", async () => {
    const ids = (await rust.encodeBatch(corpus, { addSpecialTokens: true })).map((encoding) => encoding.getIds());
    // Any ids, too: a model that samples does not keep to whole characters.
    const any = fc.sample(fc.array(fc.nat(ours.vocabSize - 1), { minLength: 1, maxLength: 20 }), {
      seed: 7,
      numRuns: 100,
    });
    const known = [
      ...ids.filter((list) => list.length > 0),
      ...any.map((list) => list.filter((id) => rust.idToToken(id))),
    ];
    const lists = known.filter((list) => list.length > 0);
    for (const skipSpecialTokens of [false, true]) {
      const wanted = await rust.decodeBatch(lists, skipSpecialTokens);
      const wrong: unknown[] = [];
      for (const [i, list] of lists.entries()) {
        const found = ours.decode(list, { skipSpecialTokens });
        if (found !== wanted[i]) wrong.push({ list, found, wanted: wanted[i] });
      }
      expect(wrong).toEqual([]);
    }
  });
});
