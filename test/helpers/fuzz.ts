/**
 * Damaged inputs for every reader of files, each made by a kind, a seed and a number, and given to the reader that
 * users meet: what comes back is success or a KtoError, soon and within bounded memory, or a violation.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import trainCommand from "../../src/cli/commands/train.ts";
import { readOptions } from "../../src/cli/options/command-line.ts";
import {
  CHECKSUMS_FILE,
  checkpointDamage,
  listCheckpoints,
  writeCheckpointFolder,
} from "../../src/engine/files/checkpoint-folders.ts";
import { openSafetensors, type TensorToWrite, writeSafetensors } from "../../src/engine/files/safetensors.ts";
import { parseEndTokens, parseModelConfig } from "../../src/engine/model/config/config.ts";
import { readModelConfig } from "../../src/engine/model/config/folder.ts";
import { readGenerationDefaults } from "../../src/engine/model/config/generation-config.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";
import { mergeAdapter } from "../../src/engine/model/merge.ts";
import { Model } from "../../src/engine/model/model.ts";
import { loadAdapter } from "../../src/engine/model/peft.ts";
import { ADAPTER_CONFIG } from "../../src/engine/model/peft-config.ts";
import { ADAPTER_WEIGHTS } from "../../src/engine/model/peft-tensors.ts";
import { checkTensors } from "../../src/engine/model/weights/check-tensors.ts";
import { openWeights, writeWeights } from "../../src/engine/model/weights/weight-files.ts";
import { finitePieces, storedPieces } from "../../src/engine/model/weights/weight-transfer.ts";
import { Random } from "../../src/engine/random.ts";
import { loadTokenizer } from "../../src/engine/text/tokenizer.ts";
import { errorMessage, KtoError } from "../../src/errors.ts";
import { parseKtoConfig, trainerOptions } from "../../src/kto/options/kto.ts";
import { type RunState, readRunState, writeRunState } from "../../src/kto/run/state.ts";
import { KtoTrainer } from "../../src/kto/trainer.ts";
import { sharedDevice } from "./device.ts";
import { readExamples } from "./fixtures.ts";
import { feedbackKinds } from "./fuzz-feedback.ts";
import { type FuzzKind, write } from "./fuzz-kind.ts";
import { type FileForm, mutated } from "./mutations.ts";

/** Milliseconds of processor time that one input may take; what takes longer hangs as far as a user can tell. */
export const LIMIT_MS = 10_000;
/** What the process's memory may peak at above its size before the first input; inputs have at most 2 MiB. */
export const LIMIT_BYTES = 2 ** 29;
/** Characters of a message: a sentence on a terminal. */
const LONGEST_MESSAGE = 4000;

const llama = "test/fixtures/llama/policy";
const stories = "examples/quickstart/model";

export interface FuzzOutcome {
  readonly result: "accepted" | "refused";
  /** Processor time. */
  readonly ms: number;
  /** What must not be, in words; undefined if all is well. */
  readonly violation: string | undefined;
}

const copy = (folder: string, from: string, names: readonly string[]) =>
  write(folder, Object.fromEntries(names.map((name) => [name, readFileSync(join(from, name))])));

/** Small tensors under these names. */
function zeros(shapes: Readonly<Record<string, readonly number[]>>): TensorToWrite[] {
  return Object.entries(shapes).map(([name, shape]) => ({
    name,
    shape,
    data: new Float32Array(shape.reduce((product, size) => product * size, 1)),
  }));
}

/** All of a model folder that is read before a device is needed, and the weights. */
async function readModel(folder: string): Promise<void> {
  const config = await readModelConfig(folder);
  const files = await openWeights(folder);
  try {
    checkTensors(config, files);
    for (const name of files.tensors.keys()) {
      for await (const _ of finitePieces(name, storedPieces(files, name), "f32"));
    }
  } finally {
    await files.close();
  }
}

