/**
 * The one source of randomness: PCG32 (O'Neill 2014, XSH-RR variant, 64-bit state), so that a seed gives the same
 * numbers on every host. Not for secrets.
 */
import { ConfigError } from "../errors.ts";

/** What `Random.fromState` needs to go on; plain numbers, so that it fits into a JSON checkpoint. */
export interface RandomState {
  /** 64-bit state as [high, low] unsigned 32-bit halves. */
  readonly state: readonly [number, number];
  /** 64-bit increment (odd: it selects the stream) as [high, low]. */
  readonly increment: readonly [number, number];
}

const TWO_32 = 2 ** 32;
const MULTIPLIER_HIGH = 0x5851f42d;
const MULTIPLIER_LOW = 0x4c957f2d;

export class Random {
  private high = 0;
  private low = 0;
  private incrementHigh: number;
  private incrementLow: number;

  /**
   * @param seed whole number from 0 to 2^53 - 1
   * @param stream picks one of 2^53 sequences that do not overlap for the same seed
   * @throws ConfigError if either is anything else
   */
  constructor(seed: number, stream = 0) {
    for (const [name, value] of [
      ["seed", seed],
      ["stream", stream],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < 0) {
        throw new ConfigError(`The random ${name} is ${value}; it must be a whole number from 0 to 2^53 - 1.`);
      }
    }
    // increment = (stream << 1) | 1
    const streamLow = stream % TWO_32;
    this.incrementHigh = ((Math.floor(stream / TWO_32) << 1) | (streamLow >>> 31)) >>> 0;
    this.incrementLow = ((streamLow << 1) | 1) >>> 0;
    this.step();
    this.add(Math.floor(seed / TWO_32), seed % TWO_32);
    this.step();
  }

  /** A generator that continues from a state that `getState` returned. */
  static fromState(state: RandomState): Random {
    const random = new Random(0);
    [random.high, random.low] = state.state;
    [random.incrementHigh, random.incrementLow] = state.increment;
    return random;
  }

  getState(): RandomState {
    return { state: [this.high, this.low], increment: [this.incrementHigh, this.incrementLow] };
  }

  /** Uniform over 0 .. 2^32 - 1. */
  uint32(): number {
    const { high, low } = this;
    this.step();
    // ((state >> 18) ^ state) >> 27, its low 32 bits, rotated right by the top five bits of the state.
    const mixedHigh = (high >>> 18) ^ high;
    const mixedLow = ((low >>> 18) | (high << 14)) ^ low;
    const word = (mixedLow >>> 27) | (mixedHigh << 5);
    const turn = high >>> 27;
    return ((word >>> turn) | (word << (-turn & 31))) >>> 0;
  }

  /** Uniform in [0, 1) with 53 random bits. */
  float(): number {
    const upper = this.uint32() >>> 5;
    const lower = this.uint32() >>> 6;
    return (upper * 2 ** 26 + lower) / 2 ** 53;
  }

  /** Uniform over 0 .. n - 1, without the bias of a bare remainder; n is a whole number from 1 to 2^32. */
  below(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > TWO_32) throw new RangeError(`below(${n}): n must be from 1 to 2^32`);
    // The first 2^32 mod n values are refused, so that what is left is a whole multiple of n.
    const refused = TWO_32 % n;
    for (;;) {
      const value = this.uint32();
      if (value >= refused) return value % n;
    }
  }

  /**
   * Standard normal (Box-Muller; the second of the two values is thrown away, so that the state is the PCG's alone).
   */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.float()));
    return radius * Math.cos(2 * Math.PI * this.float());
  }

  /** Fisher-Yates, in place; returns the same array. */
  shuffle<T>(array: T[]): T[] {
    for (let last = array.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      const held = array[last] as T;
      array[last] = array[other] as T;
      array[other] = held;
    }
    return array;
  }

  /** state = state * multiplier + increment, modulo 2^64. */
  private step(): void {
    const { high, low } = this;
    this.high =
      (multiplyHigh(low, MULTIPLIER_LOW) + Math.imul(high, MULTIPLIER_LOW) + Math.imul(low, MULTIPLIER_HIGH)) >>> 0;
    this.low = Math.imul(low, MULTIPLIER_LOW) >>> 0;
    this.add(this.incrementHigh, this.incrementLow);
  }

  private add(high: number, low: number): void {
    const sum = this.low + low;
    this.low = sum >>> 0;
    this.high = (this.high + high + (sum >= TWO_32 ? 1 : 0)) >>> 0;
  }
}

/** The upper 32 bits of the 64-bit product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const cross = aLow * bHigh;
  // At most (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1: no bit is lost.
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16) + (cross & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (cross >>> 16)) >>> 0;
}
