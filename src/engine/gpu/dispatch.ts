/**
 * What a program is made of: dispatches, clears, copies and marks. Here a dispatch's windows are checked when it is
 * recorded, and encoded when it runs; which kernel it takes is chosen in `program.ts`.
 */
import type { Cost, Kernel, Values } from "../../kernels/kernel.ts";
import type { Device } from "./device.ts";
import type { GridPiece } from "./pieces.ts";
import { byteLength, elementCount, type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";

/** A dispatch of a program. */
export interface Dispatch {
  readonly type: "dispatch";
  /** The default of the candidates until `prepare` has chosen. */
  kernel: Kernel;
  /** Its grid as this kernel has it, in pieces that the device may run; each has its own group. */
  pieces: readonly PreparedPiece[];
  readonly candidates: readonly Kernel[];
  readonly tensors: readonly Tensor[];
  readonly values: Values;
  readonly cost: Cost;
  readonly together: Together | undefined;
  pipeline?: GPUComputePipeline;
}

/** Dispatches over parts of one thing, to be given to each: all take the candidate that is chosen for the first. */
export interface Together {
  variant?: string | undefined;
}

export interface PreparedPiece extends GridPiece {
  group?: GPUBindGroup;
}

/** What a program holds, in order. */
export type Step =
  | Dispatch
  | { readonly type: "mark"; readonly mark: number }
  | { readonly type: "clear"; readonly tensor: Tensor }
  | { readonly type: "copy"; readonly from: Tensor; readonly to: Tensor };

/**
 * Checks what a kernel is given for each of its bindings.
 *
 * @param tensors in the order of the bindings
 * @throws AdapterError for a window beyond what the adapter binds; Error for one that is empty, starts at a byte that
 * WebGPU cannot bind or is both read and written
 */
export function checkWindows(device: Device, kernel: Kernel, tensors: readonly Tensor[]): void {
  tensors.forEach((tensor, index) => {
    checkWindow(device, kernel, kernel.bindings[index]?.name ?? "", tensor);
  });
  checkAliases(kernel, tensors);
}

function checkWindow(device: Device, kernel: Kernel, name: string, tensor: Tensor): void {
  const limit = device.limits.maxStorageBufferBindingSize;
  if (byteLength(tensor) > limit) {
    device.refuse(
      `${kernel.name}: ${name} [${tensor.shape.join(", ")}] has ${byteLength(tensor)} bytes and the adapter "${device.description}" binds at most ${limit}; use a smaller batch or model.`,
    );
  }
  if (tensor.offset % WINDOW_ALIGNMENT !== 0) {
    throw new Error(`${kernel.name}: ${name} starts at byte ${tensor.offset}, not a multiple of ${WINDOW_ALIGNMENT}`);
  }
  if (elementCount(tensor.shape) === 0) throw new Error(`${kernel.name}: ${name} is empty`);
}

/** Throws if a dispatch reads and writes one buffer: WebGPU forbids it, even for windows that do not overlap. */
function checkAliases(kernel: Kernel, tensors: readonly Tensor[]): void {
  tensors.forEach((tensor, index) => {
    if (kernel.bindings[index]?.access !== "readWrite") return;
    const read = tensors.findIndex((other, at) => {
      return other.buffer === tensor.buffer && kernel.bindings[at]?.access === "read";
    });
    if (read < 0) return;
    throw new Error(
      `${kernel.name}: ${kernel.bindings[read]?.name} is read from the buffer that ${kernel.bindings[index]?.name} is written to`,
    );
  });
}

export function encodePiece(pass: GPUComputePassEncoder, { pipeline }: Dispatch, { group, grid }: PreparedPiece): void {
  if (pipeline === undefined || group === undefined) throw new Error("run before prepare");
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...grid);
}

export function encodeTransfer(encoder: GPUCommandEncoder, step: Extract<Step, { type: "clear" | "copy" }>): void {
  if (step.type === "clear") {
    encoder.clearBuffer(step.tensor.buffer, step.tensor.offset, byteLength(step.tensor));
  } else {
    encoder.copyBufferToBuffer(
      step.from.buffer,
      step.from.offset,
      step.to.buffer,
      step.to.offset,
      byteLength(step.from),
    );
  }
}
