/**
 * How long the device computed, by its own clock: two timestamps around each compute pass of the programs that are run
 * with this timer.
 */
import type { Device } from "./device.ts";
import type { Tensor } from "./tensor.ts";

/** Passes that one query set times; it holds 4096 timestamps. */
export const MOST_PASSES = 2048;

const QUERY_RESOLVE = 0x200;
const COPY_SOURCE = 4;

export class PassTimer {
  readonly #device: Device;
  #queries: GPUQuerySet | undefined;
  #resolved: GPUBuffer | undefined;
  #passes = 0;

  constructor(device: Device) {
    this.#device = device;
  }

  /** Starts over: passes that were timed before are forgotten. */
  restart(): void {
    this.#passes = 0;
  }

  /** The timestamps to begin the next pass with; undefined if the adapter has none or too many passes were run. */
  next(): GPUComputePassTimestampWrites | undefined {
    const { gpu } = this.#device;
    if (!gpu.features.has("timestamp-query")) return undefined;
    const index = 2 * this.#passes++;
    if (this.#passes > MOST_PASSES) return undefined;
    this.#queries ??= gpu.createQuerySet({ type: "timestamp", count: 2 * MOST_PASSES });
    return { querySet: this.#queries, beginningOfPassWriteIndex: index, endOfPassWriteIndex: index + 1 };
  }

  /**
   * Seconds in which passes ran since `restart`, once they are done; time in which two ran counts once. undefined where
   * not all were timed.
   */
  async seconds(): Promise<number | undefined> {
    const stamps = await this.stamps();
    return stamps && coveredNanoseconds(stamps) / 1e9;
  }

  /**
   * Begin and end of each pass since `restart` in nanoseconds, once they are done; undefined where not all were timed.
   */
  async stamps(): Promise<BigUint64Array | undefined> {
    const count = this.#passes;
    if (this.#queries === undefined || count === 0 || count > MOST_PASSES) return undefined;
    const { gpu } = this.#device;
    this.#resolved ??= gpu.createBuffer({ size: 16 * MOST_PASSES, usage: QUERY_RESOLVE | COPY_SOURCE });
    const encoder = gpu.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, 2 * count, this.#resolved, 0);
    this.#device.submit(encoder.finish());
    const resolved: Tensor = { buffer: this.#resolved, offset: 0, shape: [4 * count], dtype: "u32" };
    return new BigUint64Array(await this.#device.downloadBytes(resolved));
  }

  free(): void {
    this.#queries?.destroy();
    this.#resolved?.destroy();
    this.#queries = undefined;
    this.#resolved = undefined;
  }
}

/** Nanoseconds that intervals [begin, end] cover together; they come in the order in which they began. */
export function coveredNanoseconds(stamps: BigUint64Array): number {
  let covered = 0n;
  let last = 0n;
  for (let at = 0; at + 1 < stamps.length; at += 2) {
    const [begin = 0n, end = 0n] = stamps.subarray(at, at + 2);
    const from = begin > last ? begin : last;
    if (end <= from) continue;
    covered += end - from;
    last = end;
  }
  return Number(covered);
}
