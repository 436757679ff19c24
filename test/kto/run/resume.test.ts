/**
 * Runs that are broken off and go on: the same bits as without the break, checkpoints that are damaged or cannot be
 * written, options and data that changed meanwhile, what callbacks are told. Tiny models, so that a run takes a second.
 */
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { checkpointDamage } from "../../../src/engine/files/checkpoint-folders.ts";
import { LoraAdapter } from "../../../src/engine/model/lora.ts";
import { Model } from "../../../src/engine/model/model.ts";
import type { Quantization } from "../../../src/engine/model/weights/quantization.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { ConfigError, FileError, ModelFormatError, NumericError } from "../../../src/errors.ts";
import type { SavedCheckpoint } from "../../../src/kto/run/callbacks.ts";
import { useOf } from "../../../src/kto/run/checkpoints.ts";
import { KtoTrainer, type TrainerInputs } from "../../../src/kto/trainer.ts";
import { wholeArena } from "../../helpers/arenas.ts";
import { bits } from "../../helpers/compare.ts";
import { activationFormats, sharedDevice } from "../../helpers/device.ts";
import { loadModel, readExamples } from "../../helpers/fixtures.ts";
import { freshPath, llama, temporaryFolder } from "../../helpers/folders.ts";

const device = await sharedDevice();
const formats = await activationFormats();
const folder = temporaryFolder();
afterEach(() => {
  vi.restoreAllMocks();
});

type Options = NonNullable<TrainerInputs["options"]>;

/** 8 updates of two microbatches, each an epoch of the 4 rows, logged every third. */
const OPTIONS: Options = {
  per_device_train_batch_size: 2,
  gradient_accumulation_steps: 2,
  learning_rate: 1e-3,
  max_steps: 8,
  logging_steps: 3,
  save_steps: 1,
  seed: 3,
};

interface Run {
  readonly weights: Float32Array<ArrayBuffer>;
  readonly log: unknown[];
  readonly state: string;
  readonly warnings: string[];
  readonly checkpoints: SavedCheckpoint[];
  readonly stopReason: string | undefined;
}

/** A run in this folder, as a process would make it; `stopAfter` breaks it off as a kill does, without a word. */
async function run(
  outputFolder: string,
  options: Options = {},
  inputs: Partial<TrainerInputs> & {
    lora?: boolean;
    quantization?: Quantization;
    stopAfter?: number;
    stop?: number;
    measure?: (step: number, trainer: KtoTrainer) => number | undefined;
  } = {},
): Promise<Run> {
  const { lora = false, quantization, stopAfter, stop, measure, ...more } = inputs;
  let policy = await Model.load(device, llama, { storage: "f32", quantization });
  if (lora) {
    const adapter = LoraAdapter.create(device, policy.config, { rank: 2, alpha: 4, dropout: 0.25, rslora: false });
    adapter.initialize(5);
    policy = policy.withAdapter(adapter);
  }
  const warnings: string[] = [];
  const checkpoints: SavedCheckpoint[] = [];
  try {
    const ownMetrics = measure && {
      names: ["mine"],
      measure: async (step: number) => {
        const mine = measure(step, trainer);
        return mine === undefined ? undefined : { mine };
      },
    };
    const trainer: KtoTrainer = await KtoTrainer.create({
      policy,
      examples: readExamples("llama"),
      outputFolder,
      ownMetrics,
      onWarning: (sentence) => void warnings.push(sentence),
      onCheckpoint: (saved) => void checkpoints.push(saved),
      ...more,
      options: { ...OPTIONS, ...options },
    });
    try {
      for await (const { step } of trainer) {
        if (step === stopAfter) break;
        if (step === stop) trainer.stop();
      }
      await trainer.saveState(outputFolder);
      return {
        weights: await device.download(wholeArena(policy.trained)),
        log: withoutTime(trainer.log),
        state: JSON.stringify(
          withoutTime([JSON.parse(readFileSync(join(outputFolder, "trainer_state.json"), "utf8"))]),
        ),
        warnings,
        checkpoints,
        stopReason: trainer.stopReason,
      };
    } finally {
      trainer.free();
    }
  } finally {
    policy.adapter?.free();
    policy.free();
  }
}

/** All but the numbers that tell of time and of what this process has recorded so far (bytes of uniforms). */
function withoutTime(values: unknown): unknown[] {
  const text = JSON.stringify(values, (key, value) =>
    /_per_second$|^device_time_share$|_runtime$|^bytes\//.test(key) ? undefined : value,
  );
  return JSON.parse(text) as unknown[];
}

function newFolder(): string {
  const path = freshPath(folder, "run");
  mkdirSync(path);
  return path;
}

const checkpointsIn = (path: string) => readdirSync(path).filter((name) => name.includes("checkpoint"));

/** A run of 3 updates that was broken off, to be copied. */
let brokenOff: string | undefined;
async function aBrokenRun(): Promise<string> {
  if (brokenOff === undefined) {
    brokenOff = newFolder();
    await run(brokenOff, {}, { stopAfter: 3 });
  }
  const copy = freshPath(folder, "run");
  cpSync(brokenOff, copy, { recursive: true });
  return copy;
}

type Json = Record<string, unknown> & {
  counts: object;
  log_history: object[];
  evaluation: { selection: Record<string, unknown> };
};

