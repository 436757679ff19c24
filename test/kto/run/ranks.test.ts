/**
 * Trainings by 2, 3 and 4 ranks against those of one process, which has as many rows in a microbatch as all of them:
 * losses, reference points, every tensor's gradients and weights to 1e-6, the same bits in every rank and every time.
 */
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ALONE } from "../../../src/engine/ranks/communicator.ts";
import { RankError } from "../../../src/errors.ts";
import type { BatchExample } from "../../../src/kto/method/batch.ts";
import type { Metrics } from "../../../src/kto/method/metrics.ts";
import type { TrainerOptions } from "../../../src/kto/options/kto.ts";
import { RankReports } from "../../../src/kto/run/rank-reports.ts";
import { tuningOf } from "../../../src/kto/run/resumption.ts";
import { checkSameRows } from "../../../src/kto/run/same-run.ts";
import { readRunState } from "../../../src/kto/run/state.ts";
import { SftTrainer, type SftTrainerInputs } from "../../../src/kto/sft-trainer.ts";
import { freshPath, temporaryFolder } from "../../helpers/folders.ts";
import { localRanks } from "../../helpers/local-ranks.ts";
import {
  commonMetrics,
  farthest,
  type RankRun,
  type RankSetup,
  rankExamples,
  trainRanks,
} from "../../helpers/rank-runs.ts";

const folder = temporaryFolder();

/** Five updates, each of them logged. */
const OPTIONS = { max_steps: 5, logging_steps: 1, learning_rate: 1e-3, save_strategy: "no", seed: 3 } as const;
/** What the numbers of N ranks may be off by from one process, relative. */
const RANKS = 1e-6;

/** Supervised fine-tuning in place of KTO. */
const SFT: NonNullable<RankSetup["create"]> = (inputs) => SftTrainer.create(inputs as SftTrainerInputs);

const bitsOf = ({ weights, gradients }: RankRun) =>
  [...weights, ...gradients].map(([name, { buffer, byteOffset, length }]) => [
    name,
    Buffer.from(buffer as ArrayBuffer, byteOffset, 4 * length).toString("base64"),
  ]);

function expectSameMetrics(found: readonly Metrics[], wanted: readonly Metrics[], within = RANKS): void {
  expect(found.length).toBe(wanted.length);
  for (const [step, metrics] of wanted.entries()) {
    const other = commonMetrics(found[step]);
    expect(Object.keys(other), `metrics of update ${step + 1}`).toEqual(Object.keys(commonMetrics(metrics)));
    for (const [name, value] of Object.entries(commonMetrics(metrics))) {
      const difference = Math.abs((other[name] ?? Number.NaN) - value);
      expect(difference, `${name} of update ${step + 1}: ${other[name]}, wanted ${value}`).toBeLessThanOrEqual(
        within * Math.max(1, Math.abs(value)),
      );
    }
  }
}

/** A run of N ranks of these rows each, and one of one process with N times as many rows in a microbatch. */
async function expectEqual(size: number, rows: number, setup: RankSetup): Promise<RankRun[]> {
  const of = (count: number): RankSetup => ({
    ...setup,
    options: { ...OPTIONS, ...setup.options, per_device_train_batch_size: count },
  });
  const [whole] = await trainRanks(1, of(size * rows));
  const ranks = await trainRanks(size, of(rows));
  for (const [rank, run] of ranks.entries()) {
    if (whole === undefined) throw new Error("no run");
    expectSameMetrics(run.metrics, whole.metrics, 5 * RANKS);
    const [gradient, weight] = [farthest(run.gradients, whole.gradients), farthest(run.weights, whole.weights)];
    expect(gradient.distance, `gradient of ${gradient.name} on rank ${rank}`).toBeLessThanOrEqual(RANKS);
    expect(weight.distance, `weights of ${weight.name} on rank ${rank}`).toBeLessThanOrEqual(RANKS);
    expect(bitsOf(run)).toEqual(bitsOf(ranks[0] as RankRun));
  }
  return ranks;
}

