/**
 * The reference of a run that goes on with an adapter: the policy as it starts, as TRL has it (a frozen copy of the
 * adapter), in updates, evaluations, the cache, plans and resumed runs. Of a new adapter it is the base model.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Model } from "../../../src/engine/model/model.ts";
import { loadAdapter, saveAdapter } from "../../../src/engine/model/peft.ts";
import { ConfigError } from "../../../src/errors.ts";
import { checkGradients } from "../../../src/kto/gradcheck.ts";
import { completionLogProbs } from "../../../src/kto/method/log-probs.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import { SftTrainer } from "../../../src/kto/sft-trainer.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { sharedDevice } from "../../helpers/device.ts";
import { readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

type Options = NonNullable<TrainerInputs["options"]>;

const device = await sharedDevice();
const folder = temporaryFolder();
const base = await Model.load(device, llama);
afterAll(() => base.free());
const examples = readExamples("llama");

const LORA = { rank: 4, alpha: 8, dropout: 0, rslora: false, targetModules: "all-linear" };
const OPTIONS: Options = {
  per_device_train_batch_size: 4,
  learning_rate: 3e-3,
  max_steps: 4,
  logging_steps: 1,
  save_steps: 1,
  seed: 3,
};

function newAdapter(seed = 5): LoraAdapter {
  const adapter = LoraAdapter.create(device, base.config, LORA);
  adapter.initialize(seed);
  return adapter;
}

/** The supervised stage: trains the policy's adapter. */
async function tune(policy: Model): Promise<void> {
  const imitated = examples.map((example) => ({ ...example, label: true }));
  const trainer = await SftTrainer.create({ policy, examples: imitated, options: { ...OPTIONS, learning_rate: 1e-2 } });
  for await (const _ of trainer);
  trainer.free();
}

let tunedFolder: string | undefined;
/** The folder of an adapter that the supervised stage left. */
async function tuned(): Promise<string> {
  if (tunedFolder !== undefined) return tunedFolder;
  tunedFolder = freshPath(folder, "tuned");
  mkdirSync(tunedFolder);
  const policy = base.withAdapter(newAdapter());
  await tune(policy);
  await saveAdapter(policy, tunedFolder);
  policy.adapter?.free();
  return tunedFolder;
}

interface Outcome {
  readonly metrics: Metrics[];
  readonly evaluations: Metrics[];
  readonly weights: Float32Array<ArrayBuffer>;
  readonly mode: string;
  readonly note: string | undefined;
  /** Bytes of the reference beside the policy. */
  readonly referenceBytes: number;
}

/**
 * A KTO run that goes on with the tuned adapter, loaded as a process would; `stopAfter` breaks it off as a kill does.
 */
async function goOn(
  options: Options = {},
  {
    stopAfter,
    adapter = tuned,
    ...inputs
  }: Partial<TrainerInputs> & { stopAfter?: number; adapter?: () => Promise<string> } = {},
): Promise<Outcome> {
  const policy = base.withAdapter(await loadAdapter(base, await adapter()));
  const before = device.memory()["reference weights"] ?? 0;
  try {
    const trainer = await KtoTrainer.create({ policy, examples, ...inputs, options: { ...OPTIONS, ...options } });
    const referenceBytes = (device.memory()["reference weights"] ?? 0) - before;
    const [metrics, evaluations]: [Metrics[], Metrics[]] = [[], []];
    try {
      for await (const step of trainer) {
        if (step.metrics) metrics.push(step.metrics);
        if (step.evaluation) evaluations.push(step.evaluation.metrics);
        if (step.step === stopAfter) break;
      }
      const weights = await device.download(wholeArena(policy.trained));
      return {
        metrics,
        evaluations,
        weights,
        mode: trainer.referenceMode,
        note: trainer.referenceNote,
        referenceBytes,
      };
    } finally {
      trainer.free();
    }
  } finally {
    policy.adapter?.free();
  }
}

/** The numbers of a policy that is its reference. */
const AT_THE_START = { loss: 0.5, kl: 0, "kl/unclamped": 0, "rewards/chosen": 0, "rewards/rejected": 0 };

