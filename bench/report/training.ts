/**
 * Part of the report: KTO updates of three models' shapes with random weights, in rows of 512 and of 2,048 tokens. What
 * is estimated to take longer than there is time for is left out.
 */
import type { Device } from "../../src/engine/gpu/device.ts";
import type { Peaks } from "../measure/peaks.ts";
import type { StepRows } from "../measure/peer-work.ts";
import { qwen3Shape, smolLM2Shape } from "../model-shapes.ts";
import { stories260K, timeStep } from "../step.ts";
import { Budget } from "./budget.ts";
import { modelSize, trainingSeconds, updateFlops } from "./estimates.ts";
import type { Finding, PartContext } from "./finding.ts";
import { measureModel, type RunningPart } from "./model-folder.ts";

export interface TrainedModel {
  readonly name: string;
  readonly shape: Readonly<Record<string, unknown>>;
  readonly quick: boolean;
  readonly loraRank?: number;
  /** Products on 16-bit operands, where the adapter has matrices; left out where it has none, since it is f32 then. */
  readonly bf16?: boolean;
}

const models: readonly TrainedModel[] = [
  { name: "stories260K", shape: { ...stories260K, max_position_embeddings: 2048 }, quick: true },
  { name: "SmolLM2-135M", shape: smolLM2Shape, quick: false },
  { name: "SmolLM2-135M, bf16", shape: smolLM2Shape, quick: false, bf16: true },
  { name: "Qwen3-0.6B, LoRA", shape: qwen3Shape, quick: false, loraRank: 16 },
  { name: "Qwen3-0.6B, LoRA, bf16", shape: qwen3Shape, quick: false, loraRank: 16, bf16: true },
];

const batches: readonly StepRows[] = [
  { rows: 4, prompt: 256, completion: 256 },
  { rows: 2, prompt: 1024, completion: 1024 },
];

/** Updates that are timed; two come before them, as many again show the host's share, and one is profiled. */
const TIMED_UPDATES = 2;
const UPDATES = 2 + 2 * TIMED_UPDATES + 1;

type TrainingCase = ReturnType<typeof trainingCases>[number];

/** The models and batches of a report, the smallest first. */
export function trainingCases(quick: boolean) {
  return models
    .filter((model) => model.quick || !quick)
    .flatMap((model) =>
      batches.map((batch) => ({ model, batch, name: `${model.name}, ${batch.rows} rows of ${tokens(batch)} tokens` })),
    );
}

const tokens = ({ prompt, completion }: StepRows) => prompt + completion;

/** Trains each case that there is time for. */
export async function trainingPart(context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const part = { context, budget: new Budget(context.seconds), emit };
  const hasMatrices = context.peaks?.matrixGflops !== undefined;
  for (const one of trainingCases(context.quick)) if (hasMatrices || !one.model.bf16) await train(one, part);
}

async function train({ model, batch, name }: TrainingCase, part: RunningPart): Promise<void> {
  const { loraRank, bf16 = false } = model;
  const size = modelSize(model.shape);
  const { matmuls, attention } = updateFlops(size, batch, loraRank === undefined);
  const flops = matmuls + attention;
  const seconds = (peaks: Peaks, software: boolean) =>
    trainingSeconds(size, { flops, updates: UPDATES, software }, peaks);
  const figures = async (device: Device, folder: string, peaks: Peaks) => {
    const result = await timeStep(
      device,
      folder,
      { batch, options: { bf16 }, ...(loraRank ? { loraRank } : {}) },
      TIMED_UPDATES,
    );
    const gflops = flops / result.medianMs / 1e6;
    return {
      model: model.name,
      parameters: size.parameters,
      trained: loraRank === undefined ? "all weights in f32" : `LoRA r ${loraRank} on a bf16 base`,
      rows: batch.rows,
      row_tokens: tokens(batch),
      tokens_per_second: result.tokensPerSecond,
      median_ms: result.medianMs,
      first_ms: result.firstMs,
      flops,
      attention_flops: attention,
      gflops,
      bf16,
      share_of_peak: gflops / ((bf16 ? peaks.matrixGflops : undefined) ?? peaks.gflops),
      peak_bytes: device.peakBytes,
      host_share: (result.host.packMs + result.host.submitMs) / result.medianMs,
      kernels: result.kernels.slice(0, 12).map((kernel) => ({ ...kernel })),
    };
  };
  await measureModel({ name, model, seconds, figures }, part);
}
