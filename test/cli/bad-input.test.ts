/**
 * Bad input through whole command lines: one sentence on stderr that names file, line, row or tensor, the documented
 * exit code, nothing on stdout, no stack, and an output folder that does not stand in the way of the next attempt.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { shareDeviceWithCommands } from "../helpers/commands.ts";
import {
  copyOfModel,
  entryOf,
  fileIn,
  freshPath,
  gpt2,
  jsonl,
  llama,
  stories,
  temporaryFolder,
  withConfig,
  withWeightBytes,
  withWeights,
} from "../helpers/folders.ts";
import { kto } from "../helpers/streams.ts";

/** As the help text and the README list them. */
const exit = { options: 2, feedback: 3, model: 4, adapter: 5, files: 7, numbers: 8 } as const;

shareDeviceWithCommands();
const folder = temporaryFolder();
/** Five pre-tokenized rows of both classes. */
const feedback = "test/fixtures/llama/data.jsonl";
/** The context of the llama fixture, and the size of its vocabulary. */
const context = 256;
const vocabulary = 120;

const row = (label: unknown, id = 3) => ({ prompt_ids: [5, id], completion_ids: [id, 9], label });
const good = [row(true), row(false, 4)];
const tooLong = { prompt_ids: Array(context + 1).fill(7), completion_ids: [3], label: true };

/** A feedback file of rows, of text, or of bytes. */
function rows(content: readonly unknown[] | string | Uint8Array, name = "rows.jsonl"): string {
  return fileIn(folder, name, Array.isArray(content) ? jsonl(content) : (content as string | Uint8Array));
}

/** A command line with nothing on stderr but warnings and errors. */
function quietly(...words: string[]): ReturnType<typeof kto> {
  return kto(...words, "--log_level", "warning");
}

/** Runs one update. */
function train(output: string, model: string, dataset: string, ...words: string[]): ReturnType<typeof kto> {
  return quietly("train", "--model", model, "--dataset", dataset, "--output_dir", output, "max_steps=1", ...words);
}

/** What every refusal has in common. */
function expectRefusal(result: Awaited<ReturnType<typeof kto>>, code: number, sentence: RegExp): void {
  expect(result.stderr).toMatch(sentence);
  expect(result.stderr).toMatch(/^error: [^\n]+\.\n$/);
  expect(result.stderr).not.toMatch(/internal error|^ +at |node:|\.ts:/m);
  expect(result).toMatchObject({ code, stdout: "" });
}

async function expectTrainRefusal(model: string, dataset: string, code: number, sentence: RegExp): Promise<void> {
  const output = freshPath(folder, "out");
  expectRefusal(await train(output, model, dataset), code, sentence);
  // Whoever mends the input can give the same command again.
  expect(existsSync(output) ? readdirSync(output) : []).toEqual([]);
}

