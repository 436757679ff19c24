/**
 * Part of the report: tokens a second of one sequence and of sixteen side by side, against the bandwidth of a copy:
 * every pass reads all weights once, so a token of one sequence cannot be faster than that.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { Model } from "../../src/engine/model/model.ts";
import { passTimes } from "../generation.ts";
import { summary } from "../measure/measure.ts";
import { smolLM2Shape } from "../model-shapes.ts";
import { stories260K } from "../step.ts";
import { attempt } from "./attempt.ts";
import { Budget } from "./budget.ts";
import { generationSeconds, modelSize } from "./estimates.ts";
import type { Finding, PartContext } from "./finding.ts";
import { randomModelFolder } from "./model-folder.ts";

/** The larger one does not fit caches. */
const small = { name: "stories260K", shape: stories260K };
const large = { name: "SmolLM2-135M", shape: smolLM2Shape };

const SEQUENCES = [1, 16];
const PROMPT_TOKENS = 32;
const NEW_TOKENS = 64;
/** Bytes of a weight as the random models store it. */
const BF16_BYTES = 2;

export async function generationPart(context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const budget = new Budget(context.seconds);
  const model = context.quick ? small : large;
  for (const sequences of SEQUENCES) {
    const name = `${model.name}, ${sequences} ${sequences === 1 ? "sequence" : "sequences"}`;
    await attempt(name, emit, () => generate(model, sequences, name, { context, budget, emit }));
  }
}

async function generate(
  { name: modelName, shape }: typeof small | typeof large,
  sequences: number,
  name: string,
  { context, budget, emit }: { context: PartContext; budget: Budget; emit: (finding: Finding) => void },
): Promise<void> {
  const { scratch, peaks } = context;
  if (peaks === undefined) throw new Error("the adapter's peaks were not measured, which estimates and shares need");
  const device = await Device.open();
  try {
    const size = modelSize(shape);
    // Norms are f32 and too few to count.
    const weightBytes = BF16_BYTES * size.parameters;
    const work = { weightBytes, sequences, passes: 2 * (1 + NEW_TOKENS), software: device.isSoftware };
    const leftOut = budget.leavesOut(name, generationSeconds(size, work, peaks));
    if (leftOut !== undefined) return emit(leftOut);
    const folder = await randomModelFolder(scratch, { name: `${modelName} generation`, shape });
    const model = await Model.load(device, folder);
    const generator = new Generator(model, { maxBatch: sequences, maxLength: PROMPT_TOKENS + NEW_TOKENS });
    // Once to compile, then timed: the prompts' pass is left out.
    const sizes = { sequences, promptTokens: PROMPT_TOKENS, newTokens: NEW_TOKENS };
    await passTimes(generator, model.config.vocabSize, sizes);
    const times = await passTimes(generator, model.config.vocabSize, sizes);
    generator.free();
    model.free();
    const passesPerSecond = 1000 / summary(times).medianMs;
    emit({
      kind: "result",
      name,
      figures: {
        model: modelName,
        sequences,
        new_tokens: NEW_TOKENS,
        tokens_per_second: sequences * passesPerSecond,
        weight_bytes: weightBytes,
        share_of_copy: (weightBytes * passesPerSecond) / 1e9 / peaks.gbps,
        peak_bytes: device.peakBytes,
      },
    });
  } finally {
    device.close();
  }
}
