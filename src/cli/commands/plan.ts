/**
 * `kto plan`: how the time of an update grows with ranks and link. One update is measured here, on one rank; the rest is
 * the model of `src/kto/report/scaling.ts`.
 */
import type { Device } from "../../engine/gpu/device.ts";
import { trainedLayout } from "../../engine/model/freezing.ts";
import { counted, mebibytes } from "../../errors.ts";
import { type KtoConfig, trainerOptions } from "../../kto/options/kto.ts";
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

interface Planned {
  readonly training: "full" | "LoRA";
  readonly work: RankWork;
  readonly updates: readonly ScaledUpdate[];
}

async function runPlan(config: PlanConfig, output: Output): Promise<void> {
  const link = linkOf(config.link);
  if (link === undefined) throw new Error("a link that the options let through");
  const counts = rankCounts(config.ranks);
  const planned: Planned[] = [];
  for (const training of trainingsOf(config)) {
    const measured = await measure({ ...config, use_peft: training === "LoRA" }, output);
    const work: RankWork = {
      ...measured,
      microbatches: config.gradient_accumulation_steps,
      ranksPerMachine: config.ranks_per_machine,
    };
    planned.push({ training, work, updates: counts.map((ranks) => scaledUpdate(ranks, work, link)) });
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
): Promise<Pick<RankWork, "secondsPerUpdate" | "gradientBytes" | "hostBytesPerSecond">> {
  return await withDevice(config, output, async (device) => {
    const { policy, reference } = await loadForTraining(device, config, output);
    const { examples } = await loadTrainingRows({ policy, reference }, config, "pairs", output);
    const all = policy.adapter?.parameterCount ?? policy.layout.parameterCount;
    const gradientBytes = 4 * (trainedLayout(policy, config.freeze_parameters)?.parameterCount ?? all);
    const inputs = { policy, ...(reference ? { reference } : {}), examples, options: trainerOptions.partOf(config) };
    const { secondsPerUpdate } = await working(output, "measuring an update", () => KtoTrainer.time(inputs));
    return { secondsPerUpdate, gradientBytes, hostBytesPerSecond: await hostSpeed(device) };
  });
}

/** Bytes a second of what the host does with a piece of gradients: reads it back, adds another rank's, writes it. */
async function hostSpeed(device: Device): Promise<number> {
  const size = 2 ** 20;
  const tensor = device.allocate("gradients", "piece of gradients", [size]);
  try {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 3; round++) {
      const started = performance.now();
      const own = await device.download(tensor);
      const sums = new Float64Array(size);
      for (let rank = 0; rank < 2; rank++) for (let i = 0; i < size; i++) sums[i] = (sums[i] ?? 0) + (own[i] ?? 0);
      device.upload(tensor, Float32Array.from(sums));
      await device.idle();
      best = Math.min(best, performance.now() - started);
    }
    return (4 * size) / (best / 1000);
  } finally {
    device.free(tensor);
  }
}

/** The table for people. */
function planLines(planned: readonly Planned[], config: PlanConfig): string[] {
  const rows = config.per_device_train_batch_size * config.gradient_accumulation_steps;
  const head = ["ranks", "rows of an update", ...planned.map(({ training }) => training)];
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
    ...planned.map(
      (one) =>
        `${one.training}: gradients of ${mebibytes(one.work.gradientBytes)}; a rank sends ${mebibytes(one.updates.at(-1)?.bytesSent ?? 0)} an update`,
    ),
    "The update on one rank was measured on this adapter, all else is computed from it (docs/scale.md).",
  ];
}

function seconds(value: number): string {
  return `${Number(value.toPrecision(3))} s`;
}