/** Changes a JSON file of a checkpoint and its checksum. */
function forge(checkpoint: string, name: string, change: (json: Json) => object): void {
  const json = JSON.parse(readFileSync(join(checkpoint, name), "utf8")) as Json;
  const bytes = Buffer.from(JSON.stringify(change(json)));
  writeFileSync(join(checkpoint, name), bytes);
  const sums = JSON.parse(readFileSync(join(checkpoint, "checksums.json"), "utf8"));
  sums.files[name] = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  writeFileSync(join(checkpoint, "checksums.json"), JSON.stringify(sums));
}

async function failure(work: Promise<unknown>): Promise<Error> {
  return await work.then(
    () => {
      throw new Error("it was to fail");
    },
    (error: Error) => error,
  );
}

describe("a run that goes on", () => {
  it.each([
    ["all weights", {}, false],
    ["all weights, one reference point an update", { reference_point_scope: "step" }, false],
    [
      "microbatches of one row",
      { reference_point_scope: "step", per_device_train_batch_size: 1, gradient_accumulation_steps: 4 },
      false,
    ],
    [
      "a schedule with parameters and a share as warm-up",
      {
        lr_scheduler_type: "warmup_stable_decay",
        lr_scheduler_kwargs: { num_decay_steps: 3, decay_type: "1-sqrt" },
        warmup_steps: 0.25,
      },
      false,
    ],
    ["an adapter with dropout", { disable_dropout: false, learning_rate: 1e-2 }, true],
    ["an adapter over a base in 4 bits", { learning_rate: 1e-2 }, true, { format: "nf4", double: true }],
  ] as const)(
    "%s: the same bits after two breaks as without one",
    async (_, options, lora, quantization?: Quantization) => {
      const inputs = { lora, ...(quantization && { quantization }) };
      const whole = await run(newFolder(), options, inputs);
      const path = newFolder();
      await run(path, options, { ...inputs, stopAfter: 2 });
      const again = { ...options, resume_from_checkpoint: true };
      await run(path, again, { ...inputs, stopAfter: 7 });
      const resumed = await run(path, again, inputs);
      expect(bits(resumed.weights)).toEqual(bits(whole.weights));
      expect(resumed.log).toEqual(whole.log);
      expect(resumed.log).toHaveLength(3); // steps 3, 6, 8
      expect(resumed.state).toBe(whole.state);
      expect(resumed.warnings).toEqual([]);
    },
  );

  it("with evaluations: the best model, the early stop and the samples' steps are those of the run without a break", async () => {
    const evaluated = {
      ...{ eval_steps: 2, load_best_model_at_end: true, learning_rate: 3e-2 },
      ...{ early_stopping_patience: 2, early_stopping_threshold: 9 },
    };
    const inputs = { evalExamples: readExamples("llama").slice(0, 4) };
    const whole = await run(newFolder(), evaluated, inputs);
    const path = newFolder();
    await run(path, evaluated, { ...inputs, stopAfter: 3 });
    const resumed = await run(path, { ...evaluated, resume_from_checkpoint: true }, inputs);
    expect(bits(resumed.weights)).toEqual(bits(whole.weights));
    expect(resumed.log).toEqual(whole.log);
    // Once more at its end: nothing is left to do, and the best weights are put in place all the same.
    const ended = await run(path, { ...evaluated, resume_from_checkpoint: true }, inputs);
    expect(bits(ended.weights)).toEqual(bits(whole.weights));
    expect(whole.stopReason).toMatch(/^eval_loss has not improved/);
    expect(ended.stopReason).toBe(whole.stopReason);
    // With more patience it goes on as if it had had it from the start.
    const patient = { ...evaluated, early_stopping_patience: 100 };
    const more = await run(path, { ...patient, resume_from_checkpoint: true }, inputs);
    expect(more.stopReason).toBeUndefined();
    expect(more.log).toEqual((await run(newFolder(), patient, inputs)).log);
  });

  it("a stop ends the loop after the update, with a checkpoint whatever save_strategy says", async () => {
    const path = newFolder();
    const stopped = await run(path, { save_strategy: "no" }, { stop: 2 });
    expect(stopped.checkpoints.map(({ step }) => step)).toEqual([2]);
    const whole = await run(newFolder(), { save_strategy: "no" });
    expect(whole.checkpoints).toEqual([]);
    const resumed = await run(path, { save_strategy: "no", resume_from_checkpoint: true });
    expect(bits(resumed.weights)).toEqual(bits(whole.weights));
  });

  /** By a metric that rises up to step 4. */
  const byMine: Options = {
    ...{ eval_steps: 1, metric_for_best_model: "mine", early_stopping_patience: 2, load_best_model_at_end: true },
    ...{ max_steps: 7, logging_steps: 4, learning_rate: 3e-2 },
  };
  const mine = (step: number) => -Math.abs(step - 4);

  it.each([
    ["while its own metrics are measured", "steps", [2, 4], 6, undefined],
    ["while its own metrics are measured, no checkpoint being due", "no", [1, 4], 6, undefined],
    ["while its rows are run", "steps", [2, 4], 6, mine],
    ["one that ends the run", "steps", [6], 6, undefined],
    ["after the last update", "no", [5], 5, undefined],
    ["before the first update", "steps", [0], 6, undefined],
  ] as const)("stopped within an evaluation, %s: it is made when the run goes on", async (...given) => {
    const [, save_strategy, stops, last, measured] = given;
    const options = { ...byMine, save_strategy, max_steps: last === 6 ? 7 : last, eval_on_start: stops[0] === 0 };
    const inputs = { evalExamples: readExamples("llama").slice(0, 4) };
    const whole = await run(newFolder(), options, { ...inputs, measure: mine });
    const path = newFolder();
    for (const at of stops) {
      const stopped = await run(
        path,
        { ...options, resume_from_checkpoint: at !== stops[0] },
        {
          ...inputs,
          measure: (step, trainer) => {
            if (step !== at) return mine(step);
            trainer.stop();
            return measured?.(step);
          },
        },
      );
      const evaluated = stopped.log.filter((line) => "eval_loss" in (line as object));
      expect(evaluated.map((line) => (line as { step: number }).step)).not.toContain(at);
      expect(stopped.stopReason).toBeUndefined();
      expect(checkpointsIn(path).includes(`checkpoint-${at}`)).toBe(at > 0);
    }
    const resumed = await run(path, { ...options, resume_from_checkpoint: stops[0] > 0 }, { ...inputs, measure: mine });
    expect(resumed.log).toEqual(whole.log);
    expect(resumed.stopReason).toBe(whole.stopReason);
    expect(bits(resumed.weights)).toEqual(bits(whole.weights));
    const best = ({ state }: Run) => /"best_global_step":\d+,"best_metric":[-\d.]+/.exec(state)?.[0];
    expect(best(resumed)).toBe(best(whole));
    // At its end: nothing is left to do.
    const ended = await run(path, { ...options, resume_from_checkpoint: true }, { ...inputs, measure: mine });
    expect(ended.log).toEqual(whole.log);
  });

  it("a loop that is entered again begins with the evaluation that was broken off", async () => {
    const policy = await Model.load(device, llama, { storage: "f32" });
    let stopping = true;
    const trainer: KtoTrainer = await KtoTrainer.create({
      policy,
      ...{ examples: readExamples("llama"), evalExamples: readExamples("llama").slice(0, 4) },
      ownMetrics: {
        names: ["mine"],
        measure: async () => {
          if (stopping) trainer.stop();
          return { mine: 1 };
        },
      },
      options: { ...OPTIONS, max_steps: 1, eval_steps: 1 },
    });
    const told: [step: number, evaluated: boolean][] = [];
    for (let times = 0; times < 2; times++) {
      for await (const { step, evaluation } of trainer) told.push([step, evaluation !== undefined]);
      expect([trainer.finished, trainer.interrupted]).toEqual([times === 1, times === 0]);
      stopping = false;
    }
    expect(told).toEqual([
      [1, false],
      [1, true],
    ]);
    trainer.free();
    policy.free();
  });

  it("an evaluation that was broken off is made once, though the run stops again right after it", async () => {
    const path = newFolder();
    const told: number[] = [];
    const options = { save_strategy: "no", eval_steps: 2, max_steps: 4 } as const;
    const inputs = {
      evalExamples: readExamples("llama").slice(0, 4),
      onEvaluate: ({ step }: { step: number }) => void told.push(step),
    };
    const stopAtTwo = (step: number, trainer: KtoTrainer) => {
      if (step === 2) trainer.stop();
      return 1;
    };
    await run(path, options, { ...inputs, measure: stopAtTwo });
    expect(told).toEqual([]);
    await run(path, { ...options, resume_from_checkpoint: true }, { ...inputs, measure: () => 1, stop: 2 });
    expect(told).toEqual([2]);
    await run(path, { ...options, resume_from_checkpoint: true }, { ...inputs, measure: () => 1 });
    expect(told).toEqual([2, 4]);
  });

  it("a checkpoint is a model folder of its own", async () => {
    const path = await aBrokenRun();
    const model = await Model.load(device, join(path, "checkpoint-3"));
    expect(model.numbers).toBe("f32");
    model.free();
    const state = JSON.parse(readFileSync(join(path, "checkpoint-3", "trainer_state.json"), "utf8"));
    expect(state).toMatchObject({ global_step: 3, max_steps: 8, train_batch_size: 2, num_train_epochs: 3 });
    expect(state).toMatchObject({ best_metric: null, best_model_checkpoint: null });
    expect(state.log_history.map(({ step }: { step: number }) => step)).toEqual([3]);
  });

  it("goes on from the folder of a checkpoint, and may be longer than before", async () => {
    const constant = { lr_scheduler_type: "constant" } as const;
    const path = newFolder();
    await run(path, { ...constant, max_steps: 4 });
    const longer = await run(path, { ...constant, resume_from_checkpoint: join(path, "checkpoint-2") });
    const whole = await run(newFolder(), constant);
    expect(bits(longer.weights)).toEqual(bits(whole.weights));
    expect(longer.warnings).toEqual([
      `The run goes on from step 2, and ${path} holds what came after it before: checkpoint-3, checkpoint-4. Each is replaced when this run saves at its step; until then resume_from_checkpoint true would go on from ${join(path, "checkpoint-4")}, so remove those that you do not want.`,
      "The run was to have 4 updates and now has 8: the learning rate of the updates to come follows the new length.",
    ]);
    expect(longer.checkpoints.map(({ step }) => step)).toEqual([3, 4, 5, 6, 7, 8]); // the later ones were replaced
  });
});