describe("a feedback file that cannot be used", () => {
  const huge = "x".repeat(3_000_000);

  test.each<[string, () => string, number, RegExp]>([
    ["a missing file", () => "nowhere.jsonl", exit.files, /Cannot open nowhere\.jsonl: it does not exist/],
    [
      "a missing path without an ending",
      () => "./nowhere",
      exit.files,
      /from \.\/nowhere: it does not exist; give a local/,
    ],
    [
      "a folder of other things",
      () => "src/cli",
      exit.options,
      /src\/cli holds no \.parquet, \.jsonl, \.json or \.csv/,
    ],
    [
      "an unknown kind of file",
      () => rows("x", "rows.txt"),
      exit.feedback,
      /rows\.txt has an ending that is not known/,
    ],
    ["an empty file", () => rows(""), exit.feedback, /rows\.jsonl is empty/],
    ["blank lines alone", () => rows("\n\r\n"), exit.feedback, /rows\.jsonl holds no rows/],
    ["a byte order mark alone", () => rows("\ufeff"), exit.feedback, /rows\.jsonl holds no rows/],
    ["broken JSON", () => rows(`${jsonl(good)}{"prompt_ids": [1\n`), exit.feedback, /rows\.jsonl:3 is not valid JSON/],
    ["bytes that are no text", () => rows(Buffer.alloc(64)), exit.feedback, /rows\.jsonl:1 is not valid JSON: .*\\x00/],
    [
      "broken UTF-8",
      () => rows(Buffer.concat([Buffer.from(jsonl(good)), Buffer.from([0x7b, 0xff, 0x7d])])),
      exit.feedback,
      /rows\.jsonl:3 is not UTF-8/,
    ],
    ["a huge line of nonsense", () => rows(jsonl(good) + huge), exit.feedback, /rows\.jsonl:3 .{0,100}\n$/],
    [
      "a huge field of the wrong type",
      () => rows([...good, row(huge)]),
      exit.feedback,
      /rows\.jsonl:3: "label" is .{0,300}\n$/,
    ],
    [
      "a missing field",
      () => rows([...good, { prompt_ids: [1], completion_ids: [2] }]),
      exit.feedback,
      /rows\.jsonl:3: the field "label" is missing/,
    ],
    ["a label of words", () => rows([...good, row("up")]), exit.feedback, /rows\.jsonl:3: "label" is "up"; it must be/],
    [
      "ids as text",
      () => rows([{ ...row(true), prompt_ids: "1 2" }]),
      exit.feedback,
      /rows\.jsonl:1: "prompt_ids" is "1 2", not/,
    ],
    [
      "a token id outside the vocabulary",
      () => rows([...good, row(true, vocabulary)]),
      exit.feedback,
      /rows\.jsonl:3: token id 120 is outside the model's vocabulary of 120/,
    ],
    [
      "an empty prompt",
      () => rows([...good, { ...row(true), prompt_ids: [] }]),
      exit.feedback,
      /rows\.jsonl:3: the prompt has no tokens/,
    ],
    [
      "only completions that are empty",
      () => rows([{ ...row(true), completion_ids: [] }]),
      exit.feedback,
      /rows\.jsonl: its only row cannot be used: 1 \(line 1\) because the completion is empty/,
    ],
    [
      "only prompts longer than the context",
      () => rows([tooLong, tooLong]),
      exit.feedback,
      /none of the 2 rows can be used: 2 \(lines 1, 2\) because the prompt is longer than the model's context of 256/,
    ],
  ])("%s", async (_, dataset, code, sentence) => {
    await expectTrainRefusal(llama, dataset(), code, sentence);
  });

  test("a file of one row: it has no mismatched pair to measure the reference point on", async () => {
    const dataset = rows([row(true)]);
    const trained = await train(freshPath(folder, "out"), llama, dataset);
    const checked = await quietly("gradcheck", "--model", llama, "--dataset", dataset);
    const error = "error: .*rows\\.jsonl has one row to use.*\\n$";
    expect(trained.stderr).toMatch(new RegExp(`^warning: The only row is desirable.*\\n${error}`));
    expect(checked.stderr).toMatch(new RegExp(`^${error}`)); // advice on training is none on a check
    for (const { code, stdout } of [trained, checked]) expect([code, stdout]).toEqual([exit.feedback, ""]);
    // Its log-probability needs no pair.
    expect(await quietly("logps", "--model", llama, "--dataset", dataset)).toMatchObject({ code: 0 });
  });

  test("text for a model without a tokenizer", async () => {
    const dataset = rows([{ prompt: "a", completion: "b", label: true }]);
    await expectTrainRefusal(llama, dataset, exit.model, /llama\/policy\/tokenizer\.json does not exist; without it/);
    const generated = await quietly("generate", "--model", llama, "--prompt", "a");
    expectRefusal(generated, exit.model, /llama\/policy\/tokenizer\.json does not exist/);
  });
});

