/**
 * What generation keeps of the tokens of several sequences: keys and values of layers with attention, which grow, and the
 * state of other layers, which does not. Each sequence has a slot of the same number of rows; where one is
 * full all of them are doubled, so that a generator that may hold long sequences takes their memory when they are long.
 * Not the passes that read it: these are recorded again for the new buffers.
 */
import type { Device } from "../../gpu/device.ts";
import { byteLength, type Tensor } from "../../gpu/tensor.ts";
import type { ModelConfig } from "../config/config.ts";
import type { LayerState } from "../mixer.ts";
import { stateSizes } from "../states.ts";

export interface CacheSize {
  readonly slots: number;
  /** Tokens of a slot at first. */
  readonly start: number;
  /** Tokens of a slot at most. */
  readonly most: number;
}

export class GrowingCache {
  readonly #device: Device;
  readonly #size: CacheSize;
  readonly #width: number;
  /** Per layer; undefined where it has no attention. */
  readonly #keys: (Tensor | undefined)[];
  readonly #values: (Tensor | undefined)[];
  /** Per layer; undefined where it has attention. */
  readonly #states: readonly (LayerState | undefined)[];
  #length: number;

  /** Throws AdapterError when the adapter cannot hold it. */
  constructor(device: Device, config: ModelConfig, size: CacheSize) {
    this.#device = device;
    this.#size = size;
    this.#width = config.keyValueHeads * config.headSize;
    this.#length = Math.min(size.start, size.most);
    const tensors = (what: string) =>
      config.layerMixer.map((mixer, layer) =>
        mixer === "attention" ? this.#allocate(what, layer, this.#length) : undefined,
      );
    this.#keys = tensors("key");
    this.#values = tensors("value");
    const sizes = stateSizes(config);
    this.#states = config.layerMixer.map((mixer, layer) => {
      if (mixer === "attention" || sizes === undefined) return undefined;
      const [rows, channels] = sizes.convolution;
      const state = (what: string, shape: readonly number[]) =>
        device.allocate("activations", `${what} ${layer}`, shape);
      return {
        convolution: state("convolution state", [size.slots * rows, channels]),
        delta: sizes.delta === 0 ? undefined : state("recurrence state", [size.slots, sizes.delta]),
      };
    });
  }

  /** Tokens that each slot holds now: slot s has the rows from s times this on. */
  get length(): number {
    return this.#length;
  }

  /** Per layer with attention, [slots length, KV D]. */
  get keys(): readonly (Tensor | undefined)[] {
    return this.#keys;
  }

  get values(): readonly (Tensor | undefined)[] {
    return this.#values;
  }

  /** Per layer without attention. */
  get states(): readonly (LayerState | undefined)[] {
    return this.#states;
  }

  get #stateTensors(): Tensor[] {
    return this.#states.flatMap((state) => [state?.convolution, state?.delta]).filter((tensor) => tensor !== undefined);
  }

  /** Bytes now, and of a cache that has grown as far as it may. */
  get bytes(): { readonly now: number; readonly most: number } {
    const bytesOf = (tensors: readonly (Tensor | undefined)[]) =>
      tensors.reduce((sum, tensor) => sum + (tensor ? byteLength(tensor) : 0), 0);
    const [growing, fixed] = [bytesOf([...this.#keys, ...this.#values]), bytesOf(this.#stateTensors)];
    return { now: growing + fixed, most: (growing / this.#length) * this.#size.most + fixed };
  }

  /**
   * Makes room for this many tokens of each sequence and keeps what is held. Layer by layer, so that no more than one
   * is there twice. Returns whether there are new buffers.
   */
  grow(length: number): boolean {
    const { most } = this.#size;
    if (length > most) throw new Error(`a cache of at most ${most} tokens a sequence is to hold ${length}`);
    let next = this.#length;
    while (next < length) next = Math.min(2 * next, most);
    if (next === this.#length) return false;
    for (const [what, tensors] of [
      ["key", this.#keys],
      ["value", this.#values],
    ] as const) {
      for (const [layer, tensor] of tensors.entries()) {
        if (tensor === undefined) continue;
        const larger = this.#allocate(what, layer, next);
        this.#copy(tensor, larger, next);
        this.#device.free(tensor);
        tensors[layer] = larger;
      }
    }
    this.#length = next;
    return true;
  }

  #allocate(what: string, layer: number, length: number): Tensor {
    return this.#device.allocate("activations", `${what} cache ${layer}`, [this.#size.slots * length, this.#width]);
  }

  /** Copies each slot to the beginning of its place in a larger buffer of slots of `length` tokens. */
  #copy(from: Tensor, to: Tensor, length: number): void {
    const tokenBytes = 4 * this.#width;
    const encoder = this.#device.gpu.createCommandEncoder({ label: "growing the cache" });
    for (let slot = 0; slot < this.#size.slots; slot++) {
      const [source, target] = [slot * this.#length * tokenBytes, slot * length * tokenBytes];
      encoder.copyBufferToBuffer(from.buffer, source, to.buffer, target, this.#length * tokenBytes);
    }
    this.#device.submit(encoder.finish());
  }

  /** Gives the device memory back. */
  free(): void {
    for (const tensor of [...this.#keys, ...this.#values, ...this.#stateTensors]) if (tensor) this.#device.free(tensor);
  }
}
