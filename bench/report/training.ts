/**
 * Part of the report: KTO updates of three models' shapes with random weights, in rows of 512 and of 2,048 tokens. What
 * is estimated to take longer than there is time for is left out.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { qwen3Shape, smolLM2Shape } from "../model-shapes.ts";
import { stories260K, timeStep } from "../step.ts";
import { attempt } from "./attempt.ts";
import { Budget } from "./budget.ts";
import { modelSize, trainingSeconds, updateFlops } from "./estimates.ts";
import type { Finding, PartContext } from "./finding.ts";
import { randomModelFolder } from "./model-folder.ts";

export interface TrainedModel {
  readonly name: string;
  readonly shape: Readonly<Record<string, unknown>>;
  readonly quick: boolean;
  readonly loraRank?: number;
}

const models: readonly TrainedModel[] = [
  { name: "stories260K", shape: { ...stories260K, max_position_embeddings: 2048 }, quick: true },
  { name: "SmolLM2-135M", shape: smolLM2Shape, quick: false },
  { name: "Qwen3-0.6B, LoRA", shape: qwen3Shape, quick: false, loraRank: 16 },
];

const batches: readonly StepRows[] = [
  { rows: 4, prompt: 256, completion: 256 },
  { rows: 2, prompt: 1024, completion: 1024 },
];

/** Updates that are timed; two come before them, as many again show the host's share, and one is profiled. */
const TIMED_UPDATES = 2;
const UPDATES = 2 + 2 * TIMED_UPDATES + 1;

/** The models and batches of a report, the smallest first. */
export function trainingCases(
  quick: boolean,
): { readonly model: TrainedModel; readonly batch: StepRows; readonly name: string }[] {
  return models
    .filter((model) => model.quick || !quick)
    .flatMap((model) =>
      batches.map((batch) => ({ model, batch, name: `${model.name}, ${batch.rows} rows of ${tokens(batch)} tokens` })),
    );
}

const tokens = ({ prompt, completion }: StepRows) => prompt + completion;

/** Trains each case that there is time for. */
export async function trainingPart(context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const budget = new Budget(context.seconds);
  for (const { model, batch, name } of trainingCases(context.quick)) {
    await attempt(name, emit, () => train(model, batch, name, { context, budget, emit }));
  }
}

async function train(
  model: TrainedModel,
  batch: StepRows,
  name: string,
  { context, budget, emit }: { context: PartContext; budget: Budget; emit: (finding: Finding) => void },
): Promise<void> {
  const { scratch, peaks } = context;
  if (peaks === undefined) throw new Error("the adapter's peaks were not measured, which estimates and shares need");
  const device = await Device.open();
  try {
    const size = modelSize(model.shape);
    const { matmuls, attention } = updateFlops(size, batch, model.loraRank === undefined);
    const flops = matmuls + attention;
    const work = { flops, updates: UPDATES, software: device.isSoftware };
    const leftOut = budget.leavesOut(name, trainingSeconds(size, work, peaks));
    if (leftOut !== undefined) return emit(leftOut);
    const folder = await randomModelFolder(scratch, model);
    const result = await timeStep(
      device,
      folder,
      { batch, ...(model.loraRank ? { loraRank: model.loraRank } : {}) },
      TIMED_UPDATES,
    );
    const gflops = flops / result.medianMs / 1e6;
    emit({
      kind: "result",
      name,
      figures: {
        model: model.name,
        parameters: size.parameters,
        trained: model.loraRank === undefined ? "all weights in f32" : `LoRA r ${model.loraRank} on a bf16 base`,
        rows: batch.rows,
        row_tokens: tokens(batch),
        tokens_per_second: result.tokensPerSecond,
        median_ms: result.medianMs,
        first_ms: result.firstMs,
        flops,
        attention_flops: attention,
        gflops,
        share_of_peak: gflops / peaks.gflops,
        peak_bytes: device.peakBytes,
        host_share: (result.host.packMs + result.host.submitMs) / result.medianMs,
        kernels: result.kernels.slice(0, 12).map((kernel) => ({ ...kernel })),
      },
    });
  } finally {
    device.close();
  }
}
