/**
 * How long training and generation would take on an adapter, from their floating-point operations and the adapter's
 * measured peaks, before anything is run. Rough on purpose: it decides what is left out, and is no result.
 */
import { elementCount } from "../../src/engine/gpu/tensor.ts";
import { parseModelConfig } from "../../src/engine/model/config/config.ts";
import { parameterSpecs } from "../../src/engine/model/weights/parameters.ts";
import type { Peaks } from "../measure/peaks.ts";
import type { StepRows } from "../measure/peer-work.ts";

/** Shares of the peaks that are taken for certain: what an adapter that we do not know reaches at least. */
const SHARE_OF_FLOPS = 0.25;
const SHARE_OF_COPY = 0.25;
/** Seconds of one pass or update that are dispatches and not work, of models with hundreds of dispatches. */
const PASS_SECONDS = 0.02;
/** Seconds a parameter: written to disk in bf16, read and uploaded. */
const PARAMETER_SECONDS = 6e-8;
/** Compiling a training step's kernels. A software adapter compiles the machine code itself. */
const COMPILE_SECONDS = { hardware: 5, software: 10 } as const;

type ModelSize = ReturnType<typeof modelSize>;

/** @param shape a config.json */
export function modelSize(shape: Readonly<Record<string, unknown>>) {
  const config = parseModelConfig(JSON.stringify(shape), "config.json");
  const specs = parameterSpecs(config);
  const count = (chosen: typeof specs) => chosen.reduce((sum, spec) => sum + elementCount(spec.shape), 0);
  return {
    parameters: count(specs),
    /** Parameters of the blocks' matrices, which every token meets. */
    blocks: count(specs.filter(({ name, shape }) => name.startsWith("layers.") && shape.length > 1)),
    /** Elements of the head's matrix, by which completion tokens are multiplied. */
    head: config.vocabSize * config.hiddenSize,
    layers: config.layers,
    attentionWidth: config.heads * config.headSize,
  };
}

/**
 * Floating-point operations of one KTO update, those of attention on their own, since kernels do not know how many keys
 * a row has: the policy and its reference read every row and, after the same prompt, the completion of another row;
 * gradients flow through the rows alone. With an adapter the weights get no gradients. What is computed a second time,
 * logits and scores in the backward pass, counts twice.
 */
export function updateFlops(size: ModelSize, { rows, prompt, completion }: StepRows, trainsWeights: boolean) {
  const [read, trained] = [rows * (prompt + 2 * completion), rows * (prompt + completion)];
  const scored = rows * completion;
  // A multiply-add is two operations.
  const forward = 2 * (size.blocks * read + size.head * 2 * scored);
  const backward = 2 * (size.blocks * trained + size.head * 2 * scored);
  const weights = trainsWeights ? 2 * (size.blocks * trained + size.head * scored) : 0;
  // Keys over all query rows: each sees itself and what stands before it.
  const keys = (from: number, to: number) => (to * (to + 1) - from * (from + 1)) / 2;
  const rowKeys = rows * keys(0, prompt + completion);
  const readKeys = rowKeys + rows * keys(prompt, prompt + completion);
  // Two products forward; backward three for the queries and four for keys and values.
  const attention = 2 * size.layers * size.attentionWidth * (2 * 2 * readKeys + 7 * rowKeys);
  return { matmuls: 2 * forward + backward + weights, attention };
}

/** Seconds to write the model, load it, compile the step and make this many updates. */
export function trainingSeconds(
  size: ModelSize,
  work: { readonly flops: number; readonly updates: number; readonly software: boolean },
  { gflops }: Peaks,
): number {
  const update = work.flops / (SHARE_OF_FLOPS * gflops * 1e9) + PASS_SECONDS;
  return preparationSeconds(size, work.software) + work.updates * update;
}

/** Seconds to write the model, load it and generate: every pass reads all weights and computes for each sequence. */
export function generationSeconds(
  size: ModelSize,
  work: {
    readonly weightBytes: number;
    readonly sequences: number;
    readonly passes: number;
    readonly software: boolean;
  },
  { gflops, gbps }: Peaks,
): number {
  const reading = work.weightBytes / (SHARE_OF_COPY * gbps * 1e9);
  const computing = (2 * (size.blocks + size.head) * work.sequences) / (SHARE_OF_FLOPS * gflops * 1e9);
  return preparationSeconds(size, work.software) + work.passes * (reading + computing + PASS_SECONDS);
}

function preparationSeconds(size: ModelSize, software: boolean): number {
  return PARAMETER_SECONDS * size.parameters + COMPILE_SECONDS[software ? "software" : "hardware"];
}
