/**
 * Device memory of a pass: what a layer computes, one buffer a kind, or several where the layers' rows exceed
 * `Device.bufferLimit`. When activations are kept for the backward pass, layer l owns the rows [l A, l A + A) of each
 * kind (A: rows of region A) and writes A + B rows from l A on: the rows of region B spill into the place of layer
 * l + 1, which is written only when they are no longer needed. So region B costs its rows once a buffer, not once a
 * layer. Of a kind that only some layers have, these are counted alone. What is not kept has one place for all layers:
 * everything in a pass without gradients, everything but the layers' inputs with gradient checkpointing (Chen et al.
 * 2016), which computes a layer again from its input. What the MLP computes, the widest kinds, is not kept either where
 * a layer's rows of it exceed that limit: the MLP is walked in slices of rows, which share one place (`mlp.ts`).
 *
 * The format is that of what layers compute between the places where they add to the residual stream. The stream itself
 * is f32, since it adds up over the layers, and so are the statistics of reductions.
 */
import type { ActivationFormat, ElementType } from "../../kernels/kernel.ts";
import type { Device } from "../gpu/device.ts";
import { elementBytes, type Tensor, WINDOW_ALIGNMENT } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config/config.ts";
import type { MixerType } from "./config/mixer-keys.ts";
import type { LoraAdapter } from "./lora.ts";
import type { LoraScratch } from "./lora-passes.ts";
import type { RowShape } from "./rows.ts";
import { deltaWidths } from "./weights/parameters.ts";

/** Columns of each kind of activation of one layer; 0 where the configuration does not have the kind. */
export function layerKinds(config: ModelConfig) {
  const { hiddenSize, intermediateSize } = config;
  const [before, after] = [normsBefore(config), normsAfter(config)].map((norms) => (norms ? 1 : 0)) as [0 | 1, 0 | 1];
  return {
    input: hiddenSize,
    attentionNormed: before * hiddenSize,
    attentionStats: before * 2,
    ...mixerKinds(config),
    attentionBranch: after * hiddenSize,
    attentionBranchStats: after * 2,
    middle: hiddenSize,
    mlpNormed: before * hiddenSize,
    mlpStats: before * 2,
    up: upWidth(config),
    activated: intermediateSize,
    mlpBranch: after * hiddenSize,
    mlpBranchStats: after * 2,
  };
}

/** The kinds of what mixes tokens, which only the layers with that mixer have. */
function mixerKinds(config: ModelConfig) {
  const has = (mixer: MixerType) => Number(hasMixer(config, mixer));
  const [attends, convolves, gate] = [has("attention"), has("convolution"), Number(config.attentionGate)];
  const attention = attends * config.heads * config.headSize;
  const { qkv, values } = deltaWidths(config);
  const valueHeads = config.deltaNet?.valueHeads ?? 0;
  return {
    gatedQkv: gate * (attends * qkvWidth(config) + attention),
    qkv: attends * qkvWidth(config),
    qkNormed: attends * (config.qkNorm === "none" ? 0 : qkHeads(config) * config.headSize),
    qkInverse: attends * { none: 0, head: qkHeads(config), width: 2 }[config.qkNorm],
    attention,
    logSumExp: attends * config.heads,
    gatedAttention: gate * attention,
    convolutionInput: convolves * 3 * config.hiddenSize,
    convolved: convolves * config.hiddenSize,
    deltaInput: qkv + values + 2 * valueHeads,
    deltaQkv: qkv,
    deltaFactors: 4 * valueHeads,
    deltas: values,
    deltaOut: values,
    deltaInverse: valueHeads,
    deltaNormed: values,
  };
}

/** The mixer of the kinds that only its layers have. */
const MIXER_OF_KIND: Readonly<Partial<Record<string, MixerType>>> = {
  gatedQkv: "attention",
  qkv: "attention",
  qkNormed: "attention",
  qkInverse: "attention",
  attention: "attention",
  logSumExp: "attention",
  gatedAttention: "attention",
  convolutionInput: "convolution",
  convolved: "convolution",
  deltaInput: "deltaNet",
  deltaQkv: "deltaNet",
  deltaFactors: "deltaNet",
  deltas: "deltaNet",
  deltaOut: "deltaNet",
  deltaInverse: "deltaNet",
  deltaNormed: "deltaNet",
} satisfies Record<keyof ReturnType<typeof mixerKinds>, MixerType>;

/** Whether a layer has this mixer. */
export const hasMixer = ({ layerMixer }: ModelConfig, mixer: MixerType): boolean => layerMixer.includes(mixer);

/** Whether a layer norms what its attention and its MLP read, and what they give. */
export const normsBefore = ({ normPlaces }: ModelConfig): boolean => normPlaces !== "after";
export const normsAfter = ({ normPlaces }: ModelConfig): boolean => normPlaces !== "before";

