/**
 * Times generation: tokens a second of sequences side by side, and how fast their passes read the weights. A pass reads
 * all of them once, however many sequences there are, so that a token of one sequence cannot be faster than a copy of
 * them.
 */
import type { Device } from "../src/engine/gpu/device.ts";
import { elementBytes } from "../src/engine/gpu/tensor.ts";
import { Generator } from "../src/engine/model/generate/generate.ts";
import { Model } from "../src/engine/model/model.ts";
import { Random } from "../src/engine/random.ts";
import { summary } from "./measure/measure.ts";
import { smolLM2Shape } from "./model-shapes.ts";

export interface GenerationCase {
  readonly name: string;
  readonly shape: string;
  readonly quick: boolean;
  /** A config.json; weights are random and bf16. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly sequences: number;
}

/** Cases with a model of 135 million parameters, which fit no cache. */
export const generationCases: readonly GenerationCase[] = [1, 4, 16].map((sequences) => ({
  name: `generation, ${sequences} ${sequences === 1 ? "sequence" : "sequences"}`,
  shape: "SmolLM2-135M in bf16, greedy",
  quick: false,
  config: smolLM2Shape,
  sequences,
}));

const PROMPT_TOKENS = 8;
/** Tokens of each sequence before those that are timed: compiling is behind them. */
const WARM_UP = 4;

export interface GenerationResult {
  /** Milliseconds of one pass, which gives a token of each sequence. */
  readonly medianMs: number;
  readonly spread: number;
  /** Multiply-adds with the weights, and their bytes, of one pass. */
  readonly flops: number;
  readonly bytes: number;
  readonly tokensPerSecond: number;
}

/** What times a generator of any version: its `generate`. */
export type Generates = Pick<Generator, "generate">;

export type GenerationSizes = Readonly<Record<"sequences" | "promptTokens" | "newTokens", number>>;

/** What a clock tells at each new token of the last of `sequences` random prompts. */
export async function tokenStamps<T>(
  generator: Generates,
  vocabSize: number,
  { sequences, promptTokens, newTokens }: GenerationSizes,
  clock: () => T,
): Promise<T[]> {
  const random = new Random(3);
  const prompts = Array.from({ length: sequences }, () =>
    Array.from({ length: promptTokens }, () => random.below(vocabSize)),
  );
  const stamps: T[] = [];
  await generator.generate(prompts, {
    ...{ maxNewTokens: newTokens, seed: 1, temperature: 0, topK: 0, topP: 1, eosTokenIds: [] },
    onToken: (index) => {
      if (index === sequences - 1) stamps.push(clock());
      return undefined;
    },
  });
  return stamps;
}

/** Milliseconds from each token to its next one. */
export async function passTimes(generator: Generates, vocabSize: number, sizes: GenerationSizes): Promise<number[]> {
  const stamps = await tokenStamps(generator, vocabSize, sizes, () => performance.now());
  return stamps.slice(1).map((stamp, i) => stamp - (stamps[i] ?? Number.NaN));
}

/** Device bytes of a model's weights. */
export function weightBytes({ layout }: Model): number {
  return layout.segments.reduce((sum, { size, dtype }) => sum + size * elementBytes(dtype), 0);
}

/** Loads the model of a folder, generates and frees both. */
export async function timeGeneration(
  device: Device,
  folder: string,
  { sequences }: GenerationCase,
  newTokens: number,
): Promise<GenerationResult> {
  const model = await Model.load(device, folder);
  const maxLength = PROMPT_TOKENS + WARM_UP + newTokens;
  const generator = new Generator(model, { maxBatch: sequences, maxLength });
  try {
    const sizes = { sequences, promptTokens: PROMPT_TOKENS, newTokens: WARM_UP + newTokens };
    const { medianMs, spread } = summary((await passTimes(generator, model.config.vocabSize, sizes)).slice(WARM_UP));
    return {
      medianMs,
      spread,
      flops: 2 * sequences * model.layout.parameterCount,
      bytes: weightBytes(model),
      tokensPerSecond: (1000 * sequences) / medianMs,
    };
  } finally {
    generator.free();
    model.free();
  }
}
