/**
 * A benchmark as data: a name, a shape, and a program to record. Its result is checked against float64 before it is
 * timed.
 */
import type { Device, UploadData } from "../../src/engine/gpu/device.ts";
import type { Program } from "../../src/engine/gpu/program.ts";
import { elementCount, type Tensor } from "../../src/engine/gpu/tensor.ts";
import { fromF32 } from "../../src/engine/number-formats.ts";
import { quantized } from "../../src/engine/quantized-formats.ts";
import { Random } from "../../src/engine/random.ts";
import { dequantized } from "../../src/kernels/float64/stored.ts";
import { type ElementType, QUANTIZED, type QuantizedFormat } from "../../src/kernels/kernel.ts";
import type { ProductFormat } from "../../src/kernels/matmul-variant.ts";
import type { PeerWork } from "./peer-work.ts";

export interface BenchmarkCase {
  readonly name: string;
  /** For people, e.g. "512 x 512 x 512". */
  readonly shape: string;
  /** Part of the quick mode. */
  readonly quick: boolean;
  /** Left out on software adapters, for which it is too much. Default false. */
  readonly hardwareOnly?: boolean;
  /** What products may round their operands to, where the adapter has matrices; default f32. */
  readonly products?: ProductFormat;
  /** The case's work as other engines can do it; undefined where they cannot. */
  readonly peerWork?: PeerWork;
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
    return this.#allocate(shape, "f32");
  }

  /** These numbers, as f32 or u32 by the array's type. */
  of(shape: readonly number[], values: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): Tensor {
    const tensor = this.#allocate(shape, values instanceof Float32Array ? "f32" : "u32");
    this.device.upload(tensor, values as UploadData);
    return tensor;
  }

  /** The nearest numbers that a quantised format has, and what they are. */
  quantized(
    shape: readonly number[],
    format: QuantizedFormat,
    values: Float32Array,
  ): { tensor: Tensor; values: Float32Array<ArrayBuffer> } {
    const { codes, scales } = quantized(format, values);
    const tensor = this.#allocate(shape, format);
    this.device.upload(tensor, codes);
    if (tensor.scales) this.device.upload(tensor.scales, fromF32(scales, QUANTIZED[format].scales));
    return { tensor, values: dequantized(format, codes, scales) };
  }

  /** Normal numbers of this standard deviation, and the same on the host for a float64 twin. */
  normal(shape: readonly number[], deviation = 1): { tensor: Tensor; values: Float64Array } {
    const values = normals(this.#random, elementCount(shape), deviation);
    return { tensor: this.of(shape, values), values: Float64Array.from(values) };
  }

  /** Throws unless a tensor holds these numbers, see `expectAllClose`. */
  async expect(what: string, tensor: Tensor, wanted: ArrayLike<number>, tolerance?: number): Promise<void> {
    expectAllClose(what, await this.device.download(tensor), wanted, tolerance);
  }

  #allocate(shape: readonly number[], dtype: ElementType): Tensor {
    const tensor = this.device.allocate("scratch", "benchmark", shape, dtype);
    this.#tensors.push(tensor);
    return tensor;
  }

  free(): void {
    for (const tensor of this.#tensors) this.device.free(tensor);
  }
}

/** `count` normal numbers, already rounded to f32. */
export function normals(random: Random, count: number, deviation = 1): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, () => deviation * random.normal());
}

/** Throws unless |found - wanted| <= bound. */
export function expectClose(what: string, found: number | undefined, wanted: number | undefined, bound: number): void {
  if (Math.abs((found ?? Number.NaN) - (wanted ?? Number.NaN)) <= bound) return;
  throw new Error(`${what} is ${found}, wanted ${wanted} within ${bound}; a kernel with wrong results is not timed`);
}

/**
 * Throws unless every number is within `tolerance` of the wanted one, relative to the largest of them: a check that the
 * work was done at all. The kernel's own test shows how exact it is.
 */
export function expectAllClose(
  what: string,
  found: ArrayLike<number>,
  wanted: ArrayLike<number>,
  tolerance = 1e-5,
): void {
  let largest = 0;
  for (let i = 0; i < wanted.length; i++) largest = Math.max(largest, Math.abs(wanted[i] ?? Number.NaN));
  for (let i = 0; i < wanted.length; i++) expectClose(`${what}[${i}]`, found[i], wanted[i], tolerance * largest);
}