describe("several ranks have the numbers of one process", () => {
  test("2 ranks, all weights, and the same bits every time", async () => {
    const examples = rankExamples(16, 1);
    const first = await expectEqual(2, 2, { examples, options: {} });
    const again = await trainRanks(2, { examples, options: { ...OPTIONS, per_device_train_batch_size: 2 } });
    expect(again.map(bitsOf)).toEqual(first.map(bitsOf));
    const [metrics] = first[0]?.metrics ?? [];
    expect(metrics?.ranks).toBe(2);
    expect([0, 1]).toContain(metrics?.slowest_rank);
    expect(metrics?.communication_share).toBeGreaterThan(0);
    expect(metrics?.communication_share).toBeLessThan(1);
  });

  // 11 rows in microbatches of 6: 5 and 6, of which three ranks have 2, 2, 1 and 2, 2, 2.
  test("3 ranks, unequal rows, an adapter", async () => {
    const runs = await expectEqual(3, 2, { examples: rankExamples(11, 2), options: {}, lora: true });
    expect([...(runs[0]?.gradients.keys() ?? [])].every((name) => name.includes("lora"))).toBe(true);
  });

  // 7 rows in microbatches of 4: 3 and 4, so that every rank has one row and the last has none every other time.
  test("4 ranks of one row each, the last without any, frozen parameters", async () => {
    const runs = await expectEqual(4, 1, {
      examples: rankExamples(7, 3),
      options: { freeze_parameters: ["layers\\.0", "embed"] },
    });
    expect([...(runs[0]?.gradients.keys() ?? [])].some((name) => name.startsWith("layers.0"))).toBe(false);
  });

  // 13 rows: an epoch's last update has fewer microbatches, or shorter ones.
  test.each(["microbatch", "step"] as const)("2 ranks that accumulate, the reference point of a %s", async (scope) => {
    const options = { gradient_accumulation_steps: 2, reference_point_scope: scope, max_grad_norm: 0.1 };
    await expectEqual(2, 2, { examples: rankExamples(13, 4), options });
  });

  test("3 ranks with a cached reference, a part of which has no rows, and an evaluation", async () => {
    const setup = {
      examples: rankExamples(5, 5),
      evalExamples: rankExamples(7, 6),
      options: { reference: "cached", eval_steps: 2, per_device_eval_batch_size: 3, overwrite_cache: true },
    } as const;
    const runs = await expectEqual(3, 1, setup);
    const evaluations = runs.map(({ log }) => log.filter((line) => "eval_loss" in (line as object)));
    expect(evaluations[0]).toHaveLength(3);
    for (const lines of evaluations) expect(lines).toEqual(evaluations[0]);
  });

  test("2 ranks of supervised fine-tuning", async () => {
    const examples = rankExamples(9, 7).map((row) => ({ ...row, label: true }));
    await expectEqual(2, 2, { examples, options: {}, create: SFT });
  });
});

describe("what an update did with its examples", () => {
  test("is told of all ranks' rows as of one process's", async () => {
    const options = { ...OPTIONS, max_steps: 1, gradient_accumulation_steps: 2 };
    const of = async (size: number, rows: number) => {
      const setup = { examples: rankExamples(8, 8), options: { ...options, per_device_train_batch_size: rows } };
      return (await trainRanks(size, setup)).map(({ examples }) => examples[0]);
    };
    const [[whole], ranks] = [await of(1, 4), await of(2, 2)];
    expect(ranks[1]).toEqual(ranks[0]);
    const { z0, z0_unclamped, log_ratio, u, v, ...rest } = ranks[0] ?? {};
    expect(whole).toMatchObject(rest);
    for (const [found, wanted] of [
      [z0, whole?.z0],
      [z0_unclamped, whole?.z0_unclamped],
      [log_ratio, whole?.log_ratio],
      [u, whole?.u],
      [v, whole?.v],
    ]) {
      found?.forEach((value, i) => {
        expect(value).toBeCloseTo(wanted?.[i] ?? Number.NaN, 4);
      });
    }
  });
});

