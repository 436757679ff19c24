/** Trainings by several ranks in this process, on the shared device, and what is left of them to be compared. */
import type { Arena } from "../../src/engine/gpu/arena.ts";
import { LoraAdapter } from "../../src/engine/model/lora.ts";

import { Random } from "../../src/engine/random.ts";
import type { BatchExample } from "../../src/kto/method/batch.ts";
import type { Metrics } from "../../src/kto/method/metrics.ts";
import type { ExampleLine } from "../../src/kto/run/example-line.ts";
import type { RunInputs } from "../../src/kto/run/inputs.ts";
import type { Run } from "../../src/kto/run/run.ts";
import { KtoTrainer, type TrainerInputs } from "../../src/kto/trainer.ts";
import { sharedDevice } from "./device.ts";
import { loadModel, relativeDistance } from "./fixtures.ts";
import { localRanks } from "./local-ranks.ts";

/** What a run leaves on one rank. */
export interface RankRun {
  /** Of each update, in order. */
  readonly metrics: readonly Metrics[];
  /** Of the first update, whose weights are the same for all, by the parameter's name. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
  readonly weights: ReadonlyMap<string, Float32Array>;
  readonly log: readonly unknown[];
  /** Updates done. */
  readonly steps: number;
  /** What updates did with their examples, of those that are logged. */
  readonly examples: readonly ExampleLine[];
  readonly warnings: readonly string[];
}

export type RankOptions = NonNullable<TrainerInputs["options"]>;

/** How the ranks of these tests run. */
export interface RankSetup {
  readonly examples: readonly BatchExample[];
  readonly evalExamples?: readonly BatchExample[];
  readonly options: RankOptions;
  readonly lora?: boolean;
  /** Of the adapter; default 0. */
  readonly dropout?: number;
  readonly outputFolder?: string;
  /** Asks this rank to stop once so many updates are done. */
  readonly stop?: { readonly rank: number; readonly after: number };
  /** Makes the trainer; default KTO's. */
  readonly create?: (inputs: TrainerInputs) => Promise<Run>;
  /** Inputs that are another rank's own. */
  readonly ofRank?: (rank: number) => Partial<TrainerInputs>;
}

/** Examples of the tiny Llama's vocabulary, of unequal lengths; some share a prompt. */
export function rankExamples(count: number, seed: number): BatchExample[] {
  const random = new Random(seed);
  const ids = (from: number, to: number) =>
    Array.from({ length: from + random.below(to - from + 1) }, () => 3 + random.below(87));
  const shared = ids(3, 5);
  return Array.from({ length: count }, (_, i) => ({
    promptIds: i % 4 === 1 ? shared : ids(1, 9),
    completionIds: ids(2, 14),
    label: i % 3 !== 2,
  }));
}

/** Trains the fixture's policy with this many ranks; what each has in the end. */
export async function trainRanks(size: number, setup: RankSetup): Promise<RankRun[]> {
  const runs = localRanks(size).map(async (ranks) => {
    try {
      return await trainRank(size === 1 ? {} : { ranks }, setup);
    } catch (error) {
      ranks.fail(error);
      throw error;
    }
  });
  await Promise.allSettled(runs);
  return await Promise.all(runs);
}

async function trainRank(own: Pick<RunInputs, "ranks">, setup: RankSetup): Promise<RankRun> {
  const device = await sharedDevice();
  const { lora, dropout = 0, stop, create = KtoTrainer.create, ofRank, ...inputs } = setup;
  const rank = own.ranks?.rank ?? 0;
  const warnings: string[] = [];
  let policy = await loadModel(device, "llama", "policy");
  if (lora) {
    const adapter = LoraAdapter.create(device, policy.config, { rank: 2, alpha: 4, dropout, rslora: false });
    adapter.initialize(5);
    policy = policy.withAdapter(adapter);
  }
  try {
    const onWarning = (sentence: string) => void warnings.push(sentence);
    const trainer = await create({ policy, ...inputs, ...own, onWarning, ...ofRank?.(rank) });
    try {
      const metrics: Metrics[] = [];
      let gradients = new Map<string, Float32Array>();
      const examples: ExampleLine[] = [];
      for await (const step of trainer) {
        if (gradients.size === 0) gradients = await numbersOf(trainer.update.optimizer.gradients);
        if (step.metrics) metrics.push(step.metrics);
        if (step.examples) examples.push(step.examples);
        if (stop?.rank === rank && stop.after === step.step) trainer.stop();
      }
      return {
        metrics,
        gradients,
        weights: await numbersOf(policy.trained),
        log: trainer.log,
        steps: trainer.stepsDone,
        examples,
        warnings,
      };
    } finally {
      trainer.free();
    }
  } finally {
    policy.adapter?.free();
    policy.free();
  }
}

/** The numbers of every parameter. */
async function numbersOf(arena: Arena): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const { name } of arena.layout.specs) found.set(name, await arena.device.download(arena.window(name)));
  return found;
}

/** Metrics that tell of time, of memory, or of the ranks themselves. */
const OWN_METRICS = /per_second$|time|^bytes\/|^eval_runtime$|^ranks$|^slowest_rank$|^communication_share$/;

/** The metrics that a run of any number of ranks has. */
export function commonMetrics(metrics: Metrics | undefined): Metrics {
  return Object.fromEntries(Object.entries(metrics ?? {}).filter(([name]) => !OWN_METRICS.test(name)));
}

/** The largest relative distance of any tensor of one run from that of another. */
export function farthest(
  found: ReadonlyMap<string, Float32Array>,
  wanted: ReadonlyMap<string, Float32Array>,
): { readonly name: string; readonly distance: number } {
  if (found.size !== wanted.size) throw new Error(`${found.size} tensors, wanted ${wanted.size}`);
  let worst = { name: "", distance: 0 };
  for (const [name, data] of wanted) {
    const other = found.get(name);
    if (other === undefined) throw new Error(`there is no ${name}`);
    const isZero = data.every((value) => value === 0) && other.every((value) => value === 0);
    const distance = isZero ? 0 : relativeDistance(other, data);
    if (!(distance <= worst.distance)) worst = { name, distance };
  }
  return worst;
}
