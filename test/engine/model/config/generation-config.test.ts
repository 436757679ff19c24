/** What generation_config.json sets, what it leaves open, and what is refused. */
import { expect, it } from "vitest";
import {
  parseGenerationDefaults,
  readGenerationDefaults,
} from "../../../../src/engine/model/config/generation-config.ts";
import { ModelFormatError } from "../../../../src/errors.ts";
import { gpt2, stories } from "../../../helpers/folders.ts";

it("reads what the file sets; nothing where there is none", async () => {
  expect(await readGenerationDefaults(stories)).toMatchObject({ doSample: true, temperature: 1, topP: 0.9 });
  const ofNone = Object.values(await readGenerationDefaults(gpt2)).filter((value) => value !== undefined);
  expect(ofNone).toEqual([[]]);
  const text = '{"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "do_sample": false, "top_p": null}';
  expect(parseGenerationDefaults(text, "f")).toEqual({
    doSample: false,
    temperature: undefined,
    topK: 20,
    topP: undefined,
    minP: 0.1,
    repetitionPenalty: 1.1,
    ignored: [],
  });
  expect(parseGenerationDefaults('{"top_k": -1}', "f").topK).toBe(0);
});

it("names what would change the text but is not supported, and only that", () => {
  const acting = { suppress_tokens: [1], no_repeat_ngram_size: 3, typical_p: 0.9, bad_words_ids: [[2]], num_beams: 2 };
  expect(parseGenerationDefaults(JSON.stringify(acting), "f").ignored.toSorted()).toEqual(Object.keys(acting).sort());
  const idle = { suppress_tokens: null, no_repeat_ngram_size: 0, typical_p: 1, bad_words_ids: [], num_beams: 1 };
  expect(parseGenerationDefaults(JSON.stringify({ ...idle, pad_token_id: 0 }), "f").ignored).toEqual([]);
});

it.each([
  ["{", /^f is not valid JSON: /],
  ["[]", "f does not hold a JSON object."],
  ['{"top_p": 2}', 'f: "top_p" is 2; it must be a number above 0 and at most 1.'],
  ['{"top_k": "x"}', 'f: "top_k" is "x"; it must be a whole number of at least 0.'],
  ['{"do_sample": 1}', 'f: "do_sample" is 1; it must be true or false.'],
])("refuses %s", (text, message) => {
  expect(() => parseGenerationDefaults(text, "f")).toThrow(message);
  expect(() => parseGenerationDefaults(text, "f")).toThrow(ModelFormatError);
});
