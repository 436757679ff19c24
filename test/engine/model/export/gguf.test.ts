/**
 * GGUF files as llama.cpp itself reads them: every family, the types of numbers, tokenizers, adapters. What a model
 * computes is judged by the float64 model; the table of all families and types is scripts/gguf-table.ts. What lies in a
 * file is read by @huggingface/gguf.
 */
import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gguf } from "@huggingface/gguf";
import { beforeAll, describe, expect, test } from "vitest";
import { parseModelConfig } from "../../../../src/engine/model/config/config.ts";
import { exportAdapterGguf, exportGguf } from "../../../../src/engine/model/export/export-gguf.ts";
import { Float64Model } from "../../../../src/engine/model/float64/decoder.ts";
import type { LoraOptions } from "../../../../src/engine/model/lora-modules.ts";
import { mergeAdapter } from "../../../../src/engine/model/merge.ts";
import { loadTokenizer } from "../../../../src/engine/text/tokenizer.ts";
import { readFloat64Safetensors } from "../../../helpers/float64-safetensors.ts";
import { stories, temporaryFolder, withConfig } from "../../../helpers/folders.ts";
import {
  askLlamaCpp,
  LARGEST_DIFFERENCE,
  type LlamaCppAnswer,
  type LlamaCppJob,
  TINY_MODELS,
  type TinyModel,
  writeRandomAdapter,
  writeTinyModel,
} from "../../../helpers/gguf.ts";
import { tokenizerFolders } from "../../../helpers/tokenizers.ts";

const folder = temporaryFolder();
const STEPS = 16;
const PROMPT = [5, 301, 17, 250, 44, 9];

/** Texts with what tokenizers differ in: spaces, digits, contractions, scripts, line ends. */
const TEXTS = [
  "Hello world, this isn't it!",
  "  two  spaces\tand\n\n a break \r\n",
  "1234567 3.14 I'LL x²",
  "naïve Žluťoučký kůň ελληνικά 日本語 😀🦙",
  "def f(x):\n    return x[1:] == {}\n",
  " ",
];

const onWarning = (sentence: string) => {
  if (!/NFC|by the context that it is started with/.test(sentence)) throw new Error(`a warning: ${sentence}`);
};

async function tinyModel(name: string): Promise<string> {
  const model = mkdtempSync(join(folder, "model-"));
  await writeTinyModel(model, TINY_MODELS[name] as TinyModel, 11);
  return model;
}

/** The log-probs of the next token, and the greedy continuation, by the float64 model. */
function float64Answer(modelFolder: string): { logProbs: Float64Array; generated: number[] } {
  const file = join(modelFolder, "config.json");
  const config = parseModelConfig(readFileSync(file, "utf8"), file);
  const model = new Float64Model(config, readFloat64Safetensors(join(modelFolder, "model.safetensors")));
  const ids = [...PROMPT];
  let first: Float64Array | undefined;
  while (ids.length < PROMPT.length + STEPS) {
    const logits = model.logits(ids).slice(-config.vocabSize);
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    first ??= logits.map((logit) => logit - largest - Math.log(sum));
    ids.push(logits.indexOf(largest));
  }
  return { logProbs: first ?? new Float64Array(), generated: ids.slice(PROMPT.length) };
}

/** The largest difference of log-probs, of tokens that f32 probabilities tell apart from impossible ones. */
function difference(answer: LlamaCppAnswer, logProbs: ArrayLike<number>): number {
  const theirs = answer.answers[0]?.logProbs ?? [];
  expect(theirs).toHaveLength(logProbs.length);
  return theirs.reduce((most, value, id) => {
    const own = logProbs[id] ?? 0;
    return own > -60 ? Math.max(most, Math.abs(value - own)) : most;
  }, 0);
}

function loaded(answer: LlamaCppAnswer | undefined): LlamaCppAnswer {
  expect(answer?.error).toBeUndefined();
  if (answer === undefined) throw new Error("llama.cpp gave no answer");
  return answer;
}

/** One job in a process of its own. */
const ask = (job: LlamaCppJob) => loaded(askLlamaCpp([{ prompts: [PROMPT], steps: STEPS, ...job }])[0]);