describe("a feedback file that is odd but can be used", () => {
  async function logps(dataset: string): Promise<{ stdout: string; stderr: string }> {
    const { code, stdout, stderr } = await quietly("logps", "--model", llama, "--dataset", dataset, "--json");
    expect([code, stderr.includes("error")]).toEqual([0, false]);
    return { stdout, stderr };
  }

  test("rows of one class: no advice on training where nothing is trained", async () => {
    const { code, stderr } = await kto("logps", "--model", llama, "--dataset", rows([row(true), row(true, 4)]));
    expect(code, stderr).toBe(0);
    expect(stderr).not.toContain("warning");
  });

  test("rows of one class: a warning, and it trains", async () => {
    const { code, stderr } = await train(freshPath(folder, "out"), llama, rows([row(true), row(true, 4)]));
    expect(code).toBe(0);
    expect(stderr).toMatch(/^warning: All 2 rows are desirable and none is undesirable/m);
    expect(stderr).not.toContain("error");
  });

  test("prompts longer than the context, however long: dropped, counted, and the others keep their index", async () => {
    const endless = { ...tooLong, prompt_ids: Array(500_000).fill(7) };
    const { stdout, stderr } = await logps(rows([good[0], tooLong, endless, good[1]]));
    expect(stderr).toBe(
      "warning: 2 rows dropped: the prompt is longer than the model's context of 256 tokens (line 2, 3).\n",
    );
    expect(stdout.match(/"index":\d/g)).toEqual(['"index":0', '"index":3']);
  });

  test("completions that run over the context are cut to it, and counted", async () => {
    const { stdout, stderr } = await logps(
      rows([{ ...tooLong, prompt_ids: [1, 2], completion_ids: tooLong.prompt_ids }, ...good]),
    );
    expect(stderr).toContain("warning: 1 completion was cut to max_length 256.\n");
    expect(stdout).toContain(`"tokens":${context - 2}`);
  });

  test("a row that fits the model but not its reference is dropped for both", async () => {
    const wide = withConfig(folder, llama, { max_position_embeddings: 1024 });
    const words = ["--model", wide, "--ref_model", llama, "--dataset", rows([tooLong, ...good]), "--json"];
    const { code, stdout, stderr } = await quietly("logps", ...words);
    expect(code).toBe(0);
    expect(stderr).toContain("longer than the model's context of 256 tokens");
    expect(stdout.match(/"index":\d/g)).toEqual(['"index":1', '"index":2']);
  });

  test("a max_length beyond the context: a warning names what is used in its place", async () => {
    const output = freshPath(folder, "out");
    const { code, stderr } = await train(output, llama, feedback, "--max_length", "4096");
    expect(code).toBe(0);
    expect(stderr).toMatch(/^warning: max_length 4096 is more than the model's context of 256 tokens/m);
  });

  test("line ends of Windows and a byte order mark change nothing", async () => {
    const text = readFileSync(feedback, "utf8");
    const plain = await logps(feedback);
    expect(await logps(rows(`\ufeff${text.replaceAll("\n", "\r\n")}`))).toEqual(plain);
  });
});

describe("a model folder that cannot be used", () => {
  const norm = "model.norm.weight";

  test.each<[string, () => string, RegExp]>([
    ["no config.json", () => without("config.json"), /"[^"]+model" has no config\.json/],
    ["config.json cut short", () => withFile("config.json", "{"), /config\.json is not valid JSON/],
    // V8 quotes what it found, line breaks and all.
    ["config.json of several lines", () => withFile("config.json", '{\n "a": x\n}'), /config\.json is not valid JSON/],
    ["config.json that is a list", () => withFile("config.json", "[1]"), /config\.json does not hold a JSON object/],
    [
      "an unknown architecture",
      () => withConfig(folder, llama, { model_type: "mamba", architectures: ["MambaForCausalLM"] }),
      /config\.json: architecture "mamba" \(MambaForCausalLM\) is not supported; supported are "llama", "mistral", .* and "gpt2"/,
    ],
    [
      "no architecture",
      () => withConfig(folder, llama, { model_type: undefined, architectures: undefined }),
      /config\.json names no architecture/,
    ],
    [
      "a missing key",
      () => withConfig(folder, llama, { hidden_size: undefined }),
      /config\.json: key "hidden_size" is/,
    ],
    [
      "a mistyped key",
      () => withConfig(folder, llama, { vocab_size: "120" }),
      /config\.json: "vocab_size" is "120", not a whole number/,
    ],
    [
      "mathematics that is not implemented",
      () => withConfig(folder, llama, { rope_scaling: { rope_type: "su", factor: 4 } }),
      /config\.json: "rope_scaling" is \{"rope_type":"su","factor":4\}, and this scaling is not supported/,
    ],
    [
      "rotary scaling under its older name, in its newer place",
      () => withConfig(folder, llama, { rope_parameters: { type: "longrope", factor: 4 } }),
      /config\.json: "rope_parameters" is \{"type":"longrope".*scaling is not supported/,
    ],
    [
      "rotary parameters that are a list",
      () => withConfig(folder, llama, { rope_parameters: [] }),
      /config\.json: "rope_parameters" is \[\], not an object/,
    ],
    [
      "a nested rope_theta that is text",
      () => withConfig(folder, llama, { rope_parameters: { rope_theta: "500000" } }),
      /config\.json: "rope_theta" of "rope_parameters" is "500000", not a number above 0/,
    ],
    [
      "an epsilon that 32 bits cannot hold",
      () => withConfig(folder, llama, { rms_norm_eps: 1e-300 }),
      /config\.json: "rms_norm_eps" is 1e-300, not a number above 0 that 32-bit floating point can hold/,
    ],
    [
      "a context of one token",
      () => withConfig(folder, llama, { max_position_embeddings: 1 }),
      /config\.json: a context of 1 token leaves no room/,
    ],
    [
      "an end token that is text",
      () => withConfig(folder, llama, { eos_token_id: "2" }),
      /config\.json: "eos_token_id" is "2", not a token id/,
    ],
    [
      "layers beyond all measure",
      () => withConfig(folder, llama, { num_hidden_layers: 2 ** 30 }),
      /config\.json: "num_hidden_layers" is 1073741824, more than the 10000 that are supported/,
    ],
    [
      "more layers than tensors",
      () => withConfig(folder, llama, { num_hidden_layers: 1000 }),
      /model\.safetensors holds 21 tensors, too few for the 1000 layers/,
    ],
    ["no weights", () => without("model.safetensors"), /has no model\.safetensors: there are no weights/],
    [
      "PyTorch weights",
      () => withFile("pytorch_model.bin", "x", without("model.safetensors")),
      /has no model\.safetensors: it holds PyTorch files; save it as safetensors/,
    ],
    [
      "a missing tensor",
      () =>
        withWeights(folder, llama, (header) => {
          header["model.layers.7.strange"] = entryOf(header, norm);
          delete header[norm];
        }),
      /model\.safetensors: tensor "model\.norm\.weight" \[32\] is missing/,
    ],
    [
      "an extra tensor",
      () =>
        withWeights(folder, llama, (header, data) => {
          header["model.vision.weight"] = { dtype: "F32", shape: [1], data_offsets: [data.length, data.length + 4] };
          return { data: Buffer.concat([data, Buffer.alloc(4)]) };
        }),
      /model\.safetensors: tensor "model\.vision\.weight" does not belong to a llama model of 2 layers/,
    ],
    [
      "a mis-shaped tensor",
      () =>
        withWeights(folder, llama, (header) => {
          Object.assign(entryOf(header, norm), { shape: [4, 8] });
        }),
      /tensor "model\.norm\.weight" has shape \[4, 8\], but config\.json makes it \[32\]/,
    ],
    [
      "a tensor of whole numbers",
      () =>
        withWeights(folder, llama, (header, data) => {
          const head = entryOf(header, "lm_head.weight");
          const [begin] = head.data_offsets;
          const bytes = 2 * vocabulary * 32;
          Object.assign(head, { dtype: "I16", data_offsets: [begin, begin + bytes] });
          return { data: data.subarray(0, begin + bytes) };
        }),
      /tensor "lm_head\.weight" is stored as I16, but only F32, F16, BF16 can be read/,
    ],
    [
      "an unknown dtype",
      () =>
        withWeights(folder, llama, (header) => {
          Object.assign(entryOf(header, norm), { dtype: "F31" });
        }),
      /tensor "model\.norm\.weight" has the unknown dtype "F31"/,
    ],
    [
      "a weight that is not a number",
      () =>
        withWeights(folder, llama, (header, data) => {
          data.writeFloatLE(Number.NaN, entryOf(header, norm).data_offsets[0] + 4 * 5);
        }),
      /model\.safetensors: tensor "model\.norm\.weight" holds NaN \(element 5\)/,
    ],
    [
      "weights cut short",
      () => withWeightBytes(folder, llama, (bytes) => bytes.subarray(0, bytes.length - 10)),
      /model\.safetensors is truncated: tensor "lm_head\.weight" ends at byte \d+, but the file has \d+ bytes/,
    ],
    [
      "weights cut within the header",
      () => withWeightBytes(folder, llama, (bytes) => bytes.subarray(0, 100)),
      /model\.safetensors claims a header of \d+ bytes but is only 100 bytes long/,
    ],
    ["weights of no bytes", () => withFile("model.safetensors", ""), /model\.safetensors is 0 bytes long/],
    [
      "an error page in place of the weights",
      () => withFile("model.safetensors", "<html><body>404 Not Found</body></html>"),
      /model\.safetensors claims a header of \d+ bytes but is only 39/,
    ],
    [
      "a header that is not JSON",
      () => withWeights(folder, llama, () => ({ header: '{\n"model' })),
      /model\.safetensors: the safetensors header is not valid JSON/,
    ],
    [
      "tensors that overlap",
      () =>
        withWeights(folder, llama, (header) => {
          const entry = entryOf(header, norm);
          entry.data_offsets = [entry.data_offsets[0] - 4, entry.data_offsets[1] - 4];
        }),
      /model\.safetensors: tensors "model\.layers\.1\.mlp\.down_proj\.weight" and "model\.norm\.weight" overlap/,
    ],
  ])("%s", async (_, damaged, sentence) => {
    await expectTrainRefusal(damaged(), feedback, exit.model, sentence);
  });

  test.each<[string, string, RegExp]>([
    ["a missing folder", "./nowhere", /model folder "\.\/nowhere" does not exist; give a local Hugging Face folder/],
    ["a file", feedback, /model folder "test\/fixtures\/llama\/data\.jsonl" is a file; give a local/],
  ])("%s", async (_, model, sentence) => {
    await expectTrainRefusal(model, feedback, exit.files, sentence);
  });

  test.each<[string, string, RegExp]>([
    ["cut short", "{", /tokenizer\.json is not valid JSON/],
    ["without its model", "{}", /tokenizer\.json is not a tokenizer that can be used/],
  ])("a tokenizer.json %s", async (_, content, sentence) => {
    const model = withFile("tokenizer.json", content, copyOfModel(folder, stories));
    expectRefusal(await quietly("generate", "--model", model, "--prompt", "Once"), exit.model, sentence);
  });

  test("a tokenizer with more tokens than the model", async () => {
    const model = copyOfModel(folder, stories);
    for (const name of ["config.json", "model.safetensors"]) {
      writeFileSync(join(model, name), readFileSync(join(llama, name)));
    }
    const dataset = rows([{ prompt: "Once upon", completion: " a time", label: true }]);
    await expectTrainRefusal(
      model,
      dataset,
      exit.feedback,
      /rows\.jsonl:1: token id \d+ is outside .* 120 tokens; the tokenizer does not belong to this model/,
    );
    const generated = await quietly("generate", "--model", model, "--prompt", "Once upon", "max_new_tokens=4");
    expectRefusal(generated, exit.options, /Prompt 1 holds token \d+, outside the vocabulary of 120/);
  });

  test.each(["train", "logps", "gradcheck"])("kto %s: two models of different vocabularies", async (command) => {
    const words = ["--model", llama, "--ref_model", gpt2, "--dataset", feedback];
    if (command === "train") words.push("--output_dir", freshPath(folder, "out"));
    expectRefusal(
      await quietly(command, ...words),
      exit.options,
      /reference model .*gpt2\/policy has a vocabulary of 96 tokens and the model .*llama\/policy one of 120/,
    );
  });

  function without(name: string): string {
    const copy = copyOfModel(folder, llama);
    rmSync(join(copy, name));
    return copy;
  }

  function withFile(name: string, content: string, model = copyOfModel(folder, llama)): string {
    writeFileSync(join(model, name), content);
    return model;
  }
});

describe("numbers that overflow", () => {
  // Not of llama: where the sum of squares overflows, its norm gives zeros, as PyTorch's does, and all tokens are
  // alike.
  test.each([
    ["a learning rate that ruins the weights in the only update", ["learning_rate=1e38", "max_steps=1"]],
    ["one that ruins all later updates", ["learning_rate=1e30", "max_steps=3"]],
  ])("%s: no model is written", async (_, options) => {
    const out = freshPath(folder, "out");
    const words = [
      "--model",
      gpt2,
      "--dataset",
      "test/fixtures/gpt2/data.jsonl",
      "--output_dir",
      out,
      "lr_scheduler_type=constant",
    ];
    const { code, stdout, stderr } = await quietly("train", ...words, ...options);
    expect([code, stdout]).toEqual([exit.numbers, ""]);
    expect(stderr).toMatch(/\nerror: [^\n]*lower learning_rate[^\n]*\n$/);
    expect(existsSync(join(out, "model.safetensors"))).toBe(false);
  });

  test.each(["beta", "desirable_weight", "learning_rate", "adam_epsilon"])(
    "an option %s that 32 bits cannot hold",
    async (name) => {
      for (const value of ["1e300", "1e-300"]) {
        const words = ["--model", llama, "--dataset", feedback, "--output_dir", freshPath(folder, "out")];
        const sentence = new RegExp(`option "${name}" is 1e[+-]300, which 32-bit floating point cannot hold`);
        expectRefusal(await quietly("train", ...words, `${name}=${value}`), exit.options, sentence);
      }
    },
  );

  /** Every weight is finite, but the logits are not. */
  const overflowing = (model: string) =>
    withWeights(folder, model, (header, data) => {
      const [begin, end] = entryOf(header, "model.norm.weight").data_offsets;
      for (let offset = begin; offset < end; offset += 4) data.writeFloatLE(3e38, offset);
    });

  test("kto train writes no model that the last updates could not change, though an earlier one of the same window could", async () => {
    const output = freshPath(folder, "out");
    const words = ["--model", llama, "--dataset", feedback, "--output_dir", output];
    const { code, stderr } = await quietly("train", ...words, "learning_rate=1e10", "max_steps=5");
    expect(code).toBe(exit.numbers);
    expect(stderr).toMatch(/^error: The gradients were not finite in any of the [2-4] updates up to step 5/m);
    expect(readdirSync(output).sort()).toEqual(["events.jsonl", "metrics.jsonl", "run.json"]);
  });

  test("kto train stops when no update was possible, and writes no model", async () => {
    const output = freshPath(folder, "out");
    const { code, stdout, stderr } = await train(output, overflowing(llama), feedback);
    expect([code, stdout]).toEqual([exit.numbers, ""]);
    expect(stderr).toMatch(/^error: The gradients were not finite in the update up to step 1[^\n]*\n$/m);
    expect(readdirSync(output).sort()).toEqual(["events.jsonl", "metrics.jsonl", "run.json"]);
  });

  test.each([
    ["model", () => ["--model", overflowing(llama)]],
    ["reference", () => ["--model", llama, "--ref_model", overflowing(llama)]],
  ])("kto logps names the row and the %s, and prints no null for a number", async (_, models) => {
    expectRefusal(
      await quietly("logps", ...models(), "--dataset", feedback, "--json"),
      exit.numbers,
      /data\.jsonl:1: the log-probability under .*kto-test.*\/model is not a finite number/,
    );
  });

  test("kto gradcheck names the row, and writes no gradients", async () => {
    const gradients = freshPath(folder, "grads.safetensors");
    const words = ["--model", overflowing(llama), "--dataset", feedback, "--grads_out", gradients, "--json"];
    expectRefusal(await quietly("gradcheck", ...words), exit.numbers, /data\.jsonl:1: the loss is NaN/);
    expect(existsSync(gradients)).toBe(false);
  });

  test.each(["greedy=true", "greedy=false"])("kto generate %s draws no token from them", async (greedy) => {
    const words = ["--model", overflowing(stories), "--prompt", "Once", "max_new_tokens=2", greedy];
    expectRefusal(await quietly("generate", ...words), exit.numbers, /Prompt 1: the logits after \d+ tokens are not/);
  });
});

describe("a place that cannot be written is noticed before any work", () => {
  // No model is there either: had work begun, that would be the complaint.
  const model = "./nowhere";

  test.each<[string, () => string, RegExp]>([
    ["below a file", () => join(fileIn(folder, "plain", "x"), "out"), /plain\/out: a part of the path is a file/],
    ["a file", () => fileIn(folder, "plain", "x"), /plain: a file of that name is in the way/],
    ...(existsSync("/proc/self/task")
      ? ([["the kernel refuses", () => "/proc/self/task/out", /\/proc\/self\/task\/out: it cannot be created/]] as [
          string,
          () => string,
          RegExp,
        ][])
      : []),
  ])("output_dir: %s", async (_, output, sentence) => {
    expectRefusal(await train(output(), model, feedback), exit.files, sentence);
  });

  test("output_dir that holds something is kept, unless overwriting it is allowed", async () => {
    const output = join(freshPath(folder, "runs"), "one");
    mkdirSync(output, { recursive: true });
    writeFileSync(join(output, "precious.txt"), "x");
    expectRefusal(await train(output, model, feedback), exit.options, /not empty \(it holds precious\.txt\)/);
    const allowed = await train(output, model, feedback, "--overwrite_output_dir");
    expectRefusal(allowed, exit.files, /model folder "\.\/nowhere"/);
    expect(readdirSync(output)).toEqual(["precious.txt"]);
  });

  test("the folder of the model that is trained is not overwritten", async () => {
    const own = withWeights(folder, llama, () => undefined);
    const refused = await train(join(own, "."), own, feedback, "--overwrite_output_dir");
    expectRefusal(refused, exit.options, /is the folder of the model that is trained/);
  });

  test("output_dir that holds only the metrics of a run that was broken off is used again", async () => {
    const output = freshPath(folder, "broken-off");
    mkdirSync(output, { recursive: true });
    writeFileSync(join(output, "metrics.jsonl"), '{"step":1}\n');
    const { code } = await quietly(
      "train",
      "--model",
      llama,
      "--dataset",
      feedback,
      "--output_dir",
      output,
      "max_steps=1",
    );
    expect(code).toBe(0);
    expect(readdirSync(output)).toContain("model.safetensors");
    expect(readFileSync(join(output, "metrics.jsonl"), "utf8").trim().split("\n")).toHaveLength(1);
  });

  test.each<[string, () => string, RegExp]>([
    ["below a file", () => join(fileIn(folder, "plain", "x"), "grads.safetensors"), /plain: a file of that name is in/],
    ["a folder", () => folder, /Cannot write .*: it is a folder, not a file/],
  ])("grads_out: %s", async (_, path, sentence) => {
    const words = ["--model", model, "--dataset", feedback, "--grads_out", path()];
    expectRefusal(await quietly("gradcheck", ...words), exit.files, sentence);
  });
});

describe("options that cannot be used", () => {
  test.each<[string, string[], number, RegExp]>([
    [
      "an unknown one",
      ["train", "--lerning_rate", "1"],
      exit.options,
      /"lerning_rate": did you mean "learning_rate"\?/,
    ],
    ["an unknown override", ["logps", "datset_name=x"], exit.options, /"datset_name": did you mean "dataset_name"\?/],
    [
      "a microbatch of 1",
      ["train", "--model", llama, "--dataset", feedback, "--output_dir", "o", "per_device_train_batch_size=1"],
      exit.options,
      /"per_device_train_batch_size" is 1, .* use at least 2/,
    ],
    [
      "an adapter that is not there",
      ["logps", "--model", llama, "--dataset", feedback, "--adapter", "abacus"],
      exit.adapter,
      /No adapter matches "abacus"/,
    ],
    [
      "more new tokens than the context",
      ["generate", "--model", stories, "--prompt", "Once", "max_new_tokens=5000"],
      exit.options,
      /^error: Prompt 1 has 2 tokens and max_new_tokens is 5000, together more than the model's context of 512: /m,
    ],
    [
      "prompts from a file that is not there",
      ["generate", "--model", stories, "--prompts_file", "nowhere.txt"],
      exit.files,
      /prompts file nowhere\.txt: there is no such file/,
    ],
  ])("%s", async (_, words, code, sentence) => {
    const { code: found, stdout, stderr } = await quietly(...words);
    expect(stderr).toMatch(sentence);
    // One sentence; several faults of a configuration have a line each.
    expect(stderr).toMatch(/^error: ([^\n]+|\d+ things must be changed:(\n {2}[^\n]+)+)\n$/);
    expect([found, stdout]).toEqual([code, ""]);
  });
});
