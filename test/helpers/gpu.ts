/** Runs one kernel on host arrays: upload, dispatch, download. What engine code does with long-lived tensors. */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { elementCount, type Tensor } from "../../src/engine/gpu/tensor.ts";
import type { ActivationFormat, Kernel, KernelArguments, Shaped, StoredFormat } from "../../src/kernels/kernel.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { emulateMatrices } from "./emulated-matrices.ts";
import { emulateSubgroups, recordEmulated } from "./emulated-subgroups.ts";

/** Host numbers with a shape: an operand of `runKernel`. The same object passed twice becomes one tensor. */
export interface HostArray extends Shaped {
  readonly data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
}

/** f32 numbers of a shape; they are rounded to f32 here if they are not yet. */
export function f32(shape: readonly number[], data: Iterable<number>): HostArray {
  return checked({ shape, dtype: "f32", data: Float32Array.from(data) });
}

export function u32(shape: readonly number[], data: Iterable<number>): HostArray {
  return checked({ shape, dtype: "u32", data: Uint32Array.from(data) });
}

/**
 * Numbers stored as a format, and what they are after rounding to it. Rounded here bit by bit, by the definition of the
 * formats and not by the code under test.
 */
export function stored(
  format: StoredFormat,
  shape: readonly number[],
  data: Iterable<number>,
): { array: HostArray; values: Float64Array } {
  if (format === "f32") {
    const array = f32(shape, data);
    return { array, values: Float64Array.from(array.data) };
  }
  const [fractionBits, lowest, bias] = format === "bf16" ? [7, -126, 127] : [10, -14, 15];
  const values = Float64Array.from(data, (value) => {
    const exponent = Math.max(lowest, Math.floor(Math.log2(Math.abs(Math.fround(value)) || 2 ** lowest)));
    const unit = 2 ** (exponent - fractionBits);
    const units = Math.abs(Math.fround(value)) / unit;
    const below = Math.floor(units);
    const up = units - below > 0.5 || (units - below === 0.5 && below % 2 === 1);
    return Math.sign(value) * (up ? below + 1 : below) * unit;
  });
  const bits = Uint16Array.from(values, (value) => {
    if (Number.isNaN(value)) return 0x7fff;
    const size = Math.abs(value);
    const exponent = Math.max(lowest, Math.floor(Math.log2(size || 2 ** lowest)));
    const fraction = size / 2 ** (exponent - fractionBits);
    const isNormal = fraction >= 2 ** fractionBits;
    const biased = isNormal ? exponent + bias : 0;
    return (value < 0 ? 0x8000 : 0) | (biased << fractionBits) | (isNormal ? fraction - 2 ** fractionBits : fraction);
  });
  // Whole words: an odd number of halves has one more behind.
  const padded = new Uint16Array(2 * Math.ceil(bits.length / 2));
  padded.set(bits);
  return { array: { shape, dtype: format, data: padded }, values };
}

/** Numbers of f16 bits, by the definition of the format. */
function fromHalves(bits: Uint16Array): Float32Array<ArrayBuffer> {
  return Float32Array.from(bits, (half) => {
    const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
    if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
  });
}

/** `unset` for results in a format. */
export function unsetAs(format: ActivationFormat, ...shape: number[]): HostArray {
  if (format === "f32") return unset(...shape);
  const words = 2 * Math.ceil(elementCount(shape) / 2);
  return { shape, dtype: format, data: new Uint16Array(words).fill(0x7e00) };
}

/** An f32 tensor full of NaN: for results, which must all be written, and for operands that must not be read. */
export function unset(...shape: number[]): HostArray {
  return { shape, dtype: "f32", data: new Float32Array(elementCount(shape)).fill(Number.NaN) };
}

export function zeros(...shape: number[]): HostArray {
  return { shape, dtype: "f32", data: new Float32Array(elementCount(shape)) };
}

function checked(array: HostArray): HostArray {
  if (array.data.length !== elementCount(array.shape)) {
    throw new Error(`${array.data.length} numbers for a shape of [${array.shape.join(", ")}]`);
  }
  return array;
}

/** The candidate of this name, alone; the kernel as it is without a name. */
export function candidate<B extends string, U extends string>(kernel: Kernel<B, U>, name: string | undefined) {
  if (name === undefined) return kernel;
  const found = (kernel.candidates?.({}) ?? [kernel]).find(({ variant }) => variant === name);
  if (found === undefined) throw new Error(`${kernel.name} has no candidate ${name}`);
  const { candidates: _, ...alone } = found;
  return alone;
}

/**
 * Dispatches a kernel once; the function returned gives the numbers of a binding that it writes.
 *
 * @param facts that the kernel is built for: lanes and matrices that the device does not have are emulated. Default: the device's own
 */
export async function runKernel<B extends string, U extends string>(
  device: Device,
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
  facts: AdapterFacts = device.facts,
): Promise<(name: B) => Float32Array<ArrayBuffer>> {
  const tensors = new Map<HostArray, Tensor>();
  const program = new Program(device, `test of ${kernel.name}`);
  const operands = args as Readonly<Record<string, HostArray | number>>;
  const onDevice = Object.fromEntries(
    Object.entries(operands).map(([name, value]) => {
      if (typeof value === "number") return [name, value];
      let tensor = tensors.get(value);
      if (tensor === undefined) {
        tensor = device.allocate("scratch", name, value.shape, value.dtype);
        tensors.set(value, tensor);
        device.upload(tensor, value.data);
      }
      return [name, tensor];
    }),
  ) as KernelArguments<Tensor, B, U>;
  try {
    const { subgroupSize: lanes, matrices } = facts;
    const own = device.facts;
    const isEmulated = lanes !== 0 && lanes !== own.subgroupSize;
    const hasMatrices = !isEmulated && JSON.stringify(matrices) === JSON.stringify(own.matrices);
    const native = hasMatrices ? kernel : emulateMatrices(kernel, facts);
    program.dispatch(isEmulated ? emulateSubgroups(native, lanes) : native, onDevice);
    await program.prepare();
    if (isEmulated) recordEmulated(program.kernels, lanes);
    program.run();
    const results = new Map<string, Float32Array<ArrayBuffer>>();
    for (const { name, access } of kernel.bindings) {
      const tensor = tensors.get(operands[name] as HostArray);
      if (access !== "readWrite" || tensor === undefined) continue;
      const bytes = await device.downloadBytes(tensor);
      const halves = () => fromHalves(new Uint16Array(bytes)).slice(0, elementCount(tensor.shape));
      results.set(name, tensor.dtype === "f16" ? halves() : new Float32Array(bytes));
    }
    return (name) => {
      const result = results.get(name);
      if (result === undefined) throw new Error(`${kernel.name} does not write ${name}`);
      return result;
    };
  } finally {
    program.dispose();
    for (const tensor of tensors.values()) device.free(tensor);
  }
}
