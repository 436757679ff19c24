/**
 * What AdamW keeps of each trained parameter between updates: two moments, in f32 or, of large parameters, as codes of
 * eight bits with a scale for each block. Memory only; the formulas are the kernels'.
 */
import { dynamicMap, MOMENT_BLOCK } from "../../kernels/dynamic-map.ts";
import { Arena, ParameterLayout, type ParameterSpec } from "./arena.ts";
import type { Device } from "./device.ts";
import { alignWindow, elementCount, type Tensor } from "./tensor.ts";

/** Smaller parameters keep f32 moments, as bitsandbytes has it: they cost little, and norms and biases matter much. */
export const LEAST_CODED = 4096;

/** How moments are kept. */
export type MomentFormat = "f32" | "8bit";

/** The coded moments of one parameter of n elements, see `kernels/adamw-8bit.ts`. */
export interface CodedMoments {
  readonly name: string;
  /** u32 [ceil(n / 4)], four codes a word. */
  readonly first: Tensor;
  readonly second: Tensor;
  /** f32 [ceil(n / 256), 2] */
  readonly scales: Tensor;
}

export class Moments {
  readonly #device: Device;
  /** f32 moments, of all trained parameters or of the small ones. */
  readonly first: Arena;
  readonly second: Arena;
  /** By the parameter's name; none where all moments are f32. */
  readonly coded: ReadonlyMap<string, CodedMoments>;
  /** f32 [512]: what codes of first and second moments stand for. */
  readonly table: Tensor | undefined;
  readonly #buffers: Tensor[] = [];

  /**
   * Zeroed.
   *
   * @param layout of the trained parameters, or of a rank's parts of them, f32
   * @param isCoded which moments are kept as codes, by the names in the layout
   * @throws AdapterError when the adapter cannot hold them
   */
  constructor(device: Device, layout: ParameterLayout, isCoded: (spec: ParameterSpec) => boolean) {
    this.#device = device;
    const large = layout.specs.filter(isCoded);
    const small =
      large.length === 0
        ? layout
        : new ParameterLayout(
            layout.specs.filter((spec) => !isCoded(spec)),
            { maxBufferBytes: device.bufferLimit },
          );
    this.first = new Arena(device, small, "optimizer", "first moments");
    this.second = new Arena(device, small, "optimizer", "second moments");
    this.coded = new Map(this.#allocate(large));
    if (large.length === 0) return;
    this.table = this.#buffer("values of codes", 512, "f32");
    device.upload(this.table, Float32Array.of(...dynamicMap(true), ...dynamicMap(false)));
  }

  #buffer(label: string, size: number, dtype: "u32" | "f32"): Tensor {
    const tensor = this.#device.allocate("optimizer", label, [size], dtype);
    this.#buffers.push(tensor);
    return tensor;
  }

  /** Parameters share buffers as long as these stay within `Device.bufferLimit`. */
  #allocate(specs: readonly ParameterSpec[]): [string, CodedMoments][] {
    const found: [string, CodedMoments][] = [];
    for (const group of groups(specs, this.#device.bufferLimit)) {
      const total = (bytesOf: (size: number) => number) =>
        group.reduce((sum, { shape }) => sum + alignWindow(bytesOf(elementCount(shape))), 0) / 4;
      const buffers = {
        first: this.#buffer("first moments in 8 bits", total(codeBytes), "u32"),
        second: this.#buffer("second moments in 8 bits", total(codeBytes), "u32"),
        scales: this.#buffer("scales of moments", total(scaleBytes), "f32"),
      };
      let [codesAt, scalesAt] = [0, 0];
      for (const { name, shape } of group) {
        const size = elementCount(shape);
        const codes = (of: Tensor): Tensor => ({ ...of, offset: of.offset + codesAt, shape: [codeBytes(size) / 4] });
        found.push([
          name,
          {
            name,
            first: codes(buffers.first),
            second: codes(buffers.second),
            scales: { ...buffers.scales, offset: buffers.scales.offset + scalesAt, shape: [scaleBytes(size) / 8, 2] },
          },
        ]);
        codesAt += alignWindow(codeBytes(size));
        scalesAt += alignWindow(scaleBytes(size));
      }
    }
    return found;
  }

  /** Gives the device memory back. */
  free(): void {
    this.first.free();
    this.second.free();
    for (const buffer of this.#buffers) this.#device.free(buffer);
  }
}

/** Bytes of the moments and scales of parameters, without padding. */
export function momentBytes(specs: readonly ParameterSpec[], isCoded: (spec: ParameterSpec) => boolean): number {
  return specs.reduce((sum, spec) => {
    const size = elementCount(spec.shape);
    return sum + (isCoded(spec) ? 2 * codeBytes(size) + scaleBytes(size) : 8 * size);
  }, 0);
}

/** Bytes of one moment's codes, in whole words. */
export const codeBytes = (size: number) => 4 * Math.ceil(size / 4);
/** Bytes of the scales of both moments. */
export const scaleBytes = (size: number) => 8 * Math.ceil(size / MOMENT_BLOCK);

/** Parameters in their order whose codes fit into one buffer; one that is larger alone has its own. */
function groups(specs: readonly ParameterSpec[], maxBytes: number): ParameterSpec[][] {
  const found: ParameterSpec[][] = [];
  let bytes = 0;
  for (const spec of specs) {
    const own = alignWindow(codeBytes(elementCount(spec.shape)));
    const last = found.at(-1);
    if (last && bytes + own <= maxBytes) {
      last.push(spec);
      bytes += own;
    } else {
      found.push([spec]);
      bytes = own;
    }
  }
  return found;
}
