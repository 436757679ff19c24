import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../../../src/engine/text/tokenizer.ts";
import { ModelFormatError } from "../../../src/errors.ts";

const llamaFolder = "test/fixtures/data/stories260K";

/** GPT-2's kind of tokenizer (byte-level, no beginning-of-sequence token), with two merges. */
function byteLevel(postProcessor: unknown = null) {
  const letters = ["a", "b", "Ġ", "ab", "Ġa", "<|endoftext|>"];
  return {
    added_tokens: [{ id: 5, content: "<|endoftext|>", special: true }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: postProcessor,
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: Object.fromEntries(letters.map((t, i) => [t, i])), merges: ["a b", "Ġ a"] },
  };
}

describe("tokenizer", () => {
  let llama: Tokenizer;
  let folder: string;
  beforeAll(async () => {
    llama = await loadTokenizer(llamaFolder);
    folder = await mkdtemp(join(tmpdir(), "tokenizer-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("reads the special tokens and the size", () => {
    expect(llama).toMatchObject({ bosTokenId: 1, eosTokenId: 2, vocabSize: 512, addsBos: true });
  });

  // Ids by the Rust library (Python package tokenizers 0.23.2) on the same tokenizer.json.
  it.each([
    [
      "Once upon a time, there was a little girl named Lily.",
      [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426],
    ],
    [
      "  two  spaces\nand a line",
      [1, 410, 410, 259, 424, 414, 410, 262, 427, 412, 331, 419, 13, 412, 264, 261, 278, 271, 411],
    ],
    [
      "Zoë 🐈 says <s>hi</s>!",
      [1, 410, 469, 414, 198, 174, 410, 243, 162, 147, 139, 262, 283, 419, 410, 1, 270, 417, 2, 410, 443],
    ],
    ["", [1]],
  ])("encodes %j as the Rust library does", (text, ids) => {
    expect(llama.encode(text)).toEqual(ids);
    expect(llama.encode(text, { addSpecialTokens: false })).toEqual(ids.slice(1));
  });

  it("decodes back to the text, with and without special tokens, and nothing to nothing", () => {
    const text = "  two  spaces , 'tis said .\nZoë 🐈";
    expect(llama.decode(llama.encode(text), { skipSpecialTokens: true })).toBe(text);
    expect(llama.decode(Uint32Array.from([403, 407, 2]))).toBe("Once upon</s>");
    expect(llama.decode([])).toBe("");
  });

  it("does not add a second beginning-of-sequence token", () => {
    expect(llama.encode("<s> hi")[1]).not.toBe(llama.bosTokenId);
  });

  it("adds nothing when the tokenizer adds nothing", () => {
    const tokenizer = createTokenizer(byteLevel(), { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" });
    expect(tokenizer).toMatchObject({ bosTokenId: 5, eosTokenId: 5, vocabSize: 6, addsBos: false });
    expect(tokenizer.encode("ab a<|endoftext|>")).toEqual([3, 4, 5]);
    expect(tokenizer.encode("")).toEqual([]);
  });

  it("drops what a post-processor adds behind a text, since a prompt must not end", () => {
    const token = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const eos = { id: "<|endoftext|>", ids: [5], tokens: ["<|endoftext|>"] };
    const template = {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, token("<|endoftext|>")],
      pair: [],
      special_tokens: { "<|endoftext|>": eos },
    };
    expect(createTokenizer(byteLevel(template), {}).encode("ab")).toEqual([3]);
  });

  it("takes a special token that is given as an object, from special_tokens_map.json if need be", async () => {
    await writeFile(join(folder, "tokenizer.json"), JSON.stringify(byteLevel()));
    await writeFile(
      join(folder, "special_tokens_map.json"),
      JSON.stringify({ eos_token: { content: "<|endoftext|>", lstrip: false } }),
    );
    expect((await loadTokenizer(folder)).eosTokenId).toBe(5);
  });

  it.each([
    ["is missing", undefined, /tokenizer\.json does not exist/],
    ["is not JSON", "{", /tokenizer\.json is not valid JSON/],
    ["is not an object", "[]", /tokenizer\.json does not hold a JSON object/],
    ["has no model", "{}", /tokenizer\.json is not a tokenizer that can be used: .*model/],
    ["has an unknown model", '{"model":{"type":"Magic"}}', /tokenizer\.json is not a tokenizer/],
  ])("names the file when tokenizer.json %s", async (_, content, message) => {
    const broken = await mkdtemp(join(folder, "broken-"));
    if (content !== undefined) await writeFile(join(broken, "tokenizer.json"), content);
    const error = await loadTokenizer(broken).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ModelFormatError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain(broken);
  });
});