/** What a pass leaves behind for a backward pass. */
export type Keeps = "all" | "inputs" | "none";

export type LayerKind = keyof ReturnType<typeof layerKinds>;

/**
 * The kinds that are f32 whatever the format: the residual stream, what is normed on its way there, the statistics of
 * reductions, and what a recurrence adds up.
 */
const ALWAYS_F32: ReadonlySet<string> = new Set<LayerKind>([
  "input",
  "middle",
  "attentionStats",
  "mlpStats",
  "attentionBranch",
  "attentionBranchStats",
  "mlpBranch",
  "mlpBranchStats",
  "qkInverse",
  "logSumExp",
  "deltaFactors",
  "deltas",
  "deltaOut",
  "deltaInverse",
]);

/** What the MLP computes between its two products: of a slice of rows, where it is walked in slices. */
const MLP_KINDS: ReadonlySet<string> = new Set<LayerKind>(["up", "activated"]);

/** Rows that slices are made of: those of any width start aligned, in 2 bytes too. */
const SLICE_STEP = 128;

/** Heads of queries and keys together: the first columns of the fused rows. */
export function qkHeads(config: ModelConfig): number {
  return config.heads + config.keyValueHeads;
}

/** Columns of the fused query, key and value rows. */
export function qkvWidth(config: ModelConfig): number {
  return (config.heads + 2 * config.keyValueHeads) * config.headSize;
}

/** Rows of a pass. */
function rowsOf({ gradientRows, branchRows }: RowShape): number {
  return gradientRows + branchRows;
}

/** Columns that the MLP's activation reads: gate and up, or only up. */
export function upWidth({ mlp, intermediateSize }: ModelConfig): number {
  return mlp === "gelu" ? intermediateSize : 2 * intermediateSize;
}

/** The activations of one layer for one shape. */
export type LayerActivations = Readonly<Record<LayerKind, Tensor>>;

export class Activations {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly keeps: Keeps;
  /** Scratch of the LoRA adapter, shared by all layers. */
  readonly lora: LoraScratch | undefined;
  readonly #bufferLimit: number;
  /** The buffers of each kind: tensors [rows, width]. */
  readonly #buffers: Readonly<Record<LayerKind, readonly Tensor[]>>;

  /**
   * @param shapes every shape that will be run; buffers are sized for the largest of each kind
   * @param options.format of the kinds that are not f32 in any case; default f32
   * @param options.adapter whose passes need scratch
   */
  constructor(
    device: Device,
    config: ModelConfig,
    shapes: readonly RowShape[],
    keeps: Keeps,
    options: { readonly format?: ActivationFormat | undefined; readonly adapter?: LoraAdapter | undefined } = {},
  ) {
    const { format = "f32", adapter } = options;
    this.device = device;
    this.config = config;
    this.keeps = keeps;
    this.#bufferLimit = device.bufferLimit;
    this.#buffers = Object.fromEntries(
      Object.entries(layerKinds(config)).map(([kind, width]) => {
        const dtype = ALWAYS_F32.has(kind) ? "f32" : format;
        return [kind, this.#allocate(shapes, kind, width, dtype)];
      }),
    ) as Readonly<Record<string, readonly Tensor[]>> as Readonly<Record<LayerKind, readonly Tensor[]>>;
    const rows = Math.max(...shapes.map(rowsOf));
    const mlpRows = Math.max(...shapes.map((shape) => this.mlpSlice(shape) ?? rowsOf(shape)));
    const scratch = (name: string, numbers: number) => device.allocate("scratch", `adapter ${name}`, [numbers]);
    const widest = (kind: "widestInput" | "widestResult") =>
      adapter ? Math.max(rows * adapter[kind]("other"), mlpRows * adapter[kind]("mlp")) : 0;
    this.lora = adapter && {
      inner: scratch("inner", rows * adapter.highestRank),
      dInner: scratch("inner gradient", rows * adapter.highestRank),
      dropped: adapter.options.dropout > 0 ? scratch("dropout", widest("widestInput")) : undefined,
      dora: adapter.norms && {
        projected: device.allocate("scratch", "adapter projected rows", [adapter.highestRank, adapter.widestLayer]),
        gram: device.allocate("scratch", "adapter gram matrix", [adapter.highestRank, adapter.highestRank]),
        product: keeps === "none" ? undefined : scratch("product", widest("widestResult")),
      },
    };
  }

