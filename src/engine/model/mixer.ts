/**
 * The seam of a decoder layer where tokens meet: between a projection of the layer's input and the projection of its
 * result something mixes rows, attention or a convolution. `block.ts` does what is around it, the same for all.
 */
import type { Arena } from "../gpu/arena.ts";
import type { Program } from "../gpu/program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { LayerActivations, LayerKind } from "./activations.ts";
import type { ModelConfig } from "./config/config.ts";
import type { LoraRows } from "./lora-passes.ts";
import type { TakenNorm } from "./matmul.ts";
import type { Model } from "./model.ts";
import type { SegmentRange } from "./segments.ts";

/** Keys that a row sees, on the average and at most: what the work of attention is estimated by. */
export interface KeyCounts {
  readonly keysPerRow: number;
  /** Within the sliding window, where the configuration has one. */
  readonly windowKeysPerRow?: number | undefined;
}

/** The positions of rows. */
export interface RowPositions {
  /** u32[T]; with the bit `LONG_SEQUENCE` where LongRoPE's long factors hold. */
  readonly positions: Tensor;
  /** All positions are below this one. */
  readonly positionLimit: number;
}

/** Rows as a recurrence walks them (`gated-delta.ts`). */
export interface RecurrenceRows {
  /** u32[N, 4]. */
  readonly segments: Tensor;
  /** One behind the other: what the second one continues, the first one has left. */
  readonly dispatches: readonly SegmentRange[];
  /** The segments of the backward pass, in which rows are whole sequences. */
  readonly backward: SegmentRange;
  /** Scratch: the states between the two. */
  readonly states: Tensor;
}

/** What a pass needs beside activations. */
export interface PassRows extends KeyCounts, RowPositions {
  readonly ranges: Tensor;
  /** The ranges cut to the sliding window, where the configuration has one. */
  readonly windowRanges?: Tensor | undefined;
  /** Where a layer is a recurrence. */
  readonly recurrence?: RecurrenceRows | undefined;
  /** Where the model has an adapter. */
  readonly lora: LoraRows | undefined;
  /** Rows of a slice of the MLP, where it is not computed at once (`Activations.mlpSlice`). */
  readonly mlpSlice: number | undefined;
}

/** What the backward pass needs to know about region A's rows. */
export interface BackwardRows extends PassRows {
  readonly queryEnd: Tensor;
  readonly windowQueryEnd?: Tensor | undefined;
}

/** What generation keeps of earlier passes, and its scratch. */
export interface LayerCache {
  /** Numbers for sums of squares of the residual stream, a quarter as many as its own. */
  readonly squares: Tensor;
  /** Keys and values, [cache rows, KV D] each, per layer with attention. */
  readonly keys: readonly (Tensor | undefined)[];
  readonly values: readonly (Tensor | undefined)[];
  /** Cache row that each row of this pass is stored in, u32[T]. */
  readonly rows: Tensor;
  /** Per layer with a state. */
  readonly states: readonly (LayerState | undefined)[];
  /** For these: each row's place behind the last of its slot's state, and its sequence's first row, u32[T, 4]. */
  readonly stateRanges: Tensor;
  /** Rows of the pass that are a sequence's: the first, the one behind the last, its slot, flags, u32[slots, 4]. */
  readonly segments: Tensor;
}

/** What a layer keeps of the rows of earlier passes, for each slot. */
export interface LayerState {
  /** What a convolution's next rows read, [slots (K - 1), C]. */
  readonly convolution: Tensor;
  /** The matrices of a DeltaNet, [slots, numbers]; nothing elsewhere. */
  readonly delta: Tensor | undefined;
}

/** A mixer in a forward pass. */
export interface MixerPass {
  readonly program: Program;
  readonly model: Model;
  readonly layer: number;
  readonly here: LayerActivations;
  /** What `recordProjection` does has been done. */
  readonly isPlaced?: boolean;
}

/** A mixer in a backward pass. */
export interface MixerBackwardPass extends MixerPass {
  readonly gradients: Arena;
  /** Gradient of what the mixer gives; may be written over. */
  readonly dMixed: Tensor;
  /** To be written: the gradient of what the mixer reads. */
  readonly dProjected: Tensor;
  readonly scratch: MixerScratch;
}

/** Scratch of backward passes, for region A's rows; nothing of what no layer's mixer needs. */
export interface MixerScratch {
  /** For sums over blocks of rows. */
  readonly partials: Tensor;
  /** Attention: its row sums, and gradients of queries, keys and values where gates lie between these. */
  readonly delta: Tensor;
  readonly dQkv: Tensor;
  /** DeltaNet: gradients of what the recurrence gives, of what it reads, and of each head's queries and keys. */
  readonly dDeltaOut: Tensor;
  readonly dDeltaQkv: Tensor;
  readonly dDeltaHeads: Tensor;
  /** Terms of the gates' gradients. */
  readonly deltaTerms: Tensor;
  readonly aLogTerms: Tensor;
}

/** What the projection of a layer's input reads: rows, maybe of a norm that the product takes. */
export interface ProjectionInput {
  readonly x: Tensor;
  readonly takes: TakenNorm | undefined;
}

/** What a layer mixes its rows by. */
export interface Mixer {
  /**
   * The rows that it reads, an activation, and by the same name the parameters of the layer that project to it; and the
   * activation that it makes of them.
   */
  readonly reads: (config: ModelConfig) => LayerKind;
  readonly gives: (config: ModelConfig) => LayerKind;
  readonly recordForward: (pass: MixerPass, rows: PassRows, cache?: LayerCache) => void;
  /**
   * Records the projection of few rows and all that goes before mixing in one dispatch, where there is a kernel for it;
   * then `MixerPass.isPlaced` tells `recordForward` so. Returns whether it has.
   */
  readonly recordProjection?: (pass: MixerPass, input: ProjectionInput, rows: PassRows, cache: LayerCache) => boolean;
  /** Records the gradients of the mixer's own parameters too, where they are trained. */
  readonly recordBackward: (pass: MixerBackwardPass, rows: BackwardRows) => void;
}
