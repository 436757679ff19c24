/**
 * Arenas: device memory with a number for each element of a set of parameters (weights, gradients, moments). A layout
 * says where each parameter lies; arenas of one layout can be walked together, so that one dispatch runs over all
 * parameters. An arena is one buffer, or several if it exceeds `Device.bufferLimit` or has two element types.
 */
import { isQuantized, type StoredFormat, type WeightFormat } from "../../kernels/kernel.ts";
import type { Device, MemoryCategory } from "./device.ts";
import type { Program } from "./program.ts";
import { elementBytes, elementCount, quantizedAlignment, type Tensor, tensorFrom, WINDOW_ALIGNMENT } from "./tensor.ts";

/** A tensor of a file as a contiguous part of a parameter. */
export interface ParameterPart {
  /** Without the prefix ("model.", "transformer.") that varies between weight files. */
  readonly name: string;
  readonly shape: readonly number[];
}

export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** Weight decay applies: matrices yes, biases and norm weights no. */
  readonly decay: boolean;
  readonly parts: readonly ParameterPart[];
}

/** One buffer of an arena. */
export interface Segment {
  readonly dtype: WeightFormat;
  /** Elements, padding included. */
  readonly size: number;
  /** Parameters with weight decay fill [0, decayedSize), the others the rest. */
  readonly decayedSize: number;
}

/** Where a parameter or a part of one lies. */
export interface Place {
  readonly segment: number;
  /** Elements from the start of the segment. */
  readonly offset: number;
}

export interface LayoutOptions {
  /** How matrices are stored; default f32. Parameters with one axis (norms, biases) are always f32. */
  readonly format?: StoredFormat;
  /** Another format of some matrices, by their names. */
  readonly formats?: ReadonlyMap<string, WeightFormat>;
  /** Bytes beyond which a buffer holds no second parameter; default no limit. */
  readonly maxBufferBytes?: number;
}

export class ParameterLayout {
  readonly specs: readonly ParameterSpec[];
  /** How matrices are stored, but for those that `formats` names. */
  readonly format: StoredFormat;
  readonly formats: ReadonlyMap<string, WeightFormat>;
  readonly segments: readonly Segment[];
  /** Elements of all parameters, without padding. */
  readonly parameterCount: number;
  readonly #places = new Map<string, Place & { readonly spec: ParameterSpec }>();

  constructor(specs: readonly ParameterSpec[], options: LayoutOptions = {}) {
    const {
      format = "f32",
      formats = new Map<string, WeightFormat>(),
      maxBufferBytes = Number.POSITIVE_INFINITY,
    } = options;
    this.format = format;
    this.formats = formats;
    // Decayed vectors go to the end of what decays, so that formats change once, from matrices to vectors.
    const order = ({ decay, shape }: ParameterSpec) => (decay ? (shape.length > 1 ? 0 : 1) : 2);
    this.specs = [...specs].sort((a, b) => order(a) - order(b));
    const segments: { dtype: WeightFormat; size: number; decayedSize: number }[] = [];
    for (const spec of this.specs) {
      const dtype = spec.shape.length > 1 ? (formats.get(spec.name) ?? format) : "f32";
      const alignment = isQuantized(dtype) ? quantizedAlignment(dtype) : WINDOW_ALIGNMENT / elementBytes(dtype);
      const size = Math.ceil(elementCount(spec.shape) / alignment) * alignment;
      let segment = segments.at(-1);
      if (segment?.dtype !== dtype || (segment.size + size) * elementBytes(dtype) > maxBufferBytes) {
        segment = { dtype, size: 0, decayedSize: 0 };
        segments.push(segment);
      }
      this.#places.set(spec.name, { segment: segments.length - 1, offset: segment.size, spec });
      segment.size += size;
      if (spec.decay) segment.decayedSize = segment.size;
    }
    this.segments = segments;
    this.parameterCount = specs.reduce((sum, spec) => sum + elementCount(spec.shape), 0);
  }

  has(name: string): boolean {
    return this.#places.has(name);
  }

  place(name: string): Place & { readonly spec: ParameterSpec } {
    const found = this.#places.get(name);
    if (found === undefined) throw new Error(`there is no parameter ${name}`);
    return found;
  }