const adapterFiles: Pick<FuzzKind, "prepare" | "files"> = {
  prepare: async (folder) => {
    const layer = "base_model.model.model.layers";
    await writeSafetensors(
      join(folder, ADAPTER_WEIGHTS),
      zeros({
        [`${layer}.0.self_attn.q_proj.lora_A.weight`]: [2, 32],
        [`${layer}.0.self_attn.q_proj.lora_B.weight`]: [32, 2],
        [`${layer}.1.self_attn.q_proj.lora_A.weight`]: [2, 32],
        [`${layer}.1.self_attn.q_proj.lora_B.weight`]: [32, 2],
      }),
    );
    write(folder, {
      [ADAPTER_CONFIG]: `{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.05, "bias": "none",
        "use_rslora": false, "use_dora": false, "target_modules": ["q_proj"], "modules_to_save": null,
        "base_model_name_or_path": "model", "init_lora_weights": true, "rank_pattern": {}}`,
    });
  },
  files: { [ADAPTER_CONFIG]: "text", [ADAPTER_WEIGHTS]: "safetensors" },
};

let loaded: Promise<Model> | undefined;
async function sharedModel(): Promise<Model> {
  loaded ??= Model.load(await sharedDevice(), llama);
  return await loaded;
}

/** A run that was broken off after three of four updates, and goes on from its checkpoint. */
function resumedRun(lora: boolean): FuzzKind {
  const train = async (folder: string, options: Parameters<typeof KtoTrainer.create>[0]["options"]) => {
    const base = await Model.load(await sharedDevice(), llama, { storage: "f32" });
    const adapter = LoraAdapter.create(base.device, base.config, { rank: 2, alpha: 4, dropout: 0, rslora: false });
    adapter.initialize(5);
    const policy = lora ? base.withAdapter(adapter) : base;
    try {
      const trainer = await KtoTrainer.create({
        policy,
        examples: readExamples("llama"),
        evalExamples: readExamples("llama").slice(0, 4),
        outputFolder: folder,
        onWarning: () => undefined,
        options: { per_device_train_batch_size: 2, eval_steps: 2, max_steps: 4, seed: 3, ...options },
      });
      try {
        for await (const { step } of trainer) if (step === 3 && options?.save_steps === 3) break;
        await trainer.saveState(folder);
      } finally {
        trainer.free();
      }
    } finally {
      adapter.free();
      base.free();
    }
  };
  const inFolder = (files: Readonly<Record<string, FileForm>>) =>
    Object.fromEntries(Object.entries(files).map(([name, form]) => [`checkpoint-3/${name}`, form]));
  return {
    prepare: (folder) => train(folder, { save_steps: 3 }),
    files: inFolder({
      ...(lora ? { [ADAPTER_WEIGHTS]: "safetensors" } : { "model.safetensors": "safetensors" }),
      "optimizer.safetensors": "safetensors",
      "run_state.json": "text",
      "trainer_state.json": "text",
      "rng_state.json": "text",
    }),
    read: async (folder) => {
      const checkpoint = join(folder, "checkpoint-3");
      // As if it had been written so: sums that do not fit belong to the kind "checkpoint".
      const names = readdirSync(checkpoint).filter((name) => name !== CHECKSUMS_FILE);
      const files = names.map((name) => {
        const bytes = readFileSync(join(checkpoint, name));
        return [name, { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }] as const;
      });
      write(checkpoint, { [CHECKSUMS_FILE]: JSON.stringify({ files: Object.fromEntries(files) }) });
      await train(folder, { save_strategy: "no", resume_from_checkpoint: checkpoint });
    },
  };
}

const runState: RunState = {
  version: 1,
  pairsWithin: "microbatch",
  ranks: 1,
  method: "kto",
  step: 3,
  totalSteps: 8,
  stepsPerEpoch: 4,
  tuning: {},
  counts: { tokens: 90, rowsRun: 12, windowTokens: 30, windowCutPairs: 0 },
  lastMetrics: { loss: 0.5, kl: 0 },
  evaluation: {
    selection: { best: { step: 2, value: 0.4 }, evaluationsWithoutImprovement: 0, margins: [], warned: false },
    lastStep: 2,
  },
  data: "0".repeat(64),
  options: { seed: 3, beta: 0.1, lr_scheduler_kwargs: {} },
  settings: { model: "model" },
  log: [{ loss: 0.5, step: 3 }],
};
const facts = {
  options: trainerOptions.parse({ seed: 3 }),
  best: { step: 2, value: 0.4 },
  bestCheckpoint: "checkpoint-2",
};