describe("every family in f32", () => {
  const models = new Map<string, { model: string; answer: LlamaCppAnswer | undefined }>();

  beforeAll(async () => {
    const jobs: LlamaCppJob[] = [];
    for (const name of Object.keys(TINY_MODELS)) {
      const model = await tinyModel(name);
      const path = join(model, "model.gguf");
      const { types } = await exportGguf({ folder: model }, path, "f32", { onWarning });
      expect(Object.keys(types)).toEqual(["f32"]);
      jobs.push({ model: path, prompts: [PROMPT], steps: STEPS, texts: TEXTS, asked: [400, 401] });
      models.set(name, { model, answer: undefined });
    }
    const answers = askLlamaCpp(jobs);
    for (const [index, one] of [...models.values()].entries()) one.answer = answers[index];
  });

  test.each(Object.keys(TINY_MODELS))("%s: llama.cpp cuts texts, computes and ends as we do", async (name) => {
    const { model = "", answer } = models.get(name) ?? {};
    const { facts, tokenized, answers } = loaded(answer);
    const tokenizer = await loadTokenizer(model);
    expect(tokenized).toEqual(TEXTS.map((text) => tokenizer.encode(text, { addSpecialTokens: false })));
    expect(facts).toMatchObject({ eos: 400, addsBos: tokenizer.addsBos });
    expect(facts.ends).toContain(400);
    const own = float64Answer(model);
    expect(difference(loaded(answer), own.logProbs)).toBeLessThan(LARGEST_DIFFERENCE(name));
    expect(answers[0]?.generated).toEqual(own.generated);
  });
});

describe("a real model", () => {
  test("is the same in every type, as far as the type allows", async () => {
    const jobs: LlamaCppJob[] = [];
    const limits = { f32: 1e-4, f16: 0.05, bf16: 0.2, q8_0: 0.2, q4_0: 3 } as const;
    const types = Object.keys(limits) as (keyof typeof limits)[];
    for (const type of types) {
      const path = join(folder, `stories-${type}.gguf`);
      await exportGguf({ folder: stories }, path, type, { onWarning });
      jobs.push({ model: path, prompts: [[1]], steps: 24, texts: TEXTS, asked: [0, 1, 2, 3] });
    }
    const golden = JSON.parse(readFileSync("test/fixtures/stories260K/golden_greedy.json", "utf8")) as {
      ids: number[];
    };
    const answers = askLlamaCpp(jobs).map(loaded);
    const [exact] = answers;
    expect(exact?.answers[0]?.generated).toEqual(golden.ids.slice(1, 25));
    const tokenizer = await loadTokenizer(stories);
    for (const [index, type] of types.entries()) {
      const answer = loaded(answers[index]);
      expect(answer.tokenized).toEqual(TEXTS.map((text) => tokenizer.encode(text, { addSpecialTokens: false })));
      // generation_config.json ends texts at the beginning of another, too.
      expect(answer.facts).toMatchObject({ bos: 1, eos: 2, addsBos: true, ends: [1, 2] });
      expect(difference(answer, exact?.answers[0]?.logProbs ?? []), type).toBeLessThan(limits[type]);
    }
  });

  test("has the types of numbers that the report says, heads finer than q4_0, and everything where it says", async () => {
    const path = join(folder, "stories-types.gguf");
    const { types } = await exportGguf({ folder: stories }, path, "q4_0", { onWarning, name: "Stories" });
    // The down projections have 172 columns, which are no whole number of blocks.
    expect(types).toEqual({ q4_0: 30, q8_0: 1, f32: 11, f16: 5 });
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    expect(metadata).toMatchObject({
      version: 3,
      tensor_count: 47n,
      "general.architecture": "llama",
      "general.type": "model",
      "general.name": "Stories",
      "general.file_type": 2,
      "llama.context_length": 512,
      "llama.embedding_length": 64,
      "llama.block_count": 5,
      "llama.feed_forward_length": 172,
      "llama.attention.head_count": 8,
      "llama.attention.head_count_kv": 4,
      "llama.rope.dimension_count": 8,
      "llama.rope.freq_base": 10000,
      "tokenizer.ggml.model": "llama",
      "tokenizer.ggml.add_bos_token": true,
    });
    const shapes = new Map(tensorInfos.map(({ name, shape, dtype }) => [name, [shape.map(Number), dtype]]));
    expect(shapes.get("token_embd.weight")).toEqual([[64, 512], 8]);
    expect(shapes.get("blk.0.attn_k.weight")).toEqual([[64, 32], 2]);
    expect(shapes.get("blk.0.ffn_down.weight")).toEqual([[172, 64], 1]);
    const norm = tensorInfos.find(({ name }) => name === "output_norm.weight");
    const bytes = readFileSync(path);
    const start = Number(tensorDataOffset) + Number(norm?.offset);
    expect(start % 32).toBe(0);
    const wanted = readFloat64Safetensors(join(stories, "model.safetensors")).get("model.norm.weight");
    expect(Array.from({ length: 64 }, (_, i) => bytes.readFloatLE(start + 4 * i))).toEqual([...(wanted?.data ?? [])]);
  });
});