describe("which checkpoints there are", () => {
  it.each([
    ["steps", { save_steps: 3 }, [3, 6, 8]],
    ["epoch", { save_strategy: "epoch", max_steps: 4, gradient_accumulation_steps: 1 }, [2, 4]],
    ["no", { save_strategy: "no", max_steps: 2 }, []],
  ] as const)("save_strategy %s", async (_, options, steps) => {
    const { checkpoints } = await run(newFolder(), options, { examples: readExamples("llama").slice(0, 8) });
    expect(checkpoints.map(({ step }) => step)).toEqual(steps);
  });

  it("save_total_limit keeps the latest ones, and the best one beyond it", async () => {
    const path = newFolder();
    await run(path, { save_total_limit: 2, max_steps: 4 });
    expect(checkpointsIn(path)).toEqual(["checkpoint-3", "checkpoint-4"]);
    const other = newFolder();
    // Less is better, and the first evaluation has the least reward of all: the rewards of the rest grow.
    const evaluated = { metric_for_best_model: "rewards/margins", greater_is_better: false, eval_steps: 1 };
    await run(
      other,
      { ...evaluated, save_total_limit: 1, max_steps: 3 },
      { evalExamples: readExamples("llama").slice(0, 8) },
    );
    expect(checkpointsIn(other)).toEqual(["checkpoint-1", "checkpoint-3"]);
    const { best_model_checkpoint } = JSON.parse(readFileSync(join(other, "trainer_state.json"), "utf8"));
    expect(best_model_checkpoint).toBe(join(other, "checkpoint-1"));
  });

  it("save_only_model leaves the moments out, and a run cannot go on from it", async () => {
    const path = newFolder();
    await run(path, { save_only_model: true, max_steps: 1 });
    expect(existsSync(join(path, "checkpoint-1", "optimizer.safetensors"))).toBe(false);
    const error = await failure(run(path, { resume_from_checkpoint: join(path, "checkpoint-1") }));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toContain("has no optimizer.safetensors (it was saved with save_only_model)");
  });
});

