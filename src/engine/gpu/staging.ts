/**
 * Memory between host and device that stays, for whoever moves many numbers both ways in every update. A fresh buffer of
 * 16 MiB takes ten to thirty times as long as what is copied through it: its pages are made and cleared at their first
 * touch, and a driver pins them.
 */
import { platform } from "../platform/index.ts";
import type { Device } from "./device.ts";
import { byteLength, elementCount, type Tensor } from "./tensor.ts";

const USAGE = { mapRead: 1, mapWrite: 2, copySource: 4, copyTarget: 8 } as const;
const MAP_MODE = { read: 1, write: 2 } as const;
/** Buffers of one length serve windows of about that length. */
const SMALLEST = 2 ** 16;
/** Bytes that are kept of each direction; what is in use beyond that is given back after it. */
const MOST_KEPT = 2 ** 27;

/** Windows that are being read, or lie on the host and wait to be taken. */
export interface Reading {
  /** f32 that were read. */
  readonly length: number;
  /**
   * Copies the numbers, once, and gives the memory back.
   *
   * @param numbers f32 [length]
   * @throws DeviceLostError and what else went wrong on the device
   */
  take(numbers: Float32Array<ArrayBuffer>): Promise<void>;
}

export class Staging {
  readonly #device: Device;
  readonly #reads: Pool;
  /** Mapped, so that they can be written at once. */
  readonly #writes: Pool;

  constructor(device: Device) {
    this.#device = device;
    this.#reads = new Pool(device, USAGE.mapRead | USAGE.copyTarget);
    this.#writes = new Pool(device, USAGE.mapWrite | USAGE.copySource);
  }

  /** Reads f32 windows that lie one behind the other on the host then, after all work submitted so far. */
  read(windows: readonly Tensor[]): Reading {
    this.#device.check();
    const bytes = bytesOf(windows);
    if (bytes === 0) return { length: 0, take: async () => undefined };
    const buffer = this.#reads.take(bytes);
    const encoder = this.#device.gpu.createCommandEncoder();
    let at = 0;
    for (const window of windows) {
      encoder.copyBufferToBuffer(window.buffer, window.offset, buffer, at, byteLength(window));
      at += byteLength(window);
    }
    this.#device.submit(encoder.finish());
    const mapped = platform.withoutSpinning(buffer.mapAsync(MAP_MODE.read, 0, bytes));
    mapped.catch(() => undefined); // `take` throws it
    return {
      length: bytes / 4,
      take: async (numbers) => {
        try {
          await mapped;
        } catch (error) {
          buffer.destroy();
          await Promise.resolve(); // the news of a lost device comes after this one
          this.#device.check();
          throw error;
        }
        numbers.set(new Float32Array(buffer.getMappedRange(0, bytes)));
        buffer.unmap();
        this.#reads.give(buffer);
        this.#device.check();
      },
    };
  }

  /** Reads f32 windows into an array as long as they are together. */
  async readInto(windows: readonly Tensor[], numbers: Float32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>> {
    await this.read(windows).take(numbers);
    return numbers;
  }

  /** Writes numbers that lie one behind the other into f32 windows; ordered with submitted work. */
  write(windows: readonly Tensor[], numbers: Float32Array<ArrayBuffer>): void {
    this.#device.check();
    const bytes = bytesOf(windows);
    if (bytes !== numbers.byteLength) throw new Error(`${numbers.byteLength} bytes for windows of ${bytes}`);
    if (bytes === 0) return;
    const buffer = this.#writes.take(bytes);
    new Float32Array(buffer.getMappedRange(0, bytes)).set(numbers);
    buffer.unmap();
    const encoder = this.#device.gpu.createCommandEncoder();
    let at = 0;
    for (const window of windows) {
      encoder.copyBufferToBuffer(buffer, at, window.buffer, window.offset, byteLength(window));
      at += byteLength(window);
    }
    this.#device.submit(encoder.finish());
    // Written again once the device has read it. A device that is lost, or freed memory, is told of elsewhere.
    platform.withoutSpinning(buffer.mapAsync(MAP_MODE.write)).then(
      () => this.#writes.give(buffer),
      () => buffer.destroy(),
    );
  }

  /** Gives all of it back. Nothing may be read or written afterwards. */
  free(): void {
    this.#reads.free();
    this.#writes.free();
  }
}

const bytesOf = (windows: readonly Tensor[]) => 4 * windows.reduce((sum, { shape }) => sum + elementCount(shape), 0);

/** Buffers of one use that wait for the next. */
class Pool {
  readonly #device: Device;
  readonly #usage: number;
  readonly #waiting: GPUBuffer[] = [];
  #isFree = false;

  constructor(device: Device, usage: number) {
    this.#device = device;
    this.#usage = usage;
  }

  take(bytes: number): GPUBuffer {
    const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, SMALLEST)));
    const found = this.#waiting.findIndex((buffer) => buffer.size === size);
    const [kept] = found < 0 ? [] : this.#waiting.splice(found, 1);
    const mappedAtCreation = (this.#usage & USAGE.mapWrite) !== 0;
    return kept ?? this.#device.gpu.createBuffer({ label: "staging", size, usage: this.#usage, mappedAtCreation });
  }

  give(buffer: GPUBuffer): void {
    const bytes = this.#waiting.reduce((sum, { size }) => sum + size, buffer.size);
    if (this.#isFree || bytes > MOST_KEPT) buffer.destroy();
    else this.#waiting.push(buffer);
  }

  free(): void {
    this.#isFree = true;
    for (const buffer of this.#waiting.splice(0)) buffer.destroy();
  }
}
