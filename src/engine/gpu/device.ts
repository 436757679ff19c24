/**
 * A WebGPU device: opening it with the limits and features that we use, buffers counted by category, transfers,
 * submission. Errors from callbacks are kept and raised at the next call in the foreground; they never reach stdout.
 * Kernels are compiled in `pipelines.ts`, and what runs is recorded in `program.ts`.
 */
import { AdapterError, ConfigError, DeviceLostError, errorMessage } from "../../errors.ts";
import { type ElementType, isQuantized, type Kernel, QUANTIZED } from "../../kernels/kernel.ts";
import type { AdapterFacts } from "../../kernels/wgsl.ts";
import { type AdapterKind, type FoundAdapter, platform } from "../platform/index.ts";
import { deviceMatrices, MATRIX_FEATURE } from "./matrices.ts";
import { type CompiledKernel, Pipelines } from "./pipelines.ts";
import { chooseSubgroupSize } from "./subgroup-size.ts";
import { alignWindow, byteLength, elementCount, type Tensor } from "./tensor.ts";
import { TRIAL_BYTES, Tuner, type Tuning } from "./tuner.ts";

/** What device memory is used for; the memory report adds up bytes under these names. */
export type MemoryCategory =
  | "weights"
  | "reference weights"
  | "adapter"
  | "gradients"
  | "optimizer"
  | "activations"
  | "scratch"
  | "batch"
  | "uniforms";

export interface DeviceOptions {
  /**
   * "auto" (default), "hardware", "lavapipe", "swiftshader", "software" (the best of these), an index or a part of the
   * adapter's name.
   */
  readonly adapter?: string;
  /**
   * Whether kernels are chosen by timing them; "off" takes the defaults, "matrices" products on subgroup matrices wherever
   * the adapter has them, to test these. Default: the variable KTO_TUNING, else "on".
   */
  readonly tuning?: Tuning;
  /**
   * "all" (default) asks for the optional features and the larger buffers that the adapter has; "core" only for what
   * every WebGPU adapter guarantees, to tell a driver's faults from ours. Default: the variable KTO_FEATURES, else
   * "all".
   */
  readonly features?: "all" | "core";
}

/** Host numbers to upload: f16 and bf16 as packed bytes, in whole words of 4. */
export type UploadData =
  | Float32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

const USAGE = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 } as const;
const MAP_MODE_READ = 1;

/** Bytes of the largest staging buffer that is kept for the next download: losses and logits, not weights. */
const LARGEST_KEPT_STAGING = 2 ** 20;

/**
 * Estimated work (flops or bytes) that one dispatch and one submit may hold: small enough that no watchdog sees a hung
 * device. Windows gives a dispatch 2 seconds, which 1e11 flops keep to on a GPU that reaches 50 GFLOP/s.
 */
const WORK_LIMIT = { software: 2e9, hardware: 1e11 } as const;

/**
 * Bytes beyond which memory that can be in several buffers is. An adapter's maxBufferSize is no promise: Vulkan drivers
 * name sizes there that they do not allocate, and 32-bit offsets end at 2 or 4 GiB.
 */
const LARGEST_BUFFER = 2 ** 31;

/**
 * An open WebGPU device: allocates buffers and counts their bytes, uploads, downloads, compiles, submits. Every call
 * throws what went wrong since the last one: AdapterError out of memory, ConfigError for memory that was freed and used
 * again, DeviceLostError once lost or closed.
 */
export class Device {
  readonly gpu: GPUDevice;
  readonly kind: AdapterKind;
  /** The adapter's name, for messages. */
  readonly description: string;
  readonly facts: AdapterFacts;
  /** Kernels name the size of their subgroups, because the adapter has several. */
  readonly pinsSubgroupSize: boolean;
  readonly limits: GPUSupportedLimits;
  /** Chooses among kernels that compute the same. */
  readonly tuner: Tuner;
  /** A tensor to pass for operands that a kernel does not use. */
  readonly unused: Tensor;
  readonly #pipelines: Pipelines;
  readonly #allocated = new Map<GPUBuffer, { category: MemoryCategory; bytes: number }>();
  readonly #bytes = new Map<MemoryCategory, number>();
  #peakBytes = 0;
  #largestBuffer = { label: "", bytes: 0 };
  readonly #staging = new Map<number, GPUBuffer[]>();
  #failure: Error | undefined;
  #closed = false;

