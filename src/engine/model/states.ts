/** What layers without attention keep of a sequence in place of keys and values, whatever its length. */
import type { ModelConfig } from "./config/config.ts";
import { convolutionOf } from "./convolution.ts";
import { deltaStateSize } from "./delta-net.ts";
import { deltaWidths } from "./weights/parameters.ts";

/** Sizes of a slot of one layer. */
export interface StateSizes {
  /** Rows and channels: what a convolution reads of earlier passes. */
  readonly convolution: readonly [rows: number, channels: number];
  /** Numbers of a DeltaNet's matrices; 0 where it is none. */
  readonly delta: number;
}

/** The state of the layers without attention, which are all of one kind; undefined where there are none. */
export function stateSizes(config: ModelConfig): StateSizes | undefined {
  const convolution = convolutionOf(config);
  if (convolution === undefined) return undefined;
  const { deltaNet, hiddenSize } = config;
  const channels = deltaNet ? deltaWidths(config).qkv : hiddenSize;
  return { convolution: [convolution.taps - 1, channels], delta: deltaNet ? deltaStateSize(deltaNet) : 0 };
}

/** Rows that a convolution keeps of a slot; 0 where layers have no state. */
export const keptRows = (config: ModelConfig): number => stateSizes(config)?.convolution[0] ?? 0;
