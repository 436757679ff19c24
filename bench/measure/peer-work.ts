/**
 * Work that other engines can do too, as data that a peer's process gets. Operands are not sent: both sides draw the
 * same ones from a seed.
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

/** Result of one engine: milliseconds of one run, or the reason why there are none. */
export type PeerResult = { readonly median_ms: number; readonly spread: number } | { readonly error: string };
