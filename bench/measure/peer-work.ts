/**
 * Work that other engines can do too, as data: what a peer's process is told to do. The numbers follow from it and a
 * seed, so that nobody hands them over.
 */
import type { MatmulLayout } from "../../src/kernels/matmul-variant.ts";

/** out [M, N] = op(a) op(b) over K. */
export interface MatmulWork {
  readonly layout: MatmulLayout;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export interface HeadShape {
  readonly rows: number;
  readonly vocabulary: number;
  readonly width: number;
}

/** Rows of a microbatch and the tokens of each. */
export interface StepRows {
  readonly rows: number;
  readonly prompt: number;
  readonly completion: number;
}

export type PeerWork =
  | ({ readonly kind: "matmul" } & MatmulWork)
  | ({ readonly kind: "head"; readonly backward: boolean } & HeadShape)
  | {
      readonly kind: "step";
      /** A model folder: the policy and, frozen, its reference. */
      readonly folder: string;
      readonly batch: StepRows;
      /** Losses of the first updates, which the peer's must equal. */
      readonly losses: readonly number[];
      /** A safetensors file with the gradients of the first update, by Hugging Face name. */
      readonly gradients: string;
    };

/** How an engine did: milliseconds of one run, or why there is no figure. */
export type PeerResult = { readonly median_ms: number; readonly spread: number } | { readonly error: string };