  /** Only counts what is allocated, and runs nothing; see `memory-plan.ts`. */
  readonly counts: boolean;
  /** What the adapter would have refused to hold, of a device that counts on behind that. */
  readonly refusals: AdapterError[] = [];
  readonly #countsOn: boolean;

  private constructor(
    gpu: GPUDevice,
    found: Pick<FoundAdapter, "kind" | "description">,
    facts: AdapterFacts,
    {
      tuning,
      pinned = false,
      counts = false,
      countsOn = false,
    }: { tuning: Tuning; pinned?: boolean; counts?: boolean; countsOn?: boolean },
  ) {
    const room = found.kind === "hardware" ? TRIAL_BYTES.hardware : TRIAL_BYTES.software;
    this.tuner = new Tuner(found.description, tuning, room);
    this.gpu = gpu;
    this.pinsSubgroupSize = pinned;
    this.#pipelines = new Pipelines(gpu, pinned ? facts.subgroupSize : undefined, () => this.check());
    this.counts = counts;
    this.#countsOn = countsOn;
    this.kind = found.kind;
    this.description = found.description;
    this.facts = facts;
    this.limits = gpu.limits;
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      const outOfMemory = error.constructor.name === "GPUOutOfMemoryError";
      this.#failure ??= outOfMemory
        ? new AdapterError(`The adapter "${this.description}" ran out of memory: ${error.message}`)
        : (usedAfterFree(error) ?? new Error(`WebGPU: ${error.message}`));
    });
    void gpu.lost.then((info) => {
      if (this.#closed) return;
      this.#failure = new DeviceLostError(
        `The device "${this.description}" was lost (${info.reason || "unknown"}): ${info.message}`,
      );
    });
    this.unused = this.allocate("uniforms", "unused", [1, 4]);
  }

  /**
   * Opens the best adapter, or the one selected. Throws AdapterError when there is none or it gives no device,
   * ConfigError for an option that has no such value.
   */
  static async open(options: DeviceOptions = {}): Promise<Device> {
    const tuning = choiceOf("tuning", options.tuning, "KTO_TUNING", ["on", "off", "matrices"]);
    const core = choiceOf("features", options.features, "KTO_FEATURES", ["all", "core"]) === "core";
    const found = await platform.requestAdapter(options.adapter);
    const { adapter } = found;
    // The types of WebGPU do not list all of these yet, which Dawn has.
    const wanted = (
      core ? [] : ["subgroups", "subgroup-size-control", "timestamp-query", "shader-f16", MATRIX_FEATURE]
    ) as GPUFeatureName[];
    let gpu: GPUDevice;
    try {
      gpu = await adapter.requestDevice({
        requiredFeatures: wanted.filter((feature) => adapter.features.has(feature)),
        requiredLimits: core
          ? {}
          : {
              maxBufferSize: adapter.limits.maxBufferSize,
              maxStorageBufferBindingSize: adapter.limits.maxStorageBufferBindingSize,
              maxComputeWorkgroupStorageSize: adapter.limits.maxComputeWorkgroupStorageSize,
            },
      });
    } catch (error) {
      throw new AdapterError(`The adapter "${found.description}" gave no device: ${errorMessage(error)}`, {
        cause: error,
      });
    }
    const size = await platform.withoutSpinning(chooseSubgroupSize(gpu, adapter.info));
    const software = found.kind !== "hardware";
    // A software adapter multiplies matrices a number at a time: they are for tests there.
    const wantsMatrices = !software || tuning === "matrices";
    const matrices = wantsMatrices
      ? await platform.withoutSpinning(deviceMatrices(gpu, adapter.info, size))
      : undefined;
    const facts = { subgroupSize: size.lanes, software, ...(matrices && { matrices }) };
    return new Device(gpu, found, facts, { tuning, pinned: size.pinned });
  }

  /** A device with another one's facts and limits, whose GPU object does nothing; see `memory-plan.ts`. */
  static counting(like: Device, gpu: GPUDevice, countsOn = false): Device {
    return new Device(gpu, like, like.facts, { tuning: "off", counts: true, countsOn });
  }

  /** A device over a GPU object of the caller's own, which runs what it is given. */
  static over(gpu: GPUDevice, found: Pick<FoundAdapter, "kind" | "description">, facts: AdapterFacts): Device {
    return new Device(gpu, found, facts, { tuning: "off" });
  }

  get isSoftware(): boolean {
    return this.kind !== "hardware";
  }

  /**
   * Bytes at which arenas and activations are split: 2 GiB, or what the adapter holds in a buffer or binds, if that is
   * less.
   */
  get bufferLimit(): number {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.limits;
    return Math.min(LARGEST_BUFFER, maxBufferSize, maxStorageBufferBindingSize);
  }

  /**
   * Says that the adapter cannot hold something. A device that counts on keeps the sentence for whoever reads the plan.
   *
   * @throws AdapterError on any other device
   */
  refuse(sentence: string): void {
    const refusal = new AdapterError(sentence);
    if (!this.#countsOn) throw refusal;
    this.refusals.push(refusal);
  }

  /** Raises what went wrong since the last call. */
  check(): void {
    if (this.#closed) throw new DeviceLostError("The device was closed and used again.");
    const failure = this.#failure;
    if (failure === undefined) return;
    if (!(failure instanceof DeviceLostError)) this.#failure = undefined;
    throw failure;
  }

  /**
   * A zeroed buffer of its own, counted under `category`, and for a quantised tensor another one of scales. Throws
   * AdapterError naming the buffer, its size and the limit when the adapter cannot hold it.
   */
  allocate(category: MemoryCategory, label: string, shape: readonly number[], dtype: ElementType = "f32"): Tensor {
    this.check();
    const bytes = Math.max(16, alignWindow(byteLength({ shape, dtype })));
    if (bytes > this.limits.maxBufferSize) {
      this.refuse(
        `"${label}" needs ${bytes} bytes in one buffer and the adapter "${this.description}" allows ${this.limits.maxBufferSize}; use a smaller batch or a smaller model.`,
      );
    }
    const usage = USAGE.storage | USAGE.copySource | USAGE.copyTarget | (category === "uniforms" ? USAGE.uniform : 0);
    const buffer = this.gpu.createBuffer({ label, size: bytes, usage });
    this.#allocated.set(buffer, { category, bytes });
    this.#bytes.set(category, (this.#bytes.get(category) ?? 0) + bytes);
    if (bytes > this.#largestBuffer.bytes) this.#largestBuffer = { label, bytes };
    this.#peakBytes = Math.max(this.#peakBytes, this.totalBytes);
    if (!isQuantized(dtype)) return { buffer, offset: 0, shape, dtype };
    const { block, scales } = QUANTIZED[dtype];
    const blocks = Math.ceil(elementCount(shape) / block);
    return { buffer, offset: 0, shape, dtype, scales: this.allocate(category, `${label} scales`, [blocks], scales) };
  }

  /** Runs `work`, which allocates; if it throws, what it has allocated by then is given back. */
  allocating<T>(work: () => T): T {
    const before = new Set(this.#allocated.keys());
    try {
      return work();
    } catch (error) {
      for (const buffer of this.#allocated.keys()) {
        if (!before.has(buffer)) this.free({ buffer, offset: 0, shape: [], dtype: "f32" });
      }
      throw error;
    }
  }

  /** Gives a buffer back. Tensors in it and programs that use it must not be used afterwards. */
  free(tensor: Tensor): void {
    const entry = this.#allocated.get(tensor.buffer);
    if (entry === undefined) return;
    this.#allocated.delete(tensor.buffer);
    this.#bytes.set(entry.category, (this.#bytes.get(entry.category) ?? 0) - entry.bytes);
    tensor.buffer.destroy();
    if (tensor.scales) this.free(tensor.scales);
  }

  /** Bytes now allocated, by category. */
  memory(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#bytes].filter(([, bytes]) => bytes > 0));
  }

  get totalBytes(): number {
    return [...this.#bytes.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** The largest buffer that was ever allocated. */
  get largestBuffer(): { readonly label: string; readonly bytes: number } {
    return this.#largestBuffer;
  }

  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Copies host numbers into a tensor (or its first elements). Ordered with submitted work. */
  upload(tensor: Tensor, data: UploadData): void {
    this.check();
    if (data.byteLength > byteLength(tensor)) {
      throw new Error(`upload of ${data.byteLength} bytes into a tensor of ${byteLength(tensor)}`);
    }
    // Dawn crashes on shared memory and throws on ranges that are not multiples of 4 bytes; ours always are.
    if (!(data.buffer instanceof ArrayBuffer)) throw new Error("upload from shared memory");
    this.gpu.queue.writeBuffer(tensor.buffer, tensor.offset, data);
  }

  /** Reads a tensor back, after all work submitted so far. */
  async download(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
    return new Float32Array(await this.downloadBytes(tensor));
  }

  /** Reads a tensor of any element type back as raw bytes, after all work submitted so far. */
  async downloadBytes(tensor: Tensor): Promise<ArrayBuffer> {
    return await this.downloadAll([tensor]);
  }

  /** The bytes of several tensors one behind the other, read together. */
  async downloadAll(tensors: readonly Tensor[]): Promise<ArrayBuffer> {
    this.check();
    const bytes = tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0);
    if (bytes === 0) return new ArrayBuffer(0);
    const size = alignWindow(bytes);
    const staging =
      this.#staging.get(size)?.pop() ??
      this.gpu.createBuffer({ label: "staging", size, usage: USAGE.mapRead | USAGE.copyTarget });
    let reusable = false;
    try {
      const encoder = this.gpu.createCommandEncoder();
      let at = 0;
      for (const tensor of tensors) {
        encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, staging, at, byteLength(tensor));
        at += byteLength(tensor);
      }
      this.gpu.queue.submit([encoder.finish()]);
      try {
        await platform.withoutSpinning(staging.mapAsync(MAP_MODE_READ, 0, bytes));
      } catch (error) {
        await Promise.resolve();
        this.check();
        throw error;
      }
      const copy = staging.getMappedRange(0, bytes).slice(0);
      staging.unmap();
      reusable = size <= LARGEST_KEPT_STAGING;
      this.check();
      return copy;
    } finally {
      const pool = this.#staging.get(size) ?? [];
      if (reusable && pool.length < 4) this.#staging.set(size, [...pool, staging]);
      else staging.destroy();
    }
  }

  /**
   * The pipeline of a kernel, compiled at the first call and shared by every kernel with the same text. A compile error
   * carries the numbered source.
   */
  compiled(kernel: Kernel): Promise<CompiledKernel> {
    return this.#pipelines.compiled(kernel);
  }

  /** How many kernels are being compiled, and how many of these are ready; undefined while none is. */
  get compiling(): { readonly asked: number; readonly done: number } | undefined {
    return this.#pipelines.compiling;
  }

  /** Copies a tensor into another one of the same size, at once; queued behind what was submitted. */
  copy(from: Tensor, to: Tensor): void {
    const bytes = byteLength(from);
    if (bytes !== byteLength(to)) throw new Error("a copy needs tensors of one size");
    const encoder = this.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
    this.submit(encoder.finish());
  }

  /** Submits encoded work. */
  submit(commands: GPUCommandBuffer): void {
    this.check();
    this.gpu.queue.submit([commands]);
  }

  /** Estimated work, flops or bytes, that one dispatch and one submit may hold. */
  get workLimit(): number {
    return this.isSoftware ? WORK_LIMIT.software : WORK_LIMIT.hardware;
  }

  /** Waits until all submitted work is done, then raises what went wrong in it. */
  async idle(): Promise<void> {
    this.check();
    try {
      await platform.withoutSpinning(this.gpu.queue.onSubmittedWorkDone());
    } catch (error) {
      await Promise.resolve(); // the news of a lost device comes after this one
      this.check();
      throw error;
    }
    this.check();
  }

  /** Destroys the device. Buffers and programs of it must not be used afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.gpu.destroy();
  }
}

/** The error of a program that has freed what it goes on to use, in its own terms; undefined for any other. */
function usedAfterFree({ message }: GPUError): ConfigError | undefined {
  const label = /\[Buffer "([^"]*)"\] used in submit while destroyed/.exec(message)?.[1];
  return label === undefined
    ? undefined
    : new ConfigError(
        `The device memory "${label}" was freed and used again: free a model, an adapter, a trainer, an evaluator or a generator only when no work on it is under way or to come.`,
      );
}

/**
 * The choice that an option names or else an environment variable, the first one if neither does. Throws ConfigError
 * for any other.
 */
function choiceOf<const T extends string>(
  option: string,
  given: string | undefined,
  variable: string,
  choices: readonly [T, ...T[]],
): T {
  const value = given ?? platform.environment(variable);
  const found = value === undefined ? choices[0] : choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  const name = given === undefined ? `the variable ${variable}` : `option "${option}"`;
  throw new ConfigError(`${name} is ${JSON.stringify(value)}; use ${choices.join(" or ")}.`);
}
