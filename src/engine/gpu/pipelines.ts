/**
 * The compute pipelines of one device: each kernel's text is compiled once, at its first use, and kept. What is bound to
 * them and when they run is decided in `program.ts`.
 */
import { errorMessage } from "../../errors.ts";
import type { Kernel } from "../../kernels/kernel.ts";
import { platform } from "../platform/index.ts";
import { withPinnedSize } from "./subgroup-size.ts";

/** A kernel's pipeline, and the layout of its one bind group: uniforms at 0, then its bindings in order. */
export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const STAGE_COMPUTE = 4;

export class Pipelines {
  readonly gpu: GPUDevice;
  /** The size of subgroups that every text names; undefined where the adapter has one size alone. */
  readonly pinned: number | undefined;
  readonly #check: () => void;
  readonly #compiled = new Map<string, Promise<CompiledKernel>>();
  /** While kernels are compiled: how many were asked for, and how many of these are ready. Else both are 0. */
  #compiling = { asked: 0, done: 0 };

  /** @param check raises what went wrong on the device by now; called before a kernel is compiled */
  constructor(gpu: GPUDevice, pinned: number | undefined, check: () => void) {
    this.gpu = gpu;
    this.pinned = pinned;
    this.#check = check;
  }

  /**
   * The pipeline of a kernel, compiled at the first call and shared by every kernel with the same text.
   *
   * @throws Error with the numbered source where the text does not compile
   */
  async compiled(kernel: Kernel): Promise<CompiledKernel> {
    let found = this.#compiled.get(kernel.wgsl);
    if (found === undefined) {
      this.#check();
      found = this.#compile(kernel);
      this.#compiled.set(kernel.wgsl, found);
    }
    return await found;
  }

  /** How many kernels are being compiled, and how many of these are ready; undefined while none is. */
  get compiling(): { readonly asked: number; readonly done: number } | undefined {
    return this.#compiling.done < this.#compiling.asked ? { ...this.#compiling } : undefined;
  }

  async #compile(kernel: Kernel): Promise<CompiledKernel> {
    this.#compiling.asked++;
    try {
      return await this.#pipelineOf(kernel);
    } finally {
      const { asked, done } = this.#compiling;
      this.#compiling = done + 1 < asked ? { asked, done: done + 1 } : { asked: 0, done: 0 };
    }
  }

  async #pipelineOf(kernel: Kernel): Promise<CompiledKernel> {
    const { gpu } = this;
    gpu.pushErrorScope("validation");
    const code = this.pinned === undefined ? kernel.wgsl : withPinnedSize(kernel.wgsl, this.pinned);
    const module = gpu.createShaderModule({ label: kernel.name, code });
    const layout = gpu.createBindGroupLayout({
      label: kernel.name,
      entries: [
        { binding: 0, visibility: STAGE_COMPUTE, buffer: { type: "uniform" } },
        ...kernel.bindings.map(
          ({ access }, index): GPUBindGroupLayoutEntry => ({
            binding: index + 1,
            visibility: STAGE_COMPUTE,
            buffer: { type: access === "read" ? "read-only-storage" : "storage" },
          }),
        ),
      ],
    });
    const pending = gpu.createComputePipelineAsync({
      label: kernel.name,
      layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    });
    const [outcome, scopeError] = await platform.withoutSpinning(
      Promise.all([
        pending.then(
          (pipeline) => ({ pipeline }),
          (error: unknown) => ({ error }),
        ),
        gpu.popErrorScope(),
      ]),
    );
    if ("pipeline" in outcome && scopeError === null) return { pipeline: outcome.pipeline, layout };
    const messages = (await module.getCompilationInfo()).messages.map(
      (message) => `  line ${message.lineNum}: ${message.message}`,
    );
    const source = code.split("\n").map((line, index) => `${String(index + 1).padStart(4)}  ${line}`);
    const reason = "error" in outcome ? errorMessage(outcome.error) : scopeError?.message;
    throw new Error(`kernel ${kernel.name} does not compile: ${reason}\n${messages.join("\n")}\n${source.join("\n")}`);
  }
}
