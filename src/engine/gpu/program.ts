/**
 * A program: a recorded list of dispatches, clears and copies. Shapes are checked while recording; pipelines, bind
 * groups and uniforms are made once in `prepare`; a replay only encodes and submits, allocates nothing and checks
 * nothing. There is no graph and no tape: the caller writes forward and backward out in order.
 */
import { AdapterError } from "../../errors.ts";
import {
  type Cost,
  fittingFormat,
  type Kernel,
  type KernelArguments,
  MATRICES,
  resolveValues,
  uniformWords,
  type Values,
} from "../../kernels/kernel.ts";
import type { ProductFormat } from "../../kernels/matmul-variant.ts";
import { platform } from "../platform/index.ts";
import type { Device } from "./device.ts";
import {
  checkWindows,
  type Dispatch,
  encodePiece,
  encodeTransfer,
  type PreparedPiece,
  type Step,
  type Together,
} from "./dispatch.ts";
import { MOST_PASSES, PassTimer } from "./pass-timer.ts";
import { type GridPiece, piecesOf } from "./pieces.ts";
import type { CompiledKernel } from "./pipelines.ts";
import { byteLength, elementCount, type Tensor, WINDOW_ALIGNMENT } from "./tensor.ts";
import type { Trial } from "./tuner.ts";

/** Time of one kernel within a profiled program. */
export interface KernelTime {
  readonly name: string;
  /** Dispatches that were recorded; one that runs in pieces counts once. */
  readonly dispatches: number;
  readonly ms: number;
  readonly flops: number;
  readonly bytes: number;
}

export class Program {
  readonly device: Device;
  readonly name: string;
  /** What its products may round their operands to, where matrices multiply them. */
  readonly products: ProductFormat;
  readonly #steps: Step[] = [];
  #uniforms: Tensor | undefined;
  #prepared: Promise<void> | undefined;

  constructor(device: Device, name: string, products: ProductFormat = "f32") {
    this.device = device;
    this.name = name;
    this.products = products;
  }

  /**
   * Records a dispatch, which runs in pieces where its work exceeds what the device may be given at once. Throws when a
   * shape does not fit or a window exceeds what the adapter can bind.
   *
   * @param together with which others it takes one candidate
   */
  dispatch<B extends string, U extends string>(
    given: Kernel<B, U>,
    args: KernelArguments<Tensor, B, U>,
    together?: Together,
  ): void {
    if (this.#prepared) throw new Error(`program ${this.name} is already prepared`);
    const kernel = fittingFormat(given, args);
    const values = resolveValues(kernel, args);
    const candidates = kernel.candidates?.(values) ?? [kernel];
    const [chosen = kernel] = candidates;
    const cost = kernel.cost(values);
    const pieces = this.#pieces(chosen, values, cost);
    if (pieces.length === 0) return;
    const tensorOf = args as Readonly<Record<string, Tensor>>;
    const tensors = kernel.bindings.map(
      ({ name, scalesOf }) => (scalesOf === undefined ? tensorOf[name] : tensorOf[scalesOf]?.scales) as Tensor,
    );
    checkWindows(this.device, kernel, tensors);
    this.#steps.push({ type: "dispatch", kernel: chosen, candidates, tensors, values, pieces, cost, together });
  }

  #pieces(kernel: Kernel, values: Values, cost: Cost): PreparedPiece[] {
    return piecesOf(kernel, values, Math.max(cost.flops, cost.bytes), this.device.workLimit);
  }

  /** Records zeroing a tensor. */
  clear(tensor: Tensor): void {
    if (elementCount(tensor.shape) > 0) this.#steps.push({ type: "clear", tensor });
  }

  /** Records a place at which `run` tells that all before it is submitted. */
  mark(mark: number): void {
    this.#steps.push({ type: "mark", mark });
  }

  /** Records a copy between two buffers. */
  copy(from: Tensor, to: Tensor): void {
    if (byteLength(from) > byteLength(to)) throw new Error("copy into a smaller tensor");
    if (elementCount(from.shape) > 0) this.#steps.push({ type: "copy", from, to });
  }

