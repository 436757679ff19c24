/**
 * A whole decoder pass recorded into a program: embedding, layers, head; and the backward pass of region A into the
 * gradient arena. Knows rows and sequences, not what their log-probabilities are for.
 */
import type { ActivationFormat } from "../../kernels/kernel.ts";
import { scaleRows } from "../../kernels/scale.ts";
import { addUniformNoise, NOISE_STREAM } from "../../kernels/uniform-noise.ts";
import type { Arena, ParameterLayout } from "../gpu/arena.ts";
import type { Device } from "../gpu/device.ts";
import type { Program } from "../gpu/program.ts";
import { sliceRows, type Tensor } from "../gpu/tensor.ts";
import { Activations, type LayerActivations, normsAfter } from "./activations.ts";
import {
  type BackwardScratch,
  backwardWidths,
  partialsSize,
  recordBlockBackward,
  recordBlockForward,
} from "./block.ts";
import { longRopeBeyond, type ModelConfig } from "./config/config.ts";
import { deltaStateSize } from "./delta-net.ts";
import { recordEmbedding, recordEmbeddingBackward, recordLookup, recordLookupBackward } from "./embedding.ts";
import { HeadBuffers, type HeadPass, recordHeadBackward, recordHeadForward } from "./head.ts";
import type { LoraAdapter } from "./lora.ts";
import { recordGains } from "./lora-passes.ts";
import type { KeyCounts, LayerCache, PassRows, RecurrenceRows } from "./mixer.ts";
import type { Model } from "./model.ts";
import { embeddingScale } from "./norms.ts";
import { keysPerRow, type PackedRows, RowBuffer, type RowShape } from "./rows.ts";
import { segmentRanges } from "./segments.ts";

/**
 * Device memory of passes over a set of shapes: token rows, activations, head and, where gradients are wanted,
 * backward scratch. Passes of several models of one configuration may share it in turn.
 */
export class PassMemory {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly rows: RowBuffer;
  readonly activations: Activations;
  readonly head: HeadBuffers;
  readonly #backward: Record<keyof BackwardScratch, Tensor> | undefined;
  /** A recurrence's states between the dispatches of a layer. */
  readonly #states: Tensor | undefined;

