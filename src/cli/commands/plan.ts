/**
 * `kto plan`: how the time of an update grows with ranks and link. One update is measured here, on one rank; the rest is
 * the model of `src/kto/report/scaling.ts`.
 */
import { LEAST_CODED, momentBytes } from "../../engine/gpu/moments.ts";
import { elementCount } from "../../engine/gpu/tensor.ts";
import { trainedLayout } from "../../engine/model/freezing.ts";
import { hostSpeed } from "../../engine/ranks/host-speed.ts";
import { counted, mebibytes } from "../../errors.ts";
import { type KtoConfig, trainerOptions } from "../../kto/options/kto.ts";
import { momentFormatOf } from "../../kto/options/training.ts";
import { linkOf, type RankWork, type ScaledUpdate, scaledUpdate } from "../../kto/report/scaling.ts";
import { KtoTrainer } from "../../kto/trainer.ts";
import { type PlanConfig, planDescription } from "../descriptions/plan.ts";
import { command } from "../options/command.ts";
import { loadForTraining } from "../session/models.ts";
import { withDevice } from "../session/rows.ts";
import { loadTrainingRows } from "../session/training-rows.ts";
import { columns } from "../terminal/columns.ts";
import { formatShare } from "../terminal/numbers.ts";
import type { Output } from "../terminal/output.ts";
import { working } from "../terminal/work.ts";

export default command(planDescription, runPlan);

/** Updates between two outer steps in the plan of a run that does not say how many. */
const USUAL_SYNC_EVERY = 100;

interface Planned {
  readonly training: "full" | "LoRA";
  readonly work: RankWork;
  /** Bytes of the optimizer's moments, of all parameters. */
  readonly momentBytes: number;
  readonly updates: readonly ScaledUpdate[];
}

async function runPlan(config: PlanConfig, output: Output): Promise<void> {
  const link = linkOf(config.link);
  if (link === undefined) throw new Error("a link that the options let through");
  const counts = rankCounts(config.ranks);
  const planned: Planned[] = [];
  for (const training of trainingsOf(config)) {
    const { momentBytes, ...measured } = await measure({ ...config, use_peft: training === "LoRA" }, output);
    for (const syncEvery of [undefined, config.sync_every ?? USUAL_SYNC_EVERY]) {
      const work: RankWork = {
        ...measured,
        microbatches: config.gradient_accumulation_steps,
        ranksPerMachine: config.ranks_per_machine,
        ...(syncEvery === undefined ? { shardsOptimizer: config.shard_optimizer } : { syncEvery }),
      };
      planned.push({ training, work, momentBytes, updates: counts.map((ranks) => scaledUpdate(ranks, work, link)) });
    }
  }
  if (output.json) output.jsonLine({ link: config.link, ranks_per_machine: config.ranks_per_machine, plans: planned });
  else for (const line of planLines(planned, config)) output.result(line);
}

/** A run that is full training is shown with LoRA beside it. */
function trainingsOf({ use_peft, adapter_name_or_path: adapter, freeze_parameters: frozen }: KtoConfig) {
  if (use_peft || adapter !== undefined) return ["LoRA"] as const;
  return frozen.length > 0 ? (["full"] as const) : (["full", "LoRA"] as const);
}

/** 1, 2, 4, ... and the number itself. */
function rankCounts(most: number): number[] {
  const counts: number[] = [];
  for (let ranks = 1; ranks < most; ranks *= 2) counts.push(ranks);
  return [...counts, most];
}

/** An update of mean size on this adapter, and what the host does with gradients. */
async function measure(
  config: KtoConfig,
  output: Output,
): Promise<
  Pick<RankWork, "secondsPerUpdate" | "gradientBytes" | "hostBytesPerSecond" | "isSoftware"> &
    Pick<Planned, "momentBytes">
> {
  return await withDevice(config, output, async (device) => {
    const { policy, reference } = await loadForTraining(device, config, output);
    const { examples } = await loadTrainingRows({ policy, reference }, config, "pairs", output);
    const { specs, parameterCount } = trainedLayout(policy, config.freeze_parameters) ?? policy.trained.layout;
    const isCoded = ({ shape }: { readonly shape: readonly number[] }) =>
      momentFormatOf(config) === "8bit" && elementCount(shape) >= LEAST_CODED;
    // The ranks' own exchange is computed, not measured.
    const options = trainerOptions.partOf({ ...config, sync_every: undefined });
    const inputs = { policy, ...(reference ? { reference } : {}), examples, options };
    const { secondsPerUpdate } = await working(output, "measuring an update", () => KtoTrainer.time(inputs));
    const bytes = { gradientBytes: 4 * parameterCount, momentBytes: momentBytes(specs, isCoded) };
    const { isSoftware } = device;
    return { secondsPerUpdate, ...bytes, isSoftware, hostBytesPerSecond: await hostSpeed(device) };
  });
}

/** The table for people. */
function planLines(planned: readonly Planned[], config: PlanConfig): string[] {
  const rows = config.per_device_train_batch_size * config.gradient_accumulation_steps;
  const nameOf = ({ training, work: { syncEvery } }: Planned) =>
    syncEvery === undefined ? training : `${training}, sync_every ${syncEvery}`;
  const head = ["ranks", "rows of an update", ...planned.map(nameOf)];
  const counts = planned[0]?.updates.map(({ ranks }) => ranks) ?? [];
  const table = counts.map((ranks, i) => [
    String(ranks),
    String(ranks * rows),
    ...planned.map(({ updates }) => {
      const update = updates[i];
      return update === undefined ? "" : `${seconds(update.secondsPerUpdate)}, ${formatShare(update.efficiency)}`;
    }),
  ]);
  const lines = columns([head, ...table]);
  return [
    `An update of ${counted(rows, "row")} on each rank, over a link of ${config.link} ${config.ranks_per_machine === 1 ? "to each rank" : `to each ${config.ranks_per_machine} ranks`}: its time, and the share of the time in which the ranks compute.`,
    ...lines,
    ...planned.map((one) => {
      const sent = one.updates.at(-1)?.bytesSent ?? 0;
      return `${nameOf(one)}: a rank sends ${mebibytes(sent)} an update`;
    }),
    ...planned
      .filter(({ work }) => work.syncEvery === undefined)
      .map(({ training, work, momentBytes: bytes }) => {
        return `${training}: gradients of ${mebibytes(work.gradientBytes)}, optimizer state of ${mebibytes(bytes)}, of which each rank has ${mebibytes(bytes / config.ranks)} with shard_optimizer`;
      }),
    "The update on one rank was measured on this adapter, all else is computed from it (docs/scale.md).",
  ];
}

function seconds(value: number): string {
  return `${Number(value.toPrecision(3))} s`;
}