const optionsFile = `model_name_or_path: model
dataset_name: feedback.jsonl
output_dir: out
# The method.
loss_type: kto
beta: 0.1
desirable_weight: auto
learning_rate: 5.0e-7
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
lr_scheduler_type: cosine
warmup_ratio: 0.1
max_steps: 100
bf16: false
use_peft: true
lora_target_modules: &names [q_proj, v_proj]
lora_r: 16
`;

export const FUZZ_KINDS: Readonly<Record<string, FuzzKind>> = {
  safetensors: {
    prepare: (folder) => copy(folder, llama, ["config.json", "model.safetensors"]),
    files: { "model.safetensors": "safetensors" },
    read: readModel,
  },
  sharded: {
    prepare: async (folder) => {
      copy(folder, llama, ["config.json"]);
      const file = await openSafetensors(`${llama}/model.safetensors`);
      const tensors = await Promise.all(
        [...file.tensors].map(async ([name, { shape }]) => ({ name, shape, data: await file.readF32(name) })),
      );
      await file.close();
      await writeWeights(folder, tensors, 40_000);
    },
    files: { "model.safetensors.index.json": "text", "model-00001-of-00003.safetensors": "safetensors" },
    read: readModel,
  },
  config: {
    prepare: (folder) => copy(folder, llama, ["config.json", "model.safetensors"]),
    files: { "config.json": "text" },
    read: readModel,
  },
  "config of other families": {
    prepare: (folder) => {
      for (const family of ["gpt2", "qwen2", "qwen3"]) {
        write(folder, { [`${family}.json`]: readFileSync(`test/fixtures/${family}/policy/config.json`) });
      }
    },
    files: { "gpt2.json": "text", "qwen2.json": "text", "qwen3.json": "text" },
    read: async (folder, damaged) => parseModelConfig(readFileSync(join(folder, damaged), "utf8"), damaged),
  },
  generation_config: {
    prepare: (folder) =>
      write(folder, {
        "generation_config.json": `{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0,
          "repetition_penalty": 1.1, "eos_token_id": [1, 2], "bad_words_ids": [[5]], "num_beams": 1}`,
      }),
    files: { "generation_config.json": "text" },
    read: async (folder) => {
      await readGenerationDefaults(folder);
      const path = join(folder, "generation_config.json");
      parseEndTokens(readFileSync(path, "utf8"), path);
    },
  },
  adapter: {
    ...adapterFiles,
    read: (folder) => mergeAdapter(llama, folder, join(folder, "merged")),
  },
  "adapter on a device": {
    ...adapterFiles,
    read: async (folder) => (await loadAdapter(await sharedModel(), folder)).free(),
  },
  tokenizer: {
    prepare: (folder) => copy(folder, stories, ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]),
    files: { "tokenizer.json": "text", "tokenizer_config.json": "text", "special_tokens_map.json": "text" },
    read: async (folder) => {
      const tokenizer = await loadTokenizer(folder);
      tokenizer.decode(tokenizer.encode("Once upon a time, Ünï\u0000 😀"), { skipSpecialTokens: true });
    },
  },
  ...feedbackKinds,
  options: {
    prepare: (folder) => write(folder, { "run.yaml": optionsFile }),
    files: { "run.yaml": "text" },
    read: async (folder) => {
      const { values, where } = await readOptions([join(folder, "run.yaml")], trainCommand);
      parseKtoConfig(values, where);
    },
  },
  checkpoint: {
    prepare: async (folder) => {
      await writeCheckpointFolder(folder, 3, async (target) => {
        await writeRunState(target, runState, facts);
        await writeSafetensors(join(target, "optimizer.safetensors"), zeros({ "exp_avg.weight": [4, 4] }));
      });
    },
    files: {
      "checkpoint-3/checksums.json": "text",
      "checkpoint-3/run_state.json": "text",
      "checkpoint-3/trainer_state.json": "text",
      "checkpoint-3/rng_state.json": "text",
      "checkpoint-3/optimizer.safetensors": "safetensors",
    },
    read: async (folder, damaged) => {
      const [found] = await listCheckpoints(folder);
      if (found === undefined) throw new Error("the checkpoint is not found");
      const damage = await checkpointDamage(found.path);
      if (damage === undefined && !damaged.endsWith("checksums.json")) throw new Error("the damage is not noticed");
      // What stands behind the checksums must hold without them too.
      await readRunState(found.path);
      await (await openSafetensors(join(found.path, "optimizer.safetensors"))).close();
    },
  },
  "resumed run": resumedRun(false),
  "resumed run of an adapter": resumedRun(true),
};