  /** Every tensor of a file with its place. */
  *parts(): Generator<ParameterPart & Place> {
    for (const spec of this.specs) {
      const { segment, offset } = this.place(spec.name);
      let at = offset;
      for (const part of spec.parts) {
        yield { ...part, segment, offset: at };
        at += elementCount(part.shape);
      }
    }
  }
}

/** Device memory of one layout. */
export class Arena {
  readonly device: Device;
  readonly layout: ParameterLayout;
  readonly segments: readonly Tensor[];

  /** Zeroed. Throws AdapterError when the adapter cannot hold a segment. */
  constructor(device: Device, layout: ParameterLayout, category: MemoryCategory, label: string) {
    this.device = device;
    this.layout = layout;
    this.segments = layout.segments.map(({ size, dtype }) => device.allocate(category, label, [size], dtype));
  }

  has(name: string): boolean {
    return this.layout.has(name);
  }

  /** The tensor of a parameter. */
  window(name: string): Tensor {
    const { spec, ...place } = this.layout.place(name);
    return this.at(place, spec.shape);
  }

  /** A tensor from a place on. */
  at({ segment, offset }: Place, shape: readonly number[]): Tensor {
    const whole = this.segments[segment];
    if (whole === undefined) throw new Error(`the arena has no segment ${segment}`);
    return tensorFrom(whole, offset, shape);
  }

  /** Records zeroing. */
  recordClear(program: Program): void {
    for (const segment of this.segments) program.clear(segment);
  }

  /** Copies another arena of an equal layout into this one, at once (it is not recorded). */
  copyFrom(source: Arena): void {
    this.segments.forEach((segment, index) => {
      const from = source.segments[index];
      const sameSize = from?.shape[0] === segment.shape[0] && from?.dtype === segment.dtype;
      if (from === undefined || !sameSize) throw new Error("the arenas differ in layout");
      this.device.copy(from, segment);
      if (from.scales && segment.scales) this.device.copy(from.scales, segment.scales);
    });
  }

  /**
   * Windows over all parameters of this arena for an optimizer to walk: none larger than one binding, none with both
   * decayed and other parameters. `of` gives a window's tensor in any arena of this layout, or of a larger one,
   * `whole`, that holds these parameters. A window spans parameters that follow one another in both layouts.
   */
  *windows(whole: ParameterLayout = this.layout): Generator<{
    readonly decays: boolean;
    readonly of: (arena: Arena) => Tensor;
  }> {
    const most = Math.floor(this.device.limits.maxStorageBufferBindingSize / WINDOW_ALIGNMENT) * WINDOW_ELEMENTS;
    for (const { first, decays, size } of runs(this.layout, whole)) {
      for (let from = 0; from < size; from += most) {
        const shape = [Math.min(most, size - from)];
        const of = (arena: Arena) => {
          const { segment, offset } = arena.layout.place(first);
          return arena.at({ segment, offset: offset + from }, shape);
        };
        yield { decays, of };
      }
    }
  }

  /** Gives the device memory back. */
  free(): void {
    for (const segment of this.segments) this.device.free(segment);
  }
}

/** f32 elements of an aligned piece of memory. */
const WINDOW_ELEMENTS = WINDOW_ALIGNMENT / 4;

/** Runs of parameters that follow one another in `own` and in `whole`: the first's name, f32 elements with padding. */
function runs(own: ParameterLayout, whole: ParameterLayout): { first: string; decays: boolean; size: number }[] {
  const found: { first: string; decays: boolean; size: number }[] = [];
  let end: readonly [Place, Place] | undefined;
  for (const { name, shape, decay } of own.specs) {
    const places = [own.place(name), whole.place(name)] as const;
    const follows = places.every(({ segment, offset }, i) => {
      return segment === end?.[i as 0 | 1].segment && offset === end[i as 0 | 1].offset;
    });
    const size = Math.ceil(elementCount(shape) / WINDOW_ELEMENTS) * WINDOW_ELEMENTS;
    const last = found.at(-1);
    if (last && follows && last.decays === decay) last.size += size;
    else found.push({ first: name, decays: decay, size });
    const after = ({ segment, offset }: Place): Place => ({ segment, offset: offset + size });
    end = [after(places[0]), after(places[1])];
  }
  return found;
}