describe("tokenizers", () => {
  test("Llama 2's: SentencePiece's merges as scores", async () => {
    const model = mkdtempSync(join(folder, "model-"));
    const config = { ...TINY_MODELS.mistral?.config, vocab_size: 32000, hidden_size: 32, head_dim: 8, eos_token_id: 2 };
    await writeTinyModel(model, { tokenizer: "llama2", config }, 3);
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
      copyFileSync(join(tokenizerFolders.llama2, name), join(model, name));
    }
    const path = join(model, "model.gguf");
    await exportGguf({ folder: model }, path, "q8_0", { onWarning });
    const { tokenized, facts } = ask({ model: path, prompts: [], texts: TEXTS });
    const tokenizer = await loadTokenizer(model);
    expect(tokenized).toEqual(TEXTS.map((text) => tokenizer.encode(text, { addSpecialTokens: false })));
    expect(facts).toMatchObject({ bos: 1, eos: 2, addsBos: true });
  });

  test("chat templates go along, those by name too", async () => {
    const model = await tinyModel("qwen3");
    writeFileSync(join(model, "chat_template.jinja"), "{{ messages[0].content }}");
    const path = join(model, "model.gguf");
    await exportGguf({ folder: model }, path, "f16", { onWarning });
    const { metadata } = await gguf(path, { allowLocalFile: true });
    expect(metadata).toMatchObject({
      "tokenizer.chat_template": "{{ messages[0].content }}",
      "tokenizer.ggml.pre": "qwen2",
      "tokenizer.ggml.add_bos_token": false,
    });
  });

  test("a folder without one gives a file of token ids, with a warning", async () => {
    const model = "test/fixtures/llama/policy";
    const warnings: string[] = [];
    const path = join(folder, "ids.gguf");
    await exportGguf({ folder: model }, path, "f32", { onWarning: (one) => warnings.push(one) });
    expect(warnings).toEqual([
      "test/fixtures/llama/policy/tokenizer.json does not exist, so the file has no tokenizer: programs can give it token ids only.",
    ]);
    const { metadata } = await gguf(path, { allowLocalFile: true });
    expect(metadata).toMatchObject({ "tokenizer.ggml.model": "none", "llama.vocab_size": 120 });
  });

  test.each<[string, (json: Record<string, never>) => unknown, string]>([
    ["a split that has no name", (json) => ({ ...json, pre_tokenizer: split("\\w+") }), 'splits a text by ["\\\\w+"]'],
    ["a normalizer", (json) => ({ ...json, normalizer: { type: "Lowercase" } }), "the normalizer has a step that"],
    ["unigrams", (json) => ({ ...json, model: unigrams }), 'the model is of type "Unigram"'],
  ])("%s is refused by name, and nothing is written", async (_, change, message) => {
    const model = await tinyModel("gpt2");
    const file = join(model, "tokenizer.json");
    writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(file, "utf8")))));
    const path = join(model, "model.gguf");
    await expect(exportGguf({ folder: model }, path, "f32", { onWarning })).rejects.toThrow(message);
    expect(existsSync(path)).toBe(false);
  });
});