describe("damage", () => {
  /** Changes a file of the last checkpoint; returns the folder of the run. */
  async function damaged(name: string, change: (bytes: Buffer) => Uint8Array | undefined): Promise<string> {
    const path = await aBrokenRun();
    const file = join(path, "checkpoint-3", name);
    const changed = change(readFileSync(file));
    if (changed === undefined) rmSync(file);
    else writeFileSync(file, changed);
    return path;
  }
  const flipped = (bytes: Buffer) => {
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 2) ^ 1, bytes.length - 2);
    return bytes;
  };

  it.each([
    ["a bit of the weights", "model.safetensors", flipped, "its model.safetensors does not hold what was written"],
    ["a bit of the moments", "optimizer.safetensors", flipped, "its optimizer.safetensors does not hold what was"],
    ["moments cut short", "optimizer.safetensors", (bytes: Buffer) => bytes.subarray(0, 99), "has 99 bytes and should"],
    ["no state", "run_state.json", () => undefined, "its run_state.json is missing"],
    ["no checksums", "checksums.json", () => undefined, "it has no checksums.json"],
    ["checksums cut short", "checksums.json", (bytes: Buffer) => bytes.subarray(0, 40), "its checksums.json cannot"],
  ] as const)("%s: it is named, and the checkpoint before is used", async (_, name, change, sentence) => {
    const path = await damaged(name, change);
    const resumed = await run(path, { resume_from_checkpoint: true, max_steps: 8 }, { stopAfter: 4 });
    expect(resumed.warnings).toHaveLength(1);
    expect(resumed.warnings[0]).toContain(`The checkpoint ${join(path, "checkpoint-3")} is damaged: `);
    expect(resumed.warnings[0]).toContain(sentence);
    expect(resumed.warnings[0]).toContain(`; the last good one before it, ${join(path, "checkpoint-2")}, is used.`);
    expect(resumed.checkpoints[0]?.step).toBe(3); // from 2 on, and the damaged one is replaced
  });

  const counts = (changes: object) => (json: Json) => ({ ...json, counts: { ...json.counts, ...changes } });
  const selection = { evaluationsWithoutImprovement: 0, margins: [], warned: false };
  const older = { vain: 0, margins: [], warned: false };

  it.each<[string, string, (json: Json) => object, string]>([
    ["more steps than there are", "run_state.json", (json) => ({ ...json, totalSteps: 2 }), "is of step 3 of 2"],
    [
      "no step of an epoch",
      "run_state.json",
      (json) => ({ ...json, stepsPerEpoch: 0 }),
      "stepsPerEpoch cannot be used",
    ],
    ["a negative count", "run_state.json", counts({ rowsRun: -1 }), "counts.rowsRun cannot be used"],
    ["a window of all tokens and more", "run_state.json", counts({ windowTokens: 9e9 }), "counts 9000000000 tokens"],
    [
      "a best model to come",
      "run_state.json",
      (json) => ({ ...json, evaluation: { lastStep: 3, selection: { ...selection, best: { step: 4, value: 1 } } } }),
      "but its evaluation.selection.best.step is 4",
    ],
    [
      "the same in an older checkpoint, which has another name in it",
      "run_state.json",
      (json) => ({ ...json, evaluation: { lastStep: 3, selection: { ...older, best: { step: 4, value: 1 } } } }),
      "but its evaluation.selection.best.step is 4",
    ],
    [
      "an evaluation to come",
      "run_state.json",
      (json) => ({ ...json, evaluation: { lastStep: 4, selection } }),
      "but its evaluation.lastStep is 4",
    ],
    [
      "a line to come",
      "trainer_state.json",
      (json) => ({ ...json, log_history: [...json.log_history, { step: 4, loss: 1 }] }),
      "but has a line of the metrics of step 4",
    ],
    [
      "a line before the run",
      "trainer_state.json",
      (json) => ({ ...json, log_history: [{ step: -4, loss: 1 }] }),
      "but has a line of the metrics of step -4",
    ],
    [
      "half an evaluation",
      "run_state.json",
      (json) => ({ ...json, evaluation: { lastStep: 0.5, selection } }),
      "evaluation.lastStep cannot be used",
    ],
  ])("%s, under a checksum that is right: it is named, and the checkpoint before is used", async (...given) => {
    const [, name, change, sentence] = given;
    const path = await aBrokenRun();
    forge(join(path, "checkpoint-3"), name, change);
    const resumed = await run(path, { resume_from_checkpoint: true }, { stopAfter: 3 });
    expect(resumed.warnings).toHaveLength(1);
    expect(resumed.warnings[0]).toContain(`The checkpoint ${join(path, "checkpoint-3")} is damaged: `);
    expect(resumed.warnings[0]).toContain(sentence);
    expect(resumed.warnings[0]).toContain(`; the last good one before it, ${join(path, "checkpoint-2")}, is used.`);
    expect(resumed.checkpoints[0]?.step).toBe(3);
  });

  it("files that the checksums do not list are told; weights among them are not trusted", async () => {
    const path = await aBrokenRun();
    writeFileSync(join(path, "checkpoint-3", "notes.txt"), "mine");
    const told = await run(path, { resume_from_checkpoint: true });
    expect(told.warnings).toEqual([
      `The checkpoint ${join(path, "checkpoint-3")} holds notes.txt, which its checksums do not list.`,
    ]);
    const other = await aBrokenRun();
    writeFileSync(join(other, "checkpoint-3", "model-00001-of-00002.safetensors"), "");
    const { warnings } = await run(other, { resume_from_checkpoint: true });
    expect(warnings).toEqual([
      expect.stringMatching(
        /checkpoint-3 is damaged: its checksums do not list its model-00001-of-00002.safetensors; the last good one before it, .*checkpoint-2, is used\.$/,
      ),
    ]);
  });

  it("one whose folder was renamed to a later step is passed over, and may be named", async () => {
    const path = await aBrokenRun();
    renameSync(join(path, "checkpoint-2"), join(path, "checkpoint-50"));
    const { warnings, checkpoints } = await run(path, { resume_from_checkpoint: true }, { stopAfter: 5 });
    expect(warnings).toEqual([
      `The checkpoint ${join(path, "checkpoint-50")} is of step 2, which its name does not say; the last good one before it, ${join(path, "checkpoint-3")}, is used.`,
    ]);
    expect(checkpoints.map(({ step }) => step)).toEqual([4, 5]);
    const named = await run(path, { resume_from_checkpoint: join(path, "checkpoint-50") }, { stopAfter: 4 });
    // From step 2 on; what came after it is named, and the folder itself, whatever its name, is not.
    expect(named.warnings).toEqual([
      expect.stringContaining("came after it before: checkpoint-3, checkpoint-4, checkpoint-5. Each"),
    ]);
    expect(named.checkpoints.map(({ step }) => step)).toEqual([3, 4]);
  });

  it("one that is named is not replaced by another one", async () => {
    const path = await damaged("model.safetensors", flipped);
    const error = await failure(run(path, { resume_from_checkpoint: join(path, "checkpoint-3") }));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toContain("is damaged: its model.safetensors does not hold what was written; resume from");
  });

  it("none left, none at all, no such folder", async () => {
    const path = await damaged("model.safetensors", flipped);
    for (const step of [1, 2]) rmSync(join(path, `checkpoint-${step}`), { recursive: true });
    const onWarning = vi.fn();
    const [none, never, missing] = [
      await failure(run(path, { resume_from_checkpoint: true }, { onWarning })),
      await failure(run(newFolder(), { resume_from_checkpoint: true })),
      await failure(run(path, { resume_from_checkpoint: "nowhere" })),
    ];
    const whole = await failure(run(newFolder(), { resume_from_checkpoint: path }));
    for (const error of [none, never, missing, whole]) expect(error).toBeInstanceOf(FileError);
    expect(whole.message).toBe(
      `"${path}" is no checkpoint but the folder of a run, which holds some; name one of them as resume_from_checkpoint, such as ${join(path, "checkpoint-3")}, or give true with this folder as output_dir.`,
    );
    expect(onWarning.mock.calls).toEqual([
      [expect.stringMatching(/ is damaged: .* does not hold what was written\.$/)],
    ]);
    expect(none.message).toContain("has no good checkpoint to go on from; leave it out to start from the beginning.");
    expect(never.message).toContain("has no checkpoint to go on from");
    expect(missing.message).toContain('There is no checkpoint "nowhere"');
  });

  it("a folder that was being written when the run was killed is no checkpoint, and goes", async () => {
    const path = await aBrokenRun();
    for (const name of [".checkpoint-4.writing", ".checkpoint-1.removing"]) {
      cpSync(join(path, "checkpoint-3"), join(path, name), { recursive: true });
    }
    const { checkpoints } = await run(path, { resume_from_checkpoint: true }, { stopAfter: 4 });
    expect(checkpoints.map(({ step }) => step)).toEqual([4]);
    expect(checkpointsIn(path)).toEqual(["checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-4"]);
  });
});

