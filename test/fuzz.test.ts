/** Damaged files of every kind are read or refused in one sentence; `scripts/fuzz.ts` tries many more. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import trainCommand from "../src/cli/commands/train.ts";
import { readOptions } from "../src/cli/options/command-line.ts";
import { parseModelConfig } from "../src/engine/model/config/config.ts";
import { parseGenerationDefaults } from "../src/engine/model/config/generation-config.ts";
import { readAdapterConfig } from "../src/engine/model/peft-config.ts";
import { loadTokenizer } from "../src/engine/text/tokenizer.ts";
import { ConfigError, KtoError, ModelFormatError } from "../src/errors.ts";
import { freshPath, temporaryFolder } from "./helpers/folders.ts";
import { FUZZ_KINDS, Fuzzer } from "./helpers/fuzz.ts";

const folder = temporaryFolder();
const SEED = 1;
/** Inputs of a kind; KTO_TEST_SHAPES=all tries more. */
const COUNT = process.env.KTO_TEST_SHAPES === "all" ? 100 : 30;

describe("damaged files", () => {
  it.each(Object.keys(FUZZ_KINDS))("of kind %s are taken or refused with a KtoError, soon", async (kind) => {
    const fuzzer = await Fuzzer.open(kind, freshPath(folder, "files"));
    let refused = 0;
    for (let input = 0; input < COUNT; input++) {
      const { result, violation } = await fuzzer.run(SEED, input);
      expect(violation, `--kind "${kind}" --seed ${SEED} --from ${input} --count 1`).toBeUndefined();
      if (result === "refused") refused++;
    }
    // Damage that nobody notices would be no test.
    expect(refused).toBeGreaterThan(COUNT / 4);
  });
});

describe("what the fuzzer found", () => {
  const lists = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
  const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;

  it("config.json: a number that is a list nested too deeply to be written", () => {
    const text = `{"model_type": "llama", "num_hidden_layers": ${lists(100_000)}}`;
    expect(() => parseModelConfig(text, "config.json")).toThrow(ModelFormatError);
    expect(() => parseModelConfig(text, "config.json")).toThrow('"num_hidden_layers" is a list, not a whole number');
  });

  it("config.json: an architecture that is such a list", () => {
    const text = `{"architectures": [${lists(100_000)}]}`;
    expect(() => parseModelConfig(text, "config.json")).toThrow('architecture "a list"');
  });

  it("config.json: a value as long as the file, of which a part is shown", () => {
    const text = JSON.stringify({ model_type: "llama", num_hidden_layers: "a".repeat(5000) });
    expect(() => parseModelConfig(text, "config.json")).toThrow(/^.{150,400}$/);
  });

  it("adapter_config.json: an option of PEFT that is nested too deeply to be compared", async () => {
    const adapter = freshPath(folder, "");
    writeFileSync(join(adapter, "adapter_config.json"), `{"peft_type": "LORA", "bias": ${objects(100_000)}}`);
    await expect(readAdapterConfig(adapter)).rejects.toThrow('"bias" is an object, not "none" or "all" or "lora_only"');
  });

  it("generation_config.json: a list nested too deeply to be taken for a number", () => {
    const text = `{"num_beams": ${lists(100_000)}}`;
    expect(parseGenerationDefaults(text, "generation_config.json").ignored).toEqual([]);
  });

  it("options: a file whose nesting takes the parser seconds", async () => {
    const path = freshPath(folder, "run.yaml");
    writeFileSync(path, `use_peft: ${objects(100_000)}\n`);
    await expect(readOptions([path], trainCommand)).rejects.toThrow(ConfigError);
    await expect(readOptions([path], trainCommand)).rejects.toThrow("nest more than 100 deep");
  });

  it.each([
    ["is no number, which a text then has among its ids", "", '""'],
    ["is so large that going through all ids up to it takes a minute", 2147483647, "2147483647"],
  ])("tokenizer.json: a token whose id %s", async (_, id, told) => {
    const path = freshPath(folder, "");
    const json = JSON.parse(readFileSync("examples/quickstart/model/tokenizer.json", "utf8"));
    json.model.vocab["<0xF0>"] = id;
    writeFileSync(join(path, "tokenizer.json"), JSON.stringify(json));
    await expect(loadTokenizer(path)).rejects.toThrow(`tokenizer.json: the token "<0xF0>" has ${told} for an id`);
  });

  it("run_state.json: an option nested too deeply to be compared with the run's", async () => {
    const path = freshPath(folder, "files");
    const kind = FUZZ_KINDS["resumed run"];
    await kind?.prepare(path);
    const file = join(path, "checkpoint-3", "run_state.json");
    const good = readFileSync(file, "utf8");
    const damaged = good.replace(/"beta": ?[\d.]+/, `"beta": ${lists(100_000)}`);
    expect(damaged).not.toBe(good);
    writeFileSync(file, damaged);
    await expect(kind?.read(path, "checkpoint-3/run_state.json")).rejects.toThrow(KtoError);
  });

  it("parquet: a run of 2^28 values in a page of 300, which took all memory", async () => {
    const fuzzer = await Fuzzer.open("parquet", freshPath(folder, "files"));
    expect(await fuzzer.run(1, 775)).toMatchObject({ result: "refused", violation: undefined });
  });

  it("parquet: a read that fails after another did, which nobody waits for any more", async () => {
    // A rejection without a handler ends a process, and fails this test file.
    const fuzzer = await Fuzzer.open("parquet", freshPath(folder, "files"));
    expect(await fuzzer.run(1, 1428)).toMatchObject({ result: "refused", violation: undefined });
  });
});