const unigrams = {
  type: "Unigram",
  unk_id: 0,
  vocab: [
    ["<unk>", 0],
    ["a", -1],
  ],
};
const split = (Regex: string) => ({
  type: "Sequence",
  pretokenizers: [
    { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
    { type: "ByteLevel", add_prefix_space: false, use_regex: false },
  ],
});

describe("what llama.cpp would compute otherwise", () => {
  test.each<[string, string, Record<string, unknown>, string]>([
    [
      "qwen3",
      "biases",
      { attention_bias: true },
      "a bias of the attention's output, which llama.cpp's \"qwen3\" has not",
    ],
    ["smollm3", "other layers without positions", { no_rope_layer_interval: 2 }, "are not every fourth one"],
    [
      "qwen2",
      "llama3 scaling",
      {
        rope_scaling: {
          rope_type: "llama3",
          factor: 2,
          low_freq_factor: 1,
          high_freq_factor: 4,
          original_max_position_embeddings: 32,
        },
      },
      'rope scaling llama3, which llama.cpp\'s "qwen2" has not',
    ],
  ])("%s with %s is refused", async (name, _, changes, message) => {
    const model = mkdtempSync(join(folder, "model-"));
    const { config, tokenizer } = TINY_MODELS[name] as TinyModel;
    await writeTinyModel(model, { tokenizer, config: { ...config, ...changes } }, 1);
    await expect(exportGguf({ folder: model }, join(model, "m.gguf"), "f32", { onWarning })).rejects.toThrow(message);
  });

  test("a sliding window is told of", async () => {
    const model = withConfig(folder, "test/fixtures/llama/policy", { model_type: "mistral", sliding_window: 7 });
    const warnings: string[] = [];
    await exportGguf({ folder: model }, join(model, "m.gguf"), "f32", { onWarning: (one) => warnings.push(one) });
    expect(warnings[0]).toMatch(/has layers that see 7 tokens only, and llama\.cpp has no such window for mistral/);
  });

  test("a number that f16 cannot hold is named", async () => {
    const model = await tinyModel("llama");
    const file = join(model, "model.safetensors");
    const bytes = readFileSync(file);
    bytes.writeFloatLE(1e6, bytes.length - 4);
    writeFileSync(file, bytes);
    const path = join(model, "m.gguf");
    await expect(exportGguf({ folder: model }, path, "f16", { onWarning })).rejects.toThrow(
      /"output\.weight" holds 1000000, which f16 cannot hold; use bf16 or f32/,
    );
    expect(existsSync(path)).toBe(false);
  });
});

describe("adapters", () => {
  const plain: LoraOptions = { rank: 4, alpha: 8, dropout: 0, rslora: false, targetModules: "all-linear" };

  test.each<[string, string, LoraOptions]>([
    ["llama", "on all layers", plain],
    [
      "qwen3",
      "with rslora, and ranks and alphas of their own",
      {
        ...plain,
        rslora: true,
        rankPattern: { "layers.0.self_attn.q_proj": 2 },
        alphaPattern: { down_proj: 3 },
      },
    ],
    ["gpt2", "on matrices that lie the other way round", plain],
    ["qwen3.5", "on heads that lie in another order", plain],
    [
      "llama",
      "on the embedding and the head, with ranks of their own",
      { ...plain, rankPattern: { lm_head: 3 }, targetModules: ["q_proj", "embed_tokens", "lm_head"] },
    ],
  ])("%s %s: llama.cpp computes what the merged model does", async (name, _, options) => {
    const model = await tinyModel(name);
    const adapter = join(model, "adapter");
    await writeRandomAdapter(adapter, model, options, 5);
    const merged = join(model, "merged");
    await mergeAdapter(model, adapter, merged, { onWarning });
    const [base, lora, whole] = ["base.gguf", "lora.gguf", "whole.gguf"].map((file) => join(model, file)) as [
      string,
      string,
      string,
    ];
    await exportGguf({ folder: model }, base, "f32", { onWarning });
    await exportAdapterGguf({ folder: adapter, baseFolder: model }, lora, "f32", { onWarning });
    await exportGguf({ folder: model, adapterFolder: adapter }, whole, "f32", { onWarning, name: "merged" });
    const own = float64Answer(merged);
    const applied = ask({ model: base, loras: [lora] });
    expect(difference(applied, own.logProbs)).toBeLessThan(LARGEST_DIFFERENCE(name));
    expect(applied.answers[0]?.generated).toEqual(own.generated);
    // It does something at all.
    expect(applied.answers[0]?.generated).not.toEqual(float64Answer(model).generated);
    // Exported with the adapter merged into it, the model has the bytes of the merged folder's.
    const again = join(model, "again.gguf");
    await exportGguf({ folder: merged }, again, "f32", { onWarning, name: "merged" });
    expect(readFileSync(whole).equals(readFileSync(again))).toBe(true);
  });

  test("quantised ones are refused", async () => {
    const job = exportAdapterGguf({ folder: "a", baseFolder: "b" }, join(folder, "a.gguf"), "q8_0");
    await expect(job).rejects.toThrow(
      "An adapter alone is not written as q8_0, which saves nothing: use f32, f16 or bf16, or merge it into its base.",
    );
  });
});