describe("what changed meanwhile", () => {
  it.each([
    ["learning_rate", { learning_rate: 2e-3 }, 'option "learning_rate" is 0.002, but the run of'],
    ["seed", { seed: 4 }, 'option "seed" is 4, but the run of'],
    ["rows of an update", { gradient_accumulation_steps: 1 }, 'option "gradient_accumulation_steps" is 1'],
    ["fewer updates", { max_steps: 5 }, "was to have 8 updates and would now have 5"],
  ] as const)("%s: refused", async (_, options, sentence) => {
    const error = await failure(run(await aBrokenRun(), { ...options, resume_from_checkpoint: true }));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain(sentence);
  });

  it("the schedule's parameters: refused, also where the checkpoint is older than they are", async () => {
    const cosine = { lr_scheduler_type: "cosine", lr_scheduler_kwargs: { num_cycles: 1 } } as const;
    const path = newFolder();
    await run(path, cosine, { stopAfter: 1 });
    const other = { ...cosine, lr_scheduler_kwargs: { num_cycles: 2 }, resume_from_checkpoint: true };
    const error = await failure(run(path, other));
    expect(error.message).toContain('option "lr_scheduler_kwargs" is {"num_cycles":2}, but the run of');
    forge(join(path, "checkpoint-1"), "run_state.json", (json) => {
      const { lr_scheduler_kwargs: _, ...options } = json.options as Record<string, unknown>;
      return { ...json, options };
    });
    expect((await failure(run(path, other))).message).toContain('{"num_cycles":2}, but the run of');
    const plain = { ...cosine, lr_scheduler_kwargs: {}, resume_from_checkpoint: true };
    expect((await run(path, plain, { stopAfter: 2 })).checkpoints.map(({ step }) => step)).toEqual([2]);
  });

  it("the microbatches of evaluations, where none was made: they may be others", async () => {
    const options = { per_device_eval_batch_size: 2, resume_from_checkpoint: true };
    const { checkpoints } = await run(await aBrokenRun(), options, { stopAfter: 4 });
    expect(checkpoints.map(({ step }) => step)).toEqual([4]);
  });

  it.runIf(formats.includes("f16"))("the format of activations: refused", async () => {
    const error = await failure(run(await aBrokenRun(), { fp16: true, resume_from_checkpoint: true }));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain('option "fp16" is true, but the run of');
  });

  it("the weights that a run starts from, or those of its reference, under an unchanged name: refused", async () => {
    const [policy, other, again] = [
      await Model.load(device, llama),
      await loadModel(device, "llama", "reference"),
      await loadModel(device, "llama", "reference"),
    ];
    const given = { resume_from_checkpoint: true };
    const refused =
      /^The weights of the (.*) are not those that the run of .*checkpoint-3 started with, .*: give that model/;
    // The policy as it starts is the reference; so is the base of a new adapter, which no checkpoint holds either.
    const whole = await failure(run(await aBrokenRun(), given, { policy: other }));
    const adapted = newFolder();
    await run(adapted, {}, { lora: true, stopAfter: 3 });
    const adapter = LoraAdapter.create(device, other.config, { rank: 2, alpha: 4, dropout: 0.25, rslora: false });
    adapter.initialize(5);
    const moved = await failure(run(adapted, given, { policy: other.withAdapter(adapter) }));
    const compared = newFolder();
    await run(compared, {}, { reference: other, stopAfter: 3 });
    const reference = await failure(run(compared, given, { reference: policy }));
    for (const error of [whole, moved, reference]) {
      expect(error).toBeInstanceOf(ConfigError);
      expect(error.message).toMatch(refused);
    }
    const [, named] = refused.exec(reference.message) ?? [];
    expect(named).toBe(`reference model ${llama}`);
    // With a reference of its own, a checkpoint replaces all that the policy starts with.
    const { weights } = await run(newFolder(), {}, { reference: other });
    const last = { weights: new Float32Array() };
    const replaced = await KtoTrainer.create({
      ...{ policy: other, reference: again, examples: readExamples("llama") },
      ...{ outputFolder: compared, options: { ...OPTIONS, ...given } },
    });
    for await (const _ of replaced) last.weights = await device.download(wholeArena(other.trained));
    expect(bits(last.weights)).toEqual(bits(weights));
    replaced.free();
    adapter.free();
    for (const model of [policy, other, again]) model.free();
  });

  it("rows and settings: refused", async () => {
    const path = await aBrokenRun();
    const examples = readExamples("llama");
    const turned = examples.map((row, i) => (i === 1 ? { ...row, label: !row.label } : row));
    const [data, order, settings] = [
      await failure(run(path, { resume_from_checkpoint: true }, { examples: turned })),
      await failure(run(path, { resume_from_checkpoint: true }, { examples: [...examples].reverse() })),
      await failure(
        (async () => {
          const other = newFolder();
          await run(other, {}, { stopAfter: 1, settings: { dtype: "auto" } });
          await run(other, { resume_from_checkpoint: true }, { settings: { dtype: "float16" } });
        })(),
      ),
    ];
    expect(data.message).toContain("The data is not that of the run of");
    expect(order.message).toContain("The data is not that of the run of");
    expect(settings.message).toContain('option "dtype" is "float16", but the run of');
  });

  it("rows to evaluate on: refused, unless the run evaluates no more or the checkpoint does not know them", async () => {
    const path = newFolder();
    const rows = readExamples("llama");
    const evaluated = { eval_steps: 4, max_steps: 4 };
    await run(path, evaluated, { evalExamples: rows.slice(0, 4), stopAfter: 1 });
    const resumed = { ...evaluated, resume_from_checkpoint: true };
    const error = await failure(run(path, resumed, { evalExamples: rows.slice(0, 3) }));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain(
      `The rows to evaluate on are not those of the run of ${join(path, "checkpoint-1")}`,
    );
    await run(path, { ...resumed, eval_strategy: "no" }, { evalExamples: rows.slice(0, 3), stopAfter: 2 });
    // That checkpoint was saved without evaluations.
    expect((await run(path, resumed, { evalExamples: rows.slice(0, 3) })).log).toHaveLength(3);
  });

  it.each([
    ["", (json: Json) => json],
    [
      ", also where the checkpoint is of a version that did not say it",
      ({ evaluation, ...json }: Json) => {
        const { metric: _, greaterIsBetter: __, ...selection } = evaluation.selection;
        return { ...json, evaluation: { ...evaluation, selection } };
      },
    ],
  ])("the metric of the best model: the search for the best begins again%s", async (_, change) => {
    const path = newFolder();
    const inputs = { evalExamples: readExamples("llama").slice(0, 4) };
    const evaluated = { eval_steps: 1, max_steps: 3, load_best_model_at_end: true };
    await run(path, { ...evaluated, metric_for_best_model: "rewards/margins" }, { ...inputs, stopAfter: 2 });
    forge(join(path, "checkpoint-2"), "run_state.json", change);
    const resumed = await run(path, { ...evaluated, resume_from_checkpoint: true }, inputs);
    expect(resumed.warnings).toEqual([
      "The best model was that by eval_rewards/margins (more is better) and is now that by eval_loss (less is better): the search for it begins again with the next evaluation.",
    ]);
    const [{ best_global_step: step }] = JSON.parse(resumed.state) as [{ best_global_step: number }];
    expect(step).toBe(3); // the only one after the break
  });

  it("without a folder of the run there is nothing to resume", async () => {
    const policy = await Model.load(device, llama, { storage: "f32" });
    const inputs = { policy, examples: readExamples("llama"), options: { resume_from_checkpoint: true } };
    const error = await failure(KtoTrainer.create(inputs));
    policy.free();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain("give outputFolder");
  });
});

