/**
 * `kto export`: its options, what it prints and writes, and what it refuses. What llama.cpp makes of the files:
 * test/engine/model/export.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { Device } from "../../../src/engine/gpu/device.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { FileError } from "../../../src/errors.ts";
import { copyOfModel, stories, temporaryFolder } from "../../helpers/folders.ts";
import { askLlamaCpp, writeRandomAdapter } from "../../helpers/gguf.ts";
import { kto } from "../../helpers/streams.ts";

const folder = temporaryFolder();
const fresh = (name: string) => join(mkdtempSync(join(folder, "e-")), name);
let adapter: string;

beforeAll(async () => {
  adapter = fresh("adapter");
  await writeRandomAdapter(adapter, stories, { rank: 4, alpha: 8, dropout: 0, rslora: false }, 2);
});

describe("kto export", () => {
  test("writes a model without a GPU, says what it holds, and how Ollama takes it", async () => {
    const open = vi.spyOn(Device, "open");
    const path = fresh("Stories.gguf");
    const { code, stdout, stderr } = await kto("export", "--model", stories, "--gguf", "q8_0", "--output", path);
    expect([code, stderr]).toEqual([0, ""]);
    expect(open).not.toHaveBeenCalled();
    open.mockRestore();
    const recipe = path.replace(".gguf", ".Modelfile");
    expect(stdout).toBe(
      `wrote the model to ${path} (tensors: 31 q8_0, 11 f32, 5 f16)\nfor Ollama: ollama create stories -f ${recipe}\n`,
    );
    expect(readFileSync(recipe, "utf8")).toMatch(
      /^FROM \.\/Stories\.gguf\nPARAMETER temperature 1\nPARAMETER top_p 0\.9\nPARAMETER num_ctx 512\n# written by kto; replaced while its sha256 is \w{64}\n$/,
    );
    expect(askLlamaCpp([{ model: path }])[0]?.facts.description).toContain("Q8_0");
  });

  test("a Modelfile that somebody changed is kept", async () => {
    const path = fresh("m.gguf");
    const recipe = path.replace(".gguf", ".Modelfile");
    const words = ["export", "--model", stories, "--gguf", "f16", "--output", path];
    await kto(...words);
    const first = readFileSync(recipe, "utf8");
    expect((await kto(...words)).stderr).toBe("");
    writeFileSync(recipe, first.replace("temperature 1", "temperature 2"));
    const { code, stderr } = await kto(...words);
    expect(code).toBe(0);
    expect(stderr).toContain(`${recipe} was changed since kto wrote it, or by kto never, and is left as it is.`);
    expect(readFileSync(recipe, "utf8")).toContain("temperature 2");
  });

  test("an adapter is written as one, or merged into its base; --json is one object", async () => {
    const [path, whole] = [fresh("adapter.gguf"), fresh("whole.gguf")];
    const named = ["export", "--adapter_name_or_path", adapter];
    const alone = await kto(...named, "--gguf", "f16", "--output", path, "--json");
    expect(alone.stderr).toBe("");
    expect(JSON.parse(alone.stdout)).toEqual({
      output: path,
      model: stories,
      adapter,
      types: { f16: 20 },
      modelfile: path.replace(".gguf", ".Modelfile"),
    });
    expect(readFileSync(path.replace(".gguf", ".Modelfile"), "utf8")).toMatch(
      /^# The base of the adapter: kto export --model_name_or_path \S+ --gguf f16 --output base\.gguf\nFROM \.\/base\.gguf\nADAPTER \.\/adapter\.gguf\n/,
    );
    const merged = await kto(...named, "--merge_adapter", "--gguf", "f32", "--output", whole);
    expect(merged.stdout).toContain(`wrote the model to ${whole} (tensors: 47 f32)`);
    // The same by the option for models, whose folder holds an adapter only.
    const again = fresh("again.gguf");
    await kto("export", "--model", adapter, "--merge_adapter", "--gguf", "f32", "--output", again);
    expect(readFileSync(again).equals(readFileSync(whole))).toBe(true);
  });

  test.each<[string[], string]>([
    [["--gguf", "f16", "--output", "x.gguf"], "Nothing to export is named: give model_name_or_path or adapter_name"],
    [
      ["--adapter_name_or_path", stories, "--gguf", "f16", "--output", "x.gguf"],
      "is a whole model and no adapter; name it as model_name_or_path.",
    ],
    [["--model", stories, "--gguf", "q2_k", "--output", "x.gguf"], 'option "gguf" is "q2_k"'],
    [["--model", stories, "--gguf", "f16", "--output", "."], "Cannot write .: it is a folder, not a file."],
    [["--model", stories, "--gguf", "f16", "--output", "x.gguf", "--merge_adapter"], "merge_adapter is set, but"],
  ])("%j is refused", async (words, message) => {
    const { code, stderr } = await kto("export", ...words);
    expect(code).not.toBe(0);
    expect(stderr).toContain(message);
    expect(existsSync("x.gguf")).toBe(false);
  });

  test("no file of the model is replaced, and a folder in the Modelfile's place is told before any work", async () => {
    const model = copyOfModel(folder, stories);
    const weights = join(model, "model.safetensors");
    const before = readFileSync(weights);
    const own = await kto("export", "--model", model, "--gguf", "f16", "--output", weights);
    expect(own.code).toBe(7);
    expect(own.stderr).toContain(
      `Cannot write ${weights}: it is a file of ${model}, which is read; name another file.`,
    );
    expect(readFileSync(weights).equals(before)).toBe(true);
    const path = fresh("m.gguf");
    mkdirSync(path.replace(".gguf", ".Modelfile"));
    const { code, stderr } = await kto("export", "--model", model, "--gguf", "f16", "--output", path);
    expect([code, stderr]).toEqual([7, expect.stringContaining("m.Modelfile: it is a folder, not a file.")]);
    expect(existsSync(path)).toBe(false);
  });

  test("an earlier export and an empty file are replaced, any other file is not", async () => {
    const path = fresh("out.gguf");
    const words = ["export", "--model", stories, "--output", path, "--gguf"];
    writeFileSync(path, "");
    expect((await kto(...words, "f32")).code).toBe(0);
    expect((await kto(...words, "f16")).code).toBe(0);
    expect(readFileSync(path).length).toBeLessThan(600_000);
    const weights = fresh("model.safetensors");
    writeFileSync(weights, "the only copy");
    const { code, stderr } = await kto("export", "--model", stories, "--gguf", "f16", "--output", weights);
    expect(code).toBe(7);
    expect(stderr).toContain(`Cannot write ${weights}: it exists and is no GGUF file, so it is not replaced`);
    expect(readFileSync(weights, "utf8")).toBe("the only copy");
  });

  test.runIf(existsSync("/dev/full"))("a full disk is one sentence, and nothing is left behind", async () => {
    const words = ["export", "--model", stories, "--gguf", "f16", "--output", "/dev/full"];
    const { code, stderr } = await kto(...words);
    expect([code, stderr]).toEqual([7, "error: Cannot write /dev/full: no space is left on the disk.\n"]);
    const path = fresh("m.gguf");
    const written = vi
      .spyOn(platform, "writeFileAtomic")
      .mockRejectedValueOnce(new FileError(`Cannot write ${path}: no space is left on the disk.`));
    const midway = await kto("export", "--model", stories, "--gguf", "f16", "--output", path);
    written.mockRestore();
    expect([midway.code, readdirSync(dirname(path))]).toEqual([7, []]);
  });

  test("an adapter whose base is gone is one sentence, which names both", async () => {
    const lost = fresh("lost");
    cpSync(adapter, lost, { recursive: true });
    const file = join(lost, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    for (const [base, sentence] of [
      ["/nowhere/model", /error: .*\/nowhere\/model.*/],
      [null, /error: .* is an adapter that does not say what its base model is; give the base as model_name_or_path/],
    ] as const) {
      writeFileSync(file, JSON.stringify({ ...config, base_model_name_or_path: base }));
      const path = fresh("a.gguf");
      const { code, stderr } = await kto("export", "--model", lost, "--gguf", "f16", "--output", path);
      expect(code).not.toBe(0);
      expect(code).not.toBe(1);
      expect(stderr).toMatch(sentence);
      expect(stderr.trim().split("\n")).toHaveLength(1);
      expect(existsSync(path)).toBe(false);
    }
  });

  test("a device gets the model, and no Modelfile beside it", async () => {
    const { code, stdout, stderr } = await kto("export", "--model", stories, "--gguf", "f16", "--output", "/dev/null");
    expect(code, stderr).toBe(0);
    expect(stdout).not.toContain("ollama");
    expect(existsSync("/dev/null.Modelfile")).toBe(false);
  });

  test("a quantised adapter is refused, and nothing is left behind", async () => {
    const path = fresh("a.gguf");
    const { code, stderr } = await kto("export", "--model", adapter, "--gguf", "q8_0", "--output", path);
    expect(code).toBe(2);
    expect(stderr).toContain("An adapter alone is not written as q8_0");
    expect(existsSync(path)).toBe(false);
  });
});
