/** Runs one kernel on host arrays: upload, dispatch, download. What engine code does with long-lived tensors. */
import type { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { byteLength, elementCount, type Tensor } from "../../src/engine/gpu/tensor.ts";
import {
  type ActivationFormat,
  fittingFormat,
  isQuantized,
  type Kernel,
  type KernelArguments,
  QUANTIZED,
  type QuantizedFormat,
  resolveValues,
  type Shaped,
  type Values,
  type WeightFormat,
} from "../../src/kernels/kernel.ts";
import type { AdapterFacts } from "../../src/kernels/wgsl.ts";
import { emulateMatrices, needsMachine } from "./emulated-matrices.ts";
import { recordLanes } from "./lane-widths.ts";
import { runOnMachine } from "./wgsl/machine.ts";
import { halfOfBits } from "./wgsl/values.ts";

/** Host numbers with a shape: an operand of `runKernel`. The same object passed twice becomes one tensor. */
export interface HostArray extends Shaped {
  readonly data:
    | Float32Array<ArrayBuffer>
    | Uint32Array<ArrayBuffer>
    | Uint16Array<ArrayBuffer>
    | Uint8Array<ArrayBuffer>;
  /** Of quantised numbers, whose data are codes. */
  readonly scales?: HostArray;
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
  format: WeightFormat,
  shape: readonly number[],
  data: Iterable<number>,
): { array: HostArray; values: Float64Array } {
  if (isQuantized(format)) return storedCodes(format, shape, [...data]);
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

/** The numbers of NF4 (Dettmers et al. 2023, appendix E). */
const NF4 = [
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
];

/** The same as codes times the scales of blocks: the nearest of each block's numbers. */
function storedCodes(format: QuantizedFormat, shape: readonly number[], data: readonly number[]) {
  const { block, bits } = QUANTIZED[format];
  const steps = format === "nf4" ? NF4 : Array.from({ length: 255 }, (_, i) => (i - 127) / 127);
  const count = elementCount(shape);
  const sizes = Array.from({ length: Math.ceil(count / block) }, (_, at) =>
    Math.max(...data.slice(at * block, (at + 1) * block).map(Math.abs)),
  );
  const scales = stored(
    format === "nf4" ? "f32" : "f16",
    [sizes.length],
    sizes.map((size) => size / (format === "nf4" ? 1 : 127)),
  );
  const values = new Float64Array(count);
  const codes = new Uint8Array(4 * Math.ceil((count * bits) / 32));
  for (let i = 0; i < count; i++) {
    const share = (data[i] ?? 0) / (sizes[Math.floor(i / block)] || 1);
    const nearest = steps.reduce(
      (best, step, at) => (Math.abs(step - share) < Math.abs((steps[best] ?? 0) - share) ? at : best),
      0,
    );
    const code = format === "nf4" ? nearest : nearest - 127;
    values[i] = Math.fround((scales.values[Math.floor(i / block)] ?? 0) * (format === "nf4" ? (NF4[code] ?? 0) : code));
    if (format === "int8") codes[i] = code;
    else codes[i >> 1] = (codes[i >> 1] ?? 0) | (i % 2 === 0 ? code << 4 : code);
  }
  const array: HostArray = { shape, dtype: format, data: codes, scales: scales.array };
  return { array, values };
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

const HALVES = "enable f16;";

/**
 * Dispatches a kernel once; the function returned gives the numbers of a binding that it writes.
 *
 * @param facts that the kernel is built for: with lanes that the device does not have it runs on the machine of
 * `wgsl/machine.ts`, and so it does with f16 where the device lacks `shader-f16`; matrices that it does not have are
 * emulated. Default: the device's own
 */
export async function runKernel<B extends string, U extends string>(
  device: Device,
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
  facts: AdapterFacts = device.facts,
): Promise<(name: B) => Float32Array<ArrayBuffer>> {
  const operands = args as Operands;
  const { subgroupSize: lanes, matrices } = facts;
  const own = device.facts;
  const emulated = emulateMatrices(kernel, facts);
  const hasMatrices = JSON.stringify(matrices) === JSON.stringify(own.matrices);
  const otherLanes = lanes !== 0 && (lanes !== own.subgroupSize || (!hasMatrices && needsMachine(emulated, kernel)));
  const noHalves = !device.gpu.features.has("shader-f16") && chosen(emulated, operands).kernel.wgsl.includes(HALVES);
  const isEmulated = otherLanes || noHalves;
  if (!isEmulated) checkBounds(emulated, operands, own.subgroupSize);
  const written = isEmulated
    ? onMachine(emulated, operands, otherLanes ? lanes : own.subgroupSize)
    : await onDevice(device, hasMatrices ? kernel : emulated, operands);
  return (name) => {
    const [bytes, { dtype, shape }] = [written.get(name), operands[name] as HostArray];
    if (bytes === undefined) throw new Error(`${kernel.name} does not write ${name}`);
    if (dtype !== "f16") return new Float32Array(bytes);
    return Float32Array.from(new Uint16Array(bytes).subarray(0, elementCount(shape)), halfOfBits);
  };
}

/** Dispatches a kernel once on the machine, which stops at any index that is out of bounds. Returns what it writes. */
export function onMachine(given: Kernel, operands: Operands, lanes: number): Map<string, ArrayBuffer> {
  const { kernel, values } = chosen(given, operands);
  // What is passed twice is the same memory, and what the caller passed stays as it is.
  const memory = new Map<HostArray, ArrayBuffer>();
  const bound = new Map<string, ArrayBuffer>();
  for (const { name, scalesOf } of kernel.bindings) {
    const given = operands[scalesOf ?? name] as HostArray;
    const operand = scalesOf === undefined ? given : (given.scales as HostArray);
    const { buffer, byteOffset } = operand.data;
    const bytes = memory.get(operand) ?? buffer.slice(byteOffset, byteOffset + byteLength(operand));
    memory.set(operand, bytes);
    bound.set(name, bytes);
  }
  runOnMachine(kernel, values, bound, kernel.wgsl.includes("enable subgroups;") ? lanes : 1);
  recordLanes(kernel, lanes);
  return new Map([...bound].filter(([name]) => writes(kernel, name)));
}

type Operands = Readonly<Record<string, HostArray | number>>;

/** The kernel that a program takes for these operands, by its formats and as the first of its candidates. */
function chosen(given: Kernel, operands: Operands): { kernel: Kernel; values: Values } {
  const fitting = fittingFormat(given, operands);
  const values = resolveValues(fitting, operands);
  const [kernel = fitting] = fitting.candidates?.(values) ?? [];
  return { kernel, values };
}

/** For bounds: shapes of each text that run on the machine too, and the operations of the largest. */
const CHECKED = { shapes: 2, flops: 3e6 };
const shapesChecked = new Map<string, number>();

/**
 * Runs a kernel on the machine beside the device, which hides what is out of bounds: it clamps the index. The first
 * shapes of each text; KTO_TEST_SHAPES=all runs every one.
 */
function checkBounds(given: Kernel, operands: Operands, lanes: number): void {
  const { kernel, values } = chosen(given, operands);
  const count = shapesChecked.get(kernel.wgsl) ?? 0;
  const isAsked = process.env.KTO_TEST_SHAPES === "all";
  if (!isAsked && (count >= CHECKED.shapes || kernel.cost(values).flops > CHECKED.flops)) return;
  shapesChecked.set(kernel.wgsl, count + 1);
  onMachine(kernel, operands, lanes);
}

const writes = (kernel: Kernel, name: string) =>
  kernel.bindings.some((binding) => binding.name === name && binding.access === "readWrite");

async function onDevice<B extends string, U extends string>(
  device: Device,
  kernel: Kernel<B, U>,
  operands: Operands,
): Promise<Map<string, ArrayBuffer>> {
  const tensors = new Map<HostArray, Tensor>();
  const program = new Program(device, `test of ${kernel.name}`);
  const onDevice = Object.fromEntries(
    Object.entries(operands).map(([name, value]) => {
      if (typeof value === "number") return [name, value];
      let tensor = tensors.get(value);
      if (tensor === undefined) {
        tensor = device.allocate("scratch", name, value.shape, value.dtype);
        tensors.set(value, tensor);
        device.upload(tensor, value.data);
        if (tensor.scales && value.scales) device.upload(tensor.scales, value.scales.data);
      }
      return [name, tensor];
    }),
  ) as KernelArguments<Tensor, B, U>;
  try {
    program.dispatch(kernel, onDevice);
    await program.prepare();
    program.run();
    const results = new Map<string, ArrayBuffer>();
    for (const { name } of kernel.bindings) {
      const tensor = tensors.get(operands[name] as HostArray);
      if (tensor !== undefined && writes(kernel, name)) results.set(name, await device.downloadBytes(tensor));
    }
    return results;
  } finally {
    program.dispose();
    for (const tensor of tensors.values()) device.free(tensor);
  }
}