describe("faults", () => {
  it("a full disk: a warning, the checkpoints before stay, the run ends as if nothing had been", async () => {
    const write = platform.writeFileAtomic.bind(platform);
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
      if (path.includes(".checkpoint-2.writing") && path.endsWith("optimizer.safetensors")) {
        throw new FileError(`Cannot write ${path}: no space is left on the disk.`);
      }
      await write(path, chunks);
    });
    const path = newFolder();
    const { warnings, weights } = await run(path, { max_steps: 3, save_total_limit: 2 });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /^The checkpoint of step 2 was not saved: Cannot write .*: no space is left on the disk\. The training goes on; the last good checkpoint is .*checkpoint-1\.$/,
    );
    expect(checkpointsIn(path)).toEqual(["checkpoint-1", "checkpoint-3"]);
    vi.restoreAllMocks();
    expect(bits((await run(newFolder(), { max_steps: 3 })).weights)).toEqual(bits(weights));
  });

  it("a disk that is full in the middle of any file of a checkpoint: nothing is left of that one, all others are whole", async () => {
    const names = readdirSync(join(await aBrokenRun(), "checkpoint-2"));
    expect(names).toContain("checksums.json");
    const write = platform.writeFileAtomic.bind(platform);
    for (const full of names) {
      vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (path, chunks) => {
        const fails = path.includes(".checkpoint-2.writing") && path.endsWith(full);
        await write(path, fails ? cutShort(chunks) : chunks);
      });
      const path = newFolder();
      const { warnings } = await run(path, { max_steps: 3 });
      vi.restoreAllMocks();
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain(`${full}: no space is left on the disk. The training goes on; the last good`);
      expect(checkpointsIn(path)).toEqual(["checkpoint-1", "checkpoint-3"]);
      for (const name of checkpointsIn(path)) expect(await checkpointDamage(join(path, name))).toBeUndefined();
    }
    /** Fails as a full disk does, after a first part. */
    async function* cutShort(chunks: Parameters<typeof write>[1]): AsyncGenerator<Uint8Array> {
      for await (const chunk of typeof chunks === "string" ? [Buffer.from(chunks)] : chunks) {
        yield chunk.subarray(0, 9);
        throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
      }
    }
  });

  it("a run that is stopped and cannot be saved says so", async () => {
    vi.spyOn(platform, "renameFolder").mockRejectedValue(new FileError("Cannot rename the folder x: no space."));
    const error = await failure(run(newFolder(), { save_strategy: "no" }, { stop: 1 }));
    expect(error).toBeInstanceOf(FileError);
    const nowhere = "Nor could it be saved beside that folder or in the folder for temporary files.";
    expect(error.message).toBe(`Cannot rename the folder x: no space. ${nowhere}`);
    vi.restoreAllMocks();
    const path = newFolder();
    const stopped = run(
      path,
      {},
      {
        stop: 3,
        onStep: ({ step }) => {
          if (step !== 3) return;
          vi.spyOn(platform, "renameFolder").mockRejectedValue(new FileError("Cannot rename the folder x: no space."));
        },
        onWarning: () => undefined,
      },
    );
    expect((await failure(stopped)).message).toBe(
      `Cannot rename the folder x: no space. The training is not lost: ${join(path, "checkpoint-2")} holds the run up to step 2: go on from there with resume_from_checkpoint. ${nowhere}`,
    );
  });

  it("a run that is stopped on a full disk is saved beside its folder, and goes on once that is moved back", async () => {
    const path = newFolder();
    const write = platform.writeFileAtomic.bind(platform);
    vi.spyOn(platform, "writeFileAtomic").mockImplementation(async (file, chunks) => {
      if (file.startsWith(path + sep)) throw new FileError(`Cannot write ${file}: no space is left on the disk.`);
      await write(file, chunks);
    });
    const error = await failure(run(path, { save_strategy: "no" }, { stop: 3 }));
    vi.restoreAllMocks();
    expect(error).toBeInstanceOf(FileError);
    expect(error.message).toContain(
      `no space is left on the disk. What was trained, 3 updates, is saved in ${path}-rescued: move its checkpoint into ${path}, then go on with resume_from_checkpoint.`,
    );
    renameSync(join(`${path}-rescued`, "checkpoint-3"), join(path, "checkpoint-3"));
    const { weights } = await run(path, { resume_from_checkpoint: true });
    expect(bits(weights)).toEqual(bits((await run(newFolder())).weights));
  });

  it("gradients that are never finite: the rows of the last microbatch are named", async () => {
    const error = await failure(run(newFolder(), { max_steps: 4, learning_rate: 1e30, logging_steps: 1 }));
    expect(error).toBeInstanceOf(NumericError);
    expect(error.message).toMatch(/\(rows of the last microbatch: example \d, example \d\)\.$/);
  });

  it("what a callback throws ends the run unchanged", async () => {
    class Mine extends FileError {}
    for (const name of ["onStep", "onCheckpoint"] as const) {
      const mine = new Mine("mine");
      const thrown = async () => {
        throw mine;
      };
      expect(await failure(run(newFolder(), {}, { [name]: thrown }))).toBe(mine);
    }
  });

  it("callbacks are waited for, in order", async () => {
    const told: string[] = [];
    const tell = async (text: string) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      told.push(text);
    };
    await run(
      newFolder(),
      { max_steps: 2, save_steps: 2, eval_steps: 2 },
      {
        evalExamples: readExamples("llama"),
        onStep: ({ step }) => tell(`step ${step}`),
        onEvaluate: ({ step, metrics }) => tell(`evaluation ${step} ${typeof metrics.eval_loss}`),
        onCheckpoint: ({ step }) => tell(`checkpoint ${step}`),
      },
    );
    expect(told).toEqual(["step 1", "evaluation 2 number", "step 2", "checkpoint 2"]);
  });
});

