/**
 * Every exported family in every type of numbers, judged by llama.cpp: `npx tsx scripts/gguf-table.ts > FILE`. Loads,
 * greedy tokens beside those of `kto generate` on this machine's adapter (with the argument float64 the float64 model's
 * instead, which needs no adapter), the largest difference of the next token's
 * log-probs from the float64 model's, adapters beside merged models, and whole tokenizers on many texts. A few minutes.
 */
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GGUF_TYPES } from "../src/engine/files/gguf.ts";
import { Device } from "../src/engine/gpu/device.ts";
import { parseModelConfig } from "../src/engine/model/config/config.ts";
import { exportAdapterGguf, exportGguf } from "../src/engine/model/export/export-gguf.ts";
import { Float64Model } from "../src/engine/model/float64/decoder.ts";
import { Generator } from "../src/engine/model/generate/generate.ts";
import { mergeAdapter } from "../src/engine/model/merge.ts";
import { Model } from "../src/engine/model/model.ts";
import { loadTokenizer } from "../src/engine/text/tokenizer.ts";
import { readFloat64Safetensors } from "../test/helpers/float64-safetensors.ts";
import {
  askLlamaCpp,
  type LlamaCppAnswer,
  TINY_MODELS,
  writeRandomAdapter,
  writeTinyModel,
} from "../test/helpers/gguf.ts";
import { tokenizerFolders } from "../test/helpers/tokenizers.ts";

const STEPS = 16;
const stories = "examples/quickstart/model";
const folder = mkdtempSync(join(tmpdir(), "kto-gguf-"));
const device = process.argv[2] === "float64" ? undefined : await Device.open();
try {
  console.log(`GGUF files of kto export in llama.cpp v0.4.0 (CPU, one thread, f32 cache), ${new Date().toISOString()}`);
  console.log(
    `Greedy tokens are compared with ${device ? `kto generate on ${device.description}` : "the float64 model"}`,
  );
  console.log(
    "Tiny random models, N(0, 0.2^2), each with a real tokenizer cut to 400 tokens; stories260K is a real model.\n",
  );
  await families();
  await adapters();
  await tokenizers();
} finally {
  device?.close();
  rmSync(folder, { recursive: true, force: true });
}

function onWarning(): void {
  // Texts that are not in form NFC; they are counted below.
}

async function families(): Promise<void> {
  console.log(row(["family", "type", "loads", "greedy equal", "largest difference of a log-prob"]));
  const models: [name: string, folder: string, prompt: number[]][] = [["stories260K", stories, [1]]];
  for (const [name, tiny] of Object.entries(TINY_MODELS)) {
    const model = mkdtempSync(join(folder, "m-"));
    await writeTinyModel(model, tiny, 11);
    models.push([name, model, [5, 301, 17, 250, 44, 9]]);
  }
  for (const [name, model, prompt] of models) {
    const own = await generated(model, prompt);
    const logProbs = float64LogProbs(model, prompt);
    for (const type of GGUF_TYPES) {
      const path = join(folder, "model.gguf");
      await exportGguf({ folder: model }, path, type, { onWarning });
      const [answer] = ask(path, prompt);
      if (answer?.error !== undefined) {
        console.log(row([name, type, `no: ${answer.error}`]));
        continue;
      }
      const tokens = answer?.answers[0]?.generated ?? [];
      const equal = own.findIndex((id, i) => id !== tokens[i]);
      const same = equal < 0 ? `all ${STEPS}` : `first ${equal}`;
      console.log(row([name, type, "yes", same, difference(answer, logProbs).toExponential(1)]));
    }
  }
}

async function adapters(): Promise<void> {
  console.log(`\n${row(["adapter (f32)", "", "loads", "greedy equal to the merged model's", "largest difference"])}`);
  for (const [name, tiny] of Object.entries(TINY_MODELS)) {
    const model = mkdtempSync(join(folder, "a-"));
    await writeTinyModel(model, tiny, 11);
    const [adapter, merged, base, lora] = ["adapter", "merged", "base.gguf", "lora.gguf"].map((one) =>
      join(model, one),
    ) as [string, string, string, string];
    const options = { rank: 4, alpha: 8, dropout: 0, rslora: true, targetModules: "all-linear" };
    await writeRandomAdapter(adapter, model, options, 5);
    await mergeAdapter(model, adapter, merged, { onWarning });
    await exportGguf({ folder: model }, base, "f32", { onWarning });
    await exportAdapterGguf({ folder: adapter, baseFolder: model }, lora, "f32", { onWarning });
    const prompt = [5, 301, 17, 250, 44, 9];
    const [answer] = ask(base, prompt, [lora]);
    const own = await generated(merged, prompt);
    const same = own.join() === answer?.answers[0]?.generated.join() ? `all ${STEPS}` : "no";
    const most = difference(answer, float64LogProbs(merged, prompt)).toExponential(1);
    console.log(row([name, "", answer?.error ?? "yes", same, most]));
  }
}

