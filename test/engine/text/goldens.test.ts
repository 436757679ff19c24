/**
 * Greedy continuations of real models against those of transformers in f32 (test/fixtures/README.md). Their weights are
 * too large to ship: the tests exist only where KTO_GOLDEN_MODELS names a folder with model folders called as those in
 * test/fixtures/goldens, each with config.json, model.safetensors and tokenizer.json.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Generator } from "../../../src/engine/model/generate/generate.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadTokenizer } from "../../../src/engine/text/tokenizer.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readJson } from "../../helpers/fixtures.ts";

interface Golden {
  readonly prompt: string;
  readonly tokens: number[];
}

const goldens = "test/fixtures/goldens";
const models = readdirSync(goldens);
const folder = process.env.KTO_GOLDEN_MODELS;
const found = folder === undefined ? [] : models.filter((name) => existsSync(join(folder, name)));

describe("goldens", () => {
  it("hold 32 greedy tokens for each prompt of each model", () => {
    expect(models.sort()).toEqual(["gpt2-124m", "qwen2-0.5b", "smollm-135m"]);
    for (const name of models) {
      for (const file of readdirSync(join(goldens, name))) {
        expect(readJson<Golden>(join(goldens, name, file)).tokens, `${name}/${file}`).toHaveLength(32);
      }
    }
    expect(folder === undefined || found.length > 0, `KTO_GOLDEN_MODELS names "${folder}", which holds none`).toBe(
      true,
    );
  });

  for (const name of found) {
    const model = join(folder ?? "", name);
    it(`${name} continues as under transformers`, { timeout: 1_800_000 }, async () => {
      const files = readdirSync(join(goldens, name)).map((file) => readJson<Golden>(join(goldens, name, file)));
      const tokenizer = await loadTokenizer(model);
      const prompts = files.map(({ prompt }) => tokenizer.encode(prompt));
      const loaded = await Model.load(await sharedDevice(), model);
      const generator = new Generator(loaded, { maxBatch: files.length, maxLength: 64 });
      const options = { maxNewTokens: 32, temperature: 0, topK: 0, topP: 1, seed: 0, eosTokenIds: [] };
      const results = await generator.generate(prompts, options).finally(() => {
        generator.free();
        loaded.free();
      });
      expect(results.map(({ ids }) => ids)).toEqual(files.map(({ tokens }) => tokens));
    });
  }
});
