/** Runs one kernel on host arrays: upload, dispatch, download. What engine code does with long-lived tensors. */
import type { Device } from "../../src/engine/device.ts";
import { Program } from "../../src/engine/program.ts";
import { elementCount, type Tensor } from "../../src/engine/tensor.ts";
import type { Kernel, KernelArguments, Shaped } from "../../src/kernels/kernel.ts";

/** Host numbers with a shape: an operand of `runKernel`. The same object passed twice becomes one tensor. */
export interface HostArray extends Shaped {
  readonly data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
}

/** f32 numbers of a shape; they are rounded to f32 here if they are not yet. */
export function f32(shape: readonly number[], data: Iterable<number>): HostArray {
  return checked({ shape, dtype: "f32", data: Float32Array.from(data) });
}

export function u32(shape: readonly number[], data: Iterable<number>): HostArray {
  return checked({ shape, dtype: "u32", data: Uint32Array.from(data) });
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

/** Dispatches a kernel once; the function returned gives the f32 contents of a binding that it writes. */
export async function runKernel<B extends string, U extends string>(
  device: Device,
  kernel: Kernel<B, U>,
  args: KernelArguments<HostArray, B, U>,
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
    program.dispatch(kernel, onDevice);
    await program.prepare();
    program.run();
    const results = new Map<string, Float32Array<ArrayBuffer>>();
    for (const { name, access } of kernel.bindings) {
      const tensor = tensors.get(operands[name] as HostArray);
      if (access === "readWrite" && tensor) results.set(name, await device.download(tensor));
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
