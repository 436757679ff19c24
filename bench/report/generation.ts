/**
 * Part of the report: tokens a second of one sequence and of sixteen side by side, against the bandwidth of a copy:
 * every pass reads all weights once, so a token of one sequence cannot be faster than that.
 */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Generator } from "../../src/engine/model/generate/generate.ts";
import { Model } from "../../src/engine/model/model.ts";
import { passTimes } from "../generation.ts";
import { summary } from "../measure/measure.ts";
import type { Peaks } from "../measure/peaks.ts";
import { smolLM2Shape } from "../model-shapes.ts";
import { stories260K } from "../step.ts";
import { Budget } from "./budget.ts";
import { generationSeconds, modelSize } from "./estimates.ts";
import type { Finding, PartContext } from "./finding.ts";
import { measureModel, type RunningPart } from "./model-folder.ts";

/** The larger one does not fit caches. */
const small = { name: "stories260K", shape: stories260K };
const large = { name: "SmolLM2-135M", shape: smolLM2Shape };

const SEQUENCES = [1, 16];
const PROMPT_TOKENS = 32;
const NEW_TOKENS = 64;
/** Bytes of a weight as the random models store it. */
const BF16_BYTES = 2;

export async function generationPart(context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const part = { context, budget: new Budget(context.seconds), emit };
  for (const sequences of SEQUENCES) await generate(context.quick ? small : large, sequences, part);
}

async function generate({ name, shape }: typeof small | typeof large, sequences: number, part: RunningPart) {
  const size = modelSize(shape);
  // Norms are f32 and too few to count.
  const weightBytes = BF16_BYTES * size.parameters;
  const seconds = (peaks: Peaks, software: boolean) =>
    generationSeconds(size, { weightBytes, sequences, passes: 2 * (1 + NEW_TOKENS), software }, peaks);
  const figures = async (device: Device, folder: string, { gbps }: Peaks) => {
    const model = await Model.load(device, folder);
    const generator = new Generator(model, { maxBatch: sequences, maxLength: PROMPT_TOKENS + NEW_TOKENS });
    // Once to compile, then timed: the prompts' pass is left out.
    const sizes = { sequences, promptTokens: PROMPT_TOKENS, newTokens: NEW_TOKENS };
    await passTimes(generator, model.config.vocabSize, sizes);
    const times = await passTimes(generator, model.config.vocabSize, sizes);
    generator.free();
    model.free();
    const passesPerSecond = 1000 / summary(times).medianMs;
    return {
      model: name,
      sequences,
      new_tokens: NEW_TOKENS,
      tokens_per_second: sequences * passesPerSecond,
      weight_bytes: weightBytes,
      share_of_copy: (weightBytes * passesPerSecond) / 1e9 / gbps,
      peak_bytes: device.peakBytes,
    };
  };
  const title = `${name}, ${sequences} ${sequences === 1 ? "sequence" : "sequences"}`;
  await measureModel({ name: title, model: { name: `${name} generation`, shape }, seconds, figures }, part);
}