describe("kernels of another version, or another adapter", () => {
  it.each([
    ["of another version", (state: object) => ({ ...state, kernels: "0".repeat(64) })],
    ["of a version that kept no digest", ({ kernels: _, ...state }: Readonly<Record<string, unknown>>) => state],
  ])("a checkpoint %s goes on with a warning that numbers will differ", async (_, change) => {
    const output = freshPath(folder, "run");
    await run(output, {}, { stopAfter: 2 });
    forge(join(output, "checkpoint-2"), "run_state.json", change);
    const { warnings } = await run(output, { resume_from_checkpoint: true });
    expect(warnings).toEqual([
      expect.stringMatching(/another version of kto-webgpu.* will differ in their last digits/),
    ]);
  });

  it("a checkpoint of another adapter goes on with a warning that numbers will differ", async () => {
    const output = freshPath(folder, "run");
    await run(output, {}, { stopAfter: 2 });
    forge(join(output, "checkpoint-2"), "run_state.json", (state) => ({ ...state, adapter: "Another GPU" }));
    const { warnings } = await run(output, { resume_from_checkpoint: true });
    expect(warnings).toEqual([
      `The run of ${join(output, "checkpoint-2")} was on the adapter "Another GPU" and goes on on "${device.description}, subgroups of ${device.facts.subgroupSize} threads", which rounds otherwise: its numbers will differ in their last digits from those of a run without a break.`,
    ]);
  });

  it("a checkpoint of this version goes on without a word", async () => {
    const output = freshPath(folder, "run");
    await run(output, {}, { stopAfter: 2 });
    expect((await run(output, { resume_from_checkpoint: true })).warnings).toEqual([]);
  });
});

it("a checkpoint without the optimizer is said to be a model, not to be gone on from", () => {
  expect(useOf({ step: 3, resumable: true })).toMatch(/go on from there with resume_from_checkpoint$/);
  const only = useOf({ step: 3, resumable: false });
  expect(only).toContain("without the optimizer (save_only_model), so no run goes on from it");
  expect(only).not.toContain("resume_from_checkpoint");
});