describe("checkpoints", () => {
  const examples = rankExamples(12, 9);
  const options = { ...OPTIONS, save_strategy: "steps", save_steps: 1, logging_steps: 2 } as const;
  const resuming = { ...options, resume_from_checkpoint: true } as const;
  const of = (size: number, outputFolder: string, own: RankSetup["options"], more: Partial<RankSetup> = {}) =>
    trainRanks(size, {
      ...{ examples, outputFolder, ...more },
      options: { ...own, per_device_train_batch_size: 4 / size },
    });

  test("of four ranks are gone on from by four to the same bits, by two and by one to the same numbers", async () => {
    const unbroken = await of(4, freshPath(folder, "unbroken"), options);
    const stopped = freshPath(folder, "stopped");
    // Whichever rank is asked to stop, all stop after the same update.
    const broken = await of(4, stopped, options, { stop: { rank: 2, after: 2 } });
    expect(broken.map(({ steps }) => steps)).toEqual([3, 3, 3, 3]);
    for (const size of [4, 2, 1]) {
      const path = freshPath(folder, `resumed-${size}`);
      cpSync(stopped, path, { recursive: true });
      const resumed = await of(size, path, resuming);
      // The first gradients of a resumed run are of a later update.
      const end = (runs: readonly RankRun[]) => runs.map((run) => bitsOf({ ...run, gradients: new Map() }));
      if (size === 4) expect(end(resumed)).toEqual(end(unbroken));
      const [own, whole] = [resumed[0] as RankRun, unbroken[0] as RankRun];
      expect(farthest(own.weights, whole.weights).distance).toBeLessThanOrEqual(RANKS);
      expectSameMetrics(own.log as Metrics[], whole.log as Metrics[], 5 * RANKS);
    }
  });

  test("of other updates are refused, with the options that would give the same", async () => {
    const path = freshPath(folder, "others");
    await of(2, path, { ...options, max_steps: 1 });
    const error = trainRanks(1, {
      examples,
      outputFolder: path,
      options: { ...resuming, per_device_train_batch_size: 2 },
    });
    await expect(error).rejects.toThrow(
      /had 2 ranks with per_device_train_batch_size 2 .* set per_device_train_batch_size 4 and gradient_accumulation_steps 1\.$/,
    );
  });
});

describe("kernels that ranks chose", () => {
  test("are told of once they are new, and each rank of as many goes on with its own", async () => {
    const chosen: Record<string, string>[] = [{ a: "default" }, { a: "wide" }];
    const own = { tokens: 1, rowsRun: 1, cutPairs: 0, stops: false };
    const reports = localRanks(2).map(
      (ranks, rank) =>
        new RankReports(ranks, false, {
          get choices() {
            return chosen[rank] ?? {};
          },
        }),
    );
    const update = async () => {
      for (const report of reports) report.begin();
      await Promise.all(reports.map((report) => report.end(own)));
      return reports.map(({ tuning }) => tuning);
    };
    const first = await update();
    expect(first).toEqual([chosen, chosen]);
    // Nothing new: nothing is gathered again.
    expect((await update()).every((tuning, rank) => tuning === first[rank])).toBe(true);
    chosen[1] = { a: "wide", b: "wide" };
    expect(await update()).toEqual([chosen, chosen]);
    const state = { ranks: 2, tuning: { a: "default" }, tuningOfRanks: chosen };
    expect([0, 1].map((rank) => tuningOf(state, { rank, size: 2 }))).toEqual(chosen);
    expect([0, 1, 2].map((rank) => tuningOf(state, { rank, size: 3 }))).toEqual([
      state.tuning,
      state.tuning,
      state.tuning,
    ]);
    expect(tuningOf({ ...state, tuningOfRanks: undefined }, { rank: 1, size: 2 })).toEqual(state.tuning);
  });

  test("are in a checkpoint, by rank", async () => {
    const outputFolder = freshPath(folder, "tuned");
    const options = { ...OPTIONS, max_steps: 1, save_strategy: "steps", save_steps: 1 } as const;
    await trainRanks(2, {
      examples: rankExamples(4, 15),
      outputFolder,
      options: { ...options, per_device_train_batch_size: 2 },
    });
    const { tuning, tuningOfRanks } = await readRunState(join(outputFolder, "checkpoint-1"));
    expect(tuningOfRanks).toEqual([tuning, tuning]); // of one device
  });
});

