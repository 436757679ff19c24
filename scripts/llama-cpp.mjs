/**
 * llama.cpp itself, to judge GGUF files by: the prebuilt binary that node-llama-cpp publishes for this machine (30 MB,
 * nothing compiles), installed once into .cache and not into node_modules, where the package and its other builds would
 * take half a gigabyte. `node scripts/llama-cpp.mjs ADDON` answers jobs, a line of JSON each; a file that makes
 * llama.cpp abort ends that process and not the caller's.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** With its llama.cpp of release v0.4.0. */
const VERSION = "3.21.1";

/** node-llama-cpp's names of its builds without a GPU. */
const BUILDS = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-x64": "mac-x64",
  "darwin-arm64": "mac-arm64-metal",
  "win32-x64": "win-x64",
  "win32-arm64": "win-arm64",
};

/** The path of llama.cpp's addon for Node, installed if it is missing. */
export function llamaCppAddon() {
  const machine = `${process.platform}-${process.arch}`;
  const build = BUILDS[machine];
  if (build === undefined) throw new Error(`There is no prebuilt llama.cpp for ${machine}.`);
  const folder = join(dirname(fileURLToPath(import.meta.url)), "..", ".cache", "llama-cpp", VERSION);
  const addon = join(folder, "node_modules", "@node-llama-cpp", build, "bins", build, "llama-addon.node");
  if (existsSync(addon)) return addon;
  mkdirSync(folder, { recursive: true });
  const words = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  execFileSync("npm", [...words, "--prefix", folder, `@node-llama-cpp/${build}@${VERSION}`], {
    stdio: ["ignore", "ignore", "inherit"],
    shell: process.platform === "win32",
  });
  if (!existsSync(addon)) throw new Error(`npm installed llama.cpp, but not as ${addon}.`);
  return addon;
}

/**
 * Loads a GGUF file and runs it on the CPU.
 *
 * @param job {model, loras, prompts: number[][], steps, texts: string[], asked: ids that may end a generation}
 * @returns what it says of the file, the ids of each text, and for each prompt the log-probs of the first next token
 * and so many tokens of greedy decoding
 */
async function run(llama, { model: path, loras = [], prompts = [], steps = 16, texts = [], asked = [] }) {
  const model = new llama.AddonModel(path, { addonExports: llama, gpuLayers: 0, useMmap: false, checkTensors: true });
  if (!(await model.init())) throw new Error(`llama.cpp does not load ${path}`);
  const adapters = [];
  for (const lora of loras) {
    const adapter = new llama.AddonModelLora(model, lora);
    await model.loadLora(adapter);
    adapters.push(adapter);
  }
  const longest = Math.max(1, ...prompts.map((ids) => ids.length)) + steps;
  const context = new llama.AddonContext(model, {
    contextSize: longest,
    batchSize: longest,
    sequences: 1,
    flashAttention: false,
    threads: 1,
    swaFullCache: true,
    // F32: with the usual cache of f16 its numbers would differ by some thousandths.
    kvCacheKeyType: 0,
    kvCacheValueType: 0,
  });
  if (!(await context.init())) throw new Error(`llama.cpp makes no context for ${path}`);
  if (adapters.length > 0) {
    context.setLoras(
      adapters,
      adapters.map(() => 1),
    );
  }
  const answers = [];
  for (const prompt of prompts) {
    context.disposeSequence(0);
    const sampler = new llama.AddonSampler(model);
    sampler.applyConfig({ temperature: 0 });
    const ids = [...prompt];
    const logProbs = [];
    let fed = 0;
    while (ids.length < prompt.length + steps) {
      const next = ids.slice(fed);
      context.initBatch(next.length);
      const [last] = context.addToBatch(0, fed, Uint32Array.from(next), Uint32Array.of(next.length - 1));
      await context.decodeBatch();
      const [token, probabilities] = await context.sampleToken(last, sampler, fed === 0);
      if (fed === 0) {
        for (let i = 0; i < probabilities.length; i += 2) logProbs[probabilities[i]] = Math.log(probabilities[i + 1]);
      }
      fed = ids.length;
      ids.push(token);
    }
    sampler.dispose();
    answers.push({ logProbs, generated: ids.slice(prompt.length) });
  }
  const facts = {
    description: model.getModelDescription(),
    bos: model.tokenBos(),
    eos: model.tokenEos(),
    addsBos: model.shouldPrependBosToken(),
    ends: asked.filter((id) => model.isEogToken(id)),
  };
  const tokenized = texts.map((text) => [...model.tokenize(text, true)]);
  await context.dispose();
  await model.dispose();
  return { facts, tokenized, answers };
}

/** Answers the jobs on stdin, one after another, each by one line on stdout. */
async function serve(addon) {
  const llama = createRequire(import.meta.url)(addon);
  llama.markLoaded();
  const log = [];
  llama.setLogger((level, message) => {
    // 1 and 2 are errors that end and that do not; the rest is chatter.
    if (level <= 2) log.push(message.trim());
  });
  llama.loadBackends();
  if (llama.getGpuType() === undefined) llama.loadBackends(dirname(addon));
  await llama.init();
  for await (const line of createInterface({ input: process.stdin })) {
    log.length = 0;
    try {
      console.log(JSON.stringify(await run(llama, JSON.parse(line))));
    } catch (error) {
      console.log(JSON.stringify({ error: [String(error), ...log].join("; ") }));
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve(process.argv[2] ?? llamaCppAddon());
