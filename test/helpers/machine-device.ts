/**
 * A device whose GPU is the machine of `wgsl/machine.ts`: whole models run without an adapter, with every index checked,
 * by the texts of an adapter without subgroups. Slow; for scripts, and for what no adapter here shows.
 */
import { Device } from "../../src/engine/gpu/device.ts";
import { runText } from "./wgsl/machine.ts";

/** A buffer of the machine. */
interface HostBuffer {
  readonly bytes: ArrayBuffer;
}

interface Module {
  readonly label: string;
  readonly code: string;
}

/** What is bound: windows of buffers by their numbers, 0 the uniforms. */
interface Group {
  readonly entries: readonly {
    readonly binding: number;
    readonly resource: { readonly buffer: HostBuffer; readonly offset: number; readonly size: number };
  }[];
}

const nothing = (): undefined => undefined;

function hostBuffer({ size }: { readonly size: number }) {
  const bytes = new ArrayBuffer(size);
  const getMappedRange = (offset: number, length: number) => bytes.slice(offset, offset + length);
  return { bytes, getMappedRange, mapAsync: async () => undefined, unmap: nothing, destroy: nothing };
}

function copyBytes(from: ArrayBuffer, offset: number, to: ArrayBuffer, toOffset: number, length: number): void {
  new Uint8Array(to, toOffset, length).set(new Uint8Array(from, offset, length));
}

/** The uniforms of a text, in the order of its struct. */
function uniformsOf(code: string, bytes: ArrayBuffer): object {
  const [, members = ""] = /struct Uniforms \{ ([^}]*)\}/.exec(code) ?? [];
  const words = new DataView(bytes);
  const parsed = members.split(",").flatMap((member, i): [string, number][] => {
    const [name = "", type = ""] = member.split(":").map((part) => part.trim());
    if (name === "") return [];
    if (type === "f32") return [[name, words.getFloat32(4 * i, true)]];
    return [[name, type === "i32" ? words.getInt32(4 * i, true) : words.getUint32(4 * i, true)]];
  });
  return Object.fromEntries(parsed);
}

function dispatch({ label, code }: Module, { entries }: Group, grid: readonly number[]): void {
  const windows = new Map(entries.map(({ binding, resource }) => [binding, resource]));
  const windowOf = (binding: number) => {
    const window = windows.get(binding);
    if (window === undefined) throw new Error(`${label}: nothing is bound to ${binding}`);
    return { ...window, own: window.buffer.bytes.slice(window.offset, window.offset + window.size) };
  };
  const declared = code.matchAll(/@binding\((\d+)\) var<storage, (\w+)> (\w+):/g);
  const bound = [...declared].map(([, binding, access, name = ""]) => {
    return { name, access, ...windowOf(Number(binding)) };
  });
  const uniforms = uniformsOf(code, windowOf(0).own);
  runText(label, code, { grid, uniforms }, new Map(bound.map(({ name, own }) => [name, own])), 0);
  for (const { access, buffer, offset, size, own } of bound) {
    if (access === "read_write") copyBytes(own, 0, buffer.bytes, offset, size);
  }
}

/** Commands are functions that are called when they are submitted. */
function commandEncoder() {
  const commands: (() => void)[] = [];
  return {
    copyBufferToBuffer(from: HostBuffer, offset: number, to: HostBuffer, toOffset: number, length: number): void {
      commands.push(() => copyBytes(from.bytes, offset, to.bytes, toOffset, length));
    },
    clearBuffer({ bytes }: HostBuffer, offset: number, length: number): void {
      commands.push(() => new Uint8Array(bytes, offset, length).fill(0));
    },
    beginComputePass() {
      let module: Module;
      let group: Group;
      return {
        setPipeline(given: Module): void {
          module = given;
        },
        setBindGroup(_: number, given: Group): void {
          group = given;
        },
        dispatchWorkgroups(...grid: number[]): void {
          const [text, windows] = [module, group];
          commands.push(() => dispatch(text, windows, grid));
        },
        end: nothing,
      };
    },
    finish: () => commands,
  };
}

export function machineDevice(): Device {
  const limits = {
    maxBufferSize: 2 ** 30,
    maxStorageBufferBindingSize: 2 ** 27,
    maxComputeWorkgroupStorageSize: 2 ** 14,
  };
  const gpu: Partial<Record<keyof GPUDevice, unknown>> = {
    limits,
    features: new Set(),
    lost: new Promise<never>(nothing),
    addEventListener: nothing,
    destroy: nothing,
    createBuffer: hostBuffer,
    createCommandEncoder: commandEncoder,
    queue: {
      writeBuffer({ bytes }: HostBuffer, offset: number, data: ArrayBuffer | ArrayBufferView): void {
        const given = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
        const { buffer, byteOffset, byteLength } = given;
        copyBytes(buffer as ArrayBuffer, byteOffset, bytes, offset, byteLength);
      },
      submit(lists: readonly (readonly (() => void)[])[]): void {
        for (const command of lists.flat()) command();
      },
      onSubmittedWorkDone: async () => undefined,
    },
    pushErrorScope: nothing,
    popErrorScope: async () => null,
    createShaderModule: (module: Module) => module,
    createBindGroupLayout: nothing,
    createPipelineLayout: nothing,
    createBindGroup: (group: Group) => group,
    createComputePipelineAsync: async ({ compute }: { compute: { module: Module } }) => compute.module,
  };
  const found = { kind: "swiftshader", description: "the tests' machine, no adapter" } as const;
  return Device.over(gpu as unknown as GPUDevice, found, { subgroupSize: 0, software: true });
}
