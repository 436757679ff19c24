/**
 * The tables of angles that `rope.ts` reads, made on the host in float64. Frequencies are theta^(-2i/r) for the r
 * rotated channels of a head, scaled for contexts longer than the first training's.
 */

/**
 * Scaling of the frequencies, and the factor `magnitude` of every cosine and sine.
 *
 *   linear    all of them over the factor (position interpolation, Chen et al. 2023)
 *   llama3    those that turn less than `lowFrequencyFactor` times within the original context over the factor, those
 *             that turn more than `highFrequencyFactor` times as they are, blended in between (Grattafiori et al. 2024)
 *   yarn      blended in the same way, by the number of the pair between those that turn `betaFast` and `betaSlow` times
 *             (Peng et al. 2023)
 *   longrope  each over a factor of its own, `short` in sequences of at most the original context, `long` in longer
 *             ones, whose every position is turned so, the first included (Ding et al. 2024)
 */
export type RopeScaling =
  | { readonly type: "none" }
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      /** In tokens. */
      readonly originalContextLength: number;
    }
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Whether the blend begins and ends at whole pairs. */
      readonly truncate: boolean;
      readonly originalContextLength: number;
      readonly magnitude: number;
    }
  | {
      readonly type: "longrope";
      /** [r/2] each. */
      readonly shortFactors: readonly number[];
      readonly longFactors: readonly number[];
      readonly originalContextLength: number;
      readonly magnitude: number;
    };

/** How a layer rotates queries and keys. */
export interface LayerRope {
  readonly theta: number;
  /** r: the first channels of each head, which are rotated; even. */
  readonly rotated: number;
  readonly scaling: RopeScaling;
}

/** The bit of a position whose sequence is longer than LongRoPE's original context. */
export const LONG_SEQUENCE = 0x80000000;

/** Radians a position, [r/2]. @param long whether the sequence is longer than LongRoPE's original context */
export function ropeFrequencies({ rotated, theta, scaling }: LayerRope, long = false): Float64Array {
  const plain = Float64Array.from({ length: rotated / 2 }, (_, pair) => theta ** ((-2 * pair) / rotated));
  switch (scaling.type) {
    case "none":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / scaling.factor);
    case "llama3": {
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength } = scaling;
      return plain.map((frequency) => {
        const turns = (originalContextLength * frequency) / (2 * Math.PI);
        const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
        return kept * frequency + ((1 - kept) * frequency) / factor;
      });
    }
    case "yarn": {
      const { factor, betaFast, betaSlow, truncate, originalContextLength } = scaling;
      /** The pair, not a whole one, that turns so many times within the original context. */
      const pairOf = (turns: number) =>
        (rotated * Math.log(originalContextLength / (2 * Math.PI * turns))) / (2 * Math.log(theta));
      const [first, last] = [pairOf(betaFast), pairOf(betaSlow)];
      const low = Math.max(truncate ? Math.floor(first) : first, 0);
      // Up to r - 1 and not r/2 - 1, as in the code that published models were trained with.
      const high = Math.min(truncate ? Math.ceil(last) : last, rotated - 1);
      const width = high === low ? 0.001 : high - low;
      return plain.map((frequency, pair) => {
        const slowed = Math.min(1, Math.max(0, (pair - low) / width));
        return frequency * (1 - slowed + slowed / factor);
      });
    }
    case "longrope": {
      const factors = long ? scaling.longFactors : scaling.shortFactors;
      return plain.map((frequency, pair) => frequency / (factors[pair] ?? 1));
    }
  }
}

/** Tables of angles that a rope has: one, or two for sequences within and beyond LongRoPE's original context. */
export function ropeRegimes({ scaling }: LayerRope): 1 | 2 {
  return scaling.type === "longrope" ? 2 : 1;
}

/**
 * The table [regimes positions, 2, r/2] of a rope, cosines then sines, each times the scaling's magnitude; of two
 * regimes the short one's first.
 */
export function ropeTable(positions: number, rope: LayerRope): Float32Array<ArrayBuffer> {
  const half = rope.rotated / 2;
  const regimes = ropeRegimes(rope);
  const magnitude = "magnitude" in rope.scaling ? rope.scaling.magnitude : 1;
  const table = new Float32Array(regimes * positions * half * 2);
  for (let regime = 0; regime < regimes; regime++) {
    for (const [pair, frequency] of ropeFrequencies(rope, regime === 1).entries()) {
      for (let position = 0; position < positions; position++) {
        const at = (regime * positions + position) * 2 * half + pair;
        table[at] = magnitude * Math.cos(position * frequency);
        table[at + half] = magnitude * Math.sin(position * frequency);
      }
    }
  }
  return table;
}
