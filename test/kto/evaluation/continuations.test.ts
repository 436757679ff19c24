/** Continuations by several ranks: the texts of one process, on every rank. */
import { afterAll, describe, expect, test } from "vitest";
import { Model } from "../../../src/engine/model/model.ts";
import type { Communicator } from "../../../src/engine/ranks/communicator.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { Continuations } from "../../../src/kto/evaluation/continuations.ts";
import { checkSamePrompts } from "../../../src/kto/run/same-run.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { localRanks } from "../../helpers/local-ranks.ts";

const folder = "examples/quickstart/model";
const model = await Model.load(await sharedDevice(), folder);
const tokenizer = await loadTokenizer(folder);
afterAll(() => model.free());

const prompts = ["Once upon a time", "Tom", "The big dog ran", "One day", "She said"].map((text) =>
  tokenizer.encode(text),
);

async function textsOf(temperature: number, ranks?: Communicator): Promise<string[]> {
  const sampling = { temperature, topK: 0, topP: 1 };
  const options = { maxNewTokens: 6, seed: 5, sampling, ...(ranks ? { ranks } : {}) };
  const continuations = new Continuations(model, tokenizer, prompts, options);
  try {
    return await continuations.run();
  } finally {
    continuations.free();
  }
}

describe("continuations", () => {
  test.each([0, 1])("at temperature %d by 2 and by 7 ranks, of which some have none, are those of one", async (t) => {
    const wanted = await textsOf(t);
    expect(new Set(wanted).size).toBe(prompts.length);
    for (const size of [2, 7]) {
      const found = await Promise.all(localRanks(size).map((ranks) => textsOf(t, ranks)));
      for (const texts of found) expect(texts).toEqual(wanted);
    }
  });

  test("ranks with other prompts are told which", async () => {
    const refused = localRanks(2).map((ranks) => checkSamePrompts(ranks, [prompts[ranks.rank] ?? []]));
    for (const one of refused) await expect(one).rejects.toThrow(/^rank 1 differs from rank 0 in the prompts: give/);
  });
});
