/** What generation_config.json sets, what it leaves open, and what is refused. */
import { expect, it } from "vitest";
import { parseGenerationDefaults, readGenerationDefaults } from "../../src/engine/model/generation-config.ts";
import { ModelFormatError } from "../../src/errors.ts";
import { gpt2, stories } from "../helpers/folders.ts";

it("reads what the file sets; nothing where there is none", async () => {
  expect(await readGenerationDefaults(stories)).toMatchObject({ doSample: true, temperature: 1, topP: 0.9 });
  expect(Object.values(await readGenerationDefaults(gpt2)).filter((value) => value !== undefined)).toEqual([]);
  const text = '{"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "do_sample": false, "top_p": null}';
  expect(parseGenerationDefaults(text, "f")).toEqual({
    doSample: false,
    temperature: undefined,
    topK: 20,
    topP: undefined,
    minP: 0.1,
    repetitionPenalty: 1.1,
  });
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
