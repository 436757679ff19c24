/**
 * A packed microbatch as the device sees it: examples as region A, their mismatched completions as region B, labels and
 * pair flags. The sampler chooses which rows come together; the engine lays them out (`engine/model/rows.ts`).
 */
import {
  type PackedRows,
  packRows,
  type RowBranch,
  type RowSequence,
  type RowShape,
  rowShape,
} from "../../engine/model/rows.ts";
import type { Communicator } from "../../engine/ranks/communicator.ts";
import { DatasetError } from "../../errors.ts";
import { mismatchedPairs, type SampledRow } from "./sampler.ts";

/** A row to train or evaluate on: token ids of prompt and completion, and the label. */
export type BatchExample = SampledRow;

/** Which of several ranks computes. */
export type Rank = Pick<Communicator, "rank" | "size">;

/** The only one. */
export const ONLY_RANK: Rank = { rank: 0, size: 1 };

/** The rows of a microbatch that a rank computes: neighbours on its ring, in sizes that differ by one at most. */
export function partOf(rows: number, { rank, size }: Rank): { readonly first: number; readonly end: number } {
  return { first: Math.ceil((rank * rows) / size), end: Math.ceil(((rank + 1) * rows) / size) };
}

/** A microbatch of all ranks together, of which a batch is a rank's part. */
export interface WholeMicrobatch {
  /** Rows, and the place of the part's first row among them. */
  readonly size: number;
  readonly first: number;
  readonly completionTokens: number;
  /** Tokens of the examples, prompt and completion, without mismatched pairs. */
  readonly tokens: number;
  /** Tokens of the longest example, prompt and completion together. */
  readonly longestTokens: number;
}

export interface Batch {
  /** m; 0 for a rank that has no part in a microbatch of fewer rows than ranks. */
  readonly size: number;
  readonly whole: WholeMicrobatch;
  readonly packed: PackedRows;
  /**
   * The policy's two passes where the reference point is taken over several microbatches, so that the gradient must
   * wait for the last one's pairs: first prompts with their mismatched completions, then the examples alone.
   */
  readonly apart?: { readonly pairs: PackedRows; readonly examples: PackedRows };
  /** u32[m], 1 for thumbs up. */
  readonly desirable: Uint32Array<ArrayBuffer>;
  /** u32[m]. */
  readonly completionTokens: Uint32Array<ArrayBuffer>;
  /** u32[m], 0 where the pair (x_i, y_j) is not mismatched and leaves the mean. */
  readonly pairValid: Uint32Array<ArrayBuffer>;
  /** Mismatched completions that were cut. */
  readonly cutPairs: number;
  /** All rows computed by one model (the shared prompt counts once). */
  readonly rows: number;
  /** f32[m], or f32[2 m] with the mismatched pairs behind: log-probs of a cached reference. */
  readonly referenceLogProbs?: Float32Array<ArrayBuffer>;
}

export interface BatchOptions {
  /** Whether the mismatched pairs are computed at all (not for a reference point of 0). */
  readonly mismatched: boolean;
  /** Tokens of prompt and completion together; a mismatched completion is cut to what its new prompt leaves. */
  readonly maxLength: number;
  /** Tokens beyond which the model's LongRoPE takes its long factors (`longRopeBeyond`). */
  readonly longBeyond?: number | undefined;
}

/** The rows of a microbatch, and for each the row whose completion is its mismatched one. */
interface Microbatch {
  readonly examples: readonly BatchExample[];
  readonly partners: readonly BatchExample[];
  /** See `MismatchedPairs`. */
  readonly valid: readonly boolean[];
  readonly whole: WholeMicrobatch;
}

/** Microbatches that are parts of one ring: the mismatched completion of a row may lie in the next one. */
function partsOfRing(microbatches: readonly (readonly BatchExample[])[]): Microbatch[] {
  const rows = microbatches.flat();
  const { pair, valid } = mismatchedPairs(rows);
  let start = 0;
  return microbatches.map((examples) => {
    const first = start;
    start += examples.length;
    return {
      examples,
      partners: examples.map((row, i) => rows[pair[first + i] ?? 0] ?? row),
      valid: valid.slice(first, start),
      whole: wholeOf(examples),
    };
  });
}

function wholeOf(examples: readonly BatchExample[]): WholeMicrobatch {
  const sum = (length: (row: BatchExample) => number) => examples.reduce((total, row) => total + length(row), 0);
  return {
    size: examples.length,
    first: 0,
    completionTokens: sum(({ completionIds }) => completionIds.length),
    tokens: sum(({ promptIds, completionIds }) => promptIds.length + completionIds.length),
    longestTokens: examples.reduce(
      (most, { promptIds, completionIds }) => Math.max(most, promptIds.length + completionIds.length),
      0,
    ),
  };
}

/** A rank's part of a microbatch: a mismatched completion may be that of another rank's row. */
function partOfMicrobatch({ examples, partners, valid, whole }: Microbatch, rank: Rank): Microbatch {
  const { first, end } = partOf(examples.length, rank);
  return {
    examples: examples.slice(first, end),
    partners: partners.slice(first, end),
    valid: valid.slice(first, end),
    whole: { ...whole, first },
  };
}

/** Row i's mismatched completion, cut to the length that prompt i leaves, at least one token. */
function branches({ examples, partners }: Microbatch, options: BatchOptions): RowBranch[] {
  if (!options.mismatched) return [];
  return examples.map(({ promptIds }, i) => {
    const completion = Array.from(partners[i]?.completionIds ?? []);
    return { prompt: i, completionIds: completion.slice(0, Math.max(1, options.maxLength - promptIds.length)) };
  });
}