describe("dropout and NEFTune's noise", () => {
  const draws = { lora: true, dropout: 0.3 } as const;
  const options = { disable_dropout: false, neftune_noise_alpha: 5 } as const;

  test.each([
    ["microbatch", 2, 2],
    ["step", 2, 2],
    ["microbatch", 3, 1],
  ] as const)("draw by what rows hold: reference point of a %s, %d ranks of %d rows", async (scope, size, rows) => {
    const more = { gradient_accumulation_steps: 2, reference_point_scope: scope };
    const setup = { examples: rankExamples(13, 17), options: { ...options, ...more }, ...draws };
    const [first] = await expectEqual(size, rows, setup);
    expect(first?.warnings).toEqual([]);
    const [still] = await trainRanks(1, { ...setup, options: { ...OPTIONS, ...more, per_device_train_batch_size: 4 } });
    expect(farthest(still?.weights ?? new Map(), first?.weights ?? new Map()).distance).toBeGreaterThan(1e-3);
  });

  test("dropout is the same in microbatches of any size", async () => {
    const of = async (size: number, steps: number) => {
      const own = { per_device_train_batch_size: size, gradient_accumulation_steps: steps } as const;
      const more = { ...OPTIONS, disable_dropout: false, reference_point_scope: "step", ...own } as const;
      const [run] = await trainRanks(1, { examples: rankExamples(8, 18), options: more, ...draws });
      return run as RankRun;
    };
    const [whole, halves, rows] = [await of(4, 1), await of(2, 2), await of(1, 4)];
    for (const { weights } of [halves, rows]) expect(farthest(weights, whole.weights).distance).toBeLessThan(5 * RANKS);
  });
});

describe("sharded optimizer state", () => {
  const examples = rankExamples(12, 12);
  const options = { ...OPTIONS, max_steps: 3, save_strategy: "steps", save_steps: 1, max_grad_norm: 0 } as const;
  const of = (size: number, outputFolder: string, own: Partial<TrainerOptions>, more: Partial<RankSetup> = {}) =>
    trainRanks(size, {
      ...{ examples, outputFolder, ...more },
      options: { ...options, ...own, per_device_train_batch_size: 12 / size },
    });
  /** Names, places and bytes of a checkpoint's moments; the norm, in the optimizer's small state, is summed otherwise. */
  const momentsOf = (path: string) => {
    const file = readFileSync(join(path, "checkpoint-3", "optimizer.safetensors"));
    const start = 8 + Number(file.readBigUInt64LE(0));
    const header = JSON.parse(file.subarray(8, start).toString()) as Record<string, { data_offsets: number[] }>;
    const end = header.optimizer_state?.data_offsets[0] ?? 0;
    return { header, bytes: file.subarray(start, start + end).toString("base64") };
  };

  test.each<readonly [string, Partial<TrainerOptions>, boolean]>([
    ["all weights", {}, false],
    ["an adapter", {}, true],
    ["moments in eight bits, frozen parameters", { optim: "adamw_8bit", freeze_parameters: ["layers\\.0"] }, false],
  ])("has the bits of whole state, and writes the same checkpoints: %s", async (_, own, lora) => {
    const [whole, sharded] = [freshPath(folder, "whole"), freshPath(folder, "sharded")];
    const runs = await of(3, whole, own, { lora });
    const shards = await of(3, sharded, { ...own, shard_optimizer: true }, { lora });
    const weights = (of: readonly RankRun[]) => of.map((run) => bitsOf({ ...run, gradients: new Map() }));
    expect(weights(shards)).toEqual(weights(runs));
    expect(momentsOf(sharded)).toEqual(momentsOf(whole));
    const bytes = (of: readonly RankRun[]) => of.map(({ metrics }) => metrics[0]?.["bytes/optimizer"] ?? 0);
    for (const mine of bytes(shards)) expect(mine).toBeLessThan(0.6 * (bytes(runs)[0] ?? 0));
  });

  test("clips by the norm of all shares, and is gone on from by any number of ranks", async () => {
    const own = { max_grad_norm: 0.05, optim: "adamw_8bit", shard_optimizer: true } as const;
    const unbroken = await of(4, freshPath(folder, "unbroken"), own);
    const [whole] = await of(4, freshPath(folder, "whole"), { ...own, shard_optimizer: false });
    expect(farthest(unbroken[0]?.weights ?? new Map(), whole?.weights ?? new Map()).distance).toBeLessThanOrEqual(
      RANKS,
    );
    const stopped = freshPath(folder, "stopped");
    await of(4, stopped, { ...own, save_strategy: "no" }, { stop: { rank: 1, after: 1 } });
    for (const [size, shard_optimizer] of [
      [4, true],
      [3, true],
      [1, false],
    ] as const) {
      const path = freshPath(folder, `resumed-${size}`);
      cpSync(stopped, path, { recursive: true });
      const resumed = await of(size, path, { ...own, shard_optimizer, resume_from_checkpoint: true });
      const end = (runs: readonly RankRun[]) => runs.map((run) => bitsOf({ ...run, gradients: new Map() }));
      if (size === 4) expect(end(resumed)).toEqual(end(unbroken));
      const [found, wanted] = [resumed[0] as RankRun, unbroken[0] as RankRun];
      expect(found.steps).toBe(3);
      expect(farthest(found.weights, wanted.weights).distance).toBeLessThanOrEqual(RANKS);
    }
  });
});