  /**
   * @param options.format of activations; default f32
   * @param options.adapter of the model, or of the one model that has one; default none
   * @param options.checkpointing keep the inputs of layers only, and compute the rest again in the backward pass
   */
  constructor(
    device: Device,
    config: ModelConfig,
    shapes: readonly RowShape[],
    options: {
      readonly gradients: boolean;
      readonly format?: ActivationFormat | undefined;
      readonly checkpointing?: boolean | undefined;
      readonly adapter?: LoraAdapter | undefined;
    },
  ) {
    this.device = device;
    this.config = config;
    const { slidingWindow, deltaNet } = config;
    const needs = { slidingWindow, longBeyond: longRopeBeyond(config), segments: deltaNet !== undefined };
    this.rows = new RowBuffer(device, shapes, needs);
    const slots = Math.max(...shapes.map((shape) => segmentRanges(shape).slots));
    this.#states = deltaNet && device.allocate("scratch", "states", [slots, deltaStateSize(deltaNet)]);
    const keeps = !options.gradients ? "none" : options.checkpointing ? "inputs" : "all";
    this.activations = new Activations(device, config, shapes, keeps, options);
    this.head = new HeadBuffers(device, config, shapes, options.gradients, options);
    if (options.gradients) {
      const shapeOf = Object.entries(backwardWidths(config)).map(([name, width]) => {
        return [name, [Math.max(...shapes.map((shape) => this.#scratchRows(name, shape))), width]] as const;
      });
      this.#backward = Object.fromEntries(
        [...shapeOf, ["partials", [partialsSize(config)]] as const].map(([name, shape]) => {
          return [name, device.allocate("scratch", name, shape)];
        }),
      ) as Record<keyof BackwardScratch, Tensor>;
    }
  }

  backward(shape: RowShape): BackwardScratch {
    if (this.#backward === undefined) throw new Error("this memory has no room for gradients");
    const { partials, ...rest } = this.#backward;
    const rows = Object.fromEntries(
      Object.entries(rest).map(([name, tensor]) => [name, sliceRows(tensor, 0, this.#scratchRows(name, shape))]),
    ) as Omit<Record<keyof BackwardScratch, Tensor>, "partials">;
    return { ...rows, partials };
  }

  /** Rows of a scratch buffer: region A's, or of the MLP's those of a slice. */
  #scratchRows(name: string, shape: RowShape): number {
    const slice = name === "dActivated" || name === "dUp" ? this.activations.mlpSlice(shape) : undefined;
    return Math.min(shape.gradientRows, slice ?? shape.gradientRows);
  }

  /** What a recurrence needs of the rows of a shape; undefined for models without one. */
  recurrence(shape: RowShape): RecurrenceRows | undefined {
    const { segments } = this.rows.tensors(shape);
    if (segments === undefined || this.#states === undefined) return undefined;
    const { dispatches, backward, slots } = segmentRanges(shape);
    return { segments, dispatches, backward, states: sliceRows(this.#states, 0, slots) };
  }

  upload(packed: PackedRows): void {
    this.rows.upload(packed);
  }

  /** The head of a pass of the model over this memory. */
  headPass(program: Program, model: Model, shape: RowShape): HeadPass {
    return { program, model, buffers: this.head, shape, rows: this.rows.tensors(shape) };
  }

  free(): void {
    this.rows.free();
    this.activations.free();
    this.head.free();
    if (this.#states) this.device.free(this.#states);
    for (const tensor of Object.values(this.#backward ?? {})) this.device.free(tensor);
  }
}

/** Records embedding and layers over rows; returns the last layer's output [T, C]. */
export function recordLayers(
  program: Program,
  model: Model,
  activations: Activations,
  shape: RowShape,
  inputs: Omit<PassRows, "lora" | "mlpSlice" | keyof KeyCounts> & {
    readonly tokens: Tensor;
    /** u32[T], of passes that draw. */
    readonly drawKeys?: Tensor;
  },
  { cache, noise }: { readonly cache?: LayerCache; readonly noise?: EmbeddingNoise | undefined } = {},
): Tensor {
  const { config } = model;
  const { drawKeys } = inputs;
  const ofMemory = {
    lora: activations.lora && { ...activations.lora, drawKeys },
    mlpSlice: activations.mlpSlice(shape),
  };
  const rows = { ...inputs, ...keyCounts(config, shape, cache !== undefined), ...ofMemory };
  const first = activations.layer(shape, 0).input;
  // Passes of generation, which are many, have this done once before them.
  if (rows.lora && model.adapter && cache === undefined) recordGains(program, model.adapter, model, rows.lora);
  recordLookup(program, model.parameter("embedding"), rows.tokens, first, false);
  const embedding = rows.lora && model.adapter?.special("embedding");
  if (rows.lora && embedding) recordEmbedding(program, model, embedding, rows.tokens, first, rows.lora);
  const addNoise = () => {
    if (noise && drawKeys)
      program.dispatch(addUniformNoise, { ...noise, keys: drawKeys, y: first, stream: NOISE_STREAM });
  };
  // It goes onto what Hugging Face's module of the embedding gives, which scales in Gemma 3 alone.
  const scalesItself = config.modelType.startsWith("gemma3");
  if (!scalesItself) addNoise();
  recordScale(program, first, embeddingScale(config));
  if (scalesItself) addNoise();
  if (config.position === "learned") {
    recordLookup(program, model.parameter("positions"), rows.positions, first, true);
  }
  for (let layer = 0; layer < config.layers; layer++) {
    const next = activations.layer(shape, layer + 1).input;
    recordBlockForward(program, model, layer, activations.layer(shape, layer), next, rows, cache);
  }
  return activations.layer(shape, config.layers).input;
}

/**
 * What `PassRows` holds of the numbers of keys. With a cache rows see keys of earlier passes, of the whole sequence at
 * most.
 */
function keyCounts({ slidingWindow: window }: ModelConfig, shape: RowShape, cached: boolean): KeyCounts {
  const keys = (most?: number) => (cached ? Math.min(shape.longest, most ?? shape.longest) : keysPerRow(shape, most));
  return { keysPerRow: keys(), windowKeysPerRow: window === undefined ? undefined : keys(window) };
}

/**
 * A bound on positions: a sequence and its branch lie in the rows of the shape, so each position is below their number.
 */
export function positionLimit(shape: RowShape): number {
  return shape.gradientRows + shape.branchRows;
}

/** NEFTune's noise on the embeddings of a pass: what it is drawn by, u32[2], and how far it goes, f32[1]. */
export interface EmbeddingNoise {
  readonly state: Tensor;
  readonly amplitude: Tensor;
}

/**
 * Records log-probabilities summed per sequence: sums [S], region A's sequences first.
 *
 * @param noise of training
 */
export function recordLogProbs(
  program: Program,
  model: Model,
  memory: PassMemory,
  shape: RowShape,
  sums: Tensor,
  noise?: EmbeddingNoise,
): void {
  const rows = memory.rows.tensors(shape);
  const passRows = { ...rows, positionLimit: positionLimit(shape), recurrence: memory.recurrence(shape) };
  const output = recordLayers(program, model, memory.activations, shape, passRows, { noise });
  recordHeadForward(memory.headPass(program, model, shape), output, sums);
}

/**
 * Records the backward pass that follows `recordLogProbs` over the same memory and shape:
 * gradients += sum over sequences s of region A of coefficients[s] dLogProb[s] / dParameter.
 *
 * @param coefficients f32[m]
 * @param gradients of the parameters that are trained: all of them, or the adapter's
 * @param afterLayer called while recording behind each layer, from the last to the lowest that is trained: nothing that
 * is recorded later changes the gradients of its parameters (of the model itself, not of an adapter)
 */
export function recordGradients(
  program: Program,
  model: Model,
  gradients: Arena,
  memory: PassMemory,
  shape: RowShape,
  coefficients: Tensor,
  afterLayer?: (layer: number) => void,
): void {
  recordHeadBackward(memory.headPass(program, model, shape), gradients, coefficients, memory.backward(shape));
  recordLayersBackward(program, model, gradients, memory, shape, afterLayer);
  model.adapter?.recordFrozenParts(program, gradients);
}

/**
 * Records the backward pass of embedding and layers, from the gradient of the last layer's output in the scratch's
 * `dx`.
 */
export function recordLayersBackward(
  program: Program,
  model: Model,
  gradients: Arena,
  memory: PassMemory,
  shape: RowShape,
  afterLayer?: (layer: number) => void,
): void {
  const { config } = model;
  const rows = memory.rows.tensors(shape);
  const scratch = memory.backward(shape);
  const firstRows = (tensor: Tensor) => sliceRows(tensor, 0, shape.gradientRows);
  const recurrence = memory.recurrence(shape);
  const passRows = {
    // A layer that is computed again has region A's rows alone, which are whole sequences.
    recurrence: recurrence && { ...recurrence, dispatches: [recurrence.backward] },
    positions: firstRows(rows.positions),
    positionLimit: positionLimit(shape),
    ...keyCounts(config, { ...shape, branchRows: 0 }, false),
    ranges: firstRows(rows.ranges),
    windowRanges: rows.windowRanges && firstRows(rows.windowRanges),
    queryEnd: rows.queryEnd,
    windowQueryEnd: rows.windowQueryEnd,
    lora: memory.activations.lora && { ...memory.activations.lora, drawKeys: firstRows(rows.drawKeys) },
    mlpSlice: memory.activations.mlpSlice(shape),
  };
  for (let layer = config.layers - 1; layer >= lowestTrainedLayer(gradients); layer--) {
    const here = gradientRowsOf(memory.activations.layer(shape, layer), shape);
    // With checkpointing all layers share one place, which still holds the last layer's activations.
    if (memory.activations.keeps === "inputs" && layer < config.layers - 1) {
      const next = gradientRowsOf(memory.activations.layer(shape, layer + 1), shape).input;
      // A norm of the layer's result has statistics of its own; the result is the next input again, to the bit.
      recordBlockForward(program, model, layer, here, normsAfter(config) ? next : undefined, passRows);
    }
    recordBlockBackward(program, model, gradients, layer, here, scratch, passRows);
    afterLayer?.(layer);
  }
  if (gradients.has("positions")) {
    recordLookupBackward(program, scratch.dx, gradients.window("positions"), {
      order: rows.positionOrder,
      bucketIds: rows.positionBuckets,
      bucketStarts: rows.positionStarts,
    });
  }
  const adapted = passRows.lora && model.adapter?.special("embedding");
  if (!gradients.has("embedding") && !adapted) return;
  recordScale(program, scratch.dx, embeddingScale(config));
  const buckets = { order: rows.tokenOrder, bucketIds: rows.tokenBuckets, bucketStarts: rows.tokenStarts };
  if (gradients.has("embedding")) {
    recordLookupBackward(program, scratch.dx, gradients.window("embedding"), buckets);
  } else if (passRows.lora && adapted) {
    const args = { tokens: firstRows(rows.tokens), dy: scratch.dx, partials: scratch.partials, ...buckets };
    recordEmbeddingBackward(program, model, adapted, gradients, args, passRows.lora);
  }
}

/** A layer's activations of region A; of those that have the rows of a slice, at most these. */
function gradientRowsOf(activations: LayerActivations, { gradientRows }: RowShape): LayerActivations {
  const windows = Object.entries(activations).map(([kind, x]) => {
    return [kind, sliceRows(x, 0, Math.min(gradientRows, x.shape[0] ?? 0))];
  });
  return Object.fromEntries(windows) as LayerActivations;
}

/** The layer that a parameter is part of; undefined for those of no layer. */
function layerOf(name: string): number | undefined {
  const layer = /^\w+\.(\d+)\./.exec(name)?.[1];
  return layer === undefined ? undefined : Number(layer);
}

/**
 * The trained parameters by when their gradients are final in a backward pass: those of the last layer first, those of
 * no layer at the end. An adapter's are few, and its frozen parts are cleared at the end.
 */
export function gradientStages(layout: ParameterLayout, { config, adapter }: Model): string[][] {
  const stages = Array.from({ length: config.layers + 1 }, (): string[] => []);
  for (const { name } of layout.specs) {
    const layer = adapter ? undefined : layerOf(name);
    stages[layer === undefined ? config.layers : config.layers - 1 - layer]?.push(name);
  }
  return stages;
}

/** The layer below which nothing is trained, so that no gradient is needed there. */
function lowestTrainedLayer({ layout }: Arena): number {
  if (layout.has("embedding") || layout.has("positions")) return 0;
  const layers = layout.specs.map(({ name }) => {
    if (name.includes(".lora_embedding_")) return 0;
    return layerOf(name) ?? Number.POSITIVE_INFINITY;
  });
  return Math.min(...layers);
}

/** Records x *= factor. */
function recordScale(program: Program, x: Tensor, factor: number): void {
  if (factor !== 1) program.dispatch(scaleRows, { x, factor });
}