  /** Dispatches recorded so far, each piece of one counted. */
  get dispatches(): number {
    return this.pieces.length;
  }

  /** What is dispatched, in order: the kernel's name and the estimated work, flops or bytes. */
  get pieces(): readonly { readonly kernel: string; readonly work: number }[] {
    return this.#steps.flatMap((step) =>
      step.type === "dispatch" ? step.pieces.map(({ work }) => ({ kernel: step.kernel.name, work })) : [],
    );
  }

  /** The kernels of its dispatches, in order: name and, among candidates, the one that `choose` has chosen. */
  get kernels(): readonly string[] {
    return this.#steps.flatMap((step) =>
      step.type === "dispatch" ? `${step.kernel.name} ${step.kernel.variant ?? ""}`.trimEnd() : [],
    );
  }

  /** Flops and bytes of one replay. */
  get cost(): Cost {
    let flops = 0;
    let bytes = 0;
    for (const step of this.#steps) {
      if (step.type !== "dispatch") continue;
      flops += step.cost.flops;
      bytes += step.cost.bytes;
    }
    return { flops, bytes };
  }

  /** Chooses the kernels that will run, as `prepare` does; compiles nothing but what has to be timed for it. */
  async choose(): Promise<void> {
    for (const step of this.#steps) if (step.type === "dispatch") await this.#choose(step);
  }

  /** Compiles what is needed and builds bind groups; further calls return the same promise. */
  prepare(): Promise<void> {
    this.#prepared ??= this.#prepare();
    return this.#prepared;
  }

  async #prepare(): Promise<void> {
    const { device } = this;
    const dispatches = this.#steps.filter((step) => step.type === "dispatch");
    await this.choose();
    const compiled = await Promise.all(dispatches.map((step) => this.#compiled(step)));
    // Equal uniforms share one slot; slots are bound by offset.
    const slots = new Map<string, number>();
    const contents: Uint32Array[] = [];
    const slotOf = ({ kernel, values }: Dispatch, { first }: GridPiece) => {
      const words = uniformWords(kernel, values, first);
      const key = words.join(",");
      const known = slots.get(key);
      if (known !== undefined) return { offset: known, bytes: words.byteLength };
      const offset = contents.length * WINDOW_ALIGNMENT;
      slots.set(key, offset);
      contents.push(words);
      return { offset, bytes: words.byteLength };
    };
    const slotsOf = dispatches.map((step) => step.pieces.map((piece) => slotOf(step, piece)));
    if (contents.length > 0) {
      const wordsPerSlot = WINDOW_ALIGNMENT / 4;
      const all = new Uint32Array(contents.length * wordsPerSlot);
      contents.forEach((words, index) => {
        all.set(words, index * wordsPerSlot);
      });
      this.#uniforms = device.allocate("uniforms", `${this.name} uniforms`, [all.length], "u32");
      device.upload(this.#uniforms, all);
    }
    // Scopes are a stack of the device: one that stays open over an await would take another program's errors.
    device.gpu.pushErrorScope("validation");
    for (const [index, step] of dispatches.entries()) {
      const made = compiled[index];
      if (this.#uniforms === undefined || made === undefined) continue;
      const { buffer } = this.#uniforms;
      const { pipeline, layout } = made;
      step.pipeline = pipeline;
      step.pieces.forEach((piece, at) => {
        const { offset = 0, bytes = 0 } = slotsOf[index]?.[at] ?? {};
        piece.group = device.gpu.createBindGroup({
          label: step.kernel.name,
          layout,
          entries: [
            { binding: 0, resource: { buffer, offset, size: bytes } },
            ...step.tensors.map((tensor, binding) => ({
              binding: binding + 1,
              resource: { buffer: tensor.buffer, offset: tensor.offset, size: byteLength(tensor) },
            })),
          ],
        });
      });
    }
    const error = await platform.withoutSpinning(device.gpu.popErrorScope());
    if (error !== null) throw new Error(`program ${this.name}: ${error.message}`);
  }

  /**
   * The pipeline of a dispatch. An adapter with several sizes of subgroups may refuse the pinned size for one text and
   * take it for another, and a driver a text on matrices: the next candidate has its turn then, and without one the error
   * stands.
   */
  async #compiled(step: Dispatch): Promise<CompiledKernel> {
    const others = step.candidates.filter(({ wgsl }) => wgsl !== step.kernel.wgsl);
    for (;;) {
      try {
        return await this.device.compiled(step.kernel);
      } catch (error) {
        const next = this.#mayBeRefused(step.kernel) ? others.shift() : undefined;
        if (next === undefined) throw error;
        this.#take(step, next);
      }
    }
  }

  /** A driver may refuse pinned sizes of subgroups, and matrices, whose feature is experimental. */
  #mayBeRefused({ wgsl }: Kernel): boolean {
    return this.device.pinsSubgroupSize || wgsl.includes(`enable ${MATRICES};`);
  }

  /** The candidates without those that the driver refuses. */
  async #accepted(candidates: readonly Kernel[]): Promise<readonly Kernel[]> {
    const made = await Promise.allSettled(
      candidates.map((kernel) => (this.#mayBeRefused(kernel) ? this.device.compiled(kernel) : undefined)),
    );
    const accepted = candidates.filter((_, index) => made[index]?.status === "fulfilled");
    return accepted.length > 0 ? accepted : candidates;
  }

  /** Replaces a dispatch's kernel by the candidate that the device's tuner chooses. */
  async #choose(step: Dispatch): Promise<void> {
    const { kernel, candidates, together } = step;
    if (candidates.length < 2) return;
    const decided = candidates.find(({ variant }) => variant !== undefined && variant === together?.variant);
    if (decided !== undefined) {
      this.#take(step, decided);
      return;
    }
    const chosen = await this.device.tuner.choose({
      kernel: kernel.name,
      tuningClass: kernel.tuningClass ?? "",
      variants: candidates.map(({ variant = "" }) => variant),
      texts: candidates.map(({ wgsl }) => wgsl),
      flops: kernel.tuningFlops ?? step.cost.flops,
      trialBytes: kernel.bindings.reduce((sum, { access }, index) => {
        const tensor = step.tensors[index];
        return access === "read" || tensor === undefined ? sum : sum + byteLength(tensor);
      }, 0),
      trials: () => this.#trials(step),
    });
    if (together !== undefined) together.variant = chosen;
    this.#take(step, candidates.find(({ variant }) => variant === chosen) ?? kernel);
  }

  #take(step: Dispatch, kernel: Kernel): void {
    step.kernel = kernel;
    step.pieces = this.#pieces(kernel, step.values, step.cost);
  }

  /**
   * A program for each candidate of a dispatch, which reads the dispatch's tensors, or what the kernel has in their
   * place, and writes copies of its results.
   */
  async #trials(step: Dispatch): Promise<{ trials: Trial[]; done: () => void }> {
    const { device } = this;
    const own: Tensor[] = [];
    const programs: Program[] = [];
    const done = () => {
      for (const program of programs) program.dispose();
      for (const tensor of own) device.free(tensor);
    };
    try {
      const contents = step.kernel.trial?.(step.values) ?? {};
      const tensors = step.kernel.bindings.map(({ name, access }, index) => {
        const tensor = step.tensors[index] as Tensor;
        const content = contents[name];
        if (access === "read" && content === undefined) return tensor;
        const scratch = device.allocate("scratch", `trial of ${name}`, tensor.shape, tensor.dtype);
        own.push(scratch);
        if (content !== undefined) device.upload(scratch, content);
        return scratch;
      });
      const trials = await Promise.all(
        (await this.#accepted(step.candidates)).map(async (kernel) => {
          const program = new Program(device, `trial of ${kernel.name}`);
          programs.push(program);
          const { values } = step;
          const cost = kernel.cost(values);
          const pieces = this.#pieces(kernel, values, cost);
          program.#steps.push({
            type: "dispatch",
            kernel,
            candidates: [],
            tensors,
            values,
            pieces,
            cost,
            together: undefined,
          });
          await program.prepare();
          const run = async (times: number): Promise<void> => {
            for (let i = 0; i < times; i++) program.run();
            await device.idle();
          };
          return { variant: kernel.variant ?? "", run };
        }),
      );
      return { trials, done };
    } catch (error) {
      done();
      throw error;
    }
  }

  /**
   * Encodes and submits the program, in several submits if it is long. `prepare` must have been awaited.
   *
   * @param timer times the passes, if given
   * @param onMark told of each mark as soon as what was recorded before it is submitted
   */
  run(timer?: PassTimer, onMark?: (mark: number) => void): void {
    const { device } = this;
    let encoder = device.gpu.createCommandEncoder({ label: this.name });
    let pass: GPUComputePassEncoder | undefined;
    let work = 0;
    const flush = () => {
      pass?.end();
      pass = undefined;
      device.submit(encoder.finish());
      work = 0;
    };
    for (const step of this.#steps) {
      if (step.type === "mark") {
        if (onMark === undefined) continue;
        flush();
        encoder = device.gpu.createCommandEncoder({ label: this.name });
        onMark(step.mark);
        continue;
      }
      if (step.type !== "dispatch") {
        pass?.end();
        pass = undefined;
        encodeTransfer(encoder, step);
        continue;
      }
      for (const piece of step.pieces) {
        if (work > 0 && work + piece.work > device.workLimit) {
          flush();
          encoder = device.gpu.createCommandEncoder({ label: this.name });
        }
        work += piece.work;
        if (pass === undefined) {
          const timestampWrites = timer?.next();
          pass = encoder.beginComputePass(timestampWrites && { timestampWrites });
        }
        encodePiece(pass, step, piece);
      }
    }
    flush();
  }

  /** Runs the program once and times every dispatch on the device; slowest kernels first. Needs timestamp queries. */
  async profile(): Promise<KernelTime[]> {
    await this.prepare();
    if (!this.device.gpu.features.has("timestamp-query")) throw new AdapterError("This adapter cannot time kernels.");
    const totals = new Map<string, KernelTime>();
    const timer = new PassTimer(this.device);
    let timed: Dispatch[] = [];
    let encoder = this.device.gpu.createCommandEncoder();
    const flush = async () => {
      this.device.submit(encoder.finish());
      encoder = this.device.gpu.createCommandEncoder();
      const stamps = (await timer.stamps()) ?? [];
      for (const [index, { kernel, cost }] of timed.entries()) {
        const { name } = kernel;
        const own = Number((stamps[2 * index + 1] ?? 0n) - (stamps[2 * index] ?? 0n)) / 1e6;
        const { dispatches, ms, flops, bytes } = totals.get(name) ?? { dispatches: 0, ms: 0, flops: 0, bytes: 0 };
        const sums = { dispatches: dispatches + 1, ms: ms + own, flops: flops + cost.flops, bytes: bytes + cost.bytes };
        totals.set(name, { name, ...sums });
      }
      timed = [];
      timer.restart();
    };
    for (const step of this.#steps) {
      if (step.type === "mark") continue;
      if (step.type !== "dispatch") {
        encodeTransfer(encoder, step);
        continue;
      }
      const timestampWrites = timer.next();
      const pass = encoder.beginComputePass(timestampWrites && { timestampWrites });
      for (const piece of step.pieces) encodePiece(pass, step, piece);
      pass.end();
      if (timed.push(step) === MOST_PASSES) await flush();
    }
    await flush();
    timer.free();
    return [...totals.values()].sort((a, b) => b.ms - a.ms);
  }

  /** Frees what the program itself holds. */
  dispose(): void {
    if (this.#uniforms) this.device.free(this.#uniforms);
    this.#uniforms = undefined;
  }
}