describe("ranks that update by themselves, with sync_every", () => {
  const options = { ...OPTIONS, sync_every: 2, per_device_train_batch_size: 3, logging_steps: 2 } as const;
  const examples = rankExamples(12, 13);

  test("have the mean of what they learnt alone, with outer_learning_rate 1 and no momentum", async () => {
    const own = { ...options, max_steps: 2, shuffle_dataset: false, outer_learning_rate: 1, outer_momentum: 0 };
    const ranks = await trainRanks(2, { examples, options: own });
    // Rings of three rows are dealt in turn, so each rank is a run of its own rows: 0 to 2 and 6 to 8, or the others.
    const alone = await Promise.all(
      [0, 1].map(async (rank) => {
        const rows = examples.filter((_, i) => Math.floor(i / 3) % 2 === rank);
        const [run] = await trainRanks(1, { examples: rows, options: { ...own, sync_every: undefined } });
        return run as RankRun;
      }),
    );
    const [first, second] = alone.map(({ weights }) => weights);
    const mean = new Map(
      [...(first ?? [])].map(([name, values]) => {
        const others = second?.get(name);
        return [name, values.map((value, i) => Math.fround((value + (others?.[i] ?? Number.NaN)) / 2))];
      }),
    );
    for (const run of ranks) {
      expect(farthest(run.weights, mean).distance).toBeLessThanOrEqual(1e-7);
      expect(run.metrics[0]?.outer_grad_norm).toBeGreaterThan(0);
      const tokens = alone.map(({ metrics }) => metrics[0]?.num_tokens ?? 0);
      expect(run.metrics[0]?.num_tokens).toBe((tokens[0] ?? 0) + (tokens[1] ?? 0));
    }
  });

  test("learn, in one process too, and end on the same weights after a part of a round", async () => {
    const [one] = await trainRanks(1, { examples, options: { ...options, max_steps: 5 } });
    expect(one?.metrics.map(({ outer_grad_norm }) => outer_grad_norm !== undefined)).toEqual([true, true, true]);
    // 13 rows in rings of 3 or 2: an epoch's last update has rows for one rank of two alone.
    const runs = await trainRanks(2, { examples: rankExamples(13, 14), options: { ...options, max_steps: 5 } });
    const weights = runs.map((run) => bitsOf({ ...run, gradients: new Map() }));
    expect(weights[1]).toEqual(weights[0]);
    expect(runs[0]?.metrics.map(({ loss }) => Number.isFinite(loss))).toEqual([true, true, true]);
  });

  test.each([
    ["between two outer steps", 3, "adamw_8bit", false],
    ["right after one", 2, "adamw_torch", true],
  ] as const)("are gone on from to the same bits, stopped %s", async (_, after, optim, lora) => {
    const own = { ...options, optim } as const;
    const unbroken = await trainRanks(3, { examples, lora, options: own });
    const outputFolder = freshPath(folder, "local");
    // All stop after the update in which one is asked to.
    const stop = { rank: 1, after: after - 1 };
    const broken = await trainRanks(3, { examples, lora, outputFolder, options: own, stop });
    expect(broken.map(({ steps }) => steps)).toEqual([after, after, after]);
    const resuming = { ...own, resume_from_checkpoint: true } as const;
    const resumed = await trainRanks(3, { examples, lora, outputFolder, options: resuming });
    const end = (runs: readonly RankRun[]) => runs.map((run) => bitsOf({ ...run, gradients: new Map() }));
    expect(end(resumed)).toEqual(end(unbroken));
    expectSameMetrics(resumed[0]?.log as Metrics[], unbroken[0]?.log as Metrics[], 0);
    const with2 = trainRanks(2, { examples, lora, outputFolder, options: resuming });
    await expect(with2).rejects.toThrow(/had 3 ranks that update by themselves .* has 2: start 3\.$/);
    const summing = trainRanks(3, { examples, lora, outputFolder, options: { ...resuming, sync_every: undefined } });
    await expect(summing).rejects.toThrow(/^option "sync_every" is null, but the run of .* had 2/);
  });

  test("refuse what would look at models that differ", async () => {
    const setup = { examples, evalExamples: examples };
    const of = (more: RankSetup["options"]) => trainRanks(2, { ...setup, options: { ...options, ...more } });
    await expect(of({ eval_steps: 3 })).rejects.toThrow(
      /^the run evaluates every 3 updates, which is no multiple of sync_every 2, .*: set eval_steps to a multiple\.$/,
    );
    await expect(of({ eval_steps: 2, sync_ref_model: true })).rejects.toThrow(
      /^sync_ref_model and sync_every are both/,
    );
    await expect(of({ eval_steps: 2, shard_optimizer: true })).rejects.toThrow(/^shard_optimizer and sync_every are/);
  });
});