/** Good files of one kind in a folder, damaged one input after another. */
export class Fuzzer {
  readonly #kind: FuzzKind;
  readonly #folder: string;
  readonly #good = new Map<string, Uint8Array>();
  #mostBytes = 0;

  private constructor(kind: FuzzKind, folder: string) {
    this.#kind = kind;
    this.#folder = folder;
    for (const name of Object.keys(kind.files)) this.#good.set(name, readFileSync(join(folder, name)));
  }

  /** @param folder is created, and emptied of what it held */
  static async open(kind: string, folder: string): Promise<Fuzzer> {
    const found = FUZZ_KINDS[kind];
    if (found === undefined) throw new Error(`no kind "${kind}"; there are ${Object.keys(FUZZ_KINDS).join(", ")}`);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    await found.prepare(folder);
    const fuzzer = new Fuzzer(found, folder);
    for (const name of fuzzer.#good.keys()) {
      // Good files must be read, or the damaged ones would be refused for nothing; an undamaged checkpoint is "not
      // noticed".
      await found.read(folder, name.startsWith("checkpoint") ? "checksums.json" : name);
    }
    fuzzer.#mostBytes = peakBytes() + LIMIT_BYTES;
    return fuzzer;
  }

  /** Damages a file as this seed and number say, reads the folder, and mends it again. */
  async run(seed: number, input: number): Promise<FuzzOutcome> {
    const random = new Random(seed, input);
    const names = [...this.#good.keys()];
    const name = names[random.below(names.length)] as string;
    const good = this.#good.get(name) as Uint8Array;
    let bytes = mutated(random, good, this.#kind.files[name] as FileForm);
    // Damage that undid itself is none.
    while (Buffer.compare(bytes, good) === 0) bytes = mutated(random, good, this.#kind.files[name] as FileForm);
    writeFileSync(join(this.#folder, name), bytes);
    const start = process.cpuUsage();
    let result: FuzzOutcome["result"] = "accepted";
    let violation: string | undefined;
    try {
      await this.#kind.read(this.#folder, name);
    } catch (error) {
      result = "refused";
      violation = violationOf(error);
    }
    const { user, system } = process.cpuUsage(start);
    const ms = (user + system) / 1000;
    writeFileSync(join(this.#folder, name), good);
    if (ms > LIMIT_MS) violation ??= `took ${ms.toFixed(0)} ms`;
    if (peakBytes() > this.#mostBytes) {
      violation ??= `memory rose to ${(peakBytes() / 2 ** 20).toFixed(0)} MiB`;
      // Each rise is told once.
      this.#mostBytes = peakBytes() + LIMIT_BYTES;
    }
    return { result, ms, violation: violation && `${name}: ${violation}` };
  }
}

/** The most that the process has had in memory so far. */
function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

function violationOf(error: unknown): string | undefined {
  if (!(error instanceof KtoError)) {
    const stack = error instanceof Error ? (error.stack ?? "").split("\n").slice(1, 6).join("\n") : "";
    return `${error instanceof Error ? error.name : typeof error}: ${errorMessage(error).slice(0, 300)}\n${stack}`;
  }
  if (error.message.trim() === "") return `${error.name} without a message`;
  if (error.message.length <= LONGEST_MESSAGE) return undefined;
  return `${error.name} with a message of ${error.message.length} characters: ${error.message.slice(0, 200)}`;
}
