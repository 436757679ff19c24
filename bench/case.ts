/** What a benchmark is: a name, a shape, and a program that is recorded, checked against float64, and timed. */
import type { Device } from "../src/engine/device.ts";
import type { Program } from "../src/engine/program.ts";
import { Random } from "../src/engine/random.ts";
import { elementCount, type Tensor } from "../src/engine/tensor.ts";
import { normals } from "../test/helpers/compare.ts";

export interface BenchmarkCase {
  readonly name: string;
  /** For people, e.g. "512 x 512 x 512". */
  readonly shape: string;
  /** Part of the quick mode. */
  readonly quick: boolean;
  /** Records the work into `program`; returns the check to run after the first replay, which throws if it is wrong. */
  readonly record: (bench: BenchmarkMemory, program: Program) => () => Promise<void>;
}

/** Device memory of one case, with seeded contents. */
export class BenchmarkMemory {
  readonly device: Device;
  readonly #tensors: Tensor[] = [];
  readonly #random = new Random(1);

  constructor(device: Device) {
    this.device = device;
  }

  /** Zeroes. */
  zeros(...shape: number[]): Tensor {
    const tensor = this.device.allocate("scratch", "benchmark", shape);
    this.#tensors.push(tensor);
    return tensor;
  }

  /** Normal numbers of this standard deviation, and their values on the host. */
  normal(shape: readonly number[], deviation = 1): { tensor: Tensor; values: Float32Array } {
    const tensor = this.zeros(...shape);
    const values = normals(this.#random, elementCount(shape), deviation);
    this.device.upload(tensor, values);
    return { tensor, values };
  }

  integers(shape: readonly number[], values: Uint32Array<ArrayBuffer>): Tensor {
    const tensor = this.device.allocate("scratch", "benchmark", shape, "u32");
    this.#tensors.push(tensor);
    this.device.upload(tensor, values);
    return tensor;
  }

  /** A whole number from 0 to `below` - 1. */
  below(below: number): number {
    return this.#random.below(below);
  }

  free(): void {
    for (const tensor of this.#tensors) this.device.free(tensor);
  }
}

/** Throws unless |found - wanted| <= bound. */
export function expectClose(what: string, found: number, wanted: number, bound: number): void {
  if (Math.abs(found - wanted) <= bound) return;
  throw new Error(`${what} is ${found}, wanted ${wanted} within ${bound}: a wrong kernel is not timed`);
}