describe("an adapter that was trained before", () => {
  it("starts as its own reference: rewards 0, kl/unclamped 0, loss 0.5; then it moves", async () => {
    const { metrics, mode, referenceBytes } = await goOn();
    expect(mode).toBe("copy");
    expect(metrics[0]).toMatchObject(AT_THE_START);
    expect(Math.abs(metrics[1]?.["rewards/margins"] ?? 0)).toBeGreaterThan(1e-3);
    expect(referenceBytes).toBeGreaterThan(0);
    expect(referenceBytes).toBeLessThan(
      base.weights.segments.reduce((sum, { shape }) => sum + 4 * (shape[0] ?? 0), 0) / 2,
    );
  });

  it("is seen also where it was trained in this process and never saved", async () => {
    const policy = base.withAdapter(newAdapter());
    await tune(policy);
    const trainer = await KtoTrainer.create({ policy, examples, options: { ...OPTIONS, max_steps: 1 } });
    for await (const { metrics } of trainer) expect(metrics).toMatchObject(AT_THE_START);
    trainer.free();
    policy.adapter?.free();
  });

  it("the reference stays what it was: the same bits as with a model of its own, and reference base is the bare base", async () => {
    const own = base.withAdapter(await loadAdapter(base, await tuned()));
    const [given, start] = [await goOn({}, { reference: own }), await goOn()];
    own.adapter?.free();
    expect(bits(start.weights)).toEqual(bits(given.weights));

    const bare = await goOn({ reference: "base" });
    expect(bare.mode).toBe("base");
    expect(bare.referenceBytes).toBe(0);
    expect(Math.abs(bare.metrics[0]?.["kl/unclamped"] ?? 0)).toBeGreaterThan(0.5);
    expect(bits((await goOn({}, { reference: base })).weights)).toEqual(bits(bare.weights));
    expect(bits(bare.weights)).not.toEqual(bits(start.weights));
  });

  it("cached: the same bits, under another key than the base's", async () => {
    const [live, cached] = [await goOn(), await goOn({ reference: "cached" })];
    expect(cached.mode).toBe("cached");
    expect(cached.referenceBytes).toBe(0);
    expect(cached.note).toContain("computed for 4 updates");
    expect(bits(cached.weights)).toEqual(bits(live.weights));
    const bare = await goOn({ reference: "base", precompute_ref_log_probs: true });
    expect(bare.note).toContain("computed for 4 updates");
    expect(bits(bare.weights)).toEqual(bits((await goOn({ reference: "base" })).weights));
    expect((await goOn({ precompute_ref_log_probs: true })).note).toContain("read from");
  });

  it.each(["auto", "cached"] as const)("evaluations compare with it (%s)", async (reference) => {
    const evalExamples = examples.slice(0, 4);
    const { evaluations } = await goOn({ reference, eval_on_start: true, eval_steps: 2 }, { evalExamples });
    expect(evaluations).toHaveLength(3);
    expect(evaluations[0]).toMatchObject({ eval_loss: 0.5, "eval_kl/unclamped": 0, "eval_rewards/chosen": 0 });
    expect(evaluations[2]?.eval_loss).not.toBe(0.5);
  });

  it("float64 has the same log-ratios and gradients, with a reference of another rank too", async () => {
    const policy = base.withAdapter(await loadAdapter(base, await tuned()));
    const other = LoraAdapter.create(device, base.config, { ...LORA, rank: 7, targetModules: ["q_proj", "up_proj"] });
    device.upload(wholeArena(other.weights), new Float32Array(wholeArena(other.weights).shape[0] ?? 0).fill(0.03));
    const objective = { beta: 0.1, desirableWeight: 1, undesirableWeight: 1, lossType: "kto" } as const;
    const start = policy.base.withAdapter((policy.adapter as LoraAdapter).frozenCopy());
    const moved = (policy.adapter as LoraAdapter).weights;
    const values = await device.download(wholeArena(moved));
    device.upload(
      wholeArena(moved),
      values.map((value, i) => value * (1 + 0.3 * Math.sin(i))),
    );
    for (const reference of [start, base.withAdapter(other)]) {
      const check = await checkGradients({ policy, reference, examples, objective });
      expect(check.comparison).toMatchObject({ passed: true });
      const [own, theirs] = [await completionLogProbs(policy, examples), await completionLogProbs(reference, examples)];
      check.logRatio.forEach((ratio, i) => {
        expect(Math.abs(ratio)).toBeGreaterThan(1e-3);
        expect(ratio).toBeCloseTo((own[i] ?? 0) - (theirs[i] ?? 0), 4);
      });
      reference.adapter?.free();
    }
    policy.adapter?.free();
  });
});