/** The prompts alone, for mismatched completions to continue. */
function promptsOf(examples: readonly BatchExample[]): RowSequence[] {
  return examples.map(({ promptIds }) => ({ promptIds, completionIds: [] }));
}

function shapesOf(microbatch: Microbatch, apart: boolean, options: BatchOptions): RowShape[] {
  const mismatched = branches(microbatch, options);
  const { examples } = microbatch;
  const shapeOf = (rows: readonly RowSequence[], behind?: readonly RowBranch[]) =>
    rowShape(rows, behind, options.longBeyond);
  const whole = shapeOf(examples, mismatched);
  return apart ? [whole, shapeOf(promptsOf(examples), mismatched), shapeOf(examples)] : [whole];
}

function pack(microbatch: Microbatch, apart: boolean, options: BatchOptions): Batch {
  const { examples, partners, valid, whole } = microbatch;
  const mismatched = branches(microbatch, options);
  const packedRows = (rows: readonly RowSequence[], behind?: readonly RowBranch[]) =>
    packRows(rows, behind, rowShape(rows, behind, options.longBeyond), options.longBeyond);
  const packed = packedRows(examples, mismatched);
  return {
    size: examples.length,
    whole,
    packed,
    ...(apart ? { apart: { pairs: packedRows(promptsOf(examples), mismatched), examples: packedRows(examples) } } : {}),
    desirable: Uint32Array.from(examples, ({ label }) => (label ? 1 : 0)),
    completionTokens: Uint32Array.from(examples, ({ completionIds }) => completionIds.length),
    pairValid: Uint32Array.from(valid, (flag) => (flag ? 1 : 0)),
    cutPairs: mismatched.filter(({ completionIds }, i) => {
      return completionIds.length < (partners[i]?.completionIds.length ?? 0);
    }).length,
    rows: packed.usedRows,
  };
}

/** Packs a microbatch in the order given, with its pairs among its own rows. */
export function packBatch(examples: readonly BatchExample[], options: BatchOptions): Batch {
  const [microbatch] = partsOfRing([examples]);
  if (microbatch === undefined) throw new Error("a microbatch needs rows");
  return pack(microbatch, false, options);
}

/** The rows among which an update's mismatched pairs are made, and over which its reference point is taken. */
export type ReferencePointScope = "microbatch" | "step";

/**
 * Packs the microbatches of an update, of which several ranks compute a part each.
 *
 * @param rank whose parts are packed; default all rows
 */
export function packUpdate(
  microbatches: readonly (readonly BatchExample[])[],
  options: BatchOptions,
  scope: ReferencePointScope,
  rank: Rank = ONLY_RANK,
): Batch[] {
  const { parts, apart } = partsOfUpdate(microbatches, options, scope);
  return parts.map((part) => pack(partOfMicrobatch(part, rank), apart, options));
}

/** The shape classes that an update's passes take. @param ranks how many share it; the shapes are those of all */
export function updateShapes(
  microbatches: readonly (readonly BatchExample[])[],
  options: BatchOptions,
  scope: ReferencePointScope,
  ranks = 1,
): RowShape[] {
  const { parts, apart } = partsOfUpdate(microbatches, options, scope);
  return parts
    .flatMap((part) => Array.from({ length: ranks }, (_, rank) => partOfMicrobatch(part, { rank, size: ranks })))
    .filter(({ examples }) => examples.length > 0)
    .flatMap((part) => shapesOf(part, apart, options));
}

function partsOfUpdate(
  microbatches: readonly (readonly BatchExample[])[],
  { mismatched }: BatchOptions,
  scope: ReferencePointScope,
): { parts: Microbatch[]; apart: boolean } {
  return scope === "step"
    ? { parts: partsOfRing(microbatches), apart: mismatched && microbatches.length > 1 }
    : { parts: microbatches.flatMap((examples) => partsOfRing([examples])), apart: false };
}

/**
 * Checks examples that were not made by `tokenizeRows`. The device would compute numbers from ids outside the
 * vocabulary too, and they would mean nothing.
 *
 * @param bound tokens of prompt and completion together, and the limit's name
 * @throws DatasetError naming the example and what is wrong with it
 */
export function checkSequences(
  sequences: readonly RowSequence[],
  vocabSize: number,
  bound: { readonly maxLength: number; readonly limit: string },
): void {
  for (const [index, { promptIds, completionIds }] of sequences.entries()) {
    const where = `Example ${index + 1} of ${sequences.length}`;
    if (promptIds.length === 0) throw new DatasetError(`${where} has an empty prompt; it needs one token or more.`);
    if (completionIds.length === 0) {
      throw new DatasetError(`${where} has an empty completion; it needs one token or more.`);
    }
    if (promptIds.length + completionIds.length > bound.maxLength) {
      throw new DatasetError(
        `${where} has ${promptIds.length + completionIds.length} tokens, more than ${bound.limit} ${bound.maxLength}; cut or drop it.`,
      );
    }
    for (const ids of [promptIds, completionIds]) {
      for (let at = 0; at < ids.length; at++) {
        const id = ids[at] ?? -1;
        if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
          throw new DatasetError(`${where} holds token id ${id}, outside the model's vocabulary of ${vocabSize}.`);
        }
      }
    }
  }
}