/** Whole tokenizers on lines of this repository and of the test texts, in several scripts. */
async function tokenizers(): Promise<void> {
  console.log(`\n${row(["tokenizer", "tokens", "texts", "cut otherwise", "of them not in form NFC"])}`);
  const texts = textsToCut();
  for (const [name, source] of Object.entries({ ...tokenizerFolders, stories260K: stories })) {
    const model = mkdtempSync(join(folder, "t-"));
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      if (existsSync(join(source, file))) copyFileSync(join(source, file), join(model, `kept-${file}`));
    }
    const tokenizer = await loadTokenizer(source);
    const config = { ...TINY_MODELS.mistral?.config, vocab_size: tokenizer.vocabSize, hidden_size: 32, head_dim: 8 };
    await writeTinyModel(model, { tokenizer: "gpt2", config: { ...config, eos_token_id: tokenizer.eosTokenId } }, 3);
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      copyFileSync(join(model, `kept-${file}`), join(model, file));
    }
    const path = join(folder, "tokenizer.gguf");
    await exportGguf({ folder: model }, path, "q4_0", { onWarning });
    const [answer] = askLlamaCpp([{ model: path, texts }]);
    const wrong = texts.filter(
      (text, i) => tokenizer.encode(text, { addSpecialTokens: false }).join() !== answer?.tokenized[i]?.join(),
    );
    const notNfc = wrong.filter((text) => text.normalize("NFC") !== text).length;
    console.log(row([name, String(tokenizer.vocabSize), String(texts.length), String(wrong.length), String(notNfc)]));
    for (const text of wrong.filter((one) => one.normalize("NFC") === one).slice(0, 3)) {
      console.log(`    ${JSON.stringify(text.slice(0, 100))}`);
    }
  }
}

function textsToCut(): string[] {
  const files = [
    ...readdirSync("docs")
      .filter((name) => name.endsWith(".md"))
      .map((name) => join("docs", name)),
    "src/engine/text/tokenizer.ts",
    "test/engine/text/tokenizer-oracle.test.ts",
    "test/fixtures/feedback/kto_en_demo.conversational.jsonl",
  ];
  const lines = files.filter((file) => existsSync(file)).flatMap((file) => readFileSync(file, "utf8").split("\n"));
  const scripts = [
    "naïve café Ångström Žluťoučký kůň",
    "ελληνικά нещо на български עברית العربية हिन्दी ไทย",
    "日本語 中文 한국어 ÅΩ e\u0301 \u1112\u1161\u11ab",
    "😀🦙👩‍👩‍👧 🚀 (normal)",
    "3 33 333 3333 33333 ½ ² Ⅷ ٣",
    " \t\n\r\n  \u00a0\u3000x \u200b",
    "I'LL we'Ve don't 'tis ''''''",
    "------=======!!!!!!?????? <|im_start|>user\n",
  ];
  return [...lines.filter((line) => line !== ""), ...scripts];
}

function ask(path: string, prompt: number[], loras: string[] = []): LlamaCppAnswer[] {
  return askLlamaCpp([{ model: path, loras, prompts: [prompt], steps: STEPS }]);
}

/** What `kto generate` gives at temperature 0, going on at end tokens as llama.cpp is made to here. */
async function generated(modelFolder: string, prompt: number[]): Promise<number[]> {
  if (device === undefined) {
    const logits = float64Logits(modelFolder);
    const ids = [...prompt];
    while (ids.length < prompt.length + STEPS) {
      const last = logits(ids);
      ids.push(last.indexOf(last.reduce((a, b) => Math.max(a, b))));
    }
    return ids.slice(prompt.length);
  }
  const model = await Model.load(device, modelFolder);
  const generator = new Generator(model, { maxBatch: 1, maxLength: prompt.length + STEPS });
  const greedy = { temperature: 0, topK: 0, topP: 1, seed: 0 };
  const [sequence] = await generator.generate([prompt], { ...greedy, maxNewTokens: STEPS, eosTokenIds: [] });
  generator.free();
  model.free();
  return sequence?.ids ?? [];
}

/** The logits after the last of some ids. */
function float64Logits(modelFolder: string): (ids: readonly number[]) => Float64Array {
  const file = join(modelFolder, "config.json");
  const config = parseModelConfig(readFileSync(file, "utf8"), file);
  const model = new Float64Model(config, readFloat64Safetensors(join(modelFolder, "model.safetensors")));
  return (ids) => model.logits(ids).slice(-config.vocabSize);
}

function float64LogProbs(modelFolder: string, prompt: number[]): Float64Array {
  const logits = float64Logits(modelFolder)(prompt);
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return logits.map((logit) => logit - largest - Math.log(sum));
}

/** Of tokens that f32 probabilities tell apart from impossible ones. */
function difference(answer: LlamaCppAnswer | undefined, logProbs: Float64Array): number {
  const theirs = answer?.answers[0]?.logProbs ?? [];
  return theirs.reduce((most, value, id) => {
    const own = logProbs[id] ?? 0;
    return own > -60 ? Math.max(most, Math.abs(value - own)) : most;
  }, 0);
}

function row(cells: readonly string[]): string {
  return cells.map((cell, i) => cell.padEnd([28, 6, 6, 36, 0][i] ?? 0)).join("  ");
}