test("ranks that measure rows without a run are told of others before they do", async () => {
  const check = (...own: readonly (readonly BatchExample[])[]) => {
    const ranks = localRanks(own.length);
    return Promise.allSettled(own.map((examples, rank) => checkSameRows(ranks[rank] ?? ALONE, examples)));
  };
  const rows = rankExamples(8, 10);
  const done = { status: "fulfilled", value: undefined };
  expect(await check(rows, rankExamples(8, 10))).toEqual([done, done]);
  expect(await check(rankExamples(8, 11))).toEqual([done]);
  const reason = new RankError(
    "rank 1 differs from rank 0 in the rows to measure: give every rank the same program, options and files.",
  );
  for (const others of [rankExamples(8, 11), rows.slice(1)]) {
    expect(await check(rows, others)).toEqual([
      { status: "rejected", reason },
      { status: "rejected", reason },
    ]);
  }
});

test("a rank with other rows or options is named before the first update", async () => {
  const setup = { examples: rankExamples(8, 10), options: { ...OPTIONS, per_device_train_batch_size: 2 } };
  const ofRank = (rank: number) => (rank === 1 ? { options: { ...setup.options, beta: 0.2 } } : {});
  await expect(trainRanks(2, { ...setup, ofRank })).rejects.toThrow(
    new RankError(
      'rank 1 differs from rank 0 in option "beta" (0.2, and 0.1 there): give every rank the same program, options and files.',
    ),
  );
  const others = (rank: number) => (rank === 1 ? { examples: rankExamples(8, 11) } : {});
  await expect(trainRanks(2, { ...setup, ofRank: others })).rejects.toThrow(
    /^rank 1 differs .* in the rows to train on:/,
  );
});