  /**
   * The rows of a slice of the MLP, where all rows of its widest activation, or of that one's gradient in f32, exceed a
   * buffer or binding; undefined where it is computed at once. Slices are about as large as each other.
   */
  mlpSlice(shape: RowShape): number | undefined {
    const rows = rowsOf(shape);
    const bindable = Math.floor(this.#bufferLimit / (4 * upWidth(this.config)));
    if (rows <= bindable) return undefined;
    const most = Math.max(1, Math.floor(bindable / SLICE_STEP));
    const slices = Math.ceil(rows / SLICE_STEP / most);
    return Math.min(rows, Math.ceil(rows / slices / SLICE_STEP) * SLICE_STEP);
  }

  /** The buffers of a kind, each with the rows that the shape that needs most of it writes there. */
  #allocate(shapes: readonly RowShape[], kind: string, width: number, dtype: ElementType): Tensor[] {
    const rows: number[] = [];
    for (const shape of shapes) {
      for (let layer = 0; layer < this.#places(kind); layer++) {
        const { buffer, first } = this.#place(shape, layer, kind, width, dtype);
        rows[buffer] = Math.max(rows[buffer] ?? 0, first + this.#rowsAtOnce(shape, kind));
      }
    }
    this.#checkBinding(shapes, kind, width, dtype);
    return rows.map((count) => this.device.allocate("activations", kind, [count, width], dtype));
  }

  /** Rows of a kind that a shape computes at once. */
  #rowsAtOnce(shape: RowShape, kind: string): number {
    return (MLP_KINDS.has(kind) ? this.mlpSlice(shape) : undefined) ?? rowsOf(shape);
  }

  /** @throws AdapterError for a kind whose rows of one layer are more than the adapter binds */
  #checkBinding(shapes: readonly RowShape[], kind: string, width: number, dtype: ElementType): void {
    const { description, limits } = this.device;
    const rows = Math.max(...shapes.map((shape) => this.#rowsAtOnce(shape, kind)));
    const bytes = rows * width * elementBytes(dtype);
    if (bytes <= limits.maxStorageBufferBindingSize) return;
    this.device.refuse(
      `"${kind}" of one layer needs ${bytes} bytes in one binding and the adapter "${description}" binds at most ${limits.maxStorageBufferBindingSize}; use a smaller batch or a smaller model.`,
    );
  }

  /** How many layers have a kind; an `input` alone has a place behind the last layer's. */
  #places(kind: string, layers = this.config.layers): number {
    if (kind === "input") return layers + 1;
    const mixer = MIXER_OF_KIND[kind];
    return mixer === undefined ? layers : this.config.layerMixer.slice(0, layers).filter((one) => one === mixer).length;
  }

  /**
   * Where place number `layer` starts: every layer that has the kind (and, as an input, the last one's output) has one, or
   * all share one.
   */
  #place(
    shape: RowShape,
    layer: number,
    kind: string,
    width: number,
    dtype: ElementType,
  ): { readonly buffer: number; readonly first: number } {
    const { gradientRows, branchRows } = shape;
    const shared = this.keeps === "none" || (this.keeps === "inputs" && kind !== "input");
    const isSliced = MLP_KINDS.has(kind) && this.mlpSlice(shape) !== undefined;
    if (shared || isSliced || width === 0) return { buffer: 0, first: 0 };
    const rowBytes = width * elementBytes(dtype);
    // Row counts are multiples of 64: 2 bytes of an odd width may leave the next place between two windows.
    const rows = (gradientRows * rowBytes) % WINDOW_ALIGNMENT === 0 ? gradientRows : gradientRows + 64;
    // Each buffer holds as many places as leave room for the rows of region B behind the last one.
    const places = Math.max(1, 1 + Math.floor((this.#bufferLimit / rowBytes - gradientRows - branchRows) / rows));
    return { buffer: Math.floor(layer / places), first: (layer % places) * rows };
  }

  /** Layer `layer` of a pass over `shape`; index `layers` holds the last layer's output as its `input`. */
  layer(shape: RowShape, layer: number): LayerActivations {
    const windows = Object.entries(this.#buffers).flatMap(([kind, buffers]): [string, Tensor][] => {
      const [{ shape: [, width = 0] = [], dtype = "f32" } = {}] = buffers;
      const before = this.#places(kind, layer) - (kind === "input" ? 1 : 0);
      const place = Math.max(0, Math.min(before, this.#places(kind) - 1));
      const { buffer, first } = this.#place(shape, place, kind, width, dtype);
      const tensor = buffers[buffer];
      if (tensor === undefined) return [];
      const offset = first * width * elementBytes(dtype);
      return [[kind, { ...tensor, offset, shape: [this.#rowsAtOnce(shape, kind), width] }]];
    });
    return Object.fromEntries(windows) as Record<LayerKind, Tensor>;
  }

  free(): void {
    const { inner, dInner, dropped, dora } = this.lora ?? {};
    const ofAdapter = [inner, dInner, dropped, ...Object.values({ ...dora })];
    for (const buffer of [...Object.values(this.#buffers).flat(), ...ofAdapter]) {
      if (buffer) this.device.free(buffer);
    }
  }
}