describe("a new adapter", () => {
  it("has the base as its reference, at no memory, with the bits of a copy", async () => {
    const outcomes = [];
    for (const reference of ["auto", "base", "copy"] as const) {
      const policy = base.withAdapter(newAdapter());
      const trainer = await KtoTrainer.create({ policy, examples, options: { ...OPTIONS, reference } });
      for await (const _ of trainer);
      outcomes.push({ mode: trainer.referenceMode, weights: bits(await device.download(wholeArena(policy.trained))) });
      trainer.free();
      policy.adapter?.free();
    }
    const [auto, bare, copy] = outcomes;
    expect([auto?.mode, bare?.mode, copy?.mode]).toEqual(["base", "base", "copy"]);
    expect(bare?.weights).toEqual(auto?.weights);
    expect(copy?.weights).toEqual(auto?.weights);
  });
});

describe("resumed", () => {
  const newFolder = () => freshPath(folder, "run");

  it.each(["auto", "cached"] as const)(
    "the reference is the adapter as the first run started: the same bits (%s)",
    async (reference) => {
      const whole = await goOn({ reference });
      const outputFolder = newFolder();
      await goOn({ reference }, { outputFolder, stopAfter: 2 });
      const resumed = await goOn({ reference, resume_from_checkpoint: true }, { outputFolder });
      expect(resumed.metrics.map(({ loss }) => loss)).toEqual(whole.metrics.slice(2).map(({ loss }) => loss));
      expect(bits(resumed.weights)).toEqual(bits(whole.weights));
    },
  );

  it("another adapter than then is refused", async () => {
    const outputFolder = newFolder();
    await goOn({}, { outputFolder, stopAfter: 2 });
    const checkpoint = join(outputFolder, "checkpoint-2");
    const other = goOn({ resume_from_checkpoint: true }, { outputFolder, adapter: async () => checkpoint });
    await expect(other).rejects.toThrow(ConfigError);
    await expect(other).rejects.toThrow(
      /^The adapter is not the one that the run of .*checkpoint-2 started from and has as its reference: give that adapter/,
    );
  });

  it("a run whose reference was the base, as it once always was, goes on with reference base", async () => {
    const outputFolder = newFolder();
    const whole = await goOn({ reference: "base" });
    await goOn({ reference: "base" }, { outputFolder, stopAfter: 2 });
    // An older version wrote the state so.
    const path = join(outputFolder, "checkpoint-2", "run_state.json");
    const state = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...state, options: { ...state.options, reference: "auto" } }));
    const sums = join(outputFolder, "checkpoint-2", "checksums.json");
    const bytes = readFileSync(path);
    const { files } = JSON.parse(readFileSync(sums, "utf8"));
    files["run_state.json"] = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
    writeFileSync(sums, JSON.stringify({ files }));

    await expect(goOn({ resume_from_checkpoint: true }, { outputFolder })).rejects.toThrow(
      /set reference "base" to go on/,
    );
    const resumed = await goOn({ reference: "base", resume_from_checkpoint: true }, { outputFolder });
    expect(bits(resumed.weights)).toEqual(bits(whole.weights));
  });
});

it("a model whose weights are trained whole is no reference, also as another model over the same weights", async () => {
  const policy = await Model.load(device, llama, { storage: "f32" });
  try {
    const reference = policy.withAdapter(newAdapter());
    const refused = KtoTrainer.create({ policy, reference, examples, options: OPTIONS });
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow("has the weights that are trained");
    reference.adapter?.free();
  } finally {
    policy.free();
  }
});
